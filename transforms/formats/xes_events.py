"""From the attribute values of XES logs to events: which key feeds which column, and batches.

Rows of many logs, or of many messages, become one event table; what is no event becomes a
failure that carries its bytes and what its trace and log said, so that it can be replayed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import TIME, empty_events
from transforms.formats.base import Context, Decoded, Failure, Message
from transforms.formats.columns import (
    Refusal,
    build_events,
    replay_attributes,
    to_attributes,
)
from transforms.formats.xes_rows import Header, Oversize, Rows, Wanted

Place = tuple[str, str]
"""Where a value is looked for: `event`, `trace` or `log`, and the attribute's key."""

DEFAULTS: Mapping[str, tuple[Place, ...]] = {
    "event_id": (("event", "identity:id"),),
    "case_id": (("trace", "concept:name"),),
    "event_time": (("event", "time:timestamp"),),
    "activity": (("event", "concept:name"),),
    "actor": (("event", "org:resource"),),
    "lifecycle": (("event", "lifecycle:transition"),),
    "workflow_group": (("log", "concept:name"),),
}
"""Event column -> the standard attribute that feeds it."""


@dataclass(frozen=True)
class Picks:
    """Which attributes feed the event columns and the items, in order of preference.

    Attributes:
        columns: event column -> places.
        items: item -> places.
        numbered: a trace without a case id is its number.
        classified: the log's classifier names the activity of events that have none.
    """

    columns: Mapping[str, tuple[Place, ...]]
    items: Mapping[str, tuple[Place, ...]]
    numbered: bool
    classified: bool

    @classmethod
    def of(cls, context: Context) -> Picks:
        """Resolve `--columns` and `--items`.

        A name is the key of an attribute of the event, else of its trace (for `case_id` the
        other way round). `case:K` or `trace:K` is the trace's K, `log:K` the log's, and `K/L` is L
        inside K. An empty name leaves the column out.
        """
        columns = dict(DEFAULTS)
        for column, name in context.columns.items():
            columns[column] = _places(name, trace_first=column == "case_id") if name else ()
        return cls(
            columns={column: places for column, places in columns.items() if places},
            items={item: _places(item) for item in context.items},
            numbered="case_id" not in context.columns,
            classified="activity" not in context.columns,
        )

    @cached_property
    def keys(self) -> Mapping[str, tuple[str, ...]]:
        """Return the keys that are looked for in `event`, `trace` and `log`."""
        places = [
            place for group in (self.columns, self.items) for g in group.values() for place in g
        ]
        return {
            scope: tuple(dict.fromkeys(key for where, key in places if where == scope))
            for scope in ("event", "trace", "log")
        }

    def wanted(self, classifier: Sequence[str]) -> Wanted:
        """Say what to collect from a log whose first classifier has these keys."""
        return self._plain if not classifier or not self.classified else self._with(classifier)

    @cached_property
    def _plain(self) -> Wanted:
        return self._with(())

    def _with(self, classifier: Sequence[str]) -> Wanted:
        event, trace = self.keys["event"], self.keys["trace"]
        nested = any("/" in key for key in (*event, *trace))
        return Wanted(tuple(dict.fromkeys((*event, *classifier))), trace, nested)


def _places(name: str, trace_first: bool = False) -> tuple[Place, ...]:
    scope, _, key = name.partition(":")
    if scope in ("case", "trace") and key:
        return ("trace", key), ("event", name)
    if scope == "log" and key:
        return (("log", key),)
    both = (("event", name), ("trace", name))
    return both[::-1] if trace_first else both


