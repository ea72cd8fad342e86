"""Files of tables read back as what was written, by Arrow and by other tools."""

from __future__ import annotations

import datetime as dt
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import NAME
from schemas.tables import CASES, DEAD_LETTERS, TABLES, TRANSITIONS, Output
from tests.sinks.rows import column, plain_rows, tables
from transforms.sinks import tables as sink
from transforms.sinks.tables import FILE_FORMATS, FileFormat, TableError

LONG_AGO = dt.datetime(2024, 8, 27, 10, 4, 20, 469000, tzinfo=dt.timezone.utc)


def example(output: Output, rows: int = 3, start: int = 0) -> pa.Table:
    """Make rows whose nullable columns are null in every third."""
    columns = []
    for field in output.schema:
        values = [_value(field.type, i) for i in range(start, start + rows)]
        if field.nullable:
            values = [None if i % 3 == 1 else value for i, value in enumerate(values, start)]
        columns.append(column(values, field.type))
    return pa.Table.from_arrays(columns, schema=output.schema)


def _value(type_: pa.DataType, i: int) -> Any:
    if pa.types.is_dictionary(type_) or pa.types.is_string(type_):
        return f'value "{i % 5}", a line\nand ünïcode'
    if pa.types.is_binary(type_):
        return bytes([0, 255, i % 256])
    if pa.types.is_timestamp(type_):
        return LONG_AGO + dt.timedelta(microseconds=i)
    if pa.types.is_boolean(type_):
        return i % 2 == 0
    if pa.types.is_integer(type_):
        return i
    if pa.types.is_floating(type_):
        return i / 7
    return [("amount", f"{i}.50"), ("note", None)]


class Sink(io.BytesIO):
    """Keeps what was written after it is closed."""

    written = b""

    def close(self) -> None:
        self.written = self.getvalue()
        super().close()


def written(table: pa.Table, output: Output, file_format: FileFormat) -> bytes:
    opened = Sink()
    rows = sink.write_table(table, output, "x", file_format, lambda path: opened)
    assert rows == len(table)
    return opened.written


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Rows to compare; NaN, which Parquet keeps, is told apart from null."""
    rows = table.to_pylist()
    return [
        {k: "NaN" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in rows
    ]


@pytest.mark.parametrize("name", sorted(TABLES))
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_parquet_gives_back_rows_schema_and_dictionaries(name: str, data: st.DataObject) -> None:
    table = data.draw(tables(TABLES[name]))
    back = pq.read_table(pa.BufferReader(written(table, TABLES[name], "parquet")))
    assert back.schema.equals(TABLES[name].schema)
    assert rows_of(back) == rows_of(table)


@pytest.mark.parametrize("name", sorted(TABLES))
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_json_lines_give_back_rows(name: str, data: st.DataObject) -> None:
    table = data.draw(tables(TABLES[name]))
    lines = written(table, TABLES[name], "jsonl").split(b"\n")
    assert lines.pop() == b""
    assert [orjson.loads(line) for line in lines] == plain_rows(table)


@pytest.mark.parametrize("name", sorted(TABLES))
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_csv_gives_back_rows(name: str, data: st.DataObject) -> None:
    output = TABLES[name]
    table = data.draw(tables(output))
    back = read_csv(written(table, output, "csv"), output)
    expected = plain_rows(table)
    for field in output.schema:
        if pa.types.is_floating(field.type) or pa.types.is_nested(field.type):
            texts = back[field.name].to_pylist()
            values = [None if text is None else orjson.loads(text) for text in texts]
        else:
            values = back[field.name].to_pylist()
        assert values == [row[field.name] for row in expected], field.name


def read_csv(data: bytes, output: Output) -> pa.Table:
    """Read CSV with the types that text has; numbers stay text, to be judged by the caller."""
    types = {f.name: pa.string() for f in output.schema}
    for field in output.schema:
        if pa.types.is_integer(field.type) or pa.types.is_boolean(field.type):
            types[field.name] = field.type
    options = pa.csv.ConvertOptions(
        column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    return pa.csv.read_csv(pa.BufferReader(data), parse_options=parse, convert_options=options)


@pytest.mark.parametrize("file_format", FILE_FORMATS)
def test_steps_make_one_file(tmp_path: Path, file_format: FileFormat) -> None:
    whole = example(TRANSITIONS, 10)
    path = tmp_path / f"x.{file_format}"
    with sink.open_table(TRANSITIONS, str(path), file_format) as writer:
        for start, rows in ((0, 4), (4, 0), (4, 1), (5, 5)):
            # Each step has dictionaries of its own.
            writer.write(example(TRANSITIONS, rows, start))
    assert writer.rows == 10
    in_one = written(whole, TRANSITIONS, file_format)
    if file_format == "parquet":
        stepped, once = pq.read_table(path), pq.read_table(pa.BufferReader(in_one))
        assert stepped.to_pylist() == once.to_pylist() == whole.to_pylist()
        assert pq.ParquetFile(path).num_row_groups == 1
    else:
        assert path.read_bytes() == in_one


@pytest.mark.parametrize("file_format", FILE_FORMATS)
def test_many_rows_and_long_values(
    file_format: FileFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts are made in pieces, row groups cut: nothing is lost or swapped at the seams."""
    monkeypatch.setattr(sink, "_TEXT_ROWS", 100)
    monkeypatch.setattr(sink, "_STEP_BYTES", 20_000)
    monkeypatch.setattr(sink, "ROW_GROUP", 128)
    table = example(DEAD_LETTERS, 1000)
    data = written(table, DEAD_LETTERS, file_format)
    if file_format == "parquet":
        assert pq.ParquetFile(pa.BufferReader(data)).num_row_groups == 8
        assert pq.read_table(pa.BufferReader(data)).to_pylist() == table.to_pylist()
    elif file_format == "jsonl":
        assert [orjson.loads(line) for line in data.splitlines()] == plain_rows(table)
    else:
        back = read_csv(data, DEAD_LETTERS)
        assert back["row_id"].to_pylist() == table["row_id"].to_pylist()
        assert len(back) == 1000


