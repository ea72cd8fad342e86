"""The watch over a job on Flink: does it start, why not, what happens while it works."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from pipelines.exit_codes import ExitCode, RunError
from pipelines.flink import FlinkPlan
from pipelines.flink_watch import ARRIVAL_S, FlinkWatch, await_job, reason_of
from pipelines.screen import Screen
from tests.pipelines.job_manager import JOB, NAME, JobManager, job_manager

NOW_MS = 1_700_000_000_000
PATIENCE = 45.0

JAVA = """java.lang.RuntimeException: it did not go well
\tat org.apache.flink.Some.thing(Some.java:1)
Caused by: java.io.IOException: the second cause
\tat org.apache.flink.Some.thing(Some.java:2)
\t... 3 more
Caused by: io.grpc.StatusRuntimeException: UNAVAILABLE: io exception
\tat io.grpc.Some.thing(Some.java:3)
"""

PYTHON = """java.lang.RuntimeException: Error received from SDK harness for instruction 5: \
Traceback (most recent call last):
  File "worker.py", line 1, in process
    import nothing
ModuleNotFoundError: No module named 'confluent_kafka' [while running 'Write topics 0/Produce']

\tat org.apache.beam.Some.thing(Some.java:1)
"""


@pytest.fixture
def manager() -> Iterator[JobManager]:
    with job_manager() as found:
        found.cluster()
        yield found


class Watched:
    """A watch whose clock goes on by a second with each look."""

    def __init__(self, manager: JobManager, **given: Any) -> None:
        plan = {"parallelism": 2, "workers": "EXTERNAL pool:7", **given}
        self.screen = Screen()
        self.text = io.StringIO()
        self.screen.err = self.screen.out = Console(file=self.text, width=1000)
        self.now = 0.0
        flink = FlinkPlan(manager.address, (), NAME, False, plan["workers"], plan["parallelism"])
        manager.answers.setdefault("jobs/overview", {"jobs": []})
        self.watch = FlinkWatch(flink, self.screen, PATIENCE, lambda: self.now)

    def look(self, seconds: float = 1.0) -> str:
        self.now += seconds
        return self.watch.look()

    def said(self) -> str:
        found = self.text.getvalue()
        self.text.seek(0)
        self.text.truncate()
        return found

    def refused(self, seconds: float = 1.0) -> str:
        with pytest.raises(RunError) as raised:
            self.look(seconds)
        assert raised.value.code == ExitCode.FAILED
        return raised.value.text


def test_a_job_that_starts_and_works(manager: JobManager) -> None:
    watched = Watched(manager)
    manager.answers["jobs/overview"] = {"jobs": []}
    assert (watched.look(), watched.watch.job_id) == ("", "")
    manager.job("RUNNING", start_ms=NOW_MS + 500, INITIALIZING=3, RUNNING=1)
    assert watched.look() == ""
    assert (watched.watch.job_id, watched.watch.works) == (JOB, False)
    assert f"/#/job/{JOB}" in watched.said()
    manager.job("RUNNING", start_ms=NOW_MS + 500, FINISHED=1, RUNNING=3)
    assert (watched.look(), watched.watch.works) == ("", True)
    assert "it works after 1 s" in watched.said()
    manager.checkpoints(3)
    watched.look(30)
    assert "running, 3 checkpoints, the last 1.0 MiB in 80 ms, 0 restarts" in watched.said()
    manager.job("FINISHED", start_ms=NOW_MS + 500, FINISHED=4)
    assert watched.look() == "FINISHED"


def test_an_earlier_job_of_that_name_is_another(manager: JobManager) -> None:
    manager.job("RUNNING", start_ms=NOW_MS, RUNNING=4)
    watched = Watched(manager)
    watched.look()
    assert watched.watch.job_id == ""
    text = watched.refused(ARRIVAL_S + 1)
    assert f"brought no job {NAME}" in text


def test_no_slots(manager: JobManager) -> None:
    watched = Watched(manager)
    manager.cluster(managers=1, slots=1, free=0)
    manager.job("RUNNING", start_ms=NOW_MS, SCHEDULED=4)
    watched.look()
    text = watched.refused(PATIENCE + 1)
    assert "1 task manager and 1 slots, 0 of them free, and the job wants 2" in text
    assert "--parallelism" in text
    assert f"PATCH /jobs/{JOB}?mode=cancel" in manager.asked


def test_workers_that_do_not_come(manager: JobManager) -> None:
    watched = Watched(manager)
    manager.job("RUNNING", start_ms=NOW_MS, INITIALIZING=3, RUNNING=1)
    watched.look()
    assert "no Python workers have come from EXTERNAL pool:7" in watched.refused(PATIENCE + 1)


def test_a_job_that_fails_three_times_is_given_up(manager: JobManager) -> None:
    watched = Watched(manager)
    manager.job("RESTARTING", start_ms=NOW_MS, CREATED=4)
    manager.failed(PYTHON)
    watched.look()
    assert "it failed to start: ModuleNotFoundError" in watched.said()
    manager.failed(PYTHON, PYTHON, PYTHON)
    text = watched.refused()
    assert "No module named 'confluent_kafka' (in step 'Write topics 0/Produce')" in text


def test_a_pool_that_is_down(manager: JobManager) -> None:
    watched = Watched(manager)
    manager.job("RESTARTING", start_ms=NOW_MS, CREATED=4)
    manager.failed(JAVA)
    watched.look()
    text = watched.refused(PATIENCE + 1)
    assert "no Python workers from EXTERNAL pool:7" in text
    assert "workers --port" in text


def test_a_savepoint_of_another_job(manager: JobManager) -> None:
    watched = Watched(manager)
    manager.job("RUNNING", start_ms=NOW_MS, RUNNING=4)
    watched.look()
    manager.failed("java.lang.IllegalStateException: Cannot map checkpoint/savepoint state")
    explained = watched.watch._explained(watched.watch.failure())
    assert "the savepoint is not of this job" in explained
    assert "--allow_non_restored_state" in explained


def test_timers_of_no_step_are_another_job_s(manager: JobManager) -> None:
    watched = Watched(manager)
    manager.job("RUNNING", start_ms=NOW_MS, RUNNING=4)
    watched.look()
    watched.look()
    manager.failed("java.lang.NullPointerException: No receiver found for timer step Fold ts-due")
    text = watched.refused()
    assert "the savepoint is not of this job" in text
    assert "timer step Fold" in text


def test_a_job_that_fails_while_it_works_goes_on(manager: JobManager) -> None:
    watched = Watched(manager)
    manager.job("RUNNING", start_ms=NOW_MS, RUNNING=4)
    watched.look()
    watched.look()
    manager.job("RESTARTING", start_ms=NOW_MS, CREATED=4)
    manager.failed(JAVA)
    watched.look()
    assert "it failed, and Flink restarts it: io.grpc.StatusRuntimeException" in watched.said()
    watched.look()
    manager.job("RUNNING", start_ms=NOW_MS, RUNNING=4)
    watched.look()
    assert "it works again after 2 s" in watched.said()
    assert watched.watch.restarts == 1


def test_a_full_disk_is_told(manager: JobManager) -> None:
    watched = Watched(manager)
    manager.job("RUNNING", start_ms=NOW_MS, RUNNING=4)
    watched.look()
    watched.look()
    manager.checkpoints(3, "java.io.IOException: No space left on device")
    watched.look()
    said = watched.said()
    assert "checkpoints fail: java.io.IOException: No space left on device; is there room" in said
    assert "the job goes on" in said
    watched.look()
    assert "checkpoints" not in watched.said()
    manager.checkpoints(4)
    watched.look()
    assert "checkpoints are whole again" in watched.said()


def test_a_job_manager_that_is_away(manager: JobManager) -> None:
    watched = Watched(manager)
    manager.job("RUNNING", start_ms=NOW_MS, RUNNING=4)
    watched.look()
    kept = dict(manager.answers)
    manager.answers.clear()
    watched.look()
    assert "the job manager is away" in watched.said()
    watched.look()
    assert watched.said() == ""
    manager.answers.update(kept)
    watched.look()
    assert "the job manager is there again" in watched.said()


def test_reasons_are_the_innermost_cause() -> None:
    assert reason_of(JAVA) == "io.grpc.StatusRuntimeException: UNAVAILABLE: io exception"
    assert reason_of(PYTHON).startswith("ModuleNotFoundError: No module named 'confluent_kafka'")
    assert reason_of("") == ""


class _Job:
    """What `await_job` needs of a job that a job server looks after."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self.result = None


