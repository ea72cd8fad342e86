"""Byte streams as blocks of whole lines, and small batches as large ones.

A block is cut at a newline, so that it can be decoded on its own. A line larger than a message
may be is passed on as its first bytes and its size, and never held whole. What can be read of
a truncated file counts; the rest of it is one message.
"""

from __future__ import annotations

import codecs
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.dead_letters import MAX_PAYLOAD
from schemas.events import EVENT_SCHEMA
from transforms.arrays import conform
from transforms.formats.base import (
    Decoded,
    Failure,
)

Offsets = npt.NDArray[np.int64]

UNREADABLE = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""What reading a truncated or damaged file raises (gzip.BadGzipFile is an OSError)."""

PADDING = b" " * 64
"""Behind lines that are read by wide windows: nothing of them has to be copied for that."""

PIECE = 1 << 18
"""Bytes scanned at once: they and the result stay in the processor's cache."""

_FIRST_READ, _LARGEST_READ = 1 << 10, 1 << 16
"""Bytes asked for at once of a stream that may be damaged: the read that meets the damage gives
nothing, so reads are small against what came before."""


@dataclass(frozen=True)
class Block:
    """Whole lines of a stream.

    Attributes:
        data: their bytes; only the last line of a file may lack its newline.
        offset: of the first byte in the (decompressed) stream.
    """

    data: bytes
    offset: int


@dataclass(frozen=True)
class Rest:
    """Bytes that cannot be decoded: a line too long, or the rest of a truncated file.

    Attributes:
        head: the first bytes, at most `MAX_PAYLOAD`.
        offset: of the first byte in the stream.
        size: all its bytes as far as they could be read.
        error: `TooLarge` or `TruncatedFile`.
        message: one line.
    """

    head: bytes
    offset: int
    size: int
    error: str
    message: str

    def failure(self, path: str, attributes: dict[str, str], file_size: int = 0) -> Failure:
        """Return it as a dead letter; one without a byte has the size of its file."""
        return Failure(
            payload=self.head,
            source=f"{path}:{self.offset}",
            error=self.error,
            message=self.message,
            attributes=attributes,
            size=self.size or max(file_size, 0),
        )


def positions_of(data: npt.NDArray[np.uint8], byte: int) -> Offsets:
    """Return where a byte occurs."""
    found = [
        np.flatnonzero(data[at : at + PIECE] == byte) + at for at in range(0, len(data), PIECE)
    ]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def line_bounds(data: bytes) -> tuple[Offsets, Offsets]:
    """Return start and end of each line, its line break (LF or CRLF) not included."""
    raw = np.frombuffer(data, np.uint8)
    ends = positions_of(raw, 10)
    if len(raw) and (not len(ends) or ends[-1] != len(raw) - 1):
        ends = np.append(ends, len(raw))
    starts = np.empty_like(ends)
    starts[:1] = 0
    starts[1:] = ends[:-1] + 1
    returns = (ends > starts) & (raw[np.maximum(ends, 1) - 1] == 13) if len(ends) else ends > 0
    return starts, ends - returns


def as_lines(bodies: pa.Array) -> tuple[bytes, Offsets, Offsets, list[int]]:
    """Put messages behind one another, each on a line of its own.

    Returns:
        The bytes with `PADDING` behind them, start and end of each message in them, and those that
        have line breaks.
    """
    if not len(bodies):
        none = np.empty(0, np.int64)
        return b"", none, none, []
    sizes = pc.binary_length(bodies).to_numpy().astype(np.int64)
    ends = np.cumsum(sizes + 1) - 1
    starts = ends - sizes
    one = pa.LargeListArray.from_arrays(pa.array([0, len(bodies)]), bodies)
    data = pc.binary_join(one, b"\n")
    joined = b"".join((memoryview(data[0].as_buffer()), PADDING))
    if joined.count(b"\n") == len(bodies) - 1:
        return joined, starts, ends, []
    breaks = positions_of(np.frombuffer(joined, np.uint8), ord("\n"))
    within = np.setdiff1d(breaks, ends[:-1], assume_unique=True)
    several = np.unique(np.searchsorted(starts, within, side="right") - 1)
    return joined, starts, ends, several.tolist()


def cut_at_newline(data: bytes, complete: bool) -> int:
    """Return how many bytes of the data are whole lines."""
    return len(data) if complete else data.rfind(b"\n") + 1


