"""The simulated engine's events as Avro, in the frame that users of a schema registry have."""

from __future__ import annotations

import io
import json
from datetime import datetime
from typing import Any

import fastavro
import requests

from transforms.formats.avro.messages import REGISTERED

TEXTS = (
    "case_id",
    "activity",
    "state",
    "source_state",
    "actor",
    "workflow_group",
    "model_version",
    "transaction_id",
)
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Event",
    "namespace": "org.imixs.streams.example",
    "fields": [
        *({"name": name, "type": "string"} for name in TEXTS),
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ],
}
"""Of the events: what their JSON has, the time in microseconds since the epoch."""

PATIENCE_S = 10.0


class RegistryError(Exception):
    """The registry did not take the schema; one line says why."""


def register(url: str, topic: str) -> int:
    """Make the schema known as that of a topic's values, and return its id.

    Args:
        url: of a registry with Confluent's interface.
        topic: its subject is `TOPIC-value`.

    Raises:
        RegistryError: it did not take it.
    """
    address = f"{url.rstrip('/')}/subjects/{topic}-value/versions"
    try:
        answer = requests.post(address, json={"schema": json.dumps(SCHEMA)}, timeout=PATIENCE_S)
        answer.raise_for_status()
        return int(answer.json()["id"])
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        reason = f"{url} did not take the schema: {error}"
        raise RegistryError(reason) from None


class AvroWriter:
    """Writes events that are JSON as Avro.

    Args:
        number: of their schema in the registry.
    """

    def __init__(self, number: int) -> None:
        self._head = REGISTERED + number.to_bytes(4, "big")
        self._schema = fastavro.parse_schema(SCHEMA)

    def write(self, payload: bytes) -> bytes:
        """Return a message; of what is no event (garbage) the bytes as they are."""
        try:
            event = json.loads(payload)
        except ValueError:
            return payload
        # Python 3.10 does not know Z.
        event["event_time"] = datetime.fromisoformat(event["event_time"].replace("Z", "+00:00"))
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, self._schema, event)
        return self._head + stream.getvalue()
