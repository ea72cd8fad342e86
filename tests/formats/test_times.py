"""Times: every common notation, by whichever path the column takes."""

from __future__ import annotations

import datetime
import zoneinfo
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.formats.times import FIRST, LAST, RANGE, out_of_range, parse_times, zone_error

UTC = datetime.timezone.utc


def utc(*fields: int) -> datetime.datetime:
    return datetime.datetime(*fields, tzinfo=UTC)  # type: ignore[arg-type, misc]


NOON = utc(2024, 8, 27, 10, 4, 20, 469000)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2024-08-27T12:04:20.469+02:00", NOON),
        ("2024-08-27 12:04:20,469+0200", NOON),
        ("2024-08-27T12:04:20.469+02", NOON),
        ("2024-08-27T12:04:20.469000999+02:00", NOON),
        ("2024-08-27T10:04:20.469Z", NOON),
        ("2024-08-27t10:04:20.469z", NOON),
        ("2024-08-27 10:04:20.469 UTC", NOON),
        ("2024-08-27T12:04:20.469+02:00[Europe/Berlin]", NOON),
        ("20240827T120420.469+0200", NOON),
        ("2024-08-27T12:04:20.469", NOON),
        (" 2024-08-27 12:04:20.469 ", NOON),
        ("20240827120420,469", NOON),
        ("2024/08/27 12:04:20.469", NOON),
        ("2024/8/27 12:04:20.469", NOON),
        ("2024-08-26T21:34:20.469-12:30", NOON),
        ("2024-08-27T10:04Z", utc(2024, 8, 27, 10, 4)),
        ("2024-08-27T10Z", utc(2024, 8, 27, 10)),
        ("2024-08-27", utc(2024, 8, 26, 22)),
        ("20240827", utc(2024, 8, 26, 22)),
        ("2024-02-29", utc(2024, 2, 28, 23)),
        ("2024-03-31T02:30:00", utc(2024, 3, 31, 1)),  # in the gap: its end
        ("2024-10-27T02:30:00", utc(2024, 10, 27, 0, 30)),  # twice: the earlier
        ("2050-07-01T12:00:00", utc(2050, 7, 1, 10)),  # beyond Arrow's own zone rules
        ("2050-12-01T12:00:00", utc(2050, 12, 1, 11)),
        ("1724753060.469", NOON),
        ("1724753060469", NOON),
        ("1724753060469000", NOON),
        ("1724753060469000999", NOON),
        ("1.724753060469e9", NOON),
        ("-1", utc(1969, 12, 31, 23, 59, 59)),
        ("1678-01-01T00:00:00Z", utc(1678, 1, 1)),
        ("2261-12-31T23:59:59.999999Z", utc(2261, 12, 31, 23, 59, 59, 999999)),
        ("1677-12-31T23:59:59Z", None),
        ("2262-01-01T00:00:00Z", None),
        ("0001-01-01", None),
        ("9999-12-31T00:00:00", None),
        ("2024-13-01", None),
        ("2023-02-29", None),
        ("2024-00-10", None),
        ("2024-04-31T00:00:00Z", None),
        ("2024-08-27T24:00:00Z", None),
        ("2024-08-27T12:60:00Z", None),
        ("2024-08-27T12:04:20+25:00", None),
        ("27.08.2024", None),
        ("27/08/2024", None),
        ("99999999999999999999999", None),
        ("1e999", None),
        ("nan", None),
        ("yesterday", None),
        ("2024-08-27T12:04:20Zebra", None),
        ("２０２４-08-27", None),
        ("\x00", None),
        ("", None),
        ("x" * 200, None),
    ],
)
def test_notations(text: str, time: datetime.datetime | None) -> None:
    # Alone, among others of its kind, and as one of a kind in a column of others.
    usual = "2024-01-01T00:00:00Z"
    for column in ([text], [text] * 300, [usual] * 300 + [text], [text, None, usual, "bad"]):
        found = parse_times(pa.array(column, pa.string()), "Europe/Berlin")
        assert found.type == pa.timestamp("us", "UTC")
        assert [t for t, c in zip(found.to_pylist(), column, strict=True) if c == text] == (
            [time] * column.count(text)
        )
        assert found.null_count == sum(c in (None, "bad") for c in column) + (
            column.count(text) if time is None else 0
        )


