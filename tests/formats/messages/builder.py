"""Messages of engines for the tests, and batches of them as a broker's source makes them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from transforms.formats.base import Context, Decoded, Format, MessageBatch

RECORDED = 1_700_000_000_000_000
Headers = Mapping[str, str]

EVENT = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/shop",
    "subject": "order-7",
    "type": "order.placed",
    "time": "2023-11-14T22:13:00Z",
}


def cloud_event(**members: Any) -> bytes:
    """Return an event in structured mode; a member of None is left out."""
    found = {k: v for k, v in {**EVENT, **members}.items() if v is not None}
    return orjson.dumps(found)


def headers(prefix: str = "ce_", **members: str | None) -> dict[str, str]:
    """Return the attributes of an event in binary mode as headers."""
    found = {k: v for k, v in {**EVENT, **members}.items() if v is not None}
    return {prefix + name: str(value) for name, value in found.items()}


def encoded(data: bytes) -> str:
    """Return base64."""
    return base64.b64encode(data).decode()


VALUE = {
    "bpmnProcessId": "order",
    "version": 3,
    "processDefinitionKey": 2251799813685250,
    "processInstanceKey": 2251799813685252,
    "elementId": "pay",
    "flowScopeKey": 2251799813685252,
    "bpmnElementType": "SERVICE_TASK",
    "parentProcessInstanceKey": -1,
    "tenantId": "<default>",
    "elementInstancePath": [[2251799813685252, 2251799813685256]],
}


def zeebe_record(value: Mapping[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    """Return a record as Zeebe's Kafka exporter writes it; a member of None is left out."""
    record = {
        "partitionId": 2,
        "value": {k: v for k, v in {**VALUE, **(value or {})}.items() if v is not None},
        "key": 2251799813685256,
        "timestamp": 1_700_000_000_123,
        "valueType": "PROCESS_INSTANCE",
        "brokerVersion": "8.6.0",
        "recordType": "EVENT",
        "sourceRecordPosition": 41,
        "intent": "ELEMENT_ACTIVATED",
        "rejectionType": "NULL_VAL",
        "authorizations": {"authorized_tenants": ["<default>"]},
        "recordVersion": 1,
        "position": 42,
    }
    return {k: v for k, v in {**record, **members}.items() if v is not None}


def zeebe(value: Mapping[str, Any] | None = None, **members: Any) -> bytes:
    """Return such a record as JSON."""
    return orjson.dumps(zeebe_record(value, **members))


def batch(
    payloads: Sequence[bytes], headers: Sequence[Headers] = (), topic: str = "t", first: int = 0
) -> MessageBatch:
    """Return messages of one partition."""
    rows = len(payloads)
    sources = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(rows, np.int32)), pa.array([f"{topic}/0"])
    )
    return MessageBatch(
        pa.array(payloads, pa.binary()),
        sources,
        pa.array(np.arange(first, first + rows)),
        pa.array(np.full(rows, RECORDED)),
        headers,
    )


def decode(
    format_: Format,
    *payloads: bytes,
    headers: Sequence[Headers] = (),
    context: Context | None = None,
) -> Decoded:
    """Decode messages, and see that the law holds."""
    decoded = format_.decode(batch(payloads, headers), context or Context())
    assert decoded.received == decoded.decoded + decoded.skipped + decoded.dead
    return decoded


def rows(decoded: Decoded, *columns: str) -> list[tuple[Any, ...]]:
    """Return some columns of the events."""
    return list(zip(*(decoded.events[c].to_pylist() for c in columns), strict=True))


def errors(decoded: Decoded) -> list[tuple[str, str]]:
    """Return place and error of each failure."""
    return [(failure.source, failure.error) for failure in decoded.failures]
