"""How the Imixs formats read: files in chunks, documents in batches, failures beside them.

A message is one document. A format cuts its input into documents (`cut`), this module gathers
them to batches of about `BATCH_BYTES`, and the format decodes a batch at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

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

BATCH_DOCUMENTS = 4000
"""Documents in a `Decoded`, at most."""

CHUNK_BYTES = 1 << 20
"""Bytes read from a file at once."""

HEAD_BYTES = 64 * 1024
"""What an input is must be seen from this many of its first bytes."""

READ_ERRORS = (EOFError, OSError, zlib.error)
"""What reading a truncated or damaged compressed file raises."""


@dataclass(frozen=True)
class Problem:
    """Why a document is dead: the class of the error, and a sentence."""

    error: str
    message: str


@dataclass(frozen=True)
class Unread:
    """A part of an input that is no readable document: it counts as one dead message.

    Attributes:
        payload: its bytes, or the first of them.
        problem: what is wrong.
        size: all of its bytes, if known; else the payload's.
    """

    payload: bytes
    problem: Problem
    size: int | None = None


class Skipped:
    """An input without content: no document, no failure (a deleted record of a topic)."""


Part = bytes | Unread | Skipped

MAX_REASON = 500
"""Characters of a reason: it may quote a value that is as long as the document."""


@dataclass
class Batch:
    """Documents and failures on their way to one `Decoded`.

    Attributes:
        format: name of the format, for the failures.
        clean: removes file contents from the bytes of a document.
        context: settings, of which failures keep what a replay needs.
        documents: to be decoded.
        failures: one per dead message.
        skipped: messages without content.
        warnings: sentences for the summary.
        size: bytes of the documents.
    """

    format: str
    clean: Callable[[bytes], bytes]
    context: Context = field(default_factory=Context)
    documents: list[Message] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skipped: int = 0
    warnings: list[str] = field(default_factory=list)
    size: int = 0

    def add(self, part: Part, origin: Message) -> None:
        """Add a part of the origin (whose own payload does not matter)."""
        if isinstance(part, bytes):
            self.add_document(replace(origin, payload=part))
        elif isinstance(part, Unread):
            size = len(part.payload) if part.size is None else part.size
            self.failures.append(self.failure(origin, part.payload, part.problem, size))
        else:
            self.skipped += 1

    def add_document(self, document: Message) -> None:
        """Add a document."""
        self.documents.append(document)
        self.size += len(document.payload)

    def failure(
        self, origin: Message, payload: bytes, problem: Problem, size: int | None = None
    ) -> Failure:
        """Make the failure of a document: its payload without file contents, cut to the maximum.

        The size is that of the document without file contents: a replay takes a payload of fewer
        bytes for one that was cut.
        """
        kept = self.clean(payload)
        removed = len(payload) - len(kept)
        return Failure(
            payload=kept[:MAX_PAYLOAD],
            source=origin.place,
            error=problem.error,
            message=problem.message[:MAX_REASON],
            attributes={**origin.attributes, **kept_settings(self.format, self.context)},
            size=(len(payload) if size is None else size) - removed,
        )

    def original(self, message: Message) -> Message:
        """Return a message as a dead letter holds it."""
        attributes = {**message.attributes, **kept_settings(self.format, self.context)}
        return replace(message, payload=self.clean(message.payload), attributes=attributes)

    def is_full(self) -> bool:
        """Say whether it should be decoded now."""
        return self.size >= BATCH_BYTES or len(self.documents) >= BATCH_DOCUMENTS

    def is_empty(self) -> bool:
        """Say whether there is nothing to tell."""
        return not (self.documents or self.failures or self.skipped or self.warnings)


class Chunks:
    """The bytes of a file, up to 1 MiB at a time; a damaged file ends early.

    Attributes:
        damage: what was raised while reading, if anything was.
    """

    def __init__(self, file: InputFile) -> None:
        self.damage: str | None = None
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        with self._file.opener() as stream:
            read: Callable[[int], bytes] = stream.read
            if self._file.compressed:
                # A decompressor that fails loses what the call has read: read1 makes calls short.
                read = getattr(stream, "read1", read)
            while chunk := self._next(read):
                yield chunk

    def _next(self, read: Callable[[int], bytes]) -> bytes:
        try:
            return read(CHUNK_BYTES)
        except READ_ERRORS as error:
            self.damage = f"the file cannot be read to its end: {error}"
            return b""

    def problem(self, otherwise: Problem) -> Problem:
        """Return why the rest of the file is dead: the damage, or what the parser said."""
        return otherwise if self.damage is None else Problem("TruncatedFile", self.damage)


def kept_settings(name: str, context: Context) -> Mapping[str, str]:
    """Return what a replay of a document needs: its format, and the zone of times without one.

    The encoding is not among it: documents that were cut from others are in UTF-8.
    """
    return replay_attributes(name, Context(timezone=context.timezone))


def take(chunks: Iterator[bytes], size: int) -> bytes:
    """Return the next chunks up to at least some size, or to the end."""
    taken = []
    while size > 0 and (chunk := next(chunks, b"")):
        taken.append(chunk)
        size -= len(chunk)
    return taken[0] if len(taken) == 1 else b"".join(taken)


def too_large(size: int | None, limit: int) -> Problem:
    """Say that a document is larger than `Context.max_message_bytes`."""
    what = "a document" if size is None else f"a document of {size:,} bytes"
    return Problem("TooLarge", f"{what} exceeds the maximum of {limit:,} bytes")


def read_files(
    work: Sequence[tuple[InputFile, Span]],
    context: Context,
    new_batch: Callable[[Context], Batch],
    cut: Callable[[InputFile, Context], Iterator[Part]],
    decode_batch: Callable[[Batch, Context], Decoded],
) -> Iterator[Decoded]:
    """Read files to batches; many small files share one, a large file fills several."""
    batch = new_batch(context)
    for file, _ in work:
        index = -1
        for index, part in enumerate(cut(file, context)):
            if isinstance(part, bytes):
                batch.add_document(Message(part, file.path, index))
            else:
                batch.add(part, Message(b"", file.path, index))
            if batch.is_full():
                yield decode_batch(batch, context)
                batch = new_batch(context)
        if index < 0:
            batch.warnings.append(f"{file.path} is empty: there is no document in it")
    if not batch.is_empty():
        yield decode_batch(batch, context)
