"""Early panes: when they are due, and what number a pane has.

A partial row asks for a pane of its open windows at the next multiple of the interval; that time
is a *tick* and waits in the row's slot. A pane's number is the number of the window's ticks
before, so that it does not depend on when the fold was stepped.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from transforms.kernels.partial_rows import LEVEL, VARIANT
from transforms.kernels.windows.rows import PANES, TICKS, Flags, Integers, Ragged, Rows, ramps
from transforms.windows import Windowing


@dataclass(frozen=True)
class Ticks:
    """Times at which early panes are due; sorted, each once.

    Attributes:
        slot: code of the slot that waits for it.
        group: code.
        bucket: of the rows that ask for it.
        levels: they are rows of levels, which change windows that end later, too.
        time: ms.
    """

    slot: Integers
    group: Integers
    bucket: Integers
    levels: Flags
    time: Integers

    @classmethod
    def of(cls, rows: Rows, known: int, order_ms: Integers, early_ms: int) -> Ticks:
        """Read those that waited, and find those of new rows.

        Args:
            rows: the state's, and then new ones.
            known: how many are the state's.
            order_ms: order times of the new ones.
            early_ms: the interval; 0 for none.
        """
        if not early_ms:
            none = np.empty(0, np.int64)
            return cls(none, none, none, np.empty(0, bool), none)
        old = np.flatnonzero(rows.kind == TICKS)
        waiting = rows.cases.take(old)
        asks = rows.kind[known:] <= VARIANT
        asks |= rows.kind[known:] == LEVEL
        new = known + np.flatnonzero(asks)
        source = np.concatenate((np.repeat(old, waiting.lengths), new))
        time = np.concatenate((waiting.values, (order_ms[asks] // early_ms + 1) * early_ms))
        levels = (rows.kind == LEVEL) | ((rows.kind == TICKS) & (rows.sums["count"] > 0))
        table = np.stack(
            (rows.slot[source], rows.bucket[source], levels[source], time, rows.group[source])
        )
        slot, bucket, of_level, time, group = np.unique(table, axis=1)
        return cls(slot, group, bucket, of_level.astype(bool), time)

    def where(self, flags: Flags) -> Ticks:
        """Return those that are flagged."""
        columns = (self.slot, self.group, self.bucket, self.levels, self.time)
        return Ticks(*(column[flags] for column in columns))  # type: ignore[arg-type]

    def rows(self) -> tuple[Integers, Ragged]:
        """Return the first tick of each row that keeps them, and their times."""
        same = np.stack((self.slot, self.group, self.bucket, self.levels))
        first = np.ones(len(self.slot), bool)
        first[1:] = (same[:, 1:] != same[:, :-1]).any(axis=0)
        starts = np.flatnonzero(first)
        return starts, Ragged(np.diff(np.append(starts, len(first))), self.time)


@dataclass(frozen=True)
class Due:
    """Panes of windows that have rows.

    Attributes:
        group: code.
        window: number.
        panes: early ones that have been due up to now.
        changed: one is due now.
    """

    group: Integers
    window: Integers
    panes: Integers
    changed: Flags
    _low: int = 0
    _width: int = 1
    _key: Integers = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(
        cls,
        rows: Rows,
        ticks: Ticks,
        written: Integers,
        windowing: Windowing,
        until: int,
    ) -> Due:
        """Count the ticks before an order time in ms.

        Args:
            rows: of all slots.
            ticks: that wait.
            written: a row: the last window of its group that has been written.
            windowing: how time is cut.
            until: order time in ms.
        """
        n = windowing.buckets
        live = np.flatnonzero(rows.in_buckets())
        low = int(rows.bucket[live].min()) if len(live) else 0
        width = (int(rows.bucket[live].max()) if len(live) else 0) - low + n + 2

        def key_of(group: Integers, window: Integers) -> Integers:
            return (group + 1) * width + np.clip(window - low, 0, width - 1)

        spans = np.unique(np.stack((rows.group[live], rows.bucket[live], written[live])), axis=1)
        begin = np.maximum(spans[1], spans[2]) + 1
        lengths = np.maximum(spans[1] + n + 1 - begin, 0)
        key = np.unique(key_of(np.repeat(spans[0], lengths), ramps(begin, lengths)))
        group, window = key // width - 1, key % width + low
        panes = np.zeros(len(key), np.int64)
        known = np.flatnonzero(rows.kind == PANES)
        place, found = _find(key, key_of(rows.group[known], rows.bucket[known]))
        panes[place[found]] = rows.sums["count"][known[found]]
        ends = (
            np.full(len(key), np.iinfo(np.int64).max)
            if windowing.kind == "global"
            else windowing.start_ms(window)
        )
        ticks = ticks.where(ticks.time <= until)
        own = ticks.where(~ticks.levels)
        repeats = np.full(len(own.time), n)
        place, found = _find(
            key, key_of(np.repeat(own.group, repeats), ramps(own.bucket + 1, repeats))
        )
        time = np.repeat(own.time, repeats)
        found &= time < ends[place] if len(key) else found
        place, time = place[found], time[found]
        first = np.full(len(key), np.iinfo(np.int64).max)
        np.minimum.at(first, place, time)
        first[panes > 0] = np.iinfo(np.int64).min
        more = ticks.where(ticks.levels)
        begin = np.searchsorted(key, key_of(more.group, more.bucket + 1))
        over = np.searchsorted(key, (more.group + 2) * width)
        lengths = np.where(more.bucket + 1 - low < width, np.maximum(over - begin, 0), 0)
        places, times = ramps(begin, lengths), np.repeat(more.time, lengths)
        # A window begins to count with its own first row.
        counts = (times < ends[places]) & (times >= first[places])
        pairs = np.unique(
            np.stack(
                (
                    np.concatenate((place, places[counts])),
                    np.concatenate((time, times[counts])),
                )
            ),
            axis=1,
        )
        new = np.bincount(pairs[0], minlength=len(key)).astype(np.int64)
        return cls(group, window, panes + new, new > 0, low, width, key)

    def at(self, group: Integers, window: Integers) -> tuple[Integers, Flags]:
        """Return how many panes windows have had, and whether one is due now."""
        if not len(self._key):
            return np.zeros(len(group), np.int64), np.zeros(len(group), bool)
        inside = (window >= self._low) & (window - self._low < self._width)
        key = (group + 1) * self._width + np.where(inside, window - self._low, 0)
        place, found = _find(self._key, key)
        found &= inside
        return np.where(found, self.panes[place], 0), found & self.changed[place]


_NONE = np.empty(0, np.int64)
NONE_DUE = Due(_NONE, _NONE, _NONE, np.empty(0, bool))


def _find(key: Integers, wanted: Integers) -> tuple[Integers, Flags]:
    """Return where wanted keys are among sorted ones, and whether they are there."""
    if not len(key):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    place = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    return place, key[place] == wanted
