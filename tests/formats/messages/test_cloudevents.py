"""CloudEvents in every mode: what counts of envelope and data, and what foreign systems send."""

from __future__ import annotations

import datetime
import random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.files import memory_file, read_all
from tests.formats.imixs_builder import json_mapped, log_line, snapshot, to_json, xml_document
from tests.formats.messages.builder import (
    EVENT,
    batch,
    cloud_event,
    decode,
    encoded,
    errors,
    headers,
    rows,
)
from transforms.formats import registry
from transforms.formats.base import Context, Message
from transforms.formats.messages import files
from transforms.formats.messages.cloudevents import FORMAT

DATA = {"case_id": "c-1", "activity": "pay", "resource": "kim", "amount": 5, "at": {"city": "Ulm"}}
TIME = datetime.datetime(2023, 11, 14, 22, 13, tzinfo=datetime.timezone.utc)
DOCUMENT = snapshot(_eventlog=[log_line(1, 100, 10, 200, "eva"), log_line(2, 200, 20, 300)])


def test_the_envelope_alone_makes_an_event() -> None:
    [event] = decode(FORMAT, cloud_event()).events.to_pylist()
    expected = {
        "event_id": "e-1",
        "case_id": "/shop order-7",
        "event_time": TIME,
        "activity": "order.placed",
        "state": "order.placed",
    }
    assert {name: event[name] for name in expected} == expected


def test_columns_of_the_data_are_recognised() -> None:
    [event] = decode(FORMAT, cloud_event(data=DATA)).events.to_pylist()
    expected = {
        "event_id": "e-1",
        "case_id": "c-1",
        "event_time": TIME,
        "activity": "pay",
        "actor": "kim",
    }
    assert {name: event[name] for name in expected} == expected


def test_the_mapping_decides() -> None:
    columns = {
        "case_id": "at.city",
        "activity": "ce:subject",
        "event_id": "ce:source+id",
        "event_time": "when",
        "actor": "ce:user",
        "start_time": "",
    }
    context = Context(columns=columns, items=("amount", "ce:type", "at.city"))
    data = {**DATA, "when": 1_700_000_000, "start": "2023-01-01"}
    decoded = decode(FORMAT, cloud_event(data=data, user="eva"), context=context)
    [event] = decoded.events.to_pylist()
    assert (event["case_id"], event["activity"], event["actor"]) == ("Ulm", "order-7", "eva")
    assert (event["event_id"], event["start_time"]) == ("/shop e-1", None)
    assert event["event_time"].timestamp() == 1_700_000_000
    assert dict(event["attributes"]) == {
        "amount": "5",
        "ce:type": "order.placed",
        "at.city": "Ulm",
    }
    missing = decode(FORMAT, cloud_event(data={}), context=context)
    assert errors(missing) == [("t/0/0", "MissingCaseId")]
    assert missing.failures[0].attributes["columns"].startswith("case_id=at.city,activity=ce:")


def test_a_time_format_is_that_of_the_data() -> None:
    context = Context(time_format="%d.%m.%Y")
    data = {"case_id": "c", "timestamp": "24.12.2023"}
    events = [cloud_event(data=data), cloud_event(data=data, time=None)]
    found = [row[0] for row in rows(decode(FORMAT, *events, context=context), "event_time")]
    christmas = datetime.datetime(2023, 12, 24, tzinfo=datetime.timezone.utc)
    assert found == [TIME, christmas]


@pytest.mark.parametrize("prefix", ["ce_", "ce-", "Ce-", "CE_"])
def test_binary_mode(prefix: str) -> None:
    structured = decode(FORMAT, cloud_event(data=DATA))
    binary = decode(
        FORMAT,
        orjson.dumps(DATA),
        headers=[{**headers(prefix), "Content-Type": "application/json; charset=utf-8"}],
    )
    assert binary.events.equals(structured.events)


def test_modes_in_one_batch_keep_their_order() -> None:
    json = {"content-type": "application/json"}
    payloads = [
        cloud_event(id="0", data=DATA),
        orjson.dumps(DATA),
        b'["a","list"]',
        b"\x00\x01",
        b"",
        cloud_event(id="5"),
        b"not json",
    ]
    found = decode(
        FORMAT,
        *payloads,
        headers=[
            {"content-type": "application/cloudevents+json; charset=UTF-8"},
            {**headers(id="1"), **json},
            {},
            {**headers(id="3"), "content-type": "application/protobuf"},
            headers(id="4"),
            {"trace": "x"},
            {**headers(id="6"), **json},
        ],
    )
    assert rows(found, "event_id", "case_id") == [
        ("0", "c-1"),
        ("1", "c-1"),
        ("3", "/shop order-7"),
        ("4", "/shop order-7"),
        ("5", "/shop order-7"),
    ]
    assert sorted(errors(found)) == [
        ("t/0/2", "InvalidJson"),
        ("t/0/6", "InvalidJson"),
    ]


