"""A job on Flink from its submission to its end: does it start, does it go on, how is it stopped.

Beam's job server tells little of a job: one whose workers do not come is `RUNNING` for it, and
one that a launcher has lost goes on. So the job manager itself is asked. A job that does not get
to work within `patience_s` is cancelled, with the reason; one that works and fails is restarted by
Flink, and that is said. Ctrl-C stops a stream with a savepoint, from which it can go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from apache_beam.metrics import MetricsFilter

from pipelines import beam_log
from pipelines.exit_codes import ExitCode, RunError, Terminated
from pipelines.flink import FlinkPlan
from pipelines.flink_rest import (
    ENDED,
    RUNNING,
    Failure,
    FlinkRest,
    FlinkUnreachable,
    root_cause,
)
from pipelines.job import Job
from pipelines.screen import Screen, counted
from transforms.fold.made import StateMisfit

WAIT_S = 0.1
LOOK_S = 1.0
LINE_EVERY_S = 30.0
ARRIVAL_S = 60.0
"""So long the job server may take to bring a job to its cluster."""

FAILURES = 3
"""A job that fails so often before it has worked is given up."""

_NO_POOL = ("StartWorker", "UNAVAILABLE", "java.net.ConnectException", "UnknownHostException")
_TRACEBACK = "Traceback (most recent call last)"
_MISFIT = StateMisfit.__name__
_NO_STEP = "No receiver found for timer"
"""Flink has the timer of a step, and the job no step of that label."""
_WAITING = ("CREATED", "SCHEDULED")


class FlinkWatch:
    """Looks after one job.

    Jobs of its name that there are when this is made are others.

    Args:
        flink: how it got there.
        screen: where what happens is said.
        patience_s: a job that does not work by then is cancelled.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        flink: FlinkPlan,
        screen: Screen,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        rest = flink.rest()
        assert rest is not None
        self.rest: FlinkRest = rest
        self.job_id = ""
        self.restarts = 0
        self.works = False
        self._flink = flink
        self._screen = screen
        self._patience_s = patience_s
        self._clock = clock
        self._begun = self._looked = self._lined = clock()
        self._before = {each["jid"] for each in self._jobs()}
        self._failed: float | None = None
        self._known: set[Failure] = set()
        self._away = False
        self._checkpoint = ""
        self._state = ""

    def look(self) -> str:
        """Look at the job, not more often than once a second; say what is new.

        Returns:
            Its state, if it has ended; else nothing.

        Raises:
            RunError: it does not get to work, and has been cancelled.
        """
        now = self._clock()
        if now - self._looked < LOOK_S:
            return ""
        self._looked = now
        try:
            self._state = self._ask(now)
        except FlinkUnreachable as error:
            if not self._away:
                self._screen.warn(f"the job manager is away: {error}")
            self._away = True
            return ""
        if self._away:
            self._away = False
            self._screen.note("the job manager is there again")
        return self._state if self._state in ENDED else ""

    def failure(self) -> str:
        """Return why the job failed last, in one line; empty if it never did."""
        with suppress(FlinkUnreachable):
            failures = self.rest.failures(self.job_id) if self.job_id else []
            if failures:
                return reason_of(failures[-1].trace)
        return ""

    def cancel(self) -> None:
        """Cancel the job, if it is there and the job manager too."""
        with suppress(FlinkUnreachable):
            if self.job_id:
                self.rest.cancel(self.job_id)

    def _ask(self, now: float) -> str:
        if not self.job_id:
            self._find(now)
            if not self.job_id:
                return ""
        state = self.rest.state(self.job_id)
        failures = [each for each in self.rest.failures(self.job_id) if each not in self._known]
        self._known.update(failures)
        if state in ENDED:
            return state
        for each in failures:
            # However often it is restarted.
            if _MISFIT in each.trace:
                self.cancel()
                reason = reason_of(each.trace).partition(f"{_MISFIT}: ")[2]
                raise RunError(ExitCode.FAILED, f"cancelled: {reason}")
            if _NO_STEP in each.trace:
                self.cancel()
                raise RunError(ExitCode.FAILED, f"cancelled: {_of_another(reason_of(each.trace))}")
        tasks = self.rest.tasks(self.job_id)
        works = state == RUNNING and set(tasks) <= {RUNNING, "FINISHED"} and bool(tasks)
        if not self.works:
            self._starting(works, tasks, failures, now)
        else:
            self._going_on(works, failures, now)
        return state

    def _jobs(self) -> list[dict[str, Any]]:
        with suppress(FlinkUnreachable):
            return self.rest.jobs()
        return []

    def _find(self, now: float) -> None:
        jobs = [each for each in self.rest.jobs() if each["name"] == self._flink.job_name]
        found = next((each for each in jobs if each["jid"] not in self._before), None)
        if found is not None:
            self.job_id = found["jid"]
            # From now on it is the cluster that is waited for.
            self._begun = now
            self._screen.note(f"job {self._flink.job_name}: {self.rest.url}/#/job/{self.job_id}")
        elif now - self._begun > ARRIVAL_S:
            text = (
                f"the job server has brought no job {self._flink.job_name} to {self.rest.url} in "
                f"{ARRIVAL_S:.0f} s; does it know another cluster? See its log"
            )
            raise RunError(ExitCode.FAILED, text)

    def _starting(
        self, works: bool, tasks: Mapping[str, int], failures: list[Failure], now: float
    ) -> None:
        if works:
            self.works = True
            self._screen.note(f"it works after {now - self._begun:,.0f} s")
            return
        over = now - self._begun > self._patience_s
        if len(self._known) >= FAILURES or (over and self._known):
            text = self._explained(reason_of(_telling(self._known)))
        elif over:
            text = self._missing(tasks)
        else:
            for each in failures:
                self._screen.warn(f"it failed to start: {reason_of(each.trace)}; again")
            return
        self.cancel()
        raise RunError(ExitCode.FAILED, text)

    def _missing(self, tasks: Mapping[str, int]) -> str:
        """Say what a job waits for that has neither failed nor got to work."""
        waited = f"after {self._patience_s:.0f} s"
        if any(tasks.get(state) for state in _WAITING):
            overview = self.rest.overview()
            free, slots = overview["slots-available"], overview["slots-total"]
            wanted = self._flink.parallelism or 1
            have = f"{counted(overview['taskmanagers'], 'task manager')} and {slots} slots"
            return (
                f"not enough slots {waited}: the cluster has {have}, {free} of them free, and the "
                f"job wants {wanted}; end another job, start a task manager, or give a smaller "
                "--parallelism"
            )
        states = ", ".join(f"{count} {state}" for state, count in tasks.items())
        return (
            f"it does not work {waited} ({states}): no Python workers have come from "
            f"{self._flink.workers}; see what the pool of workers and the task managers log"
        )

    def _explained(self, reason: str) -> str:
        """Add what a user can do to why a job failed to start."""
        if any(sign in reason for sign in _NO_POOL):
            return (
                f"the task managers get no Python workers from {self._flink.workers}: {reason}; is "
                "a pool there, as they see it? Start one: imixs-streams workers --port PORT"
            )
        if "Cannot map" in reason or "allowNonRestoredState" in reason:
            return _of_another(reason)
        return f"it failed to start: {reason}"

    def _going_on(self, works: bool, failures: list[Failure], now: float) -> None:
        for each in failures:
            self._screen.warn(f"it failed, and Flink restarts it: {reason_of(each.trace)}")
        if not works and self._failed is None:
            self._failed = now
            self.restarts += 1
        elif works and self._failed is not None:
            self._screen.note(f"it works again after {now - self._failed:,.0f} s")
            self._failed = None
        found = self.rest.checkpoints(self.job_id)
        if found.failure and found.failure != self._checkpoint:
            self._screen.warn(
                f"checkpoints fail: {found.failure.rstrip('.')}; is there room where they are "
                "kept? The task managers' logs tell more; the job goes on, and after a restart "
                "repeats what came since the last whole one"
            )
        elif self._checkpoint and not found.failure:
            self._screen.note("checkpoints are whole again")
        self._checkpoint = found.failure
        if now - self._lined < LINE_EVERY_S:
            return
        self._lined = now
        self._screen.note(
            f"{now - self._begun:,.0f} s: {self._state.lower() or 'running'}, "
            f"{counted(found.completed, 'checkpoint')}, the last {found.last_bytes / 2**20:,.1f} "
            f"MiB in {found.last_ms:,} ms, {counted(self.restarts, 'restart')}"
        )


