"""Deterministic 64- and 128-bit hashes of Arrow columns, in NumPy.

They are part of event ids, row ids and shards, so they never change: the same on every
machine, version and batch. Not cryptographic. Mixing steps are those of splitmix64
(Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Lane = npt.NDArray[np.uint64]

LOW = 0x9E3779B97F4A7C15
HIGH = 0xC2B2AE3D27D4EB4F
_NULL = np.uint64(0x6E756C6C6E756C6C)
_HEX = np.frombuffer("".join(f"{i:02x}" for i in range(256)).encode(), dtype=np.uint16)
_WORD = 2**64 - 1
_SHORT = 512
_FEW = 32
"""So few values go on alone behind each `_SHORT` bytes: an array of them costs more than they do,
and one message of 5 MB would take half a minute."""
_TAIL_MASK = np.array([(1 << (8 * n)) - 1 for n in range(8)] + [2**64 - 1], dtype=np.uint64)


def mix(values: Lane) -> Lane:
    """Finish a hash: splitmix64's finalizer, a bijection on 64 bits."""
    h = values ^ (values >> np.uint64(30))
    h *= np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(27)
    h *= np.uint64(0x94D049BB133111EB)
    h ^= h >> np.uint64(31)
    return h


def hash_strings(column: pa.Array | pa.ChunkedArray, seed: int = LOW) -> Lane:
    """Hash each string or binary value to 64 bits; equal values, equal hashes; null has its own.

    A dictionary column is hashed by its distinct values.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # several chunks of dictionaries stay chunked
            column = pa.chunked_array(column.chunks).unify_dictionaries().combine_chunks()
    if pa.types.is_dictionary(column.type):
        values = np.append(hash_strings(column.dictionary, seed), _hash_null(seed))
        codes = column.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
        return values[codes]
    n = len(column)
    if n == 0:
        return np.empty(0, np.uint64)
    if pa.types.is_null(column.type):
        return np.full(n, _hash_null(seed), np.uint64)
    large = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
    width = np.int64 if large else np.int32
    _, offset_buffer, data = column.buffers()
    offsets = np.frombuffer(offset_buffer, width, n + 1, column.offset * width().itemsize)
    starts = offsets[:-1].astype(np.int64)
    lengths = np.diff(offsets).astype(np.int64)
    if column.null_count:
        lengths = np.where(column.is_null().to_numpy(zero_copy_only=False), 0, lengths)
    first, last = int(offsets[0]), int(offsets[-1])
    # Eight bytes of padding, so that a word may be read at every offset.
    raw = np.zeros(last - first + 8, np.uint8)
    if data is not None and last > first:
        raw[: last - first] = np.frombuffer(data, np.uint8, last - first, first)
    words = np.ndarray(shape=(last - first + 1,), dtype="<u8", buffer=raw, strides=(1,))
    starts -= first
    h = np.full(n, np.uint64(seed), np.uint64)
    h ^= lengths.astype(np.uint64) * np.uint64(0xFF51AFD7ED558CCD)
    longest = int(lengths.max())
    for k in range((longest + 7) // 8):
        at = 8 * k
        if at >= _SHORT and at % _SHORT == 0:
            left = np.flatnonzero(lengths > at)
            if len(left) <= _FEW:
                for row in left.tolist():
                    rest = raw[starts[row] + at : starts[row] + lengths[row]].tobytes()
                    h[row] = _hash_rest(int(h[row]), rest, seed)
                break
        if longest <= 64 or at < 64:
            live: npt.NDArray[np.int64] | slice = (
                slice(None) if int(lengths.min()) > at else np.flatnonzero(lengths > at)
            )
        else:
            live = np.flatnonzero(lengths > at)
        word = words[starts[live] + at] & _TAIL_MASK[np.minimum(lengths[live] - at, 8)]
        h[live] = mix(h[live] ^ word) + np.uint64(seed)
    h = mix(h)
    if column.null_count:
        h[column.is_null().to_numpy(zero_copy_only=False)] = _hash_null(seed)
    return h


def _hash_rest(h: int, rest: bytes, seed: int) -> int:
    """Go on with the hash of one value: the same steps as in `hash_strings`."""
    whole = len(rest) & ~7
    words = np.frombuffer(rest[:whole], "<u8").tolist()
    if whole < len(rest):
        words.append(int.from_bytes(rest[whole:], "little"))
    for word in words:
        h ^= word
        h ^= h >> 30
        h = h * 0xBF58476D1CE4E5B9 & _WORD
        h ^= h >> 27
        h = h * 0x94D049BB133111EB & _WORD
        h ^= h >> 31
        h = h + seed & _WORD
    return h


def _hash_null(seed: int) -> np.uint64:
    return mix(np.array([_NULL ^ np.uint64(seed)], np.uint64))[0]


def combine(seed: int, *columns: npt.NDArray[np.int64] | npt.NDArray[np.uint64]) -> Lane:
    """Hash rows of 64-bit integers, column order included."""
    h = np.full(len(columns[0]), np.uint64(seed), np.uint64)
    for column in columns:
        h = mix(h ^ mix(column.view(np.uint64) + np.uint64(seed))) + np.uint64(LOW)
    return mix(h)


def to_hex(high: Lane, low: Lane) -> pa.Array:
    """Write two lanes as 32 lower-case hexadecimal digits each row (string array)."""
    n = len(high)
    lanes = np.empty((n, 2), ">u8")
    lanes[:, 0] = high
    lanes[:, 1] = low
    digits = _HEX[lanes.view(np.uint8).reshape(n, 16)]
    offsets = np.arange(0, 32 * (n + 1), 32, dtype=np.int32)
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(digits))


def identify(
    texts: list[pa.Array | pa.ChunkedArray],
    numbers: list[npt.NDArray[np.int64]],
) -> pa.Array:
    """Make a 128-bit id (32 hexadecimal digits) of each row of texts and integers."""
    # Each text is hashed once, to 64 bits: two rows need equal numbers to share an id by chance.
    parts = [hash_strings(text) for text in texts]
    return to_hex(combine(HIGH, *parts, *numbers), combine(LOW, *parts, *numbers))
