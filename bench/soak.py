"""Let a stream with faults run for long, and say how its memory grows.

    python -m bench.soak --minutes 30                    or: make soak MINUTES=30

Cases that have ended are forgotten after three minutes here, not thirty days, and so are silent
ones: over the second half of the time the state has reached its size, and memory that still grows
is a leak. Memory goes up and down by itself, so growth counts where it is beyond twice its
standard error. Exit code 1 if it does grow, if the laws do not hold, or if a message is missing.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from collections.abc import Sequence

import numpy as np

from bench.measure import CommandFailed, Running, hear_signals
from bench.stream_runs import PARTITIONS, our_stream, produce_command, rows_in
from tests.services.kafka import KafkaBroker

EVERY_S = 10.0
FAULTS = ("--duplicates", "0.01", "--disorder", "5s", "--delays", "0.001:60s", "--garbage", "0.001")
OPTIONS = ("--disorder", "10s", "--case_retention", "3m", "--idle_retention", "3m")
TABLES = ("transitions", "cases", "late", "retracted", "dead_letters")
DRAIN_S = 180.0
MOST_MIB_PER_HOUR = 60.0
BLOCK = 6
FEWEST_BLOCKS = 5
MIB = 2**20


def growth(samples: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the least-squares slope of (x, y) points and its standard error.

    Neighbours are not independent of each other (a heap grows for a minute, then shrinks): the
    error is that of the means of blocks of `BLOCK` points, taken as independent.
    """
    blocks = np.array(
        [
            np.mean(samples[at : at + BLOCK], axis=0)
            for at in range(0, len(samples) - BLOCK + 1, BLOCK)
        ]
    )
    (slope, _), covariance = np.polyfit(blocks[:, 0], blocks[:, 1], 1, cov=True)
    return float(slope), float(np.sqrt(covariance[0, 0]))


def settled(samples: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Return the samples of the second half: caches and state have filled before."""
    return samples[len(samples) // 2 :]


def messages_read(said: str) -> int | None:
    """Return how many messages a stream says that it has read, in what it printed last."""
    found = re.search(r"^messages\s+([\d,]+) =", said, re.MULTILINE)
    return int(found[1].replace(",", "")) if found else None


def soak(minutes: float, rate: int) -> bool:
    """Run it; say whether all is well.

    Raises:
        CommandFailed: the job or the producer failed.
    """
    short = {"retention_ms": "120000", "segment_ms": "60000", "segment_bytes": str(64 * MIB)}
    with KafkaBroker(settings={"log.retention.check.interval.ms": "30000"}) as broker:
        # Hours of records do not fit a small disk: what was read is dropped.
        times = {"message_timestamp_type": "LogAppendTime"}
        broker.create_topic("soak", PARTITIONS, **{**short, "retention_ms": "600000"}, **times)
        for table in TABLES:
            broker.create_topic(f"out-{table}", PARTITIONS, **short, **times)
        running: list[Running] = []
        try:
            job = Running(our_stream(broker, "soak", "out-", *OPTIONS))
            running.append(job)
            words = ["--rate", str(rate), "--seconds", str(minutes * 60), *FAULTS]
            producer = Running(produce_command(broker, "soak", *words))
            running.append(producer)
            samples = _watch(broker, job, producer)
            producer.wait()
            sent = rows_in(broker, "soak")
            _await_quiet(broker, job)
            job.send(signal.SIGINT)
            job.wait()
        finally:
            for one in running:
                one.send(signal.SIGKILL)
    print(job.said[-1500:])
    return _judge(samples, sent, messages_read(job.said))


def _watch(broker: KafkaBroker, job: Running, producer: Running) -> list[tuple[float, float]]:
    """Return (hours, MiB) every ten seconds while messages come."""
    began = time.monotonic()
    samples = []
    while not producer.ended and not job.ended:
        time.sleep(EVERY_S)
        seconds = time.monotonic() - began
        memory = job.memory_bytes / MIB
        samples.append((seconds / 3600, memory))
        sent, rows = rows_in(broker, "soak"), rows_in(broker, "out-transitions")
        print(f"{seconds:7.0f} s  {memory:7.0f} MiB  {sent:12,} sent  {rows:12,} rows", flush=True)
    return samples


def _await_quiet(broker: KafkaBroker, job: Running) -> None:
    """Wait until no more rows come: what was held back by D is out."""
    rows, deadline = -1, time.monotonic() + DRAIN_S
    while not job.ended and time.monotonic() < deadline:
        before, rows = rows, rows_in(broker, "out-transitions")
        if rows == before:
            return
        time.sleep(15)


def _judge(samples: Sequence[tuple[float, float]], sent: int, seen: int | None) -> bool:
    after = settled(samples)
    leaks = False
    if len(after) < FEWEST_BLOCKS * BLOCK:
        print("too short to say how memory grows")
    else:
        grows, error = growth(after)
        leaks = grows - 2 * error > MOST_MIB_PER_HOUR
        low, high = min(y for _, y in after), max(y for _, y in after)
        print(
            f"memory: {grows:+.0f} ± {2 * error:.0f} MiB an hour, "
            f"between {low:,.0f} and {high:,.0f} MiB{': it leaks' if leaks else ''}"
        )
    print(f"messages: {sent:,} sent, {'?' if seen is None else f'{seen:,}'} read")
    return seen == sent and not leaks


def main() -> int:
    """Run the command line; the exit code is 0 if all is well."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=30, help="how long (default: 30)")
    parser.add_argument("--rate", type=int, default=5000, help="messages a second (default: 5000)")
    given = parser.parse_args()
    hear_signals()
    try:
        return 0 if soak(given.minutes, given.rate) else 1
    except CommandFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