def _of_another(reason: str) -> str:
    """Say that a savepoint has state that no step of this job takes up."""
    return (
        f"the savepoint is not of this job: {reason}; go on with the pipeline and options that it "
        "was made with (with --allow_non_restored_state the state of what is no step of this job "
        "is dropped, and that step begins anew)"
    )


def _telling(failures: Iterable[Failure]) -> str:
    """Return the trace that tells most: what our steps raised, else what came first."""
    traces = [each.trace for each in sorted(failures, key=lambda each: each.at_ms)]
    return next((each for each in traces if _TRACEBACK in each), traces[0])


def reason_of(trace: str) -> str:
    """Return the cause in a stack trace of Java, or the error of Python that it quotes."""
    if _TRACEBACK in trace:
        inner = [line for line in trace.splitlines() if not line.startswith(("\tat ", "\t... "))]
        return str(beam_log.original_error(RuntimeError("\n".join(inner))))
    return root_cause(trace)


def await_job(
    job: Job,
    flink: FlinkPlan,
    screen: Screen,
    patience_s: float,
    savepoints: str | None = None,
    *,
    detached: bool = False,
    update: Callable[[], None] = lambda: None,
) -> FlinkWatch | None:
    """Wait until a job has ended; Ctrl-C stops a stream with a savepoint, and cancels a backfill.

    Args:
        job: started.
        flink: how.
        screen: where what happens is said.
        patience_s: see `FlinkWatch`.
        savepoints: of a stream the folder of its savepoints, empty for the cluster's own; None
            for a backfill.
        detached: whether to wait only until it works.
        update: called again and again.

    Returns:
        What has looked after it; None where the job manager is not known.

    Raises:
        RunError: it did not start, failed, or was cancelled by somebody else.
        KeyboardInterrupt: the user has stopped a backfill.
    """
    if not flink.master:
        _await_server(job)
        return None
    watch = FlinkWatch(flink, screen, patience_s)
    said = False
    while True:
        try:
            if job.ended.wait(WAIT_S):
                # An event that is set makes nobody wait.
                time.sleep(WAIT_S)
            state = watch.look()
            update()
            if detached and watch.works:
                return watch
            if job.ended.is_set() and job.error is not None and not watch.job_id:
                raise RunError(ExitCode.FAILED, watch._explained(_server_said(job))) from job.error
            if job.ended.is_set() and job.error is not None and not state and not said:
                said = True
                screen.warn(f"the job server is gone ({_server_said(job)}); the job goes on")
        except KeyboardInterrupt as stopped:
            if savepoints is None or not watch.works:
                watch.cancel()
                raise
            _stop(watch, screen, savepoints, stopped)
            state = "FINISHED"
        except RunError:
            # It may come to the cluster yet.
            if job.result is not None:
                with suppress(Exception):
                    job.result.cancel()
            raise
        if state:
            break
    if state == "CANCELED":
        raise RunError(ExitCode.FAILED, "the job was cancelled, by somebody else")
    if state != "FINISHED":
        raise RunError(ExitCode.FAILED, watch._explained(watch.failure() or state), traceback=True)
    # The job server learns of it a moment later; what it counted comes with that.
    job.ended.wait(30)
    return watch


