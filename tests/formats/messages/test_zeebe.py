"""Zeebe records: which are events, what their columns are, and what foreign systems send."""

from __future__ import annotations

import datetime
import random
from typing import Any

import orjson
import pytest

from tests.formats.files import memory_file, read_all
from tests.formats.messages.builder import batch, decode, errors, rows, zeebe, zeebe_record
from transforms.formats import json_lines, registry
from transforms.formats.base import Context, Message
from transforms.formats.messages import files
from transforms.formats.messages.zeebe import FORMAT, INTENTS

CASE = "2251799813685252"


def test_a_record_is_an_event() -> None:
    decoded = decode(FORMAT, zeebe())
    [event] = decoded.events.to_pylist()
    time = datetime.datetime(2023, 11, 14, 22, 13, 20, 123_000, datetime.timezone.utc)
    expected = {
        "event_id": "2-42",
        "case_id": CASE,
        "event_time": time,
        "activity": "pay",
        "state": "pay",
        "lifecycle": "ELEMENT_ACTIVATED",
        "workflow_group": "order",
        "model_version": "3",
        "source": "t/0",
        "source_offset": 0,
    }
    assert {name: event[name] for name in expected} == expected


@pytest.mark.parametrize("intent", INTENTS)
def test_intents_that_are_events(intent: str) -> None:
    assert rows(decode(FORMAT, zeebe(intent=intent)), "lifecycle") == [(intent,)]


@pytest.mark.parametrize(
    "other",
    [
        {"intent": "ELEMENT_ACTIVATING"},
        {"intent": "SOMETHING_NEW"},
        {"intent": None},
        {"valueType": "JOB"},
        {"valueType": "SOMETHING_NEW"},
        {"recordType": "COMMAND", "intent": "ACTIVATE_ELEMENT"},
        {"recordType": "COMMAND_REJECTION"},
    ],
)
def test_other_records_are_skipped_and_counted(other: dict[str, Any]) -> None:
    decoded = decode(FORMAT, zeebe(**other), zeebe())
    assert (decoded.skipped, decoded.decoded, decoded.dead) == (1, 1, 0)


def test_keys_of_64_bits_as_numbers_and_as_strings() -> None:
    text = zeebe(
        {"processInstanceKey": CASE, "version": "3"},
        partitionId="2",
        position="42",
        timestamp="1700000000123",
        key="2251799813685256",
    )
    one, other = rows(decode(FORMAT, zeebe(), text), *("case_id event_id event_time".split()))
    assert one == other
    largest = zeebe({"processInstanceKey": 2**63 - 1}, position=2**63 - 1)
    assert rows(decode(FORMAT, largest), "case_id", "event_id") == [
        ("9223372036854775807", "2-9223372036854775807")
    ]


def test_a_document_of_elasticsearch() -> None:
    record = zeebe_record(sequence=4503599627370498)
    hit = {"_index": "zeebe-record_process-instance_8.6.0", "_id": "2-42", "_source": record}
    assert FORMAT.detects(orjson.dumps(hit), "")
    decoded = decode(FORMAT, orjson.dumps(record), orjson.dumps(hit), orjson.dumps({"_source": 1}))
    assert rows(decoded, "event_id", "case_id") == [("2-42", CASE)] * 2
    assert errors(decoded) == [("t/0/2", "InvalidRecord")]


def test_a_record_without_a_place_has_an_id_of_its_content() -> None:
    bare = zeebe(position=None)
    decoded = decode(FORMAT, bare, bare, zeebe(position=None, timestamp=1_700_000_000_124))
    one, same, other = (row[0] for row in rows(decoded, "event_id"))
    assert one == same != other
    assert len(one) == 32


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (b"nonsense", "InvalidJson"),
        (zeebe()[:-20], "InvalidJson"),
        (b"[1]", "InvalidJson"),
        (b'{"valueType": "PROCESS_INSTANCE\xff"}', "InvalidEncoding"),
        (b'{"case_id": "1"}', "InvalidRecord"),
        (b'{"valueType": null, "intent": "ELEMENT_ACTIVATED"}', "InvalidRecord"),
        (zeebe({"processInstanceKey": None}), "MissingCaseId"),
        (zeebe({"elementId": None}), "MissingActivity"),
        (zeebe({"elementId": ""}), "MissingActivity"),
        (zeebe(timestamp=None), "MissingTime"),
        (zeebe(timestamp="yesterday"), "BadTime"),
        (zeebe(remark="x" * 5000), "TooLarge"),
    ],
)
@pytest.mark.parametrize("around", [0, 300])
def test_a_bad_record_is_a_dead_letter(bad: bytes, error: str, around: int) -> None:
    good = [zeebe(position=i) for i in range(around)]
    decoded = decode(FORMAT, *good, bad, *good, context=Context(max_message_bytes=4096))
    assert errors(decoded) == [(f"t/0/{around}", error)]
    [letter] = decoded.failures
    assert letter.payload == bad
    assert letter.attributes == {"format": "zeebe"}
    assert decoded.decoded == decoded.events.num_rows == 2 * around


