"""The first messages of a file as they stand in it, under the places that their events name.

Formats read whole blocks and keep the bytes of what is dead; `inspect` shows those of the others,
too. Only the beginning of a file is read for that. Where it is not certain which bytes a message
is, there is nothing rather than something wrong.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.formats import csv_rows, imixs_json, imixs_xml_cut, json_lines, registry
from transforms.formats.arrow_values import plain_layout, plain_values
from transforms.formats.avro.container import first_lines
from transforms.formats.base import Context, Failure, Format, InputFile, Message
from transforms.formats.csv_fields import encoding_of, sniff_delimiter, split_fields
from transforms.formats.csv_records import RecordSplitter
from transforms.formats.imixs_input import Chunks, Unread
from transforms.formats.json_strict import Collection, InvalidJsonError
from transforms.formats.line_blocks import (
    UNREADABLE,
    Block,
    line_bounds,
    read_blocks,
    read_up_to,
)
from transforms.formats.messages.files import has_lines
from transforms.formats.messages.form import JsonForm
from transforms.formats.xes_events import Picks
from transforms.formats.xes_log import LogReader, as_utf8, pieces
from transforms.formats.xes_rows import Unreadable

Text = tuple[int, bytes | None]
"""A message's `source_offset`, and its bytes; None where it has none of its own."""

Line = tuple[int, bytes]

BLOCK_BYTES = 64 * 1024
"""Bytes that are read at once: a few messages are enough."""

PARQUET_ROWS = 64
"""Rows that are read at once."""

CSV_BYTES = 1024 * 1024
"""First bytes of a CSV file whose records are shown."""

_BOM = b"\xef\xbb\xbf"
_LIST = re.compile(r"\ufeff?\s*\[")


@dataclass(frozen=True)
class Found:
    """What reading a file has said of one place.

    Attributes:
        events: rows of `EVENT_SCHEMA`; None for none.
        failures: the dead letters.
    """

    events: pa.Table | None
    failures: Sequence[Failure]


def first_texts(
    form: Format, file: InputFile, context: Context, most: int, found: Mapping[int, Found]
) -> list[Text]:
    """Return the first messages of a file, in their order; none where they cannot be told.

    Args:
        form: the file's format.
        file: the file.
        context: settings.
        most: how many.
        found: what is known of the places of this file.
    """
    if registry.is_foreign(form.name):
        lines = _taken(_lines(file, context.max_message_bytes), most)
        # Whether its places are those of lines, only it knows: it must say the same of each line.
        proven = all(_proves(form, file, line, context, found.get(line[0])) for line in lines)
        return [*lines] if proven else []
    cut = _CUTTERS.get(form.name) or (_json if isinstance(form, JsonForm) else None)
    return _taken(cut(file, context), most) if cut is not None else []


def _taken(texts: Iterator[Any], most: int) -> list[Any]:
    """Take some messages; the rest of a file that cannot be read is told of by its format."""
    taken: list[Any] = []
    try:
        for text in texts:
            taken.append(text)
            if len(taken) >= most:
                break
    except (*UNREADABLE, Unreadable, InvalidJsonError, pa.ArrowException):
        pass
    return taken


def _lines(file: InputFile, limit: int, encoding: str = "utf-8") -> Iterator[Line]:
    """Yield the lines of a file, each under the byte at which it starts."""
    with file.opener() as stream:
        for block in read_blocks(json_lines.utf8_stream(stream, encoding), BLOCK_BYTES, limit):
            if not isinstance(block, Block):
                return
            starts, ends = line_bounds(block.data)
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                yield block.offset + start, block.data[start:end]


def _json_lines(file: InputFile, context: Context) -> Iterator[Text]:
    return _lines(file, context.max_message_bytes, context.encoding)


def _json(file: InputFile, context: Context) -> Iterator[Text]:
    """Yield the messages of a file of JSON: its lines, or the members of a list by their number."""
    limit = context.max_message_bytes
    if has_lines(file):
        yield from _lines(file, limit)
        return
    with file.opener() as stream:
        head = read_up_to(stream, BLOCK_BYTES)[0]
    if not _LIST.match(head.decode(errors="replace")):
        yield 0, head
        return
    chunks = iter(Chunks(file))
    members = Collection(chunks, _LIST, "utf-8", limit, b"[").objects()
    parts = (part for part in members if isinstance(part, bytes | Unread))
    for number, part in enumerate(parts):
        yield number, part if isinstance(part, bytes) else part.payload


