"""logfmt as a format of Imixs Data Streaming: lines of `key=value` and `key="a value"`.

An example of a format that another package brings: `FORMAT` is the entry point. It fits
`transforms.formats.base.Format`, and `transforms.formats.heads.Claiming` for topics that carry
several formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from transforms.formats.base import (
    BATCH_BYTES,
    Context,
    Decoded,
    Failure,
    InputFile,
    Message,
    Span,
    dead_row,
    decoded_rows,
)
from transforms.formats.columns import (
    build_events,
    message_columns,
    replay_attributes,
    to_attributes,
)
from transforms.formats.heads import Heads, Mask
from transforms.formats.line_blocks import Rest, line_bounds, read_blocks

COLUMNS = {"case_id": "case", "event_time": "ts", "activity": "step", "actor": "user"}
"""Event column -> key that feeds it, unless `--columns` names another."""

_PAIR = re.compile(r'\s*([^\s="]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s"]*))(?=\s|$)')
_ESCAPE = re.compile(r"\\(.)")
_BEGINNING = re.compile(rb'[A-Za-z_][\w.-]*="?')


class Logfmt:
    """The `logfmt` format (see `transforms.formats.base.Format`)."""

    name = "logfmt"
    title = "logfmt: lines of key=value"
    expansion = 1.0
    python_bound = True

    def detects(self, head: bytes, name: str) -> bool:
        """Say whether the first line is of key=value pairs, and has those of an event."""
        pairs = parse(head.lstrip().split(b"\n", 1)[0].decode(errors="replace"))
        return pairs is not None and "ts" in pairs

    def claims(self, heads: Heads) -> Mask:
        """Say which messages of a batch are of this format: asked for many at once."""
        mine = heads.beginning_as(_BEGINNING) & heads.left
        for row in np.flatnonzero(mine).tolist():
            mine[row] = self.detects(heads.text(row), "")
        return mine

    def spans(self, file: InputFile, context: Context) -> list[Span]:
        """Return the whole file; a format that can be read from its middle cuts it here."""
        return [Span()]

    def read(self, work: Sequence[tuple[InputFile, Span]], context: Context) -> Iterator[Decoded]:
        """Read files in blocks of whole lines, so that memory does not grow with them."""
        for file, _ in work:
            attributes = replay_attributes(self.name, context)
            with file.opener() as stream:
                for block in read_blocks(stream, BATCH_BYTES, context.max_message_bytes):
                    if isinstance(block, Rest):  # a line too long, the rest of a broken file
                        failure = block.failure(file.path, attributes, file.size)
                        yield Decoded(self.decode([], context).events, [failure], dead=1)
                        continue
                    starts, ends = line_bounds(block.data)
                    lines = [
                        Message(block.data[start:end], file.path, block.offset + start)
                        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
                    ]
                    yield self.decode(lines, context)

    def decode(self, messages: Sequence[Message], context: Context) -> Decoded:
        """Decode lines: each is an event, blank, or a dead letter with its bytes."""
        taken: list[Message] = []
        rows: list[dict[str, str]] = []
        failures: list[Failure] = []
        blank = 0
        for message in messages:
            if not message.payload.strip():
                blank += 1
                continue
            try:
                pairs = parse(message.payload.decode())
                reason = "not a line of key=value pairs"
            except UnicodeDecodeError as error:
                pairs, reason = None, f"not utf-8: {error}"
            if pairs is None:
                failures.append(self._failure(message, "InvalidLogfmt", reason, context))
            else:
                taken.append(message)
                rows.append(pairs)
        keys = {**COLUMNS, **context.columns}
        found = {c: _texts(rows, key) for c, key in keys.items() if key}
        items = {item: _texts(rows, item) for item in context.items}
        # Only messages of a broker have ids that are hashes of their bytes; see `build_events`.
        payloads = [None if m.record_time is None else m.payload for m in taken]
        events, refusals = build_events(
            found,
            len(rows),
            context,
            message_columns(taken),
            to_attributes(items, len(rows)),
            pa.array(payloads, pa.binary()),
        )
        failures += [self._failure(taken[r.row], r.error, r.message, context) for r in refusals]
        return decoded_rows(events, failures, len(messages), blank)

    def _failure(self, message: Message, error: str, reason: str, context: Context) -> Failure:
        # With the format's name and the settings that count, a dead letter can be replayed.
        attributes = {**message.attributes, **replay_attributes(self.name, context)}
        return dead_row(message.payload, message.place, error, reason, attributes)


FORMAT = Logfmt()


def parse(line: str) -> dict[str, str] | None:
    """Return the pairs of a line; None if it is not made of pairs."""
    pairs: dict[str, str] = {}
    at = 0
    line = line.rstrip()
    while at < len(line):
        found = _PAIR.match(line, at)
        if found is None:
            return None
        key, quoted, plain = found.groups()
        pairs[key] = plain if quoted is None else _ESCAPE.sub(r"\1", quoted)
        at = found.end()
    return pairs or None


def _texts(rows: Sequence[dict[str, str]], key: str) -> pa.Array:
    return pa.array([row.get(key) for row in rows], pa.string())
