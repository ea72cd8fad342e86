"""Clients that lose their brokers for good (librdkafka's issue 5301), on a real broker.

The gate's answer without brokers makes every consumer of librdkafka 2.10 to 2.16 deaf, and every
second producer; should a newer one be cured, what is asked here holds as well.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import orjson
import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition, libversion

from pipelines.report.live.topics import Topics
from schemas.coders import pack
from schemas.tables import LATE
from tests.pipelines.streams import within
from tests.services.kafka_gate import KafkaGate
from tests.sinks.test_kafka import late, read
from tests.sources.test_kafka import produce
from transforms.kafka import KafkaAddress, KafkaTarget, Monitor, hearing
from transforms.kafka.hearing import Hearing
from transforms.sinks.kafka import WriteKafka, _Produce
from transforms.sources.kafka import KafkaMark, KafkaSource
from transforms.sources.kafka.marks import committer_of, consumer_of
from transforms.sources.messages import unpack_messages

pytestmark = pytest.mark.xdist_group("kafka_gate")
"""One worker, one broker."""

PATIENCE_S = 40.0
ROUNDS = 20

CURED = 0x02110000
"""librdkafka that may be."""


@pytest.fixture
def gate(kafka_gate: KafkaGate) -> KafkaGate:
    return kafka_gate


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "DEAF_S", 2.0)


@pytest.fixture
def topic(gate: KafkaGate) -> str:
    name = f"hearing-{time.time_ns()}"
    gate.broker.create_topic(name, 2)
    return name


def until(condition: Callable[[], bool]) -> None:
    """Wait without a pause: it is by the condition that clients go on."""
    within(condition, PATIENCE_S, 0)


def forsake(gate: KafkaGate, going_on: Callable[[], object]) -> None:
    """Let the next answer on brokers name none, and go on until it has come."""
    before = gate.forsaken
    gate.forsake()

    def forsaken() -> bool:
        going_on()
        return gate.forsaken > before

    until(forsaken)


def until_replaced(caplog: pytest.LogCaptureFixture, once: Callable[[int], None]) -> None:
    """Do something, for the first, second ... time, until a new client has taken over.

    Whether a client becomes deaf is a matter of which of its threads is first.
    """
    caplog.set_level(logging.WARNING)
    for number in range(1, ROUNDS + 1):
        once(number)
        if "a new one goes on in its place" in caplog.text:
            return
    if libversion()[1] < CURED:
        pytest.fail(f"no client became deaf in {ROUNDS} rounds")


def test_a_reader_goes_on_with_a_new_client(
    gate: KafkaGate, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    address = KafkaAddress.parse(f"kafka://{gate.address}/{topic}?start=earliest&refresh=1s")

    def send(number: int) -> None:
        produce(gate.broker, topic, [f"{number}a", f"{number}c"])
        produce(gate.broker, topic, [f"{number}b"], 1)

    send(0)
    reader = KafkaSource(address, disorder_ms=1000).create_reader(None, None)
    found: list[str] = []

    def go_on(advance: Callable[[], bool] = reader.advance) -> int:
        if advance():
            found.extend(each.payload.decode() for each in unpack_messages(reader.get_current()))
        return len(found)

    go_on(reader.start)
    until(lambda: go_on() == 3)
    done = 1

    def once(number: int) -> None:
        nonlocal done
        forsake(gate, go_on)
        send(number)
        done += 1
        until(lambda: go_on() >= 3 * done)

    until_replaced(caplog, once)
    # Nothing is read twice, and nothing is left out.
    assert sorted(found) == [f"{number}{letter}" for number in range(done) for letter in "abc"]
    mark = reader.get_checkpoint_mark()
    assert isinstance(mark, KafkaMark)
    assert mark.positions is not None
    assert {n: place[0] for n, place in mark.positions[topic].items()} == {0: 2 * done, 1: done}
    reader.close()


def test_offsets_are_committed_by_a_new_client(
    gate: KafkaGate, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    address = KafkaAddress.parse(f"kafka://{gate.address}/{topic}?group=g-{topic}")
    committer = committer_of(address)

    def committed() -> int:
        settings = {"bootstrap.servers": gate.address, "group.id": address.group}
        consumer = Consumer(settings)
        (place,) = consumer.committed([TopicPartition(topic, 0)], 10)
        consumer.close()
        return int(place.offset)

    def commit(offset: int) -> None:
        KafkaMark(address, {topic: {0: (offset, None)}}).finalize_checkpoint()

    def once(number: int) -> None:
        commit(2 * number)
        # Of itself it asks once in five minutes.
        forsake(gate, lambda: committer._consumer.list_topics(timeout=1))

        def commits() -> bool:
            commit(2 * number + 1)
            return committer._done[topic, 0] == 2 * number + 1

        until(commits)
        assert committed() == 2 * number + 1

    until_replaced(caplog, once)


def test_rows_are_delivered_by_a_new_producer(
    gate: KafkaGate, caplog: pytest.LogCaptureFixture
) -> None:
    target = KafkaTarget.parse(f"kafka://{gate.address}/rows-{time.time_ns()}-")
    gate.broker.create_topic(target.topic("late"), 2)
    step = _Produce(WriteKafka(target, {"late": LATE}))
    rows = late(100 * ROUNDS)
    done = 0

    def once(number: int) -> None:
        nonlocal done
        step.start_bundle()
        for start in range(done, done + 100, 10):
            list(step.process(("late", 0, start, pack(rows.slice(start, 10)))))
            if start % 100 == 50:
                forsake(gate, lambda: _ask(step))
        step.finish_bundle()
        done = 100 * number

    until_replaced(caplog, once)
    step.teardown()
    there = [
        orjson.loads(value)["row_id"] for _, _, value in read(gate.broker, target.topic("late"))
    ]
    assert set(there) == set(rows["row_id"].to_pylist()[:done])


def _ask(step: _Produce) -> None:
    try:
        step._producer.list_topics(timeout=1)
    except KafkaException:  # deaf since the round before, when nothing was left to deliver
        step._wait(0.1)


def test_the_live_page_goes_on_with_a_new_client(
    gate: KafkaGate, caplog: pytest.LogCaptureFixture
) -> None:
    target = KafkaTarget.parse(f"kafka://{gate.address}/page-{time.time_ns()}-")
    gate.broker.create_topic(target.topic("late"), 2)
    topics = Topics(target)

    def write(number: int) -> None:
        step = _Produce(WriteKafka(target, {"late": LATE}))
        step.start_bundle()
        rows = late(20 * number + 20).slice(20 * number)
        list(step.process(("late", 0, number, pack(rows))))
        step.finish_bundle()
        step.teardown()

    def shown() -> int:
        topics.refresh()
        contents = topics.contents().tables
        return contents["late"].num_rows if "late" in contents else 0

    def ask() -> None:
        topics._asked = float("-inf")
        shown()

    def once(number: int) -> None:
        forsake(gate, ask)
        write(number)
        until(lambda: shown() == 20 * number + 20)

    write(0)
    until(lambda: shown() == 20)
    until_replaced(caplog, once)
    topics.close()


def test_a_client_whose_broker_is_away_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "DEAF_S", 0.2)
    made: list[object] = []

    def make() -> object:
        nowhere = KafkaAddress.parse("kafka://127.0.0.1:1/t")
        made.append(consumer_of(nowhere, Monitor(nowhere.servers, silent=True)))
        return made[-1]

    old = make()
    there = Hearing(("127.0.0.1:1",), make)
    assert there.successor(old) is None
    time.sleep(0.3)
    assert there.successor(old) is None
    assert len(made) == 2


def test_a_client_that_is_answered_stays(gate: KafkaGate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "DEAF_S", 0.2)
    address = KafkaAddress.parse(f"kafka://{gate.address}/t")
    good = consumer_of(address, Monitor(address.servers, silent=True))
    there = Hearing(address.servers, lambda: pytest.fail("nobody asked for another"))
    assert there.successor(good) is None
    time.sleep(0.3)
    assert there.successor(good) is None
    good.close()