@dataclass(frozen=True)
class Part:
    """Rows of one log, and what they need to become events.

    Attributes:
        rows: the events' attributes.
        header: of their log.
        source: path of the file, or the message's source.
        message: the message that the rows came in; None for files.
        alone: the message is one event, not a trace or log.
    """

    rows: Rows
    header: Header
    source: str
    message: Message | None = None
    alone: bool = False

    def column(self, places: Sequence[Place]) -> pa.Array:
        """Return the first value of the places for each event (string array)."""
        wanted, count = self.header.wanted, len(self.rows.ordinals)
        found = []
        for scope, key in places:
            if scope == "event":
                found.append(self.rows.event[wanted.event.index(key)])
            elif scope == "trace":
                found.append(self.rows.trace[wanted.trace.index(key)])
            else:
                found.append(
                    pa.repeat(pa.scalar(self.header.attributes.get(key), pa.string()), count)
                )
            if found[-1].null_count == 0:
                break
        return pc.coalesce(*found) if len(found) > 1 else found[0]

    def cases(self, places: Sequence[Place], numbered: bool) -> pa.Array:
        """Return the case of each event.

        A trace without a name is its number in the file; in a message, where such a number
        says nothing, the `case_id` of the message's attributes.
        """
        cases = self.column(places)
        if cases.null_count == 0:
            return cases
        if self.message is not None:
            return pc.fill_null(
                cases, pa.scalar(self.message.attributes.get("case_id"), pa.string())
            )
        if not numbered:
            return cases
        traces = pa.array(self.rows.traces, mask=self.rows.traces < 0)
        return pc.coalesce(cases, traces.cast(pa.string()))

    def activities(self, places: Sequence[Place], classified: bool) -> pa.Array:
        """Return the activity of each event, made from the classifier where it has no name."""
        names = self.column(places)
        keys = self.header.classifier
        if not classified or not keys or names.null_count == 0:
            return names
        parts = [self.column((("event", key),)) for key in keys]
        joined = pc.binary_join_element_wise(*parts, "+") if len(parts) > 1 else parts[0]
        return pc.coalesce(names, joined)

    def positions(self) -> pa.Array:
        """Return the events' order in their source; null for an event that came alone."""
        if not self.alone or self.message is None:
            return pa.array(self.rows.ordinals, pa.int64())
        given = self.message.attributes.get("position", "")
        return pa.array([int(given) if given.isdecimal() else None], pa.int64())

    def failure(
        self, row: int, case: str | None, refusal: Refusal, picks: Picks, context: Context
    ) -> Failure:
        """Make the failure of one event (all it takes to replay it is in its attributes)."""
        rows, wanted = self.rows, self.header.wanted
        values = zip(wanted.trace, (column[row].as_py() for column in rows.trace), strict=True)
        attributes = event_attributes(self.header, dict(values), case, picks, context)
        if self.message is not None and self.alone:
            settings = replay_attributes("xes", context)
            attributes = {**attributes, **self.message.attributes, **settings}
        elif self.message is None:
            attributes["position"] = str(rows.ordinals[row])
        offset = rows.ordinals[row] if self.message is None else self.message.offset
        payload = rows.payload(row)
        source = f"{self.source}:{offset}"
        return Failure(payload, source, refusal.error, refusal.message, attributes, len(payload))


def event_attributes(
    header: Header,
    trace: Mapping[str, str | None],
    case: str | None,
    picks: Picks,
    context: Context,
) -> dict[str, str]:
    """Say what a replay of an event needs: settings, and what its trace and log say."""
    attributes = replay_attributes("xes", context)
    if case is not None:
        attributes["case_id"] = case
    attributes |= {f"trace:{key}": value for key, value in trace.items() if value is not None}
    log = header.attributes
    attributes |= {f"log:{key}": log[key] for key in picks.keys["log"] if key in log}
    if header.classifier:
        quoted = (f"'{key}'" if " " in key else key for key in header.classifier)
        attributes["classifier"] = " ".join(quoted)
    return attributes