def test_a_table_without_rows() -> None:
    empty = TRANSITIONS.schema.empty_table()
    parquet = pq.read_table(pa.BufferReader(written(empty, TRANSITIONS, "parquet")))
    assert parquet.schema.equals(TRANSITIONS.schema) and len(parquet) == 0
    assert written(empty, TRANSITIONS, "jsonl") == b""
    header = ",".join(f'"{name}"' for name in TRANSITIONS.schema.names)
    assert written(empty, TRANSITIONS, "csv").decode() == header + "\n"


def test_csv_tells_null_from_empty_and_quotes_by_rfc_4180() -> None:
    schema = pa.schema([("a", pa.string()), ("b", NAME), ("c", pa.float64()), ("d", pa.bool_())])
    output = Output("x", schema, "append", ("a",), "")
    table = pa.Table.from_arrays(
        [
            pa.array(['say "hi"', "", None, "a,b\r\nc"]),
            column([None, "é", "", '"'], NAME),
            pa.array([1.0, float("nan"), None, 1e-7]),
            pa.array([True, None, False, True]),
        ],
        schema=schema,
    )
    assert written(table, output, "csv").decode() == (
        '"a","b","c","d"\n"say ""hi""",,1,true\n"","é",,\n,"",,false\n"a,b\r\nc","""",1e-7,true\n'
    )


def test_parquet_is_compressed_and_encoded_as_meant() -> None:
    data = written(example(TRANSITIONS, 500), TRANSITIONS, "parquet")
    group = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0)
    by_name = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    for name, chunk in by_name.items():
        random = name in ("row_id", "event_id")
        assert chunk.compression == ("UNCOMPRESSED" if random else "SNAPPY"), name
        assert chunk.is_stats_set != random, name
        top = TRANSITIONS.schema.field(name.split(".")[0])
        assert chunk.has_dictionary_page == pa.types.is_dictionary(top.type), name
    stats = by_name["event_time"].statistics
    assert (stats.min, stats.max) == (LONG_AGO, LONG_AGO + dt.timedelta(microseconds=499))


def test_a_dictionary_is_not_written_whole_for_a_few_rows() -> None:
    table = example(TRANSITIONS, 1)
    actors = pa.array([f"someone-{i}" for i in range(50_000)])
    actor = pa.DictionaryArray.from_arrays(pa.array([49_999], pa.int32()), actors)
    table = table.set_column(table.schema.get_field_index("actor"), "actor", actor)
    data = written(table, TRANSITIONS, "parquet")
    assert len(data) < 30_000
    back = pq.read_table(pa.BufferReader(data))
    assert back["actor"].to_pylist() == ["someone-49999"]


