"""Durations are read as they are written, and written as they are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.durations import UNITS_MS, parse_ms, show_ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [("500ms", 500), (" 1.5 h ", 5_400_000), ("0s", 0), ("30d", 30 * UNITS_MS["d"])],
)
def test_every_unit_is_read(text: str, ms: int) -> None:
    assert parse_ms(text) == ms


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 week", "1h30m", "1e3s", "\u0663x"])
def test_what_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a duration like 500ms, 30s"):
        parse_ms(text)


def test_a_unit_that_was_forgotten_is_named() -> None:
    with pytest.raises(ValueError, match="add its unit, such as 30s"):
        parse_ms("30")


def test_less_than_a_millisecond_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number of milliseconds"):
        parse_ms("0.5ms")


@given(st.integers(0, 10**13))
def test_what_is_written_is_read_again(ms: int) -> None:
    assert parse_ms(show_ms(ms)) == ms


def test_the_longest_unit_that_fits_is_written() -> None:
    assert [show_ms(ms) for ms in (0, 999, 1000, 90_000, 7_200_000)] == [
        "0ms",
        "999ms",
        "1s",
        "90s",
        "2h",
    ]
