"""How many cases are open, by group and version: a level that moves by what LEVEL rows say.

Windows in which nothing happened have a row of `flow`, too, while cases are open, or when the
level has moved; but only so many after the last one that something happened in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from transforms.kernels.partial_rows import FLOW, LEVEL
from transforms.kernels.segments import first_of_group
from transforms.kernels.windows.rows import BASE, Flags, Integers, Rows, pack, ramps

QUIET_WINDOWS = 10_000
"""So many windows of a group and version are written behind the last in which something happened:
an open case that nobody touches does not write rows for ever."""

_NEVER = np.int64(-(2**61))
_FAR = np.int64(2**61)


@dataclass(frozen=True)
class Quiet:
    """Windows without rows, but with a level: one row each of `flow`.

    Attributes:
        group: code.
        version: code.
        window: number.
        level: open cases at its end.
    """

    group: Integers
    version: Integers
    window: Integers
    level: Integers


@dataclass(frozen=True)
class Base:
    """What is known of each group and version when windows up to one have been written.

    Attributes:
        group: code.
        version: code.
        written: the last window that may have been.
        level: open cases at the end of the last window that was over.
        flow: the last bucket with events.
        last: the last window with events or with a change.
        wakes: windows to come have rows.
    """

    group: Integers
    version: Integers
    written: Integers
    level: Integers
    flow: Integers
    last: Integers
    wakes: Flags


class Levels:
    """Levels of all groups and versions, by bucket.

    Points are buckets in which a group and version had events or a change, by series and bucket;
    a BASE row is one, too, in the last bucket that it tells of.
    """

    def __init__(self, rows: Rows, buckets: int, quiet: int = QUIET_WINDOWS) -> None:
        """Read the LEVEL, FLOW and BASE rows among some.

        Args:
            rows: of whole slots.
            buckets: of a window.
            quiet: see `QUIET_WINDOWS`.
        """
        rows = rows.where(np.isin(rows.kind, (FLOW, LEVEL, BASE)))
        self._buckets, self._quiet = buckets, quiet
        base, flow, level = (rows.kind == kind for kind in (BASE, FLOW, LEVEL))
        key = pack(rows.group, rows.version)
        distinct, first, series = np.unique(key, return_index=True, return_inverse=True)
        series = series.reshape(-1).astype(np.int64)
        self.group, self.version = rows.group[first], rows.version[first]
        bucket = np.where(base, rows.bucket - 1, rows.bucket)
        self._low = int(bucket.min()) if len(bucket) else 0
        self._width = (int(bucket.max()) if len(bucket) else 0) - self._low + 2
        order = np.lexsort((bucket, series))
        place = series[order] * self._width + bucket[order] - self._low
        starts = np.flatnonzero(first_of_group(place))
        self._key = place[starts]
        self._series = series[order][starts]
        self._bucket = bucket[order][starts]
        count = np.where(level | base, rows.sums["count"], 0)[order]
        self._sums = np.zeros(len(starts) + 1, np.int64)
        if len(starts):
            np.cumsum(np.add.reduceat(count, starts), out=self._sums[1:])
        self._first = np.searchsorted(self._series, np.arange(len(distinct)))

        def any_of(flags: Flags) -> Flags:
            return (
                np.logical_or.reduceat(flags[order], starts) if len(starts) else np.empty(0, bool)
            )

        def base_of(column: Integers) -> Integers:
            values = np.where(base, column, _NEVER)[order]
            return np.maximum.reduceat(values, starts) if len(starts) else np.empty(0, np.int64)

        moved = np.where(level, rows.sums["count"], 0)[order]
        self._moved = np.add.reduceat(moved, starts) if len(starts) else np.empty(0, np.int64)
        is_flow, is_level, is_base = any_of(flow), any_of(level), any_of(base)
        # Within a series these never fall, so that what a point says holds until another does.
        self._flow = self._held(
            is_flow | is_base,
            np.maximum(np.where(is_flow, self._bucket, _NEVER), base_of(rows.least)),
        )
        last = self._held(
            is_level | is_base,
            np.maximum(np.where(is_level, self._bucket + 1, _NEVER), base_of(rows.most)),
        )
        self._last = np.maximum(last, self._flow + buckets)
        written = self._held(is_base, np.where(is_base, self._bucket + 1, _NEVER))
        self._written = np.full(len(distinct), _NEVER)
        np.maximum.at(self._written, self._series, written)

    def _held(self, said: Flags, values: Integers) -> Integers:
        """Carry each value on to the points behind it in its series."""
        places = np.maximum.accumulate(np.where(said, np.arange(len(said)), -1))
        known = places >= self._first[self._series] if len(said) else said
        return np.where(known, values[np.where(known, places, 0)] if len(said) else values, _NEVER)

    def _before(self, series: Integers, windows: Integers) -> Integers:
        """Return how many points, of all, stand before each window's end in its series."""
        offset = np.clip(windows - self._low, 0, self._width - 1)
        found: Integers = np.searchsorted(self._key, series * self._width + offset)
        return found

    def _level(self, series: Integers, windows: Integers) -> Integers:
        found: Integers = (
            self._sums[self._before(series, windows)] - self._sums[self._first[series]]
        )
        return found

    def at(self, group: Integers, version: Integers, windows: Integers) -> Integers:
        """Return the levels of groups and versions at the ends of windows; 0 if never heard of."""
        if not len(self.group) or not len(group):
            return np.zeros(len(group), np.int64)
        both = pack(np.concatenate((self.group, group)), np.concatenate((self.version, version)))
        known = both[: len(self.group)]
        order = np.argsort(known)
        places = np.clip(np.searchsorted(known[order], both[len(known) :]), 0, len(known) - 1)
        series = order[places]
        return np.where(known[series] == both[len(known) :], self._level(series, windows), 0)

    def quiet(self, first: int, over: int, at_once: int) -> tuple[int, Iterator[Quiet]]:
        """Find the windows up to one that have no rows and are not written yet.

        Args:
            first: no window before it is told.
            over: the last window.
            at_once: how many are told together, about.

        Returns:
            Their number, and they themselves.
        """
        series, bucket = self._series, self._bucket
        level = self._sums[1:] - self._sums[self._first[series]]
        following = np.full(len(series), _FAR)
        same = series[1:] == series[:-1]
        following[:-1][same] = bucket[1:][same]
        begin = np.maximum(bucket, self._flow + self._buckets)
        begin = np.maximum(np.maximum(begin, self._written[series]) + 1, first)
        end = np.minimum(np.minimum(following, over), self._last + self._quiet)
        # A level that fell to nothing is told once.
        end = np.where(level > 0, end, np.minimum(end, bucket + 1))
        tells = (level > 0) | (self._moved != 0)
        lengths = np.where(tells, np.maximum(end - begin + 1, 0), 0)
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0

        def parts() -> Iterator[Quiet]:
            cuts = np.searchsorted(ends, np.arange(at_once, total + at_once, at_once)) + 1
            low = 0
            for high in np.unique(cuts).tolist():
                many = lengths[low:high]
                point = np.repeat(np.arange(low, low + len(many)), many)
                of = series[point]
                windows = ramps(begin[low:high], many)
                yield Quiet(self.group[of], self.version[of], windows, level[point])
                low = high

        return total, parts()

    def base(self, over: int) -> Base:
        """Return what is to be known when windows up to one have been written."""
        series = np.arange(len(self.group))
        windows = np.full(len(series), np.int64(over))
        before = self._before(series, windows)
        some = before > self._first[series]
        point = np.where(some, before - 1, 0)
        level = self._sums[before] - self._sums[self._first[series]]
        flow = np.where(some, self._flow[point], _NEVER) if len(point) else point
        # Events that no window to come holds are as if they had never been.
        flow = np.where(flow + self._buckets > over, flow, _NEVER)
        last = np.where(some, self._last[point], _NEVER) if len(point) else point
        # Where nothing comes on its own it does not matter when this was asked.
        written = np.minimum(over, last + np.where(level > 0, self._quiet, 0))
        kept = some & ((level != 0) | (last > over))
        wakes = (level > 0) & (over < last + self._quiet)
        columns = (self.group, self.version, written, level, flow, last, wakes)
        return Base(*(column[kept] for column in columns))


def base_table_columns(base: Base) -> dict[str, Integers | pa.Array]:
    """Return the columns of BASE rows that are numbers."""
    return {
        "bucket": base.written,
        "count": base.level,
        "min_us": base.flow,
        "max_us": base.last,
    }
