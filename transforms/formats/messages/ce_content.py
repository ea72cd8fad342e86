"""The data of one CloudEvent that is not there as plain JSON: encoded, text, or a document."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from transforms.formats.base import Format
from transforms.formats.json_columns import read_value
from transforms.formats.messages.ce_columns import BASE64, ENCODING
from transforms.formats.messages.ce_modes import CONTENT_TYPE, is_json
from transforms.formats.messages.delegate import DOCUMENTS
from transforms.formats.messages.texts import Refused


@dataclass(frozen=True)
class Content:
    """An event's data as bytes.

    Attributes:
        envelope: the event's members.
        data: the bytes; None if there are none.
        encoded: whether they were not there as JSON.
    """

    envelope: Mapping[str, Any]
    data: bytes | None
    encoded: bool = False

    def document(self) -> Format | None:
        """Return the format of ours that the data is of, if it is of one."""
        if self.data is None or self.data.lstrip()[:1] not in (b"<", b"{"):
            return None
        return next((form for form in DOCUMENTS.values() if form.detects(self.data, "")), None)

    def as_json(self) -> bytes | None:
        """Return the event with its data put in as JSON; None if the data is no JSON.

        Raises:
            Refused: it says that it is JSON, and is not.
        """
        media = self.envelope.get(CONTENT_TYPE)
        if not isinstance(media, str):
            media = None
        if not self.encoded or self.data is None or not is_json(media):
            return None
        try:
            value = orjson.loads(self.data)
        except orjson.JSONDecodeError as error:
            if not media:
                return None
            reason = "InvalidData"
            raise Refused(reason, f"data is to be {media}, and is not: {error}") from None
        kept = {k: v for k, v in self.envelope.items() if k not in (BASE64, ENCODING, "data")}
        return orjson.dumps({**kept, "data": value})


def content_of(text: bytes) -> Content:
    """Return the data of an event in structured mode.

    Raises:
        Refused: it is no valid base64, or there twice.
    """
    try:
        event = read_value(text)[0]
    except (UnicodeDecodeError, json.JSONDecodeError, orjson.JSONEncodeError, RecursionError):
        event = None
    if not isinstance(event, dict):
        error = "InvalidJson"
        raise Refused(error, "not an object")
    data, encoded = event.get("data"), event.get(BASE64)
    if encoded is not None and data is not None:
        error = "InvalidCloudEvent"
        raise Refused(error, f"it has both data and {BASE64}")
    if encoded is not None:
        return Content(event, _decoded(encoded, BASE64), encoded=True)
    if event.get(ENCODING):
        return Content(event, _decoded(data, "data"), encoded=True)
    if isinstance(data, str):
        return Content(event, data.encode("utf-8", "replace"))
    return Content(event, orjson.dumps(data) if isinstance(data, dict) else None)


def _decoded(value: Any, name: str) -> bytes:
    error = "InvalidBase64"
    if not isinstance(value, str):
        raise Refused(error, f"{name} is no text")
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError) as problem:
        raise Refused(error, f"{name} is no base64: {problem}") from None
