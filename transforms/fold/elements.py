"""What a fold takes and keeps, as bytes: elements of events, marks, state and controls.

The same bytes wait in a shard's bags, so an element's form is part of the state: `VERSION`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pyarrow as pa

from schemas.coders import pack, unpack
from transforms.exchange import without_nulls
from transforms.kernels.base import Control

VERSION = 1
"""Of the mark and of the bags' elements."""

EVENTS, MARK, STATE, CONTROL = b"E", b"M", b"S", b"C"
"""What an element is of, by its first byte."""

FIRST = -(2**62)
"""Number of the entries of state that come before those of any firing."""

_EVENTS_HEAD = struct.Struct("<qHH")
_STATE_HEAD = struct.Struct("<qB")
_CONTROL_HEAD = struct.Struct("<qH")
_ENTRY_HEAD = struct.Struct("<BHqI")


def events_element(packed: bytes, split: int = 0, splits: int = 0, complete_ms: int = 0) -> bytes:
    """Make an element of events.

    Args:
        packed: a packed table of events.
        split: number of the reader that they come from.
        splits: how many readers there are; 0 if that is not known.
        complete_ms: order time before which that reader has given everything; `DRAIN` if it has
            ended: then what waits is folded, and no deadline fires.
    """
    return EVENTS + _EVENTS_HEAD.pack(complete_ms, split, splits) + packed


def mark_element(split: int, splits: int, complete_ms: int) -> bytes:
    """Make an element without events, for shards that a batch has none for."""
    return MARK + _EVENTS_HEAD.pack(complete_ms, split, splits)


def state_element(rows: pa.Table, until_ms: int, version: int = 1) -> bytes:
    """Make an element of state rows that another run has left, complete up to an order time.

    Args:
        rows: in the kernel's state schema of that version, of keys of one shard.
        until_ms: order time up to which that run has folded.
        version: of the schema.
    """
    return STATE + _STATE_HEAD.pack(until_ms, version) + _pack(rows)


def control_element(control: Control) -> bytes:
    """Make a control element."""
    kind = control.kind.encode()
    return CONTROL + _CONTROL_HEAD.pack(control.effective, len(kind)) + kind + control.payload


def said(element: bytes) -> tuple[int, int, int]:
    """Return what an element of events, or a mark, says of its reader.

    Returns:
        Order time in ms before which it has given everything, its number, and how many there
        are: 0 if that is not known.
    """
    complete, split, splits = _EVENTS_HEAD.unpack_from(element, 1)
    return complete, split, splits


def read_events(element: bytes) -> pa.Table:
    """Return the events of an element."""
    return _unpack(element[1 + _EVENTS_HEAD.size :])


def with_events(element: bytes, events: pa.Table) -> bytes:
    """Return an element with other events."""
    return element[: 1 + _EVENTS_HEAD.size] + pack(events.combine_chunks().to_batches()[0])


def without_events(element: bytes) -> bytes:
    """Return the mark that an element of events holds."""
    return MARK + element[1 : 1 + _EVENTS_HEAD.size]


def read_state(element: bytes) -> tuple[int, int, pa.Table]:
    """Return until when (order time in ms) another run has folded, and its rows with version."""
    until, version = _STATE_HEAD.unpack_from(element, 1)
    return until, version, _unpack(element[1 + _STATE_HEAD.size :])


def read_control(element: bytes) -> Control:
    """Return the control of an element."""
    effective, length = _CONTROL_HEAD.unpack_from(element, 1)
    begin = 1 + _CONTROL_HEAD.size
    return Control(
        effective, element[begin : begin + length].decode(), bytes(element[begin + length :])
    )


@dataclass(frozen=True)
class Entry:
    """An entry of the state bag: what a firing has changed.

    Attributes:
        number: entries are applied in this order.
        version: of the state's schema.
        rows: new and changed rows.
        removed: keys of rows that are no more.
    """

    number: int
    version: int
    rows: pa.Table
    removed: pa.Array


def state_entry(
    rows: pa.Table, version: int, number: int = FIRST, removed: pa.Array | None = None
) -> bytes:
    """Make an entry of the state bag; see `Entry`."""
    gone = b"" if removed is None or not len(removed) else _pack(pa.table({"key": removed}))
    return _ENTRY_HEAD.pack(VERSION, version, number, len(gone)) + gone + _pack(rows)


def read_entry(entry: bytes) -> Entry:
    """Return what an entry of the state bag holds."""
    _, version, number, gone = _ENTRY_HEAD.unpack_from(entry)
    begin = _ENTRY_HEAD.size
    removed = pa.array([], pa.string())
    if gone:
        removed = _unpack(entry[begin : begin + gone])["key"].combine_chunks()
    return Entry(number, version, _unpack(entry[begin + gone :]), removed)


def _pack(rows: pa.Table) -> bytes:
    return pack(without_nulls(rows).combine_chunks().to_batches()[0] if rows.num_rows else rows)


def _unpack(packed: bytes) -> pa.Table:
    found = unpack(packed)
    if not isinstance(found, pa.Table):
        reason = "a stream's batches are passed by value"
        raise ValueError(reason)  # noqa: TRY004
    return found