def test_another_event_format_is_refused() -> None:
    media = {"content-type": "application/cloudevents+avro"}
    decoded = decode(FORMAT, b"\x00", headers=[media])
    assert errors(decoded) == [("t/0/0", "UnsupportedEventFormat")]
    assert "cloudevents+avro" in decoded.failures[0].message


def test_a_batch_counts_as_many_as_it_has_events() -> None:
    several = orjson.dumps([orjson.loads(cloud_event(id=str(i), data=DATA)) for i in range(3)])
    bad = b"[" + cloud_event(id="x") + b"," + cloud_event(specversion="9") + b"]"
    decoded = decode(FORMAT, several, b"[]", bad, cloud_event(id="y"), b"[{", b" [1]")
    assert [row[0] for row in rows(decoded, "event_id")] == ["0", "1", "2", "x", "y"]
    assert (decoded.decoded, decoded.skipped, decoded.dead) == (5, 1, 3)
    assert sorted(errors(decoded)) == [
        ("t/0/2", "UnsupportedSpecVersion"),
        ("t/0/4", "InvalidJson"),
        ("t/0/5", "InvalidJson"),
    ]
    by_place = {failure.source: failure.payload for failure in decoded.failures}
    assert by_place["t/0/2"] == cloud_event(specversion="9")
    assert by_place["t/0/4"] == b"[{"


@pytest.mark.parametrize("version", ["1.0", "0.3"])
def test_versions_that_are_read(version: str) -> None:
    assert decode(FORMAT, cloud_event(specversion=version)).decoded == 1


@pytest.mark.parametrize("form", [None, "%d.%m.%Y"])
def test_a_time_that_is_none_says_whose_it_is(form: str | None) -> None:
    """The envelope's is as its standard says, whatever --time_format says of the data's."""
    events = [
        cloud_event(id="1", time="soon"),
        cloud_event(id="2", time="2024-01-02T03:04:05Z", data={**DATA, "time": "soon"}),
        cloud_event(id="3", time=None, data={**DATA, "time": "later"}),
        cloud_event(id="4", time="", data={**DATA, "time": "02.01.2024" if form else "2024-01-02"}),
        cloud_event(id="5", time=None, data={**DATA, "time": None}),
        cloud_event(id="6", time="9999-01-01T00:00:00Z"),
    ]
    decoded = decode(FORMAT, *events, context=Context(time_format=form))
    assert decoded.events["event_id"].to_pylist() == ["2", "4"]
    times = [each.isoformat()[:10] for each in decoded.events["event_time"].to_pylist()]
    assert times == ["2024-01-02"] * 2
    how = f" in the form {form}" if form else "; --time_format says how it is written"
    assert [(f.source, f.error, f.message) for f in decoded.failures] == [
        ("t/0/0", "BadTime", "time 'soon' is not a time; CloudEvents have RFC 3339 there"),
        ("t/0/2", "BadTime", f"event_time 'later' is not a time{how}"),
        ("t/0/4", "MissingTime", "no event time; --columns event_time=NAME says where it is"),
        (
            "t/0/5",
            "BadTime",
            "time '9999-01-01T00:00:00Z' is out of range; a time is from 1678-01-01 to 2261-12-31",
        ),
    ]
    assert decoded.dead == 4


