"""JSON texts of a batch, a line each, whether they came as messages or as lines of a file.

The formats of this folder read both in one way: fields of all texts at once
(`json_columns.read_lines`), and for each text that is no event a failure with its bytes and
its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.events import empty_events
from transforms.formats.base import Context, Decoded, Failure, Message, MessageBatch, dead_row
from transforms.formats.columns import build_events, message_columns, name_column, to_attributes
from transforms.formats.heads import Mask, bodies_of, headers_of, pick
from transforms.formats.json_columns import LineColumns, Path, read_lines
from transforms.formats.line_blocks import Block, Offsets, as_lines, join_events, line_bounds


class Refused(ValueError):
    """A text, or the data in it, cannot be decoded.

    Attributes:
        error: class of the error, as of a dead letter.
    """

    def __init__(self, error: str, message: str) -> None:
        self.error = error
        super().__init__(message)


@dataclass(frozen=True)
class Texts:
    """JSON texts behind one another; text i is `data[starts[i]:ends[i]]`.

    Attributes:
        data: their bytes.
        starts: first byte of each.
        ends: end of each.
        apart: those with line breaks in them.
        messages: where each comes from; None for lines of a file.
        path: of the file.
        offset: of `data` in the file.
    """

    data: bytes
    starts: Offsets
    ends: Offsets
    apart: Sequence[int] = ()
    messages: Sequence[Message] | None = None
    path: str = ""
    offset: int = 0

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Texts:
        """Return the payloads of messages."""
        return cls(*as_lines(bodies_of(messages)), messages)

    @classmethod
    def of_block(cls, block: Block, path: str) -> Texts:
        """Return the lines of a part of a file."""
        return cls(block.data, *line_bounds(block.data), path=path, offset=block.offset)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def headers(self) -> Sequence[Mapping[str, str]]:
        """Headers of each message; empty if none has any."""
        if self.messages is None:
            return ()
        return headers_of(self.messages)

    @property
    def lines(self) -> tuple[bytes, Offsets, Offsets]:
        """The bytes, start and end of each text."""
        return self.data, self.starts, self.ends

    def select(self, rows: Offsets) -> Texts:
        """Return some of the texts."""
        if len(rows) == len(self):
            return self
        if isinstance(self.messages, MessageBatch):
            return Texts.of(self.messages.pick(rows.tolist()))
        return Texts.of([self.message(row) for row in rows.tolist()])

    def instead(self, payloads: Sequence[bytes]) -> Texts:
        """Return texts that are read in the stead of these, one for one."""
        return Texts(*as_lines(pa.array(payloads, pa.binary())))

    def starting(self, byte: bytes) -> Mask:
        """Say which texts begin with a byte."""
        raw = np.frombuffer(self.data + b"\0", np.uint8)
        return (self.starts < self.ends) & (raw[self.starts] == ord(byte))

    def read(
        self,
        paths: Mapping[str, Path],
        times: frozenset[str],
        context: Context,
        layouts: list[int] | None = None,
    ) -> LineColumns:
        """Read fields of all texts (see `json_columns.read_lines`)."""
        limit = context.max_message_bytes
        return read_lines(*self.lines, paths, times, "utf-8", limit, self.apart, layouts)

    def text(self, row: int) -> bytes:
        """Return one text."""
        return self.data[self.starts[row] : self.ends[row]]

    def message(self, row: int, payload: bytes | None = None) -> Message:
        """Return one text as the message that it came in, or with another payload in its place."""
        if self.messages is None:
            text = self.text(row) if payload is None else payload
            return Message(text, self.path, self.offset + int(self.starts[row]))
        message = self.messages[row]
        return message if payload is None else replace(message, payload=payload)

    def failure(self, row: int, error: str, message: str, attributes: Mapping[str, str]) -> Failure:
        """Return the failure of one text."""
        origin = self.message(row)
        kept = {**origin.attributes, **attributes}
        return dead_row(origin.payload, origin.place, error, message, kept)

    def columns(self, rows: Offsets) -> dict[str, Any]:
        """Return what is known of some texts without reading them: source, record time."""
        if self.messages is None:
            offsets = pa.array(self.starts[rows] + self.offset)
            source = name_column(self.path, len(rows))
            return {"position": offsets, "source": source, "source_offset": offsets}
        return message_columns(self._picked(rows))

    def hashed(self, rows: Offsets) -> pa.Array | None:
        """Return what the id of an event without one is made of: see `build_events`."""
        if self.messages is None:
            return None
        picked = self._picked(rows)
        if isinstance(picked, MessageBatch):
            return picked.bodies
        return pa.array([None if m.record_time is None else m.payload for m in picked], pa.binary())

    def _picked(self, rows: Offsets) -> Sequence[Message]:
        return pick(self.messages or (), rows)


@dataclass(frozen=True)
class Part:
    """What became of some texts of a batch.

    Attributes:
        rows: text that each event came from, ascending.
        events: rows of `EVENT_SCHEMA`.
        dead: (text, failure) of those that are dead.
        rejected: (text, failure) of events that were found but violate the schema.
        decoded: texts that gave events.
        skipped: texts that are no workflow events.
        extra: messages that texts held beyond one each (a collection of documents).
    """

    rows: Offsets
    events: pa.Table
    dead: Sequence[tuple[int, Failure]] = ()
    rejected: Sequence[tuple[int, Failure]] = ()
    decoded: int = 0
    skipped: int = 0
    extra: int = 0


NO_ROWS = np.empty(0, np.int64)


def part_of(
    texts: Texts,
    rows: Offsets,
    columns: Mapping[str, Any],
    items: Mapping[str, Any],
    context: Context,
    attributes: Mapping[str, str],
    named: bool = True,
) -> Part:
    """Make events of texts of one event each.

    Args:
        texts: the batch.
        rows: the texts, ascending.
        columns: event column -> array of a value a text, of any type.
        items: business item -> array, likewise.
        context: settings.
        attributes: of the failures.
        named: see `build_events`.
    """
    events, refusals = build_events(
        columns,
        len(rows),
        context,
        texts.columns(rows),
        to_attributes(items, len(rows), context),
        texts.hashed(rows),
        named,
    )
    dead = [
        (int(rows[r.row]), texts.failure(int(rows[r.row]), r.error, r.message, attributes))
        for r in refusals
    ]
    kept = rows if not refusals else np.delete(rows, [r.row for r in refusals])
    return Part(kept, events, dead, decoded=len(kept))


def dead_part(dead: Sequence[tuple[int, Failure]]) -> Part:
    """Return a part of texts that are dead."""
    return Part(NO_ROWS, empty_events(), dead)


def unread_part(texts: Texts, found: LineColumns, attributes: Mapping[str, str]) -> Part:
    """Return what became of the texts that are no JSON object, or blank."""
    dead = [
        (line, texts.failure(line, error, message, attributes))
        for line, error, message in found.failures
    ]
    return Part(NO_ROWS, empty_events(), dead, skipped=found.blank)


def put_together(parts: Sequence[Part], texts: int, warnings: Sequence[str] = ()) -> Decoded:
    """Put parts together, events and failures in the order of the texts.

    Args:
        parts: what became of the texts.
        texts: how many there were.
        warnings: sentences for the run's summary.
    """
    full = [part for part in parts if len(part.rows)]
    if len(full) > 1:
        order = np.argsort(np.concatenate([part.rows for part in full]), kind="stable")
        events = join_events([part.events for part in full]).take(pa.array(order))
    else:
        events = full[0].events if full else empty_events()
    dead = [each for part in parts for each in part.dead]
    rejected = [each for part in parts for each in part.rejected]
    failures = sorted([*dead, *rejected], key=lambda each: each[0])
    return Decoded(
        events=events,
        failures=[failure for _, failure in failures],
        decoded=sum(part.decoded for part in parts),
        skipped=sum(part.skipped for part in parts),
        dead=len(dead),
        rejected=len(rejected),
        warnings=warnings,
        messages=texts + sum(part.extra for part in parts),
    )


def moved(part: Part, rows: Offsets) -> Part:
    """Return a part of a selection of texts as one of all of them: `rows` names the selected."""
    return replace(
        part,
        rows=rows[part.rows],
        dead=[(int(rows[row]), failure) for row, failure in part.dead],
        rejected=[(int(rows[row]), failure) for row, failure in part.rejected],
    )
