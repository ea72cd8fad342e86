"""The raw figures of `results.json` as the tables of `results.md`, and which targets are met.

A measurement that is run again replaces the old one; the others stay, each with its date.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import (
    analytics,
    flink_report,
    formats,
    pubsub_report,
    stream_analytics,
    stream_report,
)
from bench.measure import Run, ratios
from bench.sections import DUCKDB, OURS, PATCHED, PLAIN, START

GIB = 2**30
MIB = 2**20
UNCERTAIN = 0.1
"""Share of the cores used by others from which on a measurement is marked."""

Measurement = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """A promise and what became of it.

    Attributes:
        text: what is promised.
        measured: the figure, with its unit.
        met: whether it holds.
    """

    text: str
    measured: str
    met: bool


def load(path: Path) -> dict[str, Measurement]:
    """Read the raw figures, by key; none if there is no such file."""
    found: dict[str, Measurement] = json.loads(path.read_text()) if path.exists() else {}
    return found


def save(path: Path, measurements: Mapping[str, Measurement]) -> None:
    """Write the raw figures."""
    path.write_text(json.dumps(measurements, indent=1) + "\n")


def render(measurements: Mapping[str, Measurement]) -> str:
    """Write the results as Markdown."""
    lines = ["# Benchmark results", "", *_machines(measurements), "", *_reading(), ""]
    if any(m["quick"] for m in measurements.values()):
        lines += ["A quick run: the inputs are so small that starts count most. No targets.", ""]
    else:
        lines += ["## Targets", "", *_target_table(targets(measurements)), ""]
    for title, prefixes, table in _SECTIONS:
        chosen = {k: m for k, m in measurements.items() if k.split("/")[0] in prefixes}
        if chosen:
            lines += [f"## {title}", "", *table(chosen), "", *_notes(chosen), ""]
    return "\n".join(lines).rstrip() + "\n"


def targets(measurements: Mapping[str, Measurement]) -> list[Target]:
    """Judge every target that was measured."""
    found: list[Target] = []
    for key, m in measurements.items():
        section = key.split("/")[0]
        found += [Target(*judged) for judged in stream_report.judge(key, m)]
        if section in ("jsonl", "parquet"):
            found += _peer_targets(key, m)
        elif section == "xml":
            text = f"{key}: at least 10,000 documents/s on 2 cores"
            found += _at_least(text, _rate(m, OURS), 10_000, "documents/s")
        elif section == "xes":
            need, on = (45_000, "one core") if key.endswith("one") else (90_000, "2 cores")
            text = f"{key}: at least {need:,} events/s on {on}"
            found += _at_least(text, _rate(m, OURS), need, "events/s")
        elif section == "formats":
            found += [Target(*judged) for judged in formats.judge(m)]
        elif section == "stream_analytics":
            found += [Target(*judged) for judged in stream_analytics.judge(m)]
        elif section == "pubsub":
            found += [Target(*judged) for judged in pubsub_report.judge(m)]
        elif section in analytics.ANALYTICS_SECTIONS:
            found += _analytics_targets(key, m)
        elif section == "elementwise":
            for way, need in ((PLAIN, 50), (PATCHED, 15)):
                text = f"at least {need} x one element an event, {way}"
                found += _at_least(text, _element_ratio(m, way), need, "x")
    return [*found, *_scale_targets(measurements)]


def _peer_targets(key: str, m: Measurement) -> Iterator[Target]:
    ours, duck = _runs(m, OURS), _runs(m, DUCKDB)
    if not ours or not duck:
        return
    _, median, _ = ratios([r.wall_s for r in ours], [r.wall_s for r in duck])
    yield Target(f"{key}: at most 2 x DuckDB's wall time", f"{median:.2f} x", median <= 2)
    if _foreign(m) <= UNCERTAIN:  # else others may have used the second core
        used = _median(ours, lambda r: r.cpu_s / r.wall_s)
        yield Target(f"{key}: both cores are used", f"{used:.2f} cores", used >= 1.2)
    if _entry(m, OURS)["count"] >= 10_000_000:
        peak = max(r.tree_bytes for r in ours)
        yield Target(f"{key}: peak memory at most 2 GiB", f"{peak / GIB:.2f} GiB", peak <= 2 * GIB)


def _analytics_targets(key: str, m: Measurement) -> Iterator[Target]:
    ours, duck = _runs(m, analytics.ANALYTICS), _runs(m, DUCKDB)
    ratio = None
    if ours and len(ours) == len(duck):
        _, ratio, _ = ratios([r.wall_s for r in ours], [r.wall_s for r in duck])
    medians = {
        e["name"]: _median(runs, lambda r: r.wall_s)
        for e in m["entries"]
        if (runs := _runs(m, e["name"]))
    }
    for judged in analytics.judge(key, medians, ratio):
        yield Target(*judged)


def _at_least(text: str, value: float | None, need: float, unit: str) -> Iterator[Target]:
    if value is not None:
        number = f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"
        yield Target(text, f"{number} {unit}", value >= need)


def _scale_targets(measurements: Mapping[str, Measurement]) -> Iterator[Target]:
    """Compare 20M events with 5M: at 1M much of the time is the start."""
    middle, large = (_runs(measurements.get(f"scale/{n}"), OURS) for n in ("5M", "20M"))
    if not middle or not large:
        return
    cost = _median(large, lambda r: r.wall_s) / _median(middle, lambda r: r.wall_s) / 4
    yield Target("cost is linear: µs an event, 20M / 5M, at most 1.2", f"{cost:.2f}", cost <= 1.2)
    grown = max(r.tree_bytes for r in large) / max(r.tree_bytes for r in middle)
    text = "memory does not grow with the file: 20M / 5M, at most 1.25"
    yield Target(text, f"{grown:.2f}", grown <= 1.25)


def _target_table(found: Sequence[Target]) -> Iterator[str]:
    yield from _table(
        ("target", "measured", ""),
        [(t.text, t.measured, "ok" if t.met else "**missed**") for t in found],
    )


def _contest(measurements: Mapping[str, Measurement]) -> Iterator[str]:
    rows = []
    for m in measurements.values():
        theirs = _runs(m, DUCKDB)
        for entry in m["entries"]:
            mine = _runs(m, entry["name"])
            if not mine:
                rows.append((m["input"], entry["name"], "failed", *[""] * 7))
                continue
            rows.append(
                (
                    m["input"],
                    entry["name"],
                    *_figures(entry, mine),
                    _spread(mine, theirs, lambda r: r.wall_s),
                    _spread(mine, theirs, lambda r: r.cpu_s),
                )
            )
    head = ("input", "program", *_HEAD, "wall / DuckDB", "CPU / DuckDB")
    yield from _table(head, rows)


def _plain(measurements: Mapping[str, Measurement]) -> Iterator[str]:
    rows = []
    for m in measurements.values():
        entry = _entry(m, OURS)
        mine = _runs(m, OURS)
        rows.append((m["input"], *(_figures(entry, mine) if mine else ("failed", *[""] * 5))))
    unit = next(iter(measurements.values()))["unit"]
    yield from _table(("input", *(h.replace("events", unit) for h in _HEAD)), rows)


def _elements(measurements: Mapping[str, Measurement]) -> Iterator[str]:
    (m,) = measurements.values()
    rows: list[tuple[str, ...]] = []
    if _runs(m, OURS):
        rate = f"{_rate(m, OURS):,.0f}"
        rows.append(("`run.py transitions`, its start included", rate, ""))
    for way in (PLAIN, PATCHED):
        rates, times = _element_rates(m, way), _element_ratios(m, way)
        if rates and times:
            least, median, most = min(times), statistics.median(times), max(times)
            rows.append(
                (
                    f"one element an event, {way}",
                    f"{statistics.median(rates):,.0f}",
                    f"{median:.0f} ({least:.0f}-{most:.0f})",
                )
            )
    yield from _table(("program", "events/s", "ours / this"), rows)
    yield ""
    yield (
        "The usual way (`bench/elementwise.py`) runs on the FnApiRunner, in one process, which is "
        "how Beam comes. Its time without its start is taken: the difference between a long and a "
        "short input. It does less: no deduplication, no dead letters, no `cases`."
    )


def _growth(measurements: Mapping[str, Measurement]) -> Iterator[str]:
    rows = []
    for m in sorted(measurements.values(), key=lambda m: int(_entry(m, OURS)["count"])):
        entry, mine = _entry(m, OURS), _runs(m, OURS)
        if mine:
            cost = _median(mine, lambda r: r.wall_s) / entry["count"] * 1e6
            rows.append((m["input"], f"{cost:.2f}", *_figures(entry, mine)))
        else:
            rows.append((m["input"], "failed", *[""] * 6))
    yield from _table(("input", "µs an event", *_HEAD), rows)


def _stream(
    rows: Callable[[Mapping[str, Measurement]], Iterator[Sequence[str]]], note: str = ""
) -> Callable[[Mapping[str, Measurement]], Iterator[str]]:
    def table(measurements: Mapping[str, Measurement]) -> Iterator[str]:
        head, *body = rows(measurements)
        yield from _table(head, body)
        if note:
            yield from ("", note)

    return table


_HEAD = ("wall s", "CPU s", "cores used", "events/s", "peak memory MiB", "without file pages MiB")
_SECTIONS: tuple[
    tuple[str, tuple[str, ...], Callable[[Mapping[str, Measurement]], Iterator[str]]], ...
] = (
    ("JSON Lines and Parquet, beside DuckDB and Polars", ("jsonl", "parquet"), _contest),
    ("JSON Lines as output", ("jsonl_output",), _contest),
    ("Imixs XML: documents of 4 KiB with a 10-line `$eventlog`", ("xml",), _plain),
    ("XES", ("xes",), _plain),
    ("Beside a pipeline with one element an event", ("elementwise",), _elements),
    ("Cost by size", ("scale",), _growth),
    ("Analytics, beside DuckDB and pm4py", analytics.ANALYTICS_SECTIONS, _contest),
    (
        "Formats of messages, decoded",
        formats.FORMAT_SECTIONS,
        _stream(formats.rows, formats.NOTE),
    ),
    ("A stream, broker to broker", ("stream",), _stream(stream_report.beside)),
    ("A stream: from append to append", ("stream_latency",), _stream(stream_report.latency)),
    ("A stream: open cases", ("stream_state",), _stream(stream_report.state)),
    ("A stream: a sparse day", ("stream_catch_up",), _stream(stream_report.plain)),
    (
        "A stream: granule / batch / shards",
        ("stream_settings",),
        _stream(stream_report.plain),
    ),
    ("A stream: what analytics adds", ("stream_analytics",), _stream(stream_analytics.rows)),
    (
        "On Flink, broker to broker",
        ("flink",),
        _stream(flink_report.beside, flink_report.BESIDE),
    ),
    ("On Flink: parallelism / bundle", ("flink_settings",), _stream(flink_report.settings)),
    (
        "On Flink: checkpoints by open cases",
        ("flink_state",),
        _stream(flink_report.state, flink_report.STATE),
    ),
    (
        "Pub/Sub, on its test double",
        ("pubsub",),
        _stream(pubsub_report.rows, pubsub_report.NOTE),
    ),
)


def _figures(entry: Mapping[str, Any], runs: Sequence[Run]) -> tuple[str, ...]:
    wall = _median(runs, lambda r: r.wall_s)
    return (
        f"{wall:.2f}",
        f"{_median(runs, lambda r: r.cpu_s):.2f}",
        f"{_median(runs, lambda r: r.cpu_s / r.wall_s):.2f}",
        f"{entry['count'] / wall:,.0f}",
        f"{max(r.tree_bytes for r in runs) / MIB:,.0f}",
        f"{max(r.own_bytes for r in runs) / MIB:,.0f}",
    )


def _spread(ours: Sequence[Run], theirs: Sequence[Run], figure: Callable[[Run], float]) -> str:
    if not theirs or len(ours) != len(theirs) or ours == theirs:
        return ""
    least, median, most = ratios([figure(r) for r in ours], [figure(r) for r in theirs])
    return f"{median:.2f} ({least:.2f}-{most:.2f})"


def _element_rates(m: Measurement, way: str) -> list[float]:
    """Return events/s round by round, the start of the process left out."""
    entry, start = _entry(m, way), _entry(m, way + START)
    events = entry["count"] - start["count"]
    return [
        # At least a tenth of the run is not its start, whatever a busy machine makes of it.
        events / max(long.wall_s - short.wall_s, long.wall_s / 10)
        for long, short in zip(_runs(m, way), _runs(m, way + START), strict=False)
    ]


def _element_ratios(m: Measurement, way: str) -> list[float]:
    count = _entry(m, OURS)["count"]
    return [
        count / ours.wall_s / rate
        for ours, rate in zip(_runs(m, OURS), _element_rates(m, way), strict=False)
    ]


def _element_ratio(m: Measurement, way: str) -> float | None:
    found = _element_ratios(m, way)
    return statistics.median(found) if found else None


def _rate(m: Measurement, name: str) -> float | None:
    runs = _runs(m, name)
    return _entry(m, name)["count"] / _median(runs, lambda r: r.wall_s) if runs else None


def _entry(m: Measurement, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(e for e in m["entries"] if e["name"] == name)
    return found


def _runs(m: Measurement | None, name: str) -> list[Run]:
    if m is None:
        return []
    return [Run(**r) for e in m["entries"] if e["name"] == name for r in e["runs"]]


def _median(runs: Sequence[Run], figure: Callable[[Run], float]) -> float:
    return statistics.median(figure(r) for r in runs)


def _machines(measurements: Mapping[str, Measurement]) -> Iterator[str]:
    described: dict[str, list[str]] = {}
    for m in measurements.values():
        described.setdefault(m["machine"], []).append(m["date"][:10])
    for machine, dates in described.items():
        days = sorted(set(dates))
        when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        yield f"Measured {when} on {machine}."


def _reading() -> list[str]:
    return [
        "Whole processes, start of the interpreter included, each held to the same two cores. "
        "Programs take turns; figures are medians over the rounds, ratios are taken within a "
        "round and shown as median (least-greatest). Peak memory is the sum over all processes "
        "of the resident set, sampled every 50 ms; shared pages count in each process. "
        "Every output is checked: the manifest's counts, the rows written, and on a smaller log "
        "each column against DuckDB's. The SQL and the Polars code are in `bench/peers.py` and "
        "`bench/analytics_sql.py`. "
        "`make bench` writes this file; `python -m bench --help` says how to run parts of it.",
    ]


def _notes(measurements: Mapping[str, Measurement]) -> Iterator[str]:
    entries = [e for m in measurements.values() for e in m["entries"]]
    counts = sorted({len(e["runs"]) for e in entries if not e["failure"]}) or [0]
    shown = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    dates = sorted(m["date"] for m in measurements.values())
    span = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    yield f"Rounds: {shown}. {span}."
    for m in measurements.values():
        for e in m["entries"]:
            if e["failure"]:
                last = e["failure"].splitlines()[-1]
                yield f"{m['input']}, {e['name']} failed: `{last[:200]}`."
    foreign = [_foreign(m) for m in measurements.values()]
    if max(foreign) > UNCERTAIN:
        yield (
            f"The machine was not idle: other processes used up to {max(foreign):.0%} of its cores "
            "meanwhile, so times are too long; ratios suffer less."
        )


def _foreign(m: Measurement) -> float:
    """Return the median share of the cores that others used during a measurement."""
    shares = [
        r["foreign_cpu_s"] / r["wall_s"] / m["cores"] for e in m["entries"] for r in e["runs"]
    ]
    return statistics.median(shares) if shares else 0.0


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "|".join("---" for _ in head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
