"""Records of Zeebe, the engine of Camunda 8, as its Kafka and Elasticsearch exporters write them.

An event is a record of `valueType` PROCESS_INSTANCE and `recordType` EVENT that says that an
element was activated, completed or terminated, or a sequence flow taken; other records are
skipped. Keys of 64 bits may be numbers or strings. Names are those of Zeebe's protocol: `Record`,
`ProcessInstanceRecordValue` and `ProcessInstanceIntent`. Documents that were taken out of an
index with what Elasticsearch wraps around them (`_source`) are read too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats.base import Context, Decoded, Message
from transforms.formats.columns import replay_attributes, to_text
from transforms.formats.heads import Heads, Mask
from transforms.formats.json_columns import LineColumns, Path
from transforms.formats.line_blocks import Offsets
from transforms.formats.messages.files import first_object
from transforms.formats.messages.form import JsonForm
from transforms.formats.messages.texts import Part, Texts, part_of, put_together, unread_part

INTENTS = (
    "ELEMENT_ACTIVATED",
    "ELEMENT_COMPLETED",
    "ELEMENT_TERMINATED",
    "SEQUENCE_FLOW_TAKEN",
)
"""Intents that are events of a case; they become its `lifecycle`."""

_FIELDS: Mapping[str, Path] = {
    "valueType": ("valueType",),
    "recordType": ("recordType",),
    "lifecycle": ("intent",),
    "partitionId": ("partitionId",),
    "position": ("position",),
    "event_time": ("timestamp",),
    "case_id": ("value", "processInstanceKey"),
    "activity": ("value", "elementId"),
    "workflow_group": ("value", "bpmnProcessId"),
    "model_version": ("value", "version"),
}
_COLUMNS = ("case_id", "event_time", "activity", "lifecycle", "workflow_group", "model_version")
_TIMES = frozenset({"event_time"})
_BEGINNING = re.compile(rb'\{"partitionId":')
_WRAPPED = b'"_source"'
_ITEM = "item "


class Zeebe(JsonForm):
    """The `zeebe` format (see `transforms.formats.base.Format`)."""

    name = "zeebe"
    title = "Zeebe records of Camunda 8 exporters (Kafka, Elasticsearch)"
    expansion = 0.6
    python_bound = False
    opening = r'^\{"partitionId":[0-9]+,"value":\{'
    fixed = True
    origins: ClassVar[Mapping[str, str]] = {
        "event_id": "partitionId-position",
        **{name: ".".join(map(str, _FIELDS[name])) for name in _COLUMNS},
    }

    def detects(self, head: bytes, name: str) -> bool:
        """Say whether the first object is a record."""
        found = first_object(head)
        if found is not None and isinstance(found.get("_source"), dict):
            found = found["_source"]
        return found is not None and "valueType" in found and "intent" in found

    def claims(self, heads: Heads) -> Mask:
        """Say which messages are records (see `Claiming`)."""
        return heads.having(b'"valueType"', _BEGINNING)

    def decode_texts(self, texts: Texts, context: Context) -> Decoded:
        """Make events of texts."""
        return decode_texts(texts, context)

    def decode(self, messages: Sequence[Message], context: Context) -> Decoded:
        """Decode messages of one record each."""
        return decode_texts(Texts.of(messages), context)


FORMAT = Zeebe()


def decode_texts(texts: Texts, context: Context) -> Decoded:
    """Make events of records."""
    # Zeebe's times are epochs in ms, and its fields have their names: `--columns` is for others.
    context = replace(context, columns={}, time_format="ms", timezone="UTC")
    attributes = replay_attributes(FORMAT.name, Context())
    found = texts.read({**_FIELDS, **_item_paths(context)}, _TIMES, context)
    parts = [unread_part(texts, found, attributes)]
    rows = found.lines
    missing = found.arrays["valueType"].is_null().to_numpy(zero_copy_only=False)
    wrapped = NO_LINES
    if missing.any() and _WRAPPED in texts.data:
        wrapped = _wrapped(texts, rows[missing])
    records = ~missing
    parts.append(_part(texts, rows, found.arrays, records, context, attributes))
    if len(wrapped):
        parts.append(_read_wrapped(texts, wrapped, context, attributes))
    strange = np.setdiff1d(rows[missing], wrapped)
    reason = "the object has no valueType: it is no record of Zeebe"
    dead = [
        (row, texts.failure(row, "InvalidRecord", reason, attributes)) for row in strange.tolist()
    ]
    parts.append(replace(parts[0], dead=dead, skipped=0))
    return put_together(parts, len(texts))


NO_LINES = np.empty(0, np.int64)


def _part(
    texts: Texts,
    rows: Offsets,
    arrays: Mapping[str, pa.Array],
    records: Mask,
    context: Context,
    attributes: Mapping[str, str],
) -> Part:
    """Make events of the records among some texts, and count the other records."""
    kinds = pc.equal(to_text(arrays["valueType"]), "PROCESS_INSTANCE")
    # Only an event has one of these intents; a store may leave out what kind a record is.
    kinds = pc.and_(kinds, pc.equal(to_text(arrays["recordType"]), "EVENT").fill_null(True))
    kinds = pc.and_(kinds, pc.is_in(to_text(arrays["lifecycle"]), pa.array(INTENTS)))
    good = records & kinds.fill_null(False).to_numpy(zero_copy_only=False)
    if not good.all():
        taken = pa.array(np.flatnonzero(good))
        arrays = {name: array.take(taken) for name, array in arrays.items()}
        rows = rows[good]
    columns = {name: arrays[name] for name in _COLUMNS}
    columns["event_id"] = pc.binary_join_element_wise(
        to_text(arrays["partitionId"]), to_text(arrays["position"]), "-"
    )
    part = part_of(texts, rows, columns, _items(arrays, context), context, attributes, named=False)
    return replace(part, skipped=int(records.sum() - good.sum()))


def _wrapped(texts: Texts, rows: Offsets) -> Offsets:
    """Return those of some texts that hold a document of an index."""
    within = [row for row in rows.tolist() if _WRAPPED in texts.text(row)]
    return np.array(within, np.int64)


def _read_wrapped(
    texts: Texts, rows: Offsets, context: Context, attributes: Mapping[str, str]
) -> Part:
    found = _select(texts, rows).read(
        {name: ("_source", *path) for name, path in {**_FIELDS, **_item_paths(context)}.items()},
        _TIMES,
        context,
    )
    known = found.arrays["valueType"].is_valid().to_numpy(zero_copy_only=False)
    lines = rows[found.lines]
    part = _part(texts, lines, found.arrays, known, context, attributes)
    reason = "the document has no valueType: it is no record of Zeebe"
    dead = [
        (row, texts.failure(row, "InvalidRecord", reason, attributes))
        for row in lines[~known].tolist()
    ]
    return replace(part, dead=[*part.dead, *dead])


def _select(texts: Texts, rows: Offsets) -> Texts:
    return Texts.of([texts.message(row) for row in rows.tolist()])


def _item_paths(context: Context) -> dict[str, Path]:
    """Return where business items may be: at a path of the record, or in its value."""
    paths: dict[str, Path] = {}
    for item in context.items:
        paths[f"{_ITEM}{item}"] = tuple(item.split("."))
        paths[f"{_ITEM}{item} of the value"] = ("value", *item.split("."))
    return paths


def _items(arrays: LineColumns | Mapping[str, pa.Array], context: Context) -> dict[str, pa.Array]:
    found = arrays.arrays if isinstance(arrays, LineColumns) else arrays
    return {
        item: pc.coalesce(
            to_text(found[f"{_ITEM}{item}"]), to_text(found[f"{_ITEM}{item} of the value"])
        )
        for item in context.items
    }
