"""Avro records for tests: a schema of events, and what is written with it."""

from __future__ import annotations

import datetime
import io
import json
from decimal import Decimal
from typing import Any

import fastavro

from transforms.formats.base import Message

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Step",
    "fields": [
        {"name": "case_id", "type": "string"},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "activity", "type": ["null", "string"]},
        {
            "name": "amount",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        },
        {
            "name": "order",
            "type": [
                "null",
                {
                    "type": "record",
                    "name": "Order",
                    "fields": [{"name": "region", "type": "string"}],
                },
            ],
        },
    ],
}
START = datetime.datetime(2024, 8, 27, 12, tzinfo=datetime.timezone.utc)


def step(number: int, **values: Any) -> dict[str, Any]:
    """Return a record."""
    return {
        "case_id": f"c{number % 3}",
        "event_time": START + datetime.timedelta(minutes=number),
        "activity": "send",
        "amount": Decimal("12.50"),
        "order": {"region": "north"},
        **values,
    }


def encoded(record: Any, schema: Any = None) -> bytes:
    """Return the bytes of a record alone."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema or SCHEMA), record)
    return stream.getvalue()


def registered(number: int, record: Any, schema: Any = None) -> bytes:
    """Return a record behind the id of its schema."""
    return b"\0" + number.to_bytes(4, "big") + encoded(record, schema)


def message(payload: bytes, offset: int = 0) -> Message:
    """Return a message of a topic."""
    return Message(payload, "steps/0", offset, record_time=1_724_760_000_000_000)


def container(records: list[Any], codec: str = "deflate", schema: Any = None, **how: Any) -> bytes:
    """Return a container file."""
    stream = io.BytesIO()
    fastavro.writer(stream, fastavro.parse_schema(schema or SCHEMA), records, codec, **how)
    return stream.getvalue()


def schema_text(schema: Any = None) -> str:
    """Return a schema as JSON."""
    return json.dumps(schema or SCHEMA)
