"""Imixs documents in XML: one `<document>` a message, or a `<data>` collection of them.

Every document is parsed by libxml2, which holds no lock meanwhile and builds no tree: this
tells whether it is well-formed. The wanted items of documents as the engine writes them are
then taken from a whole batch by Arrow; a document with anything else in it (comments, CDATA,
other encodings, nested values) goes through the parser's events, with the same result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lxml import etree

from transforms.formats.base import Context, Decoded, InputFile, Message, Span
from transforms.formats.eventlog import Integers, Mask
from transforms.formats.imixs import Picked, decode_documents, wanted_items
from transforms.formats.imixs_input import Batch, Problem, Skipped, Unread, read_files, too_large
from transforms.formats.imixs_xml_cut import (
    PLAIN_HEAD,
    cut_collection,
    cut_file,
    read_head,
    without_files,
)

_ITEM_CHILD = re.compile(rb"<(?:[^\s<>/!?:]+:)?item[\s>]")
_DOCUMENT_TAIL = re.compile(r"\s*</document\s*>\s*")
_ITEM_HEAD = re.compile(r"\s*<item name=")
_VALUES_HEAD = re.compile(r">\s*")
_VALUE_ATTRIBUTES = re.compile(r'(?:\s+(?:xmlns:\w+|\w+:type|type)="[^"<>]*")*\s*')
_VALUE_TAIL = re.compile(r"/value\s*>\s*")
_CACHE_BYTES = 2 * 1024 * 1024
"""Documents are picked by so many bytes, which stay in a processor's cache."""

_Values = tuple[Integers, Integers, pa.Array]
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&amp;", "&"))


class ImixsXml:
    """Imixs-Workflow documents in XML (messages of the Kafka adapter, archives, exports)."""

    name = "imixs_xml"
    title = "Imixs-Workflow XML: <document> or <data>"
    expansion = 1.5
    python_bound = True

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
        batch = _new_batch()
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


FORMAT = ImixsXml()


def pick(payloads: Sequence[bytes], names: Sequence[str]) -> Picked:
    """Pick the wanted items of documents.

    Args:
        payloads: one XML document each.
        names: names of the wanted items, in lower case.
    """
    target = _Check()
    parser = _parser(target)
    problems: dict[int, Problem] = {}
    slow: list[int] = []
    picked: list[_Values] = []
    plain: list[int] = []
    bodies: list[bytes] = []
    size = 0
    for number, payload in enumerate(payloads):
        head = PLAIN_HEAD.match(payload)
        if head is None:
            slow.append(number)
            continue
        target.plain = True
        try:
            etree.fromstring(payload, parser)
        except (etree.XMLSyntaxError, _RefusedError) as error:
            problems[number] = _problem(error)
            continue
        # What is between <![CDATA[ and ]]> looks like markup to a search.
        if not target.plain or b"[CDATA[" in payload:
            slow.append(number)
            continue
        plain.append(number)
        bodies.append(payload[head.end() :])
        size += len(payload)
        if size >= _CACHE_BYTES:
            picked.append(_pick_plain(bodies, plain, names, slow))
            plain, bodies, size = [], [], 0
    picked.append(_pick_plain(bodies, plain, names, slow))
    if slow:
        picked.append(_pick_slowly(payloads, sorted(slow), names, problems))
    document = np.concatenate([values[0] for values in picked])
    item = np.concatenate([values[1] for values in picked])
    value = pa.concat_arrays([values[2] for values in picked])
    if slow:
        order = np.argsort(document, kind="stable")
        document, item, value = document[order], item[order], value.take(pa.array(order))
    return Picked(document, item, value, problems)


def _new_batch() -> Batch:
    return Batch(FORMAT.name, without_files)


def _decode_batch(batch: Batch, context: Context) -> Decoded:
    payloads = [document.payload for document in batch.documents]
    picked = pick(payloads, wanted_items(context))
    return decode_documents(batch, picked, context, payloads.__getitem__)


