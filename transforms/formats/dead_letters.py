"""The dead-letter table as input: each payload is decoded again, by the format that it came in.

Reads what our sinks write (Parquet; JSON Lines and CSV with the payload in base64). What fails
again leaves with its original source and attributes, so that it can be replayed once more.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import itertools
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.dead_letters import MAX_PAYLOAD
from schemas.events import TIME, empty_events
from transforms.formats import registry
from transforms.formats.base import (
    BATCH_BYTES,
    Context,
    Decoded,
    Failure,
    Format,
    InputFile,
    Message,
    Span,
)
from transforms.formats.columns import REPLAYED, replay_context
from transforms.formats.heads import Heads, Mask
from transforms.formats.imixs import LOG
from transforms.formats.line_blocks import UNREADABLE, Rest, join_decoded, line_bounds, read_blocks
from transforms.formats.times import parse_times

_COLUMNS = ("payload", "payload_size", "attributes", "source", "time")
_REASON = ("error", "message")
_OWN = (b"row_id", b"payload_size", b"attributes", b"step")
_BEGINNING = re.compile(rb'\s*(?:$|\{\s*(?:$|"row_id"))')
_LETTERS = 4_096
_LOG_FORMATS = ("imixs_xml", "imixs_json")
_FIELD_BYTES = 2**31 - 1
_FIELD_LIMIT = threading.Lock()


@dataclass(frozen=True)
class _Letter:
    """One row of the table: its `reason` there, and `problem` if it cannot be replayed."""

    payload: bytes
    size: int
    attributes: Mapping[str, str]
    source: str
    time: int | None = None
    problem: tuple[str, str] | None = field(default=None)
    reason: tuple[str, str] | None = None


class DeadLetters:
    """The `dead_letters` format (see `transforms.formats.base.Format`)."""

    name = "dead_letters"
    title = "our own dead letters, to replay them"
    expansion = 1.0
    python_bound = True

    def detects(self, head: bytes, name: str) -> bool:
        """Say whether the file has our columns; Parquet, whose columns are at the end, by path."""
        if head.startswith(b"PAR1"):
            own = re.search(r"(^|[/\\])dead_letters[/\\][^/\\]*$", name) is not None
            return own or all(word in head for word in _OWN)
        line = head.split(b"\n", 1)[0]
        return b"payload" in line and all(word in line for word in _OWN)

    def claims(self, heads: Heads) -> Mask:
        """Say which messages are dead letters as JSON (see `Claiming`)."""
        mine = heads.beginning_as(_BEGINNING) & heads.left
        for row in np.flatnonzero(mine).tolist():
            mine[row] = self.detects(heads.text(row), "")
        return mine

    def spans(self, file: InputFile, context: Context) -> list[Span]:
        """Return the whole file."""
        return [Span()]

    def read(self, work: Sequence[tuple[InputFile, Span]], context: Context) -> Iterator[Decoded]:
        """Replay files; `source` and `position` are those of the original message."""
        for file, _ in work:
            empty = True
            for letters in _read_file(file, context):
                empty = False
                yield _replay(letters, context)
            if empty:
                yield Decoded(empty_events(), warnings=(f"{file.path} is empty",))

    def decode(self, messages: Sequence[Message], context: Context) -> Decoded:
        """Replay messages that are dead letters as JSON."""
        letters = [_from_json(message.payload, message.place) for message in messages]
        return _replay(letters, context)

    def original(self, message: Message, context: Context) -> Message:
        """Return the message that a dead letter, as JSON, holds."""
        letter = _from_json(message.payload, message.place)
        return Message(letter.payload, *_origin(letter.source), letter.attributes, letter.time)


FORMAT = DeadLetters()


def _replay(letters: Sequence[_Letter], context: Context) -> Decoded:
    """Decode payloads, those of one format and mapping at once."""
    failures: list[Failure] = []
    groups: dict[tuple[str, ...], list[Message]] = {}
    origins: dict[str, _Letter] = {}
    formats: dict[str, Format] = {}
    for letter in letters:
        format_ = None if letter.problem else _format_of(letter)
        problem = letter.problem
        if problem is None and _is_line(letter):
            problem = letter.reason
        if problem is None and letter.size > len(letter.payload):
            problem = (
                "TruncatedPayload",
                f"only {len(letter.payload)} of {letter.size} bytes were kept; "
                f"read {letter.source} itself again",
            )
        if problem is None and format_ is None:
            problem = ("UnknownFormat", "the payload is of no known format")
        if problem is not None or format_ is None:
            error, message = problem or ("UnknownFormat", "")
            failures.append(_failure(letter, error, message))
            continue
        formats[format_.name] = format_
        source, offset = _origin(letter.source)
        settings = [letter.attributes.get(name, "") for name in ("columns", "mapping", *REPLAYED)]
        # Of a broker's messages columns that were not fixed are those of each message.
        settings.append("own names" if letter.time is not None else "")
        attributes = letter.attributes
        if context.delimiter and "delimiter" in attributes:
            attributes = {**attributes, "delimiter": context.delimiter}
        again = Message(letter.payload, source, offset, attributes, letter.time)
        origins[again.place] = letter
        groups.setdefault((format_.name, *settings), []).append(again)
    parts = [Decoded(empty_events(), failures, dead=len(failures))]
    for (name, *settings), messages in groups.items():
        own = replay_context(messages[0].attributes, context)
        own = replace(own, own_names=bool(settings[-1]))
        part = formats[name].decode(messages, own)
        restored = [_restored(failure, origins.get(failure.source)) for failure in part.failures]
        parts.append(replace(part, failures=restored))
    return join_decoded(parts)


def _restored(failure: Failure, letter: _Letter | None) -> Failure:
    """Let what fails again be where, and of when, it was before."""
    if letter is None:
        return failure
    return replace(failure, source=letter.source, time=letter.time)


def _failure(letter: _Letter, error: str, message: str) -> Failure:
    return Failure(
        payload=letter.payload[:MAX_PAYLOAD],
        source=letter.source,
        error=error,
        message=message,
        attributes=letter.attributes,
        size=letter.size,
        time=letter.time,
    )


def _is_line(letter: _Letter) -> bool:
    """Say whether it is a line of a log: no message, and nothing without its document."""
    attributes = letter.attributes
    return attributes.get("part") in LOG and attributes.get("format") in _LOG_FORMATS


def _format_of(letter: _Letter) -> Format | None:
    name = letter.attributes.get("format")
    if name is not None:
        try:
            return registry.get(name)
        except registry.UnknownFormat:
            pass
    return registry.detect(letter.payload[: registry.HEAD_BYTES], "")


def _origin(source: str) -> tuple[str, int]:
    """Split `path:offset` or `topic/partition/offset`; -1 where there is no offset."""
    found = re.fullmatch(r"(.*)[:/](\d{1,18})", source, re.DOTALL)
    return (found[1], int(found[2])) if found else (source, -1)


def _read_file(file: InputFile, context: Context) -> Iterator[list[_Letter]]:
    with file.opener() as stream:
        head = stream.read(4)
    if head == b"PAR1":
        yield from _read_parquet(file)
    elif head.lstrip()[:1] == b"{":
        yield from _read_json_lines(file, context)
    elif head:
        yield from _read_csv(file)


def _read_parquet(file: InputFile) -> Iterator[list[_Letter]]:
    try:
        with file.opener() as stream:
            whole = pa.BufferReader(stream.read()) if file.compressed else stream
            with pq.ParquetFile(whole) as source:
                missing = [c for c in _COLUMNS if c not in source.schema_arrow.names]
                if missing:
                    reason = f"no column {', '.join(missing)}: not a dead-letter table"
                    yield [_broken(b"", file.path, reason)]
                    return
                row = 0
                used = [c for c in source.schema_arrow.names if c in (*_COLUMNS, *_REASON)]
                for batch in source.iter_batches(_LETTERS, columns=used):
                    yield _from_batch(batch, file.path, row)
                    row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        yield [_broken(b"", file.path, str(error))]


def _from_batch(batch: pa.RecordBatch, path: str, first: int) -> list[_Letter]:
    times = parse_times(batch.column("time")).cast(pa.int64()).to_pylist()
    letters = []
    used = [name for name in batch.schema.names if name != "time"]
    for row, values in enumerate(batch.select(used).to_pylist()):
        payload = values["payload"] or b""
        letters.append(
            _Letter(
                payload=payload,
                size=values["payload_size"] or len(payload),
                attributes=_attributes(values["attributes"]),
                source=values["source"] or f"{path}:{first + row}",
                time=times[row],
                reason=_reason(values),
            )
        )
    return letters


def _read_json_lines(file: InputFile, context: Context) -> Iterator[list[_Letter]]:
    with file.opener() as stream:
        for block in read_blocks(stream, BATCH_BYTES, context.max_message_bytes):
            if isinstance(block, Rest):
                letter = _broken(block.head, f"{file.path}:{block.offset}", block.message)
                yield [replace(letter, size=block.size, problem=(block.error, block.message))]
                continue
            starts, ends = line_bounds(block.data)
            letters = [
                _from_json(block.data[start:end], f"{file.path}:{block.offset + start}")
                for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
                if end > start
            ]
            for first in range(0, len(letters), _LETTERS):
                yield letters[first : first + _LETTERS]


def _from_json(line: bytes, source: str) -> _Letter:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _broken(line, source, str(error))
    if not isinstance(row, dict):
        return _broken(line, source, "not an object")
    return _from_text(row, line, source)


def _read_csv(file: InputFile) -> Iterator[list[_Letter]]:
    with file.opener() as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline="")
        numbers = itertools.count()
        names: list[str] | None = None
        records = csv.reader(text)
        while True:
            letters: list[_Letter] = []
            ended = False
            # The limit is the interpreter's: none but one reader changes it at a time.
            with _FIELD_LIMIT:
                limit = csv.field_size_limit(_FIELD_BYTES)
                try:
                    if names is None:
                        names = next(records, [])
                    while len(letters) < _LETTERS and not ended:
                        ended = not _read_record(records, names, file.path, numbers, letters)
                finally:
                    csv.field_size_limit(limit)
            if letters:
                yield letters
            if ended:
                return


def _read_record(
    records: Iterator[list[str]],
    names: Sequence[str],
    path: str,
    numbers: Iterator[int],
    letters: list[_Letter],
) -> bool:
    """Add the letter of the next record; False at the end."""
    try:
        values = next(records, None)
        if not values:  # a blank line has no fields
            return values is not None
        source = f"{path}:{next(numbers)}"
        row = dict(zip(names, values, strict=False))
        if len(values) == len(names):
            letters.append(_from_text(row, orjson.dumps(row), source))
        else:
            reason = f"{len(values)} fields; the header has {len(names)}"
            letters.append(_broken(orjson.dumps(row), source, reason))
    except csv.Error as error:  # the record; the next one is read
        letters.append(_broken(b"", f"{path}:{next(numbers)}", str(error)))
    except UNREADABLE as error:
        letters.append(_broken(b"", f"{path}:{next(numbers)}", str(error)))
        return False
    return True


def _from_text(row: Mapping[Any, Any], line: bytes, source: str) -> _Letter:
    """Read a row of text fields."""
    try:
        payload = base64.b64decode(row.get("payload") or "", validate=True)
        attributes = row.get("attributes") or {}
        if isinstance(attributes, str):
            attributes = orjson.loads(attributes)
        size = int(row.get("payload_size") or len(payload))
        pairs = _attributes(attributes)
        time = parse_times(pa.array([row.get("time") or None], pa.string())).cast(TIME)
    except (binascii.Error, KeyError, OverflowError, TypeError, ValueError) as error:
        return _broken(line, source, str(error))
    if "payload" not in row:
        return _broken(line, source, "no payload: not a dead letter")
    if not isinstance(row.get("source") or "", str) or not 0 <= size < 2**63:
        return _broken(line, source, "source or payload_size is not that of a dead letter")
    return _Letter(
        payload=payload,
        size=size,
        attributes=pairs,
        source=row.get("source") or source,
        time=time.cast(pa.int64())[0].as_py(),
        reason=_reason(row),
    )


def _reason(row: Mapping[Any, Any]) -> tuple[str, str]:
    return str(row.get("error") or "BadEventLogLine"), str(row.get("message") or "")


def _attributes(value: Any) -> dict[str, str]:
    """Read a map: an object, or pairs, or a list of {key, value}."""
    if isinstance(value, Mapping):
        return {str(k): str(v) for k, v in value.items()}
    pairs = ((v["key"], v["value"]) if isinstance(v, Mapping) else v for v in value or ())
    return {str(k): str(v) for k, v in pairs}


def _broken(line: bytes, source: str, reason: str) -> _Letter:
    """Return a row that is no dead letter itself."""
    attributes = {"format": FORMAT.name}
    message = " ".join(reason.split())[:500]
    return _Letter(line, len(line), attributes, source, problem=("InvalidDeadLetter", message))