def _imixs(
    cut: Callable[[InputFile, Context], Iterator[Any]], without_files: Callable[[bytes], bytes]
) -> Callable[[InputFile, Context], Iterator[Text]]:
    """Return what yields the documents of a file by their number, file contents left out."""

    def documents(file: InputFile, context: Context) -> Iterator[Text]:
        for number, part in enumerate(cut(file, context)):
            payload = part.payload if isinstance(part, Unread) else part
            yield number, without_files(payload) if isinstance(payload, bytes) else b""

    return documents


def _csv(file: InputFile, context: Context) -> Iterator[Text]:
    """Yield the records behind the header by their number; blank ones have none."""
    encoding = encoding_of(context.encoding)
    with file.opener() as stream:
        source = csv_rows.utf8_stream(stream, context.encoding)
        data, problem = read_up_to(source, CSV_BYTES)
    complete = len(data) < CSV_BYTES and problem is None
    if b"\n" not in data and b"\r" in data:
        if not complete:
            return
        data = data.replace(b"\r", b"\n")
    begin = len(data) - len(data.removeprefix(_BOM).lstrip(b" \r\n"))
    header = data[begin:].split(b"\n", 1)[0].decode(encoding, "replace").rstrip("\r")
    delimiter = context.delimiter or sniff_delimiter(header)
    splitter = RecordSplitter(
        delimiter.encode(encoding), context.quote.encode(encoding), context.max_message_bytes
    )
    splitter.cut(data, complete)
    records = splitter.records
    width = number = -1
    for start, end in zip(records.starts.tolist(), records.ends.tolist(), strict=True):
        record = data[start:end]
        text = record.removeprefix(_BOM).decode(encoding, "replace")
        if width < 0:
            width = len(split_fields(text, delimiter, context.quote)) if text.strip() else -1
        elif text.strip():
            number += 1
            yield number, record
        elif text and len(split_fields(text, delimiter, context.quote)) == width:
            return  # blank, or a row without values: its reader may see either


def _xes(file: InputFile, context: Context) -> Iterator[Text]:
    """Yield the events of a log by their number."""
    reader = LogReader(Picks.of(context).wanted, context.max_message_bytes)
    with file.opener() as stream:
        for data in as_utf8(pieces(stream, BLOCK_BYTES)):
            for rows in reader.feed(data):
                yield from _of_rows(rows)
        for rows in reader.finish():
            yield from _of_rows(rows)


def _of_rows(rows: Any) -> Iterator[Text]:
    for i, number in enumerate(rows.ordinals.tolist()):
        yield number, rows.payload(i)


def _parquet(file: InputFile, context: Context) -> Iterator[Text]:
    """Yield rows by their number, as JSON, which dead ones are kept as."""
    if file.compressed:
        return  # it would have to be unpacked whole
    with file.opener() as stream:
        # Without a buffer a row group's columns would be read whole.
        source = pq.ParquetFile(stream, pre_buffer=False, buffer_size=BLOCK_BYTES)
        number = 0
        for batch in source.iter_batches(PARQUET_ROWS):
            columns = [plain_values(plain_layout(column)) for column in batch.columns]
            for row in zip(*columns, strict=True):
                pairs = dict(zip(batch.schema.names, row, strict=True))
                yield number, json.dumps(pairs, ensure_ascii=False).encode(errors="replace")
                number += 1


def _avro(file: InputFile, context: Context) -> Iterator[Text]:
    """Yield the first records by their number, as JSON, which dead ones are kept as."""
    yield from enumerate(first_lines(file, context))


def _numbers(file: InputFile, context: Context) -> Iterator[Text]:
    """Yield the numbers of events that have no text of their own: they refer to others."""
    for number in itertools.count():
        yield number, None


_CUTTERS: Mapping[str, Callable[[InputFile, Context], Iterator[Text]]] = {
    "json_lines": _json_lines,
    "csv": _csv,
    "xes": _xes,
    "parquet": _parquet,
    "avro": _avro,
    "ocel": _numbers,
    "imixs_xml": _imixs(imixs_xml_cut.cut_file, imixs_xml_cut.without_files),
    "imixs_json": _imixs(imixs_json.cut_file, imixs_json.without_files),
}


def _proves(
    form: Format, file: InputFile, line_at: Line, context: Context, found: Found | None
) -> bool:
    """Say whether a format decodes a line, alone, to what it found at the line's place."""
    place, line = line_at
    alone = form.decode([Message(line, file.path, place)], context)
    if found is None:
        return bool(alone.skipped) and not alone.events.num_rows and not alone.failures
    errors = [failure.error for failure in found.failures]
    if errors != [failure.error for failure in alone.failures]:
        return False
    if found.events is None:
        return not alone.events.num_rows
    names = ["case_id", "event_time", "activity"]
    return found.events.select(names).to_pylist() == alone.events.select(names).to_pylist()
