"""JSON objects, one a line, to Arrow columns of just the fields that are used.

Lines go through Arrow's reader with an explicit schema. A block that it refuses is halved until
the bad lines are alone, and these are read one by one by the strict reader, which is the law:
the result of a line never depends on the lines around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from transforms.arrays import conform
from transforms.formats.columns import to_text
from transforms.formats.json_templates import read_uniform
from transforms.formats.line_blocks import Offsets

Bytes = npt.NDArray[np.uint8]
Path = tuple["str | int", ...]
"""Keys from the top of an object; a number is a place in a list."""
Keys = tuple[str, ...]

_BOM = b"\xef\xbb\xbf"
_READER_BYTES = 1 << 20
_LEAF = 128
_SAMPLE = 100
_MAX_REFUSALS = 64
_NUMBER = r"\s*:\s*(?P<number>-?[0-9][-+0-9.eE]*)"
# Arrow's reader takes several objects on a line, and crashes on a null between them.
_SECOND_VALUE = re.compile(rb"\}[ \t\r]*n")
DEEPEST = 1024
"""Objects and lists within one another that the strict reader follows; Arrow's has no bound."""


class _Number(str):
    """The text of a JSON number."""

    __slots__ = ()


@dataclass
class LineColumns:
    """What was read of some lines.

    Attributes:
        lines: numbers of the lines that gave a row, ascending.
        arrays: field -> a value per such line: text, int64 or double (null where there is none).
        failures: (line, error, message) of the lines that are no JSON object.
        blank: number of blank lines.
    """

    lines: Offsets
    arrays: dict[str, pa.Array]
    failures: list[tuple[int, str, str]] = field(default_factory=list)
    blank: int = 0


@dataclass(frozen=True)
class _Lines:
    """Lines behind one another: line `numbers[i]` is raw[bounds[i]:bounds[i + 1]]."""

    raw: Bytes
    bounds: Offsets
    numbers: Offsets


def read_lines(
    data: bytes,
    starts: Offsets,
    ends: Offsets,
    paths: Mapping[str, Path],
    times: frozenset[str],
    encoding: str = "utf-8",
    max_bytes: int | None = None,
    apart: Collection[int] = (),
    layouts: list[int] | None = None,
) -> LineColumns:
    """Read fields of JSON objects.

    Args:
        data: the lines' bytes.
        starts: first byte of each line.
        ends: end of each line, its line break not included.
        paths: field -> keys that lead to it from the top of an object.
        times: fields whose numbers may lose their text (epochs).
        encoding: of the data.
        max_bytes: a longer line is a failure.
        apart: lines with line breaks in them (messages).
        layouts: lines are added to it, so that every line has the same keys as one of them.
    """
    # Neither Arrow's reader nor a layout of lines knows places in lists.
    lists = any(isinstance(key, int) for path in paths.values() for key in path)
    if lists or (encoding != "utf-8" and not data.isascii()):
        if layouts is not None:
            layouts.extend(range(len(starts)))
        return _read_one_by_one(data, starts, ends, paths, encoding, max_bytes)
    raw = np.frombuffer(data, np.uint8)
    blank = starts == ends
    full = np.flatnonzero(~blank)
    odd = np.zeros(len(starts), np.bool_)
    odd[full] = (raw[starts[full]] != ord("{")) | (raw[ends[full] - 1] != ord("}"))
    if max_bytes is not None:
        odd |= ends - starts > max_bytes
    odd[_undecodable(data, starts, ends)] = True
    odd[list(apart)] = True
    pieces, left = read_uniform(data, starts, ends, np.flatnonzero(~blank & ~odd), paths)
    if layouts is not None:
        layouts.extend(int(piece[0][0]) for piece in pieces)
        layouts.extend(left.tolist())
        layouts.extend(np.flatnonzero(odd).tolist())
    if len(left):
        trouble = _hidden_trouble(data, starts, ends)
        odd[trouble] = True
        left = left[~odd[left]] if len(trouble) else left
    slow: list[int] = np.flatnonzero(odd).tolist()
    if len(left):
        lines = _only(raw, starts, left)
        types = _types(lines, paths)
        if types is None:
            slow.extend(left.tolist())
        else:
            _read_fast(lines, paths, times, types, pieces, slow)
    found = _read_slow(data, starts, ends, sorted(slow), paths, encoding, max_bytes)
    found.blank += int(blank.sum())
    if len(found.lines) or not pieces:
        pieces.append((found.lines, found.arrays))
    found.lines, found.arrays = _joined(pieces)
    return found


