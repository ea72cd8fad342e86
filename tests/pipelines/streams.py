"""Streams as a user has them: `run.py` in a process of its own, between the topics of a broker.

Messages come from the simulator, with the truth about them; what a stream has written is read
back as tables, so that the comparison with the truth is the one that archives have.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from itertools import count, islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from examples import compare
from examples.simulator.json_stream import EventWitness, json_events
from examples.simulator.scenario import Faults
from examples.simulator.stream import Disturbance, Record, arrivals, calls, documents
from examples.simulator.truth import Truth, Witness
from tests.services.kafka import KafkaBroker
from transforms.sinks.text import json_lines

ROOT = Path(__file__).parent.parent.parent
PROGRAM = ("run.py", "transitions")
PATIENCE_S = 60.0
LAWS = {
    "messages": ("decoded", "skipped", "dead"),
    "events": ("transitions", "duplicates", "late", "rejected"),
}

Row = dict[str, Any]
_numbers = count()


def new_name(stem: str) -> str:
    """Return a name for topics and groups that no other test has."""
    return f"{stem}-{os.getpid()}-{next(_numbers)}"


def within(condition: Callable[[], Any], seconds: float = PATIENCE_S, pause: float = 0.3) -> Any:
    """Wait until a condition holds, and return what it returned."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "waited for too long"
        time.sleep(pause)
    return found


@dataclass(frozen=True)
class Ended:
    """How a job has ended.

    Attributes:
        code: its exit code.
        out: what it said on stdout.
        err: what it said on stderr.
    """

    code: int
    out: str
    err: str

    def laws(self) -> dict[str, dict[str, int]]:
        """Return the numbers of the two laws, which must hold: law -> part -> number."""
        found = {}
        for name, parts in LAWS.items():
            line = next(each for each in self.out.splitlines() if each.startswith(name))
            assert line.endswith("✓"), line
            found[name] = numbers_of(line)
            assert set(parts) <= set(found[name]), line
            assert found[name]["in"] == sum(n for part, n in found[name].items() if part != "in")
        return found


def numbers_of(line: str) -> dict[str, int]:
    """Return the numbers of a law as a job has printed it: `in` and each part -> number."""
    total = re.search(r" ([\d,]+) [=≠]", line)
    assert total is not None, line
    parts = re.findall(r"([=≠+-]) ([\d,]+) (\w+)", line)
    texts = {"in": total[1]} | {
        name: number if sign != "-" else f"-{number}" for sign, number, name in parts
    }
    return {name: int(text.replace(",", "")) for name, text in texts.items()}


