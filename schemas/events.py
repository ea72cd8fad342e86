"""The event table: one row is one thing that happened to one case.

Every format decodes to this schema and every kernel reads it. Columns with few
distinct values are dictionary-encoded, so that sorting and writing them costs a
code and not a string.
"""

from __future__ import annotations

import pyarrow as pa

TIME = pa.timestamp("us", tz="UTC")
NAME = pa.dictionary(pa.int32(), pa.string())
ATTRIBUTES = pa.map_(pa.string(), pa.string())

EVENT_SCHEMA = pa.schema(
    [
        # Deterministic id, the deduplication key within a case.
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("case_id", pa.string(), nullable=False),
        # When the engine did it.
        pa.field("event_time", TIME, nullable=False),
        pa.field("activity", NAME, nullable=False),
        # The state the case is in afterwards; for logs without states, the activity.
        pa.field("state", NAME, nullable=False),
        # The state the event says it came from.
        pa.field("source_state", NAME),
        pa.field("task", pa.int32()),
        pa.field("event", pa.int32()),
        pa.field("source_task", pa.int32()),
        pa.field("actor", NAME),
        pa.field("workflow_group", NAME),
        pa.field("model_version", NAME),
        pa.field("lifecycle", NAME),
        # Order in the source among events of one time: row or byte offset in a file, rank
        # among the lines of one time in an $eventlog; null for broker messages.
        pa.field("position", pa.int64()),
        pa.field("transaction_id", pa.string()),
        pa.field("start_time", TIME),
        pa.field("attributes", ATTRIBUTES),
        # The broker's time, made monotone per partition; null for files.
        pa.field("record_time", TIME),
        # Imixs: hash64 of the event_id of every line of the snapshot, on its last event only.
        pa.field("log", pa.list_(pa.uint64())),
        # True on the first line of a log whose engine has dropped the lines before it.
        pa.field("truncated", pa.bool_()),
        # Where it was read: file path, topic/partition; `source_offset` is the line, row or offset.
        pa.field("source", NAME),
        pa.field("source_offset", pa.int64()),
    ]
)

ORDERED_SCHEMA = EVENT_SCHEMA.append(pa.field("order_time", TIME))
"""Events with their order time: stamped once, where the disorder is known."""


def empty_events() -> pa.Table:
    """Return an event table without rows (columns: `EVENT_SCHEMA`)."""
    return EVENT_SCHEMA.empty_table()
