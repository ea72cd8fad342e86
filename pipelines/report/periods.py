"""The periods of a report: windows, put together where there are more than a page can show.

A period is a run of whole windows. Of sliding windows, which overlap, only such are taken that
follow one another: an event counts once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from pipelines.report.sums import Integers

MOST_PERIODS = 400

HOUR = 3_600_000
DAY = 24 * HOUR
_LENGTHS = (
    *(60_000 * n for n in (1, 2, 5, 10, 15, 30)),
    *(HOUR * n for n in (1, 2, 3, 4, 6, 8, 12)),
    *(DAY * n for n in (1, 2, 7, 14, 28, 56, 112, 364)),
)

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Windows:
    """The windows that are counted.

    Attributes:
        start: when each begins, in ms, ascending; empty for the one of `global`.
        end: first moment after each.
        overlap: whether there were others between them.
        mixed: whether rows of `global` stand beside rows of windows, and are left out.
    """

    start: Integers
    end: Integers
    overlap: bool = False
    mixed: bool = False

    @property
    def is_global(self) -> bool:
        """Whether there is one window over all time."""
        return not len(self.start)

    @property
    def length(self) -> int:
        """The length of most of them, in ms."""
        return 0 if self.is_global else int(np.median(self.end - self.start))

    def find(self, start: Integers) -> Integers:
        """Return the number of the window that begins then; -1 where none is counted."""
        if self.is_global:
            return np.where(start == MISSING, 0, -1)
        at = np.searchsorted(self.start, start)
        at = np.minimum(at, len(self.start) - 1)
        return np.where(self.start[at] == start, at, -1)


MISSING = -(2**62) // 1000
"""Start of the window that has none."""


def windows_of(start: Integers, end: Integers) -> Windows:
    """Return the windows that rows are of.

    Args:
        start: of each row's window, in ms, `MISSING` for global.
        end: first moment after it.
    """
    bounded = start != MISSING
    mixed = bool(bounded.any() and not bounded.all())
    starts, first = np.unique(start[bounded], return_index=True)
    ends = end[bounded][first]
    if not len(starts) or (starts[1:] >= ends[:-1]).all():
        return Windows(starts, ends, False, mixed)
    chosen = [0]
    while True:
        following = int(np.searchsorted(starts, ends[chosen[-1]]))
        if following >= len(starts):
            break
        chosen.append(following)
    return Windows(starts[chosen], ends[chosen], True, mixed)


@dataclass(frozen=True)
class Periods:
    """Runs of windows.

    Attributes:
        of: the period of each window.
        start: when each period begins, in ms; empty if there is only that of all time.
        end: first moment after it.
        last: the last window of each period.
        length: that periods were cut to, in ms; 0 if each is one window.
    """

    of: Integers
    start: Integers
    end: Integers
    last: Integers
    length: int

    @property
    def count(self) -> int:
        """How many there are, at least one."""
        return max(1, len(self.start))

    def at(self, ms: Integers) -> Integers:
        """Return the period of each time; those before all are in the first."""
        if not len(self.start):
            return np.zeros(len(ms), np.int64)
        return np.maximum(np.searchsorted(self.start, ms, side="right") - 1, 0)

    def document(self, zone: str) -> dict[str, Any]:
        """Return what the page reads; `local` is the start as clocks of the zone show it."""
        return {
            "start": self.start.tolist(),
            "end": self.end.tolist(),
            "local": local_ms(self.start, zone).tolist(),
            "length": self.length,
        }


def periods_of(windows: Windows, zone: str, coarser: int = 0) -> Periods:
    """Put windows together.

    Args:
        windows: those that are counted.
        zone: whose days and weeks periods are cut by.
        coarser: how many steps coarser than would be enough for `MOST_PERIODS`.
    """
    count = len(windows.start)
    own = np.arange(count)
    if not count or (count <= MOST_PERIODS and not coarser):
        return Periods(own if count else np.zeros(1, np.int64), windows.start, windows.end, own, 0)
    local = local_ms(windows.start, zone)
    # Weeks begin on Mondays; the epoch was a Thursday.
    fitting = [n for n in _LENGTHS if n > windows.length]
    while len(fitting) < 40:
        fitting.append(2 * (fitting[-1] if fitting else windows.length))
    for length in fitting:
        shift = 4 * DAY if length % (7 * DAY) == 0 else 0
        bucket = (local - shift) // length
        first = np.flatnonzero(np.append(True, bucket[1:] != bucket[:-1]))
        if len(first) <= MOST_PERIODS:
            if not coarser or len(first) == 1:
                break
            coarser -= 1
    of = np.cumsum(np.append(0, bucket[1:] != bucket[:-1]))
    last = np.append(first[1:], count) - 1
    return Periods(of, windows.start[first], windows.end[last], last, length)


def cut_evenly(first: int, last: int, zone: str, most: int) -> Periods:
    """Cut time into at most so many stretches of a round length."""
    length = next((n for n in _LENGTHS if (last - first) // n < most - 1), 0)
    length = length or (last - first) // (most - 2) + 1
    shift = int(local_ms(np.array([first]), zone)[0]) - first
    begin = (first + shift) // length * length - shift
    starts = np.arange(begin, last + 1, length, dtype=np.int64)
    own = np.arange(len(starts))
    return Periods(own, starts, starts + length, own, length)


def local_ms(ms: Integers, zone: str) -> Integers:
    """Return what clocks of a zone show, as ms since 1970-01-01 00:00 there."""
    if zone == "UTC" or not len(ms):
        return ms
    hours, places = np.unique(ms // HOUR, return_inverse=True)
    offsets = [_offset(zone, int(hour)) for hour in hours]
    found: Integers = ms + np.array(offsets, np.int64)[places.reshape(-1)]
    return found


@lru_cache(maxsize=262_144)
def _offset(zone: str, hour: int) -> int:
    try:
        there = (_EPOCH + timedelta(hours=hour)).astimezone(ZoneInfo(zone)).utcoffset()
    except OverflowError:
        # Beyond the calendar's ends there are no rules of zones.
        return 0
    return int(there.total_seconds() * 1000) if there else 0
