"""Time as the simulated engine sees it: Europe/Berlin wall clocks and working hours.

Times are integers, microseconds since the epoch. The zone's rule is computed here and not read
from the machine's zone data, so an archive is the same everywhere; a test compares both.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache
from typing import Literal

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

WORK_START = 8 * HOUR
WORK_DAY = 10 * HOUR
WORK_WEEK = 5 * WORK_DAY

Zone = Literal["Europe/Berlin", "UTC"]

_EPOCH = date(1970, 1, 1)
_EPOCH_WEEKDAY = 3  # a Thursday
_MINUTES = tuple(f"{hour:02d}:{minute:02d}" for hour in range(24) for minute in range(60))


def berlin_offset(time: int) -> int:
    """Return the offset of Europe/Berlin from UTC at a UTC time."""
    day, rest = divmod(time, DAY)
    return _offsets(day)[rest >= HOUR]


@lru_cache(maxsize=8192)
def _offsets(day: int) -> tuple[int, int]:
    """Return the offsets before and from 01:00 UTC of a day: the clocks change at that hour."""
    today = _EPOCH + timedelta(days=day)
    summer, winter = _last_sunday(today.year, 3), _last_sunday(today.year, 10)
    before = 2 if summer < today <= winter else 1
    after = 2 if summer <= today < winter else 1
    return before * HOUR, after * HOUR


def _last_sunday(year: int, month: int) -> date:
    last = date(year, month, 31)
    return last - timedelta(days=(last.weekday() + 1) % 7)


def to_local(time: int) -> int:
    """Return the Berlin wall clock of a UTC time."""
    return time + berlin_offset(time)


def to_utc(local: int) -> int:
    """Return the UTC time of a Berlin wall clock (outside the two hours of a change a year)."""
    return local - berlin_offset(local - HOUR)


@lru_cache(maxsize=8192)
def day_text(day: int) -> str:
    """Return a day since the epoch as `2024-08-27`."""
    return (_EPOCH + timedelta(days=day)).isoformat()


def weekday(local: int) -> int:
    """Return the weekday of a wall clock, 0 on Mondays."""
    return (local // DAY + _EPOCH_WEEKDAY) % 7


def wall_text(local: int) -> tuple[str, int]:
    """Return a wall clock as `2024-08-27T12:04:20`, and the microseconds left over."""
    day, rest = divmod(local, DAY)
    seconds, fraction = divmod(rest, SECOND)
    minute, second = divmod(seconds, 60)
    return f"{day_text(day)}T{_MINUTES[minute]}:{second:02d}", fraction


def iso_millis(time: int) -> str:
    """Return a time as XML's dateTime, `2024-08-27T12:04:20.469+02:00`."""
    offset = berlin_offset(time)
    wall, fraction = wall_text(time + offset)
    return f"{wall}.{fraction // 1000:03d}+0{offset // HOUR}:00"


def iso_offset(time: int, zone: Zone, nanos: int = 0) -> str:
    """Return a time as Java's ISO_OFFSET_DATE_TIME: no trailing zeros, `Z` for UTC.

    Args:
        time: microseconds since the epoch.
        zone: the engine's default zone.
        nanos: nanoseconds (0-999) beyond the microseconds.
    """
    offset = berlin_offset(time) if zone == "Europe/Berlin" else 0
    wall, fraction = wall_text(time + offset)
    digits = f"{fraction * 1000 + nanos:09d}".rstrip("0")
    point = f".{digits}" if digits else ""
    return f"{wall}{point}+0{offset // HOUR}:00" if offset else f"{wall}{point}Z"


def zoneless(time: int, zone: Zone) -> str:
    """Return a time as old engines log it, `2024-08-27T12:04:20.469` on the wall of a zone."""
    wall, fraction = wall_text(to_local(time) if zone == "Europe/Berlin" else time)
    return f"{wall}.{fraction // 1000:03d}"


def work_clock(local: int) -> int:
    """Return the working time passed by a wall clock: it stands still at night and on weekends."""
    day, rest = divmod(local, DAY)
    week, day_of_week = divmod(day + _EPOCH_WEEKDAY, 7)
    if day_of_week >= 5:
        return (week + 1) * WORK_WEEK
    today = min(max(rest - WORK_START, 0), WORK_DAY)
    return week * WORK_WEEK + day_of_week * WORK_DAY + today


def wall_clock(work: int) -> int:
    """Return the first wall clock at which that much working time has passed."""
    week, rest = divmod(work, WORK_WEEK)
    day, today = divmod(rest, WORK_DAY)
    return (week * 7 + day - _EPOCH_WEEKDAY) * DAY + WORK_START + today


def after_work(time: int, duration: int) -> int:
    """Return the UTC time when that much working time has passed since a UTC time."""
    return to_utc(wall_clock(work_clock(to_local(time)) + duration))


def next_weekend(local: int) -> int:
    """Return the start of the first Saturday at or after a wall clock (its own day if weekend)."""
    today = local // DAY * DAY
    day = weekday(local)
    return today if day >= 5 else today + (5 - day) * DAY
