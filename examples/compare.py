"""Compare a run's tables with the truth that the simulator has written.

python -m examples.compare demo/out demo/truth.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet

from examples.simulator.truth import Truth

SHOWN = 5

Row = tuple[str, int, str, str, str]
"""case, time in µs, activity, state, actor ("" if none)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print what differs; 0 if nothing does, 1 if something does, 2 if there is no run."""
    parser = argparse.ArgumentParser(prog="python -m examples.compare", description=__doc__)
    parser.add_argument("output", type=Path, help="a run's --output, with tables in Parquet")
    parser.add_argument("truth", type=Path, nargs="?", help="the simulator's --truth")
    parser.add_argument(
        "--end_states", action="store_true", help="print the truth's end states, given alone"
    )
    options = parser.parse_args(argv)
    if options.end_states:
        print(",".join(Truth.load(options.output).end_states))
        return 0
    try:
        manifest = json.loads((options.output / "_run.json").read_bytes())
        truth = Truth.load(options.truth)
    except FileNotFoundError as error:
        print(f"error: {error.filename} is missing", file=sys.stderr)
        return 2
    differences = [*counts(manifest, truth), *transitions(options.output, truth)]
    for line in differences:
        print(f"differs: {line}")
    if not differences:
        print(
            f"equal: {truth.messages:,} messages, {truth.events:,} events, "
            f"each of {truth.transitions:,} transitions of {len(truth.cases):,} cases, "
            f"{truth.retracted:,} of them retracted, {truth.complete:,} cases complete  ✓"
        )
    return 1 if differences else 0


def counts(manifest: Mapping[str, Any], truth: Truth) -> list[str]:
    """Say which of a run's counts differ from the truth."""
    messages, events = manifest["messages"], manifest["events"]
    pairs = {
        "messages": (messages["in"], truth.messages),
        "decoded": (messages["decoded"], truth.decoded),
        "skipped": (messages["skipped"], truth.skipped),
        "dead": (messages["dead"], truth.dead),
        "events": (events["in"], truth.events),
        "transitions": (events["transitions"], truth.transitions),
        "duplicates": (events["duplicates"], truth.duplicates),
        "rejected": (events["rejected"], truth.rejected),
        "retracted": (manifest["retracted"], truth.retracted),
        "cases": (manifest["tables"]["cases"]["rows"], len(truth.cases)),
    }
    return [
        f"{name}: {found:,} found, {expected:,} expected"
        for name, (found, expected) in pairs.items()
        if found != expected
    ]


def transitions(output: Path, truth: Truth) -> list[str]:
    """Say which transitions, retractions and complete cases differ from the truth."""
    expected: dict[str, Counter[Row]] = {"transitions": Counter(), "retracted": Counter()}
    for case_id, case in truth.cases.items():
        for name, listed in (("transitions", case.transitions), ("retracted", case.retracted)):
            for time, _, event, target, actor in listed:
                expected[name][case_id, time, str(event), str(target), actor or ""] += 1
    differences = []
    for name, state in (("transitions", "to_state"), ("retracted", "state")):
        # Old lines name no actor: a decoder may take it from the snapshot.
        unnamed = {row[:4] for row in expected[name] if not row[4]}
        found = Counter(
            (*row[:4], "" if row[:4] in unnamed else row[4]) for row in _rows(output / name, state)
        )
        for title, rows in (
            ("missing", expected[name] - found),
            ("too many", found - expected[name]),
        ):
            if rows:
                examples = ", ".join(map(str, list(rows)[:SHOWN]))
                differences.append(f"{name}: {rows.total():,} {title}, such as {examples}")
    cases = pyarrow.parquet.read_table(output / "cases", columns=["case_id", "is_complete"])
    complete = set(cases.filter(cases["is_complete"])["case_id"].to_pylist())
    wanted = {case_id for case_id, case in truth.cases.items() if case.complete}
    if complete != wanted:
        examples = ", ".join(sorted(complete ^ wanted)[:SHOWN])
        differences.append(f"is_complete: {len(complete ^ wanted):,} cases, such as {examples}")
    return differences


def _rows(folder: Path, state: str) -> list[Row]:
    columns = ["case_id", "event_time", "activity", state, "actor"]
    table = pyarrow.parquet.read_table(folder, columns=columns)
    times = pc.cast(table["event_time"], "int64").to_pylist()
    texts = [table[name].to_pylist() for name in ("case_id", "activity", state, "actor")]
    return [
        (case_id, time, activity, to, actor or "")
        for time, case_id, activity, to, actor in zip(times, *texts, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main())
