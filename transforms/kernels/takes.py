"""How many distinct cases had a key in a window: each case remembers when it last had which.

A case that has a key in a bucket for the first time in `j` buckets is new to every window that
began later. A key is remembered by a hash of 64 bits (two keys of one case that share it count
as one: one time in 10**19), for as many buckets as a window has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from transforms.kernels.grouping import Codes, Keys, keys_of
from transforms.kernels.segments import Flags, Hashes, Integers


@dataclass(frozen=True)
class Seen:
    """What cases remember, as rows.

    Attributes:
        groups: number of the case.
        keys: hash of the key.
        buckets: where it last had it.
    """

    groups: Integers
    keys: Hashes
    buckets: Integers

    def where(self, flags: Flags) -> Seen:
        """Return the rows flagged."""
        return Seen(self.groups[flags], self.keys[flags], self.buckets[flags])


@dataclass(frozen=True)
class Takes:
    """Rows of one kind of key, beside what their cases remember of it.

    Attributes:
        keys: (key, bucket) of all rows; some have none, as they are only remembered.
        key_of: key of each of them.
        bucket_of: bucket of each of them.
        ordered: life, then number in `keys`, then 1 for a row: packed and sorted.
        bits: of the number in `keys`.
        matched: flags what is remembered of a key that occurs.
    """

    keys: Keys
    key_of: Integers
    bucket_of: Integers
    ordered: Integers
    bits: int
    matched: Flags

    @classmethod
    def of(
        cls,
        kinds: Keys,
        hashes: Hashes,
        buckets: tuple[Codes, Integers],
        lives: Integers,
        seen: Seen,
        lives_seen: Integers,
        codes_seen: Integers,
    ) -> Takes:
        """Sort rows, and what is remembered, by life, key and bucket.

        Args:
            kinds: key of each row.
            hashes: one a key.
            buckets: of all rows, then of all that is remembered; and their numbers.
            lives: of each row: a case that was forgotten and came back has another one.
            seen: what is remembered.
            lives_seen: of what is remembered.
            codes_seen: bucket of what is remembered, as in `buckets`.
        """
        codes, numbers = buckets
        rows = len(kinds.ids)
        at, matched = _find(hashes, seen.keys)
        ids, of_bucket, of_life = kinds.ids, codes.values[:rows], lives
        if matched.any():
            ids = np.concatenate((ids, at[matched]))
            of_bucket = np.concatenate((of_bucket, codes_seen[matched]))
            of_life = np.concatenate((of_life, lives_seen[matched]))
        keys = keys_of(Codes(ids, kinds.codes.size), Codes(of_bucket, codes.size))
        bits = max(1, len(keys).bit_length())
        of_rows = Keys(keys.ids[:rows], np.zeros(len(keys), np.int64))
        of_rows.picks[of_rows.ids] = np.arange(rows)
        # Lives and keys are no more than rows: both fit, in less than 2**31 of them.
        ordered = of_life << bits
        ordered |= keys.ids
        ordered <<= 1
        ordered |= 1
        ordered[rows:] -= 1
        ordered.sort()
        return cls(
            keys=of_rows,
            key_of=ids[keys.picks],
            bucket_of=numbers[of_bucket[keys.picks]],
            ordered=ordered,
            bits=bits,
            matched=matched,
        )

    def new_cases(self, buckets: int) -> Integers:
        """Count the cases that are new to each window.

        Args:
            buckets: of a window.

        Returns:
            One row a key and bucket; column j is of the window that began j buckets before.
        """
        places = self.ordered >> 1
        is_row = (self.ordered & 1).astype(bool)
        count = len(self.keys)
        mask = np.int64((1 << self.bits) - 1)
        if buckets == 1:
            new = is_row.copy()
            new[1:] &= places[1:] != places[:-1]
            return np.bincount(places[new] & mask, minlength=count).reshape(count, 1)
        here = places & mask
        ages = np.full(len(places), buckets)
        if len(places):
            same = ~self._opens(places, here)
            same[0] = False
            after = np.flatnonzero(same)
            passed = self.bucket_of[here[after]] - self.bucket_of[here[after - 1]]
            ages[after] = np.minimum(passed, buckets)
        tallies = np.bincount(
            (here * (buckets + 1) + ages)[is_row], minlength=count * (buckets + 1)
        ).reshape(count, buckets + 1)
        younger = np.cumsum(tallies, axis=1)
        found: Integers = younger[:, -1:] - younger[:, :-1]
        return found

    def _opens(self, places: Integers, here: Integers) -> Flags:
        """Flag the first row of each life and key."""
        opens = np.ones(len(places), bool)
        lives = places >> self.bits
        keys = self.key_of[here]
        opens[1:] = (lives[1:] != lives[:-1]) | (keys[1:] != keys[:-1])
        return opens

    def newest(self) -> tuple[Integers, Integers, Integers]:
        """Return (life, key, bucket) of the newest row, or memory, of each life and key."""
        places = self.ordered >> 1
        here = places & np.int64((1 << self.bits) - 1)
        last = np.ones(len(places), bool)
        last[:-1] = self._opens(places, here)[1:]
        picked = here[last]
        return places[last] >> self.bits, self.key_of[picked], self.bucket_of[picked]


def remembered(parts: list[Seen], buckets: int, cases: int) -> Seen:
    """Put together what cases remember, without what is out of every window of their next event.

    Args:
        parts: rows, each key of a case once.
        buckets: of a window.
        cases: how many there are.

    Returns:
        Rows by case and key.
    """
    groups = np.concatenate([part.groups for part in parts])
    keys = np.concatenate([part.keys for part in parts])
    at = np.concatenate([part.buckets for part in parts])
    newest = np.full(cases, np.iinfo(np.int64).min)
    np.maximum.at(newest, groups, at)
    order = np.lexsort((keys, groups))
    whole = Seen(groups[order], keys[order], at[order])
    return whole.where(newest[whole.groups] - whole.buckets < buckets)


def as_lists(seen: Seen, groups: Integers, cases: int) -> tuple[pa.Array, pa.Array]:
    """Write what cases remember as two lists a case: hashes of keys, and buckets.

    Args:
        seen: rows by case.
        groups: the cases wanted, in order.
        cases: how many there are.
    """
    offsets = np.zeros(cases + 1, np.int32)
    offsets[1:] = np.cumsum(np.bincount(seen.groups, minlength=cases))
    take = pa.array(groups)
    keys, at = (
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)).take(take)
        for values in (seen.keys, seen.buckets)
    )
    return keys, at


def _find(hashes: Hashes, wanted: Hashes) -> tuple[Integers, Flags]:
    """Return where each wanted hash is, and whether it is there."""
    if not len(wanted) or not len(hashes):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    order = np.argsort(hashes)
    ordered = hashes[order]
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    found: Integers = order[at]
    flags: Flags = ordered[at] == wanted
    return found, flags