@pytest.mark.parametrize(
    ("array", "times"),
    [
        (pa.array([1724753060, None]), [utc(2024, 8, 27, 10, 4, 20), None]),
        (pa.array([1724753060469]), [NOON]),
        (pa.array([1724753060469000]), [NOON]),
        (pa.array([1724753060469000000]), [NOON]),
        (pa.array([1724753060469, 1724753060]), [NOON, utc(2024, 8, 27, 10, 4, 20)]),
        (pa.array([1724753060.469, float("nan"), float("inf")]), [NOON, None, None]),
        (pa.array([Decimal("1724753060.469")]), [NOON]),
        (pa.array([2**63 - 1, -(2**63), 0]), [None, None, utc(1970, 1, 1)]),
        (pa.array([2**64 - 1], pa.uint64()), [None]),
        (pa.array([NOON], pa.timestamp("us", "Europe/Berlin")), [NOON]),
        (pa.array([1724753060469000999], pa.timestamp("ns", "UTC")), [NOON]),
        (pa.array([1724760260469], pa.timestamp("ms")), [NOON]),
        (pa.array([2**62], pa.timestamp("s")), [None]),
        (pa.array([2**62], pa.timestamp("us")), [None]),
        (pa.array([datetime.date(2024, 8, 27)]), [utc(2024, 8, 26, 22)]),
        (pa.array([1724716800000], pa.date64()), [utc(2024, 8, 26, 22)]),
        (pa.array([None, None]), [None, None]),
        (pa.array([True]), [None]),
        (pa.array([[1]]), [None]),
        (pa.array([b"2024-08-27T10:04:20.469Z", b"\xff"]), [NOON, None]),
        (pa.array(["2024-08-27T10:04:20.469Z"], pa.large_string()), [NOON]),
        (pa.array(["2024-08-27T10:04:20.469Z", None, "x"]).dictionary_encode(), [NOON, None, None]),
        (pa.chunked_array([["2024-08-27T10:04:20.469Z"], []], pa.string()), [NOON]),
        (pa.array([], pa.string()), []),
        (pa.array(["x", "2024-08-27T10:04:20.469Z", None, "y"])[1:3], [NOON, None]),
    ],
)
def test_types(array: pa.Array, times: list[datetime.datetime | None]) -> None:
    assert parse_times(array, "Europe/Berlin").to_pylist() == times


@pytest.mark.parametrize(
    ("value", "time_format", "time"),
    [
        (5_000, "s", utc(1970, 1, 1, 1, 23, 20)),
        (5_000, "ms", utc(1970, 1, 1, 0, 0, 5)),
        ("5000", "ms", utc(1970, 1, 1, 0, 0, 5)),
        ("5000.5", "ms", utc(1970, 1, 1, 0, 0, 5, 500)),
        (5_000_000, "us", utc(1970, 1, 1, 0, 0, 5)),
        (5_000_000_000, "ns", utc(1970, 1, 1, 0, 0, 5)),
        ("20240827", "s", utc(1970, 8, 23, 6, 27, 7)),
        ("2024-08-27", "s", None),
        (5, "%Y", None),
        ("27.08.2024 12:04:20", "%d.%m.%Y %H:%M:%S", utc(2024, 8, 27, 10, 4, 20)),
        ("7.8.2024 12:04:20", "%d.%m.%Y %H:%M:%S", utc(2024, 8, 7, 10, 4, 20)),
        ("27.08.2024  12:04:20.469", "%d.%m.%Y %H:%M:%S.%f", NOON),
        ("20240827 100420 +0000", "%Y%m%d %H%M%S %z", utc(2024, 8, 27, 10, 4, 20)),
        ("27 Aug 2024 12:04:20", "%d %b %Y %H:%M:%S", utc(2024, 8, 27, 10, 4, 20)),
        ("27 Aug 2024 10:04:20 +0000", "%d %b %Y %H:%M:%S %z", utc(2024, 8, 27, 10, 4, 20)),
        ("08/27/24", "%m/%d/%y", utc(2024, 8, 26, 22)),
        ("2024-08-27T12:04:20", "%d.%m.%Y", None),
        ("31.02.2024", "%d.%m.%Y", None),
    ],
)
def test_time_format(value: Any, time_format: str, time: datetime.datetime | None) -> None:
    found = parse_times(pa.array([value, None, value]), "Europe/Berlin", time_format)
    assert found.to_pylist() == [time, None, time]


moments = st.datetimes(
    utc(1678, 1, 2).replace(tzinfo=None),
    utc(2261, 12, 30).replace(tzinfo=None),
    timezones=st.just(UTC),
)
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])


