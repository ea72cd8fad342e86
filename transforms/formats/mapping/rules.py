"""What a mapping says: a rule for each event column and item, and which messages are skipped."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

Path = tuple["str | int", ...]

_STEP = re.compile(
    r"""\.(?P<plain>[^.\[\]'"]+)|\[(?P<index>[0-9]{1,6})\]|\['(?P<single>[^']+)'\]|\["(?P<double>[^"]+)"\]"""
)


@dataclass(frozen=True)
class Rule:
    """Where the values of an event column or item come from.

    Attributes:
        path: the input's column, or JSON path; empty for a constant.
        constant: the value of every event; empty if there is a path.
        values: the input's text -> what is written for it; other values stay as they are.
        default: for events without a value, and for values that `values` does not have.
        time_format: of a time: `strptime` format, or `s`, `ms`, `us`, `ns`.
        type: of an item (`items.TYPES`).
    """

    path: str = ""
    constant: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None
    time_format: str | None = None
    type: str = "string"

    @property
    def changes(self) -> bool:
        """Whether a value may become another."""
        return bool(self.values) or self.default is not None


@dataclass(frozen=True)
class Condition:
    """What a message must be like to be skipped.

    Attributes:
        path: the input's column, or JSON path.
        values: it has one of these texts there.
        missing: it has nothing there.
    """

    path: str
    values: tuple[str, ...] = ()
    missing: bool = False


@dataclass(frozen=True, eq=False)
class EventMapping:
    """A mapping.

    Attributes:
        columns: event column -> its rule.
        items: item -> its rule.
        skip: a message that fits any of these is no event.
        recognise: columns without a rule are recognised by their names.
        time_format: of all times without a format of their own; None: ISO 8601 or an epoch.
        timezone: zone of times that have none; None: what `--timezone` says.
        text: the mapping as canonical JSON.
    """

    columns: Mapping[str, Rule]
    items: Mapping[str, Rule] = field(default_factory=dict)
    skip: tuple[Condition, ...] = ()
    recognise: bool = True
    time_format: str | None = None
    timezone: str | None = None
    text: str = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EventMapping) and self._said == other._said

    def __hash__(self) -> int:
        return hash(self._said)

    @cached_property
    def _said(self) -> str:
        said = (self.columns, self.items, self.skip, self.recognise, self.time_format)
        return repr((*said, self.timezone))

    @cached_property
    def paths(self) -> dict[str, str]:
        """Event column -> path, of those that have one."""
        return {column: rule.path for column, rule in self.columns.items() if not rule.constant}

    @cached_property
    def constants(self) -> dict[str, str]:
        """Event column -> value of every event."""
        return {c: rule.constant for c, rule in self.columns.items() if rule.constant}

    def without(self, columns: Collection[str], items: Collection[str] = ()) -> EventMapping:
        """Return the mapping without some rules: what is said elsewhere counts more."""
        return replace(
            self,
            columns={c: rule for c, rule in self.columns.items() if c not in columns},
            items={i: rule for i, rule in self.items.items() if i not in items},
        )


def is_path(name: str) -> bool:
    """Say whether a name can only be a JSON path: `$.a.b`, `$['a.b'][0]`."""
    return name.startswith(("$.", "$["))


def path_of(name: str) -> Path:
    """Return the keys and positions that a name leads through.

    `a.b` and `$.a.b` are key `b` of `a`; `a['b.c']` is a key with a dot, `a[0]` the first of a
    list. A name that is no path is a key.
    """
    text = name[1:] if is_path(name) else f".{name}"
    steps: list[str | int] = []
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None:
            return (name,) if "[" in name or "'" in name or '"' in name else tuple(name.split("."))
        if found["index"] is not None:
            steps.append(int(found["index"]))
        else:
            steps.append(found["plain"] or found["single"] or found["double"])
        at = found.end()
    return tuple(steps)


def path_problem(name: str) -> str | None:
    """Say what is wrong with a path, None if nothing."""
    if not name.strip():
        return "is empty"
    text = name[1:] if is_path(name) else f".{name}"
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None:
            return (
                f"is no path at '{text[at:][:20]}'; write keys with dots between them, ['a.b'] "
                "for a key with a dot in it, [0] for the first of a list"
            )
        at = found.end()
    return None
