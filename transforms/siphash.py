"""SipHash-2-4 with 128-bit output, in NumPy: a keyed hash of many rows at once.

For what must not be computable without the key and is too much to hash a row at a time; see
Aumasson, Bernstein: SipHash, a fast short-input PRF (2012), and its reference implementation.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Lane = npt.NDArray[np.uint64]

_ROWS = 8192  # Four lanes of as many rows stay in a core's cache.


def siphash128(key: bytes, *words: Lane) -> tuple[Lane, Lane]:
    """Hash each row of 64-bit words (a message of 8 bytes a word, little-endian).

    Args:
        key: 16 bytes.
        words: columns of equal length, at least one, fewer than 32.

    Returns:
        The first and the second half of each row's hash, as little-endian integers.
    """
    rows = len(words[0])
    first, second = np.empty(rows, np.uint64), np.empty(rows, np.uint64)
    k0, k1 = np.frombuffer(key, "<u8")
    for start in range(0, rows, _ROWS):
        part = slice(start, min(start + _ROWS, rows))
        size = part.stop - start
        v = [
            np.full(size, k ^ np.uint64(constant), np.uint64)
            for k, constant in (
                (k0, 0x736F6D6570736575),
                (k1, 0x646F72616E646F6D ^ 0xEE),  # 0xEE: 128 bits of output
                (k0, 0x6C7967656E657261),
                (k1, 0x7465646279746573),
            )
        ]
        length = np.uint64(8 * len(words) << 56)
        for word in (*(column[part] for column in words), length):
            v[3] ^= word
            _rounds(v, 2)
            v[0] ^= word
        v[2] ^= np.uint64(0xEE)
        _rounds(v, 4)
        first[part] = v[0] ^ v[1] ^ v[2] ^ v[3]
        v[1] ^= np.uint64(0xDD)
        _rounds(v, 4)
        second[part] = v[0] ^ v[1] ^ v[2] ^ v[3]
    return first, second


def _rounds(v: list[Lane], count: int) -> None:
    v0, v1, v2, v3 = v
    spare = np.empty_like(v0)
    for _ in range(count):
        v0 += v1
        v2 += v3
        _rotate(v1, 13, spare)
        _rotate(v3, 16, spare)
        v1 ^= v0
        v3 ^= v2
        _rotate(v0, 32, spare)
        v2 += v1
        v0 += v3
        _rotate(v1, 17, spare)
        _rotate(v3, 21, spare)
        v1 ^= v2
        v3 ^= v0
        _rotate(v2, 32, spare)


def _rotate(lane: Lane, bits: int, spare: Lane) -> None:
    np.right_shift(lane, np.uint64(64 - bits), out=spare)
    np.left_shift(lane, np.uint64(bits), out=lane)
    lane |= spare
