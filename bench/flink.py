"""What is measured on Flink: speed beside a DataStream job in Java, settings, checkpoints.

Each section starts a broker and a cluster of two task managers with a slot each, which share the
machine. Inputs are sent before a job starts; their records have the events' own times, so that
D means the same to our watermark, which follows records, and to Flink's, which follows events.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.flink_runs import TABLES, FlinkRun, run_ours, run_peer
from bench.measure import CommandFailed, held_to
from bench.stream_runs import Topic, new_name, produce
from bench.streams import (
    DISORDER,
    MILLION,
    NO_DISORDER,
    Contestant,
    Told,
    forget,
    long_ago,
    take_turns,
)
from tests.services.flink import FlinkCluster, FlinkError
from tests.services.kafka import BrokerError, KafkaBroker
from tests.services.provision import Missing

JAVA = "DataStream in Java"
FLINK_SECTIONS = ("flink", "flink_settings", "flink_state")
MANAGERS = 2
DISORDERS = {NO_DISORDER: 0, DISORDER: 30}
"""D in seconds."""
EVENT_RATE = 5000
"""Events a second on their own clock."""
OPEN_CASES = (10_000, 100_000, MILLION)
BUNDLES = (1000, 10_000, 100_000)


@dataclass(frozen=True)
class FlinkMatch:
    """Jobs that run in turns on one cluster.

    Attributes:
        key: section and case.
        input: in a few words.
        rounds: how many count.
        contestants: makes the inputs and returns what to run.
    """

    key: str
    input: str
    rounds: int
    contestants: Callable[[FlinkCluster, KafkaBroker, Path], Sequence[Contestant]]


def flink_matches(name: str, events: int | None, rounds: int) -> Iterator[FlinkMatch]:
    """Yield what a section measures; `events` makes its inputs smaller."""
    if name == "flink_state":
        many = events or 4 * MILLION
        text = f"{many:,} events, D = 0"
        yield FlinkMatch(f"{name}/{many}", text, 1, lambda c, b, f: _state(c, b, f, many))
        return
    many = events or MILLION
    text = f"{many:,} JSON events of 270 bytes, sent before"
    if name == "flink":
        yield FlinkMatch(f"{name}/{many}", text, rounds, lambda c, b, f: _beside(c, b, f, many))
    else:
        text = f"{text}, D = 0"
        yield FlinkMatch(f"{name}/{many}", text, 1, lambda c, b, f: _settings(c, b, f, many))


def measure_flink(match: FlinkMatch, told: Told, cores: int) -> list[dict[str, Any]]:
    """Run a match on a broker and a cluster of its own, all held to so many cores.

    Returns:
        Its entries, as `bench.streams.take_turns` has them.

    Raises:
        CommandFailed: there is no broker, no cluster, or no input.
    """
    try:
        told(f"{match.key}: a cluster")
        with (
            held_to(cores),
            tempfile.TemporaryDirectory() as folder,
            KafkaBroker() as broker,
            FlinkCluster(task_managers=MANAGERS, slots=1) as cluster,
        ):
            told(f"{match.key}: inputs")
            contestants = match.contestants(cluster, broker, Path(folder))
            if match.rounds == 1:
                # Else the first of them alone would have met a cluster that is cold.
                told(f"{match.key}: a job that does not count")
                contestants[0].run()
            return take_turns(match.key, contestants, match.rounds, told)
    except (Missing, BrokerError, FlinkError) as error:
        raise CommandFailed(str(error)) from None


def ours(disorder: str) -> str:
    """Return the name of our job."""
    return f"run.py transitions, {disorder}"


def java(disorder: str) -> str:
    """Return the name of the peer."""
    return f"{JAVA}, {disorder}"


def _beside(
    cluster: FlinkCluster, broker: KafkaBroker, folder: Path, events: int
) -> list[Contestant]:
    topic = _input(broker, folder, events)
    made = []
    for label, seconds in DISORDERS.items():
        made.append(Contestant(ours(label), events, _ours(cluster, broker, topic, seconds)))
        made.append(Contestant(java(label), events, _peer(cluster, broker, topic, seconds)))
    return made


def _settings(
    cluster: FlinkCluster, broker: KafkaBroker, folder: Path, events: int
) -> list[Contestant]:
    topic = _input(broker, folder, events)
    return [
        Contestant(
            f"{parallelism} / {bundle:,}",
            events,
            _ours(
                cluster,
                broker,
                topic,
                0,
                *("--parallelism", str(parallelism), "--max_bundle_size", str(bundle)),
            ),
        )
        for parallelism in range(1, MANAGERS + 1)
        for bundle in BUNDLES
    ]


def _state(
    cluster: FlinkCluster, broker: KafkaBroker, folder: Path, events: int
) -> list[Contestant]:
    made = []
    # Of the second half every event is of a case that is open.
    for cases in sorted({min(cases, events // 2) for cases in OPEN_CASES}):
        open_cases = ("--cases", "1", "--copies", str(cases), "--again")
        topic = long_ago(broker, folder, events, 50_000, *open_cases)
        run = _ours(cluster, broker, topic, 0, settles=True)
        made.append(Contestant(f"{cases:,}", events, run))
    return made


def _input(broker: KafkaBroker, folder: Path, events: int) -> Topic:
    words = ["--rate", "0", "--messages", str(events), "--times", "create"]
    return produce(broker, folder, *words, "--event-rate", str(EVENT_RATE))


def _ours(
    cluster: FlinkCluster,
    broker: KafkaBroker,
    topic: Topic,
    seconds: int,
    *words: str,
    settles: bool = False,
) -> Callable[[], FlinkRun]:
    given = ["--parallelism", str(MANAGERS)] if "--parallelism" not in words else []
    given += ["--disorder", f"{seconds}s", *words]

    def run() -> FlinkRun:
        # Until then a job would wait for the clock, not for its processor.
        time.sleep(max(topic.ready + seconds + 2 - time.time(), 0))
        with _prefix(broker, "flink") as prefix:
            return run_ours(cluster, broker, topic, prefix, *given, settles=settles)

    return run


def _peer(
    cluster: FlinkCluster, broker: KafkaBroker, topic: Topic, seconds: int
) -> Callable[[], FlinkRun]:
    def run() -> FlinkRun:
        with _prefix(broker, "java") as prefix:
            ms = seconds * 1000
            return run_peer(cluster, broker, topic, prefix, disorder_ms=ms, parallelism=MANAGERS)

    return run


@contextmanager
def _prefix(broker: KafkaBroker, what: str) -> Iterator[str]:
    """Give topics a prefix of their own; they are deleted afterwards."""
    prefix = new_name(what) + "-"
    try:
        yield prefix
    finally:
        for table in TABLES:
            forget(broker, f"{prefix}{table}")
