"""Arrow columns as text equal what orjson writes of the same Python values."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import NAME, TIME
from schemas.tables import TABLES
from tests.sinks.rows import TEXT, column, plain, plain_rows, tables
from transforms.sinks import text as sink_text


@pytest.mark.parametrize("name", sorted(TABLES))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_lines_are_those_of_orjson(name: str, data: st.DataObject) -> None:
    table = data.draw(tables(TABLES[name]))
    lines = sink_text.json_lines(table).to_pylist()
    assert all(line.endswith("}\n") and line.count("\n") == 1 for line in lines)
    rows = [orjson.loads(line) for line in lines]
    assert rows == plain_rows(table)
    assert [list(row) for row in rows] == [table.schema.names] * len(table)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.none() | TEXT))
def test_strings_are_escaped_byte_for_byte_as_orjson_does(values: list[str | None]) -> None:
    expected = [orjson.dumps(value).decode() for value in values]
    assert sink_text.json_values(pa.array(values, pa.string())).to_pylist() == expected
    assert sink_text.json_values(column(values, NAME)).to_pylist() == expected


@pytest.mark.parametrize("code", [*range(0x20), 0x22, 0x5C, 0x7F, 0x2028])
def test_each_character_that_json_treats_apart(code: int) -> None:
    value = f"a{chr(code)}\\u0041{chr(code)}"
    text = sink_text.json_values(pa.array([value, "plain", None])).to_pylist()
    assert text == [orjson.dumps(value).decode(), '"plain"', "null"]


def test_a_slice_is_looked_at_alone() -> None:
    array = pa.array(['"', "a", "b", "\\"]).slice(1, 2)
    assert sink_text.json_values(array).to_pylist() == ['"a"', '"b"']
    assert sink_text.escape_json(array).buffers()[2] == array.buffers()[2]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.none() | st.floats()))
def test_doubles_read_back_equal(values: list[float | None]) -> None:
    texts = sink_text.json_values(pa.array(values, pa.float64())).to_pylist()
    back = [orjson.loads(text) for text in texts]
    assert back == [v if v is not None and math.isfinite(v) else None for v in values]
    # Shortest: as long as Python's own, but for the sign and zeros of the exponent and `.0`.
    for text, value in zip(texts, values, strict=True):
        if value is not None and math.isfinite(value):
            digits = text.partition("e")[0].strip("-0").replace(".", "").strip("0")
            python = repr(value).partition("e")[0].strip("-0").replace(".", "").strip("0")
            assert digits == python


TIMES = [
    ("2024-08-27T10:04:20.469000Z", dt.datetime(2024, 8, 27, 10, 4, 20, 469000)),  # noqa: DTZ001
    ("1970-01-01T00:00:00.000000Z", dt.datetime(1970, 1, 1)),  # noqa: DTZ001
    ("1969-12-31T23:59:59.999999Z", dt.datetime(1969, 12, 31, 23, 59, 59, 999999)),  # noqa: DTZ001
    ("0001-01-01T00:00:00.000001Z", dt.datetime(1, 1, 1, 0, 0, 0, 1)),  # noqa: DTZ001
    ("9999-12-31T23:59:59.999999Z", dt.datetime(9999, 12, 31, 23, 59, 59, 999999)),  # noqa: DTZ001
]


def test_times_have_one_fixed_form() -> None:
    expected = [text for text, _ in TIMES]
    times = pa.array([time.replace(tzinfo=dt.timezone.utc) for _, time in TIMES], TIME)
    assert sink_text.time_text(times).to_pylist() == expected
    assert sink_text.time_text(times.slice(2)).to_pylist() == expected[2:]
    with_null = pa.concat_arrays([times, pa.nulls(1, TIME)])
    assert sink_text.time_text(with_null).to_pylist() == [*expected, None]
    assert sink_text.time_text(times.slice(0, 0)).to_pylist() == []


def test_a_time_that_has_no_four_digit_year_does_not_shift_its_neighbours() -> None:
    far = pa.array([10**18 // 3, 0], pa.int64()).view(TIME)
    expected = ["12532-11-29T16:35:33.333333Z", "1970-01-01T00:00:00.000000Z"]
    assert sink_text.time_text(far).to_pylist() == expected


NESTED = pa.map_(pa.string(), pa.list_(pa.string()))


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        (NESTED, [[("a", ["1", None]), ("b", None)], None, [], [("c", [])]]),
        (pa.map_(pa.string(), pa.float64()), [[("m", 0.5), ("n", float("nan"))], None]),
        (pa.list_(pa.uint64()), [[2**64 - 1, None], None, []]),
        (pa.list_(NAME), [["a", None, 'b"'], None]),
        (pa.struct([("x", pa.int32()), ("y", pa.string())]), [{"x": 1, "y": '"'}, None]),
        (pa.list_(pa.bool_()), [[True, False, None]]),
        (pa.null(), [None, None]),
    ],
)
def test_nested_values(type_: pa.DataType, values: list[Any]) -> None:
    array = pa.array(values, type_)
    back = [orjson.loads(text) for text in sink_text.json_values(array).to_pylist()]
    assert back == [plain(value, type_) for value in array.to_pylist()]
    cut = array.slice(1)
    back = [orjson.loads(text) for text in sink_text.json_values(cut).to_pylist()]
    assert back == [plain(value, type_) for value in cut.to_pylist()]


def test_what_a_null_row_hides_is_not_written() -> None:
    lists = pa.ListArray.from_arrays(
        pa.array([0, 1, 2], pa.int32()), pa.array(["seen", "hidden"]), mask=pa.array([False, True])
    )
    assert sink_text.json_values(lists).to_pylist() == ['["seen"]', "null"]


def test_a_column_in_chunks_with_dictionaries_of_their_own() -> None:
    chunked = pa.chunked_array([column(["a", "b"], NAME), column(["c", None], NAME)])
    lines = sink_text.json_lines(pa.table({"x": chunked})).to_pylist()
    assert [orjson.loads(line)["x"] for line in lines] == ["a", "b", "c", None]
