"""Imixs documents in XML: one `<document>` a message, or a `<data>` collection of them.

The wanted items of documents as the engine writes them are taken from a whole batch at once
(`imixs_xml_scan`). A document with anything else in it (comments, CDATA, other encodings), or
with an error, goes through libxml2's events, with the same result. That parser builds no tree
and holds no lock meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from lxml import etree

from transforms.formats.base import Context, Decoded, InputFile, Message, Span
from transforms.formats.eventlog import Integers
from transforms.formats.imixs import ORIGINS, Picked, decode_documents, wanted_items
from transforms.formats.imixs_input import Batch, Problem, Skipped, Unread, read_files, too_large
from transforms.formats.imixs_xml_cut import (
    PLAIN_HEAD,
    cut_collection,
    cut_file,
    read_head,
    without_files,
)
from transforms.formats.imixs_xml_scan import scan

_ITEM_CHILD = re.compile(rb"<(?:[^\s<>/!?:]+:)?item[\s>]")
_CACHE_BYTES = 4 * 1024 * 1024
"""Documents are picked by so many bytes, which about stay in a processor's cache."""

_FEW = 5
"""So few documents are parsed in less time than it takes to make ready for a scan."""

_Values = tuple[Integers, Integers, pa.Array]


class ImixsXml:
    """Imixs-Workflow documents in XML (messages of the Kafka adapter, archives, exports)."""

    name = "imixs_xml"
    title = "Imixs-Workflow XML: <document> or <data>"
    expansion = 1.5
    python_bound = True
    origins = ORIGINS

    def detects(self, head: bytes, name: str) -> bool:
        """Say whether the root is `document` or `data` with an `item` in sight."""
        seen = read_head(head)
        return seen.root in ("document", "data") and _ITEM_CHILD.search(seen.rest) is not None

    def spans(self, file: InputFile, context: Context) -> list[Span]:
        """Return the whole file: documents are found from its start."""
        return [Span()]

    def read(self, work: Sequence[tuple[InputFile, Span]], context: Context) -> Iterator[Decoded]:
        """Read files of one document or of many, in batches."""
        return read_files(work, context, _new_batch, cut_file, _decode_batch)

    def decode(self, messages: Sequence[Message], context: Context) -> Decoded:
        """Decode messages; a `<data>` collection counts as many as it has documents."""
        batch = _new_batch(context)
        for message in messages:
            payload = message.payload
            if len(payload) > context.max_message_bytes:
                problem = too_large(len(payload), context.max_message_bytes)
                batch.add(Unread(payload, problem), message)
            elif not payload.strip():
                batch.add(Skipped(), message)
            elif not PLAIN_HEAD.match(payload) and (head := read_head(payload)).root == "data":
                for part in cut_collection(payload, iter(()), head, context.max_message_bytes):
                    batch.add(part, message)
            else:
                batch.add_document(message)
        return _decode_batch(batch, context)

    def original(self, message: Message, context: Context) -> Message:
        """Return a message without file contents, as a dead letter holds it."""
        return _new_batch(context).original(message)


FORMAT = ImixsXml()


def pick(payloads: Sequence[bytes], names: Sequence[str]) -> Picked:
    """Pick the wanted items of documents.

    Args:
        payloads: one XML document each.
        names: names of the wanted items, in lower case.
    """
    problems: dict[int, Problem] = {}
    picked: list[_Values] = []
    left: list[int] = []
    for start, end in _portions(payloads):
        if end - start < _FEW:
            left.extend(range(start, end))
            continue
        found = scan(payloads[start:end], names)
        picked.append((found.document + start, found.item, found.value))
        left.extend(start + number for number in found.left)
    if left or not picked:
        picked.append(_parse(payloads, left, names, problems))
    document = np.concatenate([values[0] for values in picked])
    item = np.concatenate([values[1] for values in picked])
    value = pa.concat_arrays([values[2] for values in picked])
    if left:
        order = np.argsort(document, kind="stable")
        document, item, value = document[order], item[order], value.take(pa.array(order))
    return Picked(document, item, value, problems)


