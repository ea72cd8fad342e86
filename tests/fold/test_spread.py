"""Keys of shards, and where Flink places them; a real cluster is asked in tests/pipelines."""

from __future__ import annotations

from collections import Counter

import pytest

from transforms.fold.spread import KEY_GROUPS, key_group, keys_of_shards, shards_of_keys


@pytest.mark.parametrize("shards", [1, 2, 16, 64, 100, 128, 500])
def test_every_shard_has_a_key_of_its_own(shards: int) -> None:
    keys = keys_of_shards(shards)
    assert len(set(keys)) == len(keys) == shards
    assert [shards_of_keys(shards)[key] for key in keys] == list(range(shards))


@pytest.mark.parametrize("parallelism", [1, 2, 4, 8, 16])
def test_instances_get_the_same_number_of_shards(parallelism: int) -> None:
    # As Flink's KeyGroupRangeAssignment has it.
    placed = Counter(key_group(key) * parallelism // KEY_GROUPS for key in keys_of_shards(16))
    assert set(placed.values()) == {16 // parallelism}
    assert len(placed) == parallelism


def test_key_groups_are_those_of_flink() -> None:
    """Flink 1.19.3's KeyGroupRangeAssignment has worked them out, of Beam's bytes."""
    known = {0: 123, 1: 36, 2: 29, 3: 125, 63: 61, 127: 113, 128: 52, 129: 103, 200: 119}
    known |= {255: 26, 256: 33, 16383: 78, 16384: 21, 70000: 39}
    assert {key: key_group(key) for key in known} == known
    assert len({key_group(key) for key in range(10_000)}) == KEY_GROUPS
