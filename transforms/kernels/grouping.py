"""Grouping by whole numbers: rows that share names, without a look at a name.

Columns become codes from 0, several codes one number, and that number the key's: dense, in the
order of the codes. Sums, least, greatest and histograms a key are then plain NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from transforms.kernels.segments import Flags, Integers

_ROOM = 2**62
_NARROW = 2**31
_SPARSE = 4
"""A table of all possible codes pays while it has no more places than this for each row."""
_LITTLE = 4096
_MOST = np.iinfo(np.int64).max


class Codes(NamedTuple):
    """A column as numbers.

    Attributes:
        values: one a row, from 0; of 32 bits where it is a name.
        size: greater than all of them.
    """

    values: Integers
    size: int


@dataclass(frozen=True)
class Keys:
    """Rows put together by what they have in common.

    Attributes:
        ids: number of each row's key, from 0; keys are in the order of their codes.
        picks: a row of each key.
    """

    ids: Integers
    picks: Integers

    def __len__(self) -> int:
        """Return how many keys there are."""
        return len(self.picks)

    @property
    def codes(self) -> Codes:
        """The keys as a column."""
        return Codes(self.ids, max(1, len(self.picks)))


def name_codes(column: pa.DictionaryArray) -> Codes:
    """Return a name column as codes; null has the last one."""
    size = len(column.dictionary) + 1
    indices = column.indices
    if indices.null_count:
        indices = indices.fill_null(size - 1)
    return Codes(indices.to_numpy(zero_copy_only=False), size)


def dense(values: Integers) -> tuple[Codes, Integers]:
    """Return codes in the order of the values, and the value of each code."""
    if not len(values):
        return Codes(values, 1), values
    low, high = int(values.min()), int(values.max())
    if high - low >= _SPARSE * len(values) + _LITTLE:
        distinct, codes = np.unique(values, return_inverse=True)
        return Codes(codes.reshape(-1).astype(np.int64), len(distinct)), distinct
    return Codes(values - low, high - low + 1), np.arange(low, high + 1)


def keys_of(*columns: Codes) -> Keys:
    """Number the distinct rows of some columns."""
    joint = columns[0]
    for column in columns[1:]:
        if joint.values.dtype != np.int64 and joint.size * column.size > _NARROW:
            joint = Codes(joint.values.astype(np.int64), joint.size)
        if joint.size * column.size > _ROOM:
            # Never more keys than rows: with these in their place, there is room again.
            joint = _numbered(joint).codes
        joint = Codes(joint.values * column.size + column.values, joint.size * column.size)
    return _numbered(joint)


def _numbered(joint: Codes) -> Keys:
    rows = len(joint.values)
    if joint.size <= _SPARSE * rows + _LITTLE:
        present = np.zeros(joint.size, bool)
        present[joint.values] = True
        ids = (np.cumsum(present) - 1)[joint.values]
        count = int(present.sum())
    else:
        found = pa.array(joint.values).dictionary_encode()
        order = np.argsort(found.dictionary.to_numpy())
        count = len(order)
        rank = np.empty(count, np.int64)
        rank[order] = np.arange(count)
        ids = rank[found.indices.to_numpy()]
    picks = np.empty(count, np.int64)
    picks[ids] = np.arange(rows)
    return Keys(ids, picks)


def counts(keys: Keys, flags: Flags | None = None) -> Integers:
    """Count the rows of each key, or those flagged."""
    ids = keys.ids if flags is None else keys.ids[flags]
    return np.bincount(ids, minlength=len(keys)).astype(np.int64)


def totals(keys: Keys, timed: Flags, values: Integers) -> tuple[Integers, Integers]:
    """Return how many durations each key has, and their sum in µs; the others are 0."""
    total = np.zeros(len(keys), np.int64)
    np.add.at(total, keys.ids, values)
    return counts(keys) - counts(keys, ~timed), total


def extremes(keys: Keys, timed: Flags, values: Integers) -> tuple[pa.Array, pa.Array]:
    """Return the least and the greatest duration of each key; null without any."""
    ids = keys.ids
    least = np.full(len(keys), _MOST)
    np.minimum.at(least, ids, values if timed.all() else np.where(timed, values, _MOST))
    # Durations are not negative, so that those that are none change nothing here.
    greatest = np.zeros(len(keys), np.int64)
    np.maximum.at(greatest, ids, values)
    none = least == _MOST
    return pa.array(least, mask=none), pa.array(greatest, mask=none)


def histogram(keys: Keys, timed: Flags, bins: Integers) -> tuple[pa.Array, pa.Array]:
    """Count, for each key, the rows in each bin: ascending bins, and their tallies."""
    ids, taken = (keys.ids, bins) if timed.all() else (keys.ids[timed], bins[timed])
    low = int(taken.min()) if len(taken) else 0
    width = (int(taken.max()) if len(taken) else 0) - low + 1
    places = ids * width + (taken - low)
    if len(keys) * width <= _SPARSE * len(places) + _LITTLE:
        table = np.bincount(places, minlength=1)
        found = np.flatnonzero(table)
        tallies = table[found]
    else:
        places.sort()
        first = np.ones(len(places), bool)
        first[1:] = places[1:] != places[:-1]
        starts = np.flatnonzero(first)
        found = places[starts]
        tallies = np.diff(np.append(starts, len(places)))
    of_key = np.bincount(found // width, minlength=len(keys))
    offsets = np.zeros(len(keys) + 1, np.int32)
    offsets[1:] = np.cumsum(of_key)
    at = pa.array(offsets)
    return (
        pa.ListArray.from_arrays(at, pa.array((found % width + low).astype(np.int32))),
        pa.ListArray.from_arrays(at, pa.array(tallies.astype(np.int64))),
    )
