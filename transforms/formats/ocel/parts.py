"""A part of an object-centric log, and the events of the cases in it.

Attributes of objects change over time: an event has the values that its case had then, the change
of that very moment included (OCEL 2.0, "dynamic object attributes").
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from schemas.dead_letters import MAX_PAYLOAD
from transforms.arrays import integers
from transforms.formats.base import Context, Decoded, Failure
from transforms.formats.columns import build_events, name_column, replay_attributes, to_attributes
from transforms.formats.times import parse_times

QUALIFIER = "ocel:qualifier"
"""The item that is how an event relates to its case."""

DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "actor": ("org:resource", "resource"),
    "lifecycle": ("lifecycle:transition",),
}
"""Event columns that are found by the name of an attribute."""

_FIXED = ("event_id", "case_id", "event_time", "activity")
_SHOWN = 3


class InvalidOcel(ValueError):
    """A log that cannot be read.

    Attributes:
        error: the class of the dead letter.
    """

    def __init__(self, message: str, error: str = "InvalidOcel") -> None:
        super().__init__(message)
        self.error = error


@dataclass
class Object:
    """An object: its type, and (attribute, time or None, value) as often as it changed."""

    type: str
    attributes: list[tuple[str, str | None, str]] = field(default_factory=list)


@dataclass
class Event:
    """An event, its attributes, and the objects that it relates to, with how it does."""

    id: str | None
    type: str | None
    time: str | None
    attributes: dict[str, str] = field(default_factory=dict)
    relations: list[tuple[str, str | None]] = field(default_factory=list)


@dataclass
class Part:
    """Some events of a log, and the objects that they relate to.

    Attributes:
        events: in the order of the log.
        objects: by id; one that is missing is not in the log.
        first: number of the first event in the log.
    """

    events: list[Event]
    objects: Mapping[str, Object]
    first: int = 0


def text_of(value: Any) -> str | None:
    """Return a value as text; None for no value."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return orjson.dumps(value, default=str).decode()


@dataclass
class Census:
    """How many objects there are of each type, and how many events relate to some of them."""

    objects: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, part: Part) -> Census:
        """Count a part that is the whole log."""
        found = cls(Counter(each.type for each in part.objects.values()))
        for event in part.events:
            names = {part.objects[i].type for i, _ in event.relations if i in part.objects}
            found.events.update(names)
        return found

    def __str__(self) -> str:
        return ", ".join(
            f"{name!r} ({_some(count, 'object')}, {_some(self.events[name], 'event')})"
            for name, count in sorted(self.objects.items())
        )


def case_type(census: Census, context: Context, path: str) -> str:
    """Return the type of the objects that are cases.

    Raises:
        InvalidOcel: there are several and none was chosen; the message lists them.
    """
    if context.object_type is not None:
        return context.object_type
    if len(census.objects) > 1:
        reason = (
            f"{path} has several types of objects: {census}; --object_type says which are cases"
        )
        raise InvalidOcel(reason, "UndecidedObjectType")
    return next(iter(census.objects), "")


def missing_type(census: Census, context: Context, path: str) -> str | None:
    """Say that the chosen type is not in a log, None if it is."""
    wanted = context.object_type
    if wanted is None or wanted in census.objects:
        return None
    near = difflib.get_close_matches(wanted, census.objects, 1, 0.6)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    has = str(census) or "no objects"
    return f"{path} has no object of type {wanted!r}{hint} it has {has}"


def decode_part(
    part: Part,
    type_: str,
    context: Context,
    path: str,
    place: Mapping[str, Any] | None = None,
) -> Decoded:
    """Make events of a part: one for each event and object of the type that it relates to.

    An event that relates to objects of other types only is skipped. One that relates to an object
    which the log does not have may belong to a case that nobody knows: it is a failure.

    Args:
        part: of a log.
        type_: of the objects that are cases.
        context: `columns` (names of attributes), `items`, `timezone` and `time_format`.
        path: of the file.
        place: event columns of the message that all events came in, of one row each, instead.
    """
    events = part.events
    unknown: dict[int, list[str]] = {}
    of_event: list[int] = []
    cases: list[str] = []
    qualifiers: list[str | None] = []
    for number, event in enumerate(events):
        seen = set()
        for id_, qualifier in event.relations:
            related = part.objects.get(id_)
            if related is None:
                unknown.setdefault(number, []).append(id_)
            elif related.type == type_ and id_ not in seen:
                seen.add(id_)
                of_event.append(number)
                cases.append(id_)
                qualifiers.append(qualifier)
    rows = len(cases)
    at = np.array(of_event, np.int64)
    picked = _Picked(part, at, cases, qualifiers, context)
    found = {
        "event_id": _take([event.id for event in events], at),
        "case_id": pa.array(cases, pa.string()),
        "event_time": _take([event.time for event in events], at),
        "activity": _take([event.type for event in events], at),
    }
    for column, names in {**DEFAULTS, **{c: (n,) for c, n in context.columns.items()}}.items():
        if column not in _FIXED and any(names):
            values = picked.values(names)
            if values is not None:
                found[column] = values
    if "workflow_group" not in context.columns and type_:
        found["workflow_group"] = name_column(type_, rows)
    fixed: dict[str, Any] = {
        "position": pa.array(at + part.first),
        "source": name_column(path, rows),
        "source_offset": pa.array(at + part.first),
    }
    if place is not None:
        nothing = pa.nulls(rows, pa.int64())
        fixed = {"position": nothing, **{c: [v] * rows for c, v in place.items()}}
    items = {
        item: values for item in context.items if (values := picked.values((item,))) is not None
    }
    table, refusals = build_events(
        found, rows, context, fixed, to_attributes(items, rows), named=False
    )
    wrong = {int(at[r.row]): (r.error, r.message) for r in reversed(refusals)}
    for number, ids in unknown.items():
        shown = ", ".join(map(repr, ids[:_SHOWN])) + (" ..." if len(ids) > _SHOWN else "")
        reason = f"relates to {shown}, which the log does not have"
        wrong.setdefault(number, ("UnknownObject", reason))
    refused = {r.row for r in refusals}
    good = {int(number) for row, number in enumerate(of_event) if row not in refused}
    failures = [
        _failure(part, number, path, place, *wrong[number], context) for number in sorted(wrong)
    ]
    dead = len(wrong.keys() - good)
    alone = sum(not event.relations for event in events)
    warnings = [f"{path}: {_some(alone, 'event')} without objects skipped"] if alone else []
    return Decoded(
        table,
        failures,
        decoded=len(good),
        skipped=len(events) - len(good) - dead,
        dead=dead,
        rejected=len(failures) - dead,
        warnings=warnings + picked.warnings(path),
        messages=len(events),
    )


