"""Avro object container files: block by block, each a batch of records."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Iterator

import fastavro
import numpy as np
from fastavro.schema import SchemaParseException, UnknownType

from schemas.dead_letters import MAX_PAYLOAD
from schemas.events import empty_events
from transforms.formats.avro.records import BAD_DATA, as_line
from transforms.formats.avro.schemas import BadSchema, check_schema, parse_schema
from transforms.formats.base import BATCH_BYTES, Context, Decoded, Failure, InputFile
from transforms.formats.json_lines import LinePlan, decode_lines, plan_lines
from transforms.formats.line_blocks import line_bounds

MAGIC = b"Obj\x01"
BATCH_RECORDS = 65_536
SAMPLE = 200

_DAMAGED = (
    *BAD_DATA,
    OSError,
    RecursionError,
    SchemaParseException,
    UnknownType,
    StopIteration,
    lzma.LZMAError,
    struct.error,
    zlib.error,
)


def read_container(
    file: InputFile, context: Context, attributes: dict[str, str]
) -> Iterator[Decoded]:
    """Read a file; `position` and `source_offset` are the record's number.

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
    lines: list[bytes] = []
    size = 0
    problem: tuple[str, str] | None = None
    with file.opener() as stream:
        records = _records(stream, context.max_message_bytes)
        while problem is None:
            try:
                record = next(records, None)
                if record is not None:
                    lines.append(as_line(record))
                    size += len(lines[-1])
            except BadSchema as error:
                record, problem = None, ("UnsupportedSchema", str(error))
            except _DAMAGED as error:
                what = " ".join(str(error).split()) or type(error).__name__
                record, problem = None, ("InvalidAvro", f"cannot read on: {what}"[:500])
            if lines and (record is None or size >= BATCH_BYTES or len(lines) >= BATCH_RECORDS):
                first = plan is None
                plan = plan or plan_lines(lines[:SAMPLE], context)
                data = b"\n".join(lines)
                starts, ends = line_bounds(data)
                places = np.arange(row, row + len(lines), dtype=np.int64)
                warnings = plan.map.warnings(file.path) if first else ()
                yield decode_lines(
                    data, starts, ends, places, file.path, plan, context, attributes, warnings
                )
                row += len(lines)
                lines, size = [], 0
            if record is None:
                break
    if problem is not None:
        yield _rest(file, row, *problem)
    elif row == 0:
        yield Decoded(empty_events(), warnings=(f"{file.path} is empty",))


def _records(stream: object, limit: int) -> Iterator[object]:
    """Yield the records of a container.

    Raises:
        BadSchema: its schema is refused.
    """
    blocks = fastavro.block_reader(stream)
    named: dict[str, object] = {}
    schema = blocks.metadata.get("avro.schema", "")
    if len(schema) > limit:
        reason = f"a schema of {len(schema)} bytes"
        raise BadSchema(reason)
    check_schema(parse_schema(schema, named), named)
    for block in blocks:
        yield from block


def first_lines(file: InputFile, context: Context) -> list[bytes]:
    """Return the first records as JSON, as far as they can be read."""
    lines: list[bytes] = []
    with file.opener() as stream:
        try:
            for record in _records(stream, context.max_message_bytes):
                lines.append(as_line(record))
                if len(lines) >= SAMPLE:
                    break
        except (BadSchema, *_DAMAGED):
            pass  # said when the file is read
    return lines


def _rest(file: InputFile, row: int, error: str, message: str) -> Decoded:
    """Make what cannot be read one dead message."""
    try:
        with (file.raw or file.opener)() as stream:
            head = stream.read(MAX_PAYLOAD)
    except OSError:
        head = b""
    source = f"{file.path}:{row}"
    failure = Failure(head, source, error, message, {"format": "avro"}, max(file.size, len(head)))
    return Decoded(empty_events(), [failure], dead=1)
