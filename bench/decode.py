"""The decoding of messages alone: batches as a source packs them become event tables.

`python -m bench.decode KIND ROUNDS OUTPUT` makes a batch of `BATCH` messages and decodes it
again and again, in one thread, as a stream does with `--format auto`: the topic is planned by its
first messages, headers and content decide. It writes how many events there were.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

BATCH = 10_000
START_US = 1_736_150_400_000_000
STEPS = ("Receive order", "Check stock", "Reserve", "Pick", "Pack", "Ship", "Invoice", "Close")
INTENTS = ("ELEMENT_ACTIVATED", "ELEMENT_COMPLETED", "SEQUENCE_FLOW_TAKEN")
FIRST_KEY = 2**51 + 1

Made = tuple[bytes, Mapping[str, str]]


def zeebe(number: int) -> Made:
    """Return a record as the Kafka exporter of Camunda 8.6 writes it, 800 bytes."""
    case = FIRST_KEY + 37 * (number // 12)
    value = {
        "bpmnProcessId": "order-process",
        "version": 1 + number % 3,
        "processDefinitionKey": FIRST_KEY - 1,
        "processInstanceKey": case,
        "elementId": f"Activity_{number % 8}",
        "flowScopeKey": case,
        "bpmnElementType": "SERVICE_TASK",
        "bpmnEventType": "UNSPECIFIED",
        "parentProcessInstanceKey": -1,
        "parentElementInstanceKey": -1,
        "elementInstancePath": [[case, case + 5 + number % 12]],
        "processDefinitionPath": [FIRST_KEY - 1],
        "callingElementPath": [],
        "tenantId": "<default>",
    }
    record = {
        "partitionId": 1 + number % 3,
        "value": value,
        "key": case + 5 + number % 12,
        "timestamp": START_US // 1000 + 7 * number,
        "valueType": "PROCESS_INSTANCE",
        "brokerVersion": "8.6.3",
        "recordType": "EVENT",
        "sourceRecordPosition": 4 * number,
        "intent": INTENTS[number % 3],
        "rejectionType": "NULL_VAL",
        "rejectionReason": "",
        "authorizations": {"authorized_tenants": ["<default>"]},
        "recordVersion": 1,
        "operationReference": -1,
        "position": 4 * number + 2,
    }
    return _dump(record), {}


def _envelope(number: int) -> dict[str, str]:
    seconds = number % 86_400
    return {
        "specversion": "1.0",
        "id": f"3f1c9a52-{number:012d}",
        "source": "/shop/orders",
        "type": "com.example.order.step",
        "subject": f"order-{number // 12}",
        "time": f"2025-01-06T{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}Z",
        "datacontenttype": "application/json",
    }


def _data(number: int) -> dict[str, Any]:
    return {
        "activity": STEPS[number % 8],
        "resource": f"clerk {number % 300}",
        "amount": number % 5000 + 0.5,
        "region": "EMEA",
        "remark": "nothing out of the ordinary",
    }


def cloudevents(number: int) -> Made:
    """Return an event in structured mode, 320 bytes."""
    return _dump({**_envelope(number), "data": _data(number)}), {}


def cloudevents_binary(number: int) -> Made:
    """Return an event in binary mode."""
    headers = {f"ce_{name}": value for name, value in _envelope(number).items()}
    headers["content-type"] = headers.pop("ce_datacontenttype")
    return _dump(_data(number)), headers


def json_lines(number: int) -> Made:
    """Return a JSON object with columns of its own, 180 bytes."""
    own = {"case_id": f"order-{number // 12}", "event_time": _envelope(number)["time"]}
    return _dump({**own, **_data(number)}), {}


def mixed(number: int) -> Made:
    """Return messages of two formats in turns."""
    return (zeebe, cloudevents)[number % 2](number)


KINDS: Mapping[str, Callable[[int], Made]] = {
    "zeebe": zeebe,
    "cloudevents": cloudevents,
    "cloudevents_binary": cloudevents_binary,
    "json_lines": json_lines,
    "mixed": mixed,
}


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def packed(kind: str) -> bytes:
    """Return a batch as a source packs it."""
    import numpy as np  # noqa: PLC0415 - what is imported when is a part of what is measured

    from transforms.sources.messages import pack_messages  # noqa: PLC0415

    made = [KINDS[kind](number) for number in range(BATCH)]
    headers = [list(each.items()) for _, each in made] if made[0][1] else []
    return pack_messages(
        [payload for payload, _ in made],
        (["topic/0"], np.zeros(BATCH, np.int32)),
        np.arange(BATCH),
        np.full(BATCH, START_US),
        headers,
    )


def decode(kind: str, rounds: int) -> int:
    """Decode a batch some times, and return how many events it gave."""
    from transforms.formats.base import Context  # noqa: PLC0415
    from transforms.sources.messages import unpack_messages  # noqa: PLC0415
    from transforms.topics import decode_topic, in_order, plan_topic  # noqa: PLC0415

    batch = packed(kind)
    context = Context()
    first = list(unpack_messages(batch)[:200])
    plan, _ = plan_topic(first, "auto", context)
    events = 0
    for _ in range(rounds):
        messages = unpack_messages(batch)
        shares = decode_topic(messages, plan, "auto", context)
        events += in_order(messages, [share.decoded.events for share in shares]).num_rows
    return events


def main(arguments: Sequence[str] | None = None) -> None:
    """Decode, and write how many events there were."""
    parser = argparse.ArgumentParser(description="Decode one batch of messages again and again.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("rounds", type=int)
    parser.add_argument("output", type=Path)
    given = parser.parse_args(arguments)
    events = decode(given.kind, given.rounds)
    os.makedirs(given.output, exist_ok=True)
    (given.output / "events.json").write_text(json.dumps(events))


if __name__ == "__main__":
    main()
