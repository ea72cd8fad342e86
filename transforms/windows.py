"""Windows of order time: which buckets an event is in, and which windows a bucket is in.

A window is a run of whole buckets: one for `fixed`, several for `sliding`, the only one there is
for `global`. Buckets are numbered; they are stretches of the epoch in UTC, or calendar days of a
time zone, which are not all of one length. `docs/analytics.md` tells it in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from transforms.durations import parse_ms, show_ms

Integers = npt.NDArray[np.int64]

DAY_MS = 86_400_000
ZONE_GRANULE_MS = 900_000
"""Offsets of time zones are whole quarters of an hour."""

LONGEST_MS = 36_500 * DAY_MS

MOST_BUCKETS = 1000
"""Of a sliding window."""

FORMS = "fixed:1h, fixed:1d@Europe/Berlin, sliding:1d/1h, sliding:7d/1d@Europe/Berlin or global"

_EPOCH = date(1970, 1, 1)


class WindowError(ValueError):
    """A window that is none; the message names the value and what would do."""


@dataclass(frozen=True)
class Windowing:
    """How order time is cut.

    Attributes:
        kind: `fixed`, `sliding` or `global`.
        bucket_ms: length of a bucket (whole days of 24 h where there is a zone); 0 for `global`.
        buckets: of a window.
        zone: name of a time zone whose days count; empty for UTC.
    """

    kind: Literal["fixed", "sliding", "global"] = "global"
    bucket_ms: int = 0
    buckets: int = 1
    zone: str = ""

    def index(self, order_us: Integers) -> Integers:
        """Return the number of the bucket of each time in µs since the epoch."""
        if self.kind == "global":
            return np.zeros(len(order_us), np.int64)
        ms: Integers = order_us // 1000
        if not self.zone or not len(ms):
            return ms // self.bucket_ms
        first = int(ms.min()) // self.bucket_ms - 1
        last = int(ms.max()) // self.bucket_ms + 2
        starts = self.start_ms(np.arange(first, last + 1))
        found: Integers = first + np.searchsorted(starts, ms, side="right") - 1
        return found

    def start_ms(self, indexes: Integers) -> Integers:
        """Return when buckets begin, in ms since the epoch (0 for `global`)."""
        if not self.zone:
            return indexes * np.int64(self.bucket_ms)
        distinct, places = np.unique(indexes, return_inverse=True)
        days = self.bucket_ms // DAY_MS
        starts = [_midnight_ms(self.zone, int(each) * days) for each in distinct]
        return np.array(starts, np.int64)[places.reshape(-1)]

    @property
    def unit_ms(self) -> int:
        """Every bucket begins at a multiple of it; 0 for `global`."""
        return ZONE_GRANULE_MS if self.zone else self.bucket_ms

    def misfit(self, granule_ms: int) -> str:
        """Say why a stream cannot fold granules of that length; empty if it can."""
        unit = self.unit_ms
        if self.kind == "global" or unit % granule_ms == 0:
            return ""
        fitting = [ms for ms in _GRANULES_MS if unit % ms == 0 and ms <= unit]
        near = sorted(sorted(fitting, key=lambda ms: abs(ms - granule_ms))[:3])
        return (
            f"--granule {show_ms(granule_ms)} does not divide "
            f"{'the days of a time zone' if self.zone else show_ms(unit)} of --window {self}; "
            f"{', '.join(map(show_ms, near)) or '1ms'} would"
        )

    def __str__(self) -> str:
        """Write it as it is given."""
        zone = f"@{self.zone}" if self.zone else ""
        if self.kind == "global":
            return "global"
        if self.kind == "fixed":
            return f"fixed:{show_ms(self.bucket_ms)}{zone}"
        return f"sliding:{show_ms(self.bucket_ms * self.buckets)}/{show_ms(self.bucket_ms)}{zone}"


def windowing(text: str) -> Windowing:
    """Read `fixed:SIZE`, `sliding:SIZE/PERIOD` (both with `@ZONE` for days) or `global`.

    Raises:
        WindowError: it is none of them, or does not fit together.
    """
    kind, _, rest = text.strip().partition(":")
    kind = kind.lower()
    if kind == "global" and not rest:
        return Windowing()
    if kind not in ("fixed", "sliding") or not rest:
        msg = f"'{text}' is no window: give {FORMS}"
        raise WindowError(msg)
    lengths, _, zone = rest.partition("@")
    size, slash, period = lengths.partition("/")
    if (kind == "sliding") != bool(slash):
        msg = f"'{text}' is no window: give {FORMS}"
        raise WindowError(msg)
    size_ms = _length(text, size)
    period_ms = _length(text, period) if slash else size_ms
    if size_ms % period_ms or period_ms > size_ms:
        msg = (
            f"'{text}': a window of {size} is no whole number of steps of {period}; "
            f"give a period that divides it, such as {_divisor(size_ms, zone)}"
        )
        raise WindowError(msg)
    if size_ms // period_ms > MOST_BUCKETS:
        least = -(-size_ms // MOST_BUCKETS)
        near = [ms for ms in _GRANULES_MS if ms >= least and not size_ms % ms]
        step = show_ms(near[0] if near else size_ms)
        msg = f"'{text}': more than {MOST_BUCKETS} steps a window; {step} is a step that fits"
        raise WindowError(msg)
    if "@" in rest and not zone:
        reason = f"'{text}' names no time zone behind the @; give {FORMS}"
        raise WindowError(reason)
    if zone:
        if "@" in rest.partition("@")[2]:
            msg = f"'{text}' is no window: give {FORMS}"
            raise WindowError(msg)
        _check_zone(text, zone, period_ms)
    named: Literal["fixed", "sliding"] = "sliding" if slash else "fixed"
    return Windowing(named, period_ms, size_ms // period_ms, zone)


def _divisor(size_ms: int, zone: str) -> str:
    """Name a period that divides a window."""
    if zone:
        return "1d"
    return show_ms(size_ms // 4 if size_ms % 4 == 0 else size_ms)


def _length(text: str, part: str) -> int:
    try:
        found = parse_ms(part)
    except ValueError as error:
        msg = f"'{text}': '{part}' {error}"
        raise WindowError(msg) from None
    if found > LONGEST_MS:
        msg = f"'{text}': '{part}' is too long; {show_ms(LONGEST_MS)} is the longest window"
        raise WindowError(msg)
    if found <= 0:
        msg = f"'{text}': a window has some length, such as 1h"
        raise WindowError(msg)
    return found


def _check_zone(text: str, zone: str, period_ms: int) -> None:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        msg = f"'{text}': no time zone '{zone}'; give one of the tz database, such as Europe/Berlin"
        raise WindowError(msg) from None
    if period_ms % DAY_MS:
        msg = (
            f"'{text}': windows of a time zone are of whole days, such as fixed:1d@{zone}; "
            "for others leave the zone out"
        )
        raise WindowError(msg)


@lru_cache(maxsize=65_536)
def _midnight_ms(zone: str, day: int) -> int:
    """Return when a local day begins, in ms since the epoch, by its number since 1970-01-01."""
    try:
        local = _EPOCH + timedelta(days=day)
        at = datetime(local.year, local.month, local.day, tzinfo=ZoneInfo(zone))
        return int(at.astimezone(timezone.utc).timestamp() * 1000)
    except (OverflowError, ValueError):
        # Beyond the calendar's ends there are no rules of zones.
        return day * DAY_MS


_SECOND, _MINUTE, _HOUR = 1000, 60_000, 3_600_000
_GRANULES_MS = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 250, 500),
    *(s * _SECOND for s in (1, 2, 5, 10, 15, 20, 30)),
    *(m * _MINUTE for m in (1, 2, 5, 10, 15, 20, 30)),
    *(h * _HOUR for h in (1, 2, 3, 4, 6, 8, 12, 24)),
)
