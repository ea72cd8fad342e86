"""Cutting XML into Imixs documents, without building a tree, in memory of one document.

`<data>` collections are cut at their `<document>` elements, so that each document is decoded,
fails and is kept in a dead letter on its own. A document that is not well-formed therefore
does not hide the ones behind it; only what lies between documents must be sound.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from schemas.dead_letters import MAX_PAYLOAD
from transforms.formats.base import (
    Context,
    InputFile,
)
from transforms.formats.imixs_input import (
    HEAD_BYTES,
    Chunks,
    Part,
    Problem,
    Unread,
    take,
    too_large,
)

_MISC = rb"(?:\s|<!--(?:(?!-->).)*-->|<\?(?:(?!\?>).)*\?>)*"
_ROOT = re.compile(
    _MISC + rb"(?:(?P<doctype><!DOCTYPE)|<(?:[^\s<>/!?:]+:)?(?P<root>[^\s<>/!?:=\"']+)(?=[\s/>]))",
    re.DOTALL,
)
_ENCODING = re.compile(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_ATTRIBUTE = rb"""\s+[^\s<>/="']+\s*=\s*(?:"[^"<]*"|'[^'<]*')"""
_DATA_START = re.compile(rb"<(?:[^\s<>/!?:]+:)?data(?:" + _ATTRIBUTE + rb")*\s*/?>")
_DATA_END = re.compile(rb"</(?:[^\s<>/!?:]+:)?data\s*>")
_DOCUMENT_START = re.compile(rb"<((?:[^\s<>/!?:]+:)?document)(?=[\s/>])")
_PLAIN_START, _PLAIN_END = b"<document>", b"</document>"
_BLANK = re.compile(rb"\s*")
_EMPTY = re.compile(rb"<[^<>\"']*(?:\"[^\"<]*\"[^<>\"']*|'[^'<]*'[^<>\"']*)*/>")
_BOUNDARY = re.compile(rb"<!--|<!\[CDATA\[|<\?|</?(?:[^\s<>/!?:]+:)?document(?=[\s/>])")
_CLOSED_BY = {b"<!--": b"-->", b"<![CDATA[": b"]]>", b"<?": b"?>"}
_FILE_ITEM = re.compile(
    r"""(?i)<(?:[^\s<>/!?:]+:)?item\s[^<>]*?name\s*=\s*["'](?:\$|&\#36;|&\#x24;)file["'][^<>]*>"""
)
_ITEM = re.compile(r"<(/?)(?:[^\s<>/!?:]+:)?item\b[^<>]*?(/?)>")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"<\0?\0", "utf-16-le"),
    (b"\0<\0?", "utf-16-be"),
)
_UTF8_COMPATIBLE = ("utf-8", "ascii")

