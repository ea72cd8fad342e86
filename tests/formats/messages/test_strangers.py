"""Members of any type in messages of any format: none fails a batch, or changes those beside it."""

from __future__ import annotations

import copy
import json
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.messages.builder import batch, cloud_event, encoded, headers, zeebe_record
from transforms.formats.base import Context
from transforms.topics import decode_topic

TIME = "2024-07-17T17:25:21Z"
CHANGE = {
    "eventType": 1,
    "eventDate": TIME,
    "processInstanceId": "p-1",
    "processId": "hiring",
    "nodeName": "Interview",
}
SNAPSHOT = {
    "id": "p-1",
    "processId": "hiring",
    "state": 2,
    "startDate": TIME,
    "endDate": TIME,
    "nodeInstances": [{"id": "n-1", "nodeName": "Interview", "triggerTime": TIME}],
    "variables": {"amount": 1},
}


def _kogito(kind: str, data: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "e-1", "source": "/h", "type": kind, "data": data}


NODE = _kogito("ProcessInstanceNodeDataEvent", CHANGE)
MESSAGES: list[dict[str, Any]] = [
    zeebe_record(),
    {"_source": zeebe_record(intent="ELEMENT_COMPLETED")},
    orjson.loads(cloud_event(data={"amount": 1, "order": {"id": 7}})),
    orjson.loads(
        cloud_event(data_base64=encoded(b'{"amount":1}'), datacontenttype="application/json")
    ),
    NODE,
    _kogito("ProcessInstanceStateDataEvent", CHANGE),
    _kogito("ProcessInstanceEvent", SNAPSHOT),
    _kogito("MultipleProcessInstanceDataEvent", [NODE, NODE]),
    {"id": "r", "ref": "u", "created": TIME, "topic": "mail", "data": {"$uniqueid": ["u"]}},
    {"item": [{"name": "$uniqueid", "value": ["u"]}, {"name": "$lasteventdate", "value": [TIME]}]},
    {"case_id": "a", "activity": "b", "timestamp": TIME, "amount": {"of": [1]}},
]
BINARY = [({"amount": 1}, headers()), (SNAPSHOT, headers(type="ProcessInstanceEvent"))]
JUNK: list[Any] = [None, True, -1, 1.5, 2**63, "", "x", TIME, "1717228817612", "\0", [], [1], {}]
JUNK += [10**30, 9 * 10**18, [{}], [None], {"a": {}}, {"$date": 1}]


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the ways to everything in a message."""
    inside: list[Any] = []
    if isinstance(value, dict | list):
        inside = list(value) if isinstance(value, dict) else list(range(len(value)))
    return [place for key in inside for place in [(*at, key), *_places(value[key], (*at, key))]]


@st.composite
def strangers(draw: st.DrawFn) -> tuple[bytes, dict[str, str]]:
    """Draw a message, some of whose members are of another type, or missing."""
    plain: list[tuple[dict[str, Any], dict[str, str]]] = [(each, {}) for each in MESSAGES]
    message, attributes = copy.deepcopy(draw(st.sampled_from([*plain, *BINARY])))
    for _ in range(draw(st.integers(0, 3))):
        places = _places(message)
        if not places:
            break
        *way, last = draw(st.sampled_from(places))
        within: Any = message
        for key in way:
            within = within[key]
        if draw(st.booleans()):
            within[last] = copy.deepcopy(draw(st.sampled_from(JUNK)))
        else:
            del within[last]
    return json.dumps(message).encode(), attributes


def _outcome(messages: list[tuple[bytes, dict[str, str]]], first: int = 0) -> list[Any]:
    """Return counts, events and letters, with all that their ids are made of."""
    payloads, attributes = zip(*messages, strict=True)
    context = Context(items=("amount", "order.id"))
    counts = [0, 0, 0, 0]
    events, failures = [], []
    for share in decode_topic(batch(payloads, attributes, first=first), None, "auto", context):
        found = share.decoded
        assert found.received == found.decoded + found.skipped + found.dead
        each = (found.decoded, found.skipped, found.dead, found.rejected)
        counts = [a + b for a, b in zip(counts, each, strict=True)]
        events += [repr(sorted(row.items())) for row in found.events.drop("log").to_pylist()]
        failures += [(one.source, one.error, one.message, one.payload) for one in found.failures]
    return [counts, sorted(events), sorted(failures)]


@settings(max_examples=150, deadline=None)
@given(st.lists(strangers(), min_size=1, max_size=8))
def test_a_stranger_is_decoded_skipped_or_dead_whatever_is_beside_it(
    messages: list[tuple[bytes, dict[str, str]]],
) -> None:
    alone = [_outcome([each], at) for at, each in enumerate(messages)]
    counts = [sum(column) for column in zip(*(one[0] for one in alone), strict=True)]
    events = sorted(row for one in alone for row in one[1])
    failures = sorted(letter for one in alone for letter in one[2])
    assert _outcome(messages) == [counts, events, failures]
