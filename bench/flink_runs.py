"""One run of a stream on a Flink cluster, from a topic to topics of a real broker.

What is counted is what does the work: the task managers and the pool of Python workers with all
its children. Who submits the job, the job manager and Beam's job server are left out; so is
the broker. Rows are counted and checked as for the other streams.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from bench.flink_job import options, submit
from bench.measure import (
    CommandFailed,
    MemorySampler,
    Running,
    busy_seconds,
    python,
    tree_cpu_seconds,
)
from bench.stream_runs import (
    PARTITIONS,
    POLL_S,
    ROOT,
    RowCounter,
    Sample,
    StreamRun,
    Topic,
    append_times,
    steady_us,
    stream_command,
)
from pipelines.flink_rest import ENDED, RUNNING, FlinkUnreachable
from tests.services.flink import FlinkCluster
from tests.services.kafka import KafkaBroker
from tests.services.provision import Missing

TABLES = ("transitions", "cases")
CHECKPOINT_MS = 10_000
"""Between checkpoints, of all jobs."""
LOOK_S = 1.0
"""How often a job's rows, CPU and memory are looked at: often would cost it a tenth of a core."""
PATIENCE_S = 180.0
"""A job whose output does not grow for so long, or that does not end, has failed."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is whole.

    Attributes:
        bytes: its size.
        ms: from its trigger to its end.
    """

    bytes: int
    ms: int


@dataclass(frozen=True)
class FlinkRun(StreamRun):
    """A run on a cluster; `wall_s` and `cpu_s` are those until its last row was there.

    Attributes:
        tasks_s: from the job's start until all its tasks were running.
        half_s: from the append of the row in the middle to that of the last.
        checkpoints: all whole ones that the job manager remembers, the oldest first.
    """

    tasks_s: float = 0.0
    half_s: float = 0.0
    checkpoints: Sequence[Checkpoint] = ()


class _Job(Protocol):
    """A job that has been started."""

    def id(self) -> str | None:
        """Return its id on the cluster; None as long as it is on its way there."""

    def ended(self) -> bool:
        """Say whether it runs no more, or will not run."""

    def stop(self) -> None:
        """End it in good order, if it does not end by itself, and wait for that.

        Raises:
            CommandFailed: it failed.
        """

    def kill(self) -> None:
        """Let go of it."""


class _OurJob:
    """`run.py transitions` as a user starts it; Ctrl-C stops it with a savepoint."""

    def __init__(self, cluster: FlinkCluster, command: Sequence[str], name: str) -> None:
        self._cluster = cluster
        self._name = name
        self._launcher = Running(command)

    def id(self) -> str | None:
        found = self._cluster.rest.job(self._name)
        return None if found is None else str(found["jid"])

    def ended(self) -> bool:
        return self._launcher.ended

    def stop(self) -> None:
        self._launcher.send(signal.SIGINT)
        killer = threading.Timer(PATIENCE_S, self.kill)
        killer.start()
        try:
            self._launcher.wait()
        finally:
            killer.cancel()

    def kill(self) -> None:
        self._launcher.send(signal.SIGKILL)


