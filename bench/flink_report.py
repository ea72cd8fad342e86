"""The tables of what was measured on Flink, in `results.md`."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench.flink import DISORDERS, java, ours

MIB = 2**20
Measurement = Mapping[str, Any]
Figures = Mapping[str, Any]

BESIDE = (
    "Two task managers with a slot each, a checkpoint every 10 s, heap state; broker, cluster and "
    "job share the cores. CPU and memory are those of the task managers and the Python workers. "
    "The Java job is `bench/flink_peer`; it gives the same rows of `transitions` and `cases`, and "
    "does less: no dead letters, no rows of late or retracted events, no formats but this one. "
    "Every run is a new job, whose Java code is compiled anew: the second half shows it warm."
)
STATE = (
    "The last checkpoint began when all events had been folded; the longest may be an earlier one."
)

_HEAD = (
    "events/s, first to last row",
    "events/s, second half",
    "tasks run after s",
    "first row after s",
    "CPU s / 1M events",
    "of the second half",
    "peak memory MiB",
)


def beside(measurements: Mapping[str, Measurement]) -> Iterator[Sequence[str]]:
    """Yield the rows of the table of speeds, its head first; ratios are ours over the peer's."""
    ratios = ("events/s: ours / this", "second half", "CPU: ours / this", "second half")
    yield ("input", "program", *_HEAD, *ratios)
    for m in measurements.values():
        peers = {java(disorder): ours(disorder) for disorder in DISORDERS}
        for entry in m["entries"]:
            runs = entry["runs"]
            head = (m["input"], entry["name"])
            if not runs:
                yield (*head, "failed", *[""] * (len(_HEAD) + len(ratios) - 1))
                continue
            mine = _runs(m, peers.get(entry["name"], ""))
            yield (
                *head,
                *_figures(runs),
                _ratio(mine, runs, _rate),
                _ratio(mine, runs, _steady_rate),
                _ratio(mine, runs, _cpu),
                _ratio(mine, runs, _steady_cpu),
            )


def settings(measurements: Mapping[str, Measurement]) -> Iterator[Sequence[str]]:
    """Yield a row for each setting, the table's head first."""
    yield "input", "parallelism / bundle", *_HEAD
    for m in measurements.values():
        for entry in m["entries"]:
            found = _figures(entry["runs"]) if entry["runs"] else ("failed", *[""] * 6)
            yield m["input"], entry["name"], *found


def state(measurements: Mapping[str, Measurement]) -> Iterator[Sequence[str]]:
    """Yield a row for each number of open cases, the table's head first."""
    yield (
        "input",
        "open cases",
        "last checkpoint MiB",
        "bytes a case",
        "ms",
        "longest ms",
        "checkpoints",
        *_HEAD,
    )
    for m in measurements.values():
        for entry in m["entries"]:
            head = (m["input"], entry["name"])
            if not entry["runs"]:
                yield (*head, "failed", *[""] * (len(_HEAD) + 4))
            for run in entry["runs"]:
                taken = run["checkpoints"]
                cases = int(entry["name"].replace(",", ""))
                yield (
                    *head,
                    f"{taken[-1]['bytes'] / MIB:,.1f}",
                    f"{taken[-1]['bytes'] / cases:,.0f}",
                    f"{taken[-1]['ms']:,}",
                    f"{max(c['ms'] for c in taken):,}",
                    str(len(taken)),
                    *_figures([run]),
                )


def _figures(runs: Sequence[Figures]) -> tuple[str, ...]:
    return (
        f"{_median(runs, _rate):,.0f}",
        f"{_median(runs, _steady_rate):,.0f}",
        f"{_median(runs, lambda r: r['tasks_s']):.1f}",
        f"{_median(runs, lambda r: r['first_s']):.1f}",
        f"{_median(runs, _cpu):.1f}",
        f"{_median(runs, _steady_cpu):.1f}",
        f"{max(r['tree_bytes'] for r in runs) / MIB:,.0f}",
    )


def _rate(run: Figures) -> float:
    """Return events a second from the first row to the last."""
    return float(run["rows"] / max(run["append_s"], 0.001))


def _steady_rate(run: Figures) -> float:
    """Return events a second over the second half of the rows: compilers are warm by then."""
    return float(run["rows"] / 2 / max(run["half_s"], 0.001))


def _cpu(run: Figures) -> float:
    return float(run["cpu_s"] / run["rows"] * 1e6)


def _steady_cpu(run: Figures) -> float:
    return float(run["steady_us"])


def _ratio(
    mine: Sequence[Figures], theirs: Sequence[Figures], figure: Callable[[Figures], float]
) -> str:
    """Return the median of the ratios within a round; empty without both."""
    found = [figure(a) / figure(b) for a, b in zip(mine, theirs, strict=False) if figure(b)]
    return f"{statistics.median(found):.2f}" if found else ""


def _runs(m: Measurement, name: str) -> list[Figures]:
    return [r for e in m["entries"] if e["name"] == name for r in e["runs"]]


def _median(runs: Sequence[Figures], figure: Callable[[Figures], float]) -> float:
    return statistics.median(map(figure, runs))
