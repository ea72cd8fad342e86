"""One run of a stream: a job as a user starts it, from a topic to a topic of a real broker.

Both topics keep the broker's clock, so when a row was appended is read from the output itself. The
job is stopped by Ctrl-C when everything is there, and every row is counted against what the
producer knows.
"""

from __future__ import annotations

import itertools
import json
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from bench.measure import CommandFailed, Run, Running, cpu_seconds, python
from tests.services.kafka import KafkaBroker

ROOT = Path(__file__).parent.parent
PARTITIONS = 4
PATIENCE_S = 90.0
"""A job whose output does not grow for so long has failed."""
POLL_S = 0.2
_numbers = itertools.count()


@dataclass(frozen=True)
class StreamRun(Run):
    """A run of a stream.

    Attributes:
        rows: in the output.
        first_s: from the job's start to the first append to its output.
        append_s: from the first to the last append.
        steady_us: CPU of the job, microseconds an event, over the second half of its rows.
        broker_cpu_s: what the broker used; not in `foreign_cpu_s`.
        latency_ms: from append to append: `p50`, `p90`, `p99`, `max`; empty if not measured.
    """

    rows: int = 0
    first_s: float = 0.0
    append_s: float = 0.0
    steady_us: float = 0.0
    broker_cpu_s: float = 0.0
    latency_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """How far a job was, at some time.

    Attributes:
        rows: in its output.
        cpu_s: it had used.
    """

    rows: int
    cpu_s: float


@dataclass(frozen=True)
class Topic:
    """A topic of events.

    Attributes:
        name: of the topic.
        rows: transitions that are to come of it.
        ready: when its last record was appended, seconds since 1970.
    """

    name: str
    rows: int
    ready: float


def produce_command(broker: KafkaBroker, topic: str, *options: str) -> list[str]:
    """Return the words that send JSON events to a topic."""
    words = ["--broker", broker.address, "--topic", topic, "--format", "json_lines"]
    return python("-m", "examples.producer", *words, *options)


def produce(broker: KafkaBroker, folder: Path, *options: str) -> Topic:
    """Send events to a new topic, to the end.

    Raises:
        CommandFailed: the producer failed.
    """
    name = new_name("events")
    truth = folder / f"{name}.json"
    words = ["--partitions", str(PARTITIONS), "--truth", str(truth), *options]
    Running(produce_command(broker, name, *words)).wait()
    known = json.loads(truth.read_text())
    truth.unlink()
    return Topic(name, known["transitions"], time.time())


def new_name(what: str) -> str:
    """Return a name that no topic has yet."""
    return f"{what}-{next(_numbers)}"


def stream_command(broker: KafkaBroker, topic: str, prefix: str, *options: str) -> list[str]:
    """Return the words of `run.py transitions` from a topic to topics."""
    source = f"kafka://{broker.address}/{topic}?start=earliest&group={prefix}group"
    words = ["--input", source, "--output", f"kafka://{broker.address}/{prefix}"]
    return ["transitions", *words, "--progress", "off", *options]


def our_stream(broker: KafkaBroker, topic: str, prefix: str, *options: str) -> list[str]:
    """Return the command of `run.py transitions` from a topic to topics."""
    return python(str(ROOT / "run.py"), *stream_command(broker, topic, prefix, *options))


def play(
    broker: KafkaBroker,
    command: Sequence[str],
    output: str,
    rows: int,
    *,
    stops: bool = True,
    meanwhile: Callable[[], object] = lambda: None,
) -> StreamRun:
    """Run a job until its output has as many rows as it should, and measure it.

    Args:
        broker: of the topics.
        command: the job's words.
        output: the topic in which rows are counted.
        rows: that must come, each once.
        stops: whether it is to be stopped by Ctrl-C; else it ends by itself.
        meanwhile: called when the job has been started.

    Raises:
        CommandFailed: the job failed, or did not write what it should.
    """
    pid = broker.pid or 0
    before = cpu_seconds(pid)
    job = Running(command)
    try:
        meanwhile()
        samples = _watch(broker, job, output, rows)
        if stops:
            job.send(signal.SIGINT)
        run = end(job)
    except BaseException:
        job.send(signal.SIGKILL)
        raise
    broker_cpu = cpu_seconds(pid) - before
    first, last = check_rows(broker, output, rows)
    parts = {**vars(run), "foreign_cpu_s": max(run.foreign_cpu_s - broker_cpu, 0.0)}
    return StreamRun(
        **parts,
        rows=rows,
        first_s=first - job.began,
        append_s=last - first,
        steady_us=steady_us(samples),
        broker_cpu_s=broker_cpu,
    )


def end(job: Running) -> Run:
    """Wait for a job's end, and kill it if that does not come.

    Raises:
        CommandFailed: it failed, or was killed.
    """
    killer = threading.Timer(PATIENCE_S, job.send, (signal.SIGKILL,))
    killer.start()
    try:
        return job.wait()
    finally:
        killer.cancel()


