"""Write a simulated archive, or large inputs for benchmarks.

python -m examples.simulator --cases 2000 --seed 7 --output build/archive --truth build/truth.json
python -m examples.simulator --flat 100000 --collections --output build/flat
python -m examples.simulator --xes 1000000 --output build/log.xes
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from examples.simulator.archive import Layout, Written, write_archive
from examples.simulator.benchmark import write_documents, write_xes
from examples.simulator.delivery import deliver, newest
from examples.simulator.scenario import Faults, Scenario
from examples.simulator.simulate import START, Snapshot, simulate
from examples.simulator.truth import Witness
from examples.simulator.worktime import DAY, SECOND

_EXAMPLES = """examples:
  an archive of two months with everything that goes wrong in real ones, and what is in it:
    python -m examples.simulator --cases 2000 --seed 7 --output archive --truth truth.json
  a clean one:
    python -m examples.simulator --cases 2000 --output archive --no-faults
  a backup, one file a case, from an engine that keeps 30 lines of its log:
    python -m examples.simulator --cases 2000 --output backup --newest-only --old-engines
  100,000 documents of 4 KiB for a benchmark, 1,000 to a file:
    python -m examples.simulator --flat 100000 --collections --output flat
  an XES log of a million events:
    python -m examples.simulator --xes 1000000 --output log.xes
"""

_RATES = {
    "duplicate": "messages that come twice",
    "phantom": "calls that are rolled back after their message was sent",
    "missing": "messages that never come",
    "broken": "messages that nobody can read",
    "empty": "messages without a byte",
    "profile": "documents that are no workitems, a message",
    "unreadable": "log lines that nobody can read",
    "old_log": "cases that start on an old engine",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 written, 2 a wrong option or place."""
    parser = _parser()
    options = parser.parse_args(argv)
    console = Console(stderr=True)
    began = time.perf_counter()
    try:
        lines = _run(options, console)
    except (ValueError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 2
    for line in lines:
        print(line)
    print(f"{time.perf_counter() - began:.1f} s")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.simulator",
        description="Simulate an Imixs-Workflow engine and write its documents as an archive.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        required=True,
        metavar="PATH",
        help="a new or empty folder; with --xes a file",
    )
    add("--seed", type=int, default=7, help="the same seed writes the same bytes (default: 7)")
    add("--cases", type=int, default=2000, help="cases that arrive (default: 2000)")
    add("--days", type=float, default=60.0, help="length of the simulation (default: 60)")
    add(
        "--start",
        type=_time,
        default=START,
        metavar="TIME",
        help=f"its first day, ISO 8601, UTC if it has no zone (default: {START:%Y-%m-%d})",
    )
    add(
        "--truth",
        type=Path,
        metavar="FILE",
        help="write the expected counts and transitions as JSON, outside the archive",
    )
    add(
        "--newest-only",
        action="store_true",
        help="write each case's last committed document only, as a backup",
    )
    add(
        "--old-engines",
        action="store_true",
        help="all cases start on engines that log in the old form and keep 30 lines",
    )
    add(
        "--old-zone",
        choices=("UTC", "Europe/Berlin"),
        default="UTC",
        help="zone of the times in old logs, which do not say it (default: UTC)",
    )
    add("--nanos", action="store_true", help="log times have nine digits")
    rates = parser.add_argument_group("faults", "rates between 0 and 1")
    for name, title in _RATES.items():
        default = getattr(Faults(), name)
        rates.add_argument(
            f"--{name.replace('_', '-')}",
            type=float,
            metavar="RATE",
            help=f"{title} (default: {default})",
        )
    rates.add_argument(
        "--no-faults",
        action="store_true",
        help="nothing goes wrong, but for the rates that are given",
    )
    bench = parser.add_argument_group("benchmarks", "large inputs, quickly, without faults")
    which = bench.add_mutually_exclusive_group()
    which.add_argument(
        "--flat", type=int, metavar="N", help="N documents of 4 KiB with a 10-line log, a file each"
    )
    which.add_argument("--xes", type=int, metavar="N", help="an XES log of N events")
    bench.add_argument(
        "--collections", action="store_true", help="with --flat: <data> files of 1,000 documents"
    )
    return parser


def _time(text: str) -> datetime:
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        reason = f"{text!r} is no ISO 8601 time, such as 2024-09-30"
        raise argparse.ArgumentTypeError(reason) from None
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)


