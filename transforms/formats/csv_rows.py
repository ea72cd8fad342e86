"""CSV with a header: one event a record.

Owns how records become events: `csv_records` cuts the bytes, `csv_fields` reads the fields. A
dead record carries the header, so that it can be replayed alone.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from schemas.events import empty_events
from transforms.formats.base import (
    BATCH_BYTES,
    Context,
    Decoded,
    Failure,
    InputFile,
    Message,
    Span,
    dead_row,
    decoded_rows,
)
from transforms.formats.columns import (
    ColumnMap,
    build_events,
    kept_rows,
    message_columns,
    name_column,
    skipped_by,
    to_attributes,
)
from transforms.formats.csv_fields import (
    Fields,
    Table,
    can_separate,
    encoding_of,
    read_fields,
    read_header,
    sniff_delimiter,
    split_fields,
)
from transforms.formats.csv_records import Records, RecordSplitter
from transforms.formats.line_blocks import (
    LineFeedStream,
    Rest,
    Utf8Stream,
    join_events,
    merge,
    read_blocks,
    read_up_to,
)

MERGE_MESSAGES = 8_192
"""Small files are joined to batches of about so many messages."""

SAMPLE_ROWS = 200
"""Records from which columns are recognised."""

_BOM = b"\xef\xbb\xbf"
_BLANK = re.compile(rb"(?:\xef\xbb\xbf)?[ \r\n]*")
_LONG_HEADER = 64 * 1024


class _OnlyReturns(Exception):
    """A file whose lines end with carriage returns."""


class CsvRows:
    """The `csv` format (see `transforms.formats.base.Format`)."""

    name = "csv"
    title = "CSV with a header line"
    expansion = 1.5
    python_bound = False

    def detects(self, head: bytes, name: str) -> bool:
        """Say whether the first line is a header: names, separated, none of them a number."""
        named = re.search(r"\.(csv|tsv)(\.|$)", name, re.IGNORECASE) is not None
        line = re.split(rb"[\r\n]", head.removeprefix(_BOM).lstrip(), maxsplit=1)[0].strip()
        if head and not line:
            return named  # blank lines only
        if not line or b"\0" in line or line[:1] in b"{[<":
            return False
        text = line.decode("latin-1")
        fields = split_fields(text, sniff_delimiter(text), '"')
        return (
            named
            or len(fields) > 1
            and all(re.fullmatch(r"[^\d\W][\w :.()$/-]{0,99}", field.strip()) for field in fields)
        )

    def spans(self, file: InputFile, context: Context) -> list[Span]:
        """Return the whole file: whether a newline is quoted is only known from its start."""
        return [Span()]

    def read(self, work: Sequence[tuple[InputFile, Span]], context: Context) -> Iterator[Decoded]:
        """Read files; `position` and `source_offset` number the rows, from 0."""
        return merge((d for file, _ in work for d in _read_file(file, context)), MERGE_MESSAGES)

    def mapping_of(self, sample: InputFile | Sequence[bytes], context: Context) -> ColumnMap | None:
        """Return which columns feed events, as the header and the first rows have them."""
        if not isinstance(sample, InputFile):
            return None
        encoding = encoding_of(context.encoding)
        with sample.opener() as stream:
            head = read_up_to(utf8_stream(stream, context.encoding), _LONG_HEADER)[0]
        lines = [line for line in head.decode(encoding, "replace").splitlines() if line.strip()]
        if not lines:
            return None
        delimiter = context.delimiter or sniff_delimiter(lines[0].removeprefix("\ufeff"))
        rows = lines[1 : 1 + SAMPLE_ROWS]
        header = lines[0].removeprefix("\ufeff")
        return read_header(header, rows, delimiter, context.quote, context).map

    def decode(self, messages: Sequence[Message], context: Context) -> Decoded:
        """Decode messages of one record each.

        The header is in the message's attribute `header` (with `delimiter` and `quote`), or the
        message's first line.
        """
        groups: dict[tuple[str, str, str], list[int]] = {}
        bodies: list[bytes] = []
        for i, message in enumerate(messages):
            attributes, body = message.attributes, message.payload
            header = attributes.get("header", "")
            if not header:
                first, _, body = body.partition(b"\n")
                header = first.removeprefix(_BOM).decode(errors="replace").rstrip("\r")
                body = body.rstrip(b"\r\n")
            bodies.append(body)
            delimiter = attributes.get("delimiter") or context.delimiter or sniff_delimiter(header)
            quote = attributes.get("quote", context.quote)
            if not can_separate(delimiter, quote):
                delimiter, quote = context.delimiter or sniff_delimiter(header), context.quote
            groups.setdefault((header, delimiter, quote), []).append(i)
        tables: list[pa.Table] = []
        failures: list[tuple[int, Failure]] = []
        warnings: list[str] = []
        blank = 0
        for (header, delimiter, quote), members in groups.items():
            table = read_header(header, [], delimiter, quote, context)
            warnings += table.map.warnings("messages")
            events, dead, skipped = _decode_group(
                table, [messages[i] for i in members], [bodies[i] for i in members], context
            )
            tables.append(events)
            failures += [(members[row], failure) for row, failure in dead]
            blank += skipped
        events = join_events(tables) if tables else empty_events()
        ordered = [failure for _, failure in sorted(failures, key=lambda pair: pair[0])]
        return decoded_rows(events, ordered, len(messages), blank, list(dict.fromkeys(warnings)))


FORMAT = CsvRows()


def utf8_stream(stream: BinaryIO, encoding: str) -> Any:
    """Return a file whose encoding is not read as it is (see `encoding_of`) as UTF-8."""
    plain = codecs.lookup(encoding).name in ("ascii", "utf-8", "utf-8-sig")
    return stream if plain or encoding_of(encoding) != "utf-8" else Utf8Stream(stream, encoding)


def _read_file(file: InputFile, context: Context) -> Iterator[Decoded]:
    try:
        yield from _read_lines(file, context, returns=False)
    except _OnlyReturns:  # raised before there is any result
        yield from _read_lines(file, context, returns=True)


def _read_lines(file: InputFile, context: Context, returns: bool) -> Iterator[Decoded]:
    """Read a file whose lines end with line feeds, or with carriage returns."""
    encoding = encoding_of(context.encoding)
    quote = context.quote.encode(encoding)
    # Until the header is known, any separator may stand before a quote.
    splitter = RecordSplitter(
        (context.delimiter or ",").encode(encoding), quote, context.max_message_bytes
    )
    table: Table | None = None
    warnings: tuple[str, ...] = ()
    row = 0
    empty = True

    def cut(data: bytes, complete: bool) -> int:
        nonlocal splitter, table, warnings
        if table is None:
            match = _BLANK.match(data)
            blank = match.end() if match else 0
            newline = data.find(b"\n", blank)
            if not returns and b"\n" not in data and b"\r" in data:
                if complete or len(data) >= _LONG_HEADER:
                    raise _OnlyReturns
            if newline < 0 and not complete:
                return 0
            line = data[data.rfind(b"\n", 0, blank) + 1 : newline if newline >= 0 else len(data)]
            line = line.removeprefix(_BOM)
            header = line.decode(encoding, errors="replace").rstrip("\r")
            delimiter = context.delimiter or sniff_delimiter(header)
            splitter = RecordSplitter(delimiter.encode(encoding), quote, context.max_message_bytes)
        return splitter.cut(data, complete)

    with file.opener() as stream:
        source = utf8_stream(stream, context.encoding)
        if returns:
            source = LineFeedStream(source)
        for block in read_blocks(source, BATCH_BYTES, context.max_message_bytes, cut=cut):
            if isinstance(block, Rest):
                empty = False
                attributes = table.attributes(context) if table else {"format": FORMAT.name}
                failure = replace(block, offset=row).failure(file.path, attributes, file.size)
                row += 1
                yield Decoded(empty_events(), [failure], dead=1)
                continue
            records = splitter.records
            if table is None:
                first = _first_block(block.data, records, context)
                if first is None:
                    continue  # blank lines only
                table, records = first
                warnings = table.map.warnings(file.path)
            empty = False
            fields = read_fields(block.data, records, table, context.max_message_bytes)
            yield _decode_records(
                block.data, records, fields, table, file.path, row, context, warnings
            )
            row += len(records.starts) - fields.blank
            warnings = ()
    if empty:
        yield Decoded(empty_events(), warnings=(f"{file.path} is empty",))
    elif row == 0:
        yield Decoded(empty_events(), warnings=(f"{file.path} has a header and no rows",))


def _first_block(data: bytes, records: Records, context: Context) -> tuple[Table, Records] | None:
    """Read the header; return the records behind it."""
    encoding = encoding_of(context.encoding)
    starts, ends = records.starts.tolist(), records.ends.tolist()

    def text(i: int) -> str:
        return data[starts[i] : ends[i]].removeprefix(_BOM).decode(encoding, errors="replace")

    at = next((i for i in range(len(starts)) if text(i).strip()), None)
    if at is None:
        return None
    header = text(at)
    sample = [text(i) for i in range(at + 1, min(at + 1 + SAMPLE_ROWS, len(starts)))]
    delimiter = context.delimiter or sniff_delimiter(header)
    table = read_header(header, sample, delimiter, context.quote, context)
    behind = Records(
        records.starts[at + 1 :],
        records.ends[at + 1 :],
        tuple(i - at - 1 for i in records.bad if i > at),
        records.size,
    )
    return table, behind


def _decode_records(
    data: bytes,
    records: Records,
    fields: Fields,
    table: Table,
    path: str,
    row: int,
    context: Context,
    warnings: Sequence[str],
) -> Decoded:
    # Blank records have no number.
    numbers = np.zeros(len(records.starts), np.int64)
    numbers[fields.rows] = 1
    numbers[[i for i, _, _ in fields.failures]] = 1
    numbers = np.cumsum(numbers) - 1 + row
    positions = pa.array(numbers[fields.rows])
    count = len(fields.rows)
    fixed = {
        "position": positions,
        "source": name_column(path, count),
        "source_offset": positions,
    }
    events, failed, skipped = _events(fields, table, count, context, fixed, None)
    attributes = table.attributes(context)
    failures = [
        dead_row(
            data[records.starts[i] : records.ends[i]],
            f"{path}:{numbers[i]}",
            error,
            message,
            attributes,
        )
        for i, error, message in failed
    ]
    skipped += fields.blank
    return decoded_rows(events, failures, len(records.starts), skipped, warnings)


def _events(
    fields: Fields,
    table: Table,
    rows: int,
    context: Context,
    fixed: Mapping[str, Any],
    payloads: pa.Array | None,
) -> tuple[pa.Table, list[tuple[int, str, str]], int]:
    """Return events, the failures of all records in order, and how many are skipped."""
    kept = ~skipped_by(table.map, fields.arrays, rows, context)
    arrays, places = fields.arrays, fields.rows
    if not kept.all():
        arrays = {name: array.filter(pa.array(kept)) for name, array in arrays.items()}
        fixed = {column: kept_rows(values, kept) for column, values in fixed.items()}
        payloads, places = kept_rows(payloads, kept), places[kept]
    count = len(places)
    columns = {c: arrays[name] for c, name in table.map.columns.items()}
    items = {item: arrays[name] for item, name in table.map.items.items()}
    attributes = to_attributes(items, count, context)
    events, refusals = build_events(columns, count, context, fixed, attributes, payloads)
    refused = [(int(places[r.row]), r.error, r.message) for r in refusals]
    return events, sorted(fields.failures + refused), rows - count


def _decode_group(
    table: Table, messages: Sequence[Message], bodies: Sequence[bytes], context: Context
) -> tuple[pa.Table, list[tuple[int, Failure]], int]:
    """Decode messages of one header: events, failures by number of message, blank messages."""
    sizes = np.fromiter((len(body) + 1 for body in bodies), np.int64, len(bodies))
    ends = np.cumsum(sizes)
    quote = table.quote.encode(table.encoding)
    bad = []
    for i, body in enumerate(bodies):
        if quote in body or b"\n" in body:
            splitter = RecordSplitter(table.delimiter.encode(table.encoding), quote, len(body))
            splitter.cut(body, True)
            if splitter.records.bad or len(splitter.records.starts) > 1:
                bad.append(i)
    records = Records(ends - sizes, ends - 1, tuple(bad), int(ends[-1]))
    data = b"\n".join(bodies) + b"\n"
    fields = read_fields(data, records, table, context.max_message_bytes)
    taken = [messages[i] for i in fields.rows.tolist()]
    live = [None if m.record_time is None else m.payload for m in taken]
    events, failed, skipped = _events(
        fields, table, len(taken), context, message_columns(taken), pa.array(live, pa.binary())
    )
    failures = []
    for i, error, message in failed:
        dead = messages[i]
        attributes = {**dead.attributes, **table.attributes(context)}
        source = dead.place
        failures.append((i, dead_row(bodies[i], source, error, message, attributes)))
    return events, failures, fields.blank + skipped