def read_blocks(
    stream: BinaryIO,
    block_bytes: int,
    max_message_bytes: int,
    start: int = 0,
    end: int | None = None,
    cut: Callable[[bytes, bool], int] = cut_at_newline,
) -> Iterator[Block | Rest]:
    """Read the lines that start in bytes [start, end) of a stream.

    Args:
        stream: seekable if `start` is not 0; bytes as decompressed.
        block_bytes: about how much to read at once.
        max_message_bytes: a longer line is a `Rest`.
        start: first byte; a line that began before it is left to the span before.
        end: where the next span starts; None is the end of the stream.
        cut: (data, whether the stream ends with it) -> how many of its bytes are whole lines.
    """
    skipping = start > 0
    if skipping:
        # From the byte before: if that is a newline, a line starts exactly at `start`.
        start -= 1
        stream.seek(start)
    offset = start
    carry: list[bytes] = []
    held = 0
    lost = 0  # bytes dropped of a line that is too long
    problem = None
    while True:
        wanted = block_bytes if end is None else max(min(block_bytes, end - offset - held), 1 << 16)
        data, problem = read_up_to(stream, wanted)
        complete = len(data) < wanted and problem is None
        if skipping:
            newline = data.find(b"\n")
            if newline < 0:
                offset += len(data)
                if complete or problem is not None or (end is not None and offset >= end):
                    break
                continue
            offset += newline + 1
            data = data[newline + 1 :]
            skipping = False
        if lost:
            newline = data.find(b"\n")
            dropped = len(data) if newline < 0 else newline + 1
            lost += dropped
            if newline >= 0 or complete or problem is not None:
                yield _too_large(carry[0], offset, lost - (newline >= 0), max_message_bytes)
                offset, lost, carry = offset + lost, 0, []
                data = data[dropped:]
            else:
                continue
        if end is not None and offset >= end:
            return
        carry.append(data)
        held += len(data)
        joined = b"".join(carry) if len(carry) > 1 else data
        last = False
        if end is not None and offset + held >= end:
            newline = joined.find(b"\n", max(end - 1 - offset, 0))
            last = newline >= 0
            size = newline + 1 if last else 0
        if not last:
            size = cut(joined, complete)
        if size:
            yield Block(joined[:size], offset)
            offset += size
            joined = joined[size:]
        if last or (complete and not joined):
            return
        carry, held = [joined], len(joined)
        if problem is not None or complete:
            break
        if held > max_message_bytes:
            carry, lost, held = [joined[:MAX_PAYLOAD]], held, 0
    if problem is not None and (end is None or offset < end):
        rest = b"".join(carry)
        problem = f"cannot read on at byte {offset + len(rest)}: {problem}"
        yield Rest(rest[:MAX_PAYLOAD], offset, len(rest), "TruncatedFile", problem)


def read_up_to(stream: BinaryIO, wanted: int) -> tuple[bytes, str | None]:
    """Read `wanted` bytes, fewer at the end; keep what came before an error, and say which."""
    # read1 makes one raw read at a time; read() would lose what it has when a later one fails.
    read = getattr(stream, "read1", stream.read)
    plain = isinstance(stream, (io.BufferedReader, io.BytesIO))
    pieces: list[bytes] = []
    size = 0
    try:
        while size < wanted:
            most = wanted if plain else min(max(size >> 6, _FIRST_READ), _LARGEST_READ)
            piece = read(min(wanted - size, most))
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
    except UNREADABLE as error:
        return b"".join(pieces), f"{type(error).__name__}: {error}"
    return b"".join(pieces), None


def _too_large(head: bytes, offset: int, size: int, limit: int) -> Rest:
    message = f"a line of {size} bytes; at most {limit} are read (--max_message_bytes)"
    return Rest(head, offset, size, "TooLarge", message)


def _surrogate(error: UnicodeError) -> tuple[str, int]:
    """Put a lone surrogate in place of what cannot be decoded."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end


codecs.register_error("imixs-surrogate", _surrogate)


class Utf8Stream:
    """A stream in another encoding, read as UTF-8 (for encodings whose newline is not one byte).

    What cannot be decoded is not UTF-8 in the result either, so its line fails.
    """

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="imixs-surrogate")
        self._ready = b""

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end."""
        read = getattr(self._stream, "read1", self._stream.read)
        while not self._ready:
            raw = read(max(size, _FIRST_READ))
            text = self._decoder.decode(raw, final=not raw)
            self._ready = text.encode("utf-8", "surrogatepass")
            if not raw:
                break
        taken, self._ready = self._ready[:size], self._ready[size:]
        return taken

    def close(self) -> None:
        """Close the stream below."""
        self._stream.close()


class LineFeedStream:
    """A stream whose lines end with carriage returns, read with line feeds instead."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end."""
        read = getattr(self._stream, "read1", self._stream.read)
        data: bytes = read(size)
        return data.replace(b"\r", b"\n")


def merge(parts: Iterable[Decoded], rows: int) -> Iterator[Decoded]:
    """Join small batches (of many small files) to ones of about `rows` messages."""
    held: list[Decoded] = []
    size = 0
    for part in parts:
        if part.decoded + part.dead + part.skipped >= rows and not held:
            yield part
            continue
        held.append(part)
        size += part.decoded + part.dead + part.skipped
        if size >= rows:
            yield join_decoded(held)
            held, size = [], 0
    if held:
        yield join_decoded(held)


def join_decoded(parts: Sequence[Decoded]) -> Decoded:
    """Join batches to one."""
    if len(parts) == 1:
        return parts[0]
    return Decoded(
        events=join_events([part.events for part in parts]),
        failures=[failure for part in parts for failure in part.failures],
        decoded=sum(part.decoded for part in parts),
        skipped=sum(part.skipped for part in parts),
        dead=sum(part.dead for part in parts),
        rejected=sum(part.rejected for part in parts),
        warnings=list(dict.fromkeys(w for part in parts for w in part.warnings)),
        messages=sum(part.received for part in parts),
    )


def join_events(tables: list[Any]) -> pa.Table:
    """Join event tables to one with one chunk and one dictionary a column."""
    table = pa.concat_tables(tables)
    columns = [conform(table.column(f.name), f.type) for f in EVENT_SCHEMA]
    return pa.Table.from_arrays(columns, schema=EVENT_SCHEMA)