class _Picked:
    """Values of attributes for each row: of its event, or of its case at that time."""

    def __init__(
        self,
        part: Part,
        at: npt.NDArray[np.int64],
        cases: Sequence[str],
        qualifiers: Sequence[str | None],
        context: Context,
    ) -> None:
        self._part = part
        self._at = at
        self._cases = cases
        self._qualifiers = qualifiers
        self._context = context
        self._times: npt.NDArray[np.int64] | None = None
        self._unread = 0

    def warnings(self, path: str) -> list[str]:
        """Say what could not be used."""
        if not self._unread:
            return []
        return [f"{path}: {_some(self._unread, 'attribute')} of objects at times that are none"]

    def values(self, names: Iterable[str]) -> pa.Array | None:
        """Return the values of the first of some attributes that is there; None if none is."""
        for name in names:
            if name == QUALIFIER:
                return pa.array(self._qualifiers, pa.string())
            events = self._part.events
            own = [events[number].attributes.get(name) for number in self._at.tolist()]
            held = self._held(name)
            if held is not None:
                own = [b if a is None else a for a, b in zip(own, held, strict=True)]
            if any(value is not None for value in own):
                return pa.array(own, pa.string())
        return None

    def _held(self, name: str) -> list[str | None] | None:
        """Return what each row's case had as an attribute at the time of its event."""
        codes: dict[str, int] = {}
        for case in self._cases:
            codes.setdefault(case, len(codes))
        entries = [
            (code, time, value)
            for case, code in codes.items()
            for key, time, value in self._part.objects[case].attributes
            if key == name
        ]
        if not entries:
            return None
        of_case = np.array([code for code, _, _ in entries])
        given = pa.array([time for _, time, _ in entries], pa.string())
        parsed = self._parse(given)
        unread = pc.and_(parsed.is_null(), given.is_valid()).to_numpy(zero_copy_only=False)
        self._unread += int(unread.sum())
        since = integers(parsed)  # the smallest number where it always was so
        if self._times is None:
            times = [each.time for each in self._part.events]
            self._times = integers(self._parse(pa.array(times, pa.string())))
        asked = np.array([codes[case] for case in self._cases])
        when = self._times[self._at]
        # Entries and questions in one order: of one case and time, entries first.
        count = len(entries)
        order = np.lexsort(
            (
                np.arange(count + len(asked)) >= count,
                np.concatenate([since, when]),
                np.concatenate([np.where(unread, -1, of_case), asked]),
            )
        )
        newest = np.maximum.accumulate(np.where(order < count, np.arange(len(order)), -1))
        answer: list[str | None] = [None] * len(asked)
        for place in np.flatnonzero(order >= count).tolist():
            if newest[place] >= 0:
                entry = int(order[newest[place]])
                row = int(order[place]) - count
                if of_case[entry] == asked[row] and not unread[entry]:
                    answer[row] = entries[entry][2]
        return answer

    def _parse(self, texts: pa.Array) -> pa.Array:
        """Read times: as `--time_format` says, or as the standard does."""
        zone, form = self._context.timezone, self._context.time_format
        times = parse_times(texts, zone)
        return times if form is None else pc.coalesce(parse_times(texts, zone, form), times)


def _failure(
    part: Part,
    number: int,
    path: str,
    place: Mapping[str, Any] | None,
    error: str,
    message: str,
    context: Context,
) -> Failure:
    """Return an event as a log of its own: with its objects, it can be read again."""
    event = part.events[number]
    related = dict.fromkeys(id_ for id_, _ in event.relations)
    log = {
        "objectTypes": [],
        "eventTypes": [],
        "events": [
            {
                "id": event.id,
                "type": event.type,
                "time": event.time,
                "attributes": [{"name": k, "value": v} for k, v in event.attributes.items()],
                "relationships": [{"objectId": i, "qualifier": q} for i, q in event.relations],
            }
        ],
        "objects": [
            {
                "id": id_,
                "type": part.objects[id_].type,
                "attributes": [
                    {"name": n, "time": t, "value": v} for n, t, v in part.objects[id_].attributes
                ],
            }
            for id_ in related
            if id_ in part.objects
        ],
    }
    payload = orjson.dumps(log)
    source = f"{path}:{part.first + number}"
    if place is not None:
        source = f"{place['source']}/{place['source_offset']}"
    attributes = replay_attributes("ocel", context)
    return Failure(payload[:MAX_PAYLOAD], source, error, message, attributes, len(payload))


def _take(values: Sequence[str | None], at: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(values, pa.string()).take(pa.array(at))


def _some(count: int, unit: str) -> str:
    return f"{count:,} {unit}{'' if count == 1 else 's'}"
