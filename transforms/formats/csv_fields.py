"""The fields of CSV records as Arrow columns.

Owns the header (delimiter, names) and the reading of fields: by Arrow, many records at once;
what Arrow would misread is read one by one. `csv_records` has cut the bytes into records.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv

from schemas.events import EVENT_SCHEMA, NAME
from transforms.arrays import conform
from transforms.formats.base import Context
from transforms.formats.columns import ColumnMap, map_columns, replay_attributes
from transforms.formats.csv_records import Records
from transforms.formats.line_blocks import Offsets

DELIMITERS = (",", ";", "\t", "|")
"""Separators that are recognised."""


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
        attributes = replay_attributes("csv", context)
        attributes |= {"header": self.header, "delimiter": self.delimiter}
        if self.quote != '"':
            attributes["quote"] = self.quote
        return attributes


@dataclass
class Fields:
    """Fields read of some records: `rows` numbers the records that gave a row."""

    rows: Offsets
    arrays: dict[str, pa.Array]
    failures: list[tuple[int, str, str]]
    blank: int


def sniff_delimiter(header: str) -> str:
    """Return the separator that splits the header into most fields; the comma in doubt."""
    return max(DELIMITERS, key=lambda delimiter: len(split_fields(header, delimiter, '"')))


def read_header(
    header: str, sample: Sequence[str], delimiter: str, quote: str, context: Context
) -> Table:
    """See from a header, and some records, which fields feed events."""
    names = [name.strip() for name in split_fields(header, delimiter, quote)]
    rows = [
        fields
        for text in sample
        if len(fields := split_fields(text, delimiter, quote)) == len(names)
    ]
    values = {name: [row[i] for row in rows] for i, name in reversed(list(enumerate(names)))}
    return Table(
        header=header,
        delimiter=delimiter,
        quote=quote,
        encoding=encoding_of(context.encoding),
        width=len(names),
        map=map_columns(names, context, values),
    )


def split_fields(text: str, delimiter: str, quote: str) -> list[str]:
    """Return the fields of one record."""
    try:
        return next(csv.reader([text], delimiter=delimiter, quotechar=quote), [])
    except csv.Error:
        return text.split(delimiter)


def can_separate(delimiter: str, quote: str) -> bool:
    """Say whether two texts can be a delimiter and a quote: they may be a broker's headers."""
    single = all(len(text) == 1 and text not in "\r\n\0" for text in (delimiter, quote))
    return single and delimiter != quote


@lru_cache(maxsize=16)
def encoding_of(name: str) -> str:
    """Return the encoding that blocks are read in: single-byte, or UTF-8 for all others."""
    name = codecs.lookup(name).name
    if name in ("ascii", "utf-8-sig"):
        return "utf-8"
    single = len(bytes(range(256)).decode(name, errors="replace")) == 256
    return name if single else "utf-8"


def read_fields(data: bytes, records: Records, table: Table, max_bytes: int) -> Fields:
    """Read the fields that are used; each record gives a row, is blank, or fails.

    Args:
        data: the records' bytes.
        records: their bounds.
        table: the header, and which fields are used.
        max_bytes: a longer record fails.
    """
    starts, ends = records.starts, records.ends
    blank = starts == ends
    apart = {i: ("BadRow", "a quote that does not close") for i in records.bad}
    apart |= {
        i: ("InvalidEncoding", f"not {table.encoding}") for i in _undecodable(data, records, table)
    }
    for i in np.flatnonzero(ends - starts > max_bytes).tolist():
        size = int(ends[i] - starts[i])
        message = f"a record of {size} bytes; at most {max_bytes} are read (--max_message_bytes)"
        apart[i] = ("TooLarge", message)
    slow = [i for i in _lone_returns(data, records) if i not in apart]
    out = np.array(sorted([*apart, *slow]), np.int64)
    fed_mask = ~blank
    fed_mask[out] = False
    fed = np.flatnonzero(fed_mask)
    fields = _arrow_fields(data, records, table, out, fed)
    if fields is None:
        slow = sorted([*slow, *fed.tolist()])
        fields = Fields(np.empty(0, np.int64), {}, [], 0)
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
    if b"\r" not in data:
        return []
    raw = np.frombuffer(data, np.uint8)
    at = np.flatnonzero(raw == 13)
    following = raw[np.minimum(at + 1, len(raw) - 1)]
    found = np.searchsorted(records.starts, at[following != 10], side="right") - 1
    return [i for i in np.unique(found).tolist() if i >= 0]


def _arrow_fields(
    data: bytes, records: Records, table: Table, out: Offsets, fed: Offsets
) -> Fields | None:
    """Read records by Arrow, but those of `out`; None if it sees other records than we do."""
    inputs = {name: f"c{i}" for i, name in reversed(list(enumerate(table.map.names)))}
    used = {name: inputs[name] for name in table.map.inputs}
    if not len(fed):
        return Fields(fed, {name: pa.nulls(0, pa.string()) for name in used}, [], 0)
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
    return Fields(rows, arrays, invalid, len(blank))


def _with_slow(
    fields: Fields, data: bytes, records: Records, table: Table, slow: list[int]
) -> Fields:
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
    return Fields(numbers[np.asarray(order)], arrays, fields.failures, fields.blank)
