"""What a run says: notes while it goes, its plan, and at its end its laws, tables and dead letters.

What is meant for a program or a file goes to stdout, what is meant for whoever waits to
stderr. The figures come from the run's manifest, OUTPUT/_run.json.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.exit_codes import ExitCode
from pipelines.registry import PIPELINES, Pipeline
from pipelines.values import size_text, time_text

if TYPE_CHECKING:
    from pipelines.engine import Engine
    from pipelines.options import Settings
    from transforms.sources.files import Plan

FIRST_NAMES = 5
EXAMPLES = 5
PLAIN_WIDTH = 100


class Screen:
    """Standard output and standard error, as the user wants them.

    Args:
        quiet: no notes and no summary.
        color: `auto`, `always` or `never`; NO_COLOR and TERM are heeded by `auto`.
    """

    def __init__(self, quiet: bool = False, color: str = "auto") -> None:
        self.quiet = quiet
        self.out = _console(color, stderr=False)
        self.err = _console(color, stderr=True)

    def say(self, text: str | Text = "", wrap: bool = False) -> None:
        """Print a line of the result, unbroken unless it may wrap."""
        if not self.quiet:
            self.out.print(text, soft_wrap=not wrap)

    def table(self, table: Table) -> None:
        """Print a table of the result."""
        if not self.quiet:
            self.out.print(table)

    def note(self, text: str) -> None:
        """Print a line for whoever waits."""
        if not self.quiet:
            self.err.print(Text(text, "dim"), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.err.print(Text.assemble(("warning: ", "yellow"), text), soft_wrap=True)

    def fail(self, text: str) -> None:
        """Print an error."""
        self.err.print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)


def _console(color: str, stderr: bool) -> Console:
    console = Console(
        # Held, not looked up: others' output to sys.stderr may be turned off meanwhile.
        file=sys.stderr if stderr else sys.stdout,
        highlight=False,
        markup=False,
        emoji=False,
        force_terminal=True if color == "always" else None,
        no_color=True if color == "never" else None,
    )
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


@dataclass(frozen=True)
class Law:
    """What goes in must come out: `total = the sum of the parts`.

    Attributes:
        unit: what is counted.
        total: how many went in.
        parts: what became of them.
    """

    unit: str
    total: int
    parts: tuple[tuple[str, int], ...]

    @property
    def holds(self) -> bool:
        """Whether it adds up."""
        return self.total == sum(count for _, count in self.parts)

    def __str__(self) -> str:
        sum_ = " + ".join(f"{count:,} {name}" for name, count in self.parts)
        return f"{self.unit:<9} {self.total:,} {'=' if self.holds else '≠'} {sum_}"


def laws(manifest: Mapping[str, Any]) -> list[Law]:
    """Return the laws of a run: of its messages, of its events, and of each table's rows."""
    messages, events = manifest["messages"], manifest["events"]
    found = [
        Law("messages", messages["in"], _parts(messages, ("decoded", "skipped", "dead"))),
        Law(
            "events",
            events["in"],
            _parts(
                events,
                ("transitions", "duplicates", "late", "rejected"),
                # Only where --since or --until leaves some out.
                ("outside",),
            ),
        ),
    ]
    counted = {
        "transitions": (("transitions", events["transitions"]),),
        "late": (("late", events["late"]),),
        "retracted": (("retracted", manifest.get("retracted", 0)),),
        "dead_letters": (("dead", messages["dead"]), ("rejected", events["rejected"])),
    }
    for name, parts in counted.items():
        if name in manifest["tables"]:
            found.append(Law(f"rows of {name}", manifest["tables"][name]["rows"], parts))
    return found


def _parts(
    counts: Mapping[str, int], always: tuple[str, ...], sometimes: tuple[str, ...] = ()
) -> tuple[tuple[str, int], ...]:
    shown = [*always, *(name for name in sometimes if counts.get(name))]
    return tuple((name, counts.get(name, 0)) for name in shown)


def close(
    screen: Screen, settings: Settings, manifest: Mapping[str, Any], seconds: float
) -> ExitCode:
    """Print the summary of a finished run and return how it ended."""
    for warning in manifest.get("warnings", ()):
        screen.warn(warning)
    checked = laws(manifest)
    show_laws(screen, checked)
    _show_tables(screen, settings, manifest)
    _show_quality(screen, manifest)
    dead = manifest["messages"]["dead"] + manifest["events"]["rejected"]
    if dead and not screen.quiet:
        _show_dead_letters(screen, settings, dead)
    events = manifest["events"]["in"]
    rate = f", {events / seconds:,.0f} events/s" if events else ""
    screen.say(
        f"{seconds:,.1f} s{rate}; {manifest['engine']}, {counted(manifest['shards'], 'shard')}"
    )
    return verdict(screen, settings, manifest, checked)


