"""The format of each message: what claims it, and that nothing depends on batches or restarts."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.imixs_builder import json_mapped, log_line, snapshot, to_json, xml_document
from tests.formats.messages.builder import (
    RECORDED,
    batch,
    cloud_event,
    encoded,
    headers,
    zeebe,
    zeebe_record,
)
from tests.formats.messages.test_imixs_outbox import record
from tests.formats.messages.test_kogito import node, state
from transforms.formats import registry
from transforms.formats.base import Context, Decoded, Failure, Message, MessageBatch
from transforms.formats.heads import Heads, Mask
from transforms.formats.recognition import BLANK, recognise
from transforms.topics import (
    Share,
    TopicPlan,
    decode_topic,
    failures_in_order,
    in_order,
    plan_topic,
)

ITEMS = snapshot(_eventlog=[log_line(1, 100, 10, 200), log_line(2, 200, 20, 300)])
JSON = b'{"case_id": "c", "activity": "go", "event_time": 1700000000}'
LETTER = (
    b'{"row_id": "1", "payload": "", "payload_size": 0, "attributes": {}, "step": "decode",'
    b' "source": "x:1"}'
)


def found(payloads: Sequence[bytes], headers: Sequence[Any] = ()) -> list[str | None]:
    """Return the format of each message."""
    names: list[str | None] = [None] * len(payloads)
    for name, rows in recognise(batch(payloads, headers)).items():
        for row in rows.tolist():
            names[row] = name
    return names


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (cloud_event(), "cloudevents"),
        (orjson.dumps({"data": {"specversion": 1}, **orjson.loads(cloud_event())}), "cloudevents"),
        (b"[" + cloud_event() + b"]", "cloudevents"),
        (b"\n {\n" + cloud_event()[1:], "cloudevents"),
        (node(1), "cloudevents"),
        (zeebe(), "zeebe"),
        (orjson.dumps(dict(reversed(zeebe_record().items()))), "zeebe"),
        (record(), "imixs_outbox"),
        (record(more=1), "json_lines"),
        (JSON, "json_lines"),
        (b'{"payload": ' + zeebe() + b"}", "json_lines"),
        (b'{"payload": ' + cloud_event() + b"}", "json_lines"),
        (b'{"text": "{\\"specversion\\": 1}"}', "json_lines"),
        (b'{"valueType', "json_lines"),
        (to_json(json_mapped(ITEMS)), "imixs_json"),
        (b'{ "data" : [' + to_json(json_mapped(ITEMS)) + b"]}", "imixs_json"),
        (xml_document(ITEMS), "imixs_xml"),
        (LETTER, "dead_letters"),
        (b"hello", None),
        (b"a,b\n1,2", None),
        (b"[1, 2]", None),
        (b"\x00\xff", None),
        (b"", BLANK),
        (b" \n", BLANK),
    ],
)
def test_what_a_message_is_does_not_depend_on_those_around_it(
    payload: bytes, expected: str | None
) -> None:
    assert found([payload]) == [expected]
    around = [JSON, zeebe(), cloud_event(), xml_document(ITEMS), b"", b"x", record()]
    assert found([*around, payload, *around])[len(around)] == expected


def test_headers_say_more_than_the_payload() -> None:
    structured = {"content-type": "application/cloudevents+json"}
    given = [headers(), structured, {"ce-id": "1"}, {"trace": "1"}, {}]
    assert found([JSON] * 5, given) == ["cloudevents"] * 3 + ["json_lines"] * 2
    assert found([b"", b""], [headers(), {}]) == ["cloudevents", BLANK]


KINDS: dict[str, Callable[[int], bytes]] = {
    "zeebe": lambda i: zeebe({"processInstanceKey": i % 3}, position=i),
    "cloudevents": lambda i: cloud_event(id=f"e{i}", data={"caseId": f"c{i}", "who": "x"}),
    "kogito": lambda i: state(1 + i % 4, 1),
    "json": lambda i: orjson.dumps(
        {"case_id": f"c{i % 3}", "activity": "go", "event_time": 1_700_000_000 + i}
    ),
    "other json": lambda i: orjson.dumps({"Case ID": f"c{i}", "task": "t", "time": "2023-11-14"}),
    "xml": lambda i: xml_document(
        snapshot(_eventlog=[log_line(i % 9, 1, 2, 3)], _uniqueid=f"u{i}")
    ),
    "outbox": lambda i: record(id=f"r{i}"),
    "garbage": lambda i: b"garbage %d" % i,
    "broken": lambda i: b'{"case_id": %d' % i,
    "bad zeebe": lambda i: zeebe({"elementId": None}, position=i),
    "blank": lambda i: b"",
}


def decoded(messages: MessageBatch, plan: TopicPlan | None) -> tuple[Any, list[Any], list[int]]:
    """Decode a batch: events, failures, and counts."""
    shares: list[Share] = decode_topic(messages, plan, "auto", Context())
    tables = [s.decoded.events for s in shares if s.decoded.events.num_rows]
    events = in_order(messages, tables).to_pylist() if tables else []
    failures = failures_in_order(messages, [f for s in shares for f in s.decoded.failures])
    counts = np.sum(
        [
            (s.decoded.received, s.decoded.decoded, s.decoded.skipped, s.decoded.dead)
            for s in shares
        ],
        axis=0,
    )
    assert counts[0] == counts[1:].sum() == len(messages)
    assert sum(len(s.messages) for s in shares) == len(messages)
    return events, [(f.source, f.error, f.payload, f.attributes) for f in failures], counts.tolist()


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=24),
    st.lists(st.sampled_from(sorted(KINDS)), max_size=4),
    st.integers(0, 24),
    st.booleans(),
)
def test_nothing_depends_on_how_messages_are_batched(
    kinds: list[str], first: list[str], cut: int, binary: bool
) -> None:
    payloads = [KINDS[kind](i) for i, kind in enumerate(kinds)]
    given = [headers(id=f"b{i}") if i % 5 == 0 else {} for i in range(len(kinds))] if binary else ()
    sample = [Message(KINDS[kind](1000 + i), "t/0", i) for i, kind in enumerate(first)]
    plan, _ = plan_topic(sample, "auto", Context())
    events, failures, counts = decoded(batch(payloads, given), plan)
    parts = [
        decoded(batch(payloads[a:b], given[a:b], first=a), plan)
        for a, b in ((0, cut), (cut, len(payloads)))
        if payloads[a:b]
    ]
    assert events == [event for part in parts for event in part[0]]
    assert failures == [failure for part in parts for failure in part[1]]
    assert counts == np.sum([part[2] for part in parts], axis=0).tolist()
    offsets = [event["source_offset"] for event in events]
    assert offsets == sorted(offsets)


@pytest.mark.parametrize("main", ["zeebe", "cloudevents", "json", "xml", "outbox"])
def test_messages_of_other_formats_in_a_topic_that_had_one(main: str) -> None:
    sample = [Message(KINDS[main](i), "t/0", i) for i in range(20)]
    plan, _ = plan_topic(sample, "auto", Context())
    assert plan is not None and not plan.others
    kinds = [main] * 5 + [kind for kind in KINDS if kind != main] + [main] * 5
    events, failures, _ = decoded(batch([KINDS[k](i) for i, k in enumerate(kinds)]), plan)
    dead = ["garbage", "broken", "bad zeebe", *(["other json"] if main == "json" else [])]
    good = [k for k in kinds if k not in (*dead, "blank")]
    # An XML document and the others give one event each; the columns of JSON are fixed.
    assert len(events) == len(good)
    assert len(failures) == len(dead)


@pytest.mark.parametrize("others", [[], [cloud_event()]])
def test_xml_of_no_known_format_is_not_called_broken_json(others: list[bytes]) -> None:
    """Whether the topic had one format or several."""
    json = b'{"case_id": "a", "activity": "b", "timestamp": "2024-01-01"}'
    plan, _ = plan_topic(list(batch([json, *others])), "auto", Context())
    bad = [b"<order/>", b"\n<!DOCTYPE d [<!ENTITY a 'b'>]><document/>", b"<<", b"text", b"<a"]
    shares = decode_topic(batch([json, *bad]), plan, "auto", Context())
    errors = {f.source: f.error for share in shares for f in share.decoded.failures}
    assert errors == {
        "t/0/1": "InvalidDocument",
        "t/0/2": "ForbiddenDtd",
        "t/0/3": "InvalidXml",
        "t/0/4": "InvalidJson",
        "t/0/5": "InvalidDocument",
    }


def test_a_plan_names_the_formats_of_the_first_messages() -> None:
    payloads = [JSON, zeebe(), zeebe(), b"hello", b""]
    plan, warnings = plan_topic(
        [Message(p, "t/0", i) for i, p in enumerate(payloads)], "auto", Context()
    )
    assert plan is not None and not warnings
    assert (plan.format, list(plan.others), plan.each) == ("zeebe", ["json_lines"], True)
    assert plan.others["json_lines"].columns["case_id"] == "case_id"


def test_a_format_that_is_given_is_that_of_all() -> None:
    plan, _ = plan_topic([Message(JSON, "t/0", 0)], "json_lines", Context())
    assert plan is not None and not plan.each
    [share] = decode_topic(batch([JSON, zeebe()]), plan, "json_lines", Context())
    assert [f.error for f in share.decoded.failures] == ["MissingCaseId"]


def test_columns_of_a_format_not_seen_at_first_are_those_of_each_message() -> None:
    plan, _ = plan_topic([Message(zeebe(), "t/0", 0)], "auto", Context())
    payloads = [
        b'{"Case ID": 1, "task": "a", "time": "2023-11-14"}',
        b'{"caseId": 2, "activity": "b", "task": 5, "timestamp": 1700000000}',
        b'{"case": null, "case_id": 3, "activity": "c", "start": "2023-11-14T10:00:00Z"}',
        b'{"case\\u005fid": 4, "activity": "d", "date": "2023-11-14"}',
    ]
    events, failures, _ = decoded(batch(payloads), plan)
    assert not failures
    shown = [(e["case_id"], e["activity"], e["event_time"].isoformat()[:13]) for e in events]
    assert shown == [
        ("1", "a", "2023-11-14T00"),
        ("2", "b", "2023-11-14T22"),
        ("3", "c", "2023-11-14T10"),
        ("4", "d", "2023-11-14T00"),
    ]
    assert all(event["start_time"] is None for event in events)


UNIQUE = [
    "0b0e1d0c-94a7-4c55-8f1e-2f2b8c1f0a11",
    "0B0E1D0C94A74C558F1E2F2B8C1F0A11",
    "507f1f77bcf86cd799439011",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV",
]
KINDS_OF_EVENT = ["10", "E1", "order-created-v2", "", "0b0e1d0c-94a7-4c55", 7, None]


def test_ids_that_no_other_event_can_have_are_ids_whatever_was_seen_before() -> None:
    """Of a topic that was empty at the start; a kind of event would make events duplicates."""
    given = [*UNIQUE, *KINDS_OF_EVENT]
    payloads = [
        orjson.dumps({"case_id": i, "activity": "a", "time": "2023-11-14", "eventId": each})
        for i, each in enumerate(given)
    ]
    events, failures, _ = decoded(batch(payloads), None)
    assert not failures
    ids = [event["event_id"] for event in events]
    assert ids[: len(UNIQUE)] == UNIQUE
    assert not {str(each) for each in KINDS_OF_EVENT} & set(ids)
    assert len(set(ids)) == len(given)
    alone = [decoded(batch([each], first=i), None)[0][0] for i, each in enumerate(payloads)]
    assert alone == events
    named = Context(columns={"event_id": "eventId"})
    shares = decode_topic(batch(payloads), None, "json_lines", named)
    assert "E1" in shares[0].decoded.events["event_id"].to_pylist()


def test_a_replay_recognises_columns_as_the_stream_did() -> None:
    """An `event_id` that was not recognised is not recognised in a dead letter either."""
    payloads = [
        b'{"case_id": %d, "activity": "a", "time": "2023-11-1%d", "event_id": "e%d"}' % (i, i, i)
        for i in range(3)
    ]
    events, _, _ = decoded(batch(payloads), None)
    letters = [
        orjson.dumps(
            {
                "payload": encoded(payload),
                "attributes": {"format": "json_lines"},
                "source": f"t/0/{i}",
                "time": "2023-11-14T22:13:20Z",
                "payload_size": len(payload),
                "step": "decode",
                "row_id": str(i),
            }
        )
        for i, payload in enumerate(payloads)
    ]
    again = registry.get("dead_letters").decode(batch(letters, topic="dead"), Context())
    assert again.events["event_id"].to_pylist() == [event["event_id"] for event in events]
    assert "e1" not in again.events["event_id"].to_pylist()


class Shout:
    """A format of another package: with `claims` or without."""

    name = "shout"
    title = "SHOUTED JSON"
    expansion = 1.0
    python_bound = True

    def detects(self, head: bytes, name: str) -> bool:
        return head.startswith(b'{"SHOUT"')

    def decode(self, messages: Sequence[Message], context: Context) -> Decoded:
        failures = [Failure(m.payload, m.place, "Shouted", "loud", {}) for m in messages]
        events = registry.get("json_lines").decode([], context).events
        return Decoded(events, failures, dead=len(failures))


class Claims(Shout):
    def claims(self, heads: Heads) -> Mask:
        return heads.having(b'"SHOUT"')


@pytest.fixture(params=["Shout", "Claims"])
def _shout(request: pytest.FixtureRequest) -> Iterator[None]:
    registry.get.cache_clear()
    registry._installed.cache_clear()
    entry = importlib.metadata.EntryPoint(
        "shout", f"{__name__}:{request.param.upper()}", registry.ENTRY_POINTS
    )
    entries = importlib.metadata.EntryPoints([entry])
    with mock.patch.object(
        importlib.metadata, "entry_points", lambda group: entries.select(group=group)
    ):
        yield
    registry.get.cache_clear()
    registry._installed.cache_clear()


SHOUT, CLAIMS = Shout(), Claims()


@pytest.mark.usefixtures("_shout")
def test_a_format_of_another_package_is_asked_before_ours() -> None:
    payloads = [JSON, b'{"SHOUT": 1}', zeebe(), b'{"SHOUT": 2}']
    assert found(payloads) == ["json_lines", "shout", "zeebe", "shout"]
    _, failures, _ = decoded(batch(payloads), None)
    assert [(f[0], f[1]) for f in failures] == [("t/0/1", "Shouted"), ("t/0/3", "Shouted")]


def test_two_partitions_and_record_times_stay_apart() -> None:
    messages = batch([JSON, zeebe(), JSON])
    assert set(messages.record_times.to_pylist()) == {RECORDED}
    assert messages.record_times_by_place().keys() == {"t/0/0", "t/0/1", "t/0/2"}
