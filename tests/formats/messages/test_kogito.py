"""Kogito and SonataFlow events: deltas, snapshots, groups; by themselves and as CloudEvents."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.formats.files import read_all
from tests.formats.messages.builder import decode, errors, rows
from transforms.formats import registry
from transforms.formats.base import Context
from transforms.formats.messages.kogito import FORMAT, is_type

CLOUDEVENTS = registry.get("cloudevents")
COLUMNS = ("event_id", "case_id", "activity", "state", "lifecycle")


def event(kind: str, data: Any, **members: Any) -> bytes:
    """Return an event as Kogito writes it."""
    found = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "http://localhost:8080/hiring",
        "type": kind,
        "time": "2024-07-17T17:25:21.93199-03:00",
        "kogitoprocinstanceid": "p-1",
        "kogitoprocversion": "1.0",
        "kogitoprocid": "hiring",
        **members,
    }
    return orjson.dumps({**{k: v for k, v in found.items() if v is not None}, "data": data})


def node(what: int, name: str | None = "Interview", **more: Any) -> bytes:
    """Return a delta of a node."""
    data = {
        "eventDate": "2024-07-17T17:25:21.931-03:00",
        "eventUser": "jdoe",
        "eventType": what,
        "processId": "hiring",
        "processVersion": "1.0",
        "processInstanceId": "p-1",
        "nodeDefinitionId": "UserTask_1",
        "nodeName": name,
        "nodeType": "HumanTaskNode",
        "nodeInstanceId": "n-1",
        "data": {},
        **more,
    }
    return event("ProcessInstanceNodeDataEvent", data)


def state(number: int, what: int) -> bytes:
    """Return a delta of a process."""
    data = {
        "eventDate": "2024-07-17T17:25:21.931-03:00",
        "eventType": what,
        "processId": "hiring",
        "processName": "Hiring",
        "processInstanceId": "p-1",
        "state": number,
    }
    return event("ProcessInstanceStateDataEvent", data)


NODES = [
    {
        "id": "n-2",
        "nodeId": "2",
        "nodeDefinitionId": "_2",
        "nodeName": "Make payment",
        "nodeType": "HumanTaskNode",
        "triggerTime": "2020-03-30T14:14:20.785+08:00",
    },
    {
        "id": "n-1",
        "nodeId": "1",
        "nodeName": "Split",
        "nodeType": "Split",
        "triggerTime": "2020-03-30T14:14:20.785+08:00",
        "leaveTime": "2020-03-30T14:14:20.785+08:00",
    },
]


def snapshot(**more: Any) -> bytes:
    """Return an old snapshot."""
    data = {
        "id": "p-1",
        "processId": "drinks",
        "processName": "Drinks",
        "startDate": "2020-03-30T14:11:41.519+08:00",
        "endDate": None,
        "state": 1,
        "nodeInstances": NODES,
        "variables": {"order": {"price": 15}, "paid": True},
        **more,
    }
    return event("ProcessInstanceEvent", data, specversion="0.3", kogitoprocinstanceid=None)


def test_deltas() -> None:
    decoded = decode(FORMAT, state(1, 1), node(1), node(2), state(2, 2))
    assert rows(decoded, *COLUMNS[1:]) == [
        ("p-1", "Hiring", "ACTIVE", "STARTED"),
        ("p-1", "Interview", "Interview", "ENTER"),
        ("p-1", "Interview", "Interview", "EXIT"),
        ("p-1", "Hiring", "COMPLETED", "ENDED"),
    ]
    [first] = decode(FORMAT, node(1)).events.to_pylist()
    assert first["event_id"] == "e-1"
    assert first["event_time"].isoformat() == "2024-07-17T20:25:21.931000+00:00"
    assert (first["actor"], first["workflow_group"], first["model_version"]) == (
        "jdoe",
        "hiring",
        "1.0",
    )


def test_what_the_body_lacks_the_envelope_says() -> None:
    data = {"eventType": 1, "nodeName": "Start", "nodeType": "StartNode"}
    [row] = decode(FORMAT, event("ProcessInstanceNodeDataEvent", data)).events.to_pylist()
    assert (row["case_id"], row["workflow_group"], row["model_version"]) == ("p-1", "hiring", "1.0")
    assert row["event_time"].isoformat() == "2024-07-17T20:25:21.931990+00:00"


def test_a_node_without_a_name_has_that_of_its_definition() -> None:
    assert rows(decode(FORMAT, node(1, None)), "activity") == [("UserTask_1",)]


def test_an_error_is_a_state() -> None:
    data = {"processInstanceId": "p-1", "nodeDefinitionId": "Task_2", "errorMessage": "boom"}
    decoded = decode(FORMAT, event("ProcessInstanceErrorDataEvent", data))
    assert rows(decoded, *COLUMNS) == [("e-1", "p-1", "Task_2", "ERROR", "ERROR")]


@pytest.mark.parametrize(
    "other",
    [
        node(7),
        node(99),
        event("ProcessInstanceVariableDataEvent", {"variableName": "x"}),
        event("ProcessInstanceSLADataEvent", {}),
        event("ProcessDefinitionEvent", {}),
        event("UserTaskInstanceStateDataEvent", {"state": "Ready"}),
        event("JobEvent", "..."),
    ],
)
def test_what_is_no_step_of_a_case_is_skipped(other: bytes) -> None:
    for form in (FORMAT, CLOUDEVENTS):
        decoded = decode(form, other, node(1))
        assert (decoded.skipped, decoded.decoded, decoded.dead) == (1, 1, 0)


def test_a_snapshot_gives_its_nodes_in_order_with_ids_of_their_own() -> None:
    decoded = decode(FORMAT, snapshot())
    assert rows(decoded, *COLUMNS, "position") == [
        ("p-1:STARTED", "p-1", "Drinks", "ACTIVE", "STARTED", 0),
        ("n-1:ENTER", "p-1", "Split", "Split", "ENTER", 1),
        ("n-1:EXIT", "p-1", "Split", "Split", "EXIT", 2),
        ("n-2:ENTER", "p-1", "Make payment", "Make payment", "ENTER", 3),
    ]
    assert (decoded.decoded, decoded.received) == (1, 1)
    later = decode(FORMAT, snapshot(endDate="2020-03-30T14:20:53.615+08:00", state=2))
    assert rows(later, *COLUMNS)[:4] == rows(decoded, *COLUMNS)
    assert rows(later, *COLUMNS)[4:] == [("p-1:ENDED", "p-1", "Drinks", "COMPLETED", "ENDED")]


def test_items_are_of_the_data_and_of_its_variables() -> None:
    context = Context(items=("order.price", "paid", "processName", "none"))
    decoded = decode(FORMAT, snapshot(), context=context)
    items = [dict(each or ()) for each in decoded.events["attributes"].to_pylist()]
    assert items[-1] == {"order.price": "15", "paid": "true", "processName": "Drinks"}
    assert not any(items[:-1])


def test_a_group_counts_as_many_as_it_has_events() -> None:
    members = [orjson.loads(each) for each in (node(1), node(7), state(2, 2))]
    group = event("MultipleProcessInstanceDataEvent", members)
    for form in (FORMAT, CLOUDEVENTS):
        decoded = decode(form, group)
        assert (decoded.decoded, decoded.skipped, decoded.events.num_rows) == (2, 1, 2)
    packed = event("MultipleProcessInstanceDataEvent", "AAAA")
    assert errors(decode(FORMAT, packed)) == [("t/0/0", "UnsupportedGrouping")]


def test_events_of_a_group_are_of_its_place_however_many_there_are() -> None:
    """With the dead one there are as many events as messages."""
    group = event(
        "MultipleProcessInstanceDataEvent", [orjson.loads(node(1)), orjson.loads(node(2))]
    )
    for form in (FORMAT, CLOUDEVENTS):
        decoded = decode(form, b"{", group)
        assert rows(decoded, "source_offset", "lifecycle") == [(1, "ENTER"), (1, "EXIT")]


def test_a_type_may_be_written_as_text() -> None:
    data = {"eventType": "2", "nodeName": "Interview", "processInstanceId": "p-1"}
    decoded = decode(FORMAT, event("ProcessInstanceNodeDataEvent", data))
    assert rows(decoded, "lifecycle") == [("EXIT",)]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (b"{", "InvalidJson"),
        (b"7", "InvalidJson"),
        (b"\xff", "InvalidEncoding"),
        (b'{"specversion":"1.0"}', "InvalidCloudEvent"),
        (b'{"type":"ProcessInstanceEvent"}', "InvalidCloudEvent"),
        (event("ProcessInstanceNodeDataEvent", None), "InvalidData"),
        (snapshot(nodeInstances={"a": 1}), "InvalidData"),
        (snapshot(nodeInstances=[], startDate=None), "MissingTime"),
        (event("ProcessInstanceNodeDataEvent", {"eventType": [1]}), "InvalidData"),
        (event("ProcessInstanceStateDataEvent", {"eventType": {"a": 1}}), "InvalidData"),
        (event("ProcessInstanceNodeDataEvent", {"eventType": "x"}), "InvalidData"),
        (node(1, eventDate="soon"), "BadTime"),
        (
            event("ProcessInstanceNodeDataEvent", {"eventType": 1}, kogitoprocinstanceid=None),
            "MissingCaseId",
        ),
        (b'{"specversion":' * 3000, "InvalidJson"),
    ],
)
def test_a_bad_event_is_a_dead_letter(bad: bytes, error: str) -> None:
    decoded = decode(FORMAT, node(1), bad, node(2))
    assert errors(decoded) == [("t/0/1", error)]
    assert (decoded.decoded, decoded.dead, decoded.rejected) == (2, 1, 0)
    assert decoded.failures[0].payload == bad[: 2**16]
    assert decoded.failures[0].attributes == {"format": "kogito"}


def test_a_bad_node_of_a_snapshot_is_rejected_and_the_others_count() -> None:
    nodes = [{**NODES[0], "triggerTime": "soon"}, NODES[1]]
    decoded = decode(FORMAT, snapshot(nodeInstances=nodes))
    assert (decoded.decoded, decoded.dead, decoded.rejected) == (1, 0, 1)
    assert decoded.events.num_rows == 3
    assert errors(decoded) == [("t/0/0", "BadTime")]


def test_it_is_decoded_so_among_cloudevents_too() -> None:
    payloads = [snapshot(), node(1), snapshot(nodeInstances=5), state(2, 2)]
    alone, among = decode(FORMAT, *payloads), decode(CLOUDEVENTS, *payloads)
    assert among.events.to_pylist() == alone.events.to_pylist()
    assert errors(among) == errors(alone) == [("t/0/2", "InvalidData")]
    assert among.failures[0].payload == payloads[2]


def test_binary_mode() -> None:
    whole = orjson.loads(node(1))
    data = orjson.dumps(whole.pop("data"))
    headers = [{f"ce_{name}": value for name, value in whole.items()}]
    for form in (FORMAT, CLOUDEVENTS):
        assert rows(decode(form, data, headers=headers), *COLUMNS) == [
            ("e-1", "p-1", "Interview", "Interview", "ENTER")
        ]


def test_files() -> None:
    data = b"\n".join([snapshot(), node(1)])
    assert registry.detect(data, "events.jsonl") is FORMAT
    decoded = read_all(FORMAT, data)
    assert rows(decoded, "position")[0] == (0,)
    assert [row[0] for row in rows(decoded, "event_id")][-1] == "e-1"
    listed = orjson.dumps([orjson.loads(snapshot()), orjson.loads(node(1))])
    assert registry.detect(listed, "events.json") is FORMAT
    assert read_all(FORMAT, listed).events.num_rows == 5


def test_types() -> None:
    assert is_type("ProcessInstanceStateDataEvent")
    assert not is_type("ProcessInstanceState")
    assert not is_type("com.example.Event")
