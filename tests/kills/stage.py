"""One run: a broker, a cluster, a job and a producer of its own, killed as a scenario says.

**What is compared.** An idle partition's watermark goes on with the clock, and a message that
comes behind it is stamped with it: a replay, which knows only record times, orders such a message
otherwise (`docs/streaming-fold.md`, "Behind the watermark"). With a broker that is away for a
while this would happen by chance, and hide what kills do. So the job is started with `?idle=1h`:
within a run no idle partition goes ahead of its messages, and the equality is exact. In turn
something must move the time on at the end, or the last events would wait for ever: one message for
each partition that nobody can decode, sent when D and a granule are over. It is a dead letter in
both.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT
from typing import Any

from confluent_kafka import Producer

from examples.simulator import END_STATES, Truth
from tests.kills import recount, victims
from tests.kills.recount import APPENDED, REPLACED, Wrong
from tests.kills.scenario import Kill, Scenario
from tests.kills.watching import JobWatch, RowWatch
from tests.pipelines import streams
from tests.services.flink import FlinkCluster
from tests.services.kafka import KafkaBroker

TOPIC = "in"
PREFIX = "out-"
PARTITIONS = 4
WATCHED = "transitions"
"""The table whose rows tell whether a stream goes on: they have come through all of it."""

CHECKPOINTS = 2
"""Completed ones between two kills."""

FIRST_MESSAGES = 200
"""So many are there when the job starts, which finds out their format."""

START_S = 240.0
RECOVERY_S = 180.0
DRAIN_S = 120.0
GRANULE_S = 1.0
_LOOK_S = 0.2
_CLOSING = b"the last message of its partition\n"

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Killed:
    """A kill, when it was, when all tasks ran again if they had stopped, and when rows came."""

    kill: Kill
    at: float
    again: float | None
    rows: float


@dataclass(frozen=True)
class Recovery:
    """What followed a kill.

    Attributes:
        kill: what was killed.
        tasks_s: seconds until all tasks ran again; None if they never stopped.
        rows_s: seconds until, with all tasks running, a row was appended that had not been before.
        repeats: rows that were appended again, until the next kill.
    """

    kill: Kill
    tasks_s: float | None
    rows_s: float
    repeats: int


@dataclass(frozen=True)
class Outcome:
    """A run that is over.

    Attributes:
        scenario: what was done.
        seconds: how long it took.
        messages: in the topic.
        rows: of the tables that keep everything, each once, by table.
        cases: of the table of cases.
        repeats: rows that came again, by table.
        recoveries: one for each kill.
        differences: from the bounded run and from the producer's truth; empty as it should be.
    """

    scenario: Scenario
    seconds: float
    messages: int
    rows: Mapping[str, int]
    cases: int
    repeats: Mapping[str, int]
    recoveries: tuple[Recovery, ...]
    differences: tuple[str, ...]


def play(scenario: Scenario, folder: Path, say: Say = print) -> Outcome:
    """Do what a scenario says, and compare.

    Args:
        scenario: what.
        folder: for logs and everything else.
        say: is told what happens.

    Raises:
        Wrong: the job does not start, does not recover, or can't be stopped.
        Missing: the broker or the cluster can't be had here.
    """
    begun = time.monotonic()
    with (
        KafkaBroker(folder / "kafka") as broker,
        FlinkCluster(
            folder / "flink", slots=1, high_availability=scenario.high_availability
        ) as cluster,
    ):
        say(f"{time.monotonic() - begun:5.0f} s  broker and cluster are there")
        broker.create_topic(
            TOPIC, PARTITIONS, retention_ms="-1", message_timestamp_type="LogAppendTime"
        )
        stage = _Stage(scenario, folder, broker, cluster, lambda text: say(_timed(begun, text)))
        outcome = stage.play()
    return outcome(time.monotonic() - begun)


def _timed(begun: float, text: str) -> str:
    return f"{time.monotonic() - begun:5.0f} s  {text}"


class _Stage:
    """A run while it goes on."""

    def __init__(
        self,
        scenario: Scenario,
        folder: Path,
        broker: KafkaBroker,
        cluster: FlinkCluster,
        say: Say,
    ) -> None:
        self._scenario = scenario
        self._folder = folder
        self._broker = broker
        self._cluster = cluster
        self._say = say
        self._rows = RowWatch(broker, PREFIX, APPENDED)
        self._fold = ["--disorder", f"{scenario.disorder_s}s", "--end_states", ",".join(END_STATES)]

    def play(self) -> Callable[[float], Outcome]:
        """Run it; return what makes the outcome, given how long it took."""
        with (
            self._producing() as producer,
            streams.running(self._folder, *self._arguments()) as job,
        ):
            self._job = job
            with JobWatch(self._cluster.rest, self._submitted()) as self._watch:
                killed = self._kill_all()
                truth = self._end_of(producer)
                self._close_partitions()
                messages = streams.read(self._broker, TOPIC)
                wanted = recount.bounded(messages, self._scenario.format, self._folder, self._fold)
                self._say(f"the bounded run has read {len(messages):,} messages")
                self._await_rows(wanted)
            self._stop()
        self._rows.read()
        self._rows.close()
        wrong, cases = self._compare(wanted, truth, messages)
        recoveries = self._recoveries(killed)
        rows = {name: self._rows.count(name) for name in APPENDED}
        repeats = {name: self._repeats(name) for name in APPENDED}
        return lambda seconds: Outcome(
            self._scenario,
            seconds,
            len(messages),
            rows,
            cases,
            repeats,
            recoveries,
            tuple(wrong),
        )

    # The producer

    @contextmanager
    def _producing(self) -> Iterator[subprocess.Popen[bytes]]:
        """Let the paced producer send until it is told to end."""
        scenario = self._scenario
        command = [
            *(sys.executable, "-m", "examples.producer", "--broker", self._broker.address),
            *("--topic", TOPIC, "--format", scenario.format, "--rate", str(scenario.rate)),
            *("--cases", "200", "--seed", str(scenario.seed), *scenario.faults()),
            *("--truth", str(self._folder / "truth.json")),
        ]
        with (self._folder / "producer.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=streams.ROOT, stdout=log, stderr=log, start_new_session=True
            )
        try:
            streams.within(lambda: streams.counts(self._broker, [TOPIC]) >= FIRST_MESSAGES)
            yield process
        finally:
            process.kill()
            process.wait()

    def _end_of(self, producer: subprocess.Popen[bytes]) -> Truth:
        """Let the producer end, and return what it knows."""
        producer.send_signal(SIGINT)
        code = producer.wait(60)
        if code:
            reason = f"the producer ends with {code}: {self._log('producer.log')}"
            raise Wrong(reason)
        return Truth.load(self._folder / "truth.json")

    def _close_partitions(self) -> None:
        """Send what moves the watermark behind all events; see the module."""
        time.sleep(self._scenario.disorder_s + 2 * GRANULE_S)
        producer = Producer({"bootstrap.servers": self._broker.address, "log_level": 0})
        for partition in range(PARTITIONS):
            producer.produce(TOPIC, _CLOSING, partition=partition)
        if producer.flush(30):
            reason = "the broker does not take the last messages"
            raise Wrong(reason)

    # The job

    def _arguments(self) -> list[str]:
        cluster, address = self._cluster, self._broker.address
        return [
            *("--input", f"kafka://{address}/{TOPIC}?start=earliest&group=kills&idle=1h"),
            *("--output", f"kafka://{address}/{PREFIX}", "--granule", f"{GRANULE_S:.0f}s"),
            *("--runner", "FlinkRunner", "--flink_master", cluster.master),
            *("--job_endpoint", cluster.job_endpoint),
            *("--environment_type", "EXTERNAL", "--environment_config", cluster.workers),
            *("--checkpointing_interval", str(self._scenario.checkpoint_ms)),
            *("--start_patience", f"{START_S:.0f}s", *self._fold),
        ]

    def _submitted(self) -> str:
        """Wait until the cluster has the job, and return its id."""
        found = self._until(self._cluster.rest.jobs, START_S, "the job is not submitted")
        job_id: str = found[0]["jid"]
        self._say(f"submitted as {job_id}")
        return job_id

    def _until(self, condition: Callable[[], Any], seconds: float, complaint: str) -> Any:
        """Wait for something while the job goes on, and rows are read.

        Raises:
            Wrong: it does not come; the reason holds what the job has said.
        """
        until = time.monotonic() + seconds
        while not (found := condition()):
            ended = self._job.process.poll()
            if ended is not None or time.monotonic() > until:
                how = f"the job has ended with {ended}" if ended is not None else complaint
                reason = f"{how} ({seconds:.0f} s); it has said:\n{self._job.said}"
                raise Wrong(reason)
            self._rows.read()
            time.sleep(_LOOK_S)
        return found

    def _kill_all(self) -> list[_Killed]:
        """Kill one after the other."""
        self._until(
            lambda: self._watch.completed_since(0) >= CHECKPOINTS and self._rows.count(WATCHED),
            START_S,
            "it gives no rows, or makes no checkpoints",
        )
        self._say("rows come, and checkpoints are made")
        killed = []
        for kill in self._scenario.kills:
            self._pause(kill.delay_s)
            revive = victims.kill(kill, self._cluster, self._broker)
            at = time.time()
            self._say(f"killed: {kill.victim}")
            self._pause(kill.away_s)
            revive()
            killed.append(self._recovered(kill, at))
        return killed

    def _recovered(self, kill: Kill, at: float) -> _Killed:
        """Wait until the job has recovered: tasks, checkpoints, rows."""
        what = f"from the kill of {kill.victim}"
        self._until(
            lambda: self._watch.completed_since(at) >= CHECKPOINTS and self._watch.works(),
            RECOVERY_S,
            f"it does not recover {what}",
        )
        again = self._watch.running_again(at)
        # What is appended while tasks are still on their way down says nothing.
        begin = at if again is None else again
        rows = self._until(
            lambda: self._rows.fresh_since(WATCHED, begin), RECOVERY_S, f"no rows come again {what}"
        )
        took = "tasks never stopped" if again is None else f"tasks again after {again - at:.1f} s"
        self._say(f"        {took}, rows after {rows - at:.1f} s")
        return _Killed(kill, at, again, rows)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._rows.read()
            time.sleep(min(_LOOK_S, max(0.0, until - time.monotonic())))

    def _await_rows(self, wanted: Mapping[str, recount.Rows]) -> None:
        """Wait until everything is there that should be, and two checkpoints more.

        What is missing then is lost; what comes twice has come.
        """
        with suppress(Wrong):
            self._until(
                lambda: all(self._rows.count(name) >= len(wanted[name]) for name in APPENDED),
                DRAIN_S,
                "rows are missing",
            )
        at = time.time()
        self._until(
            lambda: self._watch.completed_since(at) >= CHECKPOINTS,
            RECOVERY_S,
            "it makes no checkpoints at the end",
        )

    def _stop(self) -> None:
        ended = self._job.stop()
        self._say(f"stopped: {ended.code}")
        if ended.code:
            reason = f"the job ends with {ended.code}: {ended.out}{ended.err}"
            raise Wrong(reason)

    # What came of it

    def _compare(
        self, wanted: Mapping[str, recount.Rows], truth: Truth, messages: list[Any]
    ) -> tuple[list[str], int]:
        wrong = []
        tables = {}
        for name in (*APPENDED, *REPLACED):
            values = [message.value() for message in streams.read(self._broker, PREFIX + name)]
            tables[name], unlike = recount.written(name, values)
            wrong += unlike + recount.differences(name, tables[name], wanted[name])
        if len(messages) != truth.messages + PARTITIONS:
            wrong.append(f"{len(messages)} messages in the topic, {truth.messages} were sent")
        events = streams.seen([*tables["transitions"].values(), *tables["late"].values()])
        lost = len(streams.expected(truth) - events)
        if lost:
            wrong.append(f"{lost} events of the producer's truth are lost")
        return wrong, len(tables["cases"])

    def _recoveries(self, killed: Sequence[_Killed]) -> tuple[Recovery, ...]:
        again = [row.at for row in self._rows.rows if row.repeat]
        ends = [each.at for each in killed[1:]] + [float("inf")]
        return tuple(
            Recovery(
                each.kill,
                None if each.again is None else each.again - each.at,
                each.rows - each.at,
                sum(each.at < at <= until for at in again),
            )
            for each, until in zip(killed, ends, strict=True)
        )

    def _repeats(self, table: str) -> int:
        return sum(row.table == table and row.repeat for row in self._rows.rows)

    def _log(self, name: str) -> str:
        return (self._folder / name).read_text("utf-8", "replace")[-2000:]
