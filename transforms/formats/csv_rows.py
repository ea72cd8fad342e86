"""CSV with a header: one event a record.

Owns the header (delimiter, names), and how records become events; `csv_records` cuts the bytes,
Arrow reads the fields. A dead record carries the header, so that it can be replayed alone.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv

from schemas.events import EVENT_SCHEMA, NAME, empty_events
from transforms.formats.assemble import conform
from transforms.formats.base import (
    BATCH_BYTES,
    MAX_PAYLOAD,
    Context,
    Decoded,
    Failure,
    InputFile,
    Message,
    Span,
)
from transforms.formats.columns import (
    ColumnMap,
    build_events,
    map_columns,
    message_columns,
    name_column,
    replay_attributes,
    to_attributes,
)
from transforms.formats.csv_records import Records, RecordSplitter
from transforms.formats.line_blocks import (
    Offsets,
    Rest,
    Utf8Stream,
    join_events,
    merge,
    read_blocks,
)

MERGE_MESSAGES = 8_192
"""Small files are joined to batches of about so many messages."""

DELIMITERS = (",", ";", "\t", "|")
"""Separators that are recognised."""

SAMPLE_ROWS = 200
"""Records from which columns are recognised."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Table:
    """How the records of a file are read.

    Attributes:
        header: the header's text.
        delimiter: between fields.
        quote: around fields.
        encoding: a single-byte encoding, or `utf-8`.
        width: number of fields.
        map: which of them feed events.
    """

    header: str
    delimiter: str
    quote: str
    encoding: str
    width: int
    map: ColumnMap

    def attributes(self, context: Context) -> dict[str, str]:
        """Return what a replay of one record needs."""
        attributes = replay_attributes(FORMAT.name, context)
        attributes |= {"header": self.header, "delimiter": self.delimiter}
        if self.quote != '"':
            attributes["quote"] = self.quote
        return attributes


@dataclass
class _Fields:
    """Fields read of some records: `rows` numbers the records that gave a row."""

    rows: Offsets
    arrays: dict[str, pa.Array]
    failures: list[tuple[int, str, str]]
    blank: int


class CsvRows:
    """The `csv` format (see `transforms.formats.base.Format`)."""

    name = "csv"
    title = "CSV with a header line"
    expansion = 1.5
    python_bound = False

    def detects(self, head: bytes, name: str) -> bool:
        """Say whether the first line is a header: names, separated, none of them a number."""
        line = head.removeprefix(_BOM).split(b"\n", 1)[0].strip()
        if not line or b"\0" in line or line[:1] in b"{[<":
            return False
        text = line.decode("latin-1")
        fields = _fields(text, sniff_delimiter(text), '"')
        if re.search(r"\.(csv|tsv)(\.|$)", name, re.IGNORECASE):
            return True
        return len(fields) > 1 and all(
            re.fullmatch(r"[^\d\W][\w :.()$/-]{0,99}", field.strip()) for field in fields
        )

    def spans(self, file: InputFile, context: Context) -> list[Span]:
        """Return the whole file: whether a newline is quoted is only known from its start."""
        return [Span()]

    def read(self, work: Sequence[tuple[InputFile, Span]], context: Context) -> Iterator[Decoded]:
        """Read files; `position` and `source_offset` number the rows, from 0."""
        return merge((d for file, _ in work for d in _read_file(file, context)), MERGE_MESSAGES)

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
            key = (header, delimiter, attributes.get("quote", context.quote))
            groups.setdefault(key, []).append(i)
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
        return Decoded(
            events=events,
            failures=[failure for _, failure in sorted(failures, key=lambda pair: pair[0])],
            decoded=len(events),
            skipped=blank,
            dead=len(failures),
            warnings=list(dict.fromkeys(warnings)),
        )


FORMAT = CsvRows()


def sniff_delimiter(header: str) -> str:
    """Return the separator that splits the header into most fields; the comma in doubt."""
    return max(DELIMITERS, key=lambda delimiter: len(_fields(header, delimiter, '"')))


def read_header(
    header: str, sample: Sequence[str], delimiter: str, quote: str, context: Context
) -> Table:
    """See from a header, and some records, which fields feed events."""
    names = [name.strip() for name in _fields(header, delimiter, quote)]
    rows = [
        fields for text in sample if len(fields := _fields(text, delimiter, quote)) == len(names)
    ]
    values = {name: [row[i] for row in rows] for i, name in reversed(list(enumerate(names)))}
    return Table(
        header=header,
        delimiter=delimiter,
        quote=quote,
        encoding=_encoding(context.encoding),
        width=len(names),
        map=map_columns(names, context, values),
    )


def _fields(text: str, delimiter: str, quote: str) -> list[str]:
    try:
        return next(csv.reader([text], delimiter=delimiter, quotechar=quote), [])
    except csv.Error:
        return text.split(delimiter)


@lru_cache(maxsize=16)
def _encoding(name: str) -> str:
    """Return the encoding that blocks are read in: single-byte, or UTF-8 for all others."""
    name = codecs.lookup(name).name
    if name in ("ascii", "utf-8-sig"):
        return "utf-8"
    single = len(bytes(range(256)).decode(name, errors="replace")) == 256
    return name if single else "utf-8"


