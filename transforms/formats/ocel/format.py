"""The `ocel` format: object-centric logs of any of its notations, and messages of a small log."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from schemas.dead_letters import MAX_PAYLOAD
from schemas.events import empty_events
from transforms.formats.base import (
    Context,
    Decoded,
    Failure,
    InputFile,
    Message,
    Span,
    dead_row,
)
from transforms.formats.columns import replay_attributes
from transforms.formats.line_blocks import UNREADABLE, join_decoded, merge
from transforms.formats.ocel.database import DAMAGED, MAGIC, opened
from transforms.formats.ocel.documents import read_document
from transforms.formats.ocel.markup import MarkupReader
from transforms.formats.ocel.parts import (
    DEFAULTS,
    Census,
    InvalidOcel,
    Part,
    case_type,
    decode_part,
    missing_type,
)
from transforms.formats.xes_log import as_utf8, encoding_of, pieces
from transforms.formats.xes_rows import Unreadable

MERGE_MESSAGES = 8_192
"""Small files are joined to batches of about so many messages."""

_PIECE = 1024 * 1024
_JSON = re.compile(
    rb'\s*\{\s*"(?:ocel:(?:events|objects|global-log|global-event|global-object|version)'
    rb"|objectTypes|eventTypes)\""
)
_JSON_BEGUN = re.compile(rb'\s*\{\s*"(?:events|objects)"\s*:\s*\[\s*\{')
_XML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:(?:<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^\[>]*(?:\[.*?\]\s*)?>)\s*)*"
    rb"<(?:[\w.-]+:)?log\b[^>]*>\s*(?:<!--.*?-->\s*)*"
    rb"<(?:[\w.-]+:)?(?:object-types|event-types|objects|events)\b",
    re.DOTALL,
)
_NAMED = re.compile(r"\.(jsonocel|xmlocel)(\.|$)", re.IGNORECASE)


class OcelFormat:
    """The `ocel` format (see `transforms.formats.base.Format`)."""

    name = "ocel"
    title = "OCEL 2.0 object-centric logs (JSON, XML, SQLite), 1.0 (JSON)"
    expansion = 1.0
    python_bound = True
    origins: ClassVar[Mapping[str, str]] = {
        "event_id": "id of the event",
        "case_id": "id of each related object of --object_type",
        "event_time": "time of the event",
        "activity": "type of the event",
        "workflow_group": "type of the object",
        **{column: f"attribute {' or '.join(names)}" for column, names in DEFAULTS.items()},
    }

    def detects(self, head: bytes, name: str) -> bool:
        """Say whether it is SQLite, or begins as JSON or XML of OCEL."""
        if head.startswith(MAGIC):
            return True
        text = head.removeprefix(b"\xef\xbb\xbf")
        if _JSON.match(text) or (_JSON_BEGUN.match(text) and b'"relationships"' in text):
            return True
        if encoding_of(text) not in ("utf-8", "utf_8", "ascii"):
            try:
                text = text.decode(encoding_of(text), "ignore").lstrip("\ufeff").encode()
            except (LookupError, UnicodeError):
                return False
        if _XML.match(text):
            return True
        return bool(_NAMED.search(name)) and text.lstrip()[:1] in (b"{", b"<")

    def spans(self, file: InputFile, context: Context) -> list[Span]:
        """Return the whole file: events and objects are in different places of it."""
        return [Span()]

    def demands(self, file: InputFile, context: Context) -> str | None:
        """Say that a log has several types of objects and none is chosen, or not this one."""
        try:
            census = _census(file, context)
        except (InvalidOcel, Unreadable, *DAMAGED, *UNREADABLE):
            return None  # said when it is read
        try:
            case_type(census, context, file.path)
        except InvalidOcel as error:
            return str(error)
        wrong = missing_type(census, context, file.path)
        return None if wrong is None else f"--object_type {context.object_type!r}: {wrong}"

    def read(self, work: Sequence[tuple[InputFile, Span]], context: Context) -> Iterator[Decoded]:
        """Read logs; `position` and `source_offset` are the number of the event in its log.

        JSON and XML are read whole, and at most `max_message_bytes` of them; SQLite in parts.
        """
        return merge((d for f, _ in work for d in _read_file(f, context)), MERGE_MESSAGES)

    def decode(self, messages: Sequence[Message], context: Context) -> Decoded:
        """Decode messages of one small log each: JSON or XML of some events and their objects."""
        made = [_decode_message(message, context) for message in messages]
        return join_decoded(made) if made else Decoded(empty_events())


FORMAT = OcelFormat()


def _census(file: InputFile, context: Context) -> Census:
    with file.opener() as stream:
        head = stream.read(len(MAGIC))
    if head == MAGIC:
        with opened(file) as database:
            return database.census()
    return Census.of(_read_part(file, context)[0])


def _read_file(file: InputFile, context: Context) -> Iterator[Decoded]:
    if file.size == 0:
        yield Decoded(empty_events(), warnings=(f"{file.path} is empty",))
        return
    try:
        with file.opener() as stream:
            head = stream.read(len(MAGIC))
        if head == MAGIC:
            yield from _read_database(file, context)
            return
        part, rest = _read_part(file, context)
        yield _decode(part, Census.of(part), context, file.path)
        if rest is not None:
            yield _unread(file, len(part.events), rest.error, str(rest), context)
    except InvalidOcel as error:
        yield _unread(file, None, error.error, str(error), context)
    except Unreadable as error:
        yield _unread(file, None, error.error, error.message, context)
    except UNREADABLE as error:
        yield _unread(file, None, "TruncatedFile", f"{type(error).__name__}: {error}", context)


def _read_database(file: InputFile, context: Context) -> Iterator[Decoded]:
    events = 0
    try:
        with opened(file) as database:
            census = database.census()
            type_ = case_type(census, context, file.path)
            wrong = missing_type(census, context, file.path)
            if wrong is not None:
                yield Decoded(empty_events(), warnings=(wrong,))
            for part in database.parts(type_):
                yield decode_part(part, type_, context, file.path)
                events += len(part.events)
    except DAMAGED as error:
        yield _unread(file, events, "CorruptFile", f"cannot read on: {error}", context)


def _decode(part: Part, census: Census, context: Context, path: str) -> Decoded:
    type_ = case_type(census, context, path)
    decoded = decode_part(part, type_, context, path)
    wrong = missing_type(census, context, path)
    if wrong is None:
        return decoded
    return replace(decoded, warnings=[*decoded.warnings, wrong])


def _read_part(file: InputFile, context: Context) -> tuple[Part, InvalidOcel | None]:
    """Read a log of JSON or XML, and say why its rest could not be.

    Raises:
        InvalidOcel, Unreadable: nothing of it can be used.
    """
    limit = context.max_message_bytes
    with file.opener() as stream:
        data = bytearray()
        for piece in pieces(stream, _PIECE):
            data += piece
            if len(data) > limit:
                reason = (
                    f"a log of more than {limit:,} bytes; --max_message_bytes reads larger ones "
                    "into memory, or write it as SQLite, which is read in parts"
                )
                raise InvalidOcel(reason, "TooLarge")
    return _parse(bytes(data))


def _parse(data: bytes) -> tuple[Part, InvalidOcel | None]:
    if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
        return read_document(data), None
    reader = MarkupReader()
    try:
        reader.read(as_utf8([data]))
    except InvalidOcel as error:
        # Without all objects nobody can say which cases an event is of.
        if error.error != "InvalidXml" or not reader.whole_objects or not reader.part.events:
            raise
        return reader.part, error
    return reader.part, None


def _unread(
    file: InputFile, events: int | None, error: str, message: str, context: Context
) -> Decoded:
    """Make what cannot be read one dead message."""
    try:
        with (file.raw or file.opener)() as stream:
            head = stream.read(MAX_PAYLOAD)
    except UNREADABLE:
        head = b""
    failure = Failure(
        head,
        file.path if events is None else f"{file.path}:{events}",
        error,
        " ".join(message.split())[:2000],
        replay_attributes(FORMAT.name, context),
        max(file.size, len(head)),
    )
    return Decoded(empty_events(), [failure], dead=1)


def _decode_message(message: Message, context: Context) -> Decoded:
    """Decode a message; it is one, however many events it has."""
    limit = context.max_message_bytes
    try:
        if len(message.payload) > limit:
            reason = f"a message of {len(message.payload)} bytes; at most {limit} are read"
            raise InvalidOcel(reason, "TooLarge")
        part, rest = _parse(message.payload)
        if rest is not None:
            raise rest
        type_ = case_type(Census.of(part), context, message.place)
    except (InvalidOcel, Unreadable) as error:
        attributes = {**message.attributes, **replay_attributes(FORMAT.name, context)}
        text = error.message if isinstance(error, Unreadable) else str(error)
        return Decoded(
            empty_events(),
            [dead_row(message.payload, message.place, error.error, text, attributes)],
            dead=1,
        )
    if message.record_time is None and len(part.events) == 1:
        # A dead letter of an event, again at its place.
        return decode_part(replace(part, first=message.offset), type_, context, message.source)
    place = None
    if message.record_time is not None:
        place = {
            "record_time": message.record_time,
            "source": message.source,
            "source_offset": message.offset,
        }
    found = decode_part(part, type_, context, message.source, place)
    whole = found.decoded > 0
    dead = 0 if whole or not found.failures else 1
    return replace(
        found,
        decoded=int(whole),
        dead=dead,
        rejected=len(found.failures) - dead,
        skipped=int(not whole and not dead),
        messages=1,
        failures=[
            replace(failure, attributes={**message.attributes, **failure.attributes})
            for failure in found.failures
        ],
    )