def _portions(payloads: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yield portions of documents, each about `_CACHE_BYTES`."""
    start = size = 0
    for end, payload in enumerate(payloads, 1):
        size += len(payload)
        if size >= _CACHE_BYTES:
            yield start, end
            start, size = end, 0
    if start < len(payloads):
        yield start, len(payloads)


def _new_batch(context: Context) -> Batch:
    return Batch(FORMAT.name, without_files, context)


def _decode_batch(batch: Batch, context: Context) -> Decoded:
    payloads = [document.payload for document in batch.documents]
    picked = pick(payloads, wanted_items(context))
    return decode_documents(batch, picked, context, payloads.__getitem__)


def _parse(
    payloads: Sequence[bytes],
    numbers: Sequence[int],
    names: Sequence[str],
    problems: dict[int, Problem],
) -> _Values:
    """Pick items of documents of any form by the parser's events."""
    target = _Pick({name: code for code, name in enumerate(names)})
    parser = _parser(target)
    documents: list[int] = []
    items: list[int] = []
    values: list[str] = []
    for number in numbers:
        target.restart()
        try:
            etree.fromstring(payloads[number], parser)
        except (etree.XMLSyntaxError, _RefusedError) as error:
            problems[number] = _problem(error)
            continue
        documents.extend([number] * len(target.items))
        items.extend(target.items)
        values.extend(target.values)
    return np.array(documents, np.int64), np.array(items, np.int64), pa.array(values, pa.string())


class _RefusedError(Exception):
    """A well-formed input that is not read: its arguments are a `Problem`'s."""


def _problem(error: etree.XMLSyntaxError | _RefusedError) -> Problem:
    if isinstance(error, _RefusedError):
        return Problem(*error.args)
    message = " ".join(str(error).split()).removesuffix(" (<string>, line 1)")
    return Problem("InvalidXml", message)


def _parser(target: _Pick) -> etree.XMLParser:
    """Make a parser that fetches nothing, expands nothing and has libxml2's limits."""
    return etree.XMLParser(
        target=target,  # type: ignore[arg-type]  # every method of a target is optional
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        collect_ids=False,
    )


class _Pick:
    """Parser target that collects the wanted items of a document.

    Attributes:
        items: index of the item of each value.
        values: the texts; those of nested values one by one, nil ones left out.
    """

    def __init__(self, codes: Mapping[str, int]) -> None:
        self._codes = codes
        self.restart()

    def doctype(self, name: str, public_id: str | None, system: str | None) -> None:
        """Refuse a document type before anything in it is read."""
        error = "ForbiddenDtd"
        raise _RefusedError(error, f"documents must not have a DOCTYPE ({name})")

    def close(self) -> None:
        """End the document."""

    def restart(self) -> None:
        """Begin a new document."""
        self.items: list[int] = []
        self.values: list[str] = []
        self._depth = 0
        self._code: int | None = None
        self._open: list[list[str] | None] = []

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Begin an element."""
        self._depth += 1
        name = _local(tag)
        if self._depth == 1:
            if name != "document":
                error = "InvalidDocument"
                raise _RefusedError(error, f"the root element is <{name}>, not <document>")
        elif self._depth == 2:
            self._code = None
            if name == "item":
                self._code = self._codes.get(attributes.get("name", "").lower())
        elif self._code is not None:
            if self._open:
                self._open[-1] = None  # a value with elements in it has no text of its own
            nil = any(
                _local(key) == "nil" and value.strip() in ("true", "1")
                for key, value in attributes.items()
            )
            self._open.append([] if name == "value" and not nil else None)

    def data(self, text: str) -> None:
        """Take text."""
        if self._open and (texts := self._open[-1]) is not None:
            texts.append(text)

    def end(self, tag: str) -> None:
        """End an element."""
        self._depth -= 1
        if self._depth >= 2 and self._code is not None:
            texts = self._open.pop()
            if texts is not None:
                self.items.append(self._code)
                self.values.append("".join(texts))


def _local(name: str) -> str:
    return name.rpartition("}")[2].rpartition(":")[2]