@dataclass
class Batch:
    """Rows on their way to one `Decoded`.

    Attributes:
        picks: which attributes feed which columns.
        context: settings of times.
        size: bytes of input so far.
        decoded, skipped, dead: messages so far; `add` counts the events of a file itself.
    """

    picks: Picks
    context: Context
    size: int = 0
    decoded: int = 0
    skipped: int = 0
    dead: int = 0
    warnings: list[str] = field(default_factory=list)
    _parts: list[Part] = field(default_factory=list)
    _failures: list[Failure] = field(default_factory=list)

    def add(self, part: Part) -> None:
        """Add rows; each event of a file is a message."""
        count = len(part.rows.ordinals)
        if count:
            self._parts.append(part)
        if part.message is None:
            self.decoded += count
        for event in part.rows.oversize:
            self.fail(self._oversize(event, part))

    def fail(self, failure: Failure) -> None:
        """Add a dead message."""
        self._failures.append(failure)
        self.dead += 1

    def take(self) -> Decoded:
        """Convert what there is, and start anew."""
        events, rejected = self._convert() if self._parts else (empty_events(), 0)
        result = Decoded(
            events=events,
            failures=tuple(self._failures),
            decoded=self.decoded,
            skipped=self.skipped,
            dead=self.dead,
            rejected=rejected,
            warnings=tuple(dict.fromkeys(self.warnings)),
        )
        self._parts, self._failures, self.warnings = [], [], []
        self.size = self.decoded = self.skipped = self.dead = 0
        return result

    def _convert(self) -> tuple[pa.Table, int]:
        parts, picks = self._parts, self.picks
        counts = np.array([len(part.rows.ordinals) for part in parts])
        total = int(counts.sum())
        found = {
            column: pa.concat_arrays([part.column(places) for part in parts])
            for column, places in picks.columns.items()
            if column not in ("case_id", "activity")
        }
        cases, names = picks.columns.get("case_id", ()), picks.columns.get("activity", ())
        if cases:
            found["case_id"] = pa.concat_arrays([p.cases(cases, picks.numbered) for p in parts])
        if names:
            activities = [p.activities(names, picks.classified) for p in parts]
            found["activity"] = pa.concat_arrays(activities)
        items = {
            item: pa.concat_arrays([part.column(places) for part in parts])
            for item, places in picks.items.items()
        }
        position = pa.concat_arrays([part.positions() for part in parts])
        fixed = {"position": position, "source_offset": position, "source": self._sources(counts)}
        payloads = None
        if any(part.message is not None for part in parts):
            payloads = self._of_messages(counts, fixed)
        events, refusals = build_events(
            found,
            total,
            replace(self.context, mapping=None),
            fixed,
            to_attributes(items, total),
            payloads,
        )
        return events, self._refuse(refusals, counts, found.get("case_id"))

    def _sources(self, counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pa.Array:
        names = {name: i for i, name in enumerate(dict.fromkeys(p.source for p in self._parts))}
        codes = np.array([names[part.source] for part in self._parts], np.int32)
        return pa.DictionaryArray.from_arrays(
            pa.array(np.repeat(codes, counts)), pa.array(list(names), pa.string())
        )

    def _of_messages(
        self, counts: np.ndarray[tuple[int], np.dtype[np.int64]], fixed: dict[str, pa.Array]
    ) -> pa.Array:
        """Set offset and record time; give the payloads that ids are hashed from.

        An event that came alone and has no position has its id from its payload. Events of a
        message with several have a position in it, and from that their ids.
        """
        at = pa.array(np.repeat(np.arange(len(self._parts)), counts))
        messages = [part.message for part in self._parts]
        offsets = pa.array([m.offset if m else None for m in messages], pa.int64())
        times = pa.array([m.record_time if m else None for m in messages], pa.int64())
        fixed["source_offset"] = offsets.take(at)
        fixed["record_time"] = times.take(at).cast(TIME)
        lone = [
            p.message.payload if p.message and p.alone and not p.positions()[0].is_valid else None
            for p in self._parts
        ]
        return pa.array(lone, pa.binary()).take(at)

    def _refuse(
        self,
        refusals: Sequence[Refusal],
        counts: np.ndarray[tuple[int], np.dtype[np.int64]],
        cases: pa.Array | None,
    ) -> int:
        """Turn refused rows into failures; give how many of them are a part of a message."""
        starts = [0, *np.cumsum(counts).tolist()]
        rejected = 0
        for refusal in refusals:
            at = bisect_right(starts, refusal.row) - 1
            part = self._parts[at]
            case = None if cases is None else cases[refusal.row].as_py()
            row = refusal.row - starts[at]
            self._failures.append(part.failure(row, case, refusal, self.picks, self.context))
            if part.message is None or part.alone:
                self.decoded -= 1
                self.dead += 1
            else:
                rejected += 1
        return rejected

    def _oversize(self, event: Oversize, part: Part) -> Failure:
        places = self.picks.columns.get("case_id", ())
        keys = [key for scope, key in places if scope == "trace" and key in event.attributes]
        case = event.attributes[keys[0]] if keys else None
        if case is None and self.picks.numbered and part.message is None and event.trace >= 0:
            case = str(event.trace)
        attributes = event_attributes(part.header, event.attributes, case, self.picks, self.context)
        attributes["position"] = str(event.ordinal)
        return Failure(
            event.payload,
            f"{part.source}:{event.ordinal}",
            "TooLarge",
            f"an event of {event.size} bytes is larger than {self.context.max_message_bytes}",
            attributes,
            event.size,
        )
