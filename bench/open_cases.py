"""Send events of cases that never end: so many are open, and each moves in turn.

python -m bench.open_cases BROKER TOPIC CASES EVENTS

An event is as one of the producer's (270 bytes); on their own clock there are 50,000 a second.
The order of the cases is mixed, and the same in each turn: between two events of a case there is
one of each other case, so that a step of the fold never has two of one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime, timezone

from confluent_kafka import KafkaError, Message, Producer

START_S = 1_767_571_200
RATE = 50_000
_STEP_US = 1_000_000 // RATE
_STATES = ("Application Review", "Supplier Inquiry", "Budget Approval", "Contract Negotiation")
_MIX = 0x9E3779B1
"""Odd and prime: its multiples run through all numbers below any number of cases of ours."""


def messages(cases: int, events: int) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield key, payload and time in ms."""
    wall, second = "", -1
    for number in range(events):
        turn, place = divmod(number, cases)
        # Ids that look random, as an engine's do.
        case_id = f"{(place * _MIX) % cases * _MIX & 0xFFFFFFFF:08x}-4a1c-4f2e-9b7d-6c58e1f0a3b2"
        at = START_S * 1_000_000 + number * _STEP_US
        if at // 1_000_000 != second:
            second = at // 1_000_000
            wall = f"{datetime.fromtimestamp(second, timezone.utc):%Y-%m-%dT%H:%M:%S}"
        state, before = _STATES[turn % 4], _STATES[(turn - 1) % 4]
        payload = (
            f'{{"case_id":"{case_id}","event_time":"{wall}.{at % 1_000_000:06d}Z",'
            f'"activity":"submit","state":"{state}","source_state":"{before}",'
            f'"actor":"user{place % 97}","workflow_group":"Purchase","model_version":"buy-1.0",'
            f'"transaction_id":"{number:016x}"}}'
        )
        yield case_id.encode(), payload.encode(), at // 1000


def main() -> int:
    """Send them all; return 1 if the broker did not take them."""
    broker, topic, cases, events = sys.argv[1:]
    refused: list[str] = []

    def report(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            refused.append(error.str())

    producer = Producer(
        {
            "bootstrap.servers": broker,
            "enable.idempotence": True,
            "linger.ms": 20,
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": 1_000_000,
            "delivery.report.only.error": True,
            "on_delivery": report,
        }
    )
    for number, (key, payload, at) in enumerate(messages(int(cases), int(events))):
        while True:
            try:
                producer.produce(topic, payload, key, timestamp=at)
                break
            except BufferError:
                producer.poll(0.1)
        if not number & 1023:
            producer.poll(0)
    left = producer.flush(60)
    if left or refused:
        print(f"{left + len(refused):,} messages were not taken", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
