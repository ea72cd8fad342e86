"""Order and time: the only place that adds or subtracts the disorder D, and that sorts events.

`order_time = max(event_time, record_time - D)`, or event_time without a record time. Folds
order by (order_time, event_time, position, event_id). What is still equal are copies of one
event; among them the one that ends its snapshot (it alone has the snapshot's items) comes
first, then a hash of the content decides, and last the place that it was read from, so that
arrival order never does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import ATTRIBUTES, EVENT_SCHEMA, TIME
from transforms.arrays import conform, integers, nulls
from transforms.hashing import LOW, combine, hash_strings, mix
from transforms.kernels.segments import list_lengths, sums

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BeamTime:
    """How far a runner's event time is ahead of order time: the stamps of elements, and timers.

    A source of ours holds the watermark D behind the record times, so event time is order time.
    Where the watermark is a service's own (Dataflow's reading of Pub/Sub, by publish times), event
    time is order time + D: no event is behind it.

    Attributes:
        ahead_ms: 0, or D.
    """

    ahead_ms: int = 0

    def of_order(self, order_ms: int) -> int:
        """Return the event time of an order time, both in ms."""
        return order_ms + self.ahead_ms


def order_column(times: Integers) -> pa.Array:
    """Make the column `order_time` of times in µs."""
    return pa.array(times).view(pa.timestamp("us")).view(TIME)


def order_times(events: pa.Table, disorder_us: int) -> Integers:
    """Return each event's order time in µs since the epoch; one that they have stands."""
    if "order_time" in events.column_names:
        return integers(conform(events["order_time"], TIME))
    event_time = integers(conform(events["event_time"], TIME))
    record_time = conform(events["record_time"], TIME)
    if record_time.null_count == len(record_time):
        return event_time
    # A null record time is the smallest integer: clamp before subtracting, or it would wrap.
    record = np.maximum(integers(record_time), np.iinfo(np.int64).min + disorder_us)
    return np.maximum(event_time, record - disorder_us)


def arrange(
    events: pa.Table, key: str, disorder_us: int, order: Literal["key", "time", "any"] = "key"
) -> pa.Table:
    """Sort events for a kernel and add `order_time`.

    Args:
        events: rows of the event schema, in any order; an `order_time` that they have stands.
        key: the kernel's key column; comes back dictionary-encoded.
        disorder_us: D in µs.
        order: `key` groups by key first; `time` orders throughout; `any` leaves them as they are.

    Returns:
        The same rows plus `order_time` (timestamp[us, UTC]), one chunk a column.
    """
    times = order_times(events, disorder_us)
    keys = conform(events[key], pa.dictionary(pa.int32(), pa.string()))
    if order == "any":
        columns = {name: conform(events[name], events[name].type) for name in events.column_names}
        return pa.table({**columns, key: keys, "order_time": order_column(times)})
    codes = keys.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    groups = codes if order == "key" else np.zeros(len(codes), np.int64)
    index = _sorted_index(events, groups, times)
    arranged = {
        name: _take(keys if name == key else events[name], index) for name in events.column_names
    }
    arranged["order_time"] = order_column(times[index])
    return pa.table(arranged)


def _take(column: pa.ChunkedArray | pa.Array, index: Integers) -> pa.Array:
    if column.null_count == len(column):
        return nulls(column.type, len(column))
    return conform(column, column.type).take(pa.array(index))


def _sorted_index(events: pa.Table, groups: Integers, times: Integers) -> Integers:
    """Sort by (group, order_time) as one packed integer where that fits, then settle the ties."""
    if len(groups) == 0:
        return np.empty(0, np.int64)
    base = int(times.min())
    time_bits = (int(times.max()) - base).bit_length()
    if int(groups.max()).bit_length() + time_bits <= 63:
        packed = (groups << time_bits) | (times - base)
        index = np.argsort(packed)
        ordered = packed[index]
        equal = ordered[1:] == ordered[:-1]
    else:
        index = np.lexsort((times, groups))
        equal = (np.diff(times[index]) == 0) & (np.diff(groups[index]) == 0)
    if not equal.any():
        return index
    tied = np.zeros(len(index), bool)
    tied[1:] = equal
    tied[:-1] |= equal
    # The number of the tie that each row is in, so that one sort settles them all.
    starts = np.ones(len(index), bool)
    starts[1:] = ~equal
    number = np.cumsum(starts)[tied]
    rows = index[tied]
    index[tied] = rows[_settle(_pick(events, rows), number)]
    return index


