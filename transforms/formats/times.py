"""Columns of times in any common notation, as timestamps in UTC.

A uniform column is cast at once. The rest is grouped by *shape*, the text with every digit
replaced by 0: a shape is matched once by a regular expression, and its rows are then read by
NumPy from fixed places. So a million good values with a few bad ones stay fast, and a value
that cannot be read is null, never an error.
"""

from __future__ import annotations

import datetime
import re
import zoneinfo
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import TIME
from transforms.arrays import conform

Integers = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

EPOCH_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0.001}
"""Microseconds in one unit of an epoch."""

FIRST = -9_214_560_000_000_000
"""1678-01-01 in µs since the epoch; an earlier time is null."""

LAST = 9_214_646_400_000_000 - 1
"""The last µs of 2261; a later time is null."""

RANGE = "1678-01-01 to 2261-12-31"
"""The whole years whose nanoseconds since 1970 have a place in 64 bits."""

_NAIVE = pa.timestamp("us")
_EPOCH = datetime.datetime(1970, 1, 1)  # noqa: DTZ001 - local clocks are counted from it
_LAST_RULE = 2_114_380_800_000_000  # 2037-01-01 in µs
_QUARTER = 900_000_000
_LONGEST = 80
_CHUNK = 1 << 16
_SHAPE = np.arange(256, dtype=np.uint8)
_SHAPE[ord("0") : ord("9") + 1] = ord("0")
_MONTH_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)

_ZONE = (
    r"\s*(?P<zone>[Zz]|UTC|GMT|(?P<sign>[+-])(?P<zone_hour>00)(?::?(?P<zone_minute>00))?)?"
    r"(?:\[[^\]]*\])?\s*"
)
_EXTENDED = re.compile(
    r"\s*(?P<year>0000)(?P<dash>[-/])(?P<month>00?)(?P=dash)(?P<day>00?)"
    r"(?:(?:[Tt]|\s+)(?P<hour>00?)(?::(?P<minute>00)(?::(?P<second>00)(?:[.,](?P<fraction>0*))?)?)?)?"
    + _ZONE
)
_BASIC = re.compile(
    r"\s*(?P<year>0000)(?P<month>00)(?P<day>00)"
    r"(?:[Tt ](?P<hour>00)(?:(?P<minute>00)(?:(?P<second>00)(?:[.,](?P<fraction>0*))?)?)?)?" + _ZONE
)
_BASIC_DIGITS = re.compile(
    r"\s*(?P<year>0000)(?P<month>00)(?P<day>00)(?P<hour>00)(?P<minute>00)(?P<second>00)"
    r"(?:[.,](?P<fraction>0*))?" + _ZONE
)
_NUMBER = re.compile(r"\s*[+-]?0+(?:\.0*)?(?:[eE][+-]?0+)?\s*")
_DIRECTIVES = {
    "Y": "(?P<year>0000)",
    "m": "(?P<month>00?)",
    "d": "(?P<day>00?)",
    "H": "(?P<hour>00?)",
    "M": "(?P<minute>00?)",
    "S": "(?P<second>00?)",
    "f": "(?P<fraction>0{1,6})",
    "z": "(?P<zone>Z|(?P<sign>[+-])(?P<zone_hour>00):?(?P<zone_minute>00))",
}


@dataclass(frozen=True)
class _Layout:
    """Where a shape has its fields: name -> (start, end) in bytes."""

    fields: dict[str, tuple[int, int]]
    zoned: bool
    sign: int