@pytest.mark.parametrize("around", [0, 300])
def test_deep_nesting_is_harmless(around: int) -> None:
    deep = zeebe(remark=1).replace(b'"remark":1', b'"remark":' + b"[" * 2000 + b"]" * 2000)
    deepest = b'{"valueType":' * 3000 + b"1" + b"}" * 3000
    good = [zeebe(position=i) for i in range(around)]
    decoded = decode(FORMAT, *good, deep, deepest, *good)
    # One reader goes deeper than the other; neither breaks, and no other record is lost.
    assert decoded.decoded >= 2 * around
    assert decoded.received == 2 * around + 2
    assert {failure.source for failure in decoded.failures} >= {f"t/0/{around + 1}"}


def test_the_last_of_two_values_of_a_key_counts() -> None:
    twice = zeebe().replace(b'"intent":', b'"intent":"CANCEL","intent":')
    assert rows(decode(FORMAT, twice), "lifecycle") == [("ELEMENT_ACTIVATED",)]


def test_deleted_records_are_skipped() -> None:
    decoded = decode(FORMAT, b"", zeebe())
    assert (decoded.skipped, decoded.decoded) == (1, 1)


def test_business_items_of_the_record_and_of_its_value() -> None:
    context = Context(items=("tenantId", "brokerVersion", "value.bpmnElementType", "none"))
    [event] = decode(FORMAT, zeebe(), context=context).events.to_pylist()
    assert dict(event["attributes"]) == {
        "tenantId": "<default>",
        "brokerVersion": "8.6.0",
        "value.bpmnElementType": "SERVICE_TASK",
    }


def test_columns_are_those_of_other_formats() -> None:
    context = Context(columns={"case_id": "x", "activity": "y"}, time_format="%d.%m.%Y")
    assert rows(decode(FORMAT, zeebe(), context=context), "case_id") == [(CASE,)]


RECORDS = [zeebe(position=i, timestamp=1_700_000_000_000 + i) for i in range(200)]


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"\n".join(RECORDS), None),
        (b"\xef\xbb\xbf" + b"\r\n".join(RECORDS) + b"\n", None),
        (b"[" + b",\n".join(RECORDS) + b"]", 199),
        (orjson.dumps([orjson.loads(r) for r in RECORDS], option=orjson.OPT_INDENT_2), 199),
    ],
)
def test_files(data: bytes, place: int | None) -> None:
    assert registry.detect(data[: registry.HEAD_BYTES], "records.json") is FORMAT
    decoded = read_all(FORMAT, data)
    assert (decoded.decoded, decoded.dead, decoded.events.num_rows) == (200, 0, 200)
    assert [row[0] for row in rows(decoded, "event_id")] == [f"2-{i}" for i in range(200)]
    if place is not None:
        assert rows(decoded, "source_offset")[-1] == (place,)


def test_one_record_in_a_file_over_several_lines() -> None:
    data = orjson.dumps(zeebe_record(), option=orjson.OPT_INDENT_2)
    assert registry.detect(data, "record.json") is FORMAT
    assert rows(read_all(FORMAT, data), "case_id") == [(CASE,)]


def test_a_list_that_breaks_off_gives_what_came_before() -> None:
    data = b"[" + b",".join(RECORDS[:3]) + b', {"valueType": '
    decoded = read_all(FORMAT, data)
    assert (decoded.decoded, decoded.dead) == (3, 1)
    assert decoded.failures[0].error == "InvalidJson"
    assert decoded.failures[0].source == "memory/log:3"


def test_the_result_does_not_depend_on_how_a_file_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [*RECORDS, b"garbage", zeebe(valueType="JOB"), b""]
    random.Random(1).shuffle(lines)
    data = b"\n".join(lines)
    whole = read_all(FORMAT, data)
    monkeypatch.setattr(files, "SPAN_BYTES", 5_000)
    monkeypatch.setattr(json_lines, "BATCH_BYTES", 1_000)
    spans = FORMAT.spans(memory_file(data), Context())
    assert len(spans) > 20
    cut = read_all(FORMAT, data, spans=spans)
    assert cut.events.equals(whole.events)
    assert [f.source for f in cut.failures] == [f.source for f in whole.failures]
    assert (cut.decoded, cut.skipped, cut.dead) == (whole.decoded, whole.skipped, whole.dead)


def test_a_dead_letter_can_be_replayed() -> None:
    [letter] = decode(FORMAT, zeebe({"elementId": None})).failures
    replayed = registry.get(letter.attributes["format"]).decode(
        [Message(letter.payload.replace(b'"key"', b'"elementId2"'), "t/0", 0)], Context()
    )
    assert errors(replayed) == [("t/0:0", "MissingActivity")]


def test_an_empty_batch() -> None:
    assert FORMAT.decode(batch([]), Context()).received == 0