@pytest.mark.parametrize("form", [None, "%d.%m.%Y"])
def test_a_time_without_a_zone_is_of_the_zone_that_is_given(form: str | None) -> None:
    """RFC 3339 has one always; what has none is as any other time."""
    times = ("2024-07-02T03:04:05", "2024-07-02T03:04:05Z")
    events = [cloud_event(id=each, time=each) for each in times]
    decoded = decode(FORMAT, *events, context=Context(timezone="Europe/Berlin", time_format=form))
    hours = [each.isoformat()[11:13] for each in decoded.events["event_time"].to_pylist()]
    assert hours == ["01", "03"]


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"specversion": None}, "InvalidCloudEvent"),
        ({"specversion": "2.0"}, "UnsupportedSpecVersion"),
        ({"specversion": ""}, "UnsupportedSpecVersion"),
        ({"id": None}, "InvalidCloudEvent"),
        ({"id": ""}, "InvalidCloudEvent"),
        ({"source": None}, "InvalidCloudEvent"),
        ({"type": None}, "InvalidCloudEvent"),
        ({"subject": None}, "MissingCaseId"),
        ({"time": None}, "MissingTime"),
        ({"time": "soon"}, "BadTime"),
        ({"data_base64": "*not base64*"}, "InvalidBase64"),
        ({"data_base64": "YQ"}, "InvalidBase64"),
        ({"data_base64": 5}, "InvalidBase64"),
        ({"data_base64": encoded(b"{"), "datacontenttype": "application/json"}, "InvalidData"),
        ({"data_base64": encoded(b"{}"), "data": {}}, "InvalidCloudEvent"),
        ({"data": {"text": "x" * 5000}}, "TooLarge"),
    ],
)
@pytest.mark.parametrize("around", [0, 150])
def test_a_bad_event_is_a_dead_letter(members: dict[str, Any], error: str, around: int) -> None:
    bad = cloud_event(**members)
    good = [cloud_event(id=str(i), data=DATA) for i in range(around)]
    decoded = decode(FORMAT, *good, bad, *good, context=Context(max_message_bytes=4096))
    assert errors(decoded) == [(f"t/0/{around}", error)]
    assert decoded.failures[0].payload == bad
    assert decoded.failures[0].attributes == {"format": "cloudevents"}
    assert decoded.decoded == 2 * around


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (b"nonsense", "InvalidJson"),
        (cloud_event()[:-5], "InvalidJson"),
        (cloud_event().replace(b"order.placed", b"order\xff"), "InvalidEncoding"),
        (b'{"specversion":"1.0","data":' + b'{"a":' * 3000 + b"1" + b"}" * 3001, "InvalidJson"),
    ],
)
def test_what_is_no_json(bad: bytes, error: str) -> None:
    decoded = decode(FORMAT, bad, cloud_event())
    # How deep objects may be nested, the reader decides: too deep, or an event without an id.
    assert errors(decoded)[0][1] in (error, "InvalidCloudEvent")
    assert decoded.failures[0].payload == bad
    assert decoded.decoded == 1


def test_a_text_without_an_end_takes_no_longer_than_it_is_long() -> None:
    """Looking for keys in it anew at each of its quotes would take minutes."""
    endless = cloud_event()[:-1] + b',"data":{"text":"' + b'\\"' * 500_000
    decoded = decode(FORMAT, endless, cloud_event())
    assert errors(decoded) == [("t/0/0", "InvalidJson")]
    assert decoded.decoded == 1


def test_the_last_of_two_values_of_a_key_counts() -> None:
    twice = cloud_event().replace(b'"id":"e-1"', b'"id":"first","id":"last"')
    assert rows(decode(FORMAT, twice), "event_id") == [("last",)]


@pytest.mark.parametrize("data", [None, "a text", 5, [1, 2], True])
def test_data_that_is_no_object_leaves_the_envelope(data: Any) -> None:
    payload = orjson.dumps({**EVENT, "data": data})
    assert rows(decode(FORMAT, payload), "case_id") == [("/shop order-7",)]


@pytest.mark.parametrize(
    "members",
    [
        {"data_base64": encoded(orjson.dumps(DATA))},
        {"data_base64": encoded(orjson.dumps(DATA)), "datacontenttype": "application/json"},
        {
            "specversion": "0.3",
            "datacontentencoding": "base64",
            "data": encoded(orjson.dumps(DATA)),
        },
    ],
)
def test_encoded_data_is_decoded(members: dict[str, Any]) -> None:
    plain = decode(FORMAT, cloud_event(data=DATA))
    assert decode(FORMAT, cloud_event(**members)).events.equals(plain.events)


@pytest.mark.parametrize("media", [1.5, True, [{}], {"a": 1}])
def test_a_media_type_that_is_no_text_counts_as_none(media: Any) -> None:
    for data, case in ((b'{"case_id": "c"}', "c"), (b"\x00", "/shop order-7")):
        members = {"data_base64": encoded(data), "datacontenttype": media}
        assert rows(decode(FORMAT, cloud_event(**members)), "case_id") == [(case,)]


def test_data_that_nobody_can_read_leaves_the_envelope() -> None:
    members = {"data_base64": encoded(b"\x00\x01"), "datacontenttype": "application/protobuf"}
    assert rows(decode(FORMAT, cloud_event(**members)), "activity") == [("order.placed",)]


@pytest.mark.parametrize(
    "members",
    [
        {"data": json_mapped(DOCUMENT)},
        {"data": xml_document(DOCUMENT).decode(), "datacontenttype": "application/xml"},
        {"data_base64": encoded(xml_document(DOCUMENT)), "datacontenttype": "text/xml"},
        {"data_base64": encoded(to_json(json_mapped(DOCUMENT)))},
    ],
)
def test_an_imixs_document_is_decoded_by_its_format(members: dict[str, Any]) -> None:
    form = registry.get("imixs_json")
    plain = decode(form, b"", to_json(json_mapped(DOCUMENT)), b"")
    decoded = decode(FORMAT, cloud_event(), cloud_event(**members), cloud_event(id="e-2"))
    assert decoded.events.to_pylist()[1:3] == plain.events.to_pylist()
    assert decoded.events.num_rows == 4
    assert (decoded.decoded, decoded.dead) == (3, 0)