def parse_times(
    column: pa.Array | pa.ChunkedArray, timezone: str = "UTC", time_format: str | None = None
) -> pa.Array:
    """Read times of any notation.

    Args:
        column: ISO 8601 strings (extended or basic, `T` or blank, any zone or none, a fraction of
            any length behind a point or comma, date only; also `2011/10/01 00:38:44.546`), epochs
            as numbers or numeric strings, Arrow timestamps or dates; dictionaries of these.
        timezone: IANA zone of times without one. The earlier of two readings counts where a
            clock was put back; where it was put forward, the first moment after the gap.
        time_format: a `strptime` format, or `s`, `ms`, `us`, `ns` for epochs. None: ISO 8601, or an
            epoch whose unit is seen from its size (the one that gives a year from 1970 to 2261).

    Returns:
        timestamp[us, UTC]; null where the value is null, unreadable, or outside 1678 to 2261.
    """
    array = conform(column, column.type)
    kind = array.type
    if pa.types.is_dictionary(kind):
        return parse_times(array.dictionary, timezone, time_format).take(array.indices)
    if pa.types.is_timestamp(kind):
        return _zoned(_microseconds(array), timezone)
    if pa.types.is_date(kind):
        return _zoned(_microseconds(array.cast(pa.timestamp("ms"))), timezone)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _epochs(array, time_format)
    text = _text(array)
    if text is None:
        return pa.nulls(len(array), TIME)
    if time_format is not None and "%" in time_format:
        return _with_format(text, timezone, time_format)
    return _cast(text, timezone, time_format) or _read_text(
        text, timezone, time_format, _iso_layout
    )


def out_of_range(column: pa.Array | pa.ChunkedArray, time_format: str | None = None) -> Mask:
    """Say which of the values that `parse_times` made null are times, but none of `RANGE`.

    Args:
        column: such values, of any type.
        time_format: as they were read.
    """
    array = conform(column, column.type)
    kind = array.type
    if pa.types.is_dictionary(kind):
        far = np.append(out_of_range(array.dictionary, time_format), False)
        return far[array.indices.fill_null(len(far) - 1).to_numpy(zero_copy_only=False)]
    valid: Mask = array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return valid
    epochs = time_format is None or time_format in EPOCH_UNITS
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = array.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()
        return valid & np.isfinite(numbers) & epochs
    text = _text(array)
    found = np.zeros(len(array), np.bool_)
    if text is None:
        return found
    formatted = time_format is not None and "%" in time_format
    layout_of = _format_layout(time_format) if formatted and time_format else _iso_layout
    for rows, matrix, shape in _by_shape(text):
        layout = layout_of(shape) if formatted or time_format is None else None
        if layout is not None:
            found[rows] = _read(matrix, layout, (0, 9999))[1]
        elif epochs and _NUMBER.fullmatch(shape):
            texts = np.ascontiguousarray(matrix[:, : len(shape)]).view(f"S{len(shape)}").ravel()
            trimmed = pc.ascii_trim_whitespace(pa.array(texts).cast(pa.string()))
            found[rows] = np.isfinite(_numbers(trimmed))
    if formatted and time_format and not found.all():
        distinct = text.dictionary_encode()
        real = [_reads(value, time_format) for value in distinct.dictionary.to_pylist()]
        codes = distinct.indices.fill_null(len(real)).to_numpy(zero_copy_only=False)
        found |= np.array([*real, False])[codes]
    return found


def _reads(value: str, time_format: str) -> bool:
    try:
        datetime.datetime.strptime(value, time_format)  # noqa: DTZ007 - only whether it is a time
    except ValueError:
        return False
    return True


def zone_error(name: str) -> str | None:
    """Say what is wrong with the name of a time zone, or None if it is known."""
    try:
        zoneinfo.ZoneInfo(name)
        pc.assume_timezone(pa.array([0], _NAIVE), name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError, pa.ArrowException):
        return f"unknown time zone {name!r}: use an IANA name such as Europe/Berlin or UTC"
    return None


def _text(array: pa.Array) -> pa.Array | None:
    """Return the array as strings; None if its type holds no times."""
    kind = array.type
    if pa.types.is_string(kind):
        return array
    if not (
        pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    ):
        return None
    try:
        return array.cast(pa.string())
    except pa.ArrowInvalid:  # not UTF-8 somewhere
        values = (v if v is None else v.decode(errors="replace") for v in array.to_pylist())
        return pa.array(values, pa.string())


