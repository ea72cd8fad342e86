"""Keys that Flink spreads evenly over the instances of a step.

Flink places a key by a hash: of 16 small numbers as keys, two instances would often get 11 and 5.
Which keys stand for the shards, and for the slices of a source, is ours to choose, so they are
chosen for the places that Flink gives them: with its 128 key groups (the default up to a
parallelism of 85) each of 1, 2, 4, ... instances gets as many as any other. Elsewhere they are
keys like others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from itertools import count

import mmh3

KEY_GROUPS = 128
_WORD = 0xFFFFFFFF


def number_for(place: int, places: int, key_of: Callable[[int], bytes]) -> int:
    """Return the least number whose key Flink puts into one of some places.

    Args:
        place: which, from 0.
        places: how many, 128 at most.
        key_of: returns the key that a number stands for, encoded, as Flink gets it.
    """
    return next(n for n in count() if key_group(key_of(n)) * places // KEY_GROUPS == place)


@cache
def keys_of_shards(shards: int) -> tuple[int, ...]:
    """Return a key for each shard, all of them different; the shards themselves beyond 128.

    Args:
        shards: how many there are.
    """
    if shards > KEY_GROUPS:
        return tuple(range(shards))
    return tuple(number_for(shard, shards, varint) for shard in range(shards))


@cache
def shards_of_keys(shards: int) -> Mapping[int, int]:
    """Return the shard of each key of `keys_of_shards`."""
    return {key: shard for shard, key in enumerate(keys_of_shards(shards))}


def key_group(encoded: bytes) -> int:
    """Return the key group that Flink places a key of Beam in.

    The bytes that Beam's coder makes of a key are hashed by Murmur3 of 128 bits, of which 32 count
    (`org.apache.beam.runners.flink.adapter.FlinkKey.hashCode`), and those by Flink's own
    (`org.apache.flink.util.MathUtils.murmurHash`).

    Args:
        encoded: those bytes.
    """
    return _murmur(mmh3.hash64(encoded, 0, x64arch=True)[0] & _WORD) % KEY_GROUPS


def varint(number: int) -> bytes:
    """Encode a number that is not negative as Beam does."""
    written = bytearray()
    while number > 127:
        written.append(128 | number & 127)
        number >>= 7
    written.append(number)
    return bytes(written)


def _murmur(code: int) -> int:
    code = code * 0xCC9E2D51 & _WORD
    code = _rotated(code, 15) * 0x1B873593 & _WORD
    code = (_rotated(code, 13) * 5 + 0xE6546B64) & _WORD
    code ^= 4
    code = (code ^ code >> 16) * 0x85EBCA6B & _WORD
    code = (code ^ code >> 13) * 0xC2B2AE35 & _WORD
    code ^= code >> 16
    signed = code - (1 << 32) if code >> 31 else code
    if signed >= 0:
        return signed
    return -signed if signed != -(1 << 31) else 0


def _rotated(code: int, bits: int) -> int:
    return (code << bits | code >> 32 - bits) & _WORD
