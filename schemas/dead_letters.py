"""The dead-letter envelope: what is kept of input that could not be used, ready for a replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from schemas.events import ATTRIBUTES, TIME
from schemas.tables import DEAD_LETTERS

MAX_PAYLOAD = 64 * 1024
"""Bytes of an original that a dead letter keeps."""


@dataclass(frozen=True)
class DeadLetter:
    """One row of `dead_letters`, without its id.

    Attributes:
        payload: original bytes; cut to `MAX_PAYLOAD` in the row.
        source: `path:offset` or `topic/partition/offset`.
        step: the step that refused it.
        error: class of the error.
        message: one line that names the bad value.
        attributes: `format` and whatever a replay needs.
        size: size of the original; that of `payload` if None.
        time: the broker's time in µs since the epoch; None for files.
    """

    payload: bytes
    source: str
    step: str
    error: str
    message: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    time: int | None = None


def to_rows(letters: Sequence[DeadLetter], row_ids: pa.Array) -> pa.Table:
    """Make rows of `DEAD_LETTERS`."""
    columns = [
        row_ids,
        pa.array([each.payload[:MAX_PAYLOAD] for each in letters], pa.binary()),
        pa.array(
            [len(each.payload) if each.size is None else each.size for each in letters], pa.int64()
        ),
        pa.array([list(each.attributes.items()) for each in letters], ATTRIBUTES),
        pa.array([each.source for each in letters], pa.string()),
        pa.array([each.step for each in letters], pa.string()),
        pa.array([each.error for each in letters], pa.string()),
        pa.array([each.message for each in letters], pa.string()),
        pa.array([each.time for each in letters], pa.int64()).cast(pa.timestamp("us")).cast(TIME),
    ]
    return pa.Table.from_arrays(columns, schema=DEAD_LETTERS.schema)