def _open(stream: BinaryIO, context: Context) -> Any:
    wide = _encoding(context.encoding) == "utf-8" and codecs.lookup(context.encoding).name not in (
        "ascii",
        "utf-8",
        "utf-8-sig",
    )
    return Utf8Stream(stream, context.encoding) if wide else stream


def _read_file(file: InputFile, context: Context) -> Iterator[Decoded]:
    encoding = _encoding(context.encoding)
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
            newline = data.find(b"\n")
            if newline < 0 and not complete:
                return 0
            line = data[: newline if newline >= 0 else len(data)].removeprefix(_BOM)
            header = line.decode(encoding, errors="replace").rstrip("\r")
            delimiter = context.delimiter or sniff_delimiter(header)
            splitter = RecordSplitter(delimiter.encode(encoding), quote, context.max_message_bytes)
        return splitter.cut(data, complete)

    with file.opener() as stream:
        source = _open(stream, context)
        for block in read_blocks(source, BATCH_BYTES, context.max_message_bytes, cut=cut):
            if isinstance(block, Rest):
                empty = False
                attributes = table.attributes(context) if table else {"format": FORMAT.name}
                failure = block.failure(file.path, attributes)
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
            fields = _read_records(block.data, records, table)
            yield _decode_records(
                block.data, records, fields, table, file.path, row, context, warnings
            )
            row += len(records.starts) - fields.blank
            warnings = ()
    if empty:
        yield Decoded(empty_events(), warnings=(f"{file.path} is empty",))


def _first_block(data: bytes, records: Records, context: Context) -> tuple[Table, Records] | None:
    """Read the header; return the records behind it."""
    encoding = _encoding(context.encoding)
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


def _read_records(data: bytes, records: Records, table: Table) -> _Fields:
    """Read the fields that are used; each record gives a row, is blank, or fails."""
    starts, ends = records.starts, records.ends
    blank = starts == ends
    apart = {i: ("BadRow", "a quote that does not close") for i in records.bad}
    apart |= {
        i: ("InvalidEncoding", f"not {table.encoding}") for i in _undecodable(data, records, table)
    }
    slow = [i for i in _lone_returns(data, records) if i not in apart]
    out = np.array(sorted([*apart, *slow]), np.int64)
    fed_mask = ~blank
    fed_mask[out] = False
    fed = np.flatnonzero(fed_mask)
    fields = _arrow_fields(data, records, table, out, fed)
    if fields is None:
        slow = sorted([*slow, *fed.tolist()])
        fields = _Fields(np.empty(0, np.int64), {}, [], 0)
    if slow:
        fields = _with_slow(fields, data, records, table, slow)
    fields.failures += [(i, error, message) for i, (error, message) in apart.items()]
    fields.blank += int(blank.sum())
    return fields


def _undecodable(data: bytes, records: Records, table: Table) -> list[int]:
    """Find records that are not in the encoding."""
    if data.isascii():
        return []
    try:
        data.decode(table.encoding)
    except UnicodeDecodeError:
        pass
    else:
        return []
    high = np.flatnonzero(np.frombuffer(data, np.uint8) > 127)
    at = np.unique(np.searchsorted(records.starts, high, side="right") - 1)
    found = []
    for i in at[at >= 0].tolist():
        try:
            data[records.starts[i] : records.ends[i]].decode(table.encoding)
        except UnicodeDecodeError:
            found.append(i)
    return found


def _lone_returns(data: bytes, records: Records) -> list[int]:
    """Find records with a carriage return within: Arrow takes it for a line break."""
    if data.count(b"\r") == data.count(b"\r\n"):
        return []
    raw = np.frombuffer(data, np.uint8)
    at = np.flatnonzero(raw == 13)
    following = raw[np.minimum(at + 1, len(raw) - 1)]
    found = np.searchsorted(records.starts, at[following != 10], side="right") - 1
    return [i for i in np.unique(found).tolist() if i >= 0]


