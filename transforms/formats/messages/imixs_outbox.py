"""Records of the EventLog of Imixs-Workflow, its outbox: `id`, `ref`, `created`, `topic`, `data`.

The engine writes a record in the transaction that it is about, so unlike the messages of its
Kafka adapter they tell of committed changes only. Where `data` is a document (a map of items, as
the engine keeps it; XML or JSON as text), its transitions count, as of any Imixs document. A
record without one is one event: case `ref` (of a snapshot its origin), activity `topic`. See
`org.imixs.workflow.engine.jpa.EventLog`; lines of `$eventlog` are another thing (`eventlog`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa

from transforms.formats import imixs_json, imixs_xml
from transforms.formats.base import Context, Decoded, Message
from transforms.formats.columns import replay_attributes
from transforms.formats.heads import Heads, Mask
from transforms.formats.imixs import LOG, TASK, UNIQUE_ID
from transforms.formats.json_strict import InvalidJsonError, parse_json
from transforms.formats.messages.delegate import DOCUMENTS, decode_as
from transforms.formats.messages.files import first_object
from transforms.formats.messages.form import JsonForm
from transforms.formats.messages.texts import (
    Part,
    Refused,
    Texts,
    dead_part,
    part_of,
    put_together,
)

REQUIRED = frozenset({"id", "ref", "created", "topic"})
_MEMBERS = REQUIRED | {"data", "version", "timeout"}
_SNAPSHOT = re.compile(r"-\d{13}$")


class ImixsOutbox(JsonForm):
    """The `imixs_outbox` format (see `transforms.formats.base.Format`)."""

    name = "imixs_outbox"
    title = "EventLog records of Imixs-Workflow (its outbox)"
    expansion = 1.0
    python_bound = True
    fixed = True
    origins: ClassVar[Mapping[str, str]] = {
        "event_id": "id; of a document in data as of any",
        "case_id": "ref, of a snapshot its origin",
        "event_time": "created",
        "activity": "topic",
    }

    def detects(self, head: bytes, name: str) -> bool:
        """Say whether the first object has the members of a record, and no others."""
        found = first_object(head)
        return found is not None and found.keys() >= REQUIRED and found.keys() <= _MEMBERS

    def claims(self, heads: Heads) -> Mask:
        """Say which messages are records (see `Claiming`)."""
        mine = heads.having(b'"created"')
        if mine.any():
            mine = mine & heads.having(b'"topic"') & heads.having(b'"ref"')
            for row in np.flatnonzero(mine).tolist():
                mine[row] = self.detects(heads.text(row), "")
        return mine

    def decode_texts(self, texts: Texts, context: Context) -> Decoded:
        """Make events of texts."""
        return _decode(texts, context)

    def original(self, message: Message, context: Context) -> Message:
        """Return a message as a dead letter holds it: a document without its files."""
        attributes = {**message.attributes, **replay_attributes(self.name, _own(context))}
        if b"$file" in message.payload:
            try:
                form, document = _document(_record(message.payload))
            except Refused:
                return replace(message, payload=b"", attributes=attributes)
            if form:
                inner = replace(message, payload=document)
                return _without_files(form, inner, context)
        return replace(message, attributes=attributes)


FORMAT = ImixsOutbox()


def _own(context: Context) -> Context:
    """Return the settings that count: the fields have their names."""
    return replace(context, columns={}, time_format=None, encoding="utf-8")


def _without_files(form: str, inner: Message, context: Context) -> Message:
    if form == imixs_xml.FORMAT.name:
        return imixs_xml.FORMAT.original(inner, context)
    return imixs_json.FORMAT.original(inner, context)


def _decode(texts: Texts, context: Context) -> Decoded:
    context = _own(context)
    attributes = replay_attributes(FORMAT.name, context)
    dead = []
    skipped = 0
    plain: list[int] = []
    records: list[dict[str, Any]] = []
    documents: dict[str, tuple[list[int], list[bytes]]] = {}
    for row in range(len(texts)):
        text = texts.text(row)
        if not text.strip():
            skipped += 1
            continue
        try:
            if len(text) > context.max_message_bytes:
                error = "TooLarge"
                limit = context.max_message_bytes
                raise Refused(error, f"a record of {len(text)} bytes; at most {limit} are read")
            record = _record(text)
            form, document = _document(record)
        except Refused as problem:
            # Of a document that cannot be reached, file contents cannot be left out.
            failure = texts.failure(row, problem.error, str(problem), attributes)
            kept = replace(failure, payload=b"") if b"$file" in failure.payload else failure
            dead.append((row, kept))
            continue
        if form:
            group = documents.setdefault(form, ([], []))
            group[0].append(row)
            group[1].append(document)
        else:
            plain.append(row)
            records.append(record)
    parts = [replace(dead_part(dead), skipped=skipped)]
    for name, (rows, payloads) in documents.items():
        parts.append(decode_as(DOCUMENTS[name], texts, rows, payloads, context))
    parts.append(_plain(texts, plain, records, context, attributes))
    return put_together(parts, len(texts))


def _record(text: bytes) -> dict[str, Any]:
    try:
        record = parse_json(text)
    except InvalidJsonError as problem:
        error = "InvalidJson"
        raise Refused(error, str(problem)) from None
    if not isinstance(record, dict) or "topic" not in record or "ref" not in record:
        error = "InvalidRecord"
        raise Refused(error, "not an object with topic and ref: it is no record of an EventLog")
    return record


def _document(record: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return format and bytes of the document in a record; no format if there is none."""
    data = record.get("data")
    if isinstance(data, str):
        content = data.encode("utf-8", "replace")
        if content.lstrip()[:1] == b"<":
            return imixs_xml.FORMAT.name, content
        try:
            data = parse_json(content) if content.strip() else None
        except InvalidJsonError:
            data = None
    if not isinstance(data, dict):
        return "", b""
    if "item" in data or "document" in data:
        return imixs_json.FORMAT.name, orjson.dumps(data)
    if not any(name in data for name in (*LOG, *TASK)):
        return "", b""
    items = {UNIQUE_ID: [_case(record)], **data}
    listed = [{"name": name, "value": value} for name, value in items.items()]
    return imixs_json.FORMAT.name, orjson.dumps({"item": listed})


def _case(record: Mapping[str, Any]) -> str | None:
    """Return the case that a record is about: of a snapshot its origin."""
    ref = record.get("ref")
    return None if ref is None else _SNAPSHOT.sub("", str(ref))


def _plain(
    texts: Texts,
    rows: list[int],
    records: Sequence[Mapping[str, Any]],
    context: Context,
    attributes: Mapping[str, str],
) -> Part:
    """Make one event of each record without a document."""
    columns = {
        "event_id": [_text(each.get("id")) for each in records],
        "case_id": [_case(each) for each in records],
        "event_time": [_text(each.get("created")) for each in records],
        "activity": [_text(each.get("topic")) for each in records],
    }
    items = {item: [_item(each.get("data"), item) for each in records] for item in context.items}
    return part_of(
        texts,
        np.array(rows, np.int64),
        {name: pa.array(values, pa.string()) for name, values in columns.items()},
        {name: pa.array(values, pa.string()) for name, values in items.items()},
        context,
        attributes,
        named=False,
    )


def _item(data: Any, name: str) -> str | None:
    value = data.get(name.lower(), data.get(name)) if isinstance(data, dict) else None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return _text(value)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value).decode()
