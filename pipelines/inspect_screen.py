"""Shows on a terminal what `inspect` has seen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from pipelines.inspect import Look, Seen
from pipelines.screen import PLAIN_WIDTH, Screen, counted
from pipelines.values import time_text

_FIRST = ("case_id", "event_time", "activity", "state")
_STYLES = {"decoded": "green", "skipped": "dim", "dead": "bold red", "rejected": "yellow"}
_WORDS = {"dead": "dead letter", "rejected": "some events rejected"}


def show_looks(screen: Screen, found: Sequence[Look]) -> None:
    """Print what was seen of each input."""
    for number, each in enumerate(found):
        if number:
            screen.say()
        _show(screen, each)
    if not any(each.messages or each.counts.get("skipped") for each in found):
        screen.say("no messages were found: files are empty, or topics have none yet")
        return


def _show(screen: Screen, look: Look) -> None:
    how = "--format" if look.chosen else "found by content"
    what = f"{look.format} ({how})" if look.format else "no known format; name one by --format"
    screen.say(Text.assemble((look.name, "bold"), ": ", what))
    for warning in look.warnings:
        screen.warn(warning)
    if look.origins:
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        for name in ("column", "from", "how"):
            table.add_column(name, overflow="fold")
        for origin in look.origins:
            lost = origin.how.startswith("not found") or origin.how.endswith("not found")
            table.add_row(origin.column, origin.source, Text(origin.how, "red" if lost else ""))
        screen.say()
        screen.table(table)
    for seen in look.messages:
        screen.say()
        _show_message(screen, seen)
    if look.counts and (look.messages or look.counts.get("skipped")):
        counts = look.counts
        screen.say()
        text = (
            f"{counts['decoded']:,} decoded, {counts['skipped']:,} skipped, {counts['dead']:,} dead"
            f" of the {counted(counts['decoded'] + counts['skipped'] + counts['dead'], 'message')}"
            " looked at"
        )
        screen.say(Text(text, "dim"))


def _show_message(screen: Screen, seen: Seen) -> None:
    word = _WORDS.get(seen.status, seen.status)
    screen.say(Text.assemble(seen.place, "  ", (word, _STYLES[seen.status])))
    if seen.payload is not None:
        screen.say(
            Text(f"  {_cut(' '.join(seen.payload.split()), 3 * PLAIN_WIDTH)}", "dim"), wrap=True
        )
    if seen.attributes:
        pairs = ", ".join(f"{name}={value}" for name, value in seen.attributes.items())
        screen.say(Text(f"  headers: {_cut(pairs, 2 * PLAIN_WIDTH)}", "dim"), wrap=True)
    for event in seen.events:
        screen.say(Text(f"  event: {_event(event)}"), wrap=True)
    for error, reason in seen.reasons:
        screen.say(Text.assemble("  ", (f"{error}: ", "red"), reason), wrap=True)


def _event(event: dict[str, Any]) -> str:
    names = [*(n for n in _FIRST if n in event), *(n for n in event if n not in _FIRST)]
    pairs = []
    for name in names:
        value = event[name]
        if isinstance(value, dict):
            pairs += [f"{name}.{key}={text}" for key, text in value.items()]
        else:
            pairs.append(f"{name}={_text(value)}")
    return "  ".join(pairs)


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return time_text(round(value.timestamp() * 1_000_000))
    return _cut(str(value), 60)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
