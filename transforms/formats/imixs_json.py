"""Imixs documents in JSON: typed (`@type` and `$`), mapped (plain values), and collections of both.

A collection is cut into its documents one by one, so that memory stays small and what came
before a break counts. JSON with a key given twice in one object is invalid here: one of the
values would be lost.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from schemas.dead_letters import MAX_PAYLOAD
from transforms.formats.base import (
    Context,
    Decoded,
    InputFile,
    Message,
    Span,
)
from transforms.formats.heads import Heads, Mask
from transforms.formats.imixs import ORIGINS, Picked, decode_documents, wanted_items
from transforms.formats.imixs_input import (
    HEAD_BYTES,
    Batch,
    Chunks,
    Part,
    Problem,
    Skipped,
    Unread,
    read_files,
    take,
    too_large,
)
from transforms.formats.json_strict import Collection, InvalidJsonError, parse_json

_COLLECTION = re.compile(r'\s*\{\s*"(?:data|document)"\s*:\s*\[')
_SHAPE = re.compile(
    r'\s*(?:\{\s*"(?:data|document)"\s*:\s*\[?\s*)*'
    r'\{\s*"item"\s*:\s*\[?\s*\{\s*"(?:name|value)"\s*:'
)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)|[{}]', re.DOTALL)
_BEGINNING = re.compile(rb'\s*(?:$|\{\s*(?:$|"(?:item|data|document)\b))')
_FILE_NAME = re.compile(r'(?i)"name"\s*:\s*"\$file"')


class ImixsJson:
    """Imixs-Workflow documents in JSON (exports of its REST service)."""

    name = "imixs_json"
    title = "Imixs-Workflow JSON: typed, mapped, collections"
    expansion = 1.5
    python_bound = True
    origins = ORIGINS

    def detects(self, head: bytes, name: str) -> bool:
        """Say whether it begins with an object of `item`, or a collection of such."""
        text = head.decode(json.detect_encoding(head[:4]), "replace")
        return _SHAPE.match(text) is not None

    def claims(self, heads: Heads) -> Mask:
        """Say which messages are documents, or collections of them (see `Claiming`)."""
        mine = heads.beginning_as(_BEGINNING) & heads.left
        for row in np.flatnonzero(mine).tolist():
            mine[row] = self.detects(heads.beginning(row, 256), "")
        return mine

    def spans(self, file: InputFile, context: Context) -> list[Span]:
        """Return the whole file: documents are found from its start."""
        return [Span()]

    def read(self, work: Sequence[tuple[InputFile, Span]], context: Context) -> Iterator[Decoded]:
        """Read files of one document or of many, in batches."""
        return read_files(work, context, _new_batch, cut_file, _decode_batch)

    def decode(self, messages: Sequence[Message], context: Context) -> Decoded:
        """Decode messages; a collection counts as many as it has documents."""
        batch = _new_batch(context)
        for message in messages:
            if len(message.payload) > context.max_message_bytes:
                problem = too_large(len(message.payload), context.max_message_bytes)
                batch.add(Unread(message.payload, problem), message)
            elif not message.payload.strip():
                batch.add(Skipped(), message)
            else:
                for part in _cut(message.payload, iter(()), context, None):
                    batch.add(part, message)
        return _decode_batch(batch, context)

    def original(self, message: Message, context: Context) -> Message:
        """Return a message without file contents, as a dead letter holds it."""
        return _new_batch(context).original(message)


FORMAT = ImixsJson()


def cut_file(file: InputFile, context: Context) -> Iterator[Part]:
    """Cut a file into documents."""
    reader = Chunks(file)
    chunks = iter(reader)
    first = take(chunks, HEAD_BYTES)
    if first:
        yield from _cut(first, chunks, context, reader, file)
    elif reader.damage is not None:
        yield Unread(b"", reader.problem(Problem("InvalidJson", "")))


def _cut(
    first: bytes,
    chunks: Iterator[bytes],
    context: Context,
    reader: Chunks | None,
    file: InputFile | None = None,
) -> Iterator[Part]:
    """Cut an input into documents in UTF-8.

    Args:
        first: its first bytes.
        chunks: what follows.
        context: settings.
        reader: tells whether the chunks ended too early.
        file: where they come from; None for a message.
    """
    limit = context.max_message_bytes
    encoding = _encoding(first, context)
    if _COLLECTION.match(first[:HEAD_BYTES].decode(encoding, "replace")):
        collection = Collection(chain([first], chunks), _COLLECTION, encoding, limit, b'{"data":[')
        try:
            yield from collection.objects()
        except InvalidJsonError as error:
            problem = Problem("InvalidJson", str(error))
            rest, size = collection.rest(), collection.left()
            yield Unread(rest, reader.problem(problem) if reader else problem, size)
        return
    if file is not None and not file.compressed and file.size > limit:
        yield Unread(first[:MAX_PAYLOAD], too_large(file.size, limit), file.size)
        return
    payload = first + take(chunks, limit + 1 - len(first))
    if reader is not None and reader.damage is not None:
        yield Unread(payload, reader.problem(Problem("InvalidJson", "")))
    elif len(payload) > limit:
        # At least so large: enough to see that it was cut.
        yield Unread(payload[:MAX_PAYLOAD], too_large(None, limit), len(payload))
    else:
        yield from _cut_whole(payload, encoding)


def _cut_whole(payload: bytes, encoding: str) -> Iterator[Part]:
    """Give a document as it is, or the documents of a collection that begins in another way."""
    try:
        if encoding != "utf-8":
            payload = payload.decode(encoding).encode()
        if payload.lstrip()[:12].replace(b" ", b"").startswith(b'{"item"'):
            yield payload
            return
        value = parse_json(payload)
    except (InvalidJsonError, UnicodeError) as error:
        yield Unread(payload, Problem("InvalidJson", str(error)))
        return
    found = documents_of(value)
    if len(found) == 1 and found[0] is value:
        yield payload
    else:
        yield from (orjson.dumps(document) for document in found)


def _encoding(head: bytes, context: Context) -> str:
    """Return the encoding given, or what a byte order mark or pairs of zeros say."""
    if codecs.lookup(context.encoding).name != "utf-8":
        return context.encoding
    return json.detect_encoding(head[:4])


def without_files(payload: bytes) -> bytes:
    """Return a document without the value of its `$file` item, even if it is no JSON."""
    text = payload.decode("utf-8", "surrogateescape")
    if not _FILE_NAME.search(text):
        return payload
    # The object around the item's name is found from brace to brace, strings left aside.
    starts: list[int] = []
    marked: list[int] = []
    kept, end = [], 0
    for token in _TOKEN.finditer(text):
        mark = token.group()
        if mark == "{":
            starts.append(token.start())
        elif mark == "}":
            start = starts.pop() if starts else 0
            if marked and marked[-1] == start:
                marked.pop()
                kept += [text[end:start], '{"name":"$file"}']
                end = token.end()
        elif mark == '"name"' and starts and _FILE_NAME.match(text, token.start()):
            marked.append(starts[-1])
    if marked:
        kept += [text[end : marked[0]], '{"name":"$file"}']
        end = len(text)
    return "".join([*kept, text[end:]]).encode("utf-8", "surrogateescape")


def documents_of(value: Any) -> list[Any]:
    """Return the documents of a parsed message: itself, or those of a collection."""
    if isinstance(value, dict) and "item" not in value:
        for key in ("data", "document"):
            if key in value:
                inner = value[key]
                members = inner if isinstance(inner, list) else [inner]
                return [document for member in members for document in documents_of(member)]
    return [value]


def _new_batch(context: Context) -> Batch:
    return Batch(FORMAT.name, without_files, context)


def _decode_batch(batch: Batch, context: Context) -> Decoded:
    codes = {name: code for code, name in enumerate(wanted_items(context))}
    problems: dict[int, Problem] = {}
    documents: list[int] = []
    items: list[int] = []
    values: list[str] = []
    for number, message in enumerate(batch.documents):
        try:
            for code, text in _pick(parse_json(message.payload), codes):
                documents.append(number)
                items.append(code)
                values.append(text)
        except InvalidJsonError as error:
            problems[number] = Problem("InvalidJson", str(error))
        except _InvalidDocumentError as error:
            problems[number] = Problem("InvalidDocument", str(error))
    document = np.array(documents, np.int64)
    # Of a document that fails half-way nothing counts, which its problem takes care of.
    picked = Picked(document, np.array(items, np.int64), pa.array(values, pa.string()), problems)
    return decode_documents(batch, picked, context, lambda number: batch.documents[number].payload)


class _InvalidDocumentError(ValueError):
    """JSON that is no Imixs document."""


def _pick(document: Any, codes: Mapping[str, int]) -> Iterator[tuple[int, str]]:
    """Yield the wanted items' values of a parsed document."""
    items = document.get("item") if isinstance(document, dict) else None
    if isinstance(items, dict):  # how some writers put a list of one
        items = [items]
    if not isinstance(items, list):
        reason = "a document must have a list named item"
        raise _InvalidDocumentError(reason)
    for item in items:
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            reason = "an item must be an object with a name"
            raise _InvalidDocumentError(reason)
        code = codes.get(name.lower())
        if code is not None:
            for text in _texts(item.get("value")):
                yield code, text


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a value, those of nested values one by one, and none for null."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, bool):
            yield "true" if value else "false"
        elif isinstance(value, int | float):
            yield str(value)
        elif isinstance(value, list):
            left.extend(reversed(value))
        elif isinstance(value, dict):
            if "$" in value:
                left.append(value["$"])
            elif "value" in value:
                left.append(value["value"])
            else:
                left.extend(
                    inner for key, inner in reversed(value.items()) if not key.startswith("@")
                )
