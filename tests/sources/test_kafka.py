"""The Kafka source on a real broker: read like Beam's wrapper reads, and by the FnApiRunner."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP
from confluent_kafka import Producer, TopicPartition

from tests.services.kafka import KafkaBroker
from transforms.formats.base import Message
from transforms.kafka import KafkaAddress
from transforms.sources import reading
from transforms.sources.kafka import KafkaMark, KafkaSource, ReadKafka
from transforms.sources.messages import extent, unpack_messages
from transforms.sources.standing import StandingReader
from transforms.sources.step import _CURRENT, _Read

_numbers = count()


@pytest.fixture
def topic() -> str:
    return f"read-{time.time_ns()}-{next(_numbers)}"


def produce(
    broker: KafkaBroker,
    topic: str,
    payloads: list[str | None],
    partition: int = 0,
    timestamp: int = 0,
    headers: list[tuple[str, str | bytes | None]] | None = None,
) -> None:
    producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 0})
    failed: list[object] = []
    for payload in payloads:
        producer.produce(
            topic,
            payload,
            partition=partition,
            timestamp=timestamp,
            headers=headers,
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
    assert producer.flush(20) == 0
    assert failed == []


def source_of(broker: KafkaBroker, topics: str, query: str = "", **settings: object) -> KafkaSource:
    group = "" if "group=" in query else f"&group=g-{topics.replace('*', '')}"
    address = KafkaAddress.parse(f"kafka://{broker.address}/{topics}?idle=200ms{group}{query}")
    return KafkaSource(address, disorder_ms=1000, **settings)  # type: ignore[arg-type]


class Driver:
    """Drives a reader as Beam's wrapper does."""

    def __init__(self, source: KafkaSource, mark: KafkaMark | None = None) -> None:
        self.reader: StandingReader = source.create_reader(None, mark)
        self._started = False

    def batch(self) -> list[Message]:
        """Return the next batch; empty if there is none now."""
        found = self.reader.advance() if self._started else self.reader.start()
        self._started = True
        return list(unpack_messages(self.reader.get_current())) if found else []

    def until(self, done: Callable[[list[Message]], bool], within: float = 20) -> list[Message]:
        """Read until it is enough."""
        messages: list[Message] = []
        deadline = time.monotonic() + within
        while not done(messages):
            assert time.monotonic() < deadline, f"only {messages}"
            messages += self.batch()
        return messages

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()


def payloads(messages: list[Message]) -> list[str]:
    return [message.payload.decode() for message in messages]


def restored(source: KafkaSource, mark: KafkaMark) -> KafkaMark:
    coder = source.get_checkpoint_mark_coder()
    encoded = coder.encode(mark)
    assert coder.encode(coder.decode(encoded)) == encoded
    return coder.decode(encoded)


def test_what_a_message_becomes(kafka: KafkaBroker, topic: str) -> None:
    kafka.create_topic(topic, 1)
    produce(kafka, topic, ["a"], headers=[("h", b"1"), ("n", None)], timestamp=1_700_000_000_000)
    produce(kafka, topic, [None], timestamp=1_600_000_000_000)
    with Driver(source_of(kafka, topic)) as driver:
        first, second = driver.until(lambda found: len(found) == 2)
        time_us = 1_700_000_000_000_000
        assert first == Message(b"a", f"{topic}/0", 0, {"h": "1", "n": ""}, time_us)
        assert second == Message(b"", f"{topic}/0", 1, {}, time_us), "its time is raised"
        assert driver.reader.get_current_timestamp().micros == time_us - 1_000_000


def test_restart_from_a_mark(kafka: KafkaBroker, topic: str) -> None:
    kafka.create_topic(topic, 3)
    for partition in range(3):
        produce(kafka, topic, [f"{partition}-{n}" for n in range(50)], partition)
    source = source_of(kafka, topic, batch=20)
    seen: list[str] = []
    mark: KafkaMark | None = None
    while len(seen) < 150:
        with Driver(source, mark) as driver:
            watermark = driver.reader.get_watermark()
            seen += payloads(driver.until(bool))
            assert driver.reader.get_watermark() >= watermark
            mark = restored(source, driver.reader.get_checkpoint_mark())
    assert sorted(seen) == sorted(f"{p}-{n}" for p in range(3) for n in range(50))