class _PeerJob:
    """The DataStream job of `bench.flink_job`; it ends where the topic ends."""

    def __init__(self, cluster: FlinkCluster, words: Sequence[str]) -> None:
        self._rest = cluster.rest
        self._id = submit(cluster.rest.url, words)

    def id(self) -> str | None:
        return self._id

    def ended(self) -> bool:
        return self._rest.state(self._id) in ENDED

    def stop(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while not self.ended() and time.monotonic() < until:
            time.sleep(POLL_S)
        state = self._rest.state(self._id)
        if state != "FINISHED":
            failures = self._rest.failures(self._id)
            reason = f"the job is {state}\n{failures[-1].trace if failures else ''}".strip()
            raise CommandFailed(reason)

    def kill(self) -> None:
        """Nothing is held of it here."""


def run_ours(
    cluster: FlinkCluster,
    broker: KafkaBroker,
    topic: Topic,
    prefix: str,
    *words: str,
    settles: bool = False,
) -> FlinkRun:
    """Run `run.py transitions` on a cluster until its rows are there.

    Args:
        cluster: with a pool of workers.
        broker: of the topics.
        topic: the input.
        prefix: of the topics of its tables.
        words: more options, such as `--disorder 0s`.
        settles: whether a checkpoint is waited for that begins when all rows are there.

    Raises:
        CommandFailed: it failed, or did not write what it should.
    """
    name = prefix.rstrip("-")
    place = ["--runner", "FlinkRunner", "--flink_master", cluster.master]
    place += ["--job_endpoint", cluster.job_endpoint, "--environment_type", "EXTERNAL"]
    place += ["--environment_config", cluster.workers, "--job_name", name]
    place += ["--checkpointing_interval", str(CHECKPOINT_MS)]
    job = stream_command(broker, topic.name, prefix, *place, *words)
    command = python(str(ROOT / "run.py"), *job)
    start = partial(_OurJob, cluster, command, name)
    return _play(cluster, broker, start, f"{prefix}transitions", topic.rows, settles)


def run_peer(
    cluster: FlinkCluster,
    broker: KafkaBroker,
    topic: Topic,
    prefix: str,
    *,
    disorder_ms: int = 0,
    parallelism: int = 2,
) -> FlinkRun:
    """Run the DataStream job on a cluster, to the end of its input; see `run_ours`.

    Raises:
        CommandFailed: it failed, cannot be built, or did not write what it should.
    """
    for table in TABLES:
        name = f"{prefix}{table}"
        broker.create_topic(name, PARTITIONS, message_timestamp_type="LogAppendTime")
    words = options(
        broker.address,
        topic.name,
        prefix,
        disorder_ms=disorder_ms,
        parallelism=parallelism,
        checkpoint_ms=CHECKPOINT_MS,
    )
    start = partial(_PeerJob, cluster, words)
    return _play(cluster, broker, start, f"{prefix}transitions", topic.rows, False)


def _play(
    cluster: FlinkCluster,
    broker: KafkaBroker,
    start: Callable[[], _Job],
    output: str,
    rows: int,
    settles: bool,
) -> FlinkRun:
    """Run a job on a cluster that has nothing else to do, and leave nothing of it there."""
    try:
        _wait_for_slots(cluster)
        return _measure(cluster, broker, start, output, rows, settles)
    except (FlinkUnreachable, Missing) as error:
        raise CommandFailed(str(error)) from None
    finally:
        _end_jobs(cluster)


def _measure(
    cluster: FlinkCluster,
    broker: KafkaBroker,
    start: Callable[[], _Job],
    output: str,
    rows: int,
    settles: bool,
) -> FlinkRun:
    used = _Used(cluster, broker)
    began = time.time()
    try:
        job = start()
        try:
            tasks_s, samples = _watch(cluster, broker, job, used, output, rows)
            wall_s = time.time() - began
            cpu_s, broker_s, others_s = used.workers(), used.broker(), used.foreign()
            found = job.id()
            if settles and found is not None:
                _wait_for_checkpoint(cluster, found)
            checkpoints = [] if found is None else _checkpoints(cluster, found)
            job.stop()
        except BaseException:
            job.kill()
            raise
    finally:
        peaks = used.memory.stop()
    times = append_times(broker, output, rows)
    return FlinkRun(
        wall_s=wall_s,
        cpu_s=cpu_s,
        tree_bytes=peaks.tree,
        own_bytes=peaks.own,
        largest_bytes=peaks.largest,
        foreign_cpu_s=others_s,
        rows=rows,
        first_s=times[0] - began,
        append_s=times[-1] - times[0],
        steady_us=steady_us(samples),
        broker_cpu_s=broker_s,
        tasks_s=tasks_s,
        half_s=times[-1] - times[len(times) // 2],
        checkpoints=[checkpoint for _, checkpoint in checkpoints],
    )


class _Used:
    """What the processes of a cluster and a broker use from now on."""

    def __init__(self, cluster: FlinkCluster, broker: KafkaBroker) -> None:
        work = [*cluster.task_managers, *([cluster.pool] if cluster.pool else [])]
        self._workers = [part.pid for part in work if part.pid]
        self._broker = [broker.pid] if broker.pid else []
        self._before = self._now()
        self.memory = MemorySampler(self._workers, LOOK_S)

    def workers(self) -> float:
        """Return CPU seconds of the task managers and the Python workers."""
        return self._now()[0] - self._before[0]

    def broker(self) -> float:
        """Return CPU seconds of the broker."""
        return self._now()[1] - self._before[1]

    def foreign(self) -> float:
        """Return CPU seconds of all that was not started here."""
        own, busy = self._now()[2:]
        return max(busy - self._before[3] - (own - self._before[2]), 0.0)

    def _now(self) -> tuple[float, float, float, float]:
        workers = sum(map(tree_cpu_seconds, self._workers))
        broker = sum(map(tree_cpu_seconds, self._broker))
        return workers, broker, tree_cpu_seconds(os.getpid()), busy_seconds()


def _watch(
    cluster: FlinkCluster,
    broker: KafkaBroker,
    job: _Job,
    used: _Used,
    output: str,
    rows: int,
) -> tuple[float, list[Sample]]:
    """Wait for a job's rows; return when its tasks ran, in seconds, and how it went on.

    Raises:
        CommandFailed: no more rows come.
    """
    samples = [Sample(0, 0.0)]
    began = grown = time.monotonic()
    tasks_s = 0.0
    with RowCounter(broker, output) as counter:
        while samples[-1].rows < rows:
            # Asked first: what a job has written that has ended, is there.
            over = job.ended()
            sample = Sample(counter.rows(), used.workers())
            if not tasks_s and _all_run(cluster, job):
                tasks_s = time.monotonic() - began
            if sample.rows > samples[-1].rows:
                grown = time.monotonic()
            samples.append(sample)
            if over:
                break
            if time.monotonic() - grown > PATIENCE_S:
                reason = f"{sample.rows} of {rows} rows, and no more for {PATIENCE_S:.0f} s"
                raise CommandFailed(reason)
            time.sleep(LOOK_S)
    return tasks_s, samples


def _all_run(cluster: FlinkCluster, job: _Job) -> bool:
    found = job.id()
    return found is not None and set(cluster.rest.tasks(found)) == {RUNNING}


def _checkpoints(cluster: FlinkCluster, job_id: str) -> list[tuple[int, Checkpoint]]:
    """Return when each whole checkpoint was triggered, in ms since 1970, and what it is."""
    history: list[dict[str, Any]] = cluster.rest.get(f"jobs/{job_id}/checkpoints")["history"]
    whole = [c for c in history if c["status"] == "COMPLETED" and not c["is_savepoint"]]
    return sorted(
        (
            (c["trigger_timestamp"], Checkpoint(c["state_size"], c["end_to_end_duration"]))
            for c in whole
        ),
        key=lambda each: each[0],
    )


def _wait_for_checkpoint(cluster: FlinkCluster, job_id: str) -> None:
    now = time.time() * 1000
    until = time.monotonic() + PATIENCE_S
    while not any(at >= now for at, _ in _checkpoints(cluster, job_id)):
        if time.monotonic() > until:
            reason = f"no checkpoint within {PATIENCE_S:.0f} s"
            raise CommandFailed(reason)
        time.sleep(POLL_S)


def _wait_for_slots(cluster: FlinkCluster) -> None:
    until = time.monotonic() + PATIENCE_S
    while True:
        found = cluster.rest.overview()
        if found["slots-available"] == found["slots-total"]:
            return
        if time.monotonic() > until:
            reason = f"slots are still taken after {PATIENCE_S:.0f} s"
            raise CommandFailed(reason)
        time.sleep(POLL_S)


def _end_jobs(cluster: FlinkCluster) -> None:
    """Cancel what a run that failed has left."""
    try:
        for job in cluster.rest.jobs():
            if job["state"] not in ENDED:
                cluster.rest.cancel(job["jid"])
    except FlinkUnreachable:
        return
