"""Lines of one layout that NumPy reads are just those whose scalars a parser would read so."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.formats.json_templates import read_uniform
from transforms.formats.line_blocks import PADDING, line_bounds

PLAIN = re.compile(
    r"(0|-?[1-9][0-9]{0,17}|(0|-?(0|[1-9][0-9]{0,9}))\.[0-9]{1,9}|true|false|null)\Z"
)
SCALARS = st.sampled_from(
    [
        *("0", "7", "42", "-1", "1736150400007", "2251799813685249", "123456789012345678"),
        *("007", "00", "01736150400007", "1234567890123456789", "-0", "1e5", "1.5", "true"),
        *("null", "nul", "12x", "1:", "9/", "1;345678", ":", "--1", "+1", "1 2", "0x1"),
    ]
)


def read(values: list[str], padding: bytes) -> dict[int, str | None]:
    data = b"".join(b'{"a":%s,"b":"x"}\n' % v.encode() for v in values)
    starts, ends = line_bounds(data)
    numbers = np.arange(len(values))
    pieces, left = read_uniform(data + padding, starts, ends, numbers, {"a": ("a",), "b": ("b",)})
    found: dict[int, str | None] = {}
    for lines, texts in pieces:
        assert texts["b"].to_pylist() == ["x"] * len(lines)
        found |= dict(zip(lines.tolist(), texts["a"].to_pylist(), strict=True))
    assert sorted([*found, *left.tolist()]) == list(range(len(values)))
    return found


@given(st.lists(SCALARS, min_size=1, max_size=30), st.sampled_from([b"", PADDING]))
def test_only_plain_scalars_are_read(values: list[str], padding: bytes) -> None:
    for line, text in read(values, padding).items():
        assert PLAIN.match(values[line]), values[line]
        assert text == (None if values[line] == "null" else values[line])


@pytest.mark.parametrize("value", ["7", "0", "-1", "true", "null", "1736150400007", "1.25"])
@pytest.mark.parametrize("padding", [b"", PADDING])
def test_lines_that_are_all_the_same_are_read(value: str, padding: bytes) -> None:
    expected = None if value == "null" else value
    assert read([value] * 100, padding) == dict.fromkeys(range(100), expected)


@given(st.lists(st.integers(10**12, 10**13 - 1), min_size=70, max_size=100))
def test_whole_numbers_of_one_length_are_read(values: list[int]) -> None:
    texts = [str(value) for value in values]
    assert read(texts, PADDING) == dict(enumerate(texts))


@pytest.mark.parametrize(
    "odd", ["0736150400007", "17361504000:7", "17361504000/7", "-736150400007"]
)
def test_one_that_is_no_whole_number_is_left_out(odd: str) -> None:
    texts = ["1736150400007"] * 70 + [odd] + ["1736150400008"] * 70
    found = read(texts, PADDING)
    assert found.get(70, odd) == odd
    assert (70 in found) == bool(PLAIN.match(odd))
    assert len(found) >= 140