def test_a_job_that_somebody_cancels(manager: JobManager) -> None:
    flink = FlinkPlan(manager.address, (), NAME, False, "", 1)

    def cancelled() -> None:
        manager.job("CANCELED", start_ms=NOW_MS, CANCELED=4)

    with pytest.raises(RunError, match="cancelled, by somebody else"):
        await_job(
            _Job(),  # type: ignore[arg-type]
            flink,
            Screen(quiet=True),
            PATIENCE,
            update=cancelled,
        )


def test_a_job_server_that_refuses_a_job(manager: JobManager) -> None:
    manager.answers["jobs/overview"] = {"jobs": []}
    job = _Job()
    job.error = RuntimeError("Pipeline job failed in state FAILED: Cannot map savepoint state")
    job.ended.set()
    flink = FlinkPlan(manager.address, (), NAME, False, "", 1)
    with pytest.raises(RunError, match="the savepoint is not of this job"):
        await_job(job, flink, Screen(quiet=True), PATIENCE)  # type: ignore[arg-type]


def test_a_job_server_that_is_gone_is_not_waited_for_in_a_spin(manager: JobManager) -> None:
    """The job goes on, and its launcher leaves the processors to it."""
    job = _Job()
    job.error = RuntimeError("UNAVAILABLE")
    flink = FlinkPlan(manager.address, (), NAME, False, "", 1)
    looks = 0

    def count() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            manager.job("RUNNING", start_ms=NOW_MS, RUNNING=4)
        elif looks == 15:
            job.ended.set()
        elif looks == 25:
            manager.job("FINISHED", start_ms=NOW_MS, FINISHED=4)

    await_job(job, flink, Screen(quiet=True), PATIENCE, update=count)  # type: ignore[arg-type]
    # A loop that waits for nothing comes round hundreds of thousands of times.
    assert looks < 60
