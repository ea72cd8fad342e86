"""One XES log as a stream: bytes in, rows of attribute values out, in bounded memory.

The bytes are cut behind `</event>` and `</trace>`. A fragment of plain layout is read by columns
(`xes_scan`); any other by an XML parser that is told which tags are open (`xes_walk`). Where a
cut could be wrong (a comment, CDATA or processing instruction may hold `</trace>`) the parser
keeps the rest of the file. Every way gives the same rows.
"""

from __future__ import annotations

import codecs
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from transforms.formats.base import MAX_PAYLOAD
from transforms.formats.xes_scan import Scan, Wanted, scan
from transforms.formats.xes_walk import Cursor, Header, Oversize, Rows, Unreadable, Walker

_HEADER_BYTES = 4 * 1024 * 1024
_BODY = re.compile(
    rb"<!--.*?(?:-->|\Z)|<!\[CDATA\[.*?(?:\]\]>|\Z)|<\?.*?(?:\?>|\Z)"
    rb"|<(?:[\w.-]+:)?(?P<body>trace|event)[\s/>]",
    re.DOTALL,
)
_DECLARED = re.compile(rb"<\?xml[^>]*?\sencoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"']")
_UTF8 = frozenset(("utf-8", "ascii"))
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"<\0?\0", "utf-16-le"),
    (b"\0<\0?", "utf-16-be"),
)


def pieces(stream: BinaryIO, size: int) -> Iterator[bytes]:
    """Read a stream in pieces of at least `size` bytes.

    Raises:
        Unreadable: a compressed file ends early or is damaged; all that was before it came first.
    """
    # One read of the layer below at a time: a larger one that fails loses what it had.
    read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    parts: list[bytes] = []
    total = 0
    failure: Unreadable | None = None
    while failure is None:
        try:
            data = read(size)
        except EOFError as error:
            failure = Unreadable("TruncatedFile", str(error))
            break
        except (zlib.error, lzma.LZMAError) as error:
            failure = Unreadable("CorruptFile", str(error))
            break
        except OSError as error:
            if error.errno is not None:  # a disk or a network, not the decompressor
                raise
            failure = Unreadable("CorruptFile", str(error))
            break
        if not data:
            break
        parts.append(data)
        total += len(data)
        if total >= size:
            yield b"".join(parts)
            parts, total = [], 0
    if parts:
        yield b"".join(parts)
    if failure is not None:
        raise failure


def as_utf8(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Bring XML of any encoding, found from its mark or its declaration, to UTF-8 without a mark.

    Raises:
        Unreadable: the encoding is not known, or bytes are not of it.
    """
    parts = iter(parts)
    head = b""
    for part in parts:
        head += part
        if len(head) >= 256:
            break
    if not head:
        return
    if head.startswith(codecs.BOM_UTF8):
        head = head[3:]
        encoding = "utf-8"
    else:
        encoding = encoding_of(head)
    if encoding in _UTF8:
        yield head
        yield from parts
        return
    try:
        b"".decode(encoding)  # refuses codecs that are no text encodings
        decoder = codecs.getincrementaldecoder(encoding)()
    except (LookupError, TypeError):
        reason = f"the encoding {encoding} is not known"
        raise Unreadable("InvalidXml", reason, head) from None
    while True:
        try:
            yield decoder.decode(head).encode()
        except UnicodeError as error:
            if isinstance(error, UnicodeDecodeError):
                yield error.object[: error.start].decode(encoding, "ignore").encode()
            raise Unreadable("InvalidXml", f"not {encoding}: {error}", head) from None
        following = next(parts, None)
        if following is None:
            return
        head = following


def encoding_of(head: bytes) -> str:
    """Name the encoding of an XML document, as Python names it if Python knows it."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    declared = _DECLARED.match(head)
    if declared is None:
        return "utf-8"
    name = declared[1].decode("ascii")
    try:
        return codecs.lookup(name).name
    except LookupError:
        return name


class LogReader:
    """Reads one log: `feed` its bytes, then `finish`; each gives rows and may raise Unreadable.

    Attributes:
        header: what stood before the first trace.
        cursor: where reading stands.
    """

    def __init__(self, want: Callable[[Sequence[str]], Wanted], limit: int) -> None:
        """Start before the first byte.

        Args:
            want: from the keys of the log's classifier to the attributes to collect.
            limit: bytes of the largest event that is read.
        """
        self.header = Header(want)
        self.cursor = Cursor()
        self._limit = limit
        self._pending = b""
        self._in_header = True
        self._walker: Walker | None = None
        self._skipped: Oversize | None = None

    def feed(self, data: bytes) -> Iterator[Rows]:
        """Read the next bytes (UTF-8).

        Raises:
            Unreadable: the rest can't be read; the rows before it were given.
        """
        self._pending += data
        if self._in_header:
            yield from self._read_header()
        elif self._skipped is not None:
            yield from self._skip()
        elif self._walker is not None:
            yield from self._walk(self._walker, len(self._pending))
        else:
            yield from self._read_fragment()

    def finish(self) -> Iterator[Rows]:
        """Read what is left.

        Raises:
            Unreadable: the log is not complete.
        """
        if self._skipped is not None:
            yield _only(self._skipped)
            raise Unreadable("InvalidXml", f"line {self.cursor.lines + 1}: the event has no end")
        walker = self._walker or self._new_walker()
        yield from self._walk(walker, len(self._pending), final=True)

    def rest(self) -> bytes:
        """Give the first bytes of what was fed and not read."""
        return self._pending[:MAX_PAYLOAD]

    def _new_walker(self) -> Walker:
        return Walker(self.header, self.cursor, self._limit, inside=not self._in_header)

    def _read_header(self) -> Iterator[Rows]:
        body = next((m for m in _BODY.finditer(self._pending) if m["body"]), None)
        if body is None and len(self._pending) < _HEADER_BYTES:
            return
        walker = self._new_walker()
        self._in_header = False
        self._walker = walker
        yield from self._walk(walker, len(self._pending) if body is None else body.start())
        if body is not None and walker.between:
            self._walker = None
            yield from self._read_fragment()
        else:
            yield from self._walk(walker, len(self._pending))

    def _read_fragment(self) -> Iterator[Rows]:
        pending, cursor = self._pending, self.cursor
        cut = max(pending.rfind(end) + len(end) for end in self._ends() if end in pending[-1:] or 1)
        raise NotImplementedError

    def _ends(self) -> tuple[bytes, bytes]:
        prefix = self.cursor.root.rpartition("log")[0]
        return f"</{prefix}event>".encode(), f"</{prefix}trace>".encode()