# The head of a document as the engine writes it: UTF-8, no namespaces to look after.
PLAIN_HEAD = re.compile(
    rb"""(?:\xef\xbb\xbf)?"""
    rb"""(?:<\?xml\ version=["']1\.0["'](?:\ encoding=["'](?:UTF|utf)-8["'])?"""
    rb"""(?:\ standalone=["'](?:yes|no)["'])?\ ?\?>)?"""
    rb"""\s*<document(?:\s+[\w:.-]+="[^"<>]*")*\s*>""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Head:
    """What the first bytes of an XML input say.

    Attributes:
        encoding: Python's name of the encoding, or the name as given if it can't be read.
        known: whether Python has that encoding, and it can be that of these bytes.
        root: local name of the root element; None if it is not in sight.
        doctype: whether a document type comes before the root.
        rest: the head in UTF-8 from the root (or the document type) on.
    """

    encoding: str
    known: bool
    root: str | None
    doctype: bool
    rest: bytes


def read_head(data: bytes) -> Head:
    """Read encoding and root element of the first bytes of an XML input."""
    data = data[:HEAD_BYTES]
    name = next((name for bom, name in _BOMS if data.startswith(bom)), None)
    if name is None:
        declared = _ENCODING.match(data.lstrip()[:200])
        name = declared.group(1).decode() if declared else "utf-8"
    try:
        # Python also has encodings that are none of text, such as base64: these are refused here.
        b" ".decode(name, "replace")
        encoding = codecs.lookup(name).name
        text = codecs.getincrementaldecoder(encoding)("replace").decode(data)
    except (LookupError, UnicodeError):  # unknown, none of text, or not that of these bytes
        return Head(name, False, None, False, b"")
    data = text.removeprefix("\ufeff").encode("utf-8", "replace")
    found = _ROOT.match(data)
    if found is None:
        return Head(encoding, True, None, False, b"")
    root = found.group("root")
    start = found.start("doctype") if root is None else data.rfind(b"<", 0, found.start("root"))
    return Head(
        encoding,
        True,
        root.decode("utf-8", "replace") if root else None,
        root is None,
        data[start:],
    )


def cut_file(file: InputFile, context: Context) -> Iterator[Part]:
    """Cut a file into documents; a file of one document is given as it is."""
    limit = context.max_message_bytes
    whole = file.whole
    if whole is not None and len(whole) <= limit and PLAIN_HEAD.match(whole):
        yield whole
        return
    reader = Chunks(file)
    chunks = iter(reader)
    first = take(chunks, HEAD_BYTES)
    if not first:
        if reader.damage is not None:
            yield Unread(b"", reader.problem(Problem("InvalidXml", "")))
        return
    head = read_head(first)
    if head.root == "data":
        yield from cut_collection(first, chunks, head, limit, reader)
        return
    if not file.compressed and file.size > limit:
        yield Unread(first[:MAX_PAYLOAD], too_large(file.size, limit), file.size)
        return
    payload = first + take(chunks, limit + 1 - len(first))
    if len(payload) > limit:
        # At least so large: enough to see that it was cut.
        yield Unread(payload[:MAX_PAYLOAD], too_large(None, limit), len(payload))
    elif reader.damage is not None:
        yield Unread(payload, reader.problem(Problem("InvalidXml", "")))
    else:
        yield payload


def cut_collection(
    first: bytes,
    chunks: Iterator[bytes],
    head: Head,
    limit: int,
    reader: Chunks | None = None,
) -> Iterator[Part]:
    """Cut a `<data>` collection into documents in UTF-8.

    Args:
        first: the bytes that the head was read from.
        chunks: what follows.
        head: `read_head(first)`.
        limit: bytes of the largest document.
        reader: tells whether the chunks ended too early.
    """
    text = _Utf8(first, chunks, head)
    cutter = _Cutter(text, limit)
    try:
        yield from cutter.documents()
    except _BrokenError as broken:
        problem = Problem("InvalidXml", text.damage or str(broken))
        rest, size = cutter.rest(), cutter.left()
        yield Unread(rest, problem if reader is None else reader.problem(problem), size)


def without_files(payload: bytes) -> bytes:
    """Return a document without the values of its `$file` item, even if it is not well-formed."""
    if b"file" not in payload.lower() and b"\0" not in payload:
        return payload
    encoding = "utf-8"
    if payload[:4].count(0):
        encoding = read_head(payload).encoding
    text = payload.decode(encoding, "surrogateescape" if encoding == "utf-8" else "replace")
    kept, end = [], 0
    while found := _FILE_ITEM.search(text, end):
        kept.append(text[end : found.start()])
        end = found.end()
        if found.group().endswith("/>"):
            continue
        depth = 1
        for tag in _ITEM.finditer(text, end):
            depth += -1 if tag.group(1) else 0 if tag.group(2) else 1
            if depth == 0:
                kept.append(found.group() + tag.group())
                end = tag.end()
                break
        else:
            kept.append(found.group())
            end = len(text)
    kept.append(text[end:])
    if encoding.startswith("utf-16") and payload[:2] not in (
        codecs.BOM_UTF16_LE,
        codecs.BOM_UTF16_BE,
    ):
        encoding = "utf-16-le" if payload[1] == 0 else "utf-16-be"
    return "".join(kept).encode(encoding, "surrogateescape" if encoding == "utf-8" else "replace")


class _BrokenError(Exception):
    """The collection is not well-formed between its documents."""


class _Utf8:
    """Chunks in UTF-8; what cannot be decoded ends them early."""

    def __init__(self, first: bytes, chunks: Iterator[bytes], head: Head) -> None:
        self.damage: str | None = None
        self._first: bytes | None = first
        self._chunks = chunks
        self._decoder = None
        if head.encoding not in _UTF8_COMPATIBLE:
            self._decoder = codecs.getincrementaldecoder(head.encoding)()

    def next(self) -> bytes:
        """Return the next bytes; none at the end."""
        while self.damage is None:
            chunk, self._first = (self._first or next(self._chunks, b"")), None
            if self._decoder is None:
                return chunk
            try:
                text = self._decoder.decode(chunk, final=not chunk)
            except UnicodeError as error:
                self.damage = f"not text in the declared encoding: {error.__class__.__name__}"
                return b""
            if text or not chunk:
                return text.encode("utf-8", "replace")
        return b""


class _Cutter:
    """Finds the documents of a collection in a buffer that moves over the input."""

    def __init__(self, text: _Utf8, limit: int) -> None:
        self._text = text
        self._limit = limit
        self._buffer = bytearray()
        self._at = 0

    def rest(self) -> bytes:
        """Return what has not been cut, up to the size of a payload."""
        return bytes(self._buffer[self._at : self._at + MAX_PAYLOAD])

    def left(self) -> int:
        """Read to the end, and return how many bytes have not been cut."""
        size = len(self._buffer) - self._at
        while chunk := self._text.next():
            size += len(chunk)
        return size

    def documents(self) -> Iterator[Part]:
        """Yield each document.

        Raises:
            _BrokenError: the collection is not well-formed between its documents.
        """
        self._fill()
        if self._buffer.startswith(codecs.BOM_UTF8):
            self._at = len(codecs.BOM_UTF8)
        self._skip_between()
        root = self._take(_DATA_START, "the root element is not well-formed")
        if not root.endswith(b"/>"):
            self._skip_between()
            yield from self._plain_documents()
            while found := _DOCUMENT_START.match(self._buffer, self._at):
                yield self._document(bytes(found.group(1)))
                self._skip_between()
                yield from self._plain_documents()
            self._take(_DATA_END, "neither <document> nor </data> where one must be")
        self._skip_between()
        if self._at < len(self._buffer):
            reason = "content after the root element"
            raise _BrokenError(reason)

    def _take(self, pattern: re.Pattern[bytes], reason: str) -> bytes:
        found = pattern.match(self._buffer, self._at)
        if found is None:
            raise _BrokenError(reason if self._at < len(self._buffer) else "the input ends early")
        self._at = found.end()
        return bytes(found.group())

    def _plain_documents(self) -> Iterator[bytes]:
        """Cut documents while all is as the engine writes it, in as few searches as can be."""
        buffer = self._buffer
        while buffer.startswith(_PLAIN_START, self._at):
            at = self._at
            close = buffer.find(_PLAIN_END, at)
            end = close + len(_PLAIN_END)
            if (
                close < 0
                or end - at > self._limit
                # No comment, CDATA or instruction, and no other document's tag of any form.
                or buffer.find(b"!", at, close) >= 0
                or buffer.find(b"?", at, close) >= 0
                or buffer.find(b"document", at + len(_PLAIN_START), close) >= 0
            ):
                return
            self._at = end
            yield bytes(buffer[at:end])
            if not buffer.startswith(_PLAIN_START, end):
                self._skip_between()

    def _document(self, tag: bytes) -> Part:
        """Cut the document that begins here."""
        while (end := self._end_of_document(tag)) is None:
            if len(self._buffer) - self._at > self._limit:
                return self._skip_document(b"</" + tag)
            if not self._fill():
                reason = "the input ends within a document"
                raise _BrokenError(reason)
        if end - self._at > self._limit:
            part: Part = Unread(self.rest(), too_large(end - self._at, self._limit), end - self._at)
        else:
            part = bytes(self._buffer[self._at : end])
        self._at = end
        return part

    def _end_of_document(self, tag: bytes) -> int | None:
        """Return where the document ends, None if that is not in the buffer."""
        buffer, at = self._buffer, self._at
        close = buffer.find(b"</" + tag, at)
        end = buffer.find(b">", close)
        if close < 0 or end < 0:
            empty = _EMPTY.match(buffer, at)
            return empty.end() if empty else None
        plain = (
            not buffer[close + 2 + len(tag) : end].strip()
            and buffer.find(b"[CDATA[", at, end) < 0
            and buffer.find(b"<!--", at, end) < 0
            and buffer.find(b"<?", at, end) < 0
            and buffer.find(b"<" + tag, at + 1, end) < 0
        )
        return end + 1 if plain else self._walk(at)

    def _walk(self, position: int) -> int | None:
        """Find the end of the document where something in it may look like one."""
        depth = 0
        while found := _BOUNDARY.search(self._buffer, position):
            closed_by = _CLOSED_BY.get(bytes(found.group()), b">")
            position = self._buffer.find(closed_by, found.end()) + len(closed_by)
            if position < len(closed_by):
                return None
            if closed_by == b">":
                if self._buffer.startswith(b"</", found.start()):
                    depth -= 1
                elif not self._buffer.startswith(b"/>", position - 2):
                    depth += 1
                if depth <= 0:
                    return position
        return None

    def _skip_document(self, close: bytes) -> Unread:
        """Move behind a document that is too large, keeping its first bytes."""
        payload, size = self.rest(), 0
        while (end := self._buffer.find(close, self._at)) < 0 or (
            end := self._buffer.find(b">", end) + 1
        ) == 0:
            seen = len(self._buffer) if end < 0 else self._at
            # The closing tag may lie across the border of two chunks.
            seen = max(self._at, seen - len(close))
            size += seen - self._at
            self._at = seen
            if not self._fill():
                end = len(self._buffer)
                break
        size += end - self._at
        self._at = end
        return Unread(payload, too_large(size, self._limit), size)

    def _fill(self) -> bool:
        """Drop what has been cut and double what is left; False if there is nothing more."""
        del self._buffer[: self._at]
        self._at = 0
        left = len(self._buffer)
        while len(self._buffer) <= 2 * left and (chunk := self._text.next()):
            self._buffer += chunk
            if len(self._buffer) > self._limit:
                break
        return len(self._buffer) > left

    def _skip_between(self) -> None:
        """Move behind blanks, comments and instructions, with the whole next tag in sight."""
        while True:
            while len(self._buffer) - self._at < HEAD_BYTES and self._fill():
                pass
            found = _BLANK.match(self._buffer, self._at)
            self._at = found.end() if found else self._at
            opened = bytes(self._buffer[self._at : self._at + 4])
            if opened and not opened.startswith((b"<?", b"<!--")):
                return
            if not opened:
                if not self._fill():
                    return
                continue
            close = b"?>" if opened.startswith(b"<?") else b"-->"
            while (end := self._buffer.find(close, self._at + 2)) < 0:
                if len(self._buffer) - self._at > self._limit or not self._fill():
                    reason = "a comment or instruction does not end"
                    raise _BrokenError(reason)
            self._at = end + len(close)
