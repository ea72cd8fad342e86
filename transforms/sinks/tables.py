"""One file of one output table: Parquet, JSON Lines or CSV, from Arrow tables and in their order.

Rows must have the table's schema; only the encoding of a column (dictionary or plain, integer
width, unit of time) is changed to fit. A file may be written in steps. Nothing here knows
folders, shards or runs: see `transforms.sinks.commit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, BinaryIO, Literal, Protocol, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from schemas.tables import Output
from transforms.sinks.text import csv_columns, json_lines, one_chunk

FileFormat = Literal["parquet", "jsonl", "csv"]
FILE_FORMATS: tuple[FileFormat, ...] = get_args(FileFormat)

Opener = Callable[[str], AbstractContextManager[BinaryIO]]
"""Opens a path for writing; what leaves the block whole is the file."""

ROW_GROUP = 131_072
"""Rows of a Parquet row group: small enough for readers to share a file among threads."""

_TEXT_ROWS = 65_536
_STEP_BYTES = 64 * 1024 * 1024
# Hexadecimal digits of a hash: neither compression nor minimum and maximum gain anything.
_RANDOM = frozenset({"row_id", "event_id", "retracted_by"})


class TableError(ValueError):
    """Rows that do not fit the table they are written to."""


class TableWriter(Protocol):
    """Writes one file of one table in steps.

    Attributes:
        rows: how many have been written.
    """

    rows: int

    def write(self, table: pa.Table) -> None:
        """Append rows (the table's columns, in any order).

        Raises:
            TableError: the columns are not the table's, or a null is where none may be.
        """
        ...

    def close(self) -> None:
        """Write what is left and the file's end; the opened file itself stays open."""
        ...

    def abandon(self) -> None:
        """Write nothing more: the file will be thrown away."""
        ...


def write_table(
    table: pa.Table,
    output: Output,
    path: str,
    file_format: FileFormat,
    opener: Opener | None = None,
) -> int:
    """Write rows as one file.

    Args:
        table: rows with the columns of `output.schema`.
        output: the table they belong to.
        path: the file.
        file_format: `parquet`, `jsonl` or `csv`.
        opener: opens `path`; the local file system by default.

    Returns:
        The number of rows written.

    Raises:
        TableError: the rows do not fit the schema.
    """
    with open_table(output, path, file_format, opener) as writer:
        writer.write(table)
    return writer.rows


@contextmanager
def open_table(
    output: Output, path: str, file_format: FileFormat, opener: Opener | None = None
) -> Iterator[TableWriter]:
    """Open a file to write rows of a table in steps; it is closed at the end of the block.

    Args:
        output: the table.
        path: the file.
        file_format: `parquet`, `jsonl` or `csv`.
        opener: opens `path`; the local file system by default.
    """
    with (opener or _open_local)(path) as sink:
        writer = table_writer(output, sink, file_format)
        try:
            yield writer
            writer.close()
        except BaseException:
            writer.abandon()
            raise


def table_writer(output: Output, sink: BinaryIO, file_format: FileFormat) -> TableWriter:
    """Make the writer of a format on an open file.

    Raises:
        ValueError: no such format.
    """
    if file_format not in _WRITERS:
        reason = f"unknown file format {file_format!r}: use {', '.join(FILE_FORMATS)}"
        raise ValueError(reason)
    return _WRITERS[file_format](output, sink)


def conform(table: pa.Table, output: Output) -> pa.Table:
    """Give rows exactly the schema of their table: column order, types, nullability.

    Args:
        table: its columns may come in another order, and differ in encoding only: dictionary or
            plain, large or not, integer width, unit of time, all null without a type.
        output: the table.

    Raises:
        TableError: a column is missing, unknown, of another kind, or null where none may be.
    """
    schema = output.schema
    if table.schema.names != schema.names:
        missing = [name for name in schema.names if name not in table.schema.names]
        unknown = [name for name in table.schema.names if name not in schema.names]
        if missing or unknown or len(table.schema.names) != len(schema.names):
            reason = f"{output.name}: columns missing {missing}, unknown {unknown}"
            raise TableError(reason)
        table = table.select(schema.names)
    columns = [
        _fit(column, field, output.name)
        for field, column in zip(schema, table.columns, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _fit(column: pa.ChunkedArray, field: pa.Field, table: str) -> pa.ChunkedArray:
    if column.type != field.type:
        column = _cast(column, field, table)
    if not field.nullable and column.null_count:
        reason = f"{table}.{field.name}: {column.null_count} nulls, none may be"
        raise TableError(reason)
    return _trim(column) if pa.types.is_dictionary(field.type) else column


def _cast(column: pa.ChunkedArray, field: pa.Field, table: str) -> pa.ChunkedArray:
    if _kind(column.type) != _kind(field.type) and not pa.types.is_null(column.type):
        reason = f"{table}.{field.name}: {column.type} where {field.type} is due"
        raise TableError(reason)
    wanted = field.type
    try:
        if not pa.types.is_dictionary(wanted):
            return column.cast(wanted)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return column.cast(wanted.value_type).dictionary_encode()
    except pa.ArrowInvalid as e:
        reason = f"{table}.{field.name}: {column.type} does not fit {field.type}: {e}"
        raise TableError(reason) from None


def _kind(type_: pa.DataType) -> str:
    """Name what a type holds, whatever its encoding."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return "string"
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_):
        return "binary"
    if pa.types.is_integer(type_):
        return "integer"
    if pa.types.is_timestamp(type_):
        return f"timestamp {type_.tz}"
    return str(type_)


def _trim(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Leave out values of a dictionary that is longer than the column: they would be written."""
    if any(len(chunk.dictionary) > len(chunk) for chunk in column.chunks):
        return column.cast(column.type.value_type).dictionary_encode()
    return column


def _open_local(path: str) -> BinaryIO:
    return open(path, "wb")


class _ParquetWriter:
    """Parquet with Snappy; dictionary columns keep their dictionary, the others are plain.

    The Arrow schema is stored in the file, so that dictionaries come back as such.
    """

    def __init__(self, output: Output, sink: BinaryIO) -> None:
        self.rows = 0
        self._output = output
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        leaves = list(_leaves(output.schema))
        named = [f.name for f in output.schema if pa.types.is_dictionary(f.type)]
        self._writer = pa.parquet.ParquetWriter(
            pa.PythonFile(sink, mode="w"),
            output.schema,
            compression={leaf: "NONE" if leaf in _RANDOM else "SNAPPY" for leaf in leaves},
            use_dictionary=named,
            write_statistics=[leaf for leaf in leaves if leaf not in _RANDOM],
            store_schema=True,
        )

    def write(self, table: pa.Table) -> None:
        table = conform(table, self._output)
        self.rows += len(table)
        self._pending.append(table)
        self._pending_rows += len(table)
        if self._pending_rows >= ROW_GROUP or table.nbytes >= _STEP_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def abandon(self) -> None:
        # Otherwise it would write the file's end when it is collected, to a closed file.
        self._writer.is_open = False

    def _flush(self) -> None:
        if self._pending_rows:
            table = pa.concat_tables(self._pending)
            if len(self._pending) > 1:
                table = table.unify_dictionaries()
            self._writer.write_table(table, row_group_size=ROW_GROUP)
        self._pending = []
        self._pending_rows = 0


class _JsonWriter:
    """JSON Lines, UTF-8, one object a row with all columns, nulls too."""

    def __init__(self, output: Output, sink: BinaryIO) -> None:
        self.rows = 0
        self._output = output
        self._sink = sink

    def write(self, table: pa.Table) -> None:
        for part in _steps(conform(table, self._output)):
            text = json_lines(part)
            _, _, data = text.buffers()
            # The lines lie one after another in the column's own memory: no copy.
            self._sink.write(memoryview(data)[: pc.sum(pc.binary_length(text)).as_py()])
        self.rows += len(table)

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass


class _CsvWriter:
    """CSV, UTF-8, with a header; strings quoted (RFC 4180), so that null and empty differ."""

    def __init__(self, output: Output, sink: BinaryIO) -> None:
        self.rows = 0
        self._output = output
        schema = csv_columns(output.schema.empty_table()).schema
        self._writer = pa.csv.CSVWriter(pa.PythonFile(sink, mode="w"), schema)

    def write(self, table: pa.Table) -> None:
        for part in _steps(conform(table, self._output)):
            self._writer.write_table(csv_columns(part))
        self.rows += len(table)

    def close(self) -> None:
        self._writer.close()

    def abandon(self) -> None:
        pass


_WRITERS: dict[str, Callable[[Output, BinaryIO], TableWriter]] = {
    "parquet": _ParquetWriter,
    "jsonl": _JsonWriter,
    "csv": _CsvWriter,
}


def _leaves(schema: pa.Schema) -> Iterator[str]:
    """Name the leaf columns as Parquet does (`attributes.key_value.key`)."""
    for field in schema:
        yield from _leaf_paths(field.name, field.type)


def _leaf_paths(path: str, type_: Any) -> Iterator[str]:
    if pa.types.is_map(type_):
        yield from _leaf_paths(f"{path}.key_value.key", type_.key_type)
        yield from _leaf_paths(f"{path}.key_value.value", type_.item_type)
    elif pa.types.is_list(type_):
        yield from _leaf_paths(f"{path}.list.element", type_.value_type)
    else:
        yield path


def _steps(table: pa.Table) -> Iterator[pa.Table]:
    """Halve a table until its text is sure to fit an Arrow string column and some memory."""
    rows = len(table)
    if rows > _TEXT_ROWS or (rows > 1 and table.nbytes > _STEP_BYTES):
        yield from _steps(table.slice(0, rows // 2))
        yield from _steps(table.slice(rows // 2))
    elif rows:
        yield pa.table([one_chunk(column) for column in table.columns], schema=table.schema)
