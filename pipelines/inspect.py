"""Looks at an input before anything is run: what its first messages are, and what becomes of them.

    python run.py inspect --input orders.jsonl --mapping orders.yaml
    python run.py inspect --input kafka://localhost:9092/orders --messages 20 --json

Nothing is consumed and nothing written: files are read, topics are read without a group's offsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError

from pipelines import brokers
from pipelines.exit_codes import ExitCode, RunError
from pipelines.origins import Origin, origins_of
from pipelines.output import one_line
from pipelines.paths import with_top_level
from pipelines.settings import Settings
from schemas.events import EVENT_SCHEMA
from transforms.decode_messages import refuse
from transforms.formats import registry
from transforms.formats.base import (
    Context,
    Decoded,
    Failure,
    Format,
    InputFile,
    Message,
    MessageBatch,
)
from transforms.formats.line_blocks import join_decoded
from transforms.formats.messages.files import has_lines
from transforms.formats.messages.form import JsonForm
from transforms.mask import Masking, mask_events, mask_failure, masking
from transforms.sources.files import Unit, open_file, read_unit
from transforms.sources.matching import match
from transforms.topics import TopicPlan, decode_topic, plan_topic

MOST_FILES = 100
"""Files that are looked into, at most: an archive may have a message in each."""

SHOWN_BYTES = 2_000
"""Bytes of a message that are shown, at most."""

WITHHELD = "withheld because of --mask"
WITHHELD_WARNINGS = f"warnings are {WITHHELD}; look without it to see them"

_LEFT_OUT = ("log", "truncated", "source", "source_offset", "record_time")


@dataclass(frozen=True)
class Seen:
    """A message, and what became of it.

    Attributes:
        place: where it is.
        payload: its first bytes; None where the format does not keep them.
        attributes: its headers.
        status: decoded, skipped, dead, or rejected where only some of its events were refused.
        events: the events found in it, without the columns that have no value.
        reasons: (class of the error, why) of each dead letter.
    """

    place: str
    payload: str | None
    attributes: dict[str, str]
    status: str
    events: list[dict[str, Any]]
    reasons: list[tuple[str, str]]


@dataclass
class Look:
    """What was seen of a topic or of a file.

    Attributes:
        name: its path or topic.
        format: that it was taken for; empty if for none.
        chosen: whether `--format` says so.
        origins: where each event column comes from.
        messages: the first ones.
        warnings: sentences.
        counts: messages by what became of them, of all that were decoded for this look.
    """

    name: str
    format: str
    chosen: bool
    origins: list[Origin] = field(default_factory=list)
    messages: list[Seen] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def look(settings: Settings, most: int) -> list[Look]:
    """Look at the input of a run.

    Args:
        settings: of the run, with its input.
        most: messages of each topic, and of all files together.

    Raises:
        RunError: there is no such input, or a broker does not answer.
    """
    hidden = masking(settings.mask, settings.items, settings.mask_key) if settings.mask else None
    if not settings.sources:
        return list(_files(settings, most, hidden))
    found: list[Look] = []
    for address in settings.sources:
        topics = brokers.topics_of(address)
        # Of more messages than are shown: columns are recognised from what a run would see.
        for topic, messages in brokers.sample(address, topics).items():
            found.append(look_at_topic(topic, messages, settings, most, hidden))
        if not topics:
            raise RunError(ExitCode.NO_INPUT, f"no topic matches {address} yet")
    return found


def look_at_topic(
    topic: str,
    messages: Sequence[Message],
    settings: Settings,
    most: int,
    hidden: Masking | None = None,
) -> Look:
    """Look at the first messages of a topic.

    Args:
        topic: its name.
        messages: its first ones, more than are shown.
        settings: of the run.
        most: how many are shown.
        hidden: what is masked.
    """
    plan, warnings = plan_topic(messages, settings.format, settings.context())
    found = Look(topic, plan.format if plan else "", settings.format != "auto")
    found.warnings = list(warnings)
    if plan is not None:
        form = registry.get(plan.format)
        payloads = [message.payload for message in messages]
        found.origins = origins_of(form, payloads, settings, settings.context())
    for message in messages[:most]:
        decoded, early = _decode(message, plan, settings)
        _count(found, decoded)
        found.messages.append(_seen(message, decoded, early, hidden))
    return found


def _decode(
    message: Message, plan: TopicPlan | None, settings: Settings
) -> tuple[Decoded, list[Failure]]:
    """Decode a message as the stream would, which looks at the format of each."""
    shares = decode_topic(batch_of([message]), plan, settings.format, settings.context())
    parts: list[Decoded] = []
    early: list[Failure] = []
    for share in shares:
        decoded = share.decoded
        if share.plan is not None:
            decoded, refused = refuse(share, settings.max_future_ms)
            early += refused
        parts.append(decoded)
    return join_decoded(parts), early


def batch_of(messages: Sequence[Message]) -> MessageBatch:
    """Return messages as a stream has them."""
    return MessageBatch(
        pa.array([m.payload for m in messages], pa.binary()),
        pa.array([m.source for m in messages], pa.string()).dictionary_encode(),
        pa.array([m.offset for m in messages], pa.int64()),
        pa.array([m.record_time for m in messages], pa.int64()),
        [m.attributes for m in messages] if any(m.attributes for m in messages) else (),
    )


def _seen(
    message: Message, decoded: Decoded, early: Sequence[Failure], hidden: Masking | None
) -> Seen:
    failures = [*decoded.failures, *early]
    status = "skipped"
    if decoded.dead:
        status = "dead"
    elif failures:
        status = "rejected" if decoded.events.num_rows else "dead"
    elif decoded.decoded:
        status = "decoded"
    return Seen(
        message.place,
        _shown(message.payload) if hidden is None else WITHHELD,
        dict(message.attributes) if hidden is None else {},
        status,
        _rows(decoded.events, hidden),
        _reasons(failures, hidden),
    )


def _files(settings: Settings, most: int, hidden: Masking | None) -> Iterator[Look]:
    """Look at files until enough messages were seen; those of one format and mapping as one."""
    try:
        files, unseen = match(with_top_level(settings.input))
    except (BeamIOError, OSError, ValueError) as error:
        raise RunError(ExitCode.NO_INPUT, f"--input can't be read: {one_line(error)}") from None
    if not files:
        text = f"no file matches --input {', '.join(map(repr, settings.input))}"
        raise RunError(ExitCode.NO_INPUT, text)
    left = most
    for number, (path, size) in enumerate(files[:MOST_FILES]):
        file, head = open_file(path, size)
        form: Format | None = None
        if settings.format != "auto":
            form = registry.get(settings.format)
        elif head:
            form = registry.detect(head, path)
        found = Look(file.path, form.name if form else "", settings.format != "auto")
        context = settings.context()
        if number == 0:
            found.warnings += unseen
        if form is not None and head:
            found.origins = origins_of(form, file, settings, context)
        _read(found, file, path, size, context, left, settings.format, hidden)
        if hidden is not None and "source" in hidden.columns:
            found.name = hidden.token(found.name.encode())
        if hidden is not None and found.warnings:
            found.warnings = [WITHHELD_WARNINGS]
        yield found
        left -= len(found.messages)
        if left <= 0:
            return


def _read(
    found: Look,
    file: InputFile,
    path: str,
    size: int,
    context: Context,
    most: int,
    format_name: str,
    hidden: Masking | None,
) -> None:
    """Read a file, as far as its first messages go."""
    name = "" if format_name == "auto" else format_name
    unit = Unit(0, ((path, size, name, 0, None),))
    messages: dict[str, Seen] = {}
    for decoded in read_unit(unit, context):
        _count(found, decoded)
        found.warnings += [w for w in decoded.warnings if w not in found.warnings]
        for item, count in decoded.unfit.items():
            found.warnings.append(f"item {item}: not of its type and left out: {count:,}")
        for seen in _of_file(decoded, file, found.format, most, hidden):
            messages.setdefault(seen.place, seen)
        if len(messages) >= most:
            break
    found.messages = list(messages.values())[:most]


def _of_file(
    decoded: Decoded, file: InputFile, format_: str, most: int, hidden: Masking | None
) -> list[Seen]:
    """Return the first messages of a batch: what its events and failures say of them."""
    events = decoded.events.slice(0, 50 * most)
    places = zip(events["source"].to_pylist(), events["source_offset"].to_pylist(), strict=True)
    rows_at: dict[tuple[str, int], list[int]] = {}
    for row, at in enumerate(places):
        rows_at.setdefault(at, []).append(row)
    wrong: dict[str, list[Failure]] = {}
    for failure in decoded.failures[: 50 * most]:
        wrong.setdefault(failure.source, []).append(failure)
    ordered: dict[str, tuple[int, int]] = {}
    for number, (source, offset) in enumerate(rows_at):
        ordered[f"{source}:{offset}"] = (offset, number)
    for number, source in enumerate(wrong):
        tail = source.rpartition(":")[2]
        ordered.setdefault(source, (int(tail) if tail.isdecimal() else -1, number))
    found = []
    lines = _in_lines(file, format_) if rows_at else False
    by_name = {f"{source}:{offset}": rows for (source, offset), rows in rows_at.items()}
    for place in sorted(ordered, key=ordered.__getitem__)[:most]:
        rows, failures = by_name.get(place, []), wrong.get(place, [])
        payload: str | None = _shown(failures[0].payload) if failures else None
        if payload is None and lines:
            payload = _line(file, ordered[place][0])
        elif payload is None and file.whole is not None and len(ordered) == 1:
            payload = _shown(file.whole)
        taken = decoded.events.take(pa.array(rows, pa.int64()))
        status = "decoded" if not failures else "rejected" if rows else "dead"
        found.append(
            Seen(
                place if hidden is None else _hidden_place(place, hidden),
                payload if hidden is None else WITHHELD,
                {},
                status,
                _rows(taken, hidden),
                _reasons(failures, hidden),
            )
        )
    return found


def _in_lines(file: InputFile, format_: str) -> bool:
    """Say whether the events of a file have the places of its lines."""
    if file.compressed or not format_:
        return False
    return format_ == "json_lines" or (
        isinstance(registry.get(format_), JsonForm) and has_lines(file)
    )


def _hidden_place(place: str, hidden: Masking) -> str:
    return mask_failure(Failure(b"", place, "", ""), hidden).source


def _line(file: InputFile, offset: int) -> str | None:
    """Return the line that begins at a place of a file."""
    with file.opener() as stream:
        stream.seek(offset)
        return _shown(stream.readline(SHOWN_BYTES + 1).rstrip(b"\r\n"))


def _count(found: Look, decoded: Decoded) -> None:
    for name in ("decoded", "skipped", "dead", "rejected"):
        found.counts[name] = found.counts.get(name, 0) + getattr(decoded, name)


def _rows(events: pa.Table, hidden: Masking | None) -> list[dict[str, Any]]:
    if hidden is not None and events.num_rows:
        events = mask_events(events, hidden)
    names = [name for name in EVENT_SCHEMA.names if name not in _LEFT_OUT]
    rows = []
    for row in events.select(names).to_pylist():
        row["attributes"] = dict(row["attributes"] or ())
        rows.append({name: value for name, value in row.items() if value not in (None, {})})
    return rows


def _reasons(failures: Sequence[Failure], hidden: Masking | None) -> list[tuple[str, str]]:
    if hidden is not None:
        failures = [mask_failure(each, hidden) for each in failures]
    return [(each.error, each.message) for each in failures]


def _shown(payload: bytes) -> str:
    """Return the beginning of a message: text, or the hexadecimal digits of what is none."""
    head = payload[:SHOWN_BYTES]
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        # A character that the cut went through is not the message's fault.
        if error.start < len(head) - 3 or len(payload) <= SHOWN_BYTES:
            return "0x" + head[:64].hex() + ("..." if len(payload) > 64 else "")
        text = head[: error.start].decode()
    if any(ord(c) < 32 and c not in "\t\r\n" for c in text):
        return "0x" + head[:64].hex() + ("..." if len(payload) > 64 else "")
    return text + ("..." if len(payload) > SHOWN_BYTES else "")


def as_json(found: Sequence[Look]) -> bytes:
    """Return what was seen as JSON: an object with `inputs`, one each."""
    inputs = [
        {
            "input": each.name,
            "format": each.format or None,
            "detected": not each.chosen,
            "mapping": [
                {"column": o.column, "from": o.source or None, "how": o.how} for o in each.origins
            ],
            "messages": [
                {
                    "place": m.place,
                    "payload": m.payload,
                    "attributes": m.attributes,
                    "status": m.status,
                    "events": m.events,
                    "dead_letters": [{"error": e, "message": t} for e, t in m.reasons],
                }
                for m in each.messages
            ],
            "counts": each.counts,
            "warnings": each.warnings,
        }
        for each in found
    ]
    option = orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z
    return orjson.dumps({"inputs": inputs}, option=option)
