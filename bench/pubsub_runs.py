"""One run with Pub/Sub: a program that reads a subscription, or a job from a topic to topics.

Each has a service of its own: what one leaves there would slow the next. Taken is the time from
the first message to the last, with the CPU of that time: what starting costs is the same for
any number of messages.
"""

from __future__ import annotations

import json
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import orjson
from google.api_core.exceptions import GoogleAPIError

from bench.measure import CommandFailed, Run, Running, cpu_seconds, python, tree_cpu_seconds
from bench.stream_runs import POLL_S, ROOT, end
from tests.services.pubsub import PROJECT, PubSubService, ServiceError

TABLES = ("transitions", "cases", "late", "retracted", "dead_letters")
EVENTS = f"pubsub://{PROJECT}/events"
PATIENCE_S = 120.0
"""A job whose output does not grow for so long has failed."""
STARTED_S = 4.0
"""From the choice of the engine until a stream reads."""


@dataclass(frozen=True)
class PubSubRun(Run):
    """A run with Pub/Sub.

    Attributes:
        messages: that were read.
        took_s: of wall time, from the first message to the last message or row.
        used_s: CPU of the program in that time, with all its children.
        service_cpu_s: CPU of the service in that time.
    """

    messages: int = 0
    took_s: float = 0.0
    used_s: float = 0.0
    service_cpu_s: float = 0.0


@dataclass(frozen=True)
class Stretch:
    """The part of a run that counts; the attributes are those of `PubSubRun`."""

    took_s: float
    used_s: float
    service_cpu_s: float


def run_reading(payloads: Sequence[bytes]) -> PubSubRun:
    """Let a program read messages that are there, and acknowledge them.

    Raises:
        CommandFailed: it failed, or there is no service.
    """
    with _service() as (service, pid), tempfile.TemporaryDirectory() as folder:
        service.publish("events", payloads)
        output = Path(folder, "read.json")
        command = python("-m", "bench.pubsub_read", EVENTS, str(len(payloads)), str(output))
        before = cpu_seconds(pid)
        with service.found():
            job = Running(command)
        try:
            run = job.wait()
        except BaseException:
            job.send(signal.SIGKILL)
            raise
        service_s = cpu_seconds(pid) - before
        # The service works only while it is read from: all its CPU is of that time.
        stretch = Stretch(**json.loads(output.read_text()), service_cpu_s=service_s)
    return _found(run, len(payloads), stretch, service_s)


def run_stream(payloads: Sequence[bytes], rows: int, *options: str) -> PubSubRun:
    """Run a stream, send it messages once it has started, and take its rows.

    Args:
        payloads: the messages.
        rows: transitions that must come of them, each once.
        options: of the command.

    Raises:
        CommandFailed: it failed, it did not write what it should, or there is no service.
    """
    # The order of events is that of publishing, and all are older than D.
    words = ["--input", f"{EVENTS}?idle=2s&waiting=400000", "--disorder", "1s"]
    words += ["--output", f"pubsub://{PROJECT}/out-", "--progress", "off", *options]
    with _service() as (service, pid):
        for table in TABLES:
            service.create_topic(f"out-{table}", [f"out-{table}"])
        before = cpu_seconds(pid)
        with service.found():
            job = Running(python(str(ROOT / "run.py"), "transitions", *words))
        try:
            _await_start(job)
            stretch, ids = _follow(service, pid, job, payloads, rows)
            job.send(signal.SIGINT)
            run = end(job)
        except BaseException:
            job.send(signal.SIGKILL)
            raise
        ids += _ids(service)
        service_s = cpu_seconds(pid) - before
    check_ids(ids, rows, job.said)
    return _found(run, len(payloads), stretch, service_s)


def check_ids(ids: Sequence[str], rows: int, said: str) -> None:
    """See that every row came, and came once.

    Raises:
        CommandFailed: it is not so; with what the job has said.
    """
    different = len(set(ids))
    if not different == len(ids) == rows:
        reason = (
            f"{said[-2000:].strip()}\n{rows} rows were to be written; {len(ids)} are there, "
            f"{different} of them different"
        )
        raise CommandFailed(reason.strip())


@contextmanager
def _service() -> Iterator[tuple[PubSubService, int]]:
    """Start a service with a topic `events`; yield it and its process id.

    Raises:
        CommandFailed: it did not start, or does not answer.
    """
    try:
        with PubSubService() as service:
            service.create_topic("events", ["events"])
            yield service, service.pid or 0
    except (ServiceError, GoogleAPIError) as error:
        raise CommandFailed(str(error)) from None


def _await_start(job: Running) -> None:
    until = time.monotonic() + PATIENCE_S
    while "engine: " not in job.said and not job.ended:
        if time.monotonic() > until:
            reason = f"the stream did not start in {PATIENCE_S:.0f} s\n{job.said}"
            raise CommandFailed(reason)
        time.sleep(POLL_S)
    time.sleep(STARTED_S)


def _follow(
    service: PubSubService, pid: int, job: Running, payloads: Sequence[bytes], rows: int
) -> tuple[Stretch, list[str]]:
    """Send messages, and take rows until all are there or none come any more: their ids."""
    used, service_used = tree_cpu_seconds(job.pid), cpu_seconds(pid)
    began = grown = time.monotonic()
    stretch, ids = Stretch(0.0, 0.0, 0.0), list[str]()
    service.publish("events", payloads)
    while len(ids) < rows and not job.ended and time.monotonic() < grown + PATIENCE_S:
        taken = _ids(service)
        if taken:
            ids += taken
            grown = time.monotonic()
            stretch = Stretch(
                grown - began,
                tree_cpu_seconds(job.pid) - used,
                cpu_seconds(pid) - service_used,
            )
        time.sleep(POLL_S)
    return stretch, ids


def _ids(service: PubSubService) -> list[str]:
    """Take the rows that are there, and return their events' ids."""
    return [orjson.loads(message.data)["event_id"] for message in service.take("out-transitions")]


def _found(run: Run, messages: int, stretch: Stretch, service_s: float) -> PubSubRun:
    """Return the figures; the service's CPU is not that of others."""
    parts = {**vars(run), "foreign_cpu_s": max(run.foreign_cpu_s - service_s, 0.0)}
    counted = {each.name: getattr(stretch, each.name) for each in fields(stretch)}
    return PubSubRun(**parts, messages=messages, **counted)
