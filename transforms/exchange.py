"""Between decoding and folding: events are split by shard, and passed by value or by reference.

By reference where workers share this machine's files: the FnApiRunner keeps what passes
between stages in memory, so the events themselves wait in Arrow IPC files and memory stays
flat however large the archive. A shard plays the part of a key group; it never changes a
result.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.coders import Reference, pack, unpack
from transforms.arrays import conform, nulls
from transforms.hashing import hash_strings

SHARD_SEED = 0x5348415244000001


def shards_of(keys: pa.Array | pa.ChunkedArray, shards: int) -> npt.NDArray[np.uint16]:
    """Return the shard of each key: its 64-bit hash modulo the number of shards."""
    if shards == 1:
        return np.zeros(len(keys), np.uint16)
    return (hash_strings(keys, SHARD_SEED) % np.uint64(shards)).astype(np.uint16)


_HERE, _THERE = b"H", b"T"


def take(left: bytes) -> bytes:
    """Return the bytes that `Exchange.leave` was given."""
    if left[:1] == _HERE:
        return left[1:]
    with open(os.fsdecode(left[1:]), "rb") as source:
        return source.read()


@dataclass(frozen=True)
class Exchange:
    """Writes batches for other steps.

    Attributes:
        folder: where files may wait; empty to pass batches by value.
    """

    folder: str

    def leave(self, payload: bytes, name: str) -> bytes:
        """Leave bytes for another step, which `take` gets: a path where files may wait."""
        if not self.folder:
            return _HERE + payload
        path = os.path.join(self.folder, name)
        with open(path, "wb") as sink:
            sink.write(payload)
        return _THERE + os.fsencode(path)

    def split(self, events: pa.Table, key: str, shards: int) -> Iterator[tuple[int, bytes]]:
        """Split a table by the shard of its key.

        Yields:
            (shard, packed batch), for each shard that has rows, in the rows' order.
        """
        if events.num_rows:
            yield from self.scatter(events, shards_of(events[key], shards))

    def scatter(
        self, events: pa.Table, owners: npt.NDArray[np.uint16]
    ) -> Iterator[tuple[int, bytes]]:
        """Split a table by the shard that each row is for.

        Yields:
            As `split` does.
        """
        if events.num_rows == 0:
            return
        compact = without_nulls(events)
        counts = np.bincount(owners)
        if counts[-1] == len(owners):
            yield len(counts) - 1, self.write([compact])[0]
            return
        # NumPy sorts 16-bit integers stably by radix.
        order = np.argsort(owners, kind="stable")
        arranged = pa.table(
            {n: conform(c, c.type).take(pa.array(order)) for n, c in _columns(compact)}
        )
        ends = np.cumsum(counts)
        filled = np.flatnonzero(counts)
        parts = [arranged.slice(ends[s] - counts[s], counts[s]) for s in filled]
        yield from zip(filled.tolist(), self.write(parts), strict=True)

    def write(self, parts: list[pa.Table]) -> list[bytes]:
        """Pack tables of one schema (one chunk a column) into bytes, by value or by reference."""
        batches = [part.combine_chunks().to_batches()[0] for part in parts]
        if not self.folder:
            return [pack(batch) for batch in batches]
        path = os.path.join(self.folder, f"{uuid.uuid4().hex}.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, batches[0].schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return [
            pack(Reference(path, i, batch.num_rows, batch.nbytes))
            for i, batch in enumerate(batches)
        ]


def fetch(packed: bytes, columns: list[str] | None = None) -> pa.Table:
    """Return the table behind packed bytes (all-null columns may be missing).

    Args:
        packed: what `Exchange` made.
        columns: only these, as far as they are there.
    """
    found = unpack(packed)
    if isinstance(found, Reference):
        with pa.memory_map(found.path) as source:
            reader = pa.ipc.open_file(source)
            found = pa.Table.from_batches([reader.get_batch(found.index)])
    if columns is not None:
        found = found.select([name for name in columns if name in found.column_names])
    return found


def size_of(packed: bytes) -> tuple[int, int]:
    """Return rows and bytes of a packed batch."""
    found = unpack(packed)
    if isinstance(found, Reference):
        return found.rows, found.bytes
    return found.num_rows, found.nbytes


def without_nulls(table: pa.Table) -> pa.Table:
    """Drop columns that hold nulls only: many formats fill half of the schema."""
    n = table.num_rows
    return table.select([name for name, c in _columns(table) if c.null_count < n])


def with_schema(tables: list[pa.Table], schema: pa.Schema) -> pa.Table:
    """Put tables after each other, in a schema; columns that they lack are null."""
    columns = []
    names = [set(table.column_names) for table in tables]
    rows = sum(table.num_rows for table in tables)
    for field in schema:
        if not any(field.name in there for there in names):
            columns.append(nulls(field.type, rows))
            continue
        chunks: list[pa.Array] = []
        for table, there in zip(tables, names, strict=True):
            if field.name in there:
                chunks += table[field.name].chunks
            else:
                chunks.append(nulls(field.type, table.num_rows))
        columns.append(conform(pa.chunked_array(chunks, field.type), field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _columns(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    return zip(table.column_names, table.columns, strict=True)