def _arrow_fields(
    data: bytes, records: Records, table: Table, out: Offsets, fed: Offsets
) -> _Fields | None:
    """Read records by Arrow, but those of `out`; None if it sees other records than we do."""
    inputs = {name: f"c{i}" for i, name in reversed(list(enumerate(table.map.names)))}
    used = {name: inputs[name] for name in table.map.inputs}
    if not len(fed):
        return _Fields(fed, {name: pa.nulls(0, pa.string()) for name in used}, [], 0)
    body: Any = memoryview(data)[records.starts[0] : records.size]
    if len(out):
        keep = np.ones(len(body), np.bool_)
        for i in out.tolist():
            keep[records.starts[i] - records.starts[0] : records.ends[i] - records.starts[0]] = (
                False
            )
        body = np.frombuffer(body, np.uint8)[keep].tobytes()
    if table.encoding != "utf-8" and not data.isascii():
        body = bytes(body).decode(table.encoding).encode()
    invalid: list[tuple[int, str, str]] = []
    blank: list[int] = []

    def refuse(row: Any) -> str:
        record = int(fed[row.number - 1])
        if row.text.strip():
            message = f"{row.actual_columns} fields; the header has {row.expected_columns}"
            invalid.append((record, "BadRow", message))
        else:
            blank.append(record)
        return "skip"

    names = {n for c, n in table.map.columns.items() if EVENT_SCHEMA.field(c).type == NAME}
    wanted = list(dict.fromkeys(used.values())) or ["c0"]
    types = {used[name]: NAME if name in names else pa.string() for name in used} or {"c0": NAME}
    try:
        found = pcsv.read_csv(
            pa.BufferReader(pa.py_buffer(body)),
            read_options=pcsv.ReadOptions(
                use_threads=False,
                block_size=len(body) + 1,
                column_names=[f"c{i}" for i in range(table.width)],
            ),
            parse_options=pcsv.ParseOptions(
                delimiter=table.delimiter,
                quote_char=table.quote,
                newlines_in_values=True,
                invalid_row_handler=refuse,
            ),
            convert_options=pcsv.ConvertOptions(
                include_columns=wanted,
                column_types=types,
                strings_can_be_null=True,
                null_values=[""],
                check_utf8=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    if found.num_rows + len(invalid) + len(blank) != len(fed):
        return None
    rows = fed
    if invalid or blank:
        dead = [record for record, _, _ in invalid] + blank
        rows = np.setdiff1d(fed, np.array(dead, np.int64), assume_unique=True)
    arrays = {
        name: conform(found.column(key), found.column(key).type) for name, key in used.items()
    }
    return _Fields(rows, arrays, invalid, len(blank))


def _with_slow(
    fields: _Fields, data: bytes, records: Records, table: Table, slow: list[int]
) -> _Fields:
    """Add records read one by one."""
    places = {name: table.map.names.index(name) for name in table.map.inputs}
    rows: list[int] = []
    columns: dict[str, list[str | None]] = {name: [] for name in places}
    for i in slow:
        text = data[records.starts[i] : records.ends[i]].decode(table.encoding)
        if not text.strip():
            fields.blank += 1
            continue
        try:
            reader = csv.reader(
                io.StringIO(text, newline="\n"), delimiter=table.delimiter, quotechar=table.quote
            )
            values = next(reader)
        except csv.Error as error:
            fields.failures.append((i, "BadRow", str(error)))
            continue
        if len(values) != table.width:
            message = f"{len(values)} fields; the header has {table.width}"
            fields.failures.append((i, "BadRow", message))
            continue
        rows.append(i)
        for name, place in places.items():
            columns[name].append(values[place] or None)
    numbers = np.concatenate([fields.rows, np.array(rows, np.int64)])
    order = pa.array(np.argsort(numbers, kind="stable"))
    arrays = {}
    for name, values_ in columns.items():
        parts = [pa.array(values_, pa.string())]
        if name in fields.arrays:
            parts.insert(0, conform(fields.arrays[name], pa.string()))
        arrays[name] = pa.concat_arrays(parts).take(order)
    return _Fields(numbers[np.asarray(order)], arrays, fields.failures, fields.blank)


def _decode_records(
    data: bytes,
    records: Records,
    fields: _Fields,
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
    events, failed = _events(fields, table, count, context, fixed, None)
    attributes = table.attributes(context)
    failures = []
    for i, error, message in failed:
        payload = data[records.starts[i] : records.ends[i]]
        failures.append(
            Failure(
                payload=payload[:MAX_PAYLOAD],
                source=f"{path}:{numbers[i]}",
                error=error,
                message=message,
                attributes=attributes,
                size=len(payload),
            )
        )
    return Decoded(
        events=events,
        failures=failures,
        decoded=len(events),
        skipped=fields.blank,
        dead=len(failures),
        warnings=warnings,
    )


def _events(
    fields: _Fields,
    table: Table,
    rows: int,
    context: Context,
    fixed: Mapping[str, Any],
    payloads: pa.Array | None,
) -> tuple[pa.Table, list[tuple[int, str, str]]]:
    """Return events, and the failures of all records in order."""
    columns = {c: fields.arrays[name] for c, name in table.map.columns.items()}
    items = {item: fields.arrays[name] for item, name in table.map.items.items()}
    events, refusals = build_events(
        columns, rows, context, fixed, to_attributes(items, rows), payloads
    )
    refused = [(int(fields.rows[r.row]), r.error, r.message) for r in refusals]
    return events, sorted(fields.failures + refused)


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
    fields = _read_records(data, records, table)
    taken = [messages[i] for i in fields.rows.tolist()]
    live = [None if m.record_time is None else m.payload for m in taken]
    events, failed = _events(
        fields, table, len(taken), context, message_columns(taken), pa.array(live, pa.binary())
    )
    failures = []
    for i, error, message in failed:
        dead = messages[i]
        failure = Failure(
            payload=bodies[i][:MAX_PAYLOAD],
            source=f"{dead.source}:{dead.offset}",
            error=error,
            message=message,
            attributes={**dead.attributes, **table.attributes(context)},
            size=len(bodies[i]),
        )
        failures.append((i, failure))
    return events, failures, fields.blank
