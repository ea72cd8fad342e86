"""Columnar arithmetic on rows that are grouped by case: what SQL calls window functions.

A *group number* per row (non-decreasing, from 0) stands for the case. Nothing here knows
what an event is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.hashing import LOW, combine

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]
NONE = np.int64(np.iinfo(np.int64).min)
"""Stands for 'no time' where times are plain integers; smaller than any."""


def first_of_group(groups: Integers) -> Flags:
    """Flag the first row of each run of equal group numbers."""
    first = np.ones(len(groups), bool)
    first[1:] = groups[1:] != groups[:-1]
    return first


def last_of_group(groups: Integers) -> Flags:
    """Flag the last row of each run of equal group numbers."""
    last = np.ones(len(groups), bool)
    last[:-1] = groups[1:] != groups[:-1]
    return last


def rank_in_group(first: Flags) -> Integers:
    """Number the rows of each group from 0."""
    rows = np.arange(len(first), dtype=np.int64)
    return rows - np.maximum.accumulate(np.where(first, rows, 0))


def running_max_before(groups: Integers, values: Integers, start: Integers) -> Integers:
    """Return for each row the maximum of its group's start value and of the rows before it.

    Args:
        groups: group number a row, non-decreasing.
        values: one a row.
        start: one a group (`NONE` for nothing).
    """
    first = first_of_group(groups)
    previous = np.empty(len(values), np.int64)
    previous[1:] = values[:-1]
    previous[first] = start[groups[first]]
    # Ranks keep the order and fit beside the group number in one integer, so that one
    # accumulate over all rows restarts at every group.
    distinct, ranks = np.unique(previous, return_inverse=True)
    packed = (groups << np.int64(32)) | ranks.reshape(-1)
    highest = np.maximum.accumulate(packed) & np.int64(0xFFFFFFFF)
    return distinct[highest]


def repeated(groups_known: Integers, known: Hashes, groups: Integers, ids: Hashes) -> Flags:
    """Flag rows whose id is known to their group, or came before in it."""
    keys = np.concatenate((combine(LOW, groups_known, known), combine(LOW, groups, ids)))
    ordered = np.sort(keys)
    doubles = ordered[1:][ordered[1:] == ordered[:-1]]
    flags = np.zeros(len(keys), bool)
    if len(doubles):
        index = np.argsort(keys, kind="stable")
        in_order = keys[index]
        flags[index[1:]] = in_order[1:] == in_order[:-1]
    return flags[len(known) :]


def append_lists(
    lists: pa.ListArray, groups: Integers, values: pa.Array, count: int
) -> pa.ListArray:
    """Append values to the lists of their groups.

    Args:
        lists: one a group (null counts as empty).
        groups: group number of each value, non-decreasing.
        values: what is appended, in order.
        count: number of groups.
    """
    old = lists.flatten()
    lengths = list_lengths(lists)
    of_old = np.repeat(np.arange(count, dtype=np.int64), lengths)
    added = np.bincount(groups, minlength=count).astype(np.int64)
    if len(old):
        index = np.argsort(np.concatenate((of_old, groups)), kind="stable")
        values = pa.concat_arrays([old, values.cast(old.type)]).take(pa.array(index))
    offsets = np.zeros(count + 1, np.int32)
    offsets[1:] = np.cumsum(lengths + added)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def list_lengths(lists: Any) -> Integers:
    """Return the length of each list; null counts as empty."""
    lengths: Integers = (
        lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    )
    return lengths


def sums(values: Hashes, lengths: Integers) -> Hashes:
    """Add up consecutive stretches of the values, modulo 2**64."""
    total = np.concatenate((np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)))
    ends = np.cumsum(lengths)
    result: Hashes = total[ends] - total[ends - lengths]
    return result
