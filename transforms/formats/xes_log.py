"""One XES log as a stream: bytes in, rows of attribute values out, in bounded memory.

The bytes are cut behind `</event>` and `</trace>`. A fragment of plain layout is read by columns
(`xes_scan`); any other by an XML parser that is told which tags are open (`xes_walk`). Where a
cut could be wrong (a comment, CDATA or processing instruction may hold `</trace>`) the parser
keeps the rest of the file. Every way gives the same rows.
"""

from __future__ import annotations

import codecs
import itertools
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from schemas.dead_letters import MAX_PAYLOAD
from transforms.formats.xes_rows import Cursor, Header, Oversize, Rows, Unreadable, Wanted
from transforms.formats.xes_scan import Scan, count_lines, scan
from transforms.formats.xes_walk import Walker

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
            failure = Unreadable(str(error), "TruncatedFile")
            break
        except (zlib.error, lzma.LZMAError) as error:
            failure = Unreadable(str(error), "CorruptFile")
            break
        except OSError as error:
            if error.errno is not None:  # a disk or a network, not the decompressor
                raise
            failure = Unreadable(str(error), "CorruptFile")
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
        # Refuses codecs that are none of text, or can't leave out what is not of them.
        b"<".decode(encoding, "ignore")
        decoder = codecs.getincrementaldecoder(encoding)()
    except (LookupError, UnicodeError):
        reason = f"the encoding {encoding} is not known"
        raise Unreadable(reason, "InvalidXml", head) from None
    for part in itertools.chain([head], parts, [b""]):
        try:
            yield decoder.decode(part, final=not part).encode()
        except UnicodeDecodeError as error:
            yield error.object[: error.start].decode(encoding, "ignore").encode()
            reason = f"not {encoding}: {error.reason}"
            raise Unreadable(reason, "InvalidXml", error.object[error.start :]) from None
        except UnicodeError as error:  # no mark in front of UTF-16
            reason = f"not {encoding}: {error}"
            raise Unreadable(reason, "InvalidXml", part) from None


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
            reason = f"line {self.cursor.lines + 1}: the event has no end"
            raise Unreadable(reason, "InvalidXml")
        walker = self._walker or self._new_walker()
        yield from self._walk(walker, len(self._pending), final=True)

    def rest(self) -> bytes:
        """Give the first bytes of what was fed and not read."""
        return self._pending[:MAX_PAYLOAD]

    @property
    def unread(self) -> int:
        """Return how many bytes were fed and not read."""
        return len(self._pending)

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
        cut = max(at + len(end) if (at := pending.rfind(end)) >= 0 else 0 for end in self._ends())
        if cut == 0 and len(pending) <= self._limit:
            return
        fragment = pending[:cut]
        if cut and (cursor.trace is None or cursor.begun):
            found = scan(fragment, cursor.trace is not None, self.header.wanted, self._limit)
            if found is not None:
                self._pending = pending[cut:]
                yield self._scanned(fragment, found)
                return
        walker = self._walker = self._new_walker()
        whole = cut > 0 and self._is_whole(fragment)
        yield from self._walk(walker, cut if whole else len(pending))
        if whole and walker.between:
            self._walker = None

    def _is_whole(self, fragment: bytes) -> bool:
        """Say whether the cut is one between elements, and not in a comment or the like."""
        if b"<!" not in fragment and b"<?" not in fragment:
            return True
        cursor = self.cursor
        trace = None if cursor.trace is None else dict(cursor.trace)
        walker = Walker(self.header, replace(cursor, trace=trace), self._limit, inside=True)
        try:
            walker.feed(fragment)
            return walker.between and walker.closes()
        except Unreadable:
            return False

    def _walk(self, walker: Walker, size: int, final: bool = False) -> Iterator[Rows]:
        data, self._pending = self._pending[:size], self._pending[size:]
        try:
            walker.feed(data, final)
        except Unreadable as failure:
            yield walker.take()
            if failure.error != "TooLarge" or not walker.in_event:
                raise
            self._start_skip(walker, failure.payload, data)
            yield from self._skip()
            return
        self.cursor.lines += count_lines(data)
        if walker.found:
            yield walker.take()

    def _start_skip(self, walker: Walker, payload: bytes, data: bytes) -> None:
        """Give up on the open event: its bytes are passed over, up to its end tag."""
        cursor = self.cursor
        number = -1 if cursor.trace is None else cursor.traces - 1
        again = data[1 - len(self._ends()[0]) :]  # the end tag may have begun
        size = walker.event_size - len(again)
        self._skipped = Oversize(cursor.events, number, dict(cursor.trace or {}), payload, size)
        self._walker = None
        self._pending = again + self._pending
        cursor.events += 1
        cursor.lines += count_lines(data) - count_lines(again)

    def _skip(self) -> Iterator[Rows]:
        assert self._skipped is not None
        end = self._ends()[0]
        at = self._pending.find(end)
        passed = at + len(end) if at >= 0 else max(len(self._pending) - len(end) + 1, 0)
        self._skipped = replace(self._skipped, size=self._skipped.size + passed)
        self.cursor.lines += count_lines(self._pending[:passed])
        self._pending = self._pending[passed:]
        if at >= 0:
            yield _only(self._skipped)
            self._skipped = None
            yield from self._read_fragment()

    def _ends(self) -> tuple[bytes, bytes]:
        prefix = self.cursor.root.rpartition("log")[0]
        return f"</{prefix}event>".encode(), f"</{prefix}trace>".encode()

    def _scanned(self, fragment: bytes, found: Scan) -> Rows:
        """Place what the scan found in the log, and move on."""
        cursor, keys = self.cursor, self.header.wanted.trace
        count = len(found.starts)
        carried = cursor.trace or {}
        columns = [
            pa.concat_arrays([pa.array([carried.get(key)], pa.string()), column[1:]])
            for key, column in zip(keys, found.trace, strict=True)
        ]
        traces = pa.array(found.traces)
        starts, ends = found.starts, found.ends
        rows = Rows(
            ordinals=np.arange(cursor.events, cursor.events + count, dtype=np.int64),
            traces=found.traces.astype(np.int64) + (cursor.traces - 1),
            event=found.event,
            trace=[column.take(traces) for column in columns],
            payload=lambda i: fragment[starts[i] : ends[i]],
        )
        last = {key: column[-1].as_py() for key, column in zip(keys, columns, strict=True)}
        cursor.events += count
        cursor.traces += found.started
        cursor.lines += found.lines
        cursor.belated |= found.belated
        cursor.begun = found.open
        cursor.tag = "trace"
        cursor.trace = {k: v for k, v in last.items() if v is not None} if found.open else None
        return rows


def _only(oversize: Oversize) -> Rows:
    none = np.array([], np.int64)
    return Rows(none, none, [], [], lambda _: b"", [oversize])
