"""Parquet: row groups, types, and dead rows that can be replayed."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.formats.files import memory_file, read_all, rows
from transforms.formats import json_lines, parquet_rows
from transforms.formats.base import Context, InputFile, Message, Span
from transforms.formats.parquet_rows import FORMAT

UTC = datetime.timezone.utc
DAY = datetime.datetime(2024, 8, 27, tzinfo=UTC)


def packed(columns: dict[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue()


def log(n: int, **columns: Any) -> dict[str, Any]:
    return {
        "case_id": [f"c{i // 3}" for i in range(n)],
        "activity": [f"a{i % 5}" for i in range(n)],
        "event_time": pa.array([DAY] * n, pa.timestamp("us", "UTC")),
        **columns,
    }


def test_a_row_is_an_event_with_its_number() -> None:
    found = read_all(
        FORMAT, packed(log(4, resource=["kim", None, "kim", "x"], unused=[1, 2, 3, 4]))
    )
    assert rows(found.events, "case_id", "activity", "actor", "position", "source_offset") == [
        ("c0", "a0", "kim", 0, 0),
        ("c0", "a1", None, 1, 1),
        ("c0", "a2", "kim", 2, 2),
        ("c1", "a3", "x", 3, 3),
    ]
    assert found.events.column("event_time").to_pylist() == [DAY] * 4


def test_spans_of_row_groups_are_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    path.write_bytes(packed(log(1000, amount=[i / 2 for i in range(1000)]), row_group_size=100))
    file = InputFile(str(path), path.stat().st_size, lambda: path.open("rb"))
    context = Context(items=("amount",))
    whole = read_all(FORMAT, file, context, [Span()])
    with mock.patch.object(parquet_rows, "SPAN_ROWS", 250):
        spans = FORMAT.spans(file, context)
    assert spans == [Span(0, 2), Span(2, 4), Span(4, 6), Span(6, 8), Span(8, None)]
    with mock.patch.object(parquet_rows, "_BATCH_ROWS", (70, 70)):
        cut = read_all(FORMAT, file, context, spans)
    assert cut.events.equals(whole.events)
    assert cut.events.column("position").to_pylist() == list(range(1000))
    assert cut.events.column("attributes")[999].as_py() == [("amount", "499.5")]


@pytest.mark.parametrize(
    ("case_ids", "texts"),
    [
        (pa.array([1, 2**62]), ["1", str(2**62)]),
        (pa.array([1.0, 2.5]), ["1", "2.5"]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        (pa.array(["x", "y"], pa.large_string()), ["x", "y"]),
        (pa.array([b"x", b"y"]), ["x", "y"]),
    ],
)
def test_types_of_ids(case_ids: pa.Array, texts: list[str]) -> None:
    found = read_all(FORMAT, packed(log(2, case_id=case_ids)))
    assert found.events.column("case_id").to_pylist() == texts


@pytest.mark.parametrize(
    "times",
    [
        pa.array([DAY.replace(tzinfo=None)] * 2, pa.timestamp("ns")),
        pa.array([DAY.date()] * 2),
        pa.array(["2024-08-27", "2024-08-27T00:00"]),
        pa.array([int(DAY.timestamp())] * 2),
        pa.array([DAY.timestamp() * 1000] * 2),
    ],
)
def test_types_of_times(times: pa.Array) -> None:
    found = read_all(FORMAT, packed(log(2, event_time=times)))
    assert found.events.column("event_time").to_pylist() == [DAY] * 2


def test_items_of_nested_types_and_fields_of_structs() -> None:
    data = packed(
        log(
            2,
            tags=[["a", "b"], None],
            payload=[{"who": "kim", "n": 1}, {"who": None, "n": 2}],
            event=pa.array([7, None], pa.int64()),
        )
    )
    context = Context(columns={"actor": "payload.who"}, items=("tags", "payload.n"))
    found = read_all(FORMAT, data, context)
    assert rows(found.events, "actor", "attributes", "event") == [
        ("kim", [("tags", '["a","b"]'), ("payload.n", "1")], 7),
        (None, [("payload.n", "2")], None),
    ]


def test_dead_rows_are_json_with_all_columns_and_replay() -> None:
    n = 50
    case_ids = [None if i in (3, 40) else f"c{i}" for i in range(n)]
    data = packed(
        log(
            n,
            case_id=case_ids,
            other=[f"o{i}" for i in range(n)],
            at=pa.array([1] * n, pa.timestamp("ns")),
            raw=[b"\xff"] * n,
        ),
        row_group_size=20,
    )
    with mock.patch.object(parquet_rows, "_BATCH_ROWS", (7, 7)):
        found = read_all(FORMAT, data)
    assert found.decoded == 48
    assert [(f.source, f.error) for f in found.failures] == [
        ("memory/log:3", "MissingCaseId"),
        ("memory/log:40", "MissingCaseId"),
    ]
    row = json.loads(found.failures[1].payload)
    assert (row["other"], row["activity"], row["case_id"]) == ("o40", "a0", None)
    message = Message(found.failures[1].payload, "memory/log", 40, found.failures[1].attributes)
    replayed = json_lines.FORMAT.decode([message], Context(columns={"case_id": "other"}))
    assert rows(replayed.events, "case_id", "activity", "event_time", "position") == [
        ("o40", "a0", DAY, 40)
    ]


def test_files_that_are_none() -> None:
    good = packed(log(1000), row_group_size=100)
    for data in (b"PAR1 nonsense", good[:-9], b"PAR1"):
        found = read_all(FORMAT, data)
        assert [(f.error, f.payload) for f in found.failures] == [
            ("InvalidParquet", data[: 64 * 1024])
        ]
        assert found.decoded == 0
    damaged = bytearray(good)
    middle = good.index(b"c200")  # within some row group's page
    damaged[middle - 8 : middle + 8] = b"\xff" * 16
    found = read_all(FORMAT, bytes(damaged))
    assert found.dead == 1
    assert found.decoded == 900  # the other row groups
    (failure,) = found.failures
    assert failure.source == "memory/log:600"


def test_empty_files() -> None:
    for data in (b"", packed(log(0))):
        found = read_all(FORMAT, data)
        assert (found.decoded, found.dead, list(found.warnings)) == (0, 0, ["memory/log is empty"])


def test_a_compressed_stream_is_read_whole() -> None:
    found = read_all(FORMAT, memory_file(packed(log(5)), compressed=True))
    assert found.decoded == 5


def test_a_file_is_no_message() -> None:
    found = FORMAT.decode([Message(packed(log(5)), "t/0", 3)], Context())
    assert [(f.error, f.source) for f in found.failures] == [("InvalidParquet", "t/0:3")]


FAR = [2**60, 1_704_067_200_000_000]
BYTES = pa.array([b"\xff\xfe", b"ok"])
BAD_TEXT = pa.Array.from_buffers(pa.string(), 2, BYTES.buffers())
BAD = ["bad", "2024-08-27"]


@pytest.mark.parametrize(
    ("times", "error", "shown"),
    [
        (pa.array(FAR, pa.timestamp("us", "UTC")), "BadTime", "-27032-08-17"),
        (pa.array(FAR, pa.timestamp("us")), "BadTime", str(2**60)),
        (pa.array([2**30, 19_000], pa.date32()), "BadTime", str(2**30)),
        (pa.array([2**60 // 86_400_000 * 86_400_000, 0], pa.date64()), "BadTime", "out of range"),
    ],
)
def test_a_time_that_python_does_not_know_is_dead(times: pa.Array, error: str, shown: str) -> None:
    found = read_all(FORMAT, packed(log(2, event_time=times)))
    assert (found.decoded, [f.error for f in found.failures]) == (1, [error])
    (failure,) = found.failures
    assert shown in failure.message
    # It is no number, which would be read as an epoch now.
    message = Message(failure.payload, "log", 0)
    assert [f.error for f in json_lines.FORMAT.decode([message], Context()).failures] == [error]


@pytest.mark.parametrize(
    ("other", "written"),
    [
        (pa.array([1, 2], pa.time64("ns")), "00:00:00.000000001"),
        (pa.array([1, 2], pa.duration("ns")), "1 ns"),
        (pa.array([2**62, 2], pa.duration("s")), f"{2**62} s"),
        (pa.array([2**60, 2], pa.timestamp("us")), f"<value out of range: {2**60}>"),
        (pa.array([2**30, 2], pa.date32()), f"<value out of range: {2**30}>"),
        (pa.array([1, 2], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
        (
            pa.array([{"q": 1}, None], pa.struct([("q", pa.timestamp("ns"))])),
            {"q": "1970-01-01 00:00:00.000000001"},
        ),
        (pa.array([[1], None], pa.list_(pa.time64("ns"))), ["00:00:00.000000001"]),
        (
            pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.timestamp("ns"))),
            [["k", "1970-01-01 00:00:00.000000001"]],
        ),
        (pa.array([float("nan"), 1.0]), None),
        (pa.array([True, None]), True),
        (pa.array([2**64 - 1, 1], pa.uint64()), 2**64 - 1),
        (BAD_TEXT, "\ufffd\ufffd"),
        (BYTES, "\ufffd\ufffd"),
        (pa.array([b"\xff", b"a"], pa.binary(1)), "\ufffd"),
        (pa.StructArray.from_arrays([BAD_TEXT], ["q"]), {"q": "\ufffd\ufffd"}),
    ],
)
def test_a_dead_row_comes_out_whatever_its_other_columns_are(other: pa.Array, written: Any) -> None:
    found = read_all(FORMAT, packed(log(2, event_time=BAD, z=other)))
    assert (found.decoded, [f.error for f in found.failures]) == (1, ["BadTime"])
    assert json.loads(found.failures[0].payload)["z"] == written


@pytest.mark.parametrize("times", [BAD, ["2024-08-27"] * 2])
def test_of_columns_of_one_name_the_first_counts(times: list[str]) -> None:
    out = io.BytesIO()
    columns = [["a", "b"], ["c", "d"], ["x", "y"], times, [1, 2], [3, 4]]
    names = ["case_id", "case_id", "activity", "event_time", "z", "z"]
    pq.write_table(pa.Table.from_arrays([pa.array(c) for c in columns], names), out)
    found = read_all(FORMAT, out.getvalue(), Context(items=("z",)))
    cases = found.events.column("case_id").to_pylist()
    dead = [json.loads(f.payload) for f in found.failures]
    assert cases + [row["case_id"] for row in dead] in (["a", "b"], ["b", "a"])
    assert [row["z"] for row in dead] == [1] * len(dead)
    assert found.events.column("attributes").to_pylist()[-1] == [("z", "2")]


@pytest.mark.parametrize("column", ["case_id", "activity", "event_time", "actor", "z"])
@pytest.mark.parametrize("kind", ["text", "large", "view", "dictionary"])
def test_rows_that_are_not_utf8_are_dead(column: str, kind: str) -> None:
    values = pa.array([b"\xff\xfe", b"2024-08-27", b"2024-08-28"])
    text = pa.Array.from_buffers(pa.string(), 3, values.buffers())
    made = {
        "text": text,
        "view": text.cast(pa.string_view()),
        "large": text.cast(pa.large_string()),
        "dictionary": text.dictionary_encode(),
    }[kind]
    found = read_all(FORMAT, packed(log(3, **{column: made})), Context(items=("z",)))
    assert [(f.error, f.message) for f in found.failures] == [
        ("InvalidEncoding", f"{column} is not UTF-8")
    ]
    assert rows(found.events, "position") == [(1,), (2,)]
    (failure,) = found.failures
    assert b"\xff\xfe" in failure.payload
    # The replay does not make an event of replaced characters; the right encoding mends it.
    message = Message(failure.payload, "log", 0)
    again = json_lines.FORMAT.decode([message], Context(items=("z",)))
    assert [f.error for f in again.failures] == ["InvalidEncoding"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_case_id_that_is_no_number_is_missing(value: float) -> None:
    found = read_all(FORMAT, packed(log(2, case_id=[value, 1.0])))
    assert found.events.column("case_id").to_pylist() == ["1"]
    assert [f.error for f in found.failures] == ["MissingCaseId"]


def test_a_dead_row_is_utf8_whatever_the_encoding_of_the_run() -> None:
    context = Context(encoding="latin-1", timezone="Europe/Berlin", time_format="%d.%m.%Y")
    found = read_all(FORMAT, packed(log(1, event_time=["x"])), context)
    assert found.failures[0].attributes == {
        "format": "json_lines",
        "timezone": "Europe/Berlin",
        "time_format": "%d.%m.%Y",
    }
