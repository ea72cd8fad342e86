"""The stream's tables in `results.md`, and its targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench.streams import BYTEWAX, DISORDER, FEW, MANY, NO_DISORDER

MIB = 2**20
Measurement = Mapping[str, Any]
Figures = Mapping[str, Any]
Judged = tuple[str, str, bool]
"""What is promised, what was measured, whether it holds."""


def judge(key: str, m: Measurement) -> Iterator[Judged]:
    """Judge what was measured of a stream against what is promised."""
    section = key.partition("/")[0]
    if section == "stream":
        for name in (NO_DISORDER, DISORDER):
            runs = _runs(m, name)
            if runs:
                rate = statistics.median(_rate(name, r) for r in runs)
                yield (
                    f"{key}: at least 50,000 events/s from broker to broker, {name}",
                    f"{rate:,.0f} events/s",
                    rate >= 50_000,
                )
    elif section == "stream_latency":
        for quantile, most in (("p50", 500), ("p99", 1000)):
            for run in m["entries"][0]["runs"]:
                found = run["latency_ms"][quantile]
                text = f"latency from append to append: {quantile} at most {most:,} ms"
                yield text, f"{found:,.0f} ms", found <= most
    elif section == "stream_state":
        ratio = _growth(m)
        if ratio is not None:
            text = "an event at 1M open cases costs at most 1.5 times what it does at 10k"
            yield text, f"{ratio:.2f}", ratio <= 1.5
    elif section == "stream_catch_up":
        for run in m["entries"][0]["runs"]:
            rate = run["rows"] / (run["first_s"] + run["append_s"])
            text = "catching up on a sparse day: at least 20,000 events/s"
            yield text, f"{rate:,.0f} events/s", rate >= 20_000


def beside(measurements: Mapping[str, Measurement]) -> Iterator[Sequence[str]]:
    """Yield the rows of the table of speeds, its head first."""
    yield (
        "input",
        "program",
        "events/s, first to last row",
        "first row after s",
        "events/s, start included",
        "CPU s / 1M events",
        "of the second half",
        "broker's CPU s / 1M",
        "peak memory MiB",
        "ours / this",
    )
    for m in measurements.values():
        for entry in m["entries"]:
            runs = entry["runs"]
            if not runs:
                yield m["input"], entry["name"], "failed", *[""] * 7
                continue
            ratios = [
                _rate(NO_DISORDER, ours) / _rate(NO_DISORDER, run)
                for ours, run in zip(_runs(m, NO_DISORDER), runs, strict=False)
            ]
            name = entry["name"]
            yield (
                m["input"],
                name if name == BYTEWAX else f"run.py transitions, {name}",
                f"{_median(runs, lambda r: _rate(NO_DISORDER, r)):,.0f}",
                f"{_median(runs, lambda r: r['first_s']):.1f}",
                f"{_median(runs, lambda r: _rate(DISORDER, r)):,.0f}",
                f"{_median(runs, lambda r: r['cpu_s'] / r['rows'] * 1e6):.1f}",
                f"{_median(runs, lambda r: r['steady_us']):.1f}",
                f"{_median(runs, lambda r: r['broker_cpu_s'] / r['rows'] * 1e6):.1f}",
                f"{max(r['tree_bytes'] for r in runs) / MIB:,.0f}",
                f"{statistics.median(ratios):.1f}" if ratios and name == BYTEWAX else "",
            )


def latency(measurements: Mapping[str, Measurement]) -> Iterator[Sequence[str]]:
    """Yield the rows of the table of latencies, its head first."""
    names = ("p50", "p90", "p99", "max")
    yield "input", *(f"{name} ms" for name in names), "CPU s / 1M events", "peak memory MiB"
    for m in measurements.values():
        for run in m["entries"][0]["runs"] or [None]:
            if run is None:
                yield m["input"], "failed", *[""] * 5
                continue
            yield (
                m["input"],
                *(f"{run['latency_ms'][name]:,.0f}" for name in names),
                f"{run['cpu_s'] / run['rows'] * 1e6:.1f}",
                f"{run['tree_bytes'] / MIB:,.0f}",
            )


def state(measurements: Mapping[str, Measurement]) -> Iterator[Sequence[str]]:
    """Yield the rows of the table of open cases, its head first."""
    yield "input", "state", "CPU µs an event", "events/s", "peak memory MiB", "ratio"
    for m in measurements.values():
        for entry in m["entries"]:
            for run in entry["runs"]:
                ratio = _growth(m) if entry["name"].startswith(MANY) else None
                yield (
                    m["input"],
                    entry["name"],
                    f"{run['steady_us']:.1f}",
                    f"{_rate(NO_DISORDER, run):,.0f}",
                    f"{run['tree_bytes'] / MIB:,.0f}",
                    "" if ratio is None else f"{ratio:.2f}",
                )


def plain(measurements: Mapping[str, Measurement]) -> Iterator[Sequence[str]]:
    """Yield a row for each entry, the table's head first."""
    yield (
        "input",
        "what",
        "events/s, start included",
        "events/s, first to last row",
        "CPU µs an event, second half",
        "peak memory MiB",
    )
    for m in measurements.values():
        for entry in m["entries"]:
            runs = entry["runs"]
            if not runs:
                yield m["input"], entry["name"], "failed", "", "", ""
                continue
            yield (
                m["input"],
                entry["name"],
                f"{_median(runs, lambda r: _rate(DISORDER, r)):,.0f}",
                f"{_median(runs, lambda r: _rate(NO_DISORDER, r)):,.0f}",
                f"{_median(runs, lambda r: r['steady_us']):.1f}",
                f"{max(r['tree_bytes'] for r in runs) / MIB:,.0f}",
            )


def _rate(name: str, run: Figures) -> float:
    """Return events a second.

    With D = 0 from the first row to the last. With D = 30 s a job that was flat out for less
    reads everything before its first row is due, so there its start counts.
    """
    seconds = run["append_s"] + (run["first_s"] if name == DISORDER else 0)
    return float(run["rows"] / max(seconds, 0.001))


def _growth(m: Measurement) -> float | None:
    few, many = (
        [r["steady_us"] for e in m["entries"] if e["name"].startswith(start) for r in e["runs"]]
        for start in (FEW, MANY)
    )
    return statistics.median(many) / statistics.median(few) if few and many and few[0] else None


def _runs(m: Measurement, name: str) -> list[Figures]:
    return [r for e in m["entries"] if e["name"] == name for r in e["runs"]]


def _median(runs: Sequence[Figures], figure: Callable[[Figures], float]) -> float:
    return statistics.median(map(figure, runs))
