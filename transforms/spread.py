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
from apache_beam.coders import VarIntCoder

KEY_GROUPS = 128
_NUMBERS = VarIntCoder()
"""How Beam encodes the keys of shards."""


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
    return tuple(number_for(shard, shards, _NUMBERS.encode) for shard in range(shards))


@cache
def shards_of_keys(shards: int) -> Mapping[int, int]:
    """Return the shard of each key of `keys_of_shards`."""
    return {key: shard for shard, key in enumerate(keys_of_shards(shards))}


def key_group(encoded: bytes) -> int:
    """Return the key group that Flink places a key of Beam in.

    The bytes that Beam's coder makes of a key are hashed by Murmur3 of 128 bits, of which 32 count
    (`org.apache.beam.runners.flink.adapter.FlinkKey.hashCode`), and those by Murmur3 of 32 bits
    (`org.apache.flink.util.MathUtils.murmurHash`).

    Args:
        encoded: those bytes.
    """
    code = mmh3.hash128(encoded, 0, x64arch=True) & 0xFFFFFFFF
    return abs(mmh3.hash(code.to_bytes(4, "little"))) % KEY_GROUPS
