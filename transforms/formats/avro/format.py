"""The `avro` format: container files, and messages whose schemas are elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from transforms.formats.avro.blocks import MAGIC
from transforms.formats.avro.container import first_lines, read_container
from transforms.formats.avro.messages import REGISTERED, SINGLE_OBJECT, Unread, read_messages
from transforms.formats.avro.settings import AvroSettings
from transforms.formats.base import (
    Context,
    Decoded,
    Failure,
    InputFile,
    Message,
    MessageBatch,
    Span,
    dead_row,
    decoded_rows,
)
from transforms.formats.columns import ColumnMap, replay_attributes
from transforms.formats.heads import Heads, Mask
from transforms.formats.json_lines import FORMAT as JSON
from transforms.formats.json_lines import plan_lines
from transforms.formats.line_blocks import merge

MERGE_MESSAGES = 8_192
"""Small files are joined to batches of about so many messages."""

LARGEST_ID = 2**24
"""Ids of schemas are counted from 1, so a message that seems to have a larger one is no Avro."""

_MESSAGE = re.compile(rb"\0\0(?!\0\0\0)...." + b"|" + SINGLE_OBJECT + b"|" + MAGIC, re.DOTALL)


class AvroFormat:
    """The `avro` format (see `transforms.formats.base.Format`)."""

    name = "avro"
    title = "Avro: container files, and messages by a schema registry"
    expansion = 3.0
    python_bound = True

    def detects(self, head: bytes, name: str) -> bool:
        """Say whether it begins as a container, or as a message that names its schema."""
        if head.startswith((MAGIC, SINGLE_OBJECT)):
            return True
        number = int.from_bytes(head[1:5], "big")
        return head.startswith(REGISTERED) and len(head) > 5 and 0 < number < LARGEST_ID

    def claims(self, heads: Heads) -> Mask:
        """Say which messages name the schema that they were written with."""
        return heads.beginning_as(_MESSAGE)

    def spans(self, file: InputFile, context: Context) -> list[Span]:
        """Return the whole file: a record's position is its number in it."""
        return [Span()]

    def read(self, work: Sequence[tuple[InputFile, Span]], context: Context) -> Iterator[Decoded]:
        """Read container files; a file that is none is one message."""
        return merge((d for f, _ in work for d in self._read_file(f, context)), MERGE_MESSAGES)

    def _read_file(self, file: InputFile, context: Context) -> Iterator[Decoded]:
        with file.opener() as stream:
            head = stream.read(len(MAGIC))
            if head and head != MAGIC:
                head += stream.read(context.max_message_bytes + 1)
                yield self.decode([Message(head, file.path, 0)], context)
                return
        # Dead records are JSON in UTF-8, whatever the run was told of other files.
        attributes = replay_attributes("json_lines", replace(context, encoding="utf-8"))
        yield from read_container(file, replace(context, encoding="utf-8"), attributes)

    def recognise(
        self, payloads: Sequence[bytes], context: Context
    ) -> tuple[Context, tuple[str, ...]]:
        """Fix the columns of a stream by the messages whose schemas are known."""
        lines = self._lines(payloads, context)
        if not lines:
            # As of a topic that nothing is known of: no batch may decide by itself.
            return replace(context, own_names=True), ()
        return JSON.recognise(lines, context)

    def mapping_of(self, sample: InputFile | Sequence[bytes], context: Context) -> ColumnMap | None:
        """Return which fields feed events."""
        if not isinstance(sample, InputFile):
            lines = self._lines(sample, context)
        else:
            lines = first_lines(sample, context)
        return plan_lines(lines, context).map if lines else None

    def _lines(self, payloads: Sequence[bytes], context: Context) -> list[bytes]:
        made = read_messages(payloads, context.avro or AvroSettings(), context.max_message_bytes)
        return [each for each in made if isinstance(each, bytes)]

    def decode(self, messages: Sequence[Message], context: Context) -> Decoded:
        """Decode messages of one record each."""
        plain = replace(context, encoding="utf-8")
        payloads = (
            messages.payloads
            if isinstance(messages, MessageBatch)
            else [message.payload for message in messages]
        )
        made = read_messages(payloads, context.avro or AvroSettings(), context.max_message_bytes)
        rows = [row for row, each in enumerate(made) if isinstance(each, bytes)]
        bodies = [each for each in made if isinstance(each, bytes)]
        decoded = JSON.decode(_with_bodies(messages, rows, bodies), plain)
        # Their dead letters hold what came, and are read again as Avro.
        own = replay_attributes(self.name, context)
        late: dict[str, list[Failure]] = {}
        for failure in decoded.failures:
            late.setdefault(failure.source, []).append(failure)
        failures: list[Failure] = []
        if late or len(rows) < len(made):
            for message, each in zip(messages, made, strict=True):
                if isinstance(each, Unread):
                    failures.append(self._dead(message, each.error, each.message, own))
                elif late.get(message.place):
                    failure = late[message.place].pop(0)
                    failures.append(self._dead(message, failure.error, failure.message, own))
        return decoded_rows(
            decoded.events, failures, len(messages), decoded.skipped, decoded.warnings
        )

    def _dead(self, message: Message, error: str, reason: str, own: dict[str, str]) -> Failure:
        attributes = {**message.attributes, **own}
        return dead_row(message.payload, message.place, error, reason, attributes)


FORMAT = AvroFormat()


def _with_bodies(
    messages: Sequence[Message], rows: list[int], bodies: list[bytes]
) -> Sequence[Message]:
    """Return some messages with other payloads, as columns if they came so."""
    if isinstance(messages, MessageBatch):
        some = messages.pick(rows)
        return some.with_bodies(pa.array(bodies, pa.binary()))
    return [replace(messages[row], payload=body) for row, body in zip(rows, bodies, strict=True)]
