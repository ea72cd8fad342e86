"""The files of output tables, read back: Parquet, JSON Lines and CSV, of backfills and streams.

`read_file` gives text as it is, for a look; `read_rows` gives it in the table's types, for
numbers. What a repeat has written twice, and what a newer row of its key has replaced, goes with
`transforms.sinks.lakes.columns.newest_rows`.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from apache_beam.io.filesystems import FileSystems

from pipelines.exit_codes import ExitCode, RunError
from pipelines.output import one_line
from schemas.tables import Output
from transforms.sinks.lakes import columns as databases

EXTENSIONS = ("parquet", "jsonl", "csv")

BLOCK = 16 * 2**20
"""Bytes of text read at once; a row must fit in."""


def files_of(output: str, table: str, extensions: tuple[str, ...] = EXTENSIONS) -> list[str]:
    """Return the paths of a table's files, sorted."""
    patterns = [f"{output}/{table}/*.{extension}" for extension in extensions]
    matched = FileSystems.match(patterns)
    return sorted(found.path for result in matched for found in result.metadata_list)


def read_file(path: str, columns: list[str] | None = None) -> pa.Table:
    """Read a file of a table; text is read as it is, without types."""
    with FileSystems.open(path) as file:
        source = pa.PythonFile(file, mode="r")
        if path.endswith(".parquet"):
            return pa.parquet.read_table(source, columns=columns)
        if path.endswith(".csv"):
            options = pa.csv.ReadOptions(block_size=BLOCK)
            table = pa.csv.read_csv(source, options)
        else:
            table = pa.json.read_json(source, pa.json.ReadOptions(block_size=BLOCK))
    return table.select(columns) if columns else table


def unreadable(path: str, table: str, error: Exception) -> RunError:
    """Say that a file is not what its name says."""
    text = f"{path} can't be read as a file of the table {table}: {one_line(error)}"
    return RunError(ExitCode.FAILED, text)


def read_rows(path: str, output: Output, columns: Sequence[str]) -> pa.Table:
    """Read some columns of a file of a table, in the types of `plain_schema`.

    A column that the file does not have, as one that an older version wrote, is null.

    Raises:
        pa.ArrowInvalid: it is no file of that table.
    """
    schema = plain_schema(output, columns)
    with FileSystems.open(path) as file:
        source = pa.PythonFile(file, mode="r")
        if path.endswith(".parquet"):
            parquet = pa.parquet.ParquetFile(source)
            there = set(parquet.schema_arrow.names)
            needed = [f.name for f in output.schema if not f.nullable and f.name in columns]
            lacking = [name for name in needed if name not in there]
            if lacking:
                reason = f"it has no column {lacking[0]}"
                raise pa.ArrowInvalid(reason)
            return _fit(parquet.read([name for name in columns if name in there]), schema)
        if path.endswith(".csv"):
            # Lists are JSON texts in CSV.
            types = {f.name: pa.string() if pa.types.is_list(f.type) else f.type for f in schema}
            table = pa.csv.read_csv(
                source,
                pa.csv.ReadOptions(block_size=BLOCK),
                pa.csv.ParseOptions(newlines_in_values=True),
                pa.csv.ConvertOptions(
                    column_types=types,
                    include_columns=schema.names,
                    include_missing_columns=True,
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
            return _fit(table, schema)
        return parse_lines(source, output, columns)


def parse_lines(source: pa.NativeFile, output: Output, columns: Sequence[str]) -> pa.Table:
    """Read some columns of rows in JSON Lines, as `read_rows` does.

    Raises:
        pa.ArrowInvalid: they are no rows of that table.
    """
    schema = plain_schema(output, columns)
    options = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        rows = pa.json.read_json(source, pa.json.ReadOptions(block_size=BLOCK), options)
    except pa.ArrowInvalid as error:
        # A table without rows is a file without bytes; the message is all that tells it.
        if "Empty JSON" not in str(error):
            raise
        return schema.empty_table()
    return _fit(rows, schema)


def plain_schema(output: Output, columns: Sequence[str]) -> pa.Schema:
    """Return some of a table's columns, all nullable and none a dictionary."""
    plain = databases.plain_schema(output)
    return pa.schema([plain.field(name).remove_metadata() for name in columns])


def _fit(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        if field.name not in rows.schema.names:
            columns.append(pa.nulls(rows.num_rows, field.type))
            continue
        column = rows[field.name]
        if pa.types.is_list(field.type) and pa.types.is_string(column.type):
            read = [None if text is None else orjson.loads(text) for text in column.to_pylist()]
            column = pa.array(read, field.type)
        elif column.type != field.type:
            column = column.cast(field.type)
        columns.append(column)
    return pa.table(columns, schema=schema)
