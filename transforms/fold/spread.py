"""Keys of shards that Flink spreads evenly over the instances of a step.

Flink places a key by a hash: of 16 small numbers as keys, two instances would often get 11 and 5.
Which keys stand for the shards is ours to choose, so they are chosen for the places that Flink
gives them: with its 128 key groups (the default up to a parallelism of 85) each of 1, 2, 4, ...
instances gets as many shards as any other. Elsewhere they are keys like others.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

KEY_GROUPS = 128
_WORD = 0xFFFFFFFF


@cache
def keys_of_shards(shards: int) -> tuple[int, ...]:
    """Return a key for each shard, all of them different; the shards themselves beyond 128.

    Args:
        shards: how many there are.
    """
    if shards > KEY_GROUPS:
        return tuple(range(shards))
    found: dict[int, int] = {}
    key = 0
    while len(found) < shards:
        found.setdefault(key_group(key) * shards // KEY_GROUPS, key)
        key += 1
    return tuple(found[shard] for shard in range(shards))


@cache
def shards_of_keys(shards: int) -> Mapping[int, int]:
    """Return the shard of each key of `keys_of_shards`."""
    return {key: shard for shard, key in enumerate(keys_of_shards(shards))}


def key_group(key: int) -> int:
    """Return the key group that Flink places an integer key of Beam in.

    The key is hashed as the bytes that Beam's coder makes of it (`java.nio.ByteBuffer.hashCode`),
    and that once more by Murmur3 (`org.apache.flink.util.MathUtils.murmurHash`).
    """
    code = 1
    for byte in reversed(_varint(key)):
        code = (31 * code + (byte - 256 if byte > 127 else byte)) & _WORD
    return _murmur(code) % KEY_GROUPS


def _varint(number: int) -> bytes:
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
