"""Tables as topics of a real broker."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from itertools import count

import apache_beam as beam
import orjson
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from confluent_kafka import Consumer
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.coders import pack
from schemas.tables import DEAD_LETTERS, LATE, TABLES, Output
from tests.services.kafka import KafkaBroker
from tests.services.ports import free_ports as free
from tests.sinks.rows import plain_rows, tables
from transforms.kafka import BrokerFault, KafkaTarget
from transforms.sinks.kafka import WriteKafka, _Produce, create_topics, messages
from transforms.sinks.text import json_lines

_numbers = count()
PAIR = Output(
    "pair",
    pa.schema([("a", pa.string()), ("b", pa.int64())]),
    "upsert",
    ("a", "b"),
    "a table with a key of two columns",
)


@pytest.fixture
def prefix() -> str:
    return f"out-{time.time_ns()}-{next(_numbers)}-"


def late(rows: int, size: int = 10, cases: int = 7) -> pa.Table:
    # A large row must not be small when it is compressed.
    text = os.urandom(size // 2).hex()
    columns = []
    for field in LATE.schema:
        if pa.types.is_timestamp(field.type):
            column = pa.array(range(rows), pa.int64()).cast(pa.timestamp("us")).cast(field.type)
        elif field.name == "case_id":
            column = pa.array([f"case {n % cases}" for n in range(rows)])
        elif field.name == "row_id":
            column = pa.array([f"{n:032x}" for n in range(rows)])
        else:
            column = pa.array([text] * rows)
            if pa.types.is_dictionary(field.type):
                column = column.dictionary_encode()
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=LATE.schema)


def read(broker: KafkaBroker, topic: str) -> list[tuple[int, bytes | None, bytes]]:
    """Read a topic to its end: partition, key, value."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.address,
            "group.id": topic,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    consumer.subscribe([topic])
    partitions = len(consumer.list_topics(topic, 10).topics[topic].partitions)
    found: list[tuple[int, bytes | None, bytes]] = []
    ends = 0
    while ends < partitions:
        for message in consumer.consume(1000, 0.1):
            if message.error():
                ends += 1
            else:
                found.append((message.partition() or 0, message.key(), message.value() or b""))
    consumer.close()
    return found


@pytest.mark.parametrize("name", sorted(TABLES))
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_row_is_what_json_lines_write(name: str, data: st.DataObject) -> None:
    table = data.draw(tables(TABLES[name]))
    output = TABLES[name]
    found = messages(table, output)
    lines = json_lines(table.combine_chunks()).to_pylist() if len(table) else []
    assert [each["value"].decode() + "\n" for each in found] == lines
    assert [orjson.loads(each["value"]) for each in found] == plain_rows(table)
    keys = [None if key is None else key.encode() for key in table[output.key[0]].to_pylist()]
    assert [each["key"] for each in found] == keys


def test_a_key_of_several_columns() -> None:
    table = pa.table({"a": ['x"', "y"], "b": [1, None]}, schema=PAIR.schema)
    assert [each["key"] for each in messages(table, PAIR)] == [b'["x\\"",1]', b'["y",null]']


class _Rows(beam.DoFn):
    def __init__(self, batches: list[tuple[str, int, int, bytes]]) -> None:
        self._batches = batches

    def process(self, _: bytes) -> Iterator[tuple[str, int, int, bytes]]:
        yield from self._batches


def test_in_a_pipeline(kafka: KafkaBroker, prefix: str) -> None:
    target = KafkaTarget.parse(f"kafka://{kafka.address}/{prefix}?partitions=3")
    assert sorted(create_topics(target, TABLES)) == sorted(prefix + name for name in TABLES)
    table = late(300)
    batches = [("late", 0, 0, pack(table.slice(at, 100))) for at in (0, 100, 200)]
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        done = pipeline | beam.Create([b""]) | beam.ParDo(_Rows(batches))
        done | WriteKafka(target, TABLES)
    found = read(kafka, f"{prefix}late")
    rows = [orjson.loads(value) for _, _, value in found]
    assert sorted(rows, key=lambda row: row["row_id"]) == plain_rows(table)
    assert all(key == row["case_id"].encode() for (_, key, _), row in zip(found, rows, strict=True))
    places: dict[str, set[int]] = {}
    order: dict[str, list[str]] = {}
    for (partition, _, _), row in zip(found, rows, strict=True):
        places.setdefault(row["case_id"], set()).add(partition)
        order.setdefault(row["case_id"], []).append(row["row_id"])
    assert all(len(each) == 1 for each in places.values()), "a case stays in its partition"
    assert all(each == sorted(each) for each in order.values()), "and in order"