@st.composite
def written(draw: st.DrawFn) -> tuple[str, bool, int]:
    """Draw (text, whether it has a zone, offset minutes) of a naive time."""
    time = draw(moments).replace(tzinfo=None)
    zone = draw(st.sampled_from(["", "Z", "+02:00", "-0530", "+01"]))
    digits = draw(st.integers(0, 9))
    micros = f"{time.microsecond:06}{draw(st.integers(0, 999)):03}"
    fraction = draw(st.sampled_from([".", ","])) + micros[:digits] if digits else ""
    if draw(st.booleans()):
        text = time.strftime("%Y-%m-%d" + draw(st.sampled_from("T ")) + "%H:%M:%S") + fraction
    else:
        text = time.strftime("%Y%m%dT%H%M%S") + fraction
    return text + zone, bool(zone), digits


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(written(), st.just(("nonsense", True, 0))), min_size=1, max_size=30), zones
)
def test_columns_are_read_as_value_by_value(column: list[tuple[str, bool, int]], zone: str) -> None:
    found = parse_times(pa.array([text for text, _, _ in column]), zone).to_pylist()
    for (text, zoned, digits), time in zip(column, found, strict=True):
        assert parse_times(pa.array([text]), zone).to_pylist() == [time]
        if text == "nonsense":
            assert time is None
            continue
        # Python reads six digits behind a point, and zones with minutes.
        plain = text.replace(",", ".")
        if digits > 6:
            at = plain.index(".") + 1
            plain = plain[: at + 6] + plain[at + digits :]
        elif digits:
            at = plain.index(".") + 1
            plain = plain[: at + digits] + "0" * (6 - digits) + plain[at + digits :]
        plain = plain.replace("Z", "+0000").replace("-0530", "-05:30")
        plain = plain + ":00" if plain.endswith("+01") else plain
        date = "%Y-%m-%d" if "-" in plain[:8] else "%Y%m%d"
        clock = "%H:%M:%S" if ":" in plain[8:15] else "%H%M%S"
        pattern = f"{date}{'T' if 'T' in plain else ' '}{clock}"
        pattern += (".%f" if digits else "") + ("%z" if zoned else "")
        expected = datetime.datetime.strptime(plain, pattern)  # noqa: DTZ007 - zoned below
        if expected.tzinfo is None:
            expected = expected.replace(tzinfo=zoneinfo.ZoneInfo(zone), fold=0)
        if zoned or expected.astimezone(UTC).astimezone(expected.tzinfo) == expected:
            assert time == expected.astimezone(UTC)


def test_a_mixed_column_of_many_shapes() -> None:
    texts = [
        f"2024-08-27T10:04:20.{'4' * (1 + i % 9)}{'Z' if i % 2 else '+00:00'}" for i in range(99)
    ]
    texts += [f"x{i:x}-{i * i:x}" for i in range(500)]
    found = parse_times(pa.array(texts))
    assert found.null_count == 500
    assert found[:99].null_count == 0


def test_zone_error() -> None:
    assert zone_error("Europe/Berlin") is None
    assert zone_error("UTC") is None
    for wrong in ("Europe/Atlantis", "../etc/passwd", "", "/"):
        message = zone_error(wrong)
        assert message is not None
        assert repr(wrong) in message


