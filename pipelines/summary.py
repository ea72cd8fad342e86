"""What a finished run says: its laws, tables and dead letters; and, before it, its plan."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from pipelines import show
from pipelines.databases import databases_of, show_database
from pipelines.engine import Engine
from pipelines.exit_codes import ExitCode
from pipelines.flink import FlinkPlan
from pipelines.laws import Law, laws, show_laws, verdict
from pipelines.registry import Pipeline
from pipelines.screen import Screen, counted
from pipelines.settings import Settings
from pipelines.values import size_text, time_text
from schemas.tables import CASES
from transforms.durations import show_ms
from transforms.sinks.steps import NEVER
from transforms.sources.files import Plan
from transforms.sources.matching import shown

FIRST_NAMES = 5
EXAMPLES = 5


def close(
    screen: Screen,
    settings: Settings,
    manifest: Mapping[str, Any],
    seconds: float,
    delivered: Mapping[str, Mapping[str, int]] | None = None,
) -> ExitCode:
    """Print the summary of a finished run and return how it ended.

    Args:
        screen: where.
        settings: of the run.
        manifest: that it has left.
        seconds: how long it took.
        delivered: database -> table -> rows that it has, of each that the run has filled.
    """
    for warning in manifest.get("warnings", ()):
        screen.warn(warning)
    if any(NEVER.format(state) in manifest.get("warnings", ()) for state in settings.end_states):
        _show_states(screen, settings, manifest)
    checked = laws(manifest)
    for place, rows in (delivered or {}).items():
        checked += [
            Law(f"rows of {name} in {place}", held["rows"], (("delivered", rows[name]),))
            for name, held in manifest["tables"].items()
        ]
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


def note_of_ends(screen: Screen, settings: Settings) -> None:
    """Say what numbers of windows mean where nothing says when a case is over."""
    if settings.window is None or settings.end_states or settings.complete_log:
        return
    screen.note(
        "no end state is known: nothing is completed, and a case is open until it is forgotten, "
        f"{show_ms(settings.idle_retention_ms)} after its last event; name them by --end_states"
    )


def _show_states(screen: Screen, settings: Settings, manifest: Mapping[str, Any]) -> None:
    """Say which states cases are in: an end state that nobody has is mostly misspelt."""
    if CASES.name not in manifest["tables"]:
        return
    states = show.states_of_cases(settings.output, settings.output_format)
    named = ", ".join(f"{name} ({count:,})" for name, count in states[:FIRST_NAMES])
    more = f" and {len(states) - FIRST_NAMES:,} others" if len(states) > FIRST_NAMES else ""
    if named:
        screen.note(f"the last states of cases are {named}{more}")


def _show_tables(screen: Screen, settings: Settings, manifest: Mapping[str, Any]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("table")
    table.add_column("rows", justify="right")
    table.add_column("files", justify="right")
    table.add_column("path", overflow="fold")
    for name in show.table_names(manifest):
        written = manifest["tables"][name]
        files = f"{_count(written['files']):,}"
        path = f"{settings.output}/{name}/*.{settings.output_format}"
        rows = f"{written['rows']:,}"
        if not settings.staged:
            table.add_row(name, rows, files, path)
        for target in databases_of(settings):
            table.add_row(name, rows, "", target.place(name))
    screen.table(table)
    screen.say()


def _count(files: Any) -> int:
    return files if isinstance(files, int) else len(files)


def _show_quality(screen: Screen, manifest: Mapping[str, Any]) -> None:
    found = {**manifest.get("quality", {}), "retracted": manifest.get("retracted", 0)}
    words = ", ".join(f"{count:,} {_plain(name, count)}" for name, count in found.items() if count)
    screen.say(f"quality   {words or 'no gaps, ties or reversals'}")


def _plain(name: str, count: int) -> str:
    return name.removesuffix("s") if count == 1 else name.replace("_", " ")


def _show_dead_letters(screen: Screen, settings: Settings, dead: int) -> None:
    screen.say()
    screen.say(f"dead      {counted(dead, 'dead letter')}")
    kinds = show.dead_letter_kinds(settings.output, settings.output_format)
    for kind in kinds[:EXAMPLES]:
        screen.say(f"  {kind.error} {kind.count:,}: {kind.message}")
        screen.say(Text(f"    {kind.source}", "dim"))
    if len(kinds) > EXAMPLES:
        screen.say(f"  and {counted(len(kinds) - EXAMPLES, 'other kind')} of error")
    if settings.staged:
        screen.say()
        return
    folder = shlex.quote(settings.output)
    screen.say(Text(f"  look: python run.py show {folder} --table dead_letters", "dim"))
    screen.say()


def show_plan(
    screen: Screen,
    pipeline: Pipeline,
    settings: Settings,
    plan: Plan,
    engine: Engine,
    on_flink: FlinkPlan | None = None,
) -> None:
    """Print what a run would do."""
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
    for setting in on_flink.settings if on_flink is not None else ():
        screen.say(f"          {setting}")
    since = "the first event" if settings.since_us is None else time_text(settings.since_us)
    until = "the last deadline" if settings.until_us is None else time_text(settings.until_us)
    screen.say(f"time      from {since} until {until}")
    databases = databases_of(settings)
    where = settings.output or "--output is not given"
    if not settings.staged and (settings.output or not databases):
        screen.say(f"output    {where}, {settings.output_format}")
    for target in databases:
        show_database(screen, target, pipeline)
    screen.say(f"          {', '.join(pipeline.tables)}")
    for warning in plan.warnings:
        screen.warn(warning)
    screen.say("nothing was read to the end, and nothing written (--explain_plan)")
