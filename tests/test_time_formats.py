"""A format of times is used only if dates can be read by it."""

from __future__ import annotations

import pytest

from transforms.time_formats import UNITS, problem


@pytest.mark.parametrize("text", [*UNITS, "%d.%m.%Y %H:%M", "%Y%m%d", "on %Y-%j", "%c"])
def test_what_holds_a_date_is_taken(text: str) -> None:
    assert problem(text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("iso", "is neither a strptime format like '%d.%m.%Y %H:%M' nor one of s, ms, us, ns"),
        ("", "is neither a strptime format"),
        ("%Y-%Q", "is not a strptime format: 'Q' is a bad directive"),
        ("%Y-%m-%d %", "is not a strptime format"),
        ("%d %d", "is not a strptime format"),
        ("%H:%M", "holds no full date; it needs a year, a month and a day"),
        ("%d.%m.", "holds no full date"),
    ],
)
def test_what_does_not_is_told_why(text: str, reason: str) -> None:
    found = problem(text)
    assert found is not None and found.startswith(reason)