def test_an_offset_is_committed_by_finalization_alone(kafka: KafkaBroker, topic: str) -> None:
    kafka.create_topic(topic, 1)
    produce(kafka, topic, ["a", "b"], timestamp=1_700_000_000_000)
    source = source_of(kafka, topic)
    with Driver(source) as driver:
        driver.until(lambda found: len(found) == 2)
        mark = driver.reader.get_checkpoint_mark()
    with Driver(source) as driver:
        assert payloads(driver.until(lambda found: len(found) == 2)) == ["a", "b"]
    mark.finalize_checkpoint()
    mark.finalize_checkpoint()
    produce(kafka, topic, ["c"], timestamp=1_600_000_000_000)
    with Driver(source) as driver:
        (message,) = driver.until(bool)
        assert message.payload == b"c"
        # The running maximum of record times was committed with the offset.
        assert message.record_time == 1_700_000_000_000_000
        newer = driver.reader.get_checkpoint_mark()
    newer.finalize_checkpoint()
    mark.finalize_checkpoint()  # never backwards
    with Driver(source) as driver:
        assert driver.batch() == []


def test_starts(kafka: KafkaBroker, topic: str) -> None:
    kafka.create_topic(topic, 1)
    produce(kafka, topic, ["old"], timestamp=1_600_000_000_000)
    produce(kafka, topic, ["new"], timestamp=1_700_000_000_000)
    with Driver(source_of(kafka, topic, "&start=2023-01-01T00:00Z")) as driver:
        assert payloads(driver.until(bool)) == ["new"]
    with Driver(source_of(kafka, topic, "&start=latest")) as driver:
        assert driver.batch() == []
        produce(kafka, topic, ["newest"])
        assert payloads(driver.until(bool)) == ["newest"]
        driver.reader.get_checkpoint_mark().finalize_checkpoint()
    with Driver(source_of(kafka, topic)) as driver:
        assert driver.batch() == [], "the group has read everything"
    with Driver(source_of(kafka, topic, "&start=earliest")) as driver:
        assert payloads(driver.until(lambda found: len(found) == 3)) == ["old", "new", "newest"]


@pytest.mark.parametrize("splits", [1, 2, 5])
def test_slices_own_everything_once(kafka: KafkaBroker, topic: str, splits: int) -> None:
    kafka.create_topic(topic, 3)
    kafka.create_topic(f"{topic}-b", 1)
    source = source_of(kafka, f"{topic}*", splits=splits)
    slices = source.split(20)
    assert len(slices) == splits
    assert pickle.loads(pickle.dumps(slices)) == slices
    owners = [
        [each.number for each in slices if each.owns(name, partition)]
        for name, partitions in ((topic, 3), (f"{topic}-b", 1))
        for partition in range(partitions)
    ]
    assert all(len(each) == 1 for each in owners)
    assert len(source_of(kafka, f"{topic}*").split(20)) == 4
    assert len(source_of(kafka, f"{topic}*").split(2)) == 2


def test_what_appears_later_is_read_from_its_beginning(kafka: KafkaBroker, topic: str) -> None:
    kafka.create_topic(topic, 1)
    source = source_of(kafka, f"{topic}*", "&start=latest&refresh=300ms")
    with Driver(source) as driver:
        assert driver.batch() == []
        kafka.create_topic(f"{topic}-new", 1)
        produce(kafka, f"{topic}-new", ["topic"])
        kafka.add_partitions(topic, 2)
        produce(kafka, topic, ["partition"], 1)
        found = driver.until(lambda found: len(found) == 2)
        assert sorted(payloads(found)) == ["partition", "topic"]
        mark = restored(source, driver.reader.get_checkpoint_mark())
        assert mark.positions is not None
        assert {name: sorted(each) for name, each in mark.positions.items()} == {
            topic: [0, 1],
            f"{topic}-new": [0],
        }
    # One that appears while no reader runs is read from its beginning too.
    kafka.create_topic(f"{topic}-third", 1)
    produce(kafka, f"{topic}-third", ["third"])
    with Driver(source, mark) as driver:
        assert payloads(driver.until(bool)) == ["third"]


