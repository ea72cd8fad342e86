"""Replay: a dead letter is decoded as the message that it was."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.tables import DEAD_LETTERS
from tests.formats.files import memory_file, read_all, rows
from transforms.formats import csv_rows, json_lines, registry
from transforms.formats.base import Context, Failure
from transforms.formats.dead_letters import FORMAT

EVENT = b'{"case_id":"c1","activity":"a","event_time":"2024-08-27T00:00:00Z"}'
WRITERS = ["parquet", "jsonl", "csv"]


def table_rows(failures: Sequence[Failure], time: Any = None) -> list[dict[str, Any]]:
    return [
        {
            "row_id": str(i),
            "payload": f.payload,
            "payload_size": f.size,
            "attributes": dict(f.attributes),
            "source": f.source,
            "step": "Decode",
            "error": f.error,
            "message": f.message,
            "time": time,
        }
        for i, f in enumerate(failures)
    ]


def written(letters: list[dict[str, Any]], kind: str) -> bytes:
    """Write a dead-letter table as the sinks do."""
    if kind == "parquet":
        out = io.BytesIO()
        columns = {
            name: [list(r[name].items()) if name == "attributes" else r[name] for r in letters]
            for name in DEAD_LETTERS.schema.names
        }
        columns["time"] = pa.array(columns["time"], pa.string()).cast(pa.timestamp("us", "UTC"))
        pq.write_table(pa.table(columns, schema=DEAD_LETTERS.schema), out)
        return out.getvalue()
    texts = [{**r, "payload": base64.b64encode(r["payload"]).decode()} for r in letters]
    if kind == "jsonl":
        return b"".join(json.dumps(r).encode() + b"\n" for r in texts)
    text = io.StringIO()
    writer = csv.DictWriter(text, DEAD_LETTERS.schema.names)
    writer.writeheader()
    writer.writerows({**r, "attributes": json.dumps(r["attributes"])} for r in texts)
    return text.getvalue().encode()


@pytest.mark.parametrize("kind", WRITERS)
def test_dead_rows_come_back_with_the_ids_they_would_have_had(kind: str) -> None:
    context = Context()
    lines = [EVENT, b'{"id":"c2","activity":"a","event_time":"2024-08-27"}', b"garbage"]
    logs = read_all(json_lines.FORMAT, memory_file(b"\n".join(lines), "logs/a.jsonl"), context)
    records = b"id,activity,event_time\nc3,b,2024-08-27\nc4,b\n"
    table = read_all(csv_rows.FORMAT, memory_file(records, "logs/a.csv"), context)
    data = written(table_rows([*logs.failures, *table.failures]), kind)
    mended = Context(columns={"case_id": "id"})
    found = read_all(FORMAT, data, mended)
    assert rows(found.events, "case_id", "activity", "source", "position") == [
        ("c2", "a", "logs/a.jsonl", len(EVENT) + 1),
        ("c3", "b", "logs/a.csv", 0),
    ]
    direct = read_all(
        csv_rows.FORMAT, memory_file(records, "logs/a.csv"), Context(columns={"case_id": "id"})
    )
    assert found.events.column("event_id")[1] == direct.events.column("event_id")[0]
    assert [(f.payload, f.source, f.error) for f in found.failures] == [
        (b"garbage", f"logs/a.jsonl:{len(lines[0]) + len(lines[1]) + 2}", "InvalidJson"),
        (b"c4,b", "logs/a.csv:1", "BadRow"),
    ]
    assert found.failures[1].attributes["header"] == "id,activity,event_time"
    # What failed twice can be replayed a third time.
    again = read_all(FORMAT, written(table_rows(found.failures), kind), mended)
    assert list(again.failures) == list(found.failures)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_payload_that_was_cut_stays_dead(kind: str) -> None:
    cut = Failure(EVENT, "logs/a:7", "TooLarge", "x", {"format": "json_lines"}, size=10**9)
    found = read_all(FORMAT, written(table_rows([cut]), kind))
    (failure,) = found.failures
    assert failure.error == "TruncatedPayload"
    assert (
        failure.message
        == f"only {len(EVENT)} of {10**9} bytes were kept; read logs/a:7 itself again"
    )
    assert (failure.payload, failure.source, failure.size) == (EVENT, "logs/a:7", 10**9)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_brokers_message_keeps_its_time_and_its_source(kind: str) -> None:
    letters = [
        Failure(EVENT, "topic/3/42", "X", "", {"format": "json_lines", "h": "1"}, len(EVENT)),
        Failure(b"{", "topic/3/43", "X", "", {"format": "json_lines", "h": "2"}, 1),
    ]
    found = read_all(FORMAT, written(table_rows(letters, "2024-08-27T01:00:00Z"), kind))
    assert rows(found.events, "source", "source_offset", "position") == [("topic/3", 42, None)]
    assert found.events.column("record_time")[0].as_py().isoformat() == "2024-08-27T01:00:00+00:00"
    assert [(f.source, f.attributes["h"]) for f in found.failures] == [("topic/3/43", "2")]
    # What fails again is still of then.
    assert [f.time for f in found.failures] == [1_724_720_400_000_000]


def test_the_mapping_of_the_first_run_is_used_unless_another_is_given() -> None:
    stored = {"format": "json_lines", "columns": "case_id=x,activity=y"}
    payload = b'{"x":"1","y":"2","z":"3","event_time":"2024-08-27"}'
    data = written(table_rows([Failure(payload, "f:0", "E", "", stored, len(payload))]), "jsonl")
    assert rows(read_all(FORMAT, data).events, "case_id", "activity") == [("1", "2")]
    other = read_all(FORMAT, data, Context(columns={"activity": "z"})).events
    assert rows(other, "case_id", "activity") == [("1", "3")]


def test_headers_that_look_like_settings_are_left_aside() -> None:
    data = b"id,activity,event_time\nc3,b,2024-08-27\n"
    for strange in (
        {"delimiter": "", "quote": ""},
        {"delimiter": ";;", "quote": '"'},
        {"delimiter": "\n"},
        {"quote": "ab"},
        {"delimiter": '"', "quote": '"'},
        *({"encoding": name} for name in ("idna", "punycode", "undefined", "hex")),
    ):
        letter = Failure(data, "t/0/1", "E", "", {"format": "csv", **strange}, len(data))
        found = read_all(
            FORMAT, written(table_rows([letter]), "jsonl"), Context(columns={"case_id": "id"})
        )
        assert rows(found.events, "case_id", "activity") == [("c3", "b")], strange


def test_an_unnamed_format_is_detected() -> None:
    letters = [Failure(EVENT, "f:0", "E", ""), Failure(b"\x00\x01", "f:1", "E", "")]
    found = read_all(FORMAT, written(table_rows(letters), "parquet"))
    assert found.decoded == 1
    assert [(f.error, f.source) for f in found.failures] == [("UnknownFormat", "f:1")]


@pytest.mark.parametrize(
    "bad",
    [
        b"[]",
        b"{",
        b'{"row_id":"1"}',
        b'{"payload":"***"}',
        b'{"payload":5}',
        b'{"payload":"","payload_size":"x"}',
        b'{"payload":"","payload_size":1e30}',
        b'{"payload":"","payload_size":-1}',
        b'{"payload":"","attributes":[{"k":1}]}',
        b'{"payload":"","attributes":[[1,2,3]]}',
        b'{"payload":"","source":5}',
        b'{"payload":"","time":true}',
    ],
)
def test_rows_that_are_no_dead_letters(bad: bytes) -> None:
    good = written(table_rows([Failure(EVENT, "f:0", "E", "", {"format": "json_lines"})]), "jsonl")
    found = read_all(FORMAT, good + bad)
    assert found.decoded == 1
    (failure,) = found.failures
    assert (failure.payload, failure.error) == (bad, "InvalidDeadLetter")
    assert failure.source == f"memory/log:{len(good)}"
    again = read_all(FORMAT, written(table_rows([failure]), "csv"))
    assert [f.payload for f in again.failures] == [bad]


def test_a_parquet_file_that_is_no_dead_letter_table() -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), out)
    found = read_all(FORMAT, out.getvalue())
    assert [f.error for f in found.failures] == ["InvalidDeadLetter"]


def test_an_empty_table() -> None:
    assert list(read_all(FORMAT, b"").warnings) == ["memory/log is empty"]


@pytest.mark.parametrize("kind", WRITERS)
def test_detection(kind: str) -> None:
    data = written(table_rows([Failure(EVENT, "f:0", "E", "")]), kind)
    found = registry.detect(data[: registry.HEAD_BYTES], f"out/dead_letters/x.{kind}")
    assert found is FORMAT


def test_large_fields_of_csv_are_read_and_a_short_row_is_one_letter() -> None:
    limit = csv.field_size_limit()
    attributes = {"format": "json_lines", "header": "x" * 400_000}
    letters = table_rows([Failure(EVENT, f"f:{i}", "E", "", attributes) for i in range(3)])
    data = written(letters, "csv")
    found = read_all(FORMAT, data + b"5,short\r\n\r\n" + data.split(b"\n", 1)[1])
    assert (found.decoded, found.dead) == (6, 1)
    assert found.failures[0].error == "InvalidDeadLetter"
    assert json.loads(found.failures[0].payload)["row_id"] == "5"
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("kind", WRITERS)
def test_settings_of_the_first_run_are_used_unless_others_are_given(kind: str) -> None:
    first = Context(
        columns={"case_id": "none"},
        timezone="Europe/Berlin",
        time_format="%d.%m.%Y %H:%M",
        encoding="latin-1",
        delimiter=";",
    )
    data = "id;activity;event_time\nä;b;01.07.2024 10:00\n".encode("latin-1")
    dead = read_all(csv_rows.FORMAT, data, first)
    assert [f.error for f in dead.failures] == ["MissingCaseId"]
    table = written(table_rows(dead.failures), kind)
    mend = {"case_id": "id"}
    found = read_all(FORMAT, table, Context(columns=mend))
    assert rows(found.events, "case_id") == [("ä",)]
    assert found.events.column("event_time")[0].as_py().isoformat() == "2024-07-01T08:00:00+00:00"
    other = read_all(FORMAT, table, Context(columns=mend, timezone="Asia/Tokyo"))
    assert other.events.column("event_time")[0].as_py().isoformat() == "2024-07-01T01:00:00+00:00"
    wrong = read_all(FORMAT, table, Context(columns=mend, delimiter=","))
    assert wrong.decoded == 0


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", ["imixs_xml", "imixs_json"])
def test_a_line_of_a_log_stays_dead_as_it_was(kind: str, name: str) -> None:
    attributes = {"format": name, "part": "$eventlog", "$uniqueid": "u"}
    line = Failure(b"2024|x", "f:0", "BadEventLogLine", "no event 'x'", attributes, 6)
    found = read_all(FORMAT, written(table_rows([line]), kind))
    assert list(found.failures) == [line]


@pytest.mark.parametrize("kind", WRITERS)
def test_an_event_of_a_log_keeps_the_settings_of_the_first_run(kind: str) -> None:
    data = (
        b"<log><trace><string key='concept:name' value='A'/><event>"
        b"<string key='concept:name' value='a'/><string key='at' value='01.07.2024 10:00'/>"
        b"</event></trace></log>"
    )
    first = Context(columns={"event_time": "at"}, timezone="Europe/Berlin")
    dead = read_all(registry.get("xes"), data, first)
    assert [f.error for f in dead.failures] == ["BadTime"]
    table = written(table_rows(dead.failures), kind)
    mended = read_all(FORMAT, table, Context(time_format="%d.%m.%Y %H:%M"))
    assert mended.events.column("event_time")[0].as_py().isoformat() == "2024-07-01T08:00:00+00:00"
    again = read_all(FORMAT, table, Context())
    assert [f.attributes for f in again.failures] == [f.attributes for f in dead.failures]
    assert read_all(FORMAT, table, Context(columns={"event_time": "none"})).decoded == 0


def test_the_rest_of_a_broken_log_has_the_size_of_what_is_left() -> None:
    event = b"<event><string key='concept:name' value='a'/></event>"
    left = b"<trace><event></trace>" + b" " * 3 * 2**20
    data = b"<log><trace>" + event + b"</trace>" + left
    found = read_all(registry.get("xes"), data, Context(timezone="Asia/Tokyo")).failures
    (rest,) = (failure for failure in found if failure.error == "InvalidXml")
    assert rest.size is not None
    assert len(left) - 64 <= rest.size <= len(data)
    assert rest.attributes == {"format": "xes", "timezone": "Asia/Tokyo"}
