"""Topics as a live source, on the broker that librdkafka brings along for tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pyarrow as pa
import pytest

from pipelines.report.data import Look, document
from pipelines.report.live import topics as topics_module
from pipelines.report.live.topics import Topics, newest_kept
from schemas.tables import TABLES
from tests.report.tables import BEGIN, cases, tables
from transforms.kafka import KafkaTarget
from transforms.sinks.kafka import messages

kafka = pytest.importorskip("confluent_kafka")


@pytest.fixture
def broker() -> Iterator[tuple[Any, KafkaTarget]]:
    """A producer, and where its broker is: one within the client library, over real sockets."""
    producer = kafka.Producer({"test.mock.num.brokers": 1, "linger.ms": 1})
    found = next(iter(producer.list_topics(timeout=10).brokers.values()))
    yield producer, KafkaTarget((f"{found.host}:{found.port}",), prefix="out-")
    producer.flush(5)


def produce(producer: Any, target: KafkaTarget, made: dict[str, pa.Table]) -> None:
    for name, rows in made.items():
        for message in messages(rows, TABLES[name]):
            producer.produce(target.topic(name), **message)
    producer.flush(10)


def read(source: Topics, enough: Callable[[Topics], bool]) -> None:
    until = time.monotonic() + 60
    while not enough(source) and time.monotonic() < until:
        source.refresh()
    assert enough(source)


def rows(source: Topics, name: str) -> int:
    found = source.contents().tables.get(name)
    return 0 if found is None else found.num_rows


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics_module, "REFRESH_S", 0.2)


def test_rows_of_topics_are_those_of_files(broker: tuple[Any, KafkaTarget]) -> None:
    producer, target = broker
    made = tables(cases(20, (("in", 'a "b"\n', "done"), ("in", "ü"))))
    produce(producer, target, made)
    source = Topics(target)
    try:
        read(source, lambda s: all(rows(s, name) == made[name].num_rows for name in made))
        page = document(source.contents(), Look("T"))
        assert sum(page["process_map"]["count"]) == sum(made["process_map"]["count"].to_pylist())
        assert page["states"]["names"] == ['a "b"\n', "done", "in", "ü", None]
        last = max(row["window_end"] for row in made["flow"].to_pylist())
        assert source.known_until() == int(last.timestamp() * 1000)
    finally:
        source.close()


def test_newer_panes_replace_older_ones_and_rubbish_is_counted(
    broker: tuple[Any, KafkaTarget],
) -> None:
    producer, target = broker
    flow = tables(cases(3, (("in", "done"),)))["flow"]
    listed = flow.to_pylist()
    newer = pa.Table.from_pylist(
        [{**row, "pane_index": 1, "transitions": 70} for row in listed], schema=flow.schema
    )
    produce(producer, target, {"flow": newer})
    for rubbish in (b"{", b"[1]", b'{"row_id": 1}', b'{"row_id":"x"}', b"", b'{"a":1}\n{"b":2}'):
        producer.produce("out-flow", rubbish)
    producer.produce("out-flow", None, key=b"deleted")
    produce(producer, target, {"flow": flow})
    source = Topics(target)
    try:
        read(source, lambda s: s._unread == 6 and rows(s, "flow") == len(listed))
        contents = source.contents()
        assert set(contents.tables["flow"]["transitions"].to_pylist()) == {70}
        assert any("6 messages are no rows" in note for note in contents.notes)
    finally:
        source.close()


def test_a_topic_that_comes_later_is_found(broker: tuple[Any, KafkaTarget]) -> None:
    producer, target = broker
    source = Topics(target)
    try:
        source.refresh()
        produce(producer, target, {"flow": tables(cases(2, (("in", "done"),)))["flow"]})
        read(source, lambda s: rows(s, "flow") > 0)
    finally:
        source.close()


def test_memory_is_bounded_and_that_is_said(broker: tuple[Any, KafkaTarget]) -> None:
    producer, target = broker
    flow = tables(cases(30, (("in", "done"),)))["flow"]
    produce(producer, target, {"flow": flow})
    source = Topics(target, most=5)
    try:
        read(source, lambda s: source._lost.get("flow", 0) == flow.num_rows - 5)
        kept = source.contents().tables["flow"]["window_end"].to_pylist()
        assert sorted(kept) == sorted(flow["window_end"].to_pylist())[-5:]
        assert any("5 newest rows" in note for note in source.contents().notes)
    finally:
        source.close()


def test_the_newest_rows_are_kept_in_their_order() -> None:
    found = pa.table({"row_id": ["a", "b", "c"], "updated_at": [3, 1, 2]})
    assert newest_kept(found, 2)["row_id"].to_pylist() == ["a", "c"]
    assert newest_kept(found.select(["row_id"]), 2)["row_id"].to_pylist() == ["b", "c"]
    assert newest_kept(found, 3) is found


def test_messages_are_as_the_sink_writes_them() -> None:
    first = messages(tables(cases(1, (("in",),)))["flow"], TABLES["flow"])[0]
    assert orjson.loads(first["value"])["window_start"] == BEGIN.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
