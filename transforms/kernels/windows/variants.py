"""Ways of cases: the most frequent ones, and their states by name."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.kernels.partial_rows import NAMES
from transforms.kernels.segments import first_of_group, list_lengths, rank_in_group
from transforms.kernels.windows.merging import OTHERS, code_of, merge
from transforms.kernels.windows.rows import Integers, Rows, pack

MOST_VARIANTS = 10_000
"""Of a group and window that are told one by one."""

MOST_STATES = 1000
"""Of a way that is told."""


def most_frequent(rows: Rows, most: int) -> Rows:
    """Keep the most frequent variants of each group and window; the rest is one row, `others`.

    Of equally frequent ones those with the least id stay.
    """
    rows = merge(rows, pack(rows.bucket, rows.group, rows.texts["name"].codes))
    if not len(rows):
        return rows
    text = rows.texts["name"]
    place, values = code_of(text.values, OTHERS)
    used, codes = np.unique(text.codes, return_inverse=True)
    by_text = pc.sort_indices(text.values.take(pa.array(used, mask=used < 0)))
    spelled = np.empty(len(used), np.int64)
    spelled[by_text.to_numpy()] = np.arange(len(used))
    rest = text.codes == place
    window = pack(rows.bucket, rows.group)
    order = np.lexsort((spelled[codes.reshape(-1)], -rows.sums["count"], rest, window))
    rank = np.empty(len(rows), np.int64)
    rank[order] = rank_in_group(first_of_group(window[order]))
    rest |= rank >= most
    # In the order of their frequency.
    rows = rows.renamed("name", np.where(rest, place, text.codes), values).take(order)
    rest = rest[order]
    if not rest.any():
        return rows
    kept, others = rows.where(~rest), rows.where(rest)
    others = merge(others, pack(others.bucket, others.group))
    none = pa.nulls(len(others), others.states.type)
    return _stacked(kept, others, none)


def _stacked(first: Rows, second: Rows, states: pa.Array) -> Rows:
    """Put rows below others of the same texts; distributions and cases do not matter here."""
    texts = {}
    for name, text in first.texts.items():
        codes = np.concatenate((text.codes, second.texts[name].codes))
        texts[name] = type(text)(codes, text.values)
    return Rows(
        texts=texts,
        bucket=np.concatenate((first.bucket, second.bucket)),
        kind=np.concatenate((first.kind, second.kind)),
        sums={
            name: np.concatenate((column, second.sums[name])) for name, column in first.sums.items()
        },
        least=np.concatenate((first.least, second.least)),
        most=np.concatenate((first.most, second.most)),
        cases=first.cases,
        bins=first.bins,
        tallies=first.tallies,
        states=pa.concat_arrays([first.states, states]),
    )


class Names:
    """Names of states, by group and hash."""

    def __init__(self, rows: Rows) -> None:
        """Read the NAMES rows among some."""
        rows = rows.where(rows.kind == NAMES)
        lists = rows.states
        self._group = np.repeat(rows.group, list_lengths(lists))
        self._hash = lists.flatten().to_numpy(zero_copy_only=False).view(np.int64)
        names = rows.texts["name"].plain()
        self._names = names.take(pa.array(np.repeat(np.arange(len(rows)), list_lengths(lists))))

    def of(self, group: Integers, ways: pa.Array) -> pa.Array:
        """Return the states of ways, at most `MOST_STATES` of each; null where there is no way.

        Args:
            group: code of the group of each.
            ways: hashes of states.
        """
        ways = pc.list_slice(ways, 0, MOST_STATES) if len(ways) else ways
        lengths = list_lengths(ways)
        hashes = ways.flatten().to_numpy(zero_copy_only=False).view(np.int64)
        both = pack(
            np.concatenate((self._group, np.repeat(group, lengths))),
            np.concatenate((self._hash, hashes)),
        )
        known, wanted = both[: len(self._hash)], both[len(self._hash) :]
        order = np.argsort(known)
        place = np.minimum(np.searchsorted(known[order], wanted), max(len(known) - 1, 0))
        at = order[place] if len(known) else place
        found = known[at] == wanted if len(known) else np.zeros(len(wanted), bool)
        bare, numbers = np.unique(hashes[~found], return_inverse=True)
        written = pa.array([f"{h:016x}" for h in bare.view(np.uint64).tolist()], pa.string())
        index = np.where(found, at, 0)
        index[~found] = len(known) + numbers.reshape(-1)
        names = pa.concat_arrays([self._names, written]).take(pa.array(index))
        offsets = np.zeros(len(lengths) + 1, np.int32)
        offsets[1:] = np.cumsum(lengths)
        mask = ways.is_null() if ways.null_count else None
        return pa.ListArray.from_arrays(pa.array(offsets), names, mask=mask)
