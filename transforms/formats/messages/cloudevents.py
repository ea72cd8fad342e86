"""CloudEvents 1.0 (and 0.3): structured and binary mode, single and in batches.

An event's `data` goes through the ordinary recognition of columns and `--columns`, whose paths
begin in it; `ce:NAME` is an attribute of the envelope, `ce:a+b` two of them. Where the mapping
does not say otherwise the event's id is `ce:id`, its time `ce:time`, its case, unless the data
names one, `ce:source+subject`, and its activity, unless the data names one, `ce:type`. Data of
another of our formats (Kogito, Imixs) is decoded by that one. Definitions: the CloudEvents
specification, its JSON event format, its binding for Kafka (`ce_*` headers), and that for HTTP
(`ce-*`), which Pub/Sub attributes follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
import orjson
import pyarrow as pa

from transforms.formats.base import Context, Decoded, Message, Tracing
from transforms.formats.columns import replay_attributes
from transforms.formats.heads import Heads, Mask
from transforms.formats.json_names import read_by_names
from transforms.formats.line_blocks import Offsets
from transforms.formats.messages import kogito
from transforms.formats.messages.ce_columns import Envelopes, EventPlan, plan_events
from transforms.formats.messages.ce_content import content_of
from transforms.formats.messages.ce_modes import (
    CONTENT_TYPE,
    Mode,
    attributes_of,
    header_columns,
    is_json,
    mode_of,
    structured,
)
from transforms.formats.messages.delegate import DOCUMENTS, decode_as
from transforms.formats.messages.files import first_object
from transforms.formats.messages.form import JsonForm
from transforms.formats.messages.texts import (
    Part,
    Refused,
    Texts,
    dead_part,
    moved,
    part_of,
    put_together,
    unread_part,
)

_IMIXS = b'"item"'


class CloudEvents(JsonForm):
    """The `cloudevents` format (see `transforms.formats.base.Format`)."""

    name = "cloudevents"
    title = "CloudEvents 1.0: structured, binary, batches"
    expansion = 1.0
    python_bound = False
    opening = r'^\{"specversion":'
    origins: ClassVar[Mapping[str, str]] = {
        "event_id": "ce:id",
        "case_id": "a common name in the data, else ce:source+subject",
        "event_time": "ce:time, else a time of the data",
        "activity": "a common name in the data, else ce:type",
    }

    def detects(self, head: bytes, name: str) -> bool:
        """Say whether the first object is an event in its envelope."""
        found = first_object(head)
        return found is not None and "specversion" in found

    def claims(self, heads: Heads) -> Mask:
        """Say which messages are events, by their `specversion`; by headers is said before."""
        mine = heads.having(b'"specversion"')
        if heads.lists.any() and heads.holds(b'"specversion"'):
            for row in np.flatnonzero(heads.lists & ~mine).tolist():
                mine[row] = self.detects(heads.beginning(row, 1 << 16), "")
        return mine

    def decode_texts(self, texts: Texts, context: Context) -> Decoded:
        """Make events of texts."""
        return decode_texts(texts, context)

    def original(self, message: Message, context: Context) -> Message:
        """Return a message as a dead letter holds it: an Imixs document without its files."""
        attributes = {**message.attributes, **replay_attributes(self.name, context)}
        if b"$file" not in message.payload:
            return replace(message, attributes=attributes)
        try:
            binary = mode_of(message.attributes) == Mode.BINARY
            content = content_of(structured(message) if binary else message.payload)
        except (Refused, orjson.JSONDecodeError):
            return replace(message, payload=b"", attributes=attributes)
        form = content.document()
        if isinstance(form, Tracing) and content.data is not None:
            return form.original(replace(message, payload=content.data), context)
        return replace(message, attributes=attributes)


FORMAT = CloudEvents()


def decode_texts(texts: Texts, context: Context) -> Decoded:
    """Make events of messages in any mode, or of lines of a file in structured mode."""
    headers = texts.headers
    if not headers:
        return put_together(_structured(texts, texts, context), len(texts))
    modes = np.array([mode_of(each) for each in headers], np.int64)
    parts: list[Part] = []
    for mode in Mode:
        rows = np.flatnonzero(modes == mode)
        if len(rows):
            some = texts.select(rows)
            if mode == Mode.BINARY:
                found = _binary(some, context)
            elif mode == Mode.OTHER:
                found = [_other(some, context)]
            else:
                found = _structured(some, some, context)
            parts += [moved(part, rows) for part in found]
    return put_together(parts, len(texts))


def _other(texts: Texts, context: Context) -> Part:
    """Refuse events in a format that is not JSON."""
    attributes = replay_attributes(FORMAT.name, context)
    dead = []
    for row, headers in enumerate(texts.headers):
        media = attributes_of(headers).get(CONTENT_TYPE)
        reason = f"content-type is {media!r}: CloudEvents are read as JSON"
        dead.append((row, texts.failure(row, "UnsupportedEventFormat", reason, attributes)))
    return dead_part(dead)


def _structured(texts: Texts, read: Texts, context: Context, again: bool = False) -> list[Part]:
    """Make events of JSON objects that hold envelope and data.

    Args:
        texts: the messages: their places, and what dead letters hold.
        read: what is read in their stead, one for one.
        context: settings.
        again: data that was encoded has been put in.
    """
    attributes = replay_attributes(FORMAT.name, context)
    plan, found = read_by_names(
        read.lines,
        lambda names: plan_events(names, context, ("data",)),
        lambda p, layouts: read.read({**p.envelope, **p.data.paths}, p.times, context, layouts),
    )
    lines = found.lines
    envelopes = Envelopes.of_fields(found.arrays, len(lines))
    problems = envelopes.problems()
    settled = np.zeros(len(lines), np.bool_)
    settled[list(problems)] = True
    dead = [
        (int(lines[i]), texts.failure(int(lines[i]), *why, attributes))
        for i, why in problems.items()
    ]
    parts = [unread_part(texts, found, attributes), dead_part(dead)]
    of_kogito = envelopes.types(kogito.is_type) & ~settled
    if of_kogito.any():
        rows = lines[of_kogito].tolist()
        payloads = [read.text(row) for row in rows]
        parts.append(decode_as(kogito.FORMAT, texts, rows, payloads, context, whole=True))
        settled |= of_kogito
    if not again:
        special = envelopes.encoded() | _documents(read, lines)
        some = lines[special & ~settled]
        if len(some):
            more, done = _contents(texts, read, some, context)
            parts += more
            settled |= np.isin(lines, done)
    parts.append(_events(texts, lines, ~settled, plan, envelopes, found.arrays, context))
    return parts


def _documents(texts: Texts, lines: Offsets) -> Mask:
    """Say whose data may be an Imixs document in JSON."""
    if _IMIXS not in texts.data:
        return np.zeros(len(lines), np.bool_)
    return np.array([_IMIXS in texts.text(row) for row in lines.tolist()], np.bool_)


def _contents(
    texts: Texts, read: Texts, rows: Offsets, context: Context
) -> tuple[list[Part], Offsets]:
    """Make events of those whose data is encoded, or a document.

    Returns:
        What became of them, and which they are. Of the others only the envelope counts: nobody can
        look into their data.
    """
    attributes = replay_attributes(FORMAT.name, context)
    dead = []
    groups: dict[str, tuple[list[int], list[bytes]]] = {}
    for row in rows.tolist():
        try:
            content = content_of(read.text(row))
            form = content.document()
            payload = content.as_json() if form is None else content.data
        except Refused as problem:
            dead.append((row, texts.failure(row, problem.error, str(problem), attributes)))
            continue
        if payload is not None:
            group = groups.setdefault("" if form is None else form.name, ([], []))
            group[0].append(row)
            group[1].append(payload)
    parts = [dead_part(dead)]
    for name, (members, payloads) in groups.items():
        if name:
            parts.append(decode_as(DOCUMENTS[name], texts, members, payloads, context))
        else:
            chosen = np.array(members, np.int64)
            some = texts.select(chosen)
            parts += [
                moved(part, chosen)
                for part in _structured(some, some.instead(payloads), context, again=True)
            ]
    done = [row for row, _ in dead] + [row for rows_, _ in groups.values() for row in rows_]
    return parts, np.array(done, np.int64)


def _binary(texts: Texts, context: Context) -> list[Part]:
    """Make events of messages whose attributes are in their headers."""
    attributes = replay_attributes(FORMAT.name, context)
    plan = plan_events((), context, ())
    names = [name.lower() for name in plan.names]
    envelopes = Envelopes(header_columns(texts.headers, names), len(texts))
    media = envelopes.values(CONTENT_TYPE).to_pylist()
    plain = np.array([is_json(each) for each in media], np.bool_)
    plain &= texts.starting(b"{") & ~_documents(texts, np.arange(len(texts)))
    plain &= ~envelopes.types(kogito.is_type)
    parts = _rewritten(texts, np.flatnonzero(~plain), context)
    rows = np.flatnonzero(plain)
    some = texts.select(rows)
    plan, found = read_by_names(
        some.lines,
        lambda names: plan_events(names, context, ()),
        lambda p, layouts: some.read(p.data.paths, p.times, context, layouts),
    )
    parts.append(moved(unread_part(some, found, attributes), rows))
    read = envelopes.take(rows[found.lines])
    problems = read.problems()
    good = np.ones(len(found.lines), np.bool_)
    good[list(problems)] = False
    dead = [
        (int(found.lines[i]), some.failure(int(found.lines[i]), *why, attributes))
        for i, why in problems.items()
    ]
    parts.append(moved(dead_part(dead), rows))
    part = _events(some, found.lines, good, plan, read, found.arrays, context)
    return [*parts, moved(part, rows)]


def _rewritten(texts: Texts, rows: Offsets, context: Context) -> list[Part]:
    """Make events of messages in binary mode by writing them in structured mode."""
    attributes = replay_attributes(FORMAT.name, context)
    dead, kept, payloads = [], [], []
    for row in rows.tolist():
        message = texts.message(row)
        size, limit = len(message.payload), context.max_message_bytes
        try:
            if size > limit:
                reason = f"a message of {size} bytes; at most {limit} are read"
                dead.append((row, texts.failure(row, "TooLarge", reason, attributes)))
                continue
            payloads.append(structured(message))
            kept.append(row)
        except orjson.JSONDecodeError as error:
            dead.append((row, texts.failure(row, "InvalidJson", str(error), attributes)))
    parts = [dead_part(dead)]
    if kept:
        chosen = np.array(kept, np.int64)
        some = texts.select(chosen)
        found = _structured(some, some.instead(payloads), context)
        parts += [moved(part, chosen) for part in found]
    return parts


def _events(
    texts: Texts,
    lines: Offsets,
    good: Mask,
    plan: EventPlan,
    envelopes: Envelopes,
    arrays: Mapping[str, pa.Array],
    context: Context,
) -> Part:
    """Make events of what was read of some texts."""
    columns = plan.columns(envelopes, arrays, len(lines))
    items = plan.items(envelopes, arrays, len(lines))
    skipped = good & plan.skipped(envelopes, arrays, len(lines))
    attributes = replay_attributes(FORMAT.name, context)
    unread = {
        int(lines[row]): reason
        for row, reason in plan.times_of(envelopes, columns, len(lines)).items()
        if good[row] and not skipped[row]
    }
    dead = [
        (row, texts.failure(row, "BadTime", reason, attributes)) for row, reason in unread.items()
    ]
    good = good & ~skipped & ~np.isin(lines, list(unread))
    if not good.all():
        taken = pa.array(np.flatnonzero(good))
        columns = {name: array.take(taken) for name, array in columns.items()}
        items = {name: array.take(taken) for name, array in items.items()}
        lines = lines[good]
    part = part_of(texts, lines, columns, items, context, attributes)
    return replace(part, dead=[*dead, *part.dead], skipped=part.skipped + int(skipped.sum()))