def _pick_plain(
    bodies: Sequence[bytes], numbers: Sequence[int], names: Sequence[str], slow: list[int]
) -> _Values:
    """Pick items of well-formed documents in UTF-8 without comments, CDATA and instructions.

    In such a document `<` only begins a tag, so that it may be split at its tags. What makes
    the split sure is checked, and a document that fails a check is left to the parser: between
    two items there are only blanks (so no item lies within another one), and a picked value
    holds text only.

    Args:
        bodies: documents from behind their root's start tag.
        numbers: their numbers.
        names: names of the wanted items.
        slow: takes the numbers of the documents left to the parser.
    """
    text = pa.array(bodies, pa.binary()).cast(pa.string())
    odd = np.zeros(len(bodies), np.bool_)
    # BLANKS<item name="NAME">VALUES</item>...BLANKS</document>BLANKS
    lists = pc.split_pattern(text, "</item>")
    bounds = lists.offsets.to_numpy()
    pieces, document = lists.values, np.repeat(np.arange(len(bodies)), np.diff(bounds))
    is_tail = np.zeros(len(pieces), np.bool_)
    is_tail[bounds[1:] - 1] = True
    odd |= ~_matching(pieces.filter(pa.array(is_tail)), _DOCUMENT_TAIL)
    lists = pc.split_pattern(pieces.filter(pa.array(~is_tail)), '"', max_splits=2)
    (before, name, rest), document = _columns(lists, document[~is_tail], 3, odd)
    # A name that no > follows is that of an empty item, behind which another one may begin.
    sound = _matching(before, _ITEM_HEAD) & _true(pc.starts_with(rest, ">"))
    if _holds(name, "&"):
        sound &= ~_true(pc.match_substring(name, "&"))
    if not sound.all():
        odd[document[~sound]] = True
    code = pc.index_in(pc.utf8_lower(name), pa.array(names, pa.string()))
    wanted = code.is_valid()
    document, code = document[_true(wanted)], code.filter(wanted).to_numpy().astype(np.int64)
    # >BLANKS<valueATTRIBUTES>TEXT</value>BLANKS<value...
    lists = pc.split_pattern(rest.filter(wanted), "<value")
    bounds = lists.offsets.to_numpy()
    pieces, owner = lists.values, np.repeat(np.arange(len(lists)), np.diff(bounds))
    is_head = np.zeros(len(pieces), np.bool_)
    is_head[bounds[:-1]] = True
    odd[document[~_matching(pieces.filter(pa.array(is_head)), _VALUES_HEAD)]] = True
    document, code = document[owner[~is_head]], code[owner[~is_head]]
    lists = pc.split_pattern(pieces.filter(pa.array(~is_head)), ">", max_splits=1)
    row = np.arange(len(document))
    (attributes, rest), row = _columns(lists, row, 2, odd, document)
    sound = _matching(attributes, _VALUE_ATTRIBUTES)
    odd[document[row[~sound]]] = True
    (value, tail), row = _columns(pc.split_pattern(rest, "<", max_splits=1), row, 2, odd, document)
    document, code = document[row], code[row]
    odd[document[~_matching(tail, _VALUE_TAIL)]] = True
    if _holds(value, "\r"):
        odd[document[_true(pc.match_substring(value, "\r"))]] = True
    if _holds(value, "&"):
        coded = pc.match_substring(value, "&")
        some = value.filter(coded)
        odd[document[_true(coded)][_true(pc.match_substring(some, "&#"))]] = True
        for entity, character in _ENTITIES:
            some = pc.replace_substring(some, entity, character)
        value = pc.replace_with_mask(value, coded, some)
    if odd.any():
        slow.extend(number for number, left in zip(numbers, odd, strict=True) if left)
        keep = ~odd[document]
        document, code, value = document[keep], code[keep], value.filter(pa.array(keep))
    return np.array(numbers, np.int64)[document], code, value


def _columns(
    lists: pa.Array, row: Integers, width: int, odd: Mask, document: Integers | None = None
) -> tuple[list[pa.Array], Integers]:
    """Turn lists of one length to columns; the documents of other lists are odd."""
    counts = np.diff(lists.offsets.to_numpy())
    good = counts == width
    if not good.all():
        odd[row[~good] if document is None else document[row[~good]]] = True
        lists, row = lists.filter(pa.array(good)), row[good]
    flat = lists.flatten()
    at = np.arange(0, len(flat), width)
    return [flat.take(pa.array(at + k)) for k in range(width)], row


def _matching(column: pa.Array, pattern: re.Pattern[str]) -> Mask:
    """Match a column of few distinct texts."""
    codes = column.dictionary_encode()
    matched = [pattern.fullmatch(text) is not None for text in codes.dictionary.to_pylist()]
    mask: Mask = np.array(matched, np.bool_)[codes.indices.to_numpy()]
    return mask


def _holds(column: pa.Array, character: str) -> bool:
    """Say whether any text (of an array that is no slice) has an ASCII character."""
    data = column.buffers()[2]
    return data is not None and bool((np.frombuffer(data, np.uint8) == ord(character)).any())


def _true(condition: pa.Array) -> Mask:
    mask: Mask = condition.fill_null(False).to_numpy(zero_copy_only=False)
    return mask


def _pick_slowly(
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


def _parser(target: _Check) -> etree.XMLParser:
    """Make a parser that fetches nothing, expands nothing and has libxml2's limits."""
    return etree.XMLParser(
        target=target,  # type: ignore[arg-type]  # every method of a target is optional
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        collect_ids=False,
    )


class _Check:
    """Parser target that notes what else than elements and text a document has."""

    def __init__(self) -> None:
        self.plain = True

    def doctype(self, name: str, public_id: str | None, system: str | None) -> None:
        """Refuse a document type before anything in it is read."""
        error = "ForbiddenDtd"
        raise _RefusedError(error, f"documents must not have a DOCTYPE ({name})")

    def comment(self, text: str) -> None:
        """Note a comment."""
        self.plain = False

    def pi(self, target: str, data: str | None = None) -> None:
        """Note an instruction."""
        self.plain = False

    def close(self) -> None:
        """End the document."""


class _Pick(_Check):
    """Parser target that collects the wanted items of a document.

    Attributes:
        items: index of the item of each value.
        values: the texts; those of nested values one by one, nil ones left out.
    """

    def __init__(self, codes: Mapping[str, int]) -> None:
        super().__init__()
        self._codes = codes
        self.restart()

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
