"""Random messages of cases for property tests: snapshots with logs, and plain events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from schemas.events import EVENT_SCHEMA, TIME
from transforms.formats.assemble import assemble
from transforms.hashing import hash_strings

SECOND = 1_000_000
START = 1_700_000_000 * SECOND


@dataclass(frozen=True)
class Line:
    """One line of a case's log."""

    case: str
    time: int
    source: int
    event: int
    target: int

    @property
    def event_id(self) -> str:
        return f"{self.case}|{self.time}|{self.source}|{self.event}|{self.target}"


def events_of_snapshot(
    lines: list[Line], record_time: int | None, amount: str, cut: bool
) -> list[dict[str, Any]]:
    """Make the events that decoding one snapshot gives."""
    hashes = hash_strings(pa.array([line.event_id for line in lines])).tolist()
    rows = []
    for i, line in enumerate(lines):
        newest = i == len(lines) - 1
        ties = [other for other in lines[:i] if other.time == line.time]
        rows.append(
            {
                "event_id": line.event_id,
                "case_id": line.case,
                "event_time": line.time,
                "activity": str(line.event),
                "state": str(line.target),
                "source_state": str(line.source),
                "task": line.target,
                "event": line.event,
                "source_task": line.source,
                "actor": f"actor{line.event}" if newest else None,
                "position": len(ties),
                "attributes": [("amount", amount)] if newest else None,
                "record_time": record_time,
                "log": hashes if newest else None,
                "truncated": True if cut and i == 0 else None,
                "source": "topic/0",
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> pa.Table:
    """Make an event table of rows with integer times (µs)."""
    columns: dict[str, Any] = {}
    rows = [{"state": row["activity"], **row} for row in rows]
    for name in EVENT_SCHEMA.names:
        values = [row.get(name) for row in rows]
        if name in {"event_time", "record_time", "start_time"}:
            columns[name] = pa.array(values, pa.int64()).cast(pa.timestamp("us")).cast(TIME)
        else:
            columns[name] = values
    return assemble(columns, len(rows))


@st.composite
def snapshots(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw cases with phantoms and cut logs, their snapshots sent late, twice, in any order."""
    rows: list[dict[str, Any]] = []
    for case in ["a", "b", "c"][: draw(st.integers(1, 3))]:
        committed: list[Line] = []
        time, state = START + draw(st.integers(0, 3)) * SECOND, 0
        for _ in range(draw(st.integers(1, 6))):
            time += draw(st.sampled_from([0, 1_000, 1, SECOND, 7 * SECOND, 50 * 86_400 * SECOND]))
            line = Line(case, time, state, draw(st.integers(1, 2)), draw(st.integers(0, 2)))
            if line in committed:
                continue
            seen = [*committed, line]
            phantom = draw(st.integers(0, 4)) == 0
            if not phantom:
                committed, state = seen, line.target
            kept = seen[-draw(st.sampled_from([2, 30, 30, 30])) :]
            for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
                delay = draw(st.sampled_from([None, 0, SECOND, 5 * SECOND, 60 * SECOND]))
                record = None if delay is None else time + delay
                amount = draw(st.sampled_from(["1", "1", "2"]))
                rows += events_of_snapshot(kept, record, amount, cut=len(kept) < len(seen))
    return draw(st.permutations(rows)) if len(rows) < 40 else rows


@st.composite
def plain_events(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw events without logs: ids used twice, equal times, late records."""
    rows = []
    for i in range(draw(st.integers(0, 25))):
        time = START + draw(st.integers(0, 12)) * draw(st.sampled_from([1, SECOND, 9 * SECOND]))
        time += draw(st.sampled_from([0, 0, 0, 40 * 86_400 * SECOND, 400 * 86_400 * SECOND]))
        delay = draw(st.sampled_from([None, 0, SECOND, 60 * SECOND]))
        rows.append(
            {
                "event_id": draw(st.sampled_from([str(i), str(i), "x", "y"])),
                "case_id": draw(st.sampled_from(["a", "b", "c"])),
                "event_time": time,
                "activity": draw(st.sampled_from(["go", "wait", "end"])),
                "source_state": draw(st.sampled_from([None, "go", "wait"])),
                "actor": draw(st.sampled_from([None, "anna", "ben"])),
                "workflow_group": "Order",
                "position": draw(st.sampled_from([None, i])),
                "record_time": None if delay is None else time + delay,
                "source": draw(st.sampled_from(["f1", "f2"])),
                "source_offset": i,
            }
        )
    return rows


def messages() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Either kind, or both for the same cases."""
    both = st.tuples(snapshots(), plain_events()).map(lambda pair: pair[0] + pair[1])
    return st.one_of(snapshots(), plain_events(), both)