MIX = [
    *("1677-12-31T23:59:59", "1678-01-01", "2261-12-31T23:59:59.999999", "2262-01-01"),
    *("0001-01-01", "1600-01-01T00:00:00Z", "9999-12-31", "9999-12-31T23:59:59-01:00"),
    *("1678-01-01T00:30:00", "2261-12-31T23:59:59-05:00", "2262-01-01T00:00:00+05:00"),
    *("2024-01-31", "2024-01-31T10:00:00.5Z", "2024-01-31 10:00:00+02", "20240131", "2024-1-5"),
    *("20240131100000", "20240131100000.5", "20240131100000123", "1704067200", "1704067200.5"),
    *("1704067200123456789", "9999999999999999999", "-9999999999999999999", "+1704067200"),
    *("1e9", "-1", "0x1F", ".5", "5.", "NaN", "inf", "x", "", " 1704067200 ", "00010101"),
]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.none() | st.sampled_from(MIX), min_size=1, max_size=20),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    st.sampled_from([None, "s", "ns", "%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%z"]),
)
def test_a_time_does_not_depend_on_its_neighbours(
    values: list[str | None], zone: str, time_format: str | None
) -> None:
    column = pa.array(values, pa.string())
    alone = pa.concat_arrays(
        [parse_times(pa.array([value], pa.string()), zone, time_format) for value in values]
    )
    assert parse_times(column, zone, time_format).equals(alone)
    assert parse_times(column.dictionary_encode(), zone, time_format).equals(alone)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize(
    "column",
    [
        pa.array(["1677-12-31T12:00:00", "2262-01-01T12:00:00", "9999-01-01T00:00:00"]),
        pa.array(["1677-12-31T12:00:00Z", "2262-01-01T12:00:00Z", "0001-01-01T00:00:00Z"]),
        pa.array([2**60, -(2**60), 2**63 - 1], pa.timestamp("us")),
        pa.array([2**60, -(2**60), 2**63 - 1], pa.timestamp("us", "Europe/Berlin")),
        pa.array([2**60, -(2**60), 2**63 - 1], pa.timestamp("s")),
        pa.array([2**30, -(2**30), 2**31 - 1], pa.date32()),
        pa.array([2**53 // 86_400_000 * 86_400_000], pa.date64()),
        pa.array([2**63 - 1, -(2**63)], pa.int64()),
        pa.array([1e300, -1e300, float("inf"), float("nan")]),
    ],
)
def test_times_out_of_range_are_null(column: pa.Array, zone: str) -> None:
    assert parse_times(column, zone).null_count == len(column)


@pytest.mark.parametrize(
    ("column", "time_format"),
    [
        (pa.array([-1, -1000, 1999], pa.timestamp("ns")), None),
        (pa.array([-1, -1000, 1999]), "ns"),
        (pa.array([-1.0, -1000.0, 1999.0]), "ns"),
        (pa.array(["-1", "-1000", "1999"]), "ns"),
        (
            pa.array(["1969-12-31T23:59:59.999999999Z"] * 2 + ["1970-01-01T00:00:00.000001999Z"]),
            None,
        ),
    ],
)
def test_nanoseconds_are_those_of_the_microsecond_before(
    column: pa.Array, time_format: str | None
) -> None:
    found = parse_times(column, "UTC", time_format)
    assert found.cast(pa.int64()).to_pylist() == [-1, -1, 1]


@pytest.mark.parametrize(
    ("value", "form", "far"),
    [
        ("9999-12-31T23:59:59Z", None, True),
        ("0001-01-01", None, True),
        ("1677-12-31T23:59:59.999999Z", None, True),
        ("2262-01-01 00:00:00", None, True),
        ("2261-12-31T23:59:59-05:00", None, True),
        ("99990101", None, True),
        ("99999999999999999999999", None, True),
        ("-1e30", None, True),
        ("1724753060469", "s", True),
        ("01.01.9999", "%d.%m.%Y", True),
        ("31 Dec 9999", "%d %b %Y", True),
        ("9999-02-30", None, False),
        ("0000-00-00", None, False),
        ("12024-01-01", None, False),
        ("yesterday", None, False),
        ("nan", None, False),
        ("1e999", None, False),
        ("", None, False),
        ("9999-12-31", "s", False),
        ("9999-12-31", "%d.%m.%Y", False),
        ("99.01.9999", "%d.%m.%Y", False),
        ("32 Dec 9999", "%d %b %Y", False),
    ],
)
def test_a_time_of_another_age_is_told_from_what_is_none(
    value: str, form: str | None, far: bool
) -> None:
    for column in ([value], [value, None, "x", value], [value] * 50 + ["9999-13-01"]):
        array = pa.array(column, pa.string())
        assert parse_times(array, "UTC", form).null_count == len(column)
        wanted = [far and each == value for each in column]
        assert out_of_range(array, form).tolist() == wanted
        assert out_of_range(array.dictionary_encode(), form).tolist() == wanted


@pytest.mark.parametrize(
    ("array", "form", "far"),
    [
        (pa.array([2**63 - 1, None]), None, [True, False]),
        (pa.array([1e300, float("nan"), float("inf")]), None, [True, False, False]),
        (pa.array([Decimal("1e30")]), "s", [True]),
        (pa.array([2**62]), "%Y", [False]),
        (pa.array([2**60, None], pa.timestamp("us")), None, [True, False]),
        (pa.array([2**30], pa.date32()), None, [True]),
        (pa.array([True, None]), None, [False, False]),
        (pa.array([[1]]), None, [False]),
        (pa.array([], pa.string()), None, []),
    ],
)
def test_types_that_hold_times_of_another_age(
    array: pa.Array, form: str | None, far: list[bool]
) -> None:
    assert out_of_range(array, form).tolist() == far


def test_the_range_that_is_told_is_the_one_that_is_read() -> None:
    first, last = RANGE.split(" to ")
    found = parse_times(pa.array([first, f"{last}T23:59:59.999999"]))
    assert found.cast(pa.int64()).to_pylist() == [FIRST, LAST]