class Job:
    """A running `run.py transitions`.

    Attributes:
        process: its process.
    """

    def __init__(
        self, folder: Path, arguments: Iterable[str], program: Iterable[str] = PROGRAM
    ) -> None:
        """Start it; what it says goes to files in the folder."""
        number = next(_numbers)
        self._paths = [folder / f"{name}-{number}" for name in ("out", "err")]
        with self._paths[0].open("wb") as out, self._paths[1].open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                cwd=ROOT,
                stdout=out,
                stderr=err,
                # A Ctrl-C of the tests' own terminal is not for it.
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """What it has said on stderr."""
        return self._paths[1].read_text("utf-8")

    def wait_until(self, condition: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
        """Wait until something holds; the job must not end before. Else print what it has said.

        Args:
            condition: holds if it returns something true, which is returned.
            seconds: how long at most.
        """

        def holds() -> Any:
            assert self.process.poll() is None, "it has ended"
            return condition()

        try:
            return within(holds, seconds)
        except AssertionError:
            print(self.said, file=sys.stderr)
            raise

    def wait_for(self, text: str, seconds: float = PATIENCE_S) -> None:
        """Wait until it has said something on stderr."""
        self.wait_until(lambda: text in self.said, seconds)

    def ended(self, seconds: float = PATIENCE_S) -> Ended:
        """Wait for its end."""
        code = self.process.wait(seconds)
        return Ended(code, self._paths[0].read_text("utf-8"), self.said)

    def stop(self, number: int = signal.SIGINT) -> Ended:
        """Stop it as a user does, and wait for its end."""
        self.process.send_signal(number)
        return self.ended()

    def kill(self) -> None:
        """End it as nothing can prepare for (`kill -9`)."""
        self.process.kill()
        self.process.wait(10)
        with suppress(ProcessLookupError):
            # Prism is a process of the job's session, and need not notice.
            os.killpg(self.process.pid, signal.SIGKILL)


@contextmanager
def running(folder: Path, *arguments: str, program: Iterable[str] = PROGRAM) -> Iterator[Job]:
    """Run a stream while the block runs; another program is one with the same options."""
    job = Job(folder, arguments, program)
    try:
        yield job
    finally:
        job.kill()


# What is sent


@dataclass(frozen=True)
class Sent:
    """Messages that are drawn, in the order of arrival, and the truth about them."""

    records: list[Record[Any]]
    truth: Truth


def json_messages(
    messages: int,
    disturbance: Disturbance,
    *,
    seed: int,
    start: int,
    rate: float = 100.0,
    garbage: float = 0.0,
) -> Sent:
    """Draw JSON events."""
    witness = EventWitness()
    drawn = json_events(seed, 40, start=start, rate=rate, garbage=garbage)
    records = arrivals(islice(drawn, messages), disturbance, seed=seed, observe=witness.observe)
    listed = list(records)
    return Sent(listed, witness.truth())


def imixs_messages(
    messages: int, disturbance: Disturbance, faults: Faults, *, seed: int, start: int
) -> Sent:
    """Draw Imixs documents."""
    witness = Witness()
    snapshots = calls(seed, 40, start=start, rate=20.0, faults=faults)
    drawn = documents(snapshots, seed=seed, faults=faults)
    records = arrivals(islice(drawn, messages), disturbance, seed=seed, observe=witness.observe)
    listed = list(records)
    return Sent(listed, witness.truth())


def send(
    broker: KafkaBroker,
    records: Iterable[Record[Any]],
    topic: Callable[[Record[Any]], str],
    *,
    own_times: bool = True,
) -> None:
    """Send records, a case to one partition.

    Args:
        broker: who takes them.
        records: in the order of arrival.
        topic: gives the topic of a record.
        own_times: the record's time is its arrival; False: the broker's clock.
    """
    failed: list[Any] = []
    producer = Producer(
        {
            "bootstrap.servers": broker.address,
            "enable.idempotence": True,
            "linger.ms": 5,
            "log_level": 0,
            "on_delivery": lambda error, _: failed.append(error) if error else None,
        }
    )
    for record in records:
        stamp = record.arrival // 1000 if own_times else 0
        producer.produce(topic(record), record.payload, record.key, timestamp=stamp)
        producer.poll(0)
    assert producer.flush(30) == 0
    assert failed == []


def together(*truths: Truth) -> Truth:
    """Add up truths about different cases."""
    first = truths[0]
    cases = {id_: case for truth in truths for id_, case in truth.cases.items()}
    assert len(cases) == sum(len(truth.cases) for truth in truths)
    numbers = {
        name: sum(getattr(truth, name) for truth in truths)
        for name, value in vars(first).items()
        if isinstance(value, int)
    }
    return replace(first, cases=cases, **numbers)


# What is written


def counts(broker: KafkaBroker, topics: Iterable[str]) -> int:
    """Return how many messages topics hold, committed or not."""
    consumer = _consumer(broker)
    try:
        return sum(high - low for low, high in _ranges(consumer, topics).values())
    finally:
        consumer.close()


def read(broker: KafkaBroker, topic: str) -> list[Any]:
    """Return the messages of a topic, a partition after the other."""
    consumer = _consumer(broker)
    try:
        found: list[Any] = []
        ranges = _ranges(consumer, [topic])
        left = sum(high - low for low, high in ranges.values())
        consumer.assign([TopicPartition(*key, low) for key, (low, _) in ranges.items()])
        until = time.monotonic() + PATIENCE_S
        while len(found) < left:
            assert time.monotonic() < until, f"{len(found)} of {left} messages of {topic}"
            for message in consumer.consume(10_000, 0.2):
                assert message.error() is None, message.error()
                found.append(message)
        return sorted(found, key=lambda m: (m.partition(), m.offset()))
    finally:
        consumer.close()


def rows(broker: KafkaBroker, topic: str) -> list[Row]:
    """Return the rows of a table's topic, as they were written."""
    return [orjson.loads(message.value()) for message in read(broker, topic)]


def once(found: Iterable[Row]) -> list[Row]:
    """Return rows without those that came twice, as a reader with row ids has them."""
    return list({row["row_id"]: row for row in found}.values())


def committed(broker: KafkaBroker, group: str, topics: Iterable[str]) -> bool:
    """Say whether a group has committed the ends of topics."""
    consumer = _consumer(broker, group)
    try:
        ranges = _ranges(consumer, topics)
        places = consumer.committed([TopicPartition(*key) for key in ranges], timeout=10)
        return all(
            place.offset >= ranges[place.topic, place.partition][1]
            for place in places
            if ranges[place.topic, place.partition][1]
        )
    finally:
        consumer.close()


def _consumer(broker: KafkaBroker, group: str = "readers-of-tests") -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": broker.address,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "log_level": 0,
        }
    )


