"""Arrow columns as text, for JSON Lines and CSV: a column at a time, never a row at a time.

Text of a value is the same in both: times as RFC 3339 with microseconds and `Z`, doubles as
the shortest digits that read back equal, NaN and infinities as null, lists and maps as JSON
arrays and objects, binary as base64.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

_SHORT = {0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0C: "\\f", 0x0D: "\\r"}
# The backslash goes first: the other escapes bring their own.
_ESCAPES = [
    (0x5C, "\\\\"),
    (0x22, '\\"'),
    *((code, _SHORT.get(code, f"\\u{code:04x}")) for code in range(0x20)),
]
_BOOLEANS = pa.array(["false", "true"])


def json_lines(table: pa.Table) -> pa.Array:
    """Write each row as one JSON object and a line feed (string array).

    Args:
        table: one chunk a column; at most some 1 GiB of text.
    """
    parts: list[str | pa.Array] = []
    opening = "{"
    for field, column in zip(table.schema, table.columns, strict=True):
        name = f"{opening}{json.dumps(field.name)}:"
        opening = ","
        array = one_chunk(column)
        if array.null_count == len(array):
            parts += [name, "null"]
        elif pa.types.is_dictionary(array.type):
            # The name goes into the few distinct values: one copy a row instead of two.
            parts.append(_by_code(array, json_values(array.dictionary), name, f"{name}null"))
        elif pa.types.is_boolean(array.type):
            parts.append(_by_code(_boolean_codes(array), _BOOLEANS, name, f"{name}null"))
        elif _is_quoted(array.type) and not array.null_count:
            parts += [f'{name}"', _bare(array), '"']
        else:
            parts += [name, json_values(array)]
    return _join([*parts, "}\n"], len(table))


def csv_columns(table: pa.Table) -> pa.Table:
    """Make a table of the types that CSV has: numbers, booleans and strings."""
    columns = []
    for column in table.columns:
        array = one_chunk(column)
        if pa.types.is_dictionary(array.type):
            array = pa.DictionaryArray.from_arrays(array.indices, csv_values(array.dictionary))
            columns.append(array.cast(pa.string()))
        else:
            columns.append(csv_values(array))
    return pa.table(columns, names=table.schema.names)


def csv_values(array: pa.Array) -> pa.Array:
    """Return numbers and booleans as they are, all else as strings; nulls stay null."""
    type_ = array.type
    if pa.types.is_integer(type_) or pa.types.is_boolean(type_) or pa.types.is_string(type_):
        return array
    if pa.types.is_floating(type_):
        return pc.if_else(pc.is_finite(array), array, pa.scalar(None, type_))
    if array.null_count == len(array):
        return pa.nulls(len(array), pa.string())
    text = _bare(array, escape=False) if _is_quoted(type_) else json_values(array)
    return pc.if_else(array.is_valid(), text, pa.scalar(None, pa.string()))


def json_values(array: pa.Array) -> pa.Array:
    """Write each value as JSON text (string array without nulls: null is the text `null`).

    Types it knows are vectorised; any other goes through orjson, a value at a time.
    """
    type_ = array.type
    if not len(array):
        return pa.array([], pa.string())
    if pa.types.is_dictionary(type_):
        return _by_code(array, json_values(array.dictionary), "", "null")
    if pa.types.is_boolean(type_):
        return _by_code(_boolean_codes(array), _BOOLEANS, "", "null")
    if _is_quoted(type_):
        text = _join(['"', _bare(array), '"'], len(array))
    elif pa.types.is_integer(type_):
        text = array.cast(pa.string())
    elif pa.types.is_floating(type_):
        finite = pc.is_finite(array)
        text = pc.if_else(finite, array.cast(pa.string()), "null")
    elif pa.types.is_list(type_) or pa.types.is_map(type_):
        text = _nested(array)
    else:
        values = [orjson.dumps(value).decode() for value in array.to_pylist()]
        return pa.array(values, pa.string())
    if not array.null_count:
        return text
    return pc.if_else(array.is_valid(), text, "null")


def time_text(array: pa.Array) -> pa.Array:
    """Write UTC timestamps as `2024-08-27T10:04:20.469000Z` (string array, nulls stay null)."""
    # Without its zone a time is cast twenty times faster; the zone is UTC anyway.
    plain = array.cast(pa.timestamp("us", tz="UTC")).view(pa.timestamp("us")).cast(pa.string())
    rows = len(plain)
    if not rows:
        return plain
    _, offsets, data = plain.buffers()
    at = np.frombuffer(offsets, np.int32, rows + 1, 4 * plain.offset)
    if data is None or plain.null_count or not bool((np.diff(at) == 26).all()):
        text = pc.binary_join_element_wise(plain, "Z", "")
        return pc.replace_substring(text, " ", "T")
    characters = np.empty((rows, 27), np.uint8)
    characters[:, :26] = np.frombuffer(data, np.uint8, 26 * rows, int(at[0])).reshape(rows, 26)
    characters[:, 10] = ord("T")
    characters[:, 26] = ord("Z")
    starts = np.arange(0, 27 * (rows + 1), 27, dtype=np.int32)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(starts), pa.py_buffer(characters))


def escape_json(array: pa.Array) -> pa.Array:
    """Escape quotes, backslashes and control characters as JSON wants them (nulls stay null)."""
    for code, escaped in _escapes_needed(array):
        array = pc.replace_substring(array, chr(code), escaped)
    return array


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """Return the column as one array; dictionaries of its chunks are unified."""
    if column.num_chunks == 1:
        return column.chunk(0)
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    return array


def _escapes_needed(array: pa.Array) -> list[tuple[int, str]]:
    """Find which escapes occur, by one look at the bytes of the whole column."""
    _, offsets, data = array.buffers()
    if data is None or not len(array):
        return []
    at = np.frombuffer(offsets, np.int32, len(array) + 1, 4 * array.offset)
    raw = np.frombuffer(data, np.uint8, int(at[-1]))[int(at[0]) :]
    if not (raw < 0x20).any() and not ((raw == 0x22) | (raw == 0x5C)).any():
        return []
    counts = np.bincount(raw, minlength=0x5D)
    return [(code, escaped) for code, escaped in _ESCAPES if counts[code]]


def _is_quoted(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(type_) or pa.types.is_timestamp(type_) or pa.types.is_binary(type_)
    )


def _bare(array: pa.Array, escape: bool = True) -> pa.Array:
    """Return what stands between the quotes."""
    if pa.types.is_timestamp(array.type):
        return time_text(array)
    if pa.types.is_binary(array.type):
        # Payloads of dead letters: already picked out, so a call a row is no loss.
        encoded = [None if v is None else base64.b64encode(v).decode() for v in array.to_pylist()]
        return pa.array(encoded, pa.string())
    return escape_json(array) if escape else array


def _boolean_codes(array: pa.Array) -> Any:
    return pa.DictionaryArray.from_arrays(array.cast(pa.int8()), _BOOLEANS)


def _by_code(array: Any, values: pa.Array, prefix: str, null: str) -> pa.Array:
    """Write a dictionary column by the texts of its distinct values."""
    values = pa.concat_arrays([_join([prefix, values], len(values)), pa.array([null])])
    codes = array.indices.cast(pa.int32())
    if codes.null_count:
        codes = codes.fill_null(len(values) - 1)
    return values.take(codes)


def _nested(array: Any) -> pa.Array:
    """Write lists as `[a,b]` and maps as `{"k":v}`; what a null row holds does not matter."""
    offsets = array.offsets
    first, last = offsets[0].as_py(), offsets[-1].as_py()
    starts = pc.subtract(offsets, offsets[0])
    if pa.types.is_map(array.type):
        keys = json_values(array.keys.slice(first, last - first))
        values = json_values(array.items.slice(first, last - first))
        opening, closing = "{", "}"
        inner = _join([keys, ":", values], last - first)
    else:
        inner = json_values(array.values.slice(first, last - first))
        opening, closing = "[", "]"
    joined = pc.binary_join(pa.ListArray.from_arrays(starts, inner), ",")
    return _join([opening, joined, closing], len(array))


def _join(parts: list[str | pa.Array], rows: int) -> pa.Array:
    """Concatenate texts row by row; neighbouring constants are joined once."""
    merged: list[Any] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part != "" or not isinstance(part, str):
            merged.append(part)
    if all(isinstance(part, str) for part in merged):
        return pa.array(["".join(merged)] * rows, pa.string())
    if len(merged) == 1:
        return merged[0]
    return pc.binary_join_element_wise(*merged, "")


def keys_of(rows: pa.Table, names: tuple[str, ...]) -> pa.Array:
    """Return the text of a key; of several columns, a JSON array."""
    columns = [rows[name].combine_chunks() for name in names]
    if len(columns) == 1:
        return columns[0].cast(pa.string())
    texts = [json_values(column) for column in columns]
    parts: list[Any] = ["[", texts[0]]
    for text in texts[1:]:
        parts += [",", text]
    return pa.compute.binary_join_element_wise(*parts, "]", "")
