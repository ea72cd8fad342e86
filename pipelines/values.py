"""Reads option values: text to durations, sizes, times, zones and names.

Each reader raises `BadValue` with a sentence that follows the option and its value, and
says how to put it right: "is not a known time zone; did you mean 'Europe/Berlin'?".
"""

from __future__ import annotations

import codecs
import difflib
import re
import zoneinfo
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone, tzinfo

from transforms import durations, time_formats

SIZE_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
}
LONGEST_DURATION = durations.parse_ms("36500d")

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?"
    r"\s*(Z|z|[+-]\d\d(?::?\d\d)?)?"
)
_NAME = re.compile(r"[^\s,=]+")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class BadValue(ValueError):
    """An option's value can't be used; the text is the rest of the sentence."""


def suggest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest known word, or nothing if none is near."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean '{by_lower[near[0]]}'?" if near else ""


def one_of(text: str, known: Iterable[str], kind: str) -> str:
    """Return the text if it is one of the known words."""
    words = list(known)
    if text in words:
        return text
    hint = suggest(text, words) or f"; use one of {', '.join(words)}"
    reason = f"is not {kind}{hint}"
    raise BadValue(reason)


def names(text: str) -> tuple[str, ...]:
    """Split `a,b` into names; each once, in the order given."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        reason = "holds no name; give one or more, separated by commas"
        raise BadValue(reason)
    return tuple(dict.fromkeys(found))


def pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Split `a=x,b=y` into pairs."""
    found: dict[str, str] = {}
    for part in names(text):
        name, equals, value = part.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name or not value:
            reason = f"has '{part}' where COLUMN=NAME belongs, such as case_id=CaseID"
            raise BadValue(reason)
        if name in found:
            reason = f"gives '{name}' twice; give each column once"
            raise BadValue(reason)
        found[name] = value
    return tuple(found.items())


def whole(text: str, least: int, most: int) -> int:
    """Read a whole number between two bounds (digits may be grouped: 10_000)."""
    try:
        number = int(text)
    except ValueError:
        reason = f"is not a whole number; give one from {least} to {most}"
        raise BadValue(reason) from None
    if not least <= number <= most:
        reason = f"is out of range; give a number from {least} to {most}"
        raise BadValue(reason)
    return number


def duration_ms(text: str, least: int = 0) -> int:
    """Read `500ms`, `30s`, `5m`, `2h` or `30d` as milliseconds."""
    try:
        value = durations.parse_ms(text)
    except ValueError as error:
        raise BadValue(str(error)) from None
    if value < least:
        reason = f"is too short; give at least {least}ms"
        raise BadValue(reason)
    if value > LONGEST_DURATION:
        reason = "is longer than 36500d, the longest duration"
        raise BadValue(reason)
    return value


def size_bytes(text: str, least: int, most: int) -> int:
    """Read `64MiB`, `10MB`, `4096` as bytes."""
    match = _SIZE.fullmatch(text.strip())
    unit = SIZE_UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        reason = "is not a size like 4096, 512KiB, 64MiB or 1GiB"
        raise BadValue(reason)
    value = int(float(match[1]) * unit)
    if not least <= value <= most:
        reason = f"is out of range; give a size from {size_text(least)} to {size_text(most)}"
        raise BadValue(reason)
    return value


def size_text(size: float) -> str:
    """Write bytes for people: 1,023 B, 12.0 KiB, 3.4 GiB."""
    if size < 1024:
        return f"{size:,.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:,.1f} TiB"


def zone(text: str) -> str:
    """Return the name of a time zone that is known here."""
    if text == "UTC":
        return text
    known = zoneinfo.available_timezones()
    if text in known:
        return text
    if not known:
        reason = "can't be looked up, this machine has no time zone data; pip install tzdata"
        raise BadValue(reason)
    hint = suggest(text, known) or "; use a name such as 'Europe/Berlin' or 'UTC'"
    reason = f"is not a known time zone{hint}"
    raise BadValue(reason)


def time_us(text: str, zone_name: str) -> int:
    """Read an ISO 8601 time or date as microseconds since the epoch.

    A time without an offset, and the midnight of a date, is one of `zone_name`.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        reason = "is not a time like 2024-01-31 or 2024-01-31T10:00:00Z"
        raise BadValue(reason)
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    micros = int((match[7] or "").ljust(6, "0")[:6])
    try:
        offset = _offset(match[8], zone_name)
        moment = datetime(year, month, day, hour, minute, second, micros, tzinfo=offset)
        # Not before the year 1 nor after 9999 in UTC either.
        moment = moment.astimezone(timezone.utc)
        return (moment - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError) as error:
        reason = f"is not a time of the calendar ({error})"
        raise BadValue(reason) from None


def _offset(text: str | None, zone_name: str) -> tzinfo:
    if text is None:
        return timezone.utc if zone_name == "UTC" else zoneinfo.ZoneInfo(zone_name)
    if text in ("Z", "z"):
        return timezone.utc
    digits = text[1:].replace(":", "")
    minutes = int(digits[:2]) * 60 + int(digits[2:] or 0)
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))


def time_text(us: int) -> str:
    """Write microseconds since the epoch as RFC 3339 in UTC."""
    return (_EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")


def time_format(text: str) -> str:
    """Return a `strptime` format that holds a date, or a unit of epochs."""
    reason = time_formats.problem(text)
    if reason is not None:
        raise BadValue(reason)
    return text


def delimiter(text: str) -> str:
    """Return the one character that separates the columns of a CSV file."""
    character = {"\\t": "\t", "tab": "\t"}.get(text, text)
    if len(character) != 1 or not character.isascii() or character in '"\r\n':
        reason = "is not one character; give one such as ';' or '|', or tab"
        raise BadValue(reason)
    return character


def encoding(text: str) -> str:
    """Return the name of a text encoding that Python knows."""
    try:
        "".encode(text)
    except (LookupError, ValueError):
        known = ["utf-8", "utf-16", "latin-1", "iso-8859-1", "iso-8859-15", "cp1252", "ascii"]
        hint = suggest(text, known) or "; use a name such as utf-8, latin-1 or cp1252"
        reason = f"is not a known text encoding{hint}"
        raise BadValue(reason) from None
    return codecs.lookup(text).name


def share(text: str) -> tuple[int | None, float | None]:
    """Read `N` or `N%`: (N, None) or (None, N)."""
    stripped = text.strip()
    if not stripped.endswith("%"):
        try:
            return whole(stripped, 0, 2**62), None
        except BadValue:
            pass
    else:
        try:
            percent = float(stripped[:-1])
        except ValueError:
            percent = -1.0
        if 0 <= percent <= 100:
            return None, percent
    reason = "is neither a number like 100 nor a share like 0.5%"
    raise BadValue(reason)