def _server_said(job: Job) -> str:
    error = job.error
    assert error is not None
    text = str(error)
    return reason_of(text) if "\tat " in text or "Traceback" in text else " ".join(text.split())


def _await_server(job: Job) -> None:
    try:
        while not job.ended.wait(WAIT_S):
            pass
    except KeyboardInterrupt:
        if job.result is not None:
            with suppress(Exception):
                job.result.cancel()
        raise
    if job.error is not None:
        raise RunError(ExitCode.FAILED, _server_said(job), traceback=True) from job.error


def _stop(watch: FlinkWatch, screen: Screen, folder: str, stopped: KeyboardInterrupt) -> None:
    """Stop a stream with a savepoint.

    Raises:
        RunError: it can't be made, or the user has not waited; the job goes on or is cancelled.
    """
    ended = isinstance(stopped, Terminated)
    what = "terminated" if ended else "stopping"
    screen.note(f"{what}: the job stops with a savepoint (Ctrl-C again: cancelled without one)")
    try:
        path = watch.rest.stop(watch.job_id, folder)
    except KeyboardInterrupt:
        watch.cancel()
        text = "cancelled without a savepoint; it can go on from its last checkpoint, if kept"
        code = ExitCode.TERMINATED if ended else ExitCode.INTERRUPTED
        raise RunError(code, text) from None
    except FlinkUnreachable as error:
        text = (
            f"no savepoint could be made, and the job goes on: {error}; name a folder that all of "
            f"the cluster sees with --savepoint_folder, or cancel it at {watch.rest.url}"
        )
        raise RunError(ExitCode.FAILED, text) from None
    screen.say(f"savepoint {path}")
    screen.say(f"go on with it: the same command, and --savepoint_path {path}")


def counts_of(result: Any, namespaces: tuple[type, ...]) -> dict[str, int]:
    """Return the counts that a job's steps have made, from its metrics.

    Args:
        result: Beam's.
        namespaces: classes of the steps.
    """
    wanted = {f"{each.__module__}.{each.__name__}" for each in namespaces}
    found: dict[str, int] = {}
    for each in result.metrics().query(MetricsFilter())["counters"]:
        if each.key.metric.namespace in wanted:
            value = each.committed if each.committed is not None else each.attempted
            found[each.key.metric.name] = found.get(each.key.metric.name, 0) + (value or 0)
    return found
