"""The figures of the suite in `docs/reliability.md`: between two marks, the rest is prose."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from tests.kills.stage import Outcome, Recovery
from tests.services import flink, kafka

PAGE = Path(__file__).parent.parent.parent / "docs" / "reliability.md"
BEGIN = "<!-- figures: written by `make kills` -->"
END = "<!-- end of figures -->"


def render(outcomes: Sequence[Outcome], machine: str, when: datetime) -> str:
    """Return the figures as Markdown.

    Args:
        outcomes: of the runs.
        machine: a sentence on where they were measured.
        when: the suite began.
    """
    kills = sum(len(each.recoveries) for each in outcomes)
    lines = [
        f"Measured {when:%Y-%m-%d} on {machine}: {kills} kills.",
        "",
        *_table(
            ("seed", "format", "kill", "away s", "tasks again s", "rows again s", "repeats"),
            [
                (str(each.scenario.seed), each.scenario.format, *_recovered(recovery))
                for each in outcomes
                for recovery in each.recoveries
            ],
        ),
        "",
        *_table(
            (
                *("seed", "format", "messages", "rows", "of these late", "cases", "repeats"),
                *("differences", "minutes"),
            ),
            [_run(each) for each in outcomes],
        ),
    ]
    return "\n".join(lines)


def put(page: str, figures: str) -> str:
    """Return a page with its figures replaced.

    Raises:
        ValueError: it has no place for them.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        reason = f"the page has no place for figures between {BEGIN} and {END}"
        raise ValueError(reason)
    return f"{before}{begin}\n\n{figures}\n\n{end}{after}"


def write(outcomes: Sequence[Outcome], when: datetime) -> Path:
    """Write the figures into the page, and return its path."""
    PAGE.write_text(put(PAGE.read_text("utf-8"), render(outcomes, machine(), when)), "utf-8")
    return PAGE


def machine() -> str:
    """Describe this machine and the parts in a phrase."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, {platform.system()}, Python "
        f"{platform.python_version()}, apache-beam {version('apache-beam')}, Flink "
        f"{flink.VERSION}, Kafka {kafka.VERSION}"
    )


def now() -> datetime:
    """Return the time."""
    return datetime.now(timezone.utc)


def _recovered(recovery: Recovery) -> Iterator[str]:
    kill = recovery.kill
    yield kill.victim
    yield "" if kill.victim == "harness" else f"{kill.away_s:.1f}"
    yield "never stopped" if recovery.tasks_s is None else f"{recovery.tasks_s:.1f}"
    yield f"{recovery.rows_s:.1f}"
    yield f"{recovery.repeats:,}"


def _run(outcome: Outcome) -> Sequence[str]:
    return (
        str(outcome.scenario.seed),
        outcome.scenario.format,
        f"{outcome.messages:,}",
        f"{sum(outcome.rows.values()):,}",
        f"{outcome.rows['late']:,}",
        f"{outcome.cases:,}",
        f"{sum(outcome.repeats.values()):,}",
        f"{len(outcome.differences)}",
        f"{outcome.seconds / 60:.1f}",
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"