def _ranges(consumer: Consumer, topics: Iterable[str]) -> dict[tuple[str, int], tuple[int, int]]:
    wanted = list(topics)
    there = consumer.list_topics(timeout=10).topics
    ranges = {}
    for name in wanted:
        # Before a job has started its topics are not there.
        for number in there[name].partitions if name in there else ():
            ranges[name, number] = _range(consumer, TopicPartition(name, number))
    return ranges


def _range(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    until = time.monotonic() + 30
    while True:
        try:
            low, high = consumer.get_watermark_offsets(place, 10)
        except KafkaException:
            # The topic is so new that it has no leader, or the machine busy; a partition that is
            # taken for empty would be one whose rows are lost.
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return low, high


def differences(
    broker: KafkaBroker, prefix: str, truth: Truth, folder: Path, late: bool = False
) -> list[str]:
    """Say in what the topics of a stream differ from the truth.

    Args:
        broker: who has them.
        prefix: what their names begin with.
        truth: what they should hold.
        folder: where the tables may be written.
        late: transitions that came too late count too.
    """
    names = ("transitions", "retracted", "cases", *(["late"] if late else []))
    return differences_of(
        {name: rows(broker, prefix + name) for name in names}, truth, folder, late
    )


def differences_of(
    written: Mapping[str, list[Row]], truth: Truth, folder: Path, late: bool = False
) -> list[str]:
    """Say in what tables differ from the truth.

    Args:
        written: table -> rows, in the order of each case, some perhaps twice.
        truth: what they should hold.
        folder: where the tables may be written.
        late: transitions that came too late count too.
    """
    tables = {name: once(written[name]) for name in ("transitions", "retracted")}
    newest: dict[str, Row] = {}
    # A case has one partition, so its rows are in order; else the newest counts.
    for row in written["cases"]:
        known = newest.get(row["case_id"])
        if known is None or known["updated_at"] <= row["updated_at"]:
            newest[row["case_id"]] = row
    tables["cases"] = list(newest.values())
    if late:
        tables["transitions"] += [
            {**row, "to_state": row["state"]} for row in once(written["late"])
        ]
    for name, listed in tables.items():
        (folder / name).mkdir(parents=True)
        pq.write_table(_table(name, listed), folder / name / "part.parquet")
    found = compare.transitions(folder, truth)
    if len(newest) != len(truth.cases):
        found.append(f"cases: {len(newest)} found, {len(truth.cases)} expected")
    return found


def _table(name: str, listed: list[Row]) -> pa.Table:
    if name == "cases":
        columns = {"case_id": pa.string(), "is_complete": pa.bool_()}
    else:
        state = "to_state" if name == "transitions" else "state"
        names = ("case_id", "event_time", "activity", state, "actor")
        columns = {each: pa.string() for each in names}
    table = pa.table(
        {each: pa.array([row[each] for row in listed], type_) for each, type_ in columns.items()}
    )
    if "event_time" not in columns:
        return table
    times = table["event_time"].cast(pa.timestamp("us", "UTC"))
    return table.set_column(table.schema.get_field_index("event_time"), "event_time", times)


def seen(listed: Iterable[Row]) -> set[tuple[str, int]]:
    """Return the events of rows: case and time in µs, which no two share."""
    return {(row["case_id"], _us(row["event_time"])) for row in listed}


def text_of(us: int) -> str:
    """Return a time in µs as rows have it."""
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=us)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


def as_json(table: pa.Table) -> list[Row]:
    """Return rows of a backfill as a topic would have them."""
    return [orjson.loads(line) for line in json_lines(table.combine_chunks()).to_pylist()]


def keyed(listed: Iterable[Row], without: tuple[str, ...] = ()) -> dict[str, Row]:
    """Return rows by id, some columns left out."""
    return {
        row["row_id"]: {name: value for name, value in row.items() if name not in without}
        for row in listed
    }


def _us(text: str) -> int:
    # Python 3.10 does not know Z.
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1)


def expected(truth: Truth) -> set[tuple[str, int]]:
    """Return the events of a truth: case and time in µs."""
    return {(id_, each.time) for id_, case in truth.cases.items() for each in case.transitions}


def law_of(truth: Truth) -> Mapping[str, Mapping[str, int]]:
    """Return the numbers of the two laws that a stream without late events has."""
    return {
        "messages": {"in": truth.messages}
        | {name: getattr(truth, name) for name in LAWS["messages"]},
        "events": {"in": truth.events, "late": 0}
        | {name: getattr(truth, name) for name in LAWS["events"] if name != "late"},
    }
