"""Parquet: one event a row.

Only the columns that are used are read, names as dictionaries. A dead row is written as JSON
with all its columns, so that a replay can read it, also with another `--columns`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.dead_letters import MAX_PAYLOAD
from schemas.events import EVENT_SCHEMA, NAME, empty_events
from transforms.formats.arrow_values import invalid_texts, is_bytes, plain_layout, plain_values
from transforms.formats.base import (
    BATCH_BYTES,
    Context,
    Decoded,
    Failure,
    InputFile,
    Message,
    Span,
    dead_row,
    decoded_rows,
)
from transforms.formats.columns import (
    ColumnMap,
    Refusal,
    build_events,
    map_columns,
    name_column,
    replay_attributes,
    skipped_by,
    to_attributes,
    to_text,
)
from transforms.formats.line_blocks import merge

SPAN_BYTES = 64 * 1024 * 1024
"""Stored bytes of the row groups that are read as one part, at most (but one row group)."""

SPAN_ROWS = 500_000
"""Rows of such a part, at most (but one row group)."""

MERGE_MESSAGES = 8_192
"""Small files are joined to batches of about so many messages."""

_MAGIC = b"PAR1"
_BATCH_ROWS = (8_192, 262_144)
_SAMPLE_ROWS = 200
_UNREADABLE = (pa.ArrowException, OSError)


class ParquetRows:
    """The `parquet` format (see `transforms.formats.base.Format`)."""

    name = "parquet"
    title = "Parquet"
    expansion = 6.0
    python_bound = False

    def detects(self, head: bytes, name: str) -> bool:
        """Say whether the file begins as Parquet does."""
        return head.startswith(_MAGIC)

    def spans(self, file: InputFile, context: Context) -> list[Span]:
        """Cut a file at row groups; a span's bounds are numbers of row groups."""
        try:
            with _opened(file, ()) as source:
                metadata = source.metadata
                sizes = [
                    (metadata.row_group(i).num_rows, _stored(metadata.row_group(i)))
                    for i in range(metadata.num_row_groups)
                ]
        except _UNREADABLE:
            return [Span()]  # reported when it is read
        spans: list[Span] = []
        first = rows = stored = 0
        for i, (group_rows, group_stored) in enumerate(sizes):
            if i > first and (rows + group_rows > SPAN_ROWS or stored + group_stored > SPAN_BYTES):
                spans.append(Span(first, i))
                first, rows, stored = i, 0, 0
            rows += group_rows
            stored += group_stored
        return [*spans, Span(first, None)]

    def rows(self, file: InputFile) -> int | None:
        """Return the number of rows that the file's metadata gives."""
        try:
            with _opened(file, ()) as source:
                count: int = source.metadata.num_rows
                return count
        except _UNREADABLE:
            return None

    def read(self, work: Sequence[tuple[InputFile, Span]], context: Context) -> Iterator[Decoded]:
        """Read row groups; `position` and `source_offset` are the row's number in the file."""
        return merge((d for f, s in work for d in _read_span(f, s, context)), MERGE_MESSAGES)

    def mapping_of(self, sample: InputFile | Sequence[bytes], context: Context) -> ColumnMap | None:
        """Return which columns feed events; messages have none."""
        if not isinstance(sample, InputFile):
            return None
        try:
            with _opened(sample, ()) as source:
                return _map(source, context)
        except _UNREADABLE:
            return None

    def decode(self, messages: Sequence[Message], context: Context) -> Decoded:
        """Refuse single messages: a Parquet file is many rows (its dead rows are JSON Lines)."""
        failures = [
            dead_row(
                message.payload,
                message.place,
                "InvalidParquet",
                "a Parquet file cannot be read as a message; read the file itself again",
                {**message.attributes, "format": self.name},
            )
            for message in messages
        ]
        return Decoded(empty_events(), failures, dead=len(failures))


FORMAT = ParquetRows()


def _stored(group: Any) -> int:
    return sum(group.column(i).total_compressed_size for i in range(group.num_columns))


@contextlib.contextmanager
def _opened(file: InputFile, names: Sequence[str]) -> Iterator[Any]:
    """Open a Parquet file; the columns of `names` come as dictionaries."""
    with file.opener() as stream:
        path = getattr(stream, "name", None)
        source: Any = stream
        if file.compressed:
            source = pa.BufferReader(stream.read())
        elif isinstance(path, str) and os.path.isfile(path):
            source = path  # read by Arrow itself, without the interpreter
        with pq.ParquetFile(source, read_dictionary=list(names), pre_buffer=False) as opened:
            yield opened


