"""How batches cross from step to step: Arrow IPC bytes, or a reference to a file that holds them.

Both are plain `bytes`, so that Beam's own coder serves, on every runner and in every
process; nothing is pickled. References are for workers that share this machine's files.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

_INLINE = b"I"
_REFERENCE = b"R"


@dataclass(frozen=True)
class Reference:
    """A record batch in an Arrow IPC file.

    Attributes:
        path: the file.
        index: number of the record batch in it.
        rows: rows of the batch.
        bytes: its size in memory.
    """

    path: str
    index: int
    rows: int
    bytes: int


def pack(batch: pa.RecordBatch | pa.Table | Reference) -> bytes:
    """Turn a batch, or a reference to one, into bytes."""
    if isinstance(batch, Reference):
        text = f"{batch.index} {batch.rows} {batch.bytes} {batch.path}"
        return _REFERENCE + text.encode()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write(batch)
    return _INLINE + sink.getvalue().to_pybytes()


def unpack(packed: bytes) -> pa.Table | Reference:
    """Turn the bytes of `pack` back into a table or reference.

    Raises:
        ValueError: the bytes are neither.
    """
    if packed[:1] == _REFERENCE:
        index, rows, size, path = packed[1:].decode().split(" ", 3)
        return Reference(path, int(index), int(rows), int(size))
    if packed[:1] != _INLINE:
        reason = f"not a packed batch: {packed[:16]!r}"
        raise ValueError(reason)
    with pa.ipc.open_stream(pa.py_buffer(packed)[1:]) as reader:
        return reader.read_all()
