"""Keys, and where Flink places them; a real cluster is asked in tests/pipelines/test_flink.py."""

from __future__ import annotations

from collections import Counter

import pytest
from apache_beam.coders import VarIntCoder

from transforms.spread import KEY_GROUPS, key_group, keys_of_shards, shards_of_keys

encoded = VarIntCoder().encode


@pytest.mark.parametrize("shards", [1, 2, 16, 64, 100, 128, 500])
def test_every_shard_has_a_key_of_its_own(shards: int) -> None:
    keys = keys_of_shards(shards)
    assert len(set(keys)) == len(keys) == shards
    assert [shards_of_keys(shards)[key] for key in keys] == list(range(shards))


@pytest.mark.parametrize("parallelism", [1, 2, 4, 8, 16])
def test_instances_get_the_same_number_of_shards(parallelism: int) -> None:
    # As Flink's KeyGroupRangeAssignment has it.
    placed = Counter(
        key_group(encoded(key)) * parallelism // KEY_GROUPS for key in keys_of_shards(16)
    )
    assert set(placed.values()) == {16 // parallelism}
    assert len(placed) == parallelism


def test_key_groups_are_those_of_flink() -> None:
    """Worked out by Flink 1.19.3's KeyGroupRangeAssignment, of keys of Beam's runner 2.70."""
    known = {0: 46, 1: 122, 2: 125, 127: 62, 128: 14, 300: 31, 70000: 43}
    assert {key: key_group(encoded(key)) for key in known} == known
    text = b"abcdefghijklmnopqrstuvwxyz0123456789"
    assert key_group(bytes([len(text)]) + text) == 45
    assert len({key_group(encoded(key)) for key in range(10_000)}) == KEY_GROUPS
