"""Arrow values of any type as plain values of JSON, and which of them are no valid text.

`to_pylist` raises for what Python has no type for (nanoseconds, far years) and for text that is
not UTF-8. A dead row must come out whatever it holds, so nothing here raises for a value.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Mask = npt.NDArray[np.bool_]


def plain_values(array: pa.Array, errors: str = "replace") -> list[Any]:
    """Return values as None, booleans, numbers, texts, lists and objects with text keys.

    Args:
        array: of any type. Times become ISO 8601 text, durations a number with its unit; a map
            becomes pairs; what is not finite becomes None.
        errors: what to do with bytes that are not UTF-8 (as in `bytes.decode`).
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return plain_values(array.dictionary.take(array.indices), errors)
    if isinstance(array, pa.ExtensionArray):
        return plain_values(array.storage, errors)
    if is_text(kind) or is_bytes(kind):
        raw = array.cast(pa.large_binary()).to_pylist()
        return [None if value is None else value.decode(errors=errors) for value in raw]
    if pa.types.is_struct(kind):
        columns: dict[str, list[Any]] = {}
        for i in range(kind.num_fields):
            column = pc.struct_field(array, [i])
            columns.setdefault(kind.field(i).name, plain_values(column, errors))
        return [
            {name: values[row] for name, values in columns.items()} if valid else None
            for row, valid in enumerate(array.is_valid().to_pylist())
        ]
    if pa.types.is_nested(kind):
        return [_plain_list(array[row], errors) for row in range(len(array))]
    if pa.types.is_floating(kind):
        return [v if v is None or math.isfinite(v) else None for v in array.to_pylist()]
    if pa.types.is_decimal(kind):
        return [None if value is None else str(value) for value in array.to_pylist()]
    if pa.types.is_temporal(kind):
        return _plain_times(array)
    return list(array.to_pylist())


def _plain_list(value: Any, errors: str) -> list[Any] | None:
    if not value.is_valid:
        return None
    inner = value.values
    if pa.types.is_map(value.type):
        keys, values = (plain_values(pc.struct_field(inner, [i]), errors) for i in (0, 1))
        return [list(pair) for pair in zip(keys, values, strict=True)]
    return plain_values(inner, errors)


def _plain_times(array: pa.Array) -> list[str | None]:
    # A far time is "<value out of range: 1>". As a mere number it would be read as an epoch.
    texts: list[str | None] = array.cast(pa.string()).to_pylist()
    if pa.types.is_duration(array.type):
        return [None if text is None else f"{text} {array.type.unit}" for text in texts]
    return texts


def is_text(kind: pa.DataType) -> bool:
    """Say whether a type is text, in any of its layouts."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_bytes(kind: pa.DataType) -> bool:
    """Say whether a type is bytes, in any of its layouts."""
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def invalid_texts(array: pa.Array) -> Mask:
    """Say which values are, or hold, text or plain bytes that are not UTF-8."""
    kind = array.type
    bad = np.zeros(len(array), np.bool_)
    if pa.types.is_dictionary(kind):
        wrong = np.append(invalid_texts(array.dictionary), False)
        if not wrong.any():
            return bad
        codes = array.indices.fill_null(len(wrong) - 1).to_numpy(zero_copy_only=False)
        return np.asarray(wrong[codes], np.bool_)
    if is_bytes(kind):
        array = array.cast(pa.large_binary()).view(pa.large_string())
    elif not (is_text(kind) or pa.types.is_nested(kind)):
        return bad
    if _is_valid(array):
        return bad
    if not pa.types.is_nested(kind):
        for row, value in enumerate(array.cast(pa.large_binary()).to_pylist()):
            try:
                (value or b"").decode()
            except UnicodeDecodeError:
                bad[row] = True
        return bad
    for row in range(len(array)):
        bad[row] = not _is_valid(array.take(pa.array([row])))
    return bad


def plain_layout(array: pa.Array) -> pa.Array:
    """Return an array without extension and in a layout that all of Arrow's functions know."""
    if isinstance(array, pa.ExtensionArray):
        return plain_layout(array.storage)
    if pa.types.is_string_view(array.type):
        return array.cast(pa.large_binary()).view(pa.large_string())
    return array.cast(pa.large_binary()) if pa.types.is_binary_view(array.type) else array


def _is_valid(array: pa.Array) -> bool:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