def _read_span(file: InputFile, span: Span, context: Context) -> Iterator[Decoded]:
    if span.start == 0 and file.size == 0:
        yield Decoded(empty_events(), warnings=(f"{file.path} is empty",))
        return
    row = 0
    try:
        with _opened(file, ()) as source:
            mapped = _map(source, context)
            schema = source.schema_arrow
        names = [
            name
            for column, name in mapped.columns.items()
            if EVENT_SCHEMA.field(column).type == NAME and _is_text(_type_at(schema, name))
        ]
        with _opened(file, names) as source:
            groups = range(source.metadata.num_row_groups)[span.start : span.end]
            row = sum(source.metadata.row_group(i).num_rows for i in range(span.start))
            if span.start == 0 and not source.metadata.num_rows:
                warning = f"{file.path} is empty"
                yield Decoded(empty_events(), warnings=(warning, *mapped.warnings(file.path)))
                return
            warnings = mapped.warnings(file.path)
            columns = list(mapped.inputs) or [schema.names[0]]
            size = _batch_rows(source.metadata, groups)
            for group in groups:
                yield from _read_group(
                    file, source, group, row, size, columns, mapped, context, warnings
                )
                row += source.metadata.row_group(group).num_rows
                warnings = ()
    except _UNREADABLE as error:
        yield _unreadable(file, row, error)


def _read_group(
    file: InputFile,
    source: Any,
    group: int,
    row: int,
    size: int,
    columns: list[str],
    mapped: ColumnMap,
    context: Context,
    warnings: Sequence[str],
) -> Iterator[Decoded]:
    """Read a row group; the rest of a damaged one is a dead message, and the next is read."""
    whole = _WholeRows(file, group, row, mapped)
    try:
        for batch in source.iter_batches(size, row_groups=[group], columns=columns):
            yield _decode_batch(batch, row, file.path, mapped, whole, context, warnings)
            row += batch.num_rows
            warnings = ()
    except _UNREADABLE as error:
        yield _unreadable(file, row, error)


def _unreadable(file: InputFile, row: int, error: Exception) -> Decoded:
    """Make what cannot be read one dead message."""
    try:
        with file.opener() as stream:
            head = stream.read(MAX_PAYLOAD)
    except OSError:
        head = b""
    failure = Failure(
        payload=head,
        source=f"{file.path}:{row}",
        error="InvalidParquet",
        message=" ".join(str(error).split())[:500],
        attributes={"format": FORMAT.name},
        size=file.size if file.size >= 0 else None,
    )
    return Decoded(empty_events(), [failure], dead=1)


