"""Lines of `$eventlog`: every form, their order and their identity."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.formats.eventlog import (
    Lines,
    explain_line,
    identify_lines,
    microseconds,
    order_lines,
    parse_lines,
)

UTC = dt.timezone.utc


def parse(*lines: str, timezone: str = "UTC") -> Lines:
    return parse_lines(pa.array(lines, pa.string()), timezone)


def row(lines: Lines, i: int = 0) -> tuple[Any, ...]:
    return (
        lines.time[i].as_py(),
        lines.model_version[i].as_py(),
        int(lines.source_task[i]),
        int(lines.event[i]),
        int(lines.task[i]),
        lines.actor[i].as_py(),
        bool(lines.old[i]),
    )


NOON = dt.datetime(2024, 8, 27, 10, 4, 20, 469000, UTC)
SECOND = dt.datetime(2024, 8, 27, 10, 4, 20, 0, UTC)

READABLE = {
    # new form
    "2024-08-27T12:04:20.469+02:00|order-1.0|2000|10|3000|lena|fine": (
        NOON, "order-1.0", 2000, 10, 3000, "lena", False),
    "2024-08-27T12:04:20.469+02:00|order-1.0|2000|10|3000||": (
        NOON, "order-1.0", 2000, 10, 3000, None, False),
    "2024-08-27T12:04:20.469+02:00|order-1.0|2000|10|3000": (
        NOON, "order-1.0", 2000, 10, 3000, None, False),
    "2024-08-27T12:04:20.469+02:00|order-1.0|2000|10|3000|lena|a|b||c.d|": (
        NOON, "order-1.0", 2000, 10, 3000, "lena", False),
    "2024-08-27T10:04:20Z|order-1.0|2000|10|3000|lena|": (
        SECOND, "order-1.0", 2000, 10, 3000, "lena", False),
    "2024-08-27T10:04:20.469123456Z||2000|10|3000|lena|": (
        NOON + dt.timedelta(microseconds=123), None, 2000, 10, 3000, "lena", False),
    "2024-08-27T12:04:20.469|order-1.0|2000|10|3000||kept its time": (
        NOON, "order-1.0", 2000, 10, 3000, None, False),
    # old form, zone from the context
    "2024-08-27T12:04:20.469|1.0.0|1000.20|1100|comment": (
        NOON, "1.0.0", 1000, 20, 1100, None, True),
    "2024-08-27T12:04:20.469|1.0.0|1000.20|1100|": (NOON, "1.0.0", 1000, 20, 1100, None, True),
    "2024-08-27T12:04:20.469|1.0.0|1000.20|1100": (NOON, "1.0.0", 1000, 20, 1100, None, True),
    "2024-08-27T12:04:20.469|1.0.0|1000.20|1100|with|many|bars|x|y": (
        NOON, "1.0.0", 1000, 20, 1100, None, True),
    # oldest form
    "27.08.2024 12:04:20|10.20:=30": (SECOND, None, 10, 20, 30, None, True),
    "27.08.2024 12:04:20|10.20:=30|": (SECOND, None, 10, 20, 30, None, True),
}  # fmt: skip


@pytest.mark.parametrize("line", READABLE)
def test_a_line_of_any_form_is_read(line: str) -> None:
    parsed = parse(line, timezone="Europe/Berlin")
    assert parsed.readable.tolist() == [True]
    assert row(parsed) == READABLE[line]


def test_forms_mix_in_one_log() -> None:
    parsed = parse(*READABLE, timezone="Europe/Berlin")
    assert parsed.readable.all()
    assert [row(parsed, i) for i in range(len(READABLE))] == list(READABLE.values())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nonsense", "form), not 1"),
        ("2024-08-27T12:04:20Z|m|10|20", "form), not 4"),
        ("2024-08-27T12:04:20Z|m|x|10|20|a|", "source task of a log line is not a number: 'x'"),
        ("2024-08-27T12:04:20Z|m||10|20|a|", "source task of a log line is not a number: ''"),
        ("2024-08-27T12:04:20Z|m|10|1e1|20|a|", "event of a log line is not a number: '1e1'"),
        ("2024-08-27T12:04:20Z|m|10|20|0x10|a|", "target task of a log line is not a number"),
        ("2024-08-27T12:04:20Z|m|10|20|9999999999|a|", "target task of a log line is not"),
        ("2024-08-27T12:04:20Z|m|10|20|٣|a|", "target task of a log line is not a number"),
        ("2024-08-27T12:04:20|m|10.x|20|a", "event of a log line is not a number: 'x'"),
        ("2024-02-30T12:04:20Z|m|10|20|30|a|", "time of a log line cannot be read: '2024-02-30"),
        ("9999-12-31T12:04:20Z|m|10|20|30|a|", "log line is out of range (from 1678-01-01 to"),
        ("yesterday|m|10|20|30|a|", "time of a log line cannot be read: 'yesterday'"),
        ("1724753060|m|10|20|30|a|", "time of a log line cannot be read: '1724753060'"),
        ("|m|10|20|30|a|", "time of a log line cannot be read: ''"),
        ("27.13.2024 12:04:20|10.20:=30", "time of a log line cannot be read: '2024-13-27"),
        ("27.08.2024 12:04:20|10:=30", "not 2"),
    ],
)
def test_an_unreadable_line_is_found_and_explained(line: str, reason: str) -> None:
    good = next(iter(READABLE))
    parsed = parse(good, line, good)
    assert parsed.readable.tolist() == [True, False, True]
    assert reason in explain_line(line, "UTC")


def test_no_lines() -> None:
    assert len(parse().readable) == 0


times = st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2037, 1, 1)).map(  # noqa: DTZ001
    lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000)
)
tasks = st.integers(0, 2**31 - 1)
comments = st.text(st.characters(exclude_characters="\0"), max_size=12)


@settings(deadline=None)
@given(times, tasks, tasks, tasks, comments)
def test_an_old_line_and_its_migrated_form_are_the_same_event(
    time: dt.datetime, source: int, event: int, task: int, comment: str
) -> None:
    zone = ZoneInfo("Europe/Berlin")
    zoned = time.replace(tzinfo=zone)
    # The engine could not tell two readings of one clock time apart either.
    if zoned.utcoffset() != zoned.replace(fold=1).utcoffset():
        return
    old = f"{time.isoformat(timespec='milliseconds')}|m|{source}.{event}|{task}|{comment}"
    new = f"{zoned.isoformat(timespec='milliseconds')}|m|{source}|{event}|{task}||{comment}"
    parsed = parse(old, new, timezone="Europe/Berlin")
    assert parsed.readable.all()
    assert parsed.old.tolist() == [True, False]
    ids = identify_lines(
        pa.array(["c", "c"]),
        microseconds(parsed.time),
        parsed.source_task,
        parsed.event,
        parsed.task,
        np.zeros(2, np.int64),
    )
    assert ids[0] == ids[1]
    assert row(parsed, 0)[:5] == row(parsed, 1)[:5]


@settings(deadline=None)
@given(st.lists(st.text("0123456789.|:=T-+Z a\n", max_size=40), max_size=8))
def test_any_text_is_read_or_explained_and_does_not_touch_its_neighbours(texts: list[str]) -> None:
    good = next(iter(READABLE))
    alone = [row(parse(text)) if parse(text).readable[0] else None for text in texts]
    parsed = parse(good, *texts, good)
    assert parsed.readable[0]
    assert parsed.readable[-1]
    for i, (text, expected) in enumerate(zip(texts, alone, strict=True), start=1):
        assert (row(parsed, i) if parsed.readable[i] else None) == expected
        if expected is None:
            assert explain_line(text, "UTC")


def brute_force(lines: list[tuple[int, ...]]) -> tuple[list[int], list[int]]:
    """Rank and repetition as their definition says."""
    position = [sum(b[:2] == a[:2] for b in lines[:i]) for i, a in enumerate(lines)]
    repeat = [sum(b == a for b in lines[:i]) for i, a in enumerate(lines)]
    return position, repeat


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 1), st.integers(0, 1),
                  st.integers(0, 1)), max_size=20)
)  # fmt: skip
def test_order_is_as_defined(lines: list[tuple[int, ...]]) -> None:
    lines = sorted(lines, key=lambda line: line[0])
    columns = [np.array([line[k] for line in lines], np.int64) for k in range(5)]
    order = order_lines(*columns)
    position, repeat = brute_force(lines)
    assert order.position.tolist() == position
    assert order.repeat.tolist() == repeat
    logs = sorted({line[0] for line in lines})
    by_time = [
        sorted((i for i in range(len(lines)) if lines[i][0] == log), key=lambda i: lines[i][1])
        for log in logs
    ]
    assert order.first.tolist() == [ranked[0] for ranked in by_time]
    assert order.last.tolist() == [ranked[-1] for ranked in by_time]


def test_a_line_keeps_its_identity_when_the_log_is_cut() -> None:
    time = np.array([1, 2, 3, 3, 3, 4])
    same = np.full(6, 7)

    def ids(cut: int) -> list[str]:
        n = 6 - cut
        part = (time[cut:], same[cut:], same[cut:], same[cut:])
        order = order_lines(np.zeros(n, np.int64), *part)
        found: list[str] = identify_lines(pa.array(["c"] * n), *part, order.repeat).to_pylist()
        return found

    assert ids(0)[2:] == ids(2)
    assert len(set(ids(0))) == 6