def _run(options: argparse.Namespace, console: Console) -> list[str]:
    output: Path = options.output
    for name in ("flat", "xes", "cases"):
        value = getattr(options, name)
        if value is not None and value < 1:
            reason = f"--{name} must be at least 1, not {value}"
            raise ValueError(reason)
    if options.xes is not None:
        log = write_xes(output, options.seed, options.xes)
        return [f"{output}: {log.events:,} events, {log.traces:,} traces, {_size(log.bytes)}"]
    if output.is_dir() and any(output.iterdir()):
        reason = f"{output} is not empty: remove it, or name another folder with --output"
        raise ValueError(reason)
    if options.flat is not None:
        with _progress(console, "documents", options.flat) as advance:
            written = write_documents(
                output,
                options.flat,
                seed=options.seed,
                collections=options.collections,
                progress=advance,
            )
        return [_summary(output, written)]
    return _write_simulation(options, console)


def _write_simulation(options: argparse.Namespace, console: Console) -> list[str]:
    output: Path = options.output
    truth_path: Path | None = options.truth
    if truth_path is not None and output.resolve() in truth_path.resolve().parents:
        reason = f"{truth_path} is inside the archive: put it beside {output} with --truth"
        raise ValueError(reason)
    scenario = Scenario(days=options.days, old_zone=options.old_zone, nanos=options.nanos)
    faults = _faults(options)
    snapshots = simulate(
        options.seed, options.cases, options.start, scenario=scenario, faults=faults
    )
    witness = Witness()
    with _progress(console, "days", max(round(options.days), 1)) as advance:
        sent: Iterator[Snapshot] = _days(snapshots, options.start, advance)
        messages = deliver(
            newest(sent) if options.newest_only else sent, seed=options.seed, faults=faults
        )
        written = write_archive(
            output,
            witness.watch(messages),
            seed=options.seed,
            layout=Layout(exports=0, pages=0, numbered=False) if options.newest_only else None,
        )
    truth = witness.truth()
    lines = [
        _summary(output, written),
        f"messages {truth.messages:,} = {truth.decoded:,} decoded + {truth.skipped:,} skipped"
        f" + {truth.dead:,} dead ({truth.empty:,} empty files beside)",
        f"events {truth.events:,} = {truth.transitions:,} transitions"
        f" + {truth.duplicates:,} duplicates + {truth.rejected:,} rejected",
        f"{truth.retracted:,} transitions retracted; {len(truth.cases):,} cases,"
        f" {truth.complete:,} complete; end states {','.join(truth.end_states)}",
    ]
    if truth_path is not None:
        truth_path.parent.mkdir(parents=True, exist_ok=True)
        truth.save(truth_path)
        lines.append(f"truth: {truth_path}")
    return lines


def _faults(options: argparse.Namespace) -> Faults:
    rates = {name: 0.0 if options.no_faults else getattr(Faults(), name) for name in _RATES}
    if options.newest_only:
        # A backup holds a document once, and misses none.
        rates.update(duplicate=0.0, missing=0.0)
    if options.old_engines:
        rates["old_log"] = 1.0
    given = {name: getattr(options, name) for name in _RATES if getattr(options, name) is not None}
    if options.newest_only and (given.get("duplicate") or given.get("missing")):
        reason = "--duplicate and --missing make no sense with --newest-only: leave them out"
        raise ValueError(reason)
    return Faults(**{**rates, **given})


def _days(
    snapshots: Iterator[Snapshot], start: datetime, advance: Callable[[int], None]
) -> Iterator[Snapshot]:
    """Pass snapshots on and tell how many days have gone by."""
    begin, shown = int(start.timestamp()) * SECOND, -1
    for snapshot in snapshots:
        day = (snapshot.time - begin) // DAY
        if day != shown:
            advance(day)
            shown = day
        yield snapshot


@contextmanager
def _progress(console: Console, unit: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, and nothing elsewhere."""
    columns = (
        TextColumn("writing"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as bar:
        task = bar.add_task(unit, total=total)
        yield lambda done: bar.update(task, completed=done)


def _summary(output: Path, written: Written) -> str:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(written.kinds.items()))
    return (
        f"{output}: {written.documents:,} messages in {written.files:,} files"
        f" ({kinds}; {written.compressed:,} compressed), {_size(written.bytes)}"
    )


def _size(count: int) -> str:
    return f"{count / 1_000_000:,.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
