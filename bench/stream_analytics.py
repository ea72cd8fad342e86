"""What analytics costs a stream: one topic, by `transitions` and by `analytics`.

Both write `transitions` and `cases`; analytics the five tables of hourly windows, too. What is
compared is the CPU of the whole job, over events that happened long ago, so that both are flat
out. None of the cases is known to end, so `variants` stays empty.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.agreement import MEASURED
from bench.measure import CommandFailed, python
from bench.stream_runs import (
    ROOT,
    StreamRun,
    Topic,
    new_name,
    play,
    rows_in,
    stream_command,
)
from bench.streams import Contestant, StreamMatch, forget, long_ago
from tests.services.kafka import KafkaBroker

STREAM_ANALYTICS_SECTIONS = ("stream_analytics",)
WITHOUT, WITH = "run.py transitions", "run.py analytics"
EVENTS, EVENT_RATE = 1_000_000, 50
HOUR = 3600
MOST = 1.3
Measurement = Mapping[str, Any]


def matches(events: int | None, rounds: int) -> Iterator[StreamMatch]:
    """Yield the one match; `events` makes its input smaller."""
    many = events or EVENTS
    text = f"{many:,} events, {EVENT_RATE:,} a second on their clock, D = 0, hourly windows"
    yield StreamMatch(
        f"stream_analytics/{many}", text, rounds, lambda b, f: _contestants(b, f, many)
    )


def _contestants(broker: KafkaBroker, folder: Path, events: int) -> list[Contestant]:
    topic = long_ago(broker, folder, events, EVENT_RATE)
    moved = ("transitions", "cases")
    every = (*moved, *(output.name for output in MEASURED))
    measured = ("--window", "fixed:1h", "--tables", ",".join(every))
    return [
        Contestant(WITHOUT, events, lambda: _run(broker, topic, "transitions", moved, ())),
        Contestant(WITH, events, lambda: _run(broker, topic, "analytics", every, measured)),
    ]


def _run(
    broker: KafkaBroker,
    topic: Topic,
    pipeline: str,
    tables: Sequence[str],
    options: Sequence[str],
) -> StreamRun:
    prefix = new_name("out") + "-"
    # The first word is the pipeline's name.
    words = stream_command(broker, topic.name, prefix, "--disorder", "0s", *options)[1:]
    command = python(str(ROOT / "run.py"), pipeline, *words)
    try:
        found = play(broker, command, f"{prefix}transitions", topic.rows)
        if pipeline == "analytics" and topic.rows > 2 * HOUR * EVENT_RATE:
            empty = [t for t in tables if not rows_in(broker, f"{prefix}{t}") and t != "variants"]
            if empty:
                reason = f"windows are over, and there is nothing in {', '.join(empty)}"
                raise CommandFailed(reason)
        return found
    finally:
        for table in tables:
            forget(broker, f"{prefix}{table}")


def judge(m: Measurement) -> Iterator[tuple[str, str, bool]]:
    """Judge what was measured against what is promised."""
    ratio = _ratio(m)
    if ratio is not None:
        text = f"a stream: analytics costs at most {MOST} times the CPU of transitions"
        yield text, f"{ratio:.2f}", ratio <= MOST


def rows(measurements: Mapping[str, Measurement]) -> Iterator[Sequence[str]]:
    """Yield a row for each entry, the table's head first."""
    yield (
        *("input", "program", "CPU s / 1M events", "CPU µs an event, second half"),
        *("events/s, first to last row", "peak memory MiB", "CPU / transitions"),
    )
    for m in measurements.values():
        for entry in m["entries"]:
            runs = entry["runs"]
            if not runs:
                yield m["input"], entry["name"], "failed", *[""] * 4
                continue
            ratio = _ratio(m) if entry["name"] == WITH else None
            yield (
                m["input"],
                entry["name"],
                f"{statistics.median(r['cpu_s'] / r['rows'] * 1e6 for r in runs):.1f}",
                f"{statistics.median(r['steady_us'] for r in runs):.1f}",
                f"{statistics.median(r['rows'] / max(r['append_s'], 0.001) for r in runs):,.0f}",
                f"{max(r['tree_bytes'] for r in runs) / 2**20:,.0f}",
                "" if ratio is None else f"{ratio:.2f}",
            )


def _ratio(m: Measurement) -> float | None:
    """Return the CPU of analytics by that of transitions, the median of the rounds."""
    by_name = {e["name"]: e["runs"] for e in m["entries"]}
    pairs = zip(by_name.get(WITH, ()), by_name.get(WITHOUT, ()), strict=False)
    found = [a["cpu_s"] / b["cpu_s"] for a, b in pairs]
    return statistics.median(found) if found else None
