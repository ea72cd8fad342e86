"""Columns recognised in each JSON object by its own names, whatever objects are around it.

A topic's columns are fixed by its first messages. Where there were none, or a format turns up
later, an object's columns are those that its own names say: of the names that an event column
is known by, the first that it has. So the result depends neither on how messages happen to
be batched nor on a restart. What only the values of several could decide (whether `task` is a
number) is not recognised so, and of `event_id` only a value that no other event can have, as its
form says: a kind of event is called so too. `--columns` says it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats.columns import INTEGERS, KNOWN, key_of, to_text
from transforms.formats.json_columns import LineColumns, Path
from transforms.formats.line_blocks import Offsets
from transforms.formats.mapping.apply import skipped_rows
from transforms.formats.mapping.rules import EventMapping, is_path, path_of

Lines = tuple[bytes, Offsets, Offsets]
Plan = TypeVar("Plan")

_SEPARATOR = "\x1f"
# Every text is taken whole, one without an end too: a quote is never tried twice.
_TEXT = re.compile(rb'("(?:[^"\\]|\\.)*(?:"|\Z))(\s*:)?', re.DOTALL)
_BY_VALUE = INTEGERS
# UUIDs as they are written, also without hyphens; longer hashes; the ids of MongoDB; ULIDs.
_UNIQUE = (
    r"^(?:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{24}|[0-9a-fA-F]{32,128}"
    r"|[0-7][0-9A-HJKMNP-TV-Z]{25})$"
)
THAT_IS_UNIQUE = "that is a UUID or the like (--columns event_id=NAME: any)"
"""Which `event_id` is recognised, for the end of a sentence."""
_KEYS = {
    column: {key: rank for rank, key in enumerate(keys.split())}
    for column, keys in KNOWN.items()
    if column not in _BY_VALUE
}

_EVERY_KEY = frozenset(key for ranks in _KEYS.values() for key in ranks)


@dataclass(frozen=True)
class NamePlan:
    """Where the event columns of each object may be.

    Attributes:
        columns: event column -> fields, the first that an object has counts.
        items: business item -> fields, likewise.
        paths: field -> keys that lead to it.
        starts: whether an event that has only a start is ordered by that.
        conditions: path that says which objects are skipped -> fields, likewise.
        guessed: columns that were recognised, not given.
    """

    columns: Mapping[str, tuple[str, ...]]
    items: Mapping[str, tuple[str, ...]]
    paths: Mapping[str, Path]
    starts: bool
    conditions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    guessed: frozenset[str] = frozenset()

    @property
    def times(self) -> frozenset[str]:
        """Fields that are times only."""
        of_times = {f for c in ("event_time", "start_time") for f in self.columns.get(c, ())}
        others = {f for c, fs in self.columns.items() if c not in _TIMES for f in fs}
        others |= {f for fields in self.items.values() for f in fields}
        others |= {f for fields in self.conditions.values() for f in fields}
        return frozenset(of_times - others)

    def event_columns(self, arrays: Mapping[str, pa.Array], rows: int) -> dict[str, pa.Array]:
        """Return event column -> values, of what was read of `rows` objects."""
        found = {c: first_of([arrays[f] for f in fs], rows) for c, fs in self.columns.items() if fs}
        if "event_id" in found and "event_id" in self.guessed:
            ids = to_text(found["event_id"])
            unique = pc.match_substring_regex(ids, _UNIQUE)
            found["event_id"] = pc.if_else(unique, ids, pa.scalar(None, pa.string()))
        start = found.get("start_time")
        if self.starts and start is not None:
            when = found.get("event_time", pa.nulls(rows, pa.string()))
            found["event_time"] = pc.coalesce(to_text(when), to_text(start))
            found["start_time"] = pc.if_else(
                when.is_valid(), to_text(start), pa.scalar(None, pa.string())
            )
        return found

    def item_columns(self, arrays: Mapping[str, pa.Array], rows: int) -> dict[str, pa.Array]:
        """Return business item -> values."""
        return {i: first_of([arrays[f] for f in fs], rows) for i, fs in self.items.items()}


def without_skipped(
    plan: NamePlan, found: LineColumns, mapping: EventMapping | None
) -> LineColumns:
    """Take out the objects that a mapping skips; they are counted as blank ones are."""
    rows = len(found.lines)
    if mapping is None or not plan.conditions:
        return found
    values = {p: first_of([found.arrays[f] for f in fs], rows) for p, fs in plan.conditions.items()}
    skipped = skipped_rows(mapping, values, rows, to_text)
    if skipped is None:
        return found
    kept = pa.array(~skipped)
    arrays = {name: array.filter(kept) for name, array in found.arrays.items()}
    return replace(
        found,
        lines=found.lines[~skipped],
        arrays=arrays,
        blank=found.blank + int(skipped.sum()),
    )


_TIMES = ("event_time", "start_time")


def first_of(arrays: Sequence[pa.Array], rows: int) -> pa.Array:
    """Return the first value that is not null, of each row."""
    if not arrays:
        return pa.nulls(rows, pa.string())
    if len(arrays) == 1 or not arrays[0].null_count:
        return arrays[0]
    return pc.coalesce(*map(to_text, arrays))


def read_by_names(
    lines: Lines,
    plan: Callable[[Collection[str]], Plan],
    read: Callable[[Plan, list[int]], LineColumns],
) -> tuple[Plan, LineColumns]:
    """Read objects with a plan that is made of all names in them.

    Args:
        lines: bytes, start and end of each object.
        plan: makes a plan of names.
        read: reads the objects by a plan; adds lines to the list as `read_lines` does to `layouts`.
    """
    known: set[str] = set()
    first = np.flatnonzero(lines[1] < lines[2])[:1]
    new = _names_of(lines, first)
    while True:
        known |= new
        made = plan(known)
        layouts: list[int] = []
        found = read(made, layouts)
        new = _names_of(lines, np.array(layouts, np.int64)) - known
        if not new:
            return made, found


def plan_names(
    names: Collection[str],
    columns: Mapping[str, str],
    items: Sequence[str],
    below: Path = (),
    mapping: EventMapping | None = None,
) -> NamePlan:
    """Find where the event columns of some objects may be.

    Args:
        names: keys that the objects have, and maybe others.
        columns: event column -> name or path, as given; an empty one leaves the column out.
        items: names or paths of business items.
        below: keys that lead to the object that has the names.
        mapping: what `--mapping` says; `columns` counts more.
    """
    rules = mapping.items if mapping is not None else {}
    unsought: Collection[str] = ()
    if mapping is not None:
        columns = {**mapping.paths, **columns}
        unsought = mapping.constants if mapping.recognise else KNOWN
    paths: dict[str, Path] = {}

    def fields(*alternatives: Path) -> tuple[str, ...]:
        named = {_SEPARATOR.join(map(str, path)): (*below, *path) for path in alternatives}
        paths.update(named)
        return tuple(named)

    def given(name: str) -> tuple[str, ...]:
        # Whether a dot is part of a name or of a path, each object says for itself.
        return fields(path_of(name)) if is_path(name) else fields((name,), path_of(name))

    found = {column: given(name) for column, name in columns.items() if name}
    used = set(columns.values())
    guessed: set[str] = set()
    for column, known in _known_names(names).items():
        if column not in columns and column not in unsought:
            found[column] = fields(*((name,) for name in known if name not in used))
            guessed.add(column)
    return NamePlan(
        {column: fs for column, fs in found.items() if fs},
        {
            item: given(rules[item].path if item in rules else item)
            for item in items
            if item not in rules or rules[item].path
        },
        paths,
        starts="event_time" not in columns and "event_time" not in unsought,
        conditions={c.path: given(c.path) for c in mapping.skip} if mapping is not None else {},
        guessed=frozenset(guessed),
    )


def _known_names(names: Collection[str]) -> dict[str, list[str]]:
    """Return event column -> the names that it is known by, best first."""
    keys = {name: key_of(name) for name in sorted(names)}
    return {
        column: [
            name
            for _, name in sorted((ranks[key], name) for name, key in keys.items() if key in ranks)
        ]
        for column, ranks in _KEYS.items()
    }


def _names_of(lines: Lines, numbers: Offsets) -> set[str]:
    """Return the keys in some of the lines that an event column may be known by."""
    data, starts, ends = lines
    found: set[bytes] = set()
    for number in numbers.tolist():
        texts = _TEXT.findall(data, starts[number], ends[number])
        found.update(text for text, colon in texts if colon)
    names = set()
    for text in found:
        try:
            names.add(orjson.loads(text))
        except orjson.JSONDecodeError:
            continue
    return {name for name in names if key_of(name) in _EVERY_KEY}
