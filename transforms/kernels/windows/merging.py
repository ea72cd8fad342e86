"""Rows with one key become one row: sums, least and greatest, histograms bin by bin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.hashing import LOW, combine, hash_strings
from transforms.kernels.partial_rows import (
    ACTOR,
    EDGE,
    LEVEL,
    NAMES,
    VARIANT,
    value_of,
)
from transforms.kernels.segments import first_of_group, rank_in_group
from transforms.kernels.windows.rows import (
    TEXTS,
    Flags,
    Integers,
    Ragged,
    Rows,
    pack,
    ramps,
)

OTHER = "(other)"
"""State or actor of what is beyond the limit of a slot."""

OTHERS = "others"
"""Variant of what is beyond a limit."""

_NAMED_OTHER = {EDGE: "to_state", ACTOR: "name", VARIANT: "name"}


def merge(rows: Rows, key: Integers) -> Rows:
    """Put rows of equal keys together, in the order of the keys.

    Texts and states are those of one of the rows: where they matter they are part of the key.
    """
    if (key[1:] < key[:-1]).any():
        order = np.argsort(key)
        key, rows = key[order], rows.take(order)
    first = first_of_group(key)
    if first.all():
        return rows
    starts = np.flatnonzero(first)
    groups = np.cumsum(first) - 1

    def reduced(operation: np.ufunc, column: Integers) -> Integers:
        if column.strides == (0,) and (operation is not np.add or not column[0]):
            return np.broadcast_to(column[:1], (len(starts),))
        found: Integers = operation.reduceat(column, starts)
        return found

    bins, tallies = _merged_bins(rows.bins, rows.tallies, groups, len(starts))
    none = Ragged.empty(len(rows))
    shell = replace(rows, cases=none, bins=none, tallies=none)
    return replace(
        shell.take(starts),
        sums={name: reduced(np.add, column) for name, column in rows.sums.items()},
        least=reduced(np.minimum, rows.least),
        most=reduced(np.maximum, rows.most),
        cases=_added(rows.cases, groups, starts),
        bins=bins,
        tallies=tallies,
    )


def _added(lists: Ragged, groups: Integers, starts: Integers) -> Ragged:
    """Add up the lists of each group item by item."""
    if not len(lists.values):
        return Ragged.empty(len(starts))
    if len(lists.values) == len(lists.lengths) and (lists.lengths == 1).all():
        values: Integers = np.add.reduceat(lists.values, starts)
        return Ragged(np.ones(len(starts), np.int64), values)
    lengths: Integers = np.maximum.reduceat(lists.lengths, starts)
    ends = np.cumsum(lengths)
    total = np.zeros(int(ends[-1]), np.int64)
    np.add.at(total, ramps((ends - lengths)[groups], lists.lengths), lists.values)
    return Ragged(lengths, total)


def _merged_bins(
    bins: Ragged, tallies: Ragged, groups: Integers, count: int
) -> tuple[Ragged, Ragged]:
    """Add up the histograms of each group."""
    if not len(bins.values):
        return Ragged.empty(count), Ragged.empty(count)
    of_item = np.repeat(groups, bins.lengths)
    key = pack(of_item, bins.values)
    # Rows are in order and so are the bins of each: merging runs is what a stable sort does best.
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(first_of_group(key[order]))
    kept = order[starts]
    lengths = np.bincount(of_item[kept], minlength=count).astype(np.int64)
    sums: Integers = np.add.reduceat(tallies.values[order], starts)
    return Ragged(lengths, bins.values[kept]), Ragged(lengths, sums)


def merge_slots(rows: Rows) -> Rows:
    """Put the rows of each slot together; they come back slot by slot, kind by kind."""
    by_bucket = rows.kind >= LEVEL
    by_bucket &= rows.kind != NAMES
    # Rows in buckets have theirs in their slot; the others have no name.
    buckets = rows.bucket[by_bucket]
    names = rows.texts["name"].codes + 1
    if len(buckets):
        names = names.copy()
        names[by_bucket] = buckets - buckets.min()
    return merge(
        rows,
        pack(
            *(rows.slot, rows.kind.astype(np.int64), rows.group, rows.version, names),
            rows.texts["to_state"].codes,
        ),
    )


def quantiles(rows: Rows, percents: tuple[int, ...]) -> list[npt.NDArray[np.float64]]:
    """Return the values in seconds at the nearest ranks, `ceil(percent / 100 * timed)` from 1.

    Of a value only its bin is known: it is that of the bin's middle, but not less than the
    least nor more than the greatest.
    """
    timed = rows.sums["timed"]
    total = np.concatenate((np.zeros(1, np.int64), np.cumsum(rows.tallies.values)))
    ends = np.cumsum(rows.bins.lengths)
    base = total[ends - rows.bins.lengths]
    found = []
    for percent in percents:
        rank = np.maximum((timed * percent + 99) // 100 - 1, 0)
        places = np.searchsorted(total[1:], base + rank, side="right")
        places = np.clip(np.minimum(places, ends - 1), 0, None)
        if len(rows.bins.values):
            values = value_of(rows.bins.values[places].astype(np.int32))
        else:
            values = np.zeros(len(timed))
        found.append(np.clip(values, rows.least, rows.most) / 1e6)
    return found


def bound(rows: Rows, most: int) -> tuple[Rows, int]:
    """Keep at most so many edges, actors, variants and names a slot; the rest is one row.

    Those with the smallest hashes stay. What a key has been cut for once it is cut for ever, as
    the greatest hash that stays only falls: numbers of what stays are whole, and the result does
    not depend on the order in which rows were put together.

    Args:
        rows: as `merge_slots` gives them.
        most: the limit.

    Returns:
        The rows, and how many were cut.
    """
    firsts = first_of_group(pack(rows.slot, rows.kind.astype(np.int64)))
    sizes = np.diff(np.append(np.flatnonzero(firsts), len(rows)))
    if not len(rows) or sizes.max() <= most:
        return rows, 0
    large = np.repeat(sizes > most, sizes)
    large &= np.isin(rows.kind, (EDGE, ACTOR, VARIANT, NAMES)) & ~_is_other(rows)
    index = np.flatnonzero(large)
    chosen = rows.take(index)
    hashes = combine(LOW, *(hash_strings(chosen.texts[name].name()) for name in TEXTS[1:]))
    order = np.lexsort((hashes, chosen.kind, chosen.slot))
    rank = rank_in_group(
        first_of_group(pack(chosen.slot[order], chosen.kind[order].astype(np.int64)))
    )
    cut = index[order[rank >= most]]
    if not len(cut):
        return rows, 0
    gone = np.zeros(len(rows), bool)
    gone[cut[rows.kind[cut] == NAMES]] = True
    rest = cut[rows.kind[cut] != NAMES]
    for name in ("model_version", "name", "to_state"):
        codes = rows.texts[name].codes.copy()
        codes[rest] = -1
        values = rows.texts[name].values
        for kind, column in _NAMED_OTHER.items():
            if column == name:
                text = OTHERS if kind == VARIANT else OTHER
                place, values = code_of(values, text)
                codes[rest[rows.kind[rest] == kind]] = place
        rows = rows.renamed(name, codes, values)
    lost = np.zeros(len(rows), bool)
    lost[rest] = True
    places = pa.array(np.arange(len(rows)), mask=lost)
    rows = replace(rows, states=rows.states.take(places))
    return merge_slots(rows.where(~gone)), len(cut)


def code_of(values: pa.Array, text: str) -> tuple[int, pa.Array]:
    """Return the code of a text, and the values with it among them."""
    place = values.index(pa.scalar(text, values.type)).as_py()
    if place >= 0:
        return place, values
    return len(values), pa.concat_arrays([values, pa.array([text], values.type)])


def _is_other(rows: Rows) -> Flags:
    flags = np.zeros(len(rows), bool)
    for kind, column in _NAMED_OTHER.items():
        text = rows.texts[column]
        place = text.values.index(pa.scalar(OTHERS if kind == VARIANT else OTHER)).as_py()
        flags |= (rows.kind == kind) & (text.codes == place) & (place >= 0) & (rows.version < 0)
    return flags
