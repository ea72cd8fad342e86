"""Content modes of CloudEvents in messages, by their headers; attributes of binary mode.

Header names are those of the Kafka binding (`ce_id`), of HTTP and of Pub/Sub attributes (`ce-id`);
`content-type` is `datacontenttype`. A header that is not UTF-8 holds replacement characters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from functools import lru_cache

import orjson
import pyarrow as pa

from transforms.formats.base import Message

MEDIA_TYPE = "application/cloudevents"
REQUIRED = ("specversion", "id", "source", "type")
CONTENT_TYPE = "datacontenttype"


class Mode(IntEnum):
    """How a message holds its event."""

    UNSAID = 0
    STRUCTURED = 1
    BINARY = 2
    OTHER = 3
    """Structured, in an event format that is not JSON."""


def mode_of(headers: Mapping[str, str]) -> Mode:
    """Return the mode that a message's headers say."""
    if not headers:
        return Mode.UNSAID
    layout = _layout_of(tuple(headers))
    header = layout.get(CONTENT_TYPE)
    mode = Mode.UNSAID if header is None else _mode_of_media(headers[header])
    if mode == Mode.UNSAID and any(name in layout for name in REQUIRED):
        return Mode.BINARY
    return mode


@lru_cache(maxsize=256)
def _mode_of_media(media: str) -> Mode:
    media = media.strip().lower()
    if not media.startswith(MEDIA_TYPE):
        return Mode.UNSAID
    kind = media[len(MEDIA_TYPE) :].split(";", 1)[0].strip()
    return Mode.STRUCTURED if kind in ("", "+json", "-batch+json") else Mode.OTHER


def attributes_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes that are in headers, without their prefix."""
    layout = _layout_of(tuple(headers))
    return {name: headers[header] for name, header in layout.items()}


@lru_cache(maxsize=1024)
def _layout_of(headers: tuple[str, ...]) -> Mapping[str, str]:
    """Return attribute -> header that holds it."""
    return {name: header for header in headers if (name := attribute_of(header))}


def attribute_of(header: str) -> str:
    """Return the attribute that a header holds, "" if none."""
    name = header.lower()
    if name.startswith(("ce_", "ce-")):
        return name[3:]
    return CONTENT_TYPE if name in ("content-type", "content_type") else ""


def header_columns(
    headers: Sequence[Mapping[str, str]], names: Sequence[str]
) -> dict[str, pa.Array]:
    """Return attribute -> values, of messages in binary mode."""
    layouts = [_layout_of(tuple(each)) for each in headers]
    first = layouts[0] if layouts else {}
    if all(layout is first for layout in layouts):
        return {
            name: pa.array([each[first[name]] for each in headers], pa.string())
            if name in first
            else pa.nulls(len(headers), pa.string())
            for name in names
        }
    found = [attributes_of(each) for each in headers]
    return {name: pa.array([each.get(name) for each in found], pa.string()) for name in names}


@lru_cache(maxsize=256)
def is_json(media: str | None) -> bool:
    """Say whether data of a media type is JSON (RFC 6839); no type stands for JSON."""
    if not media:
        return True
    kind = media.split(";", 1)[0].strip().lower()
    return kind.endswith(("/json", "+json"))


def structured(message: Message) -> bytes:
    """Return a message in binary mode as JSON in structured mode.

    Raises:
        orjson.JSONDecodeError: its data says that it is JSON, and is not.
    """
    attributes = attributes_of(message.attributes)
    if not message.payload.strip():
        return orjson.dumps(attributes)
    if is_json(attributes.get(CONTENT_TYPE)):
        data = orjson.loads(message.payload)
    else:
        data = message.payload.decode(errors="replace")
    return orjson.dumps({**attributes, "data": data})