def _only(raw: Bytes, starts: Offsets, numbers: Offsets) -> _Lines:
    """Put some of the lines, with their line breaks, behind one another."""
    bounds = np.append(starts, len(raw))
    lengths = np.diff(bounds)[numbers]
    if len(numbers) < len(starts):
        inside = np.zeros(len(raw) + 1, np.int8)
        inside[starts[numbers]] += 1
        inside[bounds[numbers + 1]] -= 1
        raw = raw[np.cumsum(inside[:-1], dtype=np.int8).view(np.bool_)]
    return _Lines(raw, np.append(0, np.cumsum(lengths)), numbers)


def _hidden_trouble(data: bytes, starts: Offsets, ends: Offsets) -> Offsets:
    """Find lines that Arrow's reader would misread: a NUL, a null behind an object, deep ones."""
    places = [found.start() for found in _SECOND_VALUE.finditer(data)]
    if b"\0" in data:
        places += [found.start() for found in re.finditer(rb"\0", data)]
    # What is nested too deeply is as long as its brackets, those that close it included.
    for line in np.flatnonzero(ends - starts > 2 * DEEPEST).tolist():
        start, end = int(starts[line]), int(ends[line])
        if data.count(b"[", start, end) + data.count(b"{", start, end) > DEEPEST:
            places.append(start)
    return np.unique(np.searchsorted(starts, places, side="right") - 1)


def _undecodable(data: bytes, starts: Offsets, ends: Offsets) -> list[int]:
    """Find lines that are not UTF-8."""
    if data.isascii() or _is_utf8(data):
        return []
    high = np.flatnonzero(np.frombuffer(data, np.uint8) > 127)
    lines = np.unique(np.searchsorted(starts, high, side="right") - 1).tolist()
    return [line for line in lines if not _is_utf8(data[starts[line] : ends[line]])]


