"""Single Avro records: which schema each was written with, and its JSON.

A message says so itself by a byte 0 and the id of a schema in a registry (four bytes, the most
significant first), or by the bytes C3 01 and the fingerprint of a schema (eight, the least
significant first; Avro's "single object encoding"); or it is a bare record of `--avro_schema`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

from transforms.formats.avro.blocks import MAGIC
from transforms.formats.avro.lookup import RegistryDown, UnknownSchema, registry_of
from transforms.formats.avro.records import BAD_DATA, as_line, why
from transforms.formats.avro.schemas import BadSchema, parse_schema
from transforms.formats.avro.settings import AvroSettings

REGISTERED = b"\0"
SINGLE_OBJECT = b"\xc3\x01"


@dataclass(frozen=True)
class Unread:
    """A message that could not be read: the class of the error, and why."""

    error: str
    message: str


def read_messages(
    payloads: Sequence[bytes], settings: AvroSettings, max_bytes: int
) -> list[bytes | Unread]:
    """Return the record of each message as JSON, or why there is none."""
    schemas: dict[bytes, Any] = {}
    made: list[bytes | Unread] = []
    for payload in payloads:
        if len(payload) > max_bytes:
            reason = f"a message of {len(payload)} bytes; at most {max_bytes} are read"
            made.append(Unread("TooLarge", reason))
            continue
        head = _head(payload)
        # One answer for a batch: a registry that is away is not asked for every message of it.
        if head not in schemas:
            schemas[head] = _schema(payload, head, settings)
        schema = schemas[head]
        made.append(schema if isinstance(schema, Unread) else _record(payload, len(head), schema))
    return made


def _head(payload: bytes) -> bytes:
    if payload.startswith(REGISTERED):
        return payload[:5]
    if payload.startswith(SINGLE_OBJECT):
        return payload[:10]
    return MAGIC if payload.startswith(MAGIC) else b""


def _schema(payload: bytes, head: bytes, settings: AvroSettings) -> Any:
    """Return the schema that a message was written with, or why there is none."""
    if head == MAGIC:
        return Unread("InvalidAvro", "a container file cannot be read as a message")
    if head.startswith(SINGLE_OBJECT):
        return _by_fingerprint(head, settings)
    if head.startswith(REGISTERED) and (settings.url or not settings.schema):
        if len(head) < 5:
            return Unread("InvalidAvro", f"{len(head)} bytes; the id of a schema has five")
        number = int.from_bytes(head[1:], "big")
        if not settings.url:
            reason = f"was written with schema id {number}; --schema_registry says where that is"
            return Unread("UnknownSchema", reason)
        try:
            return registry_of(settings).schema(number)
        except RegistryDown as error:
            return Unread("RegistryDown", str(error))
        except UnknownSchema as error:
            return Unread("UnknownSchema", str(error))
        except BadSchema as error:
            return Unread("UnsupportedSchema", f"schema id {number}: {error}")
    if settings.schema:
        return given_schema(settings.schema)[0]
    if not payload:
        return Unread("InvalidAvro", "an empty message")
    return Unread(
        "InvalidAvro",
        f"begins with byte {payload[0]}, not with 0 and a schema id, nor with C3 01 and a "
        "fingerprint; --avro_schema gives the schema of bare records",
    )


def _by_fingerprint(head: bytes, settings: AvroSettings) -> Any:
    if len(head) < 10:
        return Unread("InvalidAvro", f"{len(head)} bytes; a fingerprint ends at the tenth")
    if not settings.schema:
        reason = f"was written with the schema of fingerprint {head[2:].hex()}; give --avro_schema"
        return Unread("UnknownSchema", reason)
    schema, known = given_schema(settings.schema)
    if head[2:] != known:
        reason = (
            f"was written with the schema of fingerprint {head[2:].hex()}; that of --avro_schema "
            f"is {known.hex()}"
        )
        return Unread("UnknownSchema", reason)
    return schema


def _record(payload: bytes, at: int, schema: Any) -> bytes | Unread:
    stream = io.BytesIO(payload)
    stream.seek(at)
    try:
        line = as_line(fastavro.schemaless_reader(stream, schema, None))
    except BAD_DATA as error:
        return Unread("InvalidAvro", f"does not fit its schema: {why(error)}"[:500])
    if stream.tell() < len(payload):
        extra = len(payload) - stream.tell()
        return Unread("InvalidAvro", f"does not fit its schema: {extra} bytes are left over")
    return line


@lru_cache(maxsize=16)
def given_schema(text: str) -> tuple[Any, bytes]:
    """Return the schema of `--avro_schema`, and its fingerprint as messages have it.

    Raises:
        BadSchema: it is no schema that can be used.
    """
    schema = parse_schema(text)
    canonical = to_parsing_canonical_form(schema)
    # fastavro writes the bytes of the fingerprint in the order that messages have them in.
    return schema, bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))