# What two copies of an event may differ in and outputs show. Where they were read, which `late`
# shows, decides only between copies that are equal otherwise: archives are moved and cut anew.
_TEXTS = (
    *("activity", "state", "source_state", "actor", "workflow_group", "model_version"),
    *("lifecycle", "transaction_id"),
)

_NUMBERS = ("task", "event", "source_task", "start_time")


def _pick(events: pa.Table, rows: Integers) -> pa.Table:
    wanted = ["event_time", "position", "event_id", "log", "truncated", "attributes"]
    wanted += [*_TEXTS, *_NUMBERS, "source", "source_offset"]
    taken = {
        name: conform(events[name], events.schema.field(name).type).take(pa.array(rows))
        for name in wanted
        if events[name].null_count < len(events)
    }
    return pa.table(taken)


def _settle(tied: pa.Table, number: Integers) -> Integers:
    """Order rows of equal group and order time by what remains of the sort key."""
    rows = tied.num_rows
    names = set(tied.column_names)
    event_time = integers(tied["event_time"].combine_chunks())
    ids = hash_strings(tied["event_id"])
    unlogged = tied["log"].is_null().to_numpy() if "log" in names else np.ones(rows, bool)
    # A log that was cut knows less of its first line than one that was not.
    cut = (
        tied["truncated"].fill_null(False).to_numpy()
        if "truncated" in names
        else np.zeros(rows, bool)
    )
    position = (
        integers(tied["position"].combine_chunks())
        if "position" in names
        else np.zeros(rows, np.int64)
    )
    order = np.lexsort((cut, unlogged, ids, position, event_time, number))
    # What is still equal are copies of one event: only these are looked at closely.
    keys = [key[order] for key in (number, event_time, position, ids, unlogged, cut)]
    equal = np.ones(rows - 1, bool)
    for key in keys:
        equal &= key[1:] == key[:-1]
    if not equal.any():
        return order
    copies = np.zeros(rows, bool)
    copies[1:] = equal
    copies[:-1] |= equal
    close = tied.take(pa.array(order[copies]))
    content, source = np.zeros(rows, np.uint64), np.zeros(rows, np.uint64)
    offset = np.zeros(rows, np.int64)
    content[order[copies]] = _content(close)
    source[order[copies]] = hash_strings(_column(close, "source", pa.string()))
    offset[order[copies]] = integers(_column(close, "source_offset", pa.int64()))
    last = (offset, source, content)
    return np.lexsort((*last, cut, unlogged, ids, position, event_time, number))


def _content(rows: pa.Table) -> npt.NDArray[np.uint64]:
    """Hash what rows hold beside their id, to order copies that differ.

    A column that is missing counts as one of nulls: the order of two rows must not depend on
    which others stand beside them.
    """
    n = rows.num_rows
    parts = [hash_strings(_column(rows, name, pa.string())) for name in _TEXTS]
    parts += [integers(_column(rows, name, pa.int64())).view(np.uint64) for name in _NUMBERS]
    parts.append(_hash_maps(_column(rows, "attributes", ATTRIBUTES)))
    logs = _column(rows, "log", EVENT_SCHEMA.field("log").type)
    entries = mix(logs.flatten().to_numpy(zero_copy_only=False))
    parts.append(sums(entries, list_lengths(logs)) if n else np.empty(0, np.uint64))
    return combine(LOW, *parts)


def _column(rows: pa.Table, name: str, type_: pa.DataType) -> pa.Array:
    if name not in rows.column_names:
        return pa.nulls(rows.num_rows, type_)
    column = rows[name].combine_chunks()
    return column if pa.types.is_dictionary(column.type) else column.cast(type_)


def _hash_maps(maps: pa.MapArray) -> npt.NDArray[np.uint64]:
    """Hash map values without regard to the order of their entries; null as empty."""
    lengths = pc.fill_null(pc.list_value_length(maps.cast(_ENTRIES)), 0).to_numpy()
    flat = maps.cast(_ENTRIES).flatten()
    entries = mix(hash_strings(flat.field("key")) ^ mix(hash_strings(flat.field("value"))))
    return sums(entries, lengths)


_ENTRIES = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
