"""What passes from a broker's source to decoding: one element holds a batch of messages.

A batch is an Arrow record batch, packed by `schemas.coders`. One element a message would cost
more in Beam than everything that is done with the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.coders import Reference, pack, unpack
from schemas.events import ATTRIBUTES, NAME
from transforms.arrays import conform
from transforms.formats.base import MessageBatch

MESSAGE_SCHEMA = pa.schema(
    [
        # Null: a deleted record (a tombstone of a compacted topic).
        pa.field("payload", pa.binary()),
        # `topic/partition`; of Pub/Sub `project/subscription/message`, the offset is the message id
        pa.field("source", NAME, nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        # µs since the epoch, monotone per source.
        pa.field("record_time", pa.int64(), nullable=False),
    ]
)

HEADERS = pa.field("attributes", ATTRIBUTES)
"""A column more, left out if no message of a batch has any headers."""

_BEHIND = b"behind_watermark"
_COMPLETE = b"complete"
_RECEIPT = b"receipt"

DRAIN = 2**62
"""What a reader that has ended says it is complete to."""

Headers = Iterable[tuple[str, str | bytes | None]]


@dataclass(frozen=True)
class Extent:
    """How much a batch holds.

    Attributes:
        messages: how many.
        bytes: of their payloads.
        behind: messages that came after a watermark that their own time is before.
    """

    messages: int
    bytes: int
    behind: int


def pack_messages(
    payloads: Sequence[bytes | None] | pa.Array,
    sources: tuple[Sequence[str], npt.NDArray[np.int32]],
    offsets: npt.NDArray[np.int64],
    record_times: npt.NDArray[np.int64],
    headers: Sequence[Headers | None] = (),
    behind: int = 0,
    said: tuple[int, int, int] | tuple[()] = (),
    receipt: int = 0,
) -> bytes:
    """Pack messages.

    Args:
        payloads: their bytes; None for a deleted record.
        sources: names of the partitions, and for each message the index of its own.
        offsets: in their partitions.
        record_times: µs since the epoch.
        headers: of each message; empty if none has any.
        behind: how many came behind the watermark.
        said: what `said_complete` gives back.
        receipt: number of the batch in its run's account (`transforms.receipts`); 0: it has none.
    """
    names, codes = sources
    columns = [
        pa.array(payloads, pa.binary()),
        pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.string())),
        pa.array(offsets, pa.int64()),
        pa.array(record_times, pa.int64()),
    ]
    schema = MESSAGE_SCHEMA
    if len(headers):
        texts = [None if each is None else header_texts(each) for each in headers]
        columns.append(pa.array(texts, ATTRIBUTES))
        schema = schema.append(HEADERS)
    metadata = {}
    if behind:
        metadata[_BEHIND] = str(behind).encode()
    if said:
        metadata[_COMPLETE] = " ".join(map(str, said)).encode()
    if receipt:
        metadata[_RECEIPT] = str(receipt).encode()
    if metadata:
        schema = schema.with_metadata(metadata)
    return pack(pa.RecordBatch.from_arrays(columns, schema=schema))


def header_texts(headers: Headers) -> list[tuple[str, str]]:
    """Return headers as texts: a name may come twice, then its last value counts."""
    texts: dict[str, str] = {}
    for name, value in headers:
        texts[name] = value.decode(errors="replace") if isinstance(value, bytes) else value or ""
    return list(texts.items())


def table_of(packed: bytes) -> pa.Table:
    """Return a packed batch as a table of `MESSAGE_SCHEMA`, and `HEADERS` if it has them.

    Raises:
        ValueError: it is none.
    """
    table = unpack(packed)
    if isinstance(table, Reference):
        reason = "messages are passed by value"
        raise ValueError(reason)
    return table


def extent(packed: bytes | pa.Table) -> Extent:
    """Say how much a batch holds, without looking at its messages."""
    table = table_of(packed) if isinstance(packed, bytes) else packed
    metadata: Mapping[bytes, bytes] = table.schema.metadata or {}
    size = pc.sum(pc.binary_length(table["payload"])).as_py() or 0
    return Extent(table.num_rows, size, int(metadata.get(_BEHIND, 0)))


def unpack_messages(packed: bytes | pa.Table) -> MessageBatch:
    """Unpack messages; the payload of a deleted record is empty."""
    table = table_of(packed) if isinstance(packed, bytes) else packed
    attributes: list[dict[str, str]] = []
    if "attributes" in table.column_names:
        attributes = [dict(each or ()) for each in table["attributes"].to_pylist()]
    bodies = conform(table["payload"], pa.binary())
    return MessageBatch(
        bodies.fill_null(b"") if bodies.null_count else bodies,
        conform(table["source"], NAME),
        conform(table["offset"], pa.int64()),
        conform(table["record_time"], pa.int64()),
        attributes,
    )


def receipt_of(table: pa.Table) -> int:
    """Return the number of a batch in its run's account; 0 if it has none."""
    return int((table.schema.metadata or {}).get(_RECEIPT, 0))


def said_complete(table: pa.Table) -> tuple[int, int, int] | tuple[()]:
    """Return what a batch's reader says of itself: for `fold.elements.events_element`.

    Returns:
        Number of the reader, how many there are, and the order time in ms before which it has
        given everything with this batch; nothing if it says nothing.
    """
    said = (table.schema.metadata or {}).get(_COMPLETE)
    if said is None:
        return ()
    split, splits, complete_ms = map(int, said.split())
    return split, splits, complete_ms