def test_topics_are_created_once(kafka: KafkaBroker, prefix: str) -> None:
    kafka.create_topic(f"{prefix}late", 1, retention_ms="1000")
    target = KafkaTarget.parse(f"kafka://{kafka.address}/{prefix}?partitions=2")
    outputs = {name: TABLES[name] for name in ("late", "cases", "transitions")}
    assert sorted(create_topics(target, outputs)) == [f"{prefix}cases", f"{prefix}transitions"]
    assert create_topics(target, outputs) == []
    admin = kafka.admin()
    wanted = [ConfigResource(ConfigResource.Type.TOPIC, prefix + name) for name in outputs]
    settings_of = {
        resource.name[len(prefix) :]: {name: entry.value for name, entry in done.result(10).items()}
        for resource, done in admin.describe_configs(wanted).items()
    }
    assert settings_of["late"]["retention.ms"] == "1000"
    assert settings_of["cases"]["cleanup.policy"] == "compact"
    assert settings_of["transitions"]["cleanup.policy"] == "delete"
    assert settings_of["transitions"]["retention.ms"] == "-1"
    assert settings_of["transitions"]["message.timestamp.type"] == "LogAppendTime"
    topics = admin.list_topics(timeout=10).topics
    assert [len(topics[prefix + name].partitions) for name in ("cases", "late")] == [2, 1]


def test_a_topic_that_cannot_be_created(kafka: KafkaBroker, prefix: str) -> None:
    target = KafkaTarget.parse(f"kafka://{kafka.address}/{prefix}?replication=3")
    with pytest.raises(BrokerFault, match=f"{prefix}late: .*[Rr]eplication"):
        create_topics(target, {"late": LATE})


def test_no_broker_to_create_topics() -> None:
    target = KafkaTarget.parse(f"kafka://127.0.0.1:{free(1)[0]}/x")
    with pytest.raises(BrokerFault, match="no Kafka broker answers"):
        create_topics(target, TABLES, 2)


def produce(step: WriteKafka, batches: list[tuple[str, int, int, bytes]]) -> None:
    """Run one bundle, as a worker would."""
    dofn = _Produce(step)
    dofn.start_bundle()
    try:
        for batch in batches:
            assert list(dofn.process(batch)) == []
        dofn.finish_bundle()
    finally:
        dofn.teardown()


def test_more_rows_than_the_queue_holds(
    kafka: KafkaBroker, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.sinks.kafka.WAITING_ROWS", 1000)
    target = KafkaTarget.parse(f"kafka://{kafka.address}/{prefix}?partitions=1")
    create_topics(target, {"late": LATE})
    produce(WriteKafka(target, TABLES), [("late", 0, 0, pack(late(30_000)))])
    ids = [orjson.loads(value)["row_id"] for _, _, value in read(kafka, f"{prefix}late")]
    assert len(ids) == len(set(ids)) == 30_000
    assert ids == sorted(ids), "in order"


def test_a_large_row(kafka: KafkaBroker, prefix: str) -> None:
    target = KafkaTarget.parse(f"kafka://{kafka.address}/{prefix}")
    create_topics(target, {"late": LATE})
    produce(WriteKafka(target, TABLES), [("late", 0, 0, pack(late(2, 500_000)))])
    assert len(read(kafka, f"{prefix}late")) == 2
    kafka.create_topic(f"{prefix}small-late", 1)
    small = KafkaTarget.parse(f"kafka://{kafka.address}/{prefix}small-")
    with pytest.raises(BrokerFault, match=r"max\.message\.bytes"):
        produce(WriteKafka(small, TABLES), [("late", 0, 0, pack(late(2, 500_000)))])


def test_a_topic_that_is_not_there_fails_the_bundle(
    kafka: KafkaBroker, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.sinks.kafka.PROPAGATION_MS", 1000)
    target = KafkaTarget.parse(f"kafka://{kafka.address}/{prefix}")
    with pytest.raises(BrokerFault, match="rows of .*late: .*[Uu]nknown topic.*run the stream"):
        produce(WriteKafka(target, TABLES), [("late", 0, 0, pack(late(2)))])


def test_a_broker_that_is_away_is_only_a_delay(own_kafka: KafkaBroker, prefix: str) -> None:
    target = KafkaTarget.parse(f"kafka://{own_kafka.address}/{prefix}?partitions=2")
    create_topics(target, {"late": LATE, "dead_letters": DEAD_LETTERS})
    dofn = _Produce(WriteKafka(target, TABLES))
    dofn.start_bundle()
    list(dofn.process(("late", 0, 0, pack(late(100)))))
    dofn.finish_bundle()
    own_kafka.kill()
    back = threading.Timer(3, own_kafka.start)
    back.start()
    dofn.start_bundle()
    list(dofn.process(("late", 0, 0, pack(late(200)))))
    start = time.monotonic()
    dofn.finish_bundle()
    assert time.monotonic() - start > 3
    back.join()
    dofn.teardown()
    assert len(read(own_kafka, f"{prefix}late")) == 300, "the retries doubled nothing"
