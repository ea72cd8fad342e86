"""Tables as topics of Pub/Sub, on the official double."""

from __future__ import annotations

import time
from itertools import count
from typing import Any

import apache_beam as beam
import orjson
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from hypothesis import given
from hypothesis import strategies as st

from schemas.coders import pack
from schemas.tables import LATE, TABLES
from tests.services.pubsub import EMULATOR, PROJECT, PubSubService
from tests.sinks.test_kafka import late
from transforms.pubsub import BrokerFault, PubSubTarget
from transforms.sinks import pubsub as sink
from transforms.sinks.pubsub import Row, WriteNative, WritePubSub, _Publish, in_requests, messages
from transforms.sinks.text import json_lines

_numbers = count()


@pytest.fixture
def target(pubsub: PubSubService, monkeypatch: pytest.MonkeyPatch) -> PubSubTarget:
    """A target whose topics of `late` and `cases` have subscriptions of their names."""
    monkeypatch.setenv(EMULATOR, pubsub.address)
    prefix = f"out-{time.time_ns()}-{next(_numbers)}-"
    for table in ("late", "cases"):
        pubsub.create_topic(prefix + table, [prefix + table], enable_message_ordering=True)
    return PubSubTarget(PROJECT, prefix)


def element(rows: pa.Table, name: str = "late") -> tuple[str, int, int, bytes]:
    return name, 0, 1000, pack(rows.combine_chunks().to_batches()[0])


def taken(service: PubSubService, target: PubSubTarget, rows: int) -> list[Any]:
    return service.take(target.topic("late"), rows)


def test_rows_are_messages(pubsub: PubSubService, target: PubSubTarget) -> None:
    rows = late(2500)
    with beam.Pipeline(runner=FnApiRunner()) as root:
        elements = [element(rows.slice(0, 1800)), element(rows.slice(1800))]
        _ = root | beam.Create(elements) | WritePubSub(target, {"late": LATE})
    found = taken(pubsub, target, 2500)
    assert sorted(each.data for each in found) == sorted(
        line.encode().rstrip() for line in json_lines(rows.combine_chunks()).to_pylist()
    )
    for each in found:
        row = orjson.loads(each.data)
        assert dict(each.attributes) == {"row_id": row["row_id"], "table": "late"}
        assert each.ordering_key == ""


def test_with_ordering_a_request_has_one_key(pubsub: PubSubService, target: PubSubTarget) -> None:
    rows = late(60, cases=7)
    ordered = PubSubTarget(target.project, target.prefix, ordered=True)
    with beam.Pipeline(runner=FnApiRunner()) as root:
        _ = root | beam.Create([element(rows)]) | WritePubSub(ordered, {"late": LATE})
    found = taken(pubsub, target, 60)
    assert len(found) == 60
    for each in found:
        assert each.ordering_key == orjson.loads(each.data)["case_id"]


def test_a_bundle_is_done_when_the_service_has_its_rows(
    own_pubsub: PubSubService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the service does not take fails; the next has a client that works."""
    monkeypatch.setenv(EMULATOR, own_pubsub.address)
    monkeypatch.setattr(sink, "DELIVERY_S", 1.0)
    own_pubsub.create_topic("out-late", ["out-late"])
    step = _Publish(WritePubSub(PubSubTarget(PROJECT, "out-"), {"late": LATE}))
    step.start_bundle()
    list(step.process(element(late(10))))
    step.finish_bundle()
    assert len(own_pubsub.take("out-late", 10)) == 10
    own_pubsub.kill()
    step.start_bundle()
    list(step.process(element(late(10))))
    with pytest.raises(BrokerFault, match="did not take rows: no Pub/Sub emulator answers"):
        step.finish_bundle()
    own_pubsub.start()
    own_pubsub.create_topic("out-late", ["out-late"])
    step.start_bundle()
    list(step.process(element(late(10))))
    monkeypatch.setattr(sink, "DELIVERY_S", 20.0)
    step.finish_bundle()
    assert len(own_pubsub.take("out-late", 10)) >= 10
    step.teardown()


def test_a_topic_that_is_not_there(pubsub: PubSubService, target: PubSubTarget) -> None:
    gone = PubSubTarget(PROJECT, "nowhere-")
    step = _Publish(WritePubSub(gone, {"late": LATE}))
    step.start_bundle()
    list(step.process(element(late(1))))
    with pytest.raises(BrokerFault, match="topics/nowhere-late did not take rows"):
        step.finish_bundle()
    step.teardown()


def test_a_row_that_no_topic_takes() -> None:
    with pytest.raises(BrokerFault, match="a row of late has .* bytes, and Pub/Sub takes"):
        messages(late(1, 10_000_000), LATE, False)


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.integers(0, 3_000_000)), max_size=12))
def test_requests_hold_every_row_once_in_the_order_of_its_key(
    drawn: list[tuple[str, int]],
) -> None:
    rows = [Row(bytes(size), str(n), "late", key) for n, (key, size) in enumerate(drawn)]
    requests = list(in_requests(rows))
    flat = [row for listed in requests for request in listed for row in request]
    assert sorted(row.row_id for row in flat) == sorted(row.row_id for row in rows)
    for key in ("", "a", "b"):
        assert [r for r in flat if r.ordering_key == key] == [
            r for r in rows if r.ordering_key == key
        ]
    for listed in requests:
        assert len({row.ordering_key for request in listed for row in request}) == 1
        for request in listed:
            assert request
            assert len(request) == 1 or sum(len(r.data) for r in request) <= sink.REQUEST_BYTES
    for key in ("a", "b"):
        # One after the other: else they could overtake each other.
        assert sum(listed[0][0].ordering_key == key for listed in requests) <= 1


def test_many_small_rows_are_cut_by_number() -> None:
    rows = [Row(b"", str(n), "late", "") for n in range(2001)]
    assert [len(request) for listed in in_requests(rows) for request in listed] == [1000, 1000, 1]


def test_the_native_sink_makes_the_same_messages() -> None:
    from transforms.sinks.pubsub import _Messages  # noqa: PLC0415

    rows = late(5)
    step = _Messages({"late": LATE}, True)
    found = [each for each in step.process(element(rows))]
    assert [each.tag for each in found] == ["late"] * 5
    assert [
        Row(m.data, m.attributes["row_id"], m.attributes["table"], m.ordering_key)
        for m in (each.value for each in found)
    ] == messages(rows, LATE, True)
    assert WriteNative(PubSubTarget(PROJECT), TABLES).outputs is TABLES
