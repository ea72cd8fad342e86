"""Rows for the tests of the sinks: any table, any values, from a Hypothesis draw."""

from __future__ import annotations

import base64
import datetime as dt
import math
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from schemas.tables import Output

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)

TEXT = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from('"\\/\b\f\n\r\t\x00\x1f\x7f,;\u2028\u00e9\U0001f600'),
    ),
    max_size=6,
)


def _values(type_: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_dictionary(type_):
        return _values(type_.value_type)
    if pa.types.is_string(type_):
        return TEXT
    if pa.types.is_binary(type_):
        return st.binary(max_size=5)
    if pa.types.is_timestamp(type_):
        first, last = dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999)  # noqa: DTZ001
        return st.datetimes(first, last, timezones=st.just(dt.timezone.utc))
    if pa.types.is_boolean(type_):
        return st.booleans()
    if pa.types.is_integer(type_):
        half = 2 ** (type_.bit_width - 1)
        return st.integers(-half, half - 1)
    if pa.types.is_floating(type_):
        return st.floats()
    if pa.types.is_map(type_):
        return st.dictionaries(
            _values(type_.key_type), st.none() | _values(type_.item_type), max_size=3
        ).map(lambda pairs: list(pairs.items()))
    if pa.types.is_list(type_):
        return st.lists(st.none() | _values(type_.value_type), max_size=3)
    reason = f"no values of {type_}"
    raise TypeError(reason)


@st.composite
def tables(draw: st.DrawFn, output: Output, max_rows: int = 8) -> pa.Table:
    """Draw rows of a table, as one or two chunks, maybe cut out of a longer one."""
    parts = []
    for _ in range(draw(st.integers(1, 2))):
        rows = draw(st.integers(0, max_rows))
        columns = []
        for field in output.schema:
            one = _values(field.type)
            values = st.none() | one if field.nullable else one
            columns.append(column(draw(st.lists(values, min_size=rows, max_size=rows)), field.type))
        parts.append(pa.Table.from_arrays(columns, schema=output.schema))
    table = pa.concat_tables(parts)
    start = draw(st.integers(0, len(table)))
    return table.slice(start) if draw(st.booleans()) else table


def column(values: list[Any], type_: pa.DataType) -> pa.Array:
    """Make an array of Python values; a dictionary type is encoded."""
    if pa.types.is_dictionary(type_):
        return pa.array(values, type_.value_type).dictionary_encode().cast(type_)
    return pa.array(values, type_)


def plain(value: Any, type_: pa.DataType) -> Any:
    """Say what a value should be read back as from JSON: the reference of the text formats."""
    if value is None:
        return None
    if isinstance(value, dt.datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if pa.types.is_map(type_):
        return {key: plain(item, type_.item_type) for key, item in value}
    if pa.types.is_list(type_):
        return [plain(item, type_.value_type) for item in value]
    return value


def plain_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Say what the rows of a table should be read back as from JSON."""
    return [
        {field.name: plain(row[field.name], field.type) for field in table.schema}
        for row in table.to_pylist()
    ]
