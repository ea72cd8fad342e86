"""What `inspect` has seen of an input: messages, what became of them, origins of columns."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa

from pipelines.origins import Origin
from schemas.events import EVENT_SCHEMA
from transforms.formats.base import Decoded, Failure
from transforms.mask import Masking, mask_events, mask_failure

SHOWN_BYTES = 2_000
"""Bytes of a message that are shown, at most."""

WITHHELD = "withheld because of --mask"

_LEFT_OUT = ("log", "truncated", "source", "source_offset", "record_time")

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Seen:
    """A message, and what became of it.

    Attributes:
        place: where it is.
        payload: its first bytes; None where they cannot be told.
        attributes: its headers.
        status: decoded, skipped, dead, or rejected where only some of its events were refused.
        events: the events found in it, without the columns that have no value.
        reasons: (class of the error, why) of each dead letter.
        format: that it was decoded as; empty if as none.
    """

    place: str
    payload: str | None
    attributes: dict[str, str]
    status: str
    events: list[dict[str, Any]]
    reasons: list[tuple[str, str]]
    format: str


@dataclass
class Kind:
    """The messages of one format.

    Attributes:
        format: its name; empty for messages of no known one.
        messages: how many there are among those that were looked at.
        origins: where each event column comes from.
    """

    format: str
    messages: int = 0
    origins: list[Origin] = field(default_factory=list)


@dataclass
class Look:
    """What was seen of a topic or of a file.

    Attributes:
        name: its path or topic.
        chosen: whether `--format` says what it is.
        kinds: the formats among its messages, that of most of them first.
        messages: the ones that are shown.
        warnings: sentences.
        counts: messages by what became of them, of all that were decoded for this look.
    """

    name: str
    chosen: bool
    kinds: list[Kind] = field(default_factory=list)
    messages: list[Seen] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def format(self) -> str:
        """The format that it was taken for; empty if for none."""
        return self.kinds[0].format if self.kinds else ""

    @property
    def origins(self) -> list[Origin]:
        """Where each event column of that format comes from."""
        return self.kinds[0].origins if self.kinds else []

    @property
    def looked_at(self) -> int:
        """How many messages were decoded for this look."""
        return sum(self.counts.get(name, 0) for name in ("decoded", "skipped", "dead"))

    def count(self, decoded: Decoded, refused: int = 0) -> None:
        """Count what became of messages; `refused` of their events were refused afterwards."""
        for name in ("decoded", "skipped", "dead", "rejected"):
            self.counts[name] = self.counts.get(name, 0) + getattr(decoded, name)
        self.counts["rejected"] += refused


def deal(waiting: Mapping[Key, int], most: int, least: Sequence[Key] = ()) -> dict[Key, int]:
    """Say how many messages of each kind are shown: one of each, and again until there are enough.

    Args:
        waiting: kind -> messages there are, the kinds to be served first in front.
        most: messages that are shown, together.
        least: kinds of which one is shown even where that makes more than `most`.
    """
    dealt = {kind: min(1, waiting[kind]) for kind in least}
    left = most - sum(dealt.values())
    turn = 1
    while left > 0:
        # Those served before their turn have had it.
        hungry = [k for k, n in waiting.items() if dealt.get(k, 0) < min(turn, n)]
        for kind in hungry[:left]:
            dealt[kind] = dealt.get(kind, 0) + 1
        left -= len(hungry)
        if not hungry and all(dealt.get(kind, 0) >= n for kind, n in waiting.items()):
            break
        turn += 1
    return dealt


def status_of(events: int, failures: int) -> str:
    """Say what became of a message that gave events or failures."""
    if not failures:
        return "decoded"
    return "rejected" if events else "dead"


def rows_of(events: pa.Table, hidden: Masking | None) -> list[dict[str, Any]]:
    """Return events as they are shown."""
    if hidden is not None and events.num_rows:
        events = mask_events(events, hidden)
    names = [name for name in EVENT_SCHEMA.names if name not in _LEFT_OUT]
    rows = []
    for row in events.select(names).to_pylist():
        row["attributes"] = dict(row["attributes"] or ())
        rows.append({name: value for name, value in row.items() if value not in (None, {})})
    return rows


def reasons_of(failures: Sequence[Failure], hidden: Masking | None) -> list[tuple[str, str]]:
    """Return why messages are dead, as it is shown."""
    if hidden is not None:
        failures = [mask_failure(each, hidden) for each in failures]
    return [(each.error, each.message) for each in failures]


def shown(payload: bytes, encoding: str = "utf-8") -> str:
    """Return the beginning of a message: text, or the hexadecimal digits of what is none.

    Args:
        payload: its bytes.
        encoding: of text that is not UTF-8.
    """
    head = payload[:SHOWN_BYTES]
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        # A character that the cut went through is not the message's fault.
        if error.start >= len(head) - 3 and len(payload) > SHOWN_BYTES:
            text = head[: error.start].decode()
        elif encoding == "utf-8":
            return _digits(head, payload)
        else:
            text = head.decode(encoding, "replace")
    if any(ord(c) < 32 and c not in "\t\r\n" for c in text):
        return _digits(head, payload)
    return text + ("..." if len(payload) > SHOWN_BYTES else "")


def _digits(head: bytes, payload: bytes) -> str:
    return "0x" + head[:64].hex() + ("..." if len(payload) > 64 else "")
