"""Texts whose content is of another format, decoded by that one and put back in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from schemas.events import NAME
from transforms.arrays import conform, integers
from transforms.formats import imixs_json, imixs_xml
from transforms.formats.base import Context, Failure, Format
from transforms.formats.messages.texts import Part, Texts

DOCUMENTS: Mapping[str, Format] = {
    form.name: form for form in (imixs_xml.FORMAT, imixs_json.FORMAT)
}
"""Formats of ours that the content of a text may be of."""


def decode_as(
    format_: Format,
    texts: Texts,
    rows: Sequence[int],
    payloads: Sequence[bytes],
    context: Context,
    whole: bool = False,
) -> Part:
    """Decode the contents of some texts by another format.

    Args:
        format_: the format.
        texts: the batch.
        rows: the texts, ascending.
        payloads: the content of each.
        context: settings.
        whole: a dead letter holds the whole text and not its content.
    """
    # Numbered, so that it can be told which text each event and failure is of; and without
    # headers, which speak of the whole text.
    numbered = [
        replace(texts.message(row, payload), source="", offset=row, attributes={})
        for row, payload in zip(rows, payloads, strict=True)
    ]
    places = {message.place: message.offset for message in numbered}
    decoded = format_.decode(numbered, context)

    def back(failure: Failure) -> tuple[int, Failure]:
        row = places[failure.source]
        origin = texts.message(row)
        if whole:
            return row, texts.failure(row, failure.error, failure.message, failure.attributes)
        kept = {**origin.attributes, **failure.attributes}
        return row, replace(failure, source=origin.place, attributes=kept)

    failures = [back(failure) for failure in decoded.failures]
    events = decoded.events
    number = integers(conform(events["source_offset"], pa.int64()))
    order = np.argsort(number, kind="stable")
    events, number = events.take(pa.array(order)), number[order]
    origins = {row: texts.message(row) for row in np.unique(number).tolist()}
    sources = conform([origins[row].source for row in number.tolist()], NAME)
    offsets = pa.array([origins[row].offset for row in number.tolist()], pa.int64())
    for name, column in (("source", sources), ("source_offset", offsets)):
        events = events.set_column(events.schema.get_field_index(name), name, column)
    return Part(
        rows=number,
        events=events.cast(decoded.events.schema),
        dead=failures[: decoded.dead],
        rejected=failures[decoded.dead :],
        decoded=decoded.decoded,
        skipped=decoded.skipped,
        extra=decoded.received - len(rows),
    )
