"""What is measured of the stream: speed beside Bytewax, latency, state, catching up, settings.

Each section starts a broker of its own, which shares the machine with the job: that is part of
what is measured. Inputs are sent before a job starts, unless they are to be paced.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.measure import CommandFailed, Run, Running, python
from bench.stream_runs import (
    PARTITIONS,
    StreamRun,
    Topic,
    latencies,
    new_name,
    our_stream,
    play,
    produce,
    produce_command,
    stream_command,
)
from tests.services.kafka import BrokerError, KafkaBroker
from tests.services.provision import Missing

BYTEWAX = "Bytewax"
NO_DISORDER, DISORDER = "D = 0", "D = 30 s"
FEW, MANY = "10,000 open cases", "1,000,000 open cases"
STREAM_SECTIONS = ("stream", "stream_latency", "stream_state", "stream_catch_up", "stream_settings")
MILLION = 1_000_000
RATE, SECONDS, WARM_UP = 10_000, 30, 5
DAY_EVENTS = 864_000
LONG_AGO = "2026-01-05T00:00Z"

Told = Callable[[str], Any]


@dataclass(frozen=True)
class StreamMatch:
    """Jobs that run in turns on one broker.

    Attributes:
        key: section and case.
        input: in a few words.
        rounds: how many count.
        contestants: given a broker and a folder, makes the inputs and returns what to run.
    """

    key: str
    input: str
    rounds: int
    contestants: Callable[[KafkaBroker, Path], Sequence[Contestant]]


@dataclass(frozen=True)
class Contestant:
    """A job on one input.

    Attributes:
        name: as in the tables.
        count: events in its input.
        run: runs it once.
    """

    name: str
    count: int
    run: Callable[[], Run]


def matches(name: str, events: int | None, rounds: int) -> Iterator[StreamMatch]:
    """Yield what a section measures; `events` makes its inputs smaller."""
    if name == "stream":
        many = events or MILLION
        text = f"{many:,} JSON events of 270 bytes, sent before"
        yield StreamMatch(f"stream/{many}", text, rounds, lambda b, f: _beside(b, f, many))
    elif name == "stream_latency":
        seconds = SECONDS if events is None else max(WARM_UP + 5, events // RATE)
        text = f"{RATE:,} events/s for {seconds} s, D = 0, granule 200 ms"
        yield StreamMatch("stream_latency/paced", text, 1, lambda b, f: [_latency(b, f, seconds)])
    elif name == "stream_state":
        many = events or 4 * MILLION
        text = f"{many:,} events, CPU of the second half"
        yield StreamMatch(f"stream_state/{many}", text, 1, lambda b, f: _state(b, f, many))
    elif name == "stream_catch_up":
        many = events or DAY_EVENTS
        text = f"{many:,} events, ten a second on their clock, D = 30 s"
        yield StreamMatch(f"stream_catch_up/{many}", text, 1, lambda b, f: [_sparse(b, f, many)])
    else:
        many = events or 200_000
        text = f"{many:,} events, 20,000 a second on their clock, D = 0"
        yield StreamMatch(f"stream_settings/{many}", text, 1, lambda b, f: _settings(b, f, many))


def measure_stream(match: StreamMatch, told: Told) -> list[dict[str, Any]]:
    """Run a match on a broker of its own.

    Returns:
        Its entries of `name`, `count`, `runs` and `failure`, as `bench.sections.measure` has them.

    Raises:
        CommandFailed: there is no broker, or no input.
    """
    try:
        with tempfile.TemporaryDirectory() as folder, KafkaBroker() as broker:
            told(f"{match.key}: inputs")
            contestants = match.contestants(broker, Path(folder))
            return take_turns(match.key, contestants, match.rounds, told)
    except (Missing, BrokerError) as error:
        raise CommandFailed(str(error)) from None


def take_turns(
    key: str, contestants: Sequence[Contestant], rounds: int, told: Told
) -> list[dict[str, Any]]:
    """Run each contestant once a round; who begins changes, and who fails is out.

    Returns:
        Entries of `name`, `count`, `runs` and `failure`.
    """
    entries: dict[str, dict[str, Any]] = {
        c.name: {"name": c.name, "count": c.count, "runs": [], "failure": None} for c in contestants
    }
    for number in range(rounds):
        turn = number % len(contestants)
        for contestant in [*contestants[turn:], *contestants[:turn]]:
            entry = entries[contestant.name]
            if entry["failure"] is None:
                told(f"{key}: {contestant.name}")
                try:
                    entry["runs"].append(asdict(contestant.run()))
                except CommandFailed as error:
                    entry["failure"] = str(error)
    return list(entries.values())


def _ours(broker: KafkaBroker, topic: Topic, *options: str, batch: int | None = None) -> StreamRun:
    prefix = new_name("out") + "-"
    command = our_stream(broker, topic.name, prefix, *options)
    if batch is not None:
        words = stream_command(broker, topic.name, prefix, *options)
        command = python("-m", "bench.stream_job", str(batch), *words)
    output = f"{prefix}transitions"
    try:
        return play(broker, command, output, topic.rows)
    finally:
        forget(broker, output)


def _bytewax(broker: KafkaBroker, topic: Topic) -> StreamRun:
    if find_spec("bytewax") is None:
        reason = "bytewax not found: pip install --group bench"
        raise CommandFailed(reason)
    output = new_name("bytewax")
    broker.create_topic(output, PARTITIONS, message_timestamp_type="LogAppendTime")
    command = python("-m", "bench.stream_bytewax", broker.address, topic.name, output)
    try:
        return play(broker, command, output, topic.rows, stops=False)
    finally:
        forget(broker, output)


def forget(broker: KafkaBroker, topic: str) -> None:
    """Delete a topic: the disk need not hold the output of every round."""
    for done in broker.admin().delete_topics([topic]).values():
        # On a busy machine that may take long, and nothing depends on it.
        with suppress(FutureTimeout):
            done.exception(30)


def _beside(broker: KafkaBroker, folder: Path, events: int) -> list[Contestant]:
    topic = produce(broker, folder, "--rate", "0", "--messages", str(events))

    def late() -> StreamRun:
        # Until then a job would wait for the clock, not for its processor.
        time.sleep(max(topic.ready + 32 - time.time(), 0))
        return _ours(broker, topic, "--disorder", "30s")

    return [
        Contestant(NO_DISORDER, events, lambda: _ours(broker, topic, "--disorder", "0s")),
        Contestant(BYTEWAX, events, lambda: _bytewax(broker, topic)),
        Contestant(DISORDER, events, late),
    ]


def _latency(broker: KafkaBroker, folder: Path, seconds: int) -> Contestant:
    del folder
    rows = seconds * RATE

    def run() -> StreamRun:
        source, prefix = new_name("paced"), new_name("out") + "-"
        broker.create_topic(source, PARTITIONS, message_timestamp_type="LogAppendTime")
        options = ("--disorder", "0s", "--granule", "200ms")
        producers: list[Running] = []

        def pace() -> None:
            time.sleep(5)  # let it start: what is measured is a stream that runs
            words = ["--rate", str(RATE), "--messages", str(rows), "--prerender"]
            producers.append(Running(produce_command(broker, source, *words)))

        command = our_stream(broker, source, prefix, *options)
        target = f"{prefix}transitions"
        found = play(broker, command, target, rows, meanwhile=pace)
        producers[0].wait()
        return replace(found, latency_ms=latencies(broker, source, target, WARM_UP))

    return Contestant("paced", rows, run)


def _state(broker: KafkaBroker, folder: Path, events: int) -> list[Contestant]:
    made = []
    for label, cases in ((FEW, 10_000), (MANY, 1_000_000)):
        # Of the second half every event is of a case that is open.
        copies = min(cases, events // 2)
        open_cases = ("--cases", "1", "--copies", str(copies), "--again")
        topic = long_ago(broker, folder, events, 50_000, *open_cases)
        made.append(Contestant(label, events, _runner(broker, topic, ("--disorder", "0s"))))
    return made


def _runner(
    broker: KafkaBroker, topic: Topic, options: Sequence[str], batch: int | None = None
) -> Callable[[], StreamRun]:
    return lambda: _ours(broker, topic, *options, batch=batch)


def long_ago(
    broker: KafkaBroker, folder: Path, events: int, event_rate: int, *options: str
) -> Topic:
    """Send events that happened long ago, so many a second on their own clock."""
    words = ["--rate", "0", "--messages", str(events), "--times", "create"]
    words += ["--event-rate", str(event_rate), "--start", LONG_AGO]
    return produce(broker, folder, *words, *options)


def _sparse(broker: KafkaBroker, folder: Path, events: int) -> Contestant:
    topic = long_ago(broker, folder, events, 10)
    return Contestant("a sparse day", events, _runner(broker, topic, ()))


def _settings(broker: KafkaBroker, folder: Path, events: int) -> list[Contestant]:
    topic = long_ago(broker, folder, events, 20_000)
    chosen = [(g, b, 16) for g in ("200ms", "1s", "5s") for b in (1000, 5000, 20_000)]
    chosen += [("1s", 5000, 4), ("1s", 5000, 64)]
    return [
        Contestant(
            f"{granule} / {batch:,} / {shards}",
            events,
            _runner(
                broker,
                topic,
                ("--disorder", "0s", "--granule", granule, "--shards", str(shards)),
                batch,
            ),
        )
        for granule, batch, shards in chosen
    ]
