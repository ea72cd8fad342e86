"""The blocks of an Avro container file, each unpacked within bounds.

The framing is that of the specification ("Object Container Files"): a header with the schema, then
blocks of a count, a size, that many bytes, and a marker. It is read here and not by fastavro, which
unpacks a block whatever it becomes, and gives up a file for one bad block.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import fastavro
import pyarrow as pa

from transforms.formats.avro.records import BAD_DATA

MAGIC = b"Obj\x01"

LARGEST_BLOCK = 256 * 1024 * 1024
"""Bytes of a block, unpacked."""

_HEADER = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Header",
        "fields": [
            {"name": "magic", "type": {"type": "fixed", "name": "Magic", "size": 4}},
            {"name": "meta", "type": {"type": "map", "values": "bytes"}},
            {"name": "sync", "type": {"type": "fixed", "name": "Sync", "size": 16}},
        ],
    }
)


class BrokenContainer(ValueError):
    """The rest of a file cannot be read; one line says why."""


class BrokenBlock(ValueError):
    """A block cannot be unpacked; those behind it can."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        schema: of its records, as JSON.
        codec: that its blocks are packed by.
        sync: the marker behind each block.
    """

    schema: bytes
    codec: str
    sync: bytes


@dataclass(frozen=True)
class Block:
    """A block as stored.

    Attributes:
        count: of its records.
        data: their bytes, packed.
    """

    count: int
    data: bytes

    def unpacked(self, codec: str) -> bytes:
        """Return the bytes of its records.

        Raises:
            BrokenBlock: they cannot be unpacked, or are too many.
        """
        try:
            made = CODECS[codec](self.data)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, pa.ArrowException) as e:
            reason = f"not packed by {codec}: {e}"
            raise BrokenBlock(reason) from None
        if len(made) > LARGEST_BLOCK:
            reason = f"more than {LARGEST_BLOCK:,} bytes when unpacked"
            raise BrokenBlock(reason)
        return made


class _Bounded:
    """A stream of which only so many bytes are read."""

    def __init__(self, stream: BinaryIO, left: int) -> None:
        self._stream = stream
        self._left = left

    def read(self, size: int) -> bytes:
        if size > self._left:
            reason = "the header is too large"
            raise BrokenContainer(reason)
        self._left -= max(size, 0)
        return self._stream.read(size)


def read_header(stream: BinaryIO, limit: int) -> Header:
    """Read a file's header.

    Raises:
        BrokenContainer: it is none, or larger than `limit`.
    """
    try:
        header: Any = fastavro.schemaless_reader(_Bounded(stream, limit), _HEADER, None)
    except BrokenContainer:
        raise
    except BAD_DATA as error:
        reason = f"the header is broken: {error or type(error).__name__}"
        raise BrokenContainer(reason) from None
    if header["magic"] != MAGIC:
        reason = "it does not begin as a container"
        raise BrokenContainer(reason)
    codec = header["meta"].get("avro.codec", b"null").decode(errors="replace")
    if codec not in CODECS:
        reason = f"the codec {codec[:40]!r} is not known; known are {', '.join(CODECS)}"
        raise BrokenContainer(reason)
    return Header(header["meta"].get("avro.schema", b""), codec, header["sync"])


def read_blocks(stream: BinaryIO, header: Header) -> Iterator[Block]:
    """Yield the blocks behind a header.

    Raises:
        BrokenContainer: the file ends early, or what comes is no block.
        OSError, EOFError, zlib.error, lzma.LZMAError: the file's own compression is damaged.
    """
    while True:
        count = _read_long(stream, first=True)
        if count is None:
            return
        size = _read_long(stream)
        if count < 0 or size is None or not 0 <= size <= LARGEST_BLOCK:
            reason = f"a block of {count} records and {size} bytes is none"
            raise BrokenContainer(reason)
        data = _read(stream, size)
        if _read(stream, 16) != header.sync:
            reason = "the marker behind a block is not the file's"
            raise BrokenContainer(reason)
        yield Block(count, data)


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        reason = f"the file ends early: {size} bytes expected, {len(data)} there"
        raise BrokenContainer(reason)
    return data


def _read_long(stream: BinaryIO, first: bool = False) -> int | None:
    """Read a number of variable length; None at the end of the file, if it may be there."""
    number = shift = 0
    while True:
        byte = stream.read(1)
        if not byte:
            if first and not shift:
                return None
            reason = "the file ends early, within a block's head"
            raise BrokenContainer(reason)
        number |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return (number >> 1) ^ -(number & 1)
        shift += 7
        if shift > 63:
            reason = "what comes is no block"
            raise BrokenContainer(reason)


def _deflate(data: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(data, LARGEST_BLOCK + 1)


def _bzip2(data: bytes) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, LARGEST_BLOCK + 1)


def _xz(data: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(data, LARGEST_BLOCK + 1)


def _zstandard(data: bytes) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        return bytes(stream.read(LARGEST_BLOCK + 1))


def _snappy(data: bytes) -> bytes:
    """Unpack a block of snappy, which says its size first, and the checksum of it last."""
    size = shift = 0
    for byte in data[:5]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if size > LARGEST_BLOCK:
        reason = f"{size:,} bytes when unpacked"
        raise ValueError(reason)
    made = pa.Codec("snappy").decompress(data[:-4], size, asbytes=True)
    if zlib.crc32(made).to_bytes(4, "big") != data[-4:]:
        reason = "the checksum is another"
        raise ValueError(reason)
    return made


CODECS: dict[str, Callable[[bytes], bytes]] = {
    "null": bytes,
    "deflate": _deflate,
    "snappy": _snappy,
    "zstandard": _zstandard,
    "bzip2": _bzip2,
    "xz": _xz,
}
"""Codec -> what unpacks a block, but not to more than a byte above `LARGEST_BLOCK`."""


def records_of(block: Block, codec: str, schema: Any) -> Iterator[Any]:
    """Yield the records of a block.

    Raises:
        BrokenBlock: it cannot be unpacked, or holds more than its records.
        `records.BAD_DATA`: a record does not fit the schema.
    """
    stream = io.BytesIO(block.unpacked(codec))
    for _ in range(block.count):
        yield fastavro.schemaless_reader(stream, schema, None)
    left = stream.getbuffer().nbytes - stream.tell()
    if left:
        reason = f"{left} bytes are left over behind its records"
        raise BrokenBlock(reason)
