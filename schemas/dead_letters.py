"""The dead-letter envelope: what is kept of input that could not be used, ready for a replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from schemas.events import ATTRIBUTES, TIME
from schemas.tables import DEAD_LETTERS

MAX_PAYLOAD = 64 * 1024
"""Bytes of an original that a dead letter keeps."""

MAX_ATTRIBUTES = 1024 * 1024
"""Characters of attributes that a dead letter keeps: a broker's headers have no bounds."""


@dataclass(frozen=True)
class DeadLetter:
    """One row of `dead_letters`, without its id.

    Attributes:
        payload: original bytes; cut to `MAX_PAYLOAD` in the row.
        source: `path:offset` or `topic/partition/offset`.
        step: the step that refused it.
        error: class of the error.
        message: one line that names the bad value.
        attributes: headers, then `format` and whatever a replay needs; in the row cut to
            `MAX_ATTRIBUTES` together, the last ones last.
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
        pa.array([_bounded(each.attributes) for each in letters], ATTRIBUTES),
        pa.array([each.source for each in letters], pa.string()),
        pa.array([each.step for each in letters], pa.string()),
        pa.array([each.error for each in letters], pa.string()),
        pa.array([each.message for each in letters], pa.string()),
        pa.array([each.time for each in letters], pa.int64()).cast(pa.timestamp("us")).cast(TIME),
    ]
    return pa.Table.from_arrays(columns, schema=DEAD_LETTERS.schema)


def _bounded(attributes: Mapping[str, str]) -> list[tuple[str, str]]:
    pairs = list(attributes.items())
    if sum(len(name) + len(text) for name, text in pairs) <= MAX_ATTRIBUTES:
        return pairs
    room, kept = MAX_ATTRIBUTES, []
    for name, text in reversed(pairs):
        if len(name) < room:
            kept.append((name, text[: room - len(name)]))
            room -= len(name) + len(kept[-1][1])
    return kept[::-1]
