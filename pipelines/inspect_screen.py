"""Shows on a terminal what `inspect` has seen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from pipelines.inspect_seen import Kind, Look, Seen
from pipelines.origins import Origin
from pipelines.screen import PLAIN_WIDTH, Screen, counted
from pipelines.values import time_text

_FIRST = ("case_id", "event_time", "activity", "state")
_STYLES = {"decoded": "green", "skipped": "dim", "dead": "bold red", "rejected": "yellow"}
_WORDS = {"dead": "dead letter", "rejected": "some events rejected"}


def show_looks(screen: Screen, found: Sequence[Look]) -> None:
    """Print what was seen of each input."""
    told: list[tuple[Kind, Look]] = []
    for number, each in enumerate(found):
        if number:
            screen.say()
        _show(screen, each, told)
    if not any(each.messages or each.looked_at for each in found):
        screen.say("no messages were found: files are empty, or topics have none yet")


def _show(screen: Screen, look: Look, told: list[tuple[Kind, Look]]) -> None:
    """Print what was seen of an input; `told` are the tables of columns that were printed."""
    how = "--format" if look.chosen else "found by content"
    several = len(look.kinds) > 1
    if several:
        known = [kind.format for kind in look.kinds if kind.format]
        what = f"{counted(len(known), 'format')} ({how}): {', '.join(known)}"
        if len(known) < len(look.kinds):
            what += "; and messages of no known one"
    elif look.format:
        what = f"{look.format} ({how})"
    else:
        what = "no known format; name one by --format"
    screen.say(Text.assemble((look.name, "bold"), ": ", what))
    for warning in look.warnings:
        screen.warn(warning)
    for kind in look.kinds:
        if several:
            count = counted(kind.messages, "message")
            screen.say()
            screen.say(f"{kind.format or 'no known format'}: {count}")
        _show_origins(screen, kind, look, told)
    for seen in look.messages:
        screen.say()
        _show_message(screen, seen, several)
    if look.looked_at:
        screen.say()
        screen.say(Text(_counts(look), "dim"))


def _show_origins(screen: Screen, kind: Kind, look: Look, told: list[tuple[Kind, Look]]) -> None:
    if not kind.origins:
        return
    screen.say()
    for other, where in told:
        if (other.format, other.origins) == (kind.format, kind.origins):
            screen.say(Text(f"columns as in {where.name}", "dim"))
            return
    told.append((kind, look))
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("column", "from", "how"):
        table.add_column(name, overflow="fold")
    empty = [each for each in kind.origins if not each.source and "never filled" in each.how]
    shown = [each for each in kind.origins if each not in empty]
    if empty:
        # A format may leave most columns alone: they are one row.
        shown.append(Origin(", ".join(each.column for each in empty), "", empty[0].how))
    for origin in shown:
        lost = origin.how.startswith("not found") or origin.how.endswith("not found")
        table.add_row(origin.column, origin.source, Text(origin.how, "red" if lost else ""))
    screen.table(table)


def _counts(look: Look) -> str:
    """Say how many messages were decoded, and how many of them are shown."""
    counts = look.counts
    text = (
        f"showing {len(look.messages):,} of {counted(look.looked_at, 'message')} looked at:"
        f" {counts['decoded']:,} decoded, {counts['skipped']:,} skipped, {counts['dead']:,} dead"
    )
    if counts["rejected"]:
        text += f"; {counted(counts['rejected'], 'event')} rejected"
    return text


def _show_message(screen: Screen, seen: Seen, several: bool) -> None:
    """Print a message; of `several` formats each says its own."""
    word = _WORDS.get(seen.status, seen.status)
    line = Text.assemble(seen.place, "  ", (word, _STYLES[seen.status]))
    if several:
        line.append(f"  {seen.format or 'no known format'}")
    screen.say(line)
    if seen.payload is not None:
        text = " ".join(seen.payload.split()) or "(blank)"
        screen.say(Text(f"  {_cut(text, 3 * PLAIN_WIDTH)}", "dim"), wrap=True)
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