def test_a_dead_document_is_a_letter_of_its_format_without_files() -> None:
    secret = "c2VjcmV0" * 50
    broken = json_mapped({**snapshot(_uniqueid=None), "$file": secret})
    decoded = decode(FORMAT, cloud_event(data=broken))
    [letter] = decoded.failures
    assert (letter.source, letter.error) == ("t/0/0", "MissingCaseId")
    assert letter.attributes["format"] == "imixs_json"
    assert secret.encode() not in letter.payload
    whole = Message(cloud_event(data=json_mapped({**DOCUMENT, "$file": secret})), "t/0", 0)
    kept = FORMAT.original(whole, Context())
    assert secret.encode() not in kept.payload
    assert kept.attributes["format"] == "imixs_json"


def test_binary_mode_with_an_imixs_document() -> None:
    media = {**headers(), "content-type": "application/xml"}
    decoded = decode(FORMAT, xml_document(DOCUMENT), headers=[media])
    assert decoded.events.num_rows == 2


def test_headers_that_are_not_utf_8_are_no_reason_to_lose_an_event() -> None:
    odd = {**headers(), "ce_subject": "order-\ufffd", "trace": "\ufffd"}
    assert rows(decode(FORMAT, b"{}", headers=[odd]), "case_id") == [("/shop order-\ufffd",)]


def test_a_deleted_record_is_skipped() -> None:
    decoded = decode(FORMAT, b"", cloud_event())
    assert (decoded.skipped, decoded.decoded) == (1, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"\n".join(cloud_event(id=str(i), data=DATA) for i in range(50)),
        orjson.dumps([orjson.loads(cloud_event(id=str(i), data=DATA)) for i in range(50)]),
    ],
)
def test_files(data: bytes) -> None:
    assert registry.detect(data, "events.json") is FORMAT
    decoded = read_all(FORMAT, data)
    assert [row[0] for row in rows(decoded, "event_id")] == [str(i) for i in range(50)]


@pytest.mark.parametrize("first", [True, False])
def test_a_file_whose_first_event_is_larger_than_what_is_looked_at(first: bool) -> None:
    large = {"text": 'x, {"y": [' * 20_000, "valueType": 1, "more": {"ref": 1}}
    members = {**EVENT, "data": large} if not first else {"data": large, **EVENT}
    data = orjson.dumps(members) + b"\n" + cloud_event(id="2")
    head = data[: registry.HEAD_BYTES]
    if first:  # nothing but the data is to be seen
        assert registry.detect(head, "events.jsonl") is registry.get("json_lines")
    else:
        assert registry.detect(head, "events.jsonl") is FORMAT
    assert read_all(FORMAT, data).decoded == 2


def test_the_result_does_not_depend_on_how_a_file_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        *(cloud_event(id=str(i), data={"caseId": f"c{i}", "Activity": "a"}) for i in range(40)),
        *(cloud_event(id=f"x{i}", data={"case id": f"c{i}"}) for i in range(40)),
        *(cloud_event(id=f"y{i}") for i in range(40)),
        b"garbage",
        cloud_event(data=json_mapped(DOCUMENT)),
    ]
    random.Random(2).shuffle(lines)
    data = b"\n".join(lines)
    whole = read_all(FORMAT, data)
    monkeypatch.setattr(files, "SPAN_BYTES", 500)
    cut = read_all(FORMAT, data, spans=FORMAT.spans(memory_file(data), Context()))
    assert cut.events.to_pylist() == whole.events.to_pylist()
    assert [f.source for f in cut.failures] == [f.source for f in whole.failures]


NAMES = st.sampled_from(["case_id", "caseId", "Case ID", "activity", "task", "timestamp", "x.y"])
VALUES = st.one_of(st.none(), st.sampled_from(["a", "", "2023-11-14"]), st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.dictionaries(NAMES, VALUES, max_size=4), min_size=1, max_size=12),
    st.integers(0, 12),
)
def test_an_event_does_not_depend_on_those_around_it(datas: list[dict[str, Any]], cut: int) -> None:
    payloads = [cloud_event(id=str(i), data=data) for i, data in enumerate(datas)]
    context = Context(columns={"actor": "x.y"})
    whole = FORMAT.decode(batch(payloads), context)
    parts = [
        FORMAT.decode(batch(part, first=first), context)
        for part, first in ((payloads[:cut], 0), (payloads[cut:], cut))
    ]
    apart = [row for part in parts for row in part.events.to_pylist()]
    assert whole.events.to_pylist() == apart
    assert errors(whole) == [each for part in parts for each in errors(part)]
