"""Schemas of the output tables: the only source of their columns, types and order.

`docs/tables.md` is generated from here (`python -m schemas`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from schemas.events import ATTRIBUTES, NAME, TIME


@dataclass(frozen=True)
class Output:
    """One output table.

    Attributes:
        name: the table's name, also its folder or topic.
        schema: columns in order; each field's metadata `doc` describes it.
        mode: `append`, or `upsert` (of the rows with one key the newest counts).
        key: the columns that key its rows.
        doc: one sentence on what a row is.
        newest: of an upsert table, the column that is greatest in the newest row of a key.
    """

    name: str
    schema: pa.Schema
    mode: Literal["append", "upsert"]
    key: tuple[str, ...]
    doc: str
    newest: str = "updated_at"


def _field(name: str, type_: pa.DataType, doc: str, nullable: bool = True) -> pa.Field:
    return pa.field(name, type_, nullable=nullable, metadata={"doc": doc})


TRANSITIONS = Output(
    name="transitions",
    mode="append",
    key=("case_id",),
    doc="One move of one case from one state to the next.",
    schema=pa.schema(
        [
            _field("row_id", pa.string(), "deterministic id of the row", False),
            _field("case_id", pa.string(), "the process instance", False),
            _field("sequence", pa.int64(), "number within the case, from 0", False),
            _field("event_id", pa.string(), "the event that caused it", False),
            _field("event_time", TIME, "when the engine did it", False),
            _field("activity", NAME, "what happened", False),
            _field("from_state", NAME, "the state before; null at the start"),
            _field("to_state", NAME, "the state afterwards", False),
            _field("duration_s", pa.float64(), "seconds since the previous transition"),
            _field("elapsed_s", pa.float64(), "seconds since the start of the case", False),
            _field("actor", NAME, "who did it"),
            _field("previous_actor", NAME, "who did the previous transition"),
            _field("workflow_group", NAME, "the process"),
            _field("model_version", NAME, "the version of its model"),
            _field("task", pa.int32(), "numeric id of the state, where the engine has one"),
            _field("event", pa.int32(), "numeric id of the event, where the engine has one"),
            _field("source_task", pa.int32(), "numeric id of the state it says it came from"),
            _field("is_start", pa.bool_(), "first of its case; null if earlier ones are not known"),
            _field("is_end", pa.bool_(), "the case ends with it", False),
            _field("verdict", NAME, "what the model says; unknown, as none is read", False),
            _field(
                "gap", pa.bool_(), "it came from a state where the case was not last seen", False
            ),
            _field(
                "attributes",
                ATTRIBUTES,
                "business items of --items, as their declared types write them",
            ),
        ]
    ),
)

CASES = Output(
    name="cases",
    mode="upsert",
    key=("case_id",),
    doc="One case as it stands after its newest transition.",
    schema=pa.schema(
        [
            _field("row_id", pa.string(), "deterministic id of the row", False),
            _field("case_id", pa.string(), "the process instance", False),
            _field("workflow_group", NAME, "the process"),
            _field("model_version", NAME, "the version of its model, at its newest transition"),
            _field("first_event_time", TIME, "its first transition", False),
            _field("last_event_time", TIME, "its newest transition", False),
            _field("transitions", pa.int64(), "how many, retracted ones not counted", False),
            _field("state", NAME, "the state it is in"),
            _field("is_complete", pa.bool_(), "it has reached an end", False),
            _field("cycle_time_s", pa.float64(), "seconds from first to last; null while open"),
            _field("rework", pa.int64(), "states entered more than once", False),
            _field("gaps", pa.int64(), "transitions with a gap before them", False),
            _field("variant_id", pa.string(), "hash of the sequence of its states", False),
            _field("updated_at", TIME, "order time of its newest change", False),
        ]
    ),
)

# `late` and `retracted` keep the event's row, and the reason.
_EVENT_ROW = [
    _field("event_id", pa.string(), "the event", False),
    _field("case_id", pa.string(), "the process instance", False),
    _field("event_time", TIME, "when the engine did it", False),
    _field("activity", NAME, "what happened", False),
    _field("state", NAME, "the state it led to", False),
    _field("source_state", NAME, "the state it says it came from"),
    _field("actor", NAME, "who did it"),
    _field("workflow_group", NAME, "the process"),
    _field("model_version", NAME, "the version of its model"),
]

LATE = Output(
    name="late",
    mode="append",
    key=("case_id",),
    doc="An event that came after a newer one of its case had been counted.",
    schema=pa.schema(
        [
            _field("row_id", pa.string(), "deterministic id of the row", False),
            *_EVENT_ROW,
            _field("order_time", TIME, "when it became known", False),
            _field("last_event_time", TIME, "the newest event of its case by then", False),
            _field("reason", pa.string(), "why it is here", False),
            _field("source", pa.string(), "where it was read"),
        ]
    ),
)

RETRACTED = Output(
    name="retracted",
    mode="append",
    key=("case_id",),
    doc="A transition that a later snapshot of its case denies (a rolled-back transaction).",
    schema=pa.schema(
        [
            _field("row_id", pa.string(), "deterministic id of the row", False),
            *_EVENT_ROW,
            _field("sequence", pa.int64(), "the transition's number within its case", False),
            _field("retracted_at", TIME, "order time of the snapshot that denies it", False),
            _field("retracted_by", pa.string(), "event id of that snapshot's last line", False),
            _field("reason", pa.string(), "why it is here", False),
        ]
    ),
)

DEAD_LETTERS = Output(
    name="dead_letters",
    mode="append",
    key=("row_id",),
    doc="Input that could not be decoded or violates the event schema.",
    schema=pa.schema(
        [
            _field("row_id", pa.string(), "deterministic id of the row", False),
            _field("payload", pa.binary(), "the original bytes, at most 64 KiB of them", False),
            _field(
                "payload_size",
                pa.int64(),
                "size of the original in bytes, removed file contents aside, if known",
            ),
            _field("attributes", ATTRIBUTES, "format, and the message's own attributes"),
            _field("source", pa.string(), "where it was read, as `path:place`"),
            _field("step", pa.string(), "the step that refused it", False),
            _field("error", pa.string(), "class of the error", False),
            _field("message", pa.string(), "what is wrong with it", False),
            _field("time", TIME, "the broker's time; null for files"),
        ]
    ),
)


def _pane_table(name: str, doc: str, *columns: pa.Field) -> Output:
    """Make a table of numbers of windows: a row is known by its id, and its last pane counts."""
    return Output(
        name=name,
        mode="upsert",
        key=("row_id",),
        newest="pane_index",
        doc=doc,
        schema=pa.schema(
            [
                _field("row_id", pa.string(), "deterministic id; the same over all panes", False),
                _field("window_start", TIME, "first moment of the window; null for global"),
                _field("window_end", TIME, "first moment after it; null for global"),
                _field("workflow_group", NAME, "the process"),
                *columns,
                _field("pane", NAME, "early (the window is open) or final", False),
                _field("pane_index", pa.int64(), "number of the pane, from 0", False),
            ]
        ),
    )


_VERSION = _field("model_version", NAME, "the version of its model")
_QUANTILES = "; quantiles are those of the nearest rank, and at most 0.5 % off"

PROCESS_MAP = _pane_table(
    "process_map",
    "How often, and how fast, cases moved from one state to another in a window.",
    _VERSION,
    _field("from_state", NAME, "the state before; null at the start of a case"),
    _field("to_state", NAME, "the state afterwards", False),
    _field("count", pa.int64(), "transitions", False),
    _field("cases", pa.int64(), "distinct cases that made it", False),
    _field("mean_s", pa.float64(), "mean seconds since the transition before; null at the start"),
    _field("min_s", pa.float64(), "shortest"),
    _field("p50_s", pa.float64(), f"median{_QUANTILES}"),
    _field("p90_s", pa.float64(), "nine of ten are not longer"),
    _field("p99_s", pa.float64(), "99 of 100 are not longer"),
    _field("max_s", pa.float64(), "longest"),
)

STATE_TIMES = _pane_table(
    "state_times",
    "How long cases stayed in a state that they left in a window.",
    _field("state", NAME, "the state", False),
    _field("visits", pa.int64(), "stays that ended", False),
    _field("mean_s", pa.float64(), "mean seconds between entering and leaving", False),
    _field("p50_s", pa.float64(), f"median{_QUANTILES}", False),
    _field("p90_s", pa.float64(), "nine of ten are not longer", False),
    _field("p99_s", pa.float64(), "99 of 100 are not longer", False),
    _field("max_s", pa.float64(), "longest", False),
)

FLOW = _pane_table(
    "flow",
    "What came in, went out and was there in a window; also without events while cases are open.",
    _VERSION,
    _field("started", pa.int64(), "cases whose first transition is in it", False),
    _field("completed", pa.int64(), "transitions to an end, of which a case may have more", False),
    _field("transitions", pa.int64(), "all transitions", False),
    _field("active_cases", pa.int64(), "open cases at its end, as far as it is known", False),
    _field("late", pa.int64(), "events that came too late to be counted", False),
    _field("throughput_per_h", pa.float64(), "completed an hour; null for global"),
    _field("cycle_p50_s", pa.float64(), "median seconds from start to end; null without an end"),
    _field("cycle_p90_s", pa.float64(), "nine of ten are not longer"),
    _field("cycle_p99_s", pa.float64(), "99 of 100 are not longer"),
    _field("rework_rate", pa.float64(), "share of completed cases that entered a state twice"),
    _field("illegal", pa.int64(), "transitions that the model does not have", False),
)

WORKLOAD = _pane_table(
    "workload",
    "What somebody did in a window.",
    _field("actor", NAME, "who; null where it is not known"),
    _field("transitions", pa.int64(), "what they did", False),
    _field("cases", pa.int64(), "distinct cases", False),
    _field(
        "handovers",
        pa.int64(),
        "where the transition before was somebody else's; none where either is not known",
        False,
    ),
    _field("mean_s", pa.float64(), "mean seconds since the transition before"),
)

VARIANTS = _pane_table(
    "variants",
    "The ways of the cases that were completed in a window, the 10,000 most frequent.",
    _field("variant_id", pa.string(), "as in cases; 'others' are all the rest", False),
    _field("states", pa.list_(pa.string()), "the way, at most 1,000 states of it"),
    _field("cases", pa.int64(), "that went it", False),
    _field("share", pa.float64(), "of the completed cases of the group", False),
    _field("mean_cycle_s", pa.float64(), "mean seconds from start to end", False),
)

TABLES: dict[str, Output] = {
    t.name: t
    for t in (
        *(TRANSITIONS, CASES, LATE, RETRACTED, DEAD_LETTERS),
        *(PROCESS_MAP, STATE_TIMES, FLOW, WORKLOAD, VARIANTS),
    )
}