def _is_utf8(data: bytes) -> bool:
    try:
        pa.array([data], pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def _types(lines: _Lines, paths: Mapping[str, Path]) -> dict[str, pa.DataType] | None:
    """See the type of each field from some lines; None if Arrow cannot read them."""
    if not paths or not len(lines.numbers):
        return None
    tops = list(paths.values())
    if any(a != b and a == b[: len(a)] for a in tops for b in tops):
        return None  # a field within another
    step = max(1, len(lines.numbers) // _SAMPLE)
    kinds: dict[str, set[type]] = {name: set() for name in paths}
    for i in range(0, len(lines.numbers), step):
        try:
            row = orjson.loads(lines.raw[lines.bounds[i] : lines.bounds[i + 1]].tobytes())
        except orjson.JSONDecodeError:
            continue
        for name, path in paths.items():
            value = value_at(row, path)
            if value is not None:
                whole = isinstance(value, int) and not -(2**63) <= value < 2**63
                kinds[name].add(float if whole else type(value))
    types = {}
    for name, seen in kinds.items():
        if seen <= {str}:
            types[name] = pa.string()
        elif seen == {int}:
            types[name] = pa.int64()
        elif seen <= {int, float}:
            types[name] = pa.float64()
        elif seen == {bool}:
            types[name] = pa.bool_()
        else:
            return None
    return types


def value_at(row: Any, path: Path) -> Any:
    """Return what a value holds at a path; None where there is nothing."""
    for key in path:
        if isinstance(key, int):
            row = row[key] if isinstance(row, list) and key < len(row) else None
        elif isinstance(row, dict):
            row = row.get(key)
        else:
            return None
    return row


def _read_fast(
    lines: _Lines,
    paths: Mapping[str, Path],
    times: frozenset[str],
    types: Mapping[str, pa.DataType],
    pieces: list[tuple[Offsets, dict[str, pa.Array]]],
    slow: list[int],
) -> None:
    """Read by Arrow what it can read; add the other lines to `slow`."""
    keys = {name: tuple(map(str, path)) for name, path in paths.items()}  # no places in lists
    schema = _schema({path: types[name] for name, path in keys.items()})
    refusals = 0
    ranges = [(0, len(lines.numbers))]
    while ranges:
        first, last = ranges.pop()
        if refusals and (last - first <= _LEAF or refusals > _MAX_REFUSALS):
            slow.extend(lines.numbers[first:last].tolist())
            continue
        arrays = _arrow_columns(lines, first, last, schema, keys, times)
        if arrays is None:
            refusals += 1
            middle = (first + last) // 2
            ranges += [(middle, last), (first, middle)]
        else:
            pieces.append((lines.numbers[first:last], arrays))


def _schema(types: Mapping[Keys, pa.DataType]) -> pa.Schema:
    """Nest fields by their paths."""

    def fields(level: Mapping[Keys, pa.DataType]) -> list[pa.Field]:
        groups: dict[str, dict[Keys, pa.DataType]] = {}
        for path, type_ in level.items():
            groups.setdefault(path[0], {})[path[1:]] = type_
        return [
            pa.field(key, below[()] if () in below else pa.struct(fields(below)))
            for key, below in groups.items()
        ]

    return pa.schema(fields(types))


def _arrow_columns(
    lines: _Lines,
    first: int,
    last: int,
    schema: pa.Schema,
    paths: Mapping[str, Keys],
    times: frozenset[str],
) -> dict[str, pa.Array] | None:
    """Read some lines by Arrow; None if it refuses one of them."""
    bounds = lines.bounds[first : last + 1]
    longest = int(np.diff(bounds).max())
    try:
        table = pj.read_json(
            pa.BufferReader(pa.py_buffer(lines.raw[bounds[0] : bounds[-1]])),
            read_options=pj.ReadOptions(
                use_threads=False, block_size=max(_READER_BYTES, 2 * longest)
            ),
            parse_options=pj.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior="ignore"
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != last - first:
        return None  # several objects on a line
    arrays: dict[str, pa.Array] = {}
    for name, path in paths.items():
        column = table.column(path[0])
        if len(path) > 1:
            within = [schema.field(path[0]).type.get_field_index(path[1])]
            type_ = schema.field(path[0]).type.field(within[0]).type
            for key in path[2:]:
                within.append(type_.get_field_index(key))
                type_ = type_.field(within[-1]).type
            column = pc.struct_field(column, within)
        array = conform(column, column.type)
        if pa.types.is_boolean(array.type):
            array = array.cast(pa.string())
        elif pa.types.is_floating(array.type):
            array = pc.if_else(pc.is_finite(array), array, pa.scalar(None, pa.float64()))
            if name not in times:
                texts = _number_texts(lines.raw, bounds, path[-1], array)
                if texts is None:
                    return None
                array = texts
        arrays[name] = array
    return arrays


def _number_texts(raw: Bytes, bounds: Offsets, key: str, values: pa.Array) -> pa.Array | None:
    """Find the text of numbers that were read as doubles; None if one is not found.

    A text is taken for the value's own only if it is the same number.
    """
    texts = pa.StringArray.from_buffers(
        len(values), pa.py_buffer(bounds.astype(np.int32)), pa.py_buffer(raw)
    )
    pattern = re.escape(json.dumps(key, ensure_ascii=False)).replace("\\ ", " ") + _NUMBER
    found = pc.struct_field(pc.extract_regex(texts, pattern), "number")
    found = pc.if_else(values.is_valid(), found, pa.scalar(None, pa.string()))
    try:
        same = pc.equal(found.cast(pa.float64()), values)
    except pa.ArrowInvalid:
        return None
    if same.null_count != values.null_count or not pc.all(same.fill_null(True)).as_py():
        return None
    return found


def _read_one_by_one(
    data: bytes,
    starts: Offsets,
    ends: Offsets,
    paths: Mapping[str, Path],
    encoding: str,
    max_bytes: int | None,
) -> LineColumns:
    blank = starts == ends
    lines = np.flatnonzero(~blank).tolist()
    found = _read_slow(data, starts, ends, lines, paths, encoding, max_bytes)
    found.blank += int(blank.sum())
    return found


def _read_slow(
    data: bytes,
    starts: Offsets,
    ends: Offsets,
    lines: list[int],
    paths: Mapping[str, Path],
    encoding: str,
    max_bytes: int | None,
) -> LineColumns:
    """Read lines by the strict reader, each on its own."""
    taken: list[int] = []
    columns: dict[str, list[str | None]] = {name: [] for name in paths}
    failures = []
    blank = 0
    for line in lines:
        text = data[starts[line] : ends[line]]
        if not text.strip():
            blank += 1
            continue
        if max_bytes is not None and len(text) > max_bytes:
            message = f"a line of {len(text)} bytes; at most {max_bytes} are read"
            failures.append((int(line), "TooLarge", message))
            continue
        try:
            values = _read_line(text, paths, encoding)
        except UnicodeDecodeError as error:
            failures.append((int(line), "InvalidEncoding", f"not {encoding}: {error}"))
            continue
        except (json.JSONDecodeError, orjson.JSONEncodeError, RecursionError) as error:
            failures.append((int(line), "InvalidJson", str(error)))
            continue
        if values is None:
            failures.append((int(line), "InvalidJson", "not an object"))
            continue
        taken.append(int(line))
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    arrays = {name: pa.array(column, pa.string()) for name, column in columns.items()}
    return LineColumns(np.array(taken, np.int64), arrays, failures, blank)


def read_value(line: bytes, encoding: str = "utf-8") -> tuple[Any, str]:
    """Return the JSON value of a line, and its text.

    Of two values of one key the last counts. NaN and Infinity, which are not JSON but common, are
    null.

    Raises:
        UnicodeDecodeError: it is not in the encoding.
        json.JSONDecodeError, orjson.JSONEncodeError, RecursionError: it is not JSON.
    """
    text = line.removeprefix(_BOM).decode(encoding)
    try:
        return orjson.loads(text), text
    except orjson.JSONDecodeError:
        if "NaN" not in text and "Infinity" not in text:
            raise
        value = _exact(text)
        _dump(value)  # finds lone surrogates, which the lenient parser lets pass
        return value, text


def _read_line(line: bytes, paths: Mapping[str, Path], encoding: str) -> list[str | None] | None:
    """Return the text of each field of an object; None if it is none."""
    row, text = read_value(line, encoding)
    if not isinstance(row, dict):
        return None
    values = [value_at(row, path) for path in paths.values()]
    if any(isinstance(value, (float, dict, list)) for value in values):
        row = _exact(text)
        values = [value_at(row, path) for path in paths.values()]
    return [_text(value) for value in values]


def _exact(text: str) -> Any:
    """Parse JSON with numbers as their text, NaN and Infinity as null."""
    return json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=lambda _: None)


def _text(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return _dump(value)


def _dump(value: Any) -> str:
    """Write JSON, numbers by their text."""
    return orjson.dumps(
        value,
        option=orjson.OPT_PASSTHROUGH_SUBCLASS,
        default=lambda number: orjson.Fragment(str(number)),
    ).decode()


def _joined(
    pieces: list[tuple[Offsets, dict[str, pa.Array]]],
) -> tuple[Offsets, dict[str, pa.Array]]:
    """Put pieces together in the order of their lines."""
    if len(pieces) == 1:
        return pieces[0]
    numbers = np.concatenate([piece[0] for piece in pieces])
    sorted_ = bool((np.diff(numbers) > 0).all())
    order = pa.array(np.argsort(numbers, kind="stable"))
    arrays = {}
    for name in pieces[0][1]:
        parts = [piece[1][name] for piece in pieces]
        if len({part.type for part in parts}) > 1:
            parts = [to_text(part) for part in parts]
        joined = pa.concat_arrays(parts)
        arrays[name] = joined if sorted_ else joined.take(order)
    return numbers if sorted_ else numbers[np.asarray(order)], arrays