def test_a_topic_that_is_deleted_holds_nothing_back(kafka: KafkaBroker, topic: str) -> None:
    kafka.create_topic(topic, 1)
    kafka.create_topic(f"{topic}-b", 1)
    with Driver(source_of(kafka, f"{topic}*", "&refresh=300ms")) as driver:
        assert driver.batch() == []
        kafka.delete_topics(f"{topic}-b")
        driver.until(lambda _: positions(driver) == {topic: {0: 0}})
        before = driver.reader.get_watermark()
        driver.until(lambda _: driver.reader.get_watermark() > before)


def positions(driver: Driver) -> dict[str, dict[int, int]]:
    found = driver.reader.get_checkpoint_mark().positions or {}
    return {name: {n: place[0] for n, place in each.items()} for name, each in found.items()}


def test_an_idle_partition_goes_with_the_clock(kafka: KafkaBroker, topic: str) -> None:
    kafka.create_topic(topic, 2)
    produce(kafka, topic, ["a"])
    with Driver(source_of(kafka, topic)) as driver:
        driver.until(bool)
        produce(kafka, topic, ["b"])

        def fresh(_: list[Message]) -> bool:
            watermark = driver.reader.get_watermark()
            return watermark != MIN_TIMESTAMP and watermark.micros > 1e6 * (time.time() - 2.5)

        driver.until(fresh)
        start = time.monotonic()
        while time.monotonic() < start + 2.5:
            driver.batch()
            lag = time.time() - driver.reader.get_watermark().micros / 1e6
            assert 1.2 < lag < 3.5, "D + idle, and what statistics and rounding add"


def test_a_producer_with_a_slow_clock_is_counted(kafka: KafkaBroker, topic: str) -> None:
    kafka.create_topic(topic, 1)
    with Driver(source_of(kafka, topic)) as driver:
        driver.until(lambda _: driver.reader.get_watermark() > MIN_TIMESTAMP)
        watermark = driver.reader.get_watermark()
        produce(kafka, topic, ["late"], timestamp=int(1000 * (time.time() - 3600)))
        driver.until(bool)
        assert extent(driver.reader.get_current()).behind == 1
        assert driver.reader.get_current_timestamp() >= watermark


def test_a_clock_that_is_ahead_does_not_stall(kafka: KafkaBroker, topic: str) -> None:
    kafka.create_topic(topic, 1, message_timestamp_after_max_ms="9223372036854775807")
    produce(kafka, topic, ["wrong"], timestamp=int(1000 * (time.time() + 1e7)))
    with Driver(source_of(kafka, topic)) as driver:
        (message,) = driver.until(bool)
        assert message.record_time is not None
        assert abs(message.record_time / 1e6 - time.time()) < 20


def test_batches_end_at_their_size(kafka: KafkaBroker, topic: str) -> None:
    kafka.create_topic(topic, 1)
    producer = Producer({"bootstrap.servers": kafka.address})
    for number in range(30):
        producer.produce(topic, str(number).encode() * 400_000, partition=0)
    assert producer.flush(20) == 0
    with Driver(source_of(kafka, topic, until_end=True)) as driver:
        offsets: list[int] = []
        while driver.reader.get_watermark() < MAX_TIMESTAMP:
            batch = driver.batch()
            assert sum(len(each.payload) for each in batch) <= 4 * 1024 * 1024
            offsets += [each.offset for each in batch]
            assert positions(driver) == {topic: {0: len(offsets)}}
    assert offsets == list(range(30))


