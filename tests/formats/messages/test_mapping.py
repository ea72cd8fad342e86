"""A mapping file over what is in CloudEvents, in both modes, and in topics of several formats."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa
import pytest

from tests.formats.avro.records import encoded, schema_text, step
from tests.formats.files import rows
from tests.formats.messages.builder import zeebe
from tests.formats.messages.test_imixs_outbox import record
from tests.formats.messages.test_kogito import node
from transforms.formats.avro.messages import given_schema
from transforms.formats.avro.settings import AvroSettings
from transforms.formats.base import Context, Message, MessageBatch
from transforms.formats.json_lines import FORMAT as JSON_LINES
from transforms.formats.mapping.context import with_mapping
from transforms.formats.mapping.document import read_mapping
from transforms.formats.messages.cloudevents import FORMAT
from transforms.formats.messages.imixs_outbox import FORMAT as OUTBOX
from transforms.formats.messages.kogito import FORMAT as KOGITO
from transforms.formats.messages.zeebe import FORMAT as ZEEBE
from transforms.topics import decode_topic, plan_topic

NOW = 1_709_546_400_000_000
MAPPING = """
columns:
  case_id: order.id
  event_time: {path: at, format: "%d.%m.%Y %H:%M"}
  activity: {path: status, values: {1: Open, 2: Closed}, default: Other}
  workflow_group: {constant: orders}
items:
  amount: {path: order.total, type: double}
  first: order.lines[0].sku
skip_when:
  - {path: kind, equals: ping}
timezone: Europe/Berlin
"""
DATA: list[dict[str, Any]] = [
    {
        "order": {"id": 1, "total": 2.50, "lines": [{"sku": "x"}]},
        "at": "01.02.2024 10:00",
        "status": 1,
    },
    {"kind": "ping", "order": {"id": 9}},
    {"order": {"id": 2}, "at": "yesterday", "status": 2},
    {"order": {"id": 3}, "at": "01.02.2024 11:00", "status": 7},
]
EXPECTED = [
    ("1", "2024-02-01T09:00:00+00:00", "Open", "orders"),
    ("3", "2024-02-01T10:00:00+00:00", "Other", "orders"),
]


def context(text: str = MAPPING, **given: Any) -> Context:
    return with_mapping(Context(**given), read_mapping(text.encode(), "m.yaml"))


def event(number: int, data: Any, **more: Any) -> dict[str, Any]:
    head = {"specversion": "1.0", "id": str(number), "source": "/shop", "type": "changed"}
    return {**head, **more, "data": data}


def batch(payloads: list[bytes], headers: list[dict[str, str]] | None = None) -> MessageBatch:
    count = len(payloads)
    return MessageBatch(
        pa.array(payloads, pa.binary()),
        pa.array(["t/0"] * count).dictionary_encode(),
        pa.array(range(count), pa.int64()),
        pa.array([NOW] * count, pa.int64()),
        headers or (),
    )


def messages(mode: str) -> MessageBatch:
    if mode == "structured":
        return batch([orjson.dumps(event(i, data)) for i, data in enumerate(DATA)])
    headers = [
        {f"ce_{n}": v for n, v in event(i, None).items() if n != "data"}
        | {"content-type": "application/json"}
        for i in range(len(DATA))
    ]
    return batch([orjson.dumps(data) for data in DATA], headers)


def times(found: pa.Table) -> list[tuple[Any, ...]]:
    listed = rows(found, "case_id", "event_time", "activity", "workflow_group")
    return [(case, time.isoformat(), *others) for case, time, *others in listed]


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_the_data_is_mapped(mode: str) -> None:
    found = FORMAT.decode(messages(mode), context())
    assert (found.received, found.decoded, found.skipped, found.dead) == (4, 2, 1, 1)
    assert times(found.events) == EXPECTED
    assert found.events["event_id"].to_pylist() == ["0", "3"]
    assert [dict(each or ()) for each in found.events["attributes"].to_pylist()] == [
        {"amount": "2.5", "first": "x"},
        {},
    ]
    assert found.failures[0].error == "BadTime"
    assert "mapping" in found.failures[0].attributes


def test_the_envelope_is_mapped_too() -> None:
    text = MAPPING.replace("case_id: order.id", "case_id: {path: 'ce:subject', default: none}")
    text = text.replace("{path: kind, equals: ping}", "{path: 'ce:type', equals: heartbeat}")
    bodies = [
        event(1, DATA[0], subject="s1"),
        event(2, DATA[0], type="heartbeat"),
        event(3, DATA[0]),
    ]
    found = FORMAT.decode(batch([orjson.dumps(body) for body in bodies]), context(text))
    assert (found.decoded, found.skipped, found.dead) == (2, 1, 0)
    assert found.events["case_id"].to_pylist() == ["s1", "none"]


def test_one_topic_of_several_formats() -> None:
    known = given_schema(schema_text())[1]
    payloads = [
        orjson.dumps(event(0, DATA[0])),
        orjson.dumps(DATA[0]),
        b"\xc3\x01" + known + encoded(step(0)),
        orjson.dumps(DATA[1]),
        b"\0\0\0\0\x07what",
    ]
    settled = context(
        "columns: {activity: {path: status, values: {1: Open}, default: Other}}\n"
        "items: {}\nskip_when: [{path: kind, equals: ping}]",
        columns={"case_id": "order.id", "event_time": "at"},
        time_format="%d.%m.%Y %H:%M",
        avro=AvroSettings(schema=schema_text()),
    )
    some = batch(payloads)
    plan, _ = plan_topic(list(some), "auto", settled)
    assert plan is not None
    shares = decode_topic(some, plan, "auto", settled)
    total = [share.decoded for share in shares]
    assert sum(each.received for each in total) == 5
    assert sum(each.skipped for each in total) == 1
    errors = sorted(f.error for each in total for f in each.failures)
    # The Avro record has neither order.id nor at: the mapping is of the JSON beside it.
    assert "UnknownSchema" in errors or "InvalidAvro" in errors
    activities = {a for each in total for a in each.events["activity"].to_pylist()}
    assert activities == {"Open"}


def test_messages_by_their_own_names_are_mapped() -> None:
    from dataclasses import replace  # noqa: PLC0415

    payloads = [orjson.dumps(data) for data in DATA]
    found = JSON_LINES.decode(batch(payloads), replace(context(), own_names=True))
    assert (found.decoded, found.skipped, found.dead) == (2, 1, 1)
    assert times(found.events) == EXPECTED
    alone = [
        JSON_LINES.decode([Message(each, "t/0", 0, {}, NOW)], replace(context(), own_names=True))
        for each in payloads
    ]
    assert [each.decoded for each in alone] == [1, 0, 0, 1]
    assert [each.skipped for each in alone] == [0, 1, 0, 0]


def test_formats_that_know_their_columns_are_not_mapped() -> None:
    """A topic of several formats has one mapping; what Zeebe says is not replaced by it."""
    payloads = [zeebe({"processInstanceKey": 5}), node(1), record()]
    for form, payload in zip((ZEEBE, KOGITO, OUTBOX), payloads, strict=True):
        [bare], [mapped] = (
            form.decode([Message(payload, "t/0", 0, {}, NOW)], each).events.to_pylist()
            for each in (Context(), context())
        )
        # The mapping's items are sought in all.
        assert {**mapped, "attributes": None} == bare, form.name
