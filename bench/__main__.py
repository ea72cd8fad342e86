"""Measure `run.py transitions` beside other engines and write `bench/results.md`.

    python -m bench                                  everything, about 40 minutes
    python -m bench --only parquet --events 2M       a part; the other results stay
    python -m bench --only stream --events 200k      a stream, made smaller
    python -m bench --only analytics,analytics_map   beside DuckDB's SQL and pm4py
    python -m bench --only flink,flink_state         on a cluster of Flink
    python -m bench --only pubsub                    on the test double of Pub/Sub
    python -m bench --quick                          small inputs: does it all work?

Raw figures go to `bench/results.json`; a quick run's go to `bench/work` instead. Needs the
packages of the dependency group `bench`.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.analytics import PM4PY
from bench.data import WORK
from bench.flink import JAVA
from bench.measure import CommandFailed, hear_signals
from bench.report import load, render, save, targets
from bench.sections import DUCKDB, MILLION, POLARS, SECTIONS, Plan, measure
from bench.streams import BYTEWAX

PEERS = (DUCKDB, POLARS, BYTEWAX, JAVA, PM4PY)
PACKAGES = ("duckdb", "polars", "apache-beam", "pyarrow", "numpy")


def main() -> int:
    """Run the benchmarks; the exit code is 1 if a command that is not a peer's failed."""
    args = _parser().parse_args()
    hear_signals()
    problem = _missing()
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    plan = Plan(
        only=args.only,
        events=(200_000,) if args.quick and args.events is None else args.events or _EVENTS,
        runs=args.runs or (1 if args.quick else 3),
        quick=args.quick,
        stream_events=min(args.events) if args.events else None,
    )
    folder = WORK if args.quick else Path(__file__).parent
    WORK.mkdir(parents=True, exist_ok=True)
    raw, shown = folder / "results.json", folder / "results.md"
    console = Console()
    failed = False
    measurements = load(raw)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("")
        plan.told = lambda text: progress.update(task, description=escape(text))
        for match in plan.matches():
            try:
                found = measure(match, plan)
            except CommandFailed as error:
                console.print(f"{match.key}: {error}", style="red", markup=False)
                failed = True
                continue
            found["machine"] = machine()
            found["date"] = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
            measurements[match.key] = found
            save(raw, measurements)
            shown.write_text(render(measurements))
            failed |= _tell(console, match.key, found)
    for target in [] if args.quick else targets(measurements):
        style = "green" if target.met else "red"
        console.print(f"{target.text}: {target.measured}", style=style, markup=False)
    console.print(f"written: {os.path.relpath(shown)}", markup=False)
    return int(failed)


def _tell(console: Console, key: str, found: Mapping[str, Any]) -> bool:
    """Print a line a contestant; say whether one that is not a peer failed."""
    failed = False
    for entry in found["entries"]:
        if entry["failure"]:
            failed |= not entry["name"].startswith(PEERS)
            text = f"{key}: {entry['name']} failed: {entry['failure']}"
            console.print(text, style="red", markup=False)
            continue
        walls = ", ".join(f"{r['wall_s']:.2f}" for r in entry["runs"])
        cpu = ", ".join(f"{r['cpu_s']:.2f}" for r in entry["runs"])
        peak = max(r["tree_bytes"] for r in entry["runs"]) / 2**20
        text = f"{key}: {entry['name']}: wall {walls} s; CPU {cpu} s; {peak:,.0f} MiB"
        console.print(text, markup=False, highlight=False)
    return failed


def _missing() -> str | None:
    """Say what this machine lacks."""
    if not Path("/proc/stat").exists():
        return "processes are measured through /proc: run the benchmarks on Linux"
    absent = [name for name in ("duckdb", "polars", "confluent_kafka") if find_spec(name) is None]
    if absent:
        return f"{' and '.join(absent)} not found: pip install --group bench"
    return None


def machine() -> str:
    """Describe this machine and the versions in a sentence."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{len(os.sched_getaffinity(0))} cores ({_processor()}), {memory:.0f} GiB, "
        f"{platform.system()}, Python {platform.python_version()}, {packages}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


_EVENTS = (2 * MILLION, 10 * MILLION)


def _sections(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in SECTIONS:
            reason = f"{name!r} is none of {', '.join(SECTIONS)}"
            raise argparse.ArgumentTypeError(reason)
    return names


def _sizes(text: str) -> list[int]:
    sizes = []
    for word in text.split(","):
        number, unit = word[:-1], {"k": 1000, "M": MILLION}.get(word[-1:])
        if unit is None or not number.isdecimal() or int(number) == 0:
            reason = f"{word!r} is no size such as 500k or 2M"
            raise argparse.ArgumentTypeError(reason)
        sizes.append(int(number) * unit)
    return sizes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="small inputs, one round; results in bench/work")
    add(
        "--only",
        type=_sections,
        default=list(SECTIONS),
        metavar="SECTION,...",
        help=", ".join(SECTIONS),
    )
    add(
        "--events",
        type=_sizes,
        metavar="SIZE,...",
        help="2M,10M: logs compared with the peers; the least is each stream's size",
    )
    add("--runs", type=int, metavar="N", help="rounds that count (default: 3)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