def test_the_stop_file_ends_a_stream(kafka: KafkaBroker, topic: str, tmp_path: Path) -> None:
    kafka.create_topic(topic, 1)
    produce(kafka, topic, ["a"])
    stop = tmp_path / "stop"
    with Driver(source_of(kafka, topic, stop=str(stop))) as driver:
        driver.until(bool)
        assert driver.reader.get_watermark() < MAX_TIMESTAMP
        stop.touch()
        produce(kafka, topic, ["b"])
        driver.until(lambda _: driver.reader.get_watermark() == MAX_TIMESTAMP, within=2)
        assert positions(driver) in ({topic: {0: 1}}, {topic: {0: 2}})


def test_what_retention_took_is_counted(
    kafka: KafkaBroker, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    kafka.create_topic(topic, 1)
    produce(kafka, topic, [str(n) for n in range(10)])
    source = source_of(kafka, topic)
    with Driver(source) as driver:
        driver.until(lambda found: len(found) == 10)
        mark = driver.reader.get_checkpoint_mark()
    produce(kafka, topic, [str(n) for n in range(10, 20)])
    admin = kafka.admin()
    for done in admin.delete_records([TopicPartition(topic, 0, 15)]).values():
        done.result(20)
    with Driver(source, mark) as driver:
        found = driver.until(lambda found: len(found) == 5)
    assert [each.offset for each in found] == [15, 16, 17, 18, 19]
    assert "5 messages from offset 10 are lost" in caplog.text


def test_a_broker_that_bounces_is_only_a_delay(
    own_kafka: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.sources.kafka.reading.FIRST_FILL_S", 1)
    monkeypatch.setattr("transforms.sources.kafka.reading.ASK_S", 1)
    own_kafka.create_topic(topic, 2)
    produce(own_kafka, topic, ["a"])
    with Driver(source_of(own_kafka, topic)) as driver:
        driver.until(lambda found: driver.reader.get_watermark() > MIN_TIMESTAMP)
        mark = driver.reader.get_checkpoint_mark()
        own_kafka.kill()
        for _ in range(30):
            assert driver.batch() == []
        held = driver.reader.get_watermark()
        away = time.monotonic() + 3
        while time.monotonic() < away:
            driver.batch()
        assert driver.reader.get_watermark() == held, "nobody said that nothing came"
        # A reader that is made meanwhile waits too, and keeps its place.
        with Driver(source_of(own_kafka, topic), mark) as other:
            assert other.batch() == []
            assert positions(other) == {topic: {0: 1, 1: 0}}
        with Driver(source_of(own_kafka, topic)) as other:
            assert other.batch() == []
            assert other.reader.get_checkpoint_mark().positions is None
        own_kafka.start()
        produce(own_kafka, topic, ["b"])
        assert payloads(driver.until(bool)) == ["b"]
        driver.until(lambda _: driver.reader.get_watermark() > held)


class _Collect(beam.DoFn):
    """Leaves what passes in this process, where the FnApiRunner's workers are."""

    seen: list[str] = []  # noqa: RUF012

    def process(self, element: bytes) -> Iterator[None]:
        _Collect.seen += payloads(list(unpack_messages(element)))
        return iter(())


def test_in_a_pipeline(kafka: KafkaBroker, topic: str, tmp_path: Path) -> None:
    kafka.create_topic(topic, 3)
    stop = tmp_path / "stop"
    address = KafkaAddress.parse(f"kafka://{kafka.address}/{topic}?group={topic}")
    _Collect.seen = []
    pipeline = beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(["--streaming"]))
    packed = pipeline | ReadKafka(KafkaSource(address, 0, splits=2, stop=str(stop)))
    assert packed.element_type is bytes
    packed | beam.ParDo(_Collect())
    running = threading.Thread(target=lambda: pipeline.run().wait_until_finish())
    running.start()
    for partition in range(3):
        produce(kafka, topic, [f"{partition}-{n}" for n in range(100)], partition)
    deadline = time.monotonic() + 30
    while len(_Collect.seen) < 300 and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.touch()
    running.join(20)
    assert not running.is_alive()
    assert sorted(_Collect.seen) == sorted(f"{p}-{n}" for p in range(3) for n in range(100))
    with Driver(source_of(kafka, topic, f"&group={topic}")) as driver:
        assert driver.batch() == [], "all offsets were committed"


def test_what_stands_is_taken_up_by_who_goes_on(kafka: KafkaBroker, topic: str) -> None:
    """The next bundle may have another instance of the step: its client need not connect anew."""
    kafka.create_topic(topic, 1)
    produce(kafka, topic, ["a", "b"])
    source = source_of(kafka, topic, batch=1)
    with Driver(source) as first:
        assert payloads(first.until(bool)) == ["a"]
        mark = restored(source, first.reader.get_checkpoint_mark())
        with Driver(source, mark) as second:
            assert second.reader._reading is first.reader._reading
            # What no longer has its reading closes nothing of another's.
            first.reader.close()
            assert payloads(second.until(bool)) == ["b"]
            assert source.create_reader(None, mark)._reading is not second.reader._reading


def test_who_goes_on_after_all_begins_anew(kafka: KafkaBroker, topic: str) -> None:
    """As when a runner repeats a bundle that another worker thread has repeated, too."""
    kafka.create_topic(topic, 1)
    produce(kafka, topic, ["a", "b", "c"])
    source = source_of(kafka, topic, batch=1)
    with Driver(source) as first:
        assert payloads(first.until(bool)) == ["a"]
        mark = restored(source, first.reader.get_checkpoint_mark())
        with Driver(source, mark) as second:
            assert payloads(second.until(bool)) == ["b"]
            assert payloads(first.until(bool)) == ["b"]
            assert payloads(second.until(bool)) == ["c"]
            assert payloads(first.until(bool)) == ["c"]
            mark = first.reader.get_checkpoint_mark()
            assert first.batch() == [], "one that stands alone goes on by itself"


def test_a_reader_rests_when_it_has_read_all(kafka: KafkaBroker, topic: str) -> None:
    kafka.create_topic(topic, 1)
    produce(kafka, topic, ["a", "b"])
    with Driver(source_of(kafka, topic, rest_every_s=3600.0)) as driver:
        assert [m.payload for m in driver.until(lambda found: len(found) == 2)] == [b"a", b"b"]
        produce(kafka, topic, ["c"])
        # Where its end was met it gives way once, and then goes on.
        found = driver.until(lambda found: len(found) == 1)
        assert [m.payload for m in found] == [b"c"]


def test_readers_rest_at_the_same_time(
    kafka: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create_topic(topic, 1)
    produce(kafka, topic, [str(number) for number in range(50)])
    now = [1_000_001.0]
    monkeypatch.setattr(reading, "time", SimpleNamespace(**vars(time) | {"time": lambda: now[0]}))
    with Driver(source_of(kafka, topic, rest_every_s=10.0, batch=10)) as driver:
        assert driver.until(lambda found: len(found) == 10)
        assert len(driver.batch()) == 10
        now[0] += 10
        assert driver.batch() == []
        assert len(driver.batch()) == 10
        assert len(driver.batch()) == 10


def test_a_source_that_was_kept_takes_its_step_s_address(kafka: KafkaBroker, topic: str) -> None:
    kafka.create_topic(topic, 2)
    before = source_of(kafka, f"gone-{topic}", "&group=old", splits=2, reads="input 7")
    kept = pickle.dumps(before.split(2)[1])
    now = source_of(kafka, topic, "&group=new", reads="input 7")
    step = pickle.loads(pickle.dumps(_Read(now, 0.05, 4, 0.2)))
    step.setup()
    try:
        source = pickle.loads(kept)
        assert source.current().address == now.address
        assert (source.current().number, source.current().of) == (1, 2)
        produce(kafka, topic, ["a"], partition=0)
        produce(kafka, topic, ["b"], partition=1)
        with Driver(source) as driver:
            (found,) = driver.until(lambda found: len(found) == 1)
        assert found.source.startswith(f"{topic}/")
        assert source.get_checkpoint_mark_coder()._address == now.address
    finally:
        step.teardown()
        _CURRENT.pop("input 7", None)
    # A step without a name, as in a pipeline of somebody else, keeps its own.
    assert pickle.loads(kept).current().address == before.address
