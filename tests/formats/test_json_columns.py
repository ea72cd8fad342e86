"""Fields of JSON lines: the fast readers give what the strict one gives."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.formats import json_columns
from transforms.formats.columns import to_text
from transforms.formats.json_columns import LineColumns, read_lines
from transforms.formats.json_templates import read_uniform
from transforms.formats.line_blocks import line_bounds

PATHS: dict[str, tuple[str, ...]] = {"a": ("a",), "n": ("n",), "p": ("p", "q"), "z": ("z",)}


def texts(found: LineColumns) -> list[tuple[Any, ...]]:
    columns = [to_text(found.arrays[name]).to_pylist() for name in PATHS]
    return list(zip(found.lines.tolist(), *columns, strict=True))


def strict(data: bytes) -> LineColumns:
    """Read every line by the strict reader."""
    starts, ends = line_bounds(data)
    with (
        mock.patch.object(json_columns, "read_uniform", lambda d, s, e, n, p: ([], n)),
        mock.patch.object(json_columns, "_types", lambda *_: None),
    ):
        return read_lines(data, starts, ends, PATHS, frozenset())


def fast(data: bytes, uniform: bool = True) -> LineColumns:
    starts, ends = line_bounds(data)
    if uniform:
        return read_lines(data, starts, ends, PATHS, frozenset())
    with mock.patch.object(json_columns, "read_uniform", lambda d, s, e, n, p: ([], n)):
        return read_lines(data, starts, ends, PATHS, frozenset())


def uniformly(data: bytes) -> list[int]:
    """Return the lines that were read by a template."""
    starts, ends = line_bounds(data)
    pieces, _ = read_uniform(data, starts, ends, np.arange(len(starts)), PATHS)
    return sorted(line for lines, _ in pieces for line in lines.tolist())


LINE = b'{"a": "x", "n": 1.50, "p": {"q": "y", "r": ["s", "t"]}, "z": null}'


def test_lines_of_one_layout_are_read_by_a_template() -> None:
    lines = [LINE, LINE.replace(b"1.50", b"-17"), LINE.replace(b"null", b"true")]
    data = b"\n".join(lines * 5)
    assert uniformly(data) == list(range(15))
    assert texts(fast(data))[:3] == [
        (0, "x", "1.50", "y", None),
        (1, "x", "-17", "y", None),
        (2, "x", "1.50", "y", "true"),
    ]
    assert texts(fast(data)) == texts(strict(data))


@pytest.mark.parametrize(
    "other",
    [
        LINE.replace(b'"x"', b'"x\\n"'),
        LINE.replace(b'"x"', b'"x\ty"'),
        LINE.replace(b'"x"', b'"x\ry"'),
        LINE.replace(b'"x"', b'"\xff"'),
        LINE.replace(b"1.50", b"01"),
        LINE.replace(b"1.50", b"1e999"),
        LINE.replace(b"1.50", b"-0"),
        LINE.replace(b"1.50", b"1."),
        LINE.replace(b"1.50", b"nil"),
        LINE.replace(b"1.50", b""),
        LINE.replace(b'"n"', b'"m"'),
        LINE.replace(b'"n":', b'"n",'),
        LINE.replace(b'"a"', b'"n"'),
        LINE.replace(b'"q": "y"', b'"q": ["y"]'),
        LINE + b",",
        LINE[:-1],
        LINE + LINE,
        b" " + LINE,
    ],
)
def test_a_line_of_another_layout_is_left_to_a_parser(other: bytes) -> None:
    data = b"\n".join([LINE] * 150 + [other] + [LINE] * 150)
    assert 150 not in uniformly(data) or texts(fast(data)) == texts(strict(data))
    found, expected = fast(data), strict(data)
    assert texts(found) == texts(expected)
    assert [f[:2] for f in found.failures] == [f[:2] for f in expected.failures]


layouts = st.lists(st.sampled_from(["a", "n", "p", "z", "u"]), unique=True, max_size=5)
scalars = st.one_of(
    st.text(st.sampled_from('ab "\\:,{}[]ä\n'), max_size=5),
    st.integers(-(10**20), 10**20),
    st.integers(-5, 5),
    st.floats(-1e6, 1e6).map(lambda x: round(x, 3)),
    st.booleans(),
    st.none(),
)
whole = st.integers(-(10**19), 10**19)
lists = st.one_of(
    st.lists(whole, max_size=2),
    st.lists(st.lists(whole, max_size=2), max_size=2),
    st.lists(st.lists(st.lists(whole, max_size=1), max_size=1), max_size=1),
    st.sampled_from([[1], [[-1, 0], 5], [0.5], ["s"], [None], [-0.0]]),
)


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """Draw lines of a few layouts, some with a byte changed."""
    lines = []
    for keys in draw(st.lists(layouts, min_size=1, max_size=3)):
        kinds = {key: draw(scalars) for key in keys}
        for _ in range(draw(st.integers(1, 12))):
            row: dict[str, Any] = {}
            for key in keys:
                same = draw(st.booleans())
                value = kinds[key] if same else draw(scalars)
                row[key] = {"q": value, "r": draw(lists)} if key == "p" else value
            spaced = draw(st.booleans())
            line = json.dumps(
                row, ensure_ascii=draw(st.booleans()), separators=None if spaced else (",", ":")
            ).encode()
            if draw(st.integers(0, 9)) == 0:
                at = draw(st.integers(0, len(line) - 1))
                line = line[:at] + draw(st.binary(max_size=2)) + line[at + 1 :]
            lines.append(line.replace(b"\n", b" "))
    return draw(st.sampled_from([b"\n", b"\r\n"])).join(lines)


@settings(max_examples=150, deadline=None)
@given(blocks(), st.booleans())
def test_fast_readers_agree_with_the_strict_one(data: bytes, uniform: bool) -> None:
    found, expected = fast(data, uniform), strict(data)
    assert texts(found) == texts(expected)
    assert sorted(f[:2] for f in found.failures) == [f[:2] for f in expected.failures]
    assert found.blank == expected.blank


@pytest.mark.parametrize(
    ("given", "read"),
    [("[]", True), ("[0,-7]", True), ("[[1,2],[],3]", True), ("[01]", False), ("[1,]", False),
     ("[[1]", False), ("[[[1]]]", False), ("[-]", False), ("[1 ,2]", False)],
)  # fmt: skip
def test_lists_of_whole_numbers_in_a_layout(given: str, read: bool) -> None:
    good = [b'{"a": "x", "n": 1, "w": [%d,[2]], "z": "y"}' % i for i in range(100)]
    data = b"\n".join([*good, good[0].replace(b"[0,[2]]", given.encode())])
    assert (100 in uniformly(data)) is read
    assert list(range(100)) == uniformly(data)[:100]
    assert texts(fast(data)) == texts(strict(data))


def test_numbers_read_as_doubles_keep_their_text() -> None:
    rows = [{"a": "x", "n": i / 4, "w": [i, 0.5]} for i in range(300)]
    data = b"\n".join(json.dumps(row).encode() for row in rows)
    assert uniformly(data) == []  # a fraction in an array has no template
    found = fast(data)
    assert found.arrays["n"].type == pa.string()
    assert texts(found) == texts(strict(data))


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("depth", [1024, 1025, 5000])
def test_how_deep_a_line_may_be_does_not_depend_on_its_neighbours(
    depth: int, uniform: bool
) -> None:
    """The object itself is one of the levels."""
    deep = b'{"a": "deep", "x": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
    data = b"\n".join([LINE, deep, b'{"a": "b"}', LINE])
    expected = strict(data)
    assert [line for line, *_ in expected.failures] == ([1] if depth > 1024 else [])
    found = fast(data, uniform)
    assert texts(found) == texts(expected)
    assert found.failures == expected.failures
