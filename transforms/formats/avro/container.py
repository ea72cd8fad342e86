"""Avro object container files: block by block, so that memory does not grow with them."""

from __future__ import annotations

import itertools
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from schemas.dead_letters import MAX_PAYLOAD
from schemas.events import empty_events
from transforms.formats.avro.blocks import (
    Block,
    BrokenContainer,
    read_blocks,
    read_header,
    records_of,
)
from transforms.formats.avro.records import BAD_DATA, as_line, why
from transforms.formats.avro.schemas import BadSchema, least_bytes, parse_schema
from transforms.formats.base import BATCH_BYTES, Context, Decoded, Failure, InputFile
from transforms.formats.json_lines import LinePlan, decode_lines, plan_lines
from transforms.formats.line_blocks import UNREADABLE, line_bounds

BATCH_RECORDS = 65_536
SAMPLE = 200

_UNREADABLE = (BadSchema, BrokenContainer, *UNREADABLE, zlib.error, lzma.LZMAError)


@dataclass
class _Batch:
    """Records that wait to be decoded together.

    Attributes:
        lines: as JSON.
        places: their numbers in the file.
        failures: of blocks that broke off.
        size: bytes of the lines.
    """

    lines: list[bytes] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    size: int = 0


def read_container(
    file: InputFile, context: Context, attributes: dict[str, str]
) -> Iterator[Decoded]:
    """Read a file; `position` and `source_offset` are the record's number.

    A block that cannot be read on is a dead message, and the next is read; where the file itself
    breaks off, the rest is one.

    Args:
        file: the file.
        context: settings.
        attributes: what a replay of a dead record needs, which is kept as JSON.
    """
    if file.size == 0:
        yield Decoded(empty_events(), warnings=(f"{file.path} is empty",))
        return
    row = 0
    plan: LinePlan | None = None
    batch = _Batch()
    rest: Failure | None = None
    with file.opener() as stream:
        try:
            for block, codec, schema in _blocks(stream, context):
                _read_block(block, codec, schema, row, file.path, batch)
                row += block.count
                if batch.size >= BATCH_BYTES or len(batch.lines) >= BATCH_RECORDS:
                    decoded, plan = _decode(batch, plan, file, context, attributes)
                    batch = _Batch()
                    yield decoded
        except _UNREADABLE as error:
            kind = "UnsupportedSchema" if isinstance(error, BadSchema) else "InvalidAvro"
            rest = _rest(file, row, kind, error)
    if batch.lines or batch.failures:
        yield _decode(batch, plan, file, context, attributes)[0]
    if rest is not None:
        yield Decoded(empty_events(), [rest], dead=1)
    elif row == 0:
        yield Decoded(empty_events(), warnings=(f"{file.path} is empty",))


def _blocks(stream: BinaryIO, context: Context) -> Iterator[tuple[Block, str, Any]]:
    """Yield blocks, with codec and schema."""
    header = read_header(stream, context.max_message_bytes)
    named: dict[str, Any] = {}
    schema = parse_schema(header.schema, named)
    if not least_bytes(schema, named):
        reason = "records that take no bytes are refused"
        raise BadSchema(reason)
    for block in read_blocks(stream, header):
        yield block, header.codec, schema


def _read_block(
    block: Block, codec: str, schema: Any, first: int, path: str, batch: _Batch
) -> None:
    row = first
    try:
        for record in records_of(block, codec, schema):
            line = as_line(record)
            batch.lines.append(line)
            batch.places.append(row)
            batch.size += len(line)
            row += 1
    except BAD_DATA as error:
        left = first + block.count - row
        message = f"{left} records of a block cannot be read: {why(error)}"[:500]
        payload, size = block.data[:MAX_PAYLOAD], len(block.data)
        batch.failures.append(
            Failure(payload, f"{path}:{row}", "InvalidAvro", message, {"format": "avro"}, size)
        )


def _decode(
    batch: _Batch,
    plan: LinePlan | None,
    file: InputFile,
    context: Context,
    attributes: dict[str, str],
) -> tuple[Decoded, LinePlan]:
    warnings: tuple[str, ...] = ()
    if plan is None:
        plan = plan_lines(batch.lines[:SAMPLE], context)
        warnings = plan.map.warnings(file.path) if batch.lines else ()
    data = b"\n".join(batch.lines)
    starts, ends = line_bounds(data)
    places = np.array(batch.places, np.int64)
    decoded = decode_lines(
        data, starts, ends, places, file.path, plan, context, attributes, warnings
    )
    if batch.failures:
        decoded = Decoded(
            decoded.events,
            [*decoded.failures, *batch.failures],
            decoded.decoded,
            decoded.skipped,
            decoded.dead + len(batch.failures),
            warnings=decoded.warnings,
            messages=decoded.received + len(batch.failures),
        )
    return decoded, plan


def first_lines(file: InputFile, context: Context) -> list[bytes]:
    """Return the first records as JSON, as far as they can be read."""
    lines: list[bytes] = []
    with file.opener() as stream:
        try:
            for block, codec, schema in _blocks(stream, context):
                records = records_of(block, codec, schema)
                lines += map(as_line, itertools.islice(records, SAMPLE - len(lines)))
                if len(lines) >= SAMPLE:
                    break
        except (*_UNREADABLE, *BAD_DATA):
            pass  # said when the file is read
    return lines


def _rest(file: InputFile, row: int, error: str, reason: Exception) -> Failure:
    """Make what cannot be read one dead message."""
    try:
        with (file.raw or file.opener)() as stream:
            head = stream.read(MAX_PAYLOAD)
    except OSError:
        head = b""
    message = f"cannot read on: {' '.join(str(reason).split())}"[:500]
    source, size = f"{file.path}:{row}", max(file.size, len(head))
    return Failure(head, source, error, message, {"format": "avro"}, size)