def _batch_rows(metadata: Any, groups: range) -> int:
    raw = sum(metadata.row_group(i).total_byte_size for i in groups)
    rows = sum(metadata.row_group(i).num_rows for i in groups)
    fewest, most = _BATCH_ROWS
    return min(max(BATCH_BYTES * max(rows, 1) // max(raw, 1), fewest), most)


def _names(fields: Any, prefix: str = "") -> Iterator[tuple[str, pa.DataType]]:
    """Yield the names of columns, and of fields within structs as dotted paths."""
    for field in fields:
        yield prefix + field.name, field.type
        if pa.types.is_struct(field.type):
            yield from _names(field.type, f"{prefix}{field.name}.")


def _type_at(schema: pa.Schema, name: str) -> pa.DataType:
    return next(kind for path, kind in _names(schema) if path == name)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _map(source: Any, context: Context) -> ColumnMap:
    """Recognise columns by their names, and their first values."""
    schema = source.schema_arrow
    names = list(dict.fromkeys(name for name, _ in _names(schema)))
    plain = list(dict.fromkeys(f.name for f in schema if not pa.types.is_nested(f.type)))
    sample: dict[str, list[Any]] = {}
    if plain and source.metadata.num_rows:
        batch = next(source.iter_batches(_SAMPLE_ROWS, columns=plain), None)
        if batch is not None:
            sample = {
                name: plain_values(to_text(_recoded(_field_of(batch, name)))) for name in plain
            }
    return map_columns(names, context, sample)


def _recoded(array: pa.Array) -> pa.Array:
    """Return text with the bytes that are not UTF-8 replaced."""
    if not invalid_texts(array).any():
        return array
    return pa.array(plain_values(array), pa.string())


def _field_of(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Return a column, or a field within structs; of several of one name the first."""
    names = batch.schema.names
    if name in names:
        return plain_layout(batch.column(names.index(name)))
    first, *rest = name.split(".")
    column = batch.column(names.index(first))
    for key in rest:
        fields = [column.type.field(i).name for i in range(column.type.num_fields)]
        column = pc.struct_field(column, [fields.index(key)])
    return plain_layout(column)


def _decode_batch(
    batch: pa.RecordBatch,
    first: int,
    path: str,
    mapped: ColumnMap,
    whole: _WholeRows,
    context: Context,
    warnings: Sequence[str],
) -> Decoded:
    arrays = {name: _field_of(batch, name) for name in mapped.inputs}
    undecodable = _undecodable(arrays, mapped)
    decodable = np.ones(batch.num_rows, bool)
    decodable[list(undecodable)] = False
    passed = skipped_by(mapped, arrays, batch.num_rows, context) & decodable
    kept = np.flatnonzero(decodable & ~passed)
    rows = len(kept)
    if rows < batch.num_rows:
        arrays = {name: array.take(pa.array(kept)) for name, array in arrays.items()}
        # A dictionary still has the values that no row is left with.
        arrays = {
            name: array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
            for name, array in arrays.items()
        }
    numbers = pa.array(kept + first)
    fixed = {"position": numbers, "source": name_column(path, rows), "source_offset": numbers}
    events, refused = build_events(
        {column: arrays[name] for column, name in mapped.columns.items()},
        rows,
        context,
        fixed,
        to_attributes({item: arrays[name] for item, name in mapped.items.items()}, rows, context),
    )
    refusals = [replace(refusal, row=int(kept[refusal.row])) for refusal in refused]
    refusals += [
        Refusal(row, "InvalidEncoding", f"{name} is not UTF-8") for row, name in undecodable.items()
    ]
    refusals.sort(key=lambda refusal: refusal.row)
    failures: list[Failure] = []
    if refusals:
        # What is written here is UTF-8, whatever the run was told of other files.
        attributes = replay_attributes("json_lines", replace(context, encoding="utf-8"))
        payloads = whole.take([first + refusal.row for refusal in refusals])
        failures = [
            dead_row(payload, f"{path}:{first + r.row}", r.error, r.message, attributes)
            for r, payload in zip(refusals, payloads, strict=True)
        ]
    return decoded_rows(events, failures, batch.num_rows, int(passed.sum()), warnings)


def _undecodable(arrays: Mapping[str, pa.Array], mapped: ColumnMap) -> dict[int, str]:
    """Find rows with text that is not UTF-8, and where; items may be any bytes."""
    found: dict[int, str] = {}
    feeding = set(mapped.columns.values())
    for name, array in arrays.items():
        if name in feeding or not is_bytes(array.type):
            for row in np.flatnonzero(invalid_texts(array)).tolist():
                found.setdefault(row, name)
    return found


class _WholeRows:
    """Rows with all their columns, as JSON; read only where a row is refused."""

    def __init__(self, file: InputFile, group: int, first: int, mapped: ColumnMap) -> None:
        self._file = file
        # Of columns that are read a replay must see wrong bytes; in others they only hinder it.
        self._exact = {part for name in mapped.inputs for part in (name, name.split(".")[0])}
        self._group = group
        self._first = first  # of the batch held
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._batch: pa.RecordBatch | None = None

    def take(self, rows: Sequence[int]) -> list[bytes]:
        """Return rows by their (ascending) numbers in the file."""
        if self._batches is None:
            self._batches = self._read()
        taken: list[bytes] = []
        while len(taken) < len(rows):
            if self._batch is None:
                self._batch = next(self._batches)
            last = self._first + self._batch.num_rows
            here = [row - self._first for row in rows[len(taken) :] if row < last]
            if here:
                taken += _rows_json(self._batch, here, self._exact)
            if len(taken) < len(rows):
                self._first, self._batch = last, None
        return taken

    def _read(self) -> Iterator[pa.RecordBatch]:
        with _opened(self._file, ()) as source:
            yield from source.iter_batches(_BATCH_ROWS[0], row_groups=[self._group])


def _rows_json(batch: pa.RecordBatch, rows: list[int], exact: Collection[str]) -> list[bytes]:
    """Write rows as JSON; of columns of one name the first counts."""
    columns: dict[str, list[Any]] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name not in columns:
            errors = "surrogateescape" if name in exact else "replace"
            columns[name] = plain_values(plain_layout(column).take(pa.array(rows)), errors)
    values = zip(*columns.values(), strict=True)
    return [_json(dict(zip(columns, row, strict=True))) for row in values]


def _json(row: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(row)
    except orjson.JSONEncodeError:  # bytes that are not UTF-8, or an integer beyond 64 bits
        text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "surrogateescape")
