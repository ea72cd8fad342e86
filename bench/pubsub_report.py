"""The table of Pub/Sub in `results.md`, and its targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench.pubsub import FN_API, READING, whole

MIB = 2**20
LEAST = 10_000
"""Messages/s that a core has to bring from topic to topics."""
LEAST_READ = 40_000
"""Messages/s that a core has to read."""

Measurement = Mapping[str, Any]
Figures = Mapping[str, Any]

NOTE = (
    "The service is the test double of Google's Go client, anew for each run, on the same cores. "
    "Messages are sent to a stream that has started; time and CPU are those from the first "
    "message to the last row, and what `idle=2s` waits is in the time. The double looks through "
    "all that is not acknowledged at every pull: the more messages, the more of the wall time is "
    "its own. Reading alone (`bench/pubsub_read.py`) is of messages that are there, acknowledged "
    "every fourth batch. Prism's own process counts as ours."
)


def judge(m: Measurement) -> Iterator[tuple[str, str, bool]]:
    """Judge what was measured against what is promised."""
    for name, least, text in (
        (whole(FN_API), LEAST, "Pub/Sub: at least {:,} messages/s a core"),
        (READING, LEAST_READ, "Pub/Sub: at least {:,} messages/s a core are read"),
    ):
        runs = [r for e in m["entries"] if e["name"] == name for r in e["runs"]]
        if runs:
            rate = _median(runs, _a_core)
            yield text.format(least), f"{rate:,.0f} messages/s", rate >= least


def rows(measurements: Mapping[str, Measurement]) -> Iterator[Sequence[str]]:
    """Yield the rows of the table, its head first."""
    yield (
        "input",
        "program",
        "messages/s",
        "messages/s a core",
        "CPU s / 1M messages",
        "the double's CPU s / 1M",
        "peak memory MiB",
    )
    for m in measurements.values():
        for entry in m["entries"]:
            runs = entry["runs"]
            if not runs:
                yield m["input"], entry["name"], "failed", *[""] * 4
                continue
            yield (
                m["input"],
                entry["name"],
                f"{_median(runs, lambda r: r['messages'] / r['took_s']):,.0f}",
                f"{_median(runs, _a_core):,.0f}",
                f"{_median(runs, lambda r: r['used_s'] / r['messages'] * 1e6):.1f}",
                f"{_median(runs, lambda r: r['service_cpu_s'] / r['messages'] * 1e6):.1f}",
                f"{max(r['tree_bytes'] for r in runs) / MIB:,.0f}",
            )


def _a_core(run: Figures) -> float:
    """Return messages a second of CPU of our own processes."""
    return float(run["messages"] / max(run["used_s"], 0.001))


def _median(runs: Sequence[Figures], figure: Callable[[Figures], float]) -> float:
    return statistics.median(map(figure, runs))
