"""XES, the event log format of process mining (IEEE 1849-2016), versions 1.0 and 2.0.

A trace's `concept:name` is the case; a trace without one is its number in the file, from 0. An
event's `concept:name` is the activity; where it has none, the keys of the log's first event
classifier, joined by "+". `identity:id` is the event's id: two events of one case and one id
are duplicates. The log's `concept:name` is the workflow group. `position` is the event's number
in the file, from 0, so two traces of one name are one case, in file order. Defaults of
`<global>` are not guessed from; an empty value is none; the last value of a key counts;
attributes of a trace or log stand before what it contains, as the standard has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from schemas.dead_letters import MAX_PAYLOAD
from transforms.formats.base import (
    BATCH_BYTES,
    Context,
    Decoded,
    Failure,
    InputFile,
    Message,
    Span,
)
from transforms.formats.columns import replay_attributes
from transforms.formats.xes_events import DEFAULTS, Batch, Part, Picks
from transforms.formats.xes_log import LogReader, as_utf8, encoding_of, pieces
from transforms.formats.xes_rows import Cursor, Header, Unreadable
from transforms.formats.xes_walk import TYPES, Walker, classifier_keys

_ROOT = re.compile(
    r"\s*(?:(?:<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^\[>]*(?:\[.*?\]\s*)?>)\s*)*"
    r"<(?:[\w.-]+:)?(?P<root>[\w.-]+)",
    re.DOTALL,
)
_CHILD = re.compile(r"[^<]*?>\s*(?:<!--.*?-->\s*)*<(?:[\w.-]+:)?(?P<child>[\w.-]+)", re.DOTALL)
_CHILDREN = TYPES | frozenset(
    ("extension", "global", "classifier", "trace", "event", "list", "container")
)
_NAME = re.compile(r"\.xes(\.gz|\.bz2)?$", re.IGNORECASE)


@dataclass(frozen=True)
class XesFormat:
    """XES logs: files, and messages of one event, one trace or one small log.

    Attributes:
        chunk_bytes: how much of a file is read at once.
    """

    name: str = "xes"
    title: str = "XES event logs (.xes, .xes.gz)"
    expansion: float = 0.35
    python_bound: bool = True
    origins: ClassVar[Mapping[str, str]] = {
        column: " or ".join(f"{key} of the {holder}" for holder, key in places)
        for column, places in DEFAULTS.items()
    }
    chunk_bytes: int = 1024 * 1024

    def detects(self, head: bytes, name: str) -> bool:
        """Say whether the root is a `log` of XES; the name counts where no root is to be seen."""
        encoding = encoding_of(head.removeprefix(b"\xef\xbb\xbf"))
        try:
            text = head.decode(encoding, "ignore").lstrip("\ufeff")
        except (LookupError, UnicodeError):  # unknown, or none of text
            text = head.decode("latin-1")
        root = _ROOT.match(text)
        if root is None:
            blank = not text.strip()
            return bool(_NAME.search(name)) and (blank or text.lstrip().startswith("<"))
        if root["root"] != "log":
            return False
        child = _CHILD.match(text, root.end())
        return child is None or child["child"] in _CHILDREN

    def spans(self, file: InputFile, context: Context) -> list[Span]:
        """Return the whole file: an event's position is its number in it."""
        return [Span()]

    def read(self, work: Sequence[tuple[InputFile, Span]], context: Context) -> Iterator[Decoded]:
        """Read logs in batches; each event is a message.

        What can't be read is dead: an event without case, time or activity or larger than
        `max_message_bytes`, and the rest of a file behind broken XML (`InvalidXml`), a document
        type (`ForbiddenDtd`), or where a compressed file ends early (`TruncatedFile`) or is
        damaged (`CorruptFile`).
        """
        batch = Batch(Picks.of(context), context)
        for file, _ in work:
            for _ in self._read_file(file, batch):
                if batch.size >= BATCH_BYTES:
                    yield batch.take()
        yield batch.take()

    def _read_file(self, file: InputFile, batch: Batch) -> Iterator[None]:
        reader = LogReader(batch.picks.wanted, batch.context.max_message_bytes)
        cursor = reader.cursor
        fed, start = 0, b""
        with file.opener() as stream:
            try:
                for data in as_utf8(pieces(stream, self.chunk_bytes)):
                    start = start or data[:MAX_PAYLOAD]
                    fed += len(data)
                    batch.size += len(data)
                    for rows in reader.feed(data):
                        batch.add(Part(rows, reader.header, file.path))
                    yield
                if fed:
                    for rows in reader.finish():
                        batch.add(Part(rows, reader.header, file.path))
            except Unreadable as failure:
                payload = failure.payload or reader.rest() or (b"" if cursor.events else start)
                unread = len(failure.payload) + reader.unread
                if not file.compressed:
                    unread += max(file.size - fed, 0)
                batch.fail(
                    Failure(
                        payload,
                        f"{file.path}:{cursor.events}",
                        failure.error,
                        failure.message,
                        replay_attributes(self.name, batch.context),
                        max(unread, len(payload)) or max(file.size, 0),
                    )
                )
                fed = -1
        if fed == 0:
            batch.warnings.append(f"{file.path} is empty")
        elif fed > 0 and not cursor.traces and not cursor.events:
            batch.warnings.append(f"{file.path} has no traces")
        if cursor.belated:
            reason = "attributes of a trace behind its first event are not read"
            batch.warnings.append(f"{file.path}: {reason}")
        yield

    def decode(self, messages: Sequence[Message], context: Context) -> Decoded:
        """Decode messages of one `<event>`, one `<trace>` or one `<log>`.

        An event's case is in its attribute `case_id`; `position`, `classifier` and `trace:K` or
        `log:K` (values of trace and log) are read too, as dead letters have them. A trace without
        a name has its case from there as well. A message that is not well-formed is dead as a
        whole; events of a trace or log that are none are rejected one by one.
        """
        batch = Batch(Picks.of(context), context)
        for message in messages:
            try:
                part = _parse(message, batch)
            except Unreadable as failure:
                batch.fail(
                    Failure(
                        message.payload,
                        message.place,
                        failure.error,
                        failure.message,
                        {**message.attributes, **replay_attributes(self.name, context)},
                        len(message.payload),
                    )
                )
                continue
            if len(part.rows.ordinals):
                batch.decoded += 1
            else:
                batch.skipped += 1
            batch.add(part)
        return batch.take()


def _parse(message: Message, batch: Batch) -> Part:
    limit = batch.context.max_message_bytes
    if len(message.payload) > limit:
        reason = f"a message of {len(message.payload)} bytes is larger than {limit}"
        raise Unreadable(reason, "TooLarge")
    given = message.attributes
    header = Header(
        batch.picks.wanted,
        {key[4:]: value for key, value in given.items() if key.startswith("log:")},
        classifier_keys(given.get("classifier", "")),
    )
    # Only an event alone is in the trace that the attributes speak of.
    trace = {key[6:]: value for key, value in given.items() if key.startswith("trace:")}
    cursor = Cursor(trace=trace)
    walker = Walker(header, cursor, limit, part=True)
    for data in as_utf8([message.payload]):
        walker.feed(data)
    walker.feed(b"", final=True)
    return Part(walker.take(), header, message.source, message, alone=walker.alone)


FORMAT = XesFormat()