@pytest.mark.parametrize("tool", ["duckdb", "polars"])
def test_other_tools_read_the_files(tool: str, tmp_path: Path) -> None:
    module = pytest.importorskip(tool)
    table = example(CASES, 50)
    table = table.set_column(table.schema.get_field_index("transitions"), "transitions", [[7] * 50])
    paths = {f: str(tmp_path / f"cases.{f}") for f in FILE_FORMATS}
    for file_format, path in paths.items():
        sink.write_table(table, CASES, path, file_format)
    expected = (50, 350, {LONG_AGO})
    for file_format, path in paths.items():
        if tool == "duckdb":
            reader = {"parquet": "read_parquet", "jsonl": "read_json", "csv": "read_csv"}
            with module.connect() as connection:
                connection.execute("set timezone = 'UTC'")
                query = "select count(*), sum(transitions), epoch_us(min(first_event_time))"
                found = connection.execute(
                    f"{query} from {reader[file_format]}('{path}')"
                ).fetchone()
            seen = (found[0], int(found[1]), {_from_us(found[2])})
        else:
            read = {
                "parquet": module.read_parquet,
                "jsonl": module.read_ndjson,
                "csv": module.read_csv,
            }
            frame = read[file_format](path)
            first = frame["first_event_time"].to_list()[0]
            seen = (len(frame), frame["transitions"].sum(), {_time(first)})
        assert seen == expected, file_format


def _from_us(value: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(0, dt.timezone.utc) + dt.timedelta(microseconds=value)


def _time(value: Any) -> dt.datetime:
    """Readers of text may leave a time as text."""
    if isinstance(value, str):
        return dt.datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%f%z")
    time: dt.datetime = value
    return time


def test_encodings_are_fitted_and_columns_ordered() -> None:
    table = example(CASES, 4)
    loose = {
        "updated_at": table["updated_at"].cast(pa.timestamp("ms", tz="UTC"), safe=False),
        "state": table["state"].cast(pa.large_string()),
        "case_id": table["case_id"].combine_chunks().dictionary_encode(),
        "rework": table["rework"].cast(pa.int16()),
        "cycle_time_s": pa.nulls(4),
        "workflow_group": pa.nulls(4),
    }
    names = list(reversed(table.schema.names))
    given = pa.table([loose.get(name, table[name]) for name in names], names=names)
    fitted = sink.conform(given, CASES)
    assert fitted.schema.equals(CASES.schema)
    fitted.validate(full=True)
    for name in ("state", "case_id", "rework", "row_id"):
        assert fitted[name].to_pylist() == table[name].to_pylist()
    assert fitted["cycle_time_s"].null_count == fitted["workflow_group"].null_count == 4


def replaced(name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    table = example(CASES, 2)
    return table.set_column(table.schema.get_field_index(name), name, values)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (example(CASES, 2).drop(["state"]), r"cases: columns missing \['state'\], unknown \[\]"),
        (
            example(CASES, 2).append_column("extra", [[1, 2]]),
            r"cases: columns missing \[\], unknown \['extra'\]",
        ),
        (
            example(CASES, 2).append_column("state", [["a", "b"]]),
            r"cases: columns missing \[\], unknown \[\]",
        ),
        (replaced("case_id", pa.array(["a", None])), r"cases\.case_id: 1 nulls, none may be"),
        (replaced("case_id", pa.nulls(2)), r"cases\.case_id: 2 nulls, none may be"),
        (replaced("rework", pa.array(["1", "2"])), r"cases\.rework: string where int64 is due"),
        (
            replaced("rework", pa.array([2**64 - 1, 0], pa.uint64())),
            r"cases\.rework: uint64 does not fit int64",
        ),
        (replaced("cycle_time_s", pa.array([1, 2])), r"cases\.cycle_time_s: int64 where double"),
        (
            replaced("updated_at", pa.array([1, 2], pa.timestamp("us"))),
            r"cases\.updated_at: timestamp\[us\] where timestamp\[us, tz=UTC\] is due",
        ),
        (
            replaced("updated_at", pa.array([1, 2], pa.timestamp("ns", tz="UTC"))),
            r"cases\.updated_at: timestamp\[ns, tz=UTC\] does not fit",
        ),
    ],
)
@pytest.mark.parametrize("file_format", FILE_FORMATS)
def test_rows_of_another_schema_are_refused(
    table: pa.Table, message: str, file_format: FileFormat
) -> None:
    with pytest.raises(TableError, match=message):
        written(table, CASES, file_format)


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(ValueError, match="unknown file format 'avro': use parquet, jsonl, csv"):
        sink.table_writer(CASES, io.BytesIO(), "avro")  # type: ignore[arg-type]


@pytest.mark.parametrize("file_format", FILE_FORMATS)
def test_an_error_in_the_block_reaches_the_opener(file_format: FileFormat) -> None:
    """So that a store can throw the file away; and nothing is written behind its back later."""
    seen: list[str] = []

    @contextmanager
    def opener(path: str) -> Iterator[BinaryIO]:
        try:
            yield io.BytesIO()
        except KeyError:
            seen.append(path)
            raise

    with pytest.raises(KeyError), sink.open_table(CASES, "x", file_format, opener) as writer:
        writer.write(example(CASES, 2))
        raise KeyError
    assert seen == ["x"]