def _microseconds(array: pa.Array) -> pa.Array:
    """Return a timestamp array in µs (nanoseconds are cut off), null where that overflows."""
    kind = array.type
    target = pa.timestamp("us", kind.tz)
    if kind.unit == "us":
        return array
    if kind.unit == "ns":
        # Arrow's cast goes towards 1970; all other readers go to the µs before.
        raw = array.view(pa.int64())
        micros = raw.fill_null(0).to_numpy(zero_copy_only=False) // 1000
        return pa.array(micros, mask=raw.is_null().to_numpy(zero_copy_only=False)).view(target)
    per_unit = 1_000_000 if kind.unit == "s" else 1_000
    raw = array.view(pa.int64())
    fits = pc.and_(
        pc.greater_equal(raw, FIRST // per_unit), pc.less_equal(raw, LAST // per_unit + 1)
    )
    raw = pc.if_else(fits, raw, pa.scalar(None, pa.int64()))
    return pc.multiply(raw, per_unit).cast(target)


def _zoned(array: pa.Array, timezone: str) -> pa.Array:
    """Return µs timestamps in UTC, within bounds; those without a zone are in `timezone`."""
    array = _bounded(array)
    if array.type.tz is not None:
        return array.cast(TIME)
    if timezone == "UTC":
        return array.view(TIME)
    # In a gap "latest" is its end; "earliest" would be the last tick before it.
    times = pc.assume_timezone(array, timezone, ambiguous="earliest", nonexistent="latest").cast(
        TIME
    )
    local = array.view(pa.int64())
    far = pc.greater_equal(local, _LAST_RULE).fill_null(False)
    if not pc.any(far).as_py():
        return _bounded(times)
    # Arrow knows the zone's clock changes up to 2037 only. They are at quarters of an hour.
    zone = zoneinfo.ZoneInfo(timezone)
    quarters = pc.divide(local.filter(far), _QUARTER).dictionary_encode()
    offsets = []
    for quarter in quarters.dictionary.to_pylist():
        clock = _EPOCH + datetime.timedelta(microseconds=quarter * _QUARTER)
        offset = clock.replace(tzinfo=zone).utcoffset()
        offsets.append(0 if offset is None else offset // datetime.timedelta(microseconds=1))
    shift = pa.array(offsets, pa.int64()).take(quarters.indices)
    moments = pc.subtract(local.filter(far), shift).view(TIME)
    return _bounded(pc.replace_with_mask(times, far, moments))


def _bounded(array: pa.Array) -> pa.Array:
    """Null the timestamps outside the years 1678 to 2261."""
    raw = array.view(pa.int64())
    extent = pc.min_max(raw)
    low, high = extent["min"].as_py(), extent["max"].as_py()
    if low is None or (low >= FIRST and high <= LAST):
        return array
    inside = pc.and_(pc.greater_equal(raw, FIRST), pc.less_equal(raw, LAST))
    return pc.if_else(inside, array, pa.scalar(None, array.type))


def _epochs(array: pa.Array, time_format: str | None) -> pa.Array:
    """Return numbers as timestamps; the unit of each is seen from its size if not given."""
    if time_format is not None and time_format not in EPOCH_UNITS:
        return pa.nulls(len(array), TIME)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_integer(array.type) and array.type != pa.uint64():
        numbers: npt.NDArray[Any] = array.fill_null(0).cast(pa.int64()).to_numpy()
    else:
        numbers = array.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()
    return _timestamps(*_scale(numbers, time_format), valid)


def _scale(numbers: npt.NDArray[Any], time_format: str | None) -> tuple[Integers, Mask]:
    """Return epochs as µs, and which of them are in range."""
    if time_format is not None:
        groups = [(time_format, np.ones(len(numbers), np.bool_))]
    else:
        # Each unit's last year (2261) lies below 1e10 times its own power of a thousand.
        size = np.abs(numbers)
        unit = np.searchsorted(np.array([1e10, 1e13, 1e16]), size, side="right")
        groups = [(name, unit == code) for code, name in enumerate(EPOCH_UNITS)]
    values = np.zeros(len(numbers), np.int64)
    fits = np.zeros(len(numbers), np.bool_)
    for name, rows in groups:
        scale = EPOCH_UNITS[name]
        with np.errstate(invalid="ignore"):
            inside = rows & (numbers >= FIRST / scale) & (numbers <= LAST / scale)
        if not inside.any():
            continue
        taken = numbers[inside]
        if taken.dtype == np.int64:
            values[inside] = taken // 1000 if name == "ns" else taken * int(scale)
        else:
            micros = np.floor(taken / 1000) if name == "ns" else np.round(taken * scale)
            values[inside] = micros.astype(np.int64)
        fits |= inside
    return values, fits


def _timestamps(values: Integers, *valid: Mask) -> pa.Array:
    mask = ~np.logical_and.reduce(valid)
    return _bounded(pa.array(values, pa.int64(), mask=mask).view(TIME))


def _cast(text: pa.Array, timezone: str, time_format: str | None) -> pa.Array | None:
    """Cast a column of one notation at once, or return None if it has several."""
    sample = next((value for value in text[:16].to_pylist() if value), None)
    if sample is None:
        return None
    # Arrow makes an error message for each value that fails, so a mixed column is sorted out
    # from a few of its values first.
    step = len(text) // 64
    if step > 1 and _cast(text.take(np.arange(0, len(text), step)), timezone, time_format) is None:
        return None
    try:
        if _NUMBER.fullmatch(_shape_of(sample)):
            if time_format is None and len(sample) in (8, 14):  # 20240827, 20240827120420
                return None
            # Of other numbers Arrow's reader takes more than we do (0x1F), or less exactly.
            return _epochs(text.cast(pa.int64()), time_format) if _are_digits(text) else None
        if time_format is not None:
            return None
        zoned = re.search(r":\d\d.*([Zz]|[+-]\d\d(:?\d\d)?)$", sample)
        return _bounded(text.cast(TIME)) if zoned else _zoned(text.cast(_NAIVE), timezone)
    except pa.ArrowInvalid:
        return None


def _are_digits(text: pa.Array) -> bool:
    """Say whether all texts are digits and of one length, and none is null."""
    if text.null_count:
        return False
    length = len(text[0].as_py())
    _, offset_buffer, data = text.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32, len(text) + 1, text.offset * 4)
    if not length or (np.diff(offsets) != length).any():
        return False
    raw = np.frombuffer(data, np.uint8, int(offsets[-1] - offsets[0]), int(offsets[0]))
    return bool(((raw >= ord("0")) & (raw <= ord("9"))).all())


def _shape_of(value: str) -> str:
    return _SHAPE[np.frombuffer(value.encode(), np.uint8)].tobytes().decode("latin-1")


@lru_cache(maxsize=4096)
def _iso_layout(shape: str) -> _Layout | None:
    for pattern in (_EXTENDED, _BASIC, _BASIC_DIGITS):
        found = pattern.fullmatch(shape)
        if found:
            return _layout(found)
    return None


def _layout(found: re.Match[str]) -> _Layout:
    spans = {name: found.span(name) for name, text in found.groupdict().items() if text}
    return _Layout(spans, "zone" in spans, -1 if found.groupdict().get("sign") == "-" else 1)


def _format_layout(time_format: str) -> Callable[[str], _Layout | None]:
    """Return the layout of shapes by a `strptime` format; it knows none if a directive is named."""
    parts = re.split(r"%(.)", time_format)
    names = parts[1::2]
    # A digit in the format and two directives without a separator are ambiguous in a shape.
    regular = (
        all(name in _DIRECTIVES for name in names)
        and len(set(names)) == len(names)
        and {"Y", "m", "d"} <= set(names)
        and not re.search(r"\d", "".join(parts[0::2]))
    )
    if not regular:
        return lambda shape: None
    pattern = ""
    for i, part in enumerate(parts):
        if i % 2 == 0:
            pattern += re.sub(r"(?:\\\s|\s)+", lambda _: r"\s+", re.escape(part))
            continue
        adjacent = parts[i - 1] == "" or parts[i + 1] == ""
        directive = _DIRECTIVES[part]
        pattern += directive.replace("00?", "00") if adjacent else directive
    compiled = re.compile(pattern)

    @lru_cache(maxsize=4096)
    def layout(shape: str) -> _Layout | None:
        found = compiled.fullmatch(shape)
        return None if found is None else _layout(found)

    return layout


def _with_format(text: pa.Array, timezone: str, time_format: str) -> pa.Array:
    """Read times of a `strptime` format; shapes that it does not fix go through `strptime`."""
    times = _read_text(text, timezone, time_format, _format_layout(time_format))
    if times.null_count == text.null_count:
        return times
    missing = pc.and_(times.is_null(), text.is_valid())
    distinct = text.filter(missing).dictionary_encode()
    values: list[datetime.datetime | None] = []
    naive: list[bool] = []
    for value in distinct.dictionary.to_pylist():
        try:
            time = datetime.datetime.strptime(value, time_format)  # noqa: DTZ007 - zoned below
            zoned = time.tzinfo is not None
            moment = time.astimezone(datetime.timezone.utc) if zoned else time
        except (ValueError, OverflowError):
            naive.append(True)
            values.append(None)
            continue
        naive.append(not zoned)
        values.append(moment)
    plain = pa.array([v and v.replace(tzinfo=None) for v in values], _NAIVE)
    slow = pc.if_else(pa.array(naive, pa.bool_()), _zoned(plain, timezone), plain.view(TIME))
    return pc.replace_with_mask(times, missing, _bounded(slow).take(distinct.indices))


def _read_text(
    text: pa.Array,
    timezone: str,
    time_format: str | None,
    layout_of: Callable[[str], _Layout | None],
) -> pa.Array:
    """Read strings shape by shape."""
    n = len(text)
    values = np.zeros(n, np.int64)
    valid = np.zeros(n, np.bool_)
    naive = np.zeros(n, np.bool_)
    iso = time_format is None or "%" in time_format
    for rows, matrix, shape in _by_shape(text):
        layout = layout_of(shape) if iso else None
        if layout is not None:
            values[rows], valid[rows] = _read(matrix, layout)
            naive[rows] = not layout.zoned
        elif (time_format is None or not iso) and _NUMBER.fullmatch(shape):
            texts = np.ascontiguousarray(matrix[:, : len(shape)]).view(f"S{len(shape)}").ravel()
            numbers = _numbers(pc.ascii_trim_whitespace(pa.array(texts).cast(pa.string())))
            values[rows], valid[rows] = _scale(numbers, time_format)
    times = _timestamps(values, valid)
    if timezone != "UTC" and (naive & valid).any():
        times = pc.if_else(pa.array(naive), _zoned(times.view(_NAIVE), timezone), times)
    return times


def _numbers(texts: pa.Array) -> npt.NDArray[Any]:
    """Read numbers of one shape: integers exactly, others as doubles."""
    for kind in (pa.int64(), pa.float64()):
        try:
            return texts.cast(kind).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            if pa.types.is_integer(kind) and re.fullmatch(r"[+-]?\d+", texts[0].as_py()):
                # A sign, or one of them has no place in 64 bits: it is out of range as their end.
                most = np.iinfo(np.int64).max
                whole = (int(value) for value in texts.to_pylist())
                return np.array([min(max(n, -most), most) for n in whole], np.int64)
    return np.full(len(texts), np.nan)


def _by_shape(text: pa.Array) -> Iterator[tuple[Rows, Bytes, str]]:
    """Yield (rows, their bytes as a matrix, their shape) for groups of rows of one shape."""
    if not len(text):
        return
    _, offset_buffer, data = text.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32, len(text) + 1, text.offset * 4)
    lengths = np.diff(offsets)
    lengths = np.where(text.is_valid().to_numpy(zero_copy_only=False), lengths, 0)
    counts = np.bincount(np.minimum(lengths, _LONGEST + 1), minlength=2)
    if not counts[1 : _LONGEST + 1].any():
        return
    base, last = int(offsets[0]), int(offsets[-1])
    raw = np.zeros(last - base + _LONGEST + 8, np.uint8)
    raw[: last - base] = np.frombuffer(data, np.uint8, last - base, base)
    for length in np.flatnonzero(counts[1 : _LONGEST + 1]) + 1:
        group = np.flatnonzero(lengths == length)
        # NumPy gathers whole words much faster than items of any other size.
        width = -(-length // 8) * 8
        windows = np.ndarray((last - base + 1,), f"V{width}", raw, strides=(1,))
        for first in range(0, len(group), _CHUNK):
            rows = group[first : first + _CHUNK]
            matrix = windows[offsets[rows] - base].view(np.uint8).reshape(len(rows), width)
            for part, shape in _shapes(matrix, int(length)):
                yield rows[part], matrix[part], shape.decode("latin-1")


def _shapes(matrix: Bytes, length: int) -> Iterator[tuple[Rows | slice, bytes]]:
    """Group rows by shape: the frequent shapes by comparison, many rare ones by a dictionary."""
    n = len(matrix)
    shapes = _SHAPE[matrix]
    shapes[:, length:] = 0
    words = shapes.view(np.uint64)
    left = np.arange(n)
    for _ in range(8):
        same = words[left, 0] == words[left[0], 0]
        for word in range(1, words.shape[1]):
            same &= words[left, word] == words[left[0], word]
        shape = shapes[left[0], :length].tobytes()
        if same.all():
            yield (slice(None) if len(left) == n else left), shape
            return
        yield left[same], shape
        left = left[~same]
    groups: dict[bytes, list[int]] = defaultdict(list)
    text = shapes[left, :length].tobytes()
    for i, row in enumerate(left.tolist()):
        groups[text[i * length : (i + 1) * length]].append(row)
    for shape, rows in groups.items():
        yield np.array(rows), shape


def _read(
    matrix: Bytes, layout: _Layout, years: tuple[int, int] = (1677, 2262)
) -> tuple[Integers, Mask]:
    """Read the fields of rows of one shape: µs, and whether each is a real date and time."""

    def number(name: str, default: int = 0) -> Integers:
        start, end = layout.fields.get(name, (0, 0))
        if start == end:
            return np.full(len(matrix), default, np.int64)
        value = matrix[:, start].astype(np.int64) - 48
        for place in range(start + 1, end):
            value *= 10
            value += matrix[:, place]
            value -= 48
        return value

    year, month, day = number("year"), number("month", 1), number("day", 1)
    valid = (year >= years[0]) & (year <= years[1]) & (month >= 1) & (month <= 12) & (day >= 1)
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    valid &= day <= _MONTH_DAYS[np.where(valid, month, 0)] + (leap & (month == 2))
    seconds = _days(year, month, day) * 86_400
    for name, limit, unit in (("hour", 23, 3600), ("minute", 59, 60), ("second", 59, 1)):
        if name in layout.fields:
            value = number(name)
            valid &= value <= limit
            seconds += value * unit
    for name, limit, unit in (("zone_hour", 23, 3600), ("zone_minute", 59, 60)):
        if name in layout.fields:
            value = number(name)
            valid &= value <= limit
            seconds -= value * (unit * layout.sign)
    micros = np.where(valid, seconds, 0) * 1_000_000
    if "fraction" in layout.fields:
        start, end = layout.fields["fraction"]
        for place, column in enumerate(range(start, min(end, start + 6))):
            micros += (matrix[:, column].astype(np.int64) - 48) * 10 ** (5 - place)
    return micros, valid


def _days(year: Integers, month: Integers, day: Integers) -> Integers:
    """Days since 1970-01-01 of a Gregorian date (Hinnant: chrono-compatible date algorithms)."""
    shifted = year - (month <= 2)
    era_year = shifted % 400
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return (
        (shifted // 400) * 146_097
        + era_year * 365
        + era_year // 4
        - era_year // 100
        + day_of_year
        - 719_468
    )
