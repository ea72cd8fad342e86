"""Files of JSON messages: a line each, a list of them, or one file each.

Owns how such files are cut; what a text means is the format's own affair. Lines are cut at any
byte, a list is read from its start in memory of one of its members.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from typing import Any

import orjson
import pyarrow.compute as pc

from schemas.dead_letters import MAX_PAYLOAD
from schemas.events import empty_events
from transforms.formats.base import (
    BATCH_BYTES,
    Context,
    Decoded,
    Failure,
    InputFile,
    Message,
    Span,
    dead_row,
)
from transforms.formats.columns import replay_attributes
from transforms.formats.heads import bodies_of
from transforms.formats.imixs_input import Chunks, Problem, Unread, take, too_large
from transforms.formats.json_lines import HEAD_BYTES, MERGE_MESSAGES, SPAN_BYTES
from transforms.formats.json_strict import Collection, InvalidJsonError
from transforms.formats.line_blocks import Rest, merge, read_blocks
from transforms.formats.messages.texts import Texts

Decode = Callable[[Texts, Context], Decoded]

_BOM = b"\xef\xbb\xbf"
# A text without an end is taken whole, or each quote in it would be tried again.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\Z)|[{}\[\]:,]', re.DOTALL)
HEAD = 32 * 1024
"""Bytes from which on a head may have been cut."""
_LIST = re.compile(r"\ufeff?\s*\[")


@lru_cache(maxsize=1)
def first_object(head: bytes) -> Mapping[str, Any] | None:
    """Return the first object of a file or message: alone, on a line, or the first of a list.

    Args:
        head: its first bytes. Of an object that does not end within them there are the members at
            its top, each with its value if that is a text, else None.
    """
    text = head.removeprefix(_BOM).lstrip()
    if text[:1] == b"[":
        text = text[1:].lstrip()
    if text[:1] != b"{":
        return None
    try:
        found = orjson.loads(text.split(b"\n", 1)[0].rstrip(b"\r ,]"))
    except orjson.JSONDecodeError:
        try:
            found, _ = json.JSONDecoder().raw_decode(text.decode(errors="replace"))
        except (ValueError, RecursionError):
            return _members(text) if len(head) >= HEAD else None
    return found if isinstance(found, dict) else None


def _members(text: bytes) -> dict[str, str | None]:
    """Return the members at the top of an object that is cut off, as far as they go."""
    members: dict[str, str | None] = {}
    depth = 0
    key = held = None
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark in (b"{", b"["):
            depth += 1
        elif mark in (b"}", b"]"):
            depth -= 1
        elif depth == 1 and mark == b":":
            key = held
            members[key or ""] = None
        elif depth == 1 and mark == b",":
            key = None
        elif depth == 1:
            held = mark[1:-1].decode(errors="replace")
            if key is not None:
                members[key] = held
    return members


def message_spans(file: InputFile, context: Context) -> list[Span]:
    """Cut an uncompressed file of lines every 64 MiB."""
    if file.compressed or file.size <= SPAN_BYTES or not has_lines(file):
        return [Span()]
    starts = range(0, file.size, SPAN_BYTES)
    return [Span(at, at + SPAN_BYTES if at + SPAN_BYTES < file.size else None) for at in starts]


def read_messages(
    work: Sequence[tuple[InputFile, Span]], context: Context, name: str, decode: Decode
) -> Iterator[Decoded]:
    """Read files of JSON messages.

    Events of lines have the byte offset of their line as `source_offset`, those of a list
    their number in it.

    Args:
        work: parts of files.
        context: settings.
        name: of the format.
        decode: makes events of texts.
    """
    return merge(_parts(work, context, name, decode), MERGE_MESSAGES)


def _parts(
    work: Sequence[tuple[InputFile, Span]], context: Context, name: str, decode: Decode
) -> Iterator[Decoded]:
    for file, span in work:
        empty = span.start == 0
        lines = span.start > 0 or span.end is not None or has_lines(file)
        read = _read_lines if lines else _read_whole
        for part in read(file, span, context, name, decode):
            empty = False
            yield part
        if empty:
            yield Decoded(empty_events(), warnings=(f"{file.path} is empty",))


def has_lines(file: InputFile) -> bool:
    """Say whether a file has a message a line; one that cannot be told so far has."""
    head = take(iter(Chunks(file)), HEAD_BYTES).removeprefix(_BOM).lstrip()[:HEAD_BYTES]
    if head[:1] == b"[":
        return False
    if re.search(r"\.(jsonl|ndjson|jsonlines)(\.|$)", file.path, re.IGNORECASE):
        return True
    lines = head.split(b"\n", 2)
    return any(map(_is_object, lines[:2])) or len(lines) == 1


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _read_lines(
    file: InputFile, span: Span, context: Context, name: str, decode: Decode
) -> Iterator[Decoded]:
    attributes = replay_attributes(name, context)
    limit = context.max_message_bytes
    with file.opener() as stream:
        for block in read_blocks(stream, BATCH_BYTES, limit, span.start, span.end):
            if isinstance(block, Rest):
                failure = block.failure(file.path, attributes, file.size)
                yield Decoded(empty_events(), [failure], dead=1)
            else:
                yield decode(Texts.of_block(block, file.path), context)


def _read_whole(
    file: InputFile, span: Span, context: Context, name: str, decode: Decode
) -> Iterator[Decoded]:
    """Read a list of messages, or a file that is one."""
    reader = Chunks(file)
    chunks = iter(reader)
    first = take(chunks, HEAD_BYTES)
    limit = context.max_message_bytes
    held: list[Message] = []
    size = 0
    failures: list[Failure] = []
    number = -1
    for number, part in enumerate(_cut(first, chunks, reader, limit)):
        if isinstance(part, Unread):
            message = Message(part.payload, file.path, number)
            attributes = replay_attributes(name, context)
            error, reason = part.problem.error, part.problem.message
            failure = dead_row(part.payload[:MAX_PAYLOAD], message.place, error, reason, attributes)
            failures.append(failure)
            continue
        held.append(Message(part, file.path, number))
        size += len(part)
        if size >= BATCH_BYTES:
            yield decode(Texts.of(held), context)
            held, size = [], 0
    if held:
        yield decode(Texts.of(held), context)
    if failures:
        yield Decoded(empty_events(), failures, dead=len(failures))


def _cut(
    first: bytes, chunks: Iterator[bytes], reader: Chunks | None, limit: int
) -> Iterator[bytes | Unread]:
    if not first.strip():
        return
    if _LIST.match(first.decode(errors="replace")):
        collection = Collection(chain([first], chunks), _LIST, "utf-8", limit, b"[")
        try:
            for part in collection.objects():
                yield from [part] if isinstance(part, bytes | Unread) else []
        except InvalidJsonError as error:
            problem = Problem("InvalidJson", str(error))
            problem = problem if reader is None else reader.problem(problem)
            yield Unread(collection.rest(), problem, collection.left())
        return
    whole = first + take(chunks, limit + 1 - len(first))
    if len(whole) > limit:
        yield Unread(whole[:MAX_PAYLOAD], too_large(None, limit), len(whole))
    elif reader is not None and reader.damage is not None:
        yield Unread(whole, reader.problem(Problem("InvalidJson", "")))
    else:
        yield whole


def flatten(
    messages: Sequence[Message], name: str, context: Context
) -> tuple[Sequence[Message], Decoded | None]:
    """Put the members of messages that are lists in their stead.

    Args:
        messages: the messages.
        name: of their format.
        context: settings.

    Returns:
        Messages of one object each, and what became of lists that are empty or broken, if any is.
    """
    firsts = pc.unique(pc.binary_slice(bodies_of(messages), 0, 1)).to_pylist()
    if not {b"[", b" ", b"\t", b"\r", b"\n", b"\xef"}.intersection(firsts):
        return messages, None
    single: list[Message] = []
    failures: list[Failure] = []
    skipped = 0
    attributes = replay_attributes(name, context)
    for message in messages:
        if message.payload.removeprefix(_BOM).lstrip()[:1] != b"[":
            single.append(message)
            continue
        before = len(single) + len(failures)
        size, limit = len(message.payload), context.max_message_bytes
        for part in (
            [Unread(message.payload, too_large(size, limit))]
            if size > limit
            else _cut(message.payload, iter(()), None, limit)
        ):
            if isinstance(part, Unread):
                kept = {**message.attributes, **attributes}
                error, reason = part.problem.error, part.problem.message
                nothing = len(single) + len(failures) == before
                payload = message.payload if nothing else part.payload
                failures.append(dead_row(payload, message.place, error, reason, kept))
            else:
                single.append(replace(message, payload=part))
        skipped += len(single) + len(failures) == before
    rest = Decoded(empty_events(), failures, dead=len(failures), skipped=skipped)
    return single, rest if failures or skipped else None
