"""Records of the EventLog of Imixs-Workflow: with documents and without."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.formats.files import read_all
from tests.formats.imixs_builder import json_mapped, log_line, snapshot, xml_document
from tests.formats.messages.builder import decode, errors, rows
from transforms.formats import registry
from transforms.formats.base import Context, Message
from transforms.formats.messages.imixs_outbox import FORMAT

LINES = [log_line(1, 100, 10, 200, "eva"), log_line(2, 200, 20, 300)]
ITEMS = snapshot(_eventlog=LINES)
MAP = {name: value if isinstance(value, list) else [value] for name, value in ITEMS.items()}
RECORD = {
    "id": "3f1c",
    "ref": "case-1",
    "created": "2024-08-27T12:04:20.469+02:00",
    "topic": "workitem.update",
    "data": None,
}


def record(**members: Any) -> bytes:
    return orjson.dumps({**RECORD, **members})


def test_a_record_without_a_document_is_an_event() -> None:
    [event] = decode(FORMAT, record()).events.to_pylist()
    assert (event["event_id"], event["case_id"], event["activity"]) == (
        "3f1c",
        "case-1",
        "workitem.update",
    )
    assert event["event_time"].isoformat() == "2024-08-27T10:04:20.469000+00:00"


def test_a_snapshot_belongs_to_its_origin() -> None:
    payload = record(topic="snapshot.add", ref="case-1-1724753060469")
    assert rows(decode(FORMAT, payload), "case_id") == [("case-1",)]


@pytest.mark.parametrize(
    "created",
    [
        "2024-08-27T12:04:20.469+02:00[Europe/Berlin]",
        "2024-08-27T10:04:20.469Z",
        1724753060469,
        1724753060469000,
    ],
)
def test_times(created: Any) -> None:
    [(time,)] = rows(decode(FORMAT, record(created=created)), "event_time")
    assert time.isoformat() == "2024-08-27T10:04:20.469000+00:00"


@pytest.mark.parametrize(
    "data",
    [
        MAP,
        json_mapped(ITEMS),
        {"document": [json_mapped(ITEMS)]},
        xml_document(ITEMS).decode(),
        orjson.dumps(MAP).decode(),
        {name: value for name, value in MAP.items() if name != "$uniqueid"},
    ],
)
def test_a_document_gives_its_transitions(data: Any) -> None:
    decoded = decode(FORMAT, record(id="a"), record(data=data), record(id="b"))
    assert rows(decoded, "case_id", "activity", "source_offset") == [
        ("case-1", "workitem.update", 0),
        ("case-1", "10", 1),
        ("case-1", "20", 1),
        ("case-1", "workitem.update", 2),
    ]
    direct = decode(registry.get("imixs_xml"), xml_document(ITEMS))
    ids = [row[0] for row in rows(decoded, "event_id")]
    assert ids[1:3] == [row[0] for row in rows(direct, "event_id")]


def test_items_of_a_record() -> None:
    payload = record(data={"amount": [5], "tags": ["a", "b"]})
    context = Context(items=("amount", "tags", "none"))
    [event] = decode(FORMAT, payload, context=context).events.to_pylist()
    assert dict(event["attributes"]) == {"amount": "5", "tags": '["a","b"]'}


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (b"{", "InvalidJson"),
        (b"5", "InvalidRecord"),
        (b'{"id":"1"}', "InvalidRecord"),
        (record()[:-1] + b',"ref":"again"}', "InvalidJson"),
        (b"\xff", "InvalidJson"),
        (b'{"ref":' * 3000, "InvalidJson"),
        (record(ref=None), "MissingCaseId"),
        (record(created=None), "MissingTime"),
        (record(created="soon"), "BadTime"),
        (record(topic=""), "MissingActivity"),
        (record(data="x" * 5000), "TooLarge"),
    ],
)
def test_a_bad_record_is_a_dead_letter(bad: bytes, error: str) -> None:
    context = Context(max_message_bytes=4096)
    if error != "TooLarge" and len(bad) > 4096:
        context = Context()
    decoded = decode(FORMAT, record(), bad, record(id="x"), b"", context=context)
    assert errors(decoded) == [("t/0/1", error)]
    assert decoded.failures[0].payload == bad
    assert decoded.failures[0].attributes == {"format": "imixs_outbox"}
    assert (decoded.decoded, decoded.skipped, decoded.dead) == (2, 1, 1)


def test_letters_hold_no_files() -> None:
    secret = "c2VjcmV0" * 40
    broken = {**MAP, "$file": [secret], "$eventlog": ["nonsense"]}
    decoded = decode(FORMAT, record(data=broken), record(data=broken)[:-1])
    assert [error for _, error in errors(decoded)] == ["BadEventLogLine", "InvalidJson"]
    assert all(secret.encode() not in failure.payload for failure in decoded.failures)
    kept = FORMAT.original(Message(record(data=broken), "t/0", 0), Context())
    assert secret.encode() not in kept.payload
    assert b"$file" in kept.payload
    assert kept.attributes["format"] == "imixs_json"


def test_a_list_of_records_and_files() -> None:
    several = b"[" + record() + b"," + record(id="2") + b"]"
    assert decode(FORMAT, several, b"[]").decoded == 2
    lines = record() + b"\n" + record(id="2")
    for data in (several, lines):
        assert registry.detect(data, "outbox.json") is FORMAT
        assert [r[0] for r in rows(read_all(FORMAT, data), "event_id")] == ["3f1c", "2"]


def test_other_objects_with_such_names_are_none() -> None:
    assert registry.detect(record(amount=5), "x.jsonl") is registry.get("json_lines")
