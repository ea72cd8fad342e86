"""Run the suite and write its figures.

python -m tests.kills --seed 7 --runs 3                    or: make kills SEED=7

A run kills each part once, in an order of its own; the next run has the next seed, and the other
format. Exit code 1 if a stream has lost something, doubled something beyond its row id, or hung.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.kills import report
from tests.kills.recount import Wrong
from tests.kills.scenario import FORMATS, VICTIMS, Scenario, draw
from tests.kills.stage import Outcome, play
from tests.services.provision import Missing

_RATES = {"json_lines": 200, "imixs_xml": 60}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 all is well, 1 it is not, 2 the parts can't be had here."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.kills", description="Kill parts of a cluster under a stream."
    )
    add = parser.add_argument
    add("--seed", type=int, default=7, help="of the first run (default: 7)")
    add("--runs", type=int, default=3, help="each kills all parts once (default: 3)")
    add("--victims", nargs="+", choices=VICTIMS, default=VICTIMS, help="default: all of them")
    add("--folder", type=Path, help="for logs, which stay; else those of runs that go wrong do")
    add("--dry", action="store_true", help="write nothing to the documentation")
    options = parser.parse_args(argv)
    began = report.now()
    outcomes: list[Outcome] = []
    failed = 0
    for number in range(options.runs):
        format_ = FORMATS[number % len(FORMATS)]
        scenario = draw(
            options.seed + number, options.victims, format_=format_, rate=_RATES[format_]
        )
        try:
            outcome = _play(scenario, options.folder)
        except Missing as missing:
            print(f"error: {missing}", file=sys.stderr)
            return 2
        if outcome is not None:
            outcomes.append(outcome)
        failed += outcome is None or bool(outcome.differences)
    if outcomes:
        print(report.render(outcomes, report.machine(), began))
    if outcomes and not options.dry and not failed:
        print(f"written: {report.write(outcomes, began)}")
    return int(failed > 0)


def _play(scenario: Scenario, folder: Path | None) -> Outcome | None:
    """Do a run and say what came of it; None if it came to nothing."""
    order = ", ".join(kill.victim for kill in scenario.kills)
    print(f"== seed {scenario.seed}, {scenario.format}: {order}", flush=True)
    if folder is None:
        own = Path(tempfile.mkdtemp(prefix="imixs-kills-"))
    else:
        own = folder / str(scenario.seed)
        own.mkdir(parents=True)
    try:
        outcome = play(scenario, own, _say)
    except Wrong as wrong:
        print(f"error: seed {scenario.seed}: {wrong}\nsee {own}", file=sys.stderr)
        return None
    for difference in outcome.differences:
        print(f"error: seed {scenario.seed}: {difference}\nsee {own}", file=sys.stderr)
    if folder is None and not outcome.differences:
        shutil.rmtree(own, ignore_errors=True)
    return outcome


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
