"""Measure a stream between Pub/Sub topics, on the test double of Google's Go client.

    python -m bench.pubsub                    50,000 messages of JSON, on both local engines
    python -m bench.pubsub --messages 20k --engines FnApiRunner

Told are what only reading costs, and for each engine a whole stream that has been started, from the
first message to the last row: messages a second of wall time, and of a core (over the CPU of the
job's own processes). The double runs on the same machine and shares its cores; its CPU is told
besides: it looks through all that is not acknowledged at every pull, so more messages tell more of
it than of us. It gives what it has in any order, so that all rows leave at the end.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence

from bench.measure import Running, cpu_seconds, hear_signals, python, tree_cpu_seconds
from bench.stream_runs import ROOT
from examples.simulator.stream import Disturbance
from pipelines import prism
from tests.pipelines import streams
from tests.services.pubsub import PROJECT, PubSubService
from transforms.pubsub import PubSubAddress
from transforms.sources.messages import extent
from transforms.sources.pubsub import PubSubSource, end_all

TABLES = ("transitions", "cases", "late", "retracted", "dead_letters")
PATIENCE_S = 120.0
STARTED_S = 4.0
"""From the choice of the engine until a stream reads."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code is 1 if a stream did not give every row."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.pubsub",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--messages", type=_size, default=50_000, metavar="SIZE")
    parser.add_argument("--engines", default="FnApiRunner,PrismRunner", metavar="ENGINE,...")
    parser.add_argument("--runs", type=int, default=2)
    options = parser.parse_args(argv)
    hear_signals()
    start = time.time_ns() // 1000 - 600_000_000
    drawn = streams.json_messages(
        options.messages, Disturbance(), seed=1, start=start, rate=options.messages / 590
    )
    payloads = [record.payload for record in drawn.records]
    mean = sum(map(len, payloads)) / len(payloads)
    rows = drawn.truth.transitions
    print(f"{len(payloads):,} messages of {mean:.0f} bytes, {rows:,} transitions")
    failed = False
    for _ in range(options.runs):
        _tell("reading alone", *_read(payloads))
        for engine in options.engines.split(","):
            found = _stream(engine, payloads, rows)
            failed |= found is None
            if found is not None:
                _tell(engine, *found)
    return int(failed)


def _tell(name: str, messages: int, wall_s: float, cpu_s: float, service_s: float) -> None:
    print(
        f"{name:15} {messages / wall_s:9,.0f} messages/s  {messages / cpu_s:9,.0f} messages/s a "
        f"core  ({wall_s:.1f} s wall, {cpu_s:.1f} s CPU; the double {service_s:.1f} s CPU)",
        flush=True,
    )


def _read(payloads: Sequence[bytes]) -> tuple[int, float, float, float]:
    """Read messages in this process, finalizing every fourth batch as a runner does."""
    with PubSubService() as service:
        os.environ.update(service.environment())
        service.create_topic("events", ["events"])
        service.publish("events", payloads)
        assert service.pid is not None
        address = PubSubAddress.parse(f"pubsub://{PROJECT}/events")
        before, service_before = time.process_time(), cpu_seconds(service.pid)
        began, seen, batches = time.monotonic(), 0, 0
        reader = PubSubSource(address, batch=10_000).create_reader(None, None)
        found = reader.start()
        while seen < len(payloads):
            if found:
                seen += extent(reader.get_current()).messages
                batches += 1
            if batches % 4 == 0:
                reader.get_checkpoint_mark().finalize_checkpoint()
            found = reader.advance()
        reader.get_checkpoint_mark().finalize_checkpoint()
        reader.close()
        end_all()
        wall_s = time.monotonic() - began
        cpu_s = time.process_time() - before
        return seen, wall_s, cpu_s, cpu_seconds(service.pid) - service_before


def _stream(
    engine: str, payloads: Sequence[bytes], rows: int
) -> tuple[int, float, float, float] | None:
    """Run a stream from a backlog to its last row; None if it did not give every row."""
    with PubSubService() as service:
        os.environ.update(service.environment())
        service.create_topic("events", ["events"])
        for table in TABLES:
            service.create_topic(f"out-{table}", [f"out-{table}"])
        assert service.pid is not None
        words = ["transitions", "--input", f"pubsub://{PROJECT}/events?idle=2s&waiting=400000"]
        words += ["--output", f"pubsub://{PROJECT}/out-", "--progress", "off"]
        # Events are older than D: their order is that of publishing, and none waits for a clock.
        words += ["--disorder", "1s", "--runner", engine]
        if engine == "PrismRunner" and prism.location():
            words += ["--prism_location", str(prism.location())]
        job = Running(python(str(ROOT / "run.py"), *words))
        try:
            found, began, last, cpu_s, before = _follow(service, job, payloads, rows)
            job.send(signal.SIGINT)
            job.wait()
        except BaseException:
            job.send(signal.SIGKILL)
            raise
        if found < rows:
            print(f"{engine}: {found:,} of {rows:,} rows\n{job.said}", file=sys.stderr)
            return None
        return len(payloads), last - began, cpu_s, cpu_seconds(service.pid) - before


def _follow(
    service: PubSubService, job: Running, payloads: Sequence[bytes], rows: int
) -> tuple[int, float, float, float, float]:
    """Send messages to a job that has started, and take its rows: how many, and what it used."""
    while "engine: " not in job.said and not job.ended:
        time.sleep(0.1)
    # What starting costs is over, and the same for any number of messages.
    time.sleep(STARTED_S)
    assert service.pid is not None
    started_s, before = tree_cpu_seconds(job.pid), cpu_seconds(service.pid)
    began = last = time.monotonic()
    found, until, cpu_s = 0, began + PATIENCE_S, 0.0
    service.publish("events", payloads)
    while found < rows and time.monotonic() < until and not job.ended:
        taken = len(service.take("out-transitions"))
        if taken:
            found += taken
            last = time.monotonic()
            until = last + PATIENCE_S
        cpu_s = tree_cpu_seconds(job.pid) - started_s
        time.sleep(0.1)
    return found, began, last, cpu_s, before


def _size(text: str) -> int:
    number, unit = (text[:-1], 1000) if text.endswith("k") else (text, 1)
    if not number.isdecimal():
        reason = f"{text!r} is no size such as 200k"
        raise argparse.ArgumentTypeError(reason)
    return int(number) * unit


if __name__ == "__main__":
    sys.exit(main())