def verdict(
    screen: Screen, settings: Settings, manifest: Mapping[str, Any], checked: list[Law]
) -> ExitCode:
    """Return how a run ended: whether its laws hold, and whether too much of it is dead."""
    broken = [law for law in checked if not law.holds]
    if broken:
        sentence = "; ".join(" ".join(str(law).split()) for law in broken)
        screen.fail(f"LAW VIOLATED: {sentence}. The output is incomplete: please report it")
        return ExitCode.LAW
    dead = manifest["messages"]["dead"] + manifest["events"]["rejected"]
    limit = dead_letter_limit(settings, manifest["messages"]["in"])
    if limit is not None and dead > limit:
        screen.fail(
            f"{counted(dead, 'dead letter')}, more than --max_dead_letters allows ({limit:,})"
        )
        return ExitCode.DEAD_LETTERS
    return ExitCode.OK


def dead_letter_limit(settings: Settings, messages: int) -> int | None:
    """Return how many dead letters a run may have; None if any number."""
    if settings.max_dead_percent is not None:
        return int(messages * settings.max_dead_percent / 100)
    return settings.max_dead_letters


def show_laws(screen: Screen, checked: list[Law]) -> None:
    """Print the laws of messages and events, and others where they are broken."""
    for number, law in enumerate(checked):
        if number < 2 or not law.holds:
            mark = ("✓", "green") if law.holds else ("✗ LAW VIOLATED", "bold red")
            screen.say(Text.assemble(str(law), "  ", mark))
    screen.say()


def _show_tables(screen: Screen, settings: Settings, manifest: Mapping[str, Any]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("table")
    table.add_column("rows", justify="right")
    table.add_column("files", justify="right")
    table.add_column("path", overflow="fold")
    for name in table_names(manifest):
        written = manifest["tables"][name]
        path = f"{settings.output}/{name}/*.{settings.output_format}"
        table.add_row(name, f"{written['rows']:,}", f"{_count(written['files']):,}", path)
    screen.table(table)
    screen.say()


def table_names(manifest: Mapping[str, Any]) -> list[str]:
    """Return the tables of a run in the order of its pipeline (a manifest's keys are sorted)."""
    pipeline = PIPELINES.get(manifest["pipeline"])
    known = pipeline.tables if pipeline else ()
    first = [name for name in known if name in manifest["tables"]]
    return first + [name for name in manifest["tables"] if name not in first]


def _count(files: Any) -> int:
    return files if isinstance(files, int) else len(files)


def _show_quality(screen: Screen, manifest: Mapping[str, Any]) -> None:
    found = {**manifest.get("quality", {}), "retracted": manifest.get("retracted", 0)}
    words = ", ".join(f"{count:,} {_plain(name, count)}" for name, count in found.items() if count)
    screen.say(f"quality   {words or 'no gaps, ties or reversals'}")


def counted(count: int, unit: str) -> str:
    """Return `1 file`, `2,000 files`."""
    return f"{count:,} {unit}" if count == 1 else f"{count:,} {unit}s"


def _plain(name: str, count: int) -> str:
    return name.removesuffix("s") if count == 1 else name.replace("_", " ")


def _show_dead_letters(screen: Screen, settings: Settings, dead: int) -> None:
    from pipelines import show  # noqa: PLC0415 (reads tables; only if there is something to read)

    screen.say()
    screen.say(f"dead      {counted(dead, 'dead letter')}")
    kinds = show.dead_letter_kinds(settings.output, settings.output_format)
    for kind in kinds[:EXAMPLES]:
        screen.say(f"  {kind.error} {kind.count:,}: {kind.message}")
        screen.say(Text(f"    {kind.source}", "dim"))
    if len(kinds) > EXAMPLES:
        screen.say(f"  and {counted(len(kinds) - EXAMPLES, 'other kind')} of error")
    folder = shlex.quote(settings.output)
    screen.say(Text(f"  look: python run.py show {folder} --table dead_letters", "dim"))
    screen.say()


def show_plan(
    screen: Screen, pipeline: Pipeline, settings: Settings, plan: Plan, engine: Engine
) -> None:
    """Print what a run would do."""
    from transforms.sources.matching import shown  # noqa: PLC0415 (Beam: not for --help)

    names = [shown(file.path) for file in plan.files[:FIRST_NAMES]]
    screen.say(f"pipeline  {pipeline.name}: {pipeline.title}")
    screen.say(f"input     {counted(len(plan.files), 'file')}, {size_text(plan.bytes)}")
    for name, (count, size) in plan.formats.items():
        screen.say(f"          {name}: {counted(count, 'file')}, {size_text(size)}")
    for name in names:
        screen.say(f"          {name}")
    if len(plan.files) > len(names):
        screen.say(f"          and {len(plan.files) - len(names):,} more")
    units = plan.units if isinstance(plan.units, int) else len(plan.units)
    screen.say(
        f"work      {counted(units, 'unit')} to read, {counted(plan.shards, 'shard')} to fold"
    )
    screen.say(f"engine    {engine} ({engine.reason})")
    since = "the first event" if settings.since_us is None else time_text(settings.since_us)
    until = "the last deadline" if settings.until_us is None else time_text(settings.until_us)
    screen.say(f"time      from {since} until {until}")
    where = settings.output or "--output is not given"
    screen.say(f"output    {where}, {settings.output_format}")
    screen.say(f"          {', '.join(pipeline.tables)}")
    for warning in plan.warnings:
        screen.warn(warning)
    screen.say("nothing was read to the end, and nothing written (--explain_plan)")