def _watch(broker: KafkaBroker, job: Running, output: str, rows: int) -> list[Sample]:
    samples = [Sample(0, 0.0)]
    grown = time.monotonic()
    with RowCounter(broker, output) as counter:
        while not job.ended and samples[-1].rows < rows:
            sample = Sample(counter.rows(), job.cpu_s)
            if sample.rows > samples[-1].rows:
                grown = time.monotonic()
            samples.append(sample)
            if time.monotonic() - grown > PATIENCE_S:
                break
            time.sleep(POLL_S)
    return samples


def steady_us(samples: Sequence[Sample]) -> float:
    """Return CPU microseconds a row over the second half of the rows."""
    last = samples[-1]
    half = next(s for s in samples if s.rows >= last.rows / 2)
    rows = last.rows - half.rows
    return (last.cpu_s - half.cpu_s) / rows * 1e6 if rows else 0.0


def check_rows(broker: KafkaBroker, topic: str, rows: int) -> tuple[float, float]:
    """Return when the first and the last row were appended, seconds since 1970.

    Raises:
        CommandFailed: there are not so many, or some come twice.
    """
    times = append_times(broker, topic, rows)
    return times[0], times[-1]


def append_times(broker: KafkaBroker, topic: str, rows: int) -> list[float]:
    """Return when each row was appended, in that order, seconds since 1970.

    Raises:
        CommandFailed: there are not so many, or some come twice.
    """
    ids: set[str] = set()
    times = []
    for message in read(broker, topic):
        times.append(message.timestamp()[1] / 1000)
        ids.add(orjson.loads(message.value() or b"")["event_id"])
    if not len(ids) == len(times) == rows:
        reason = (
            f"{rows} rows were to be written; {len(times)} are there, {len(ids)} of them different"
        )
        raise CommandFailed(reason)
    return sorted(times)


def read(broker: KafkaBroker, topic: str) -> Iterator[Message]:
    """Yield what a topic holds now."""
    with _consumer(broker) as consumer:
        for partition in _partitions(consumer, topic):
            start, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), 10)
            consumer.assign([TopicPartition(topic, partition, start)])
            while start < end:
                for message in consumer.consume(min(10_000, end - start), 10):
                    if message.error() is not None:
                        raise CommandFailed(str(message.error()))
                    start = (message.offset() or 0) + 1
                    yield message


class RowCounter:
    """Counts what was ever appended to a topic."""

    def __init__(self, broker: KafkaBroker, topic: str) -> None:
        self._consumer = _consumer(broker)
        self._topic = topic
        self._rows = 0

    def __enter__(self) -> RowCounter:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def rows(self) -> int:
        """Return how many there are; 0 if there is no topic of that name yet."""
        # A topic that is being made has partitions that nobody knows.
        with suppress(KafkaException):
            self._rows = _rows(self._consumer, self._topic)
        return self._rows


def rows_in(broker: KafkaBroker, topic: str) -> int:
    """Count what was ever appended to a topic; 0 if there is none of that name."""
    with _consumer(broker) as consumer:
        return _rows(consumer, topic)


def _rows(consumer: Consumer, topic: str) -> int:
    return sum(
        consumer.get_watermark_offsets(TopicPartition(topic, partition), 10)[1]
        for partition in _partitions(consumer, topic)
    )


def _partitions(consumer: Consumer, topic: str) -> list[int]:
    found = consumer.list_topics(timeout=10).topics.get(topic)
    return [] if found is None else sorted(found.partitions)


def _consumer(broker: KafkaBroker) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": broker.address,
            "group.id": "bench",
            "enable.auto.commit": "false",
            "log_level": "0",
        }
    )


def latencies(broker: KafkaBroker, source: str, target: str, warm_up_s: float) -> dict[str, float]:
    """Match the rows of two topics; return quantiles of the milliseconds between their appends.

    Raises:
        CommandFailed: some event has no row, or is not the only one of its case and time.
    """
    came = _appends(broker, source)
    gone = _appends(broker, target)
    if came.keys() != gone.keys():
        lost, more = len(came.keys() - gone.keys()), len(gone.keys() - came.keys())
        reason = f"{lost} events have no row, {more} rows have no event"
        raise CommandFailed(reason)
    begin = min(came.values()) + warm_up_s * 1000
    return quantiles([gone[key] - at for key, at in came.items() if at >= begin])


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return `p50`, `p90`, `p99` and `max`."""
    cut = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": cut[49], "p90": cut[89], "p99": cut[98], "max": max(values)}


def _appends(broker: KafkaBroker, topic: str) -> dict[tuple[str, str, int], int]:
    """Return when each event was appended, by case, time, and its number among equals."""
    found: dict[tuple[str, str, int], int] = {}
    for message in read(broker, topic):
        row: dict[str, Any] = orjson.loads(message.value() or b"")
        number = 0
        while (row["case_id"], row["event_time"], number) in found:
            number += 1
        found[row["case_id"], row["event_time"], number] = message.timestamp()[1]
    return found
