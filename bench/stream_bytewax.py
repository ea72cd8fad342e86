"""The stream's peer: what Bytewax's users write for the same job, with its own Kafka connectors.

    python -m bench.stream_bytewax BROKER INPUT OUTPUT

An event's id is the hash of its case, time and activity; one that was seen is left out. A row has
the previous state, the sequence and the durations. It ends at the end of the topic. It does
less than ours: no event time (events are taken as they come), no dead letters, no `cases`.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kafka
from bytewax.dataflow import Dataflow
from bytewax.run import cli_main

BATCH = 5000


@dataclass
class Case:
    """What is known of a case."""

    known: set[str] = field(default_factory=set)
    sequence: int = 0
    first: datetime | None = None
    last: datetime | None = None
    state: str | None = None
    actor: str | None = None


def transition(case: Case | None, event: dict[str, Any]) -> tuple[Case, list[dict[str, Any]]]:
    """Fold an event into its case: the case after it, and a row if it is new."""
    case = case or Case()
    text = f"{event['case_id']}|{event['event_time']}|{event['activity']}"
    text = f"{text}|{event['transaction_id']}"
    event_id = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    if event_id in case.known:
        return case, []
    case.known.add(event_id)
    time = datetime.fromisoformat(event["event_time"].replace("Z", "+00:00"))
    first = case.first or time
    row = {
        "case_id": event["case_id"],
        "sequence": case.sequence,
        "event_id": event_id,
        "event_time": event["event_time"],
        "activity": event["activity"],
        "from_state": case.state,
        "to_state": event["state"],
        "duration_s": None if case.last is None else (time - case.last).total_seconds(),
        "elapsed_s": (time - first).total_seconds(),
        "actor": event["actor"],
        "previous_actor": case.actor,
        "workflow_group": event["workflow_group"],
        "model_version": event["model_version"],
        "is_start": case.sequence == 0,
    }
    case.sequence += 1
    case.first, case.last = first, time
    case.state, case.actor = event["state"], event["actor"]
    return case, [row]


def flow(broker: str, source: str, target: str) -> Dataflow:
    """Return the job: topic in, case by case, topic out."""
    job = Dataflow("transitions")
    read = kafka.input("read", job, brokers=[broker], topics=[source], tail=False, batch_size=BATCH)
    events = op.map("decode", read.oks, lambda message: orjson.loads(message.value or b""))
    cases = op.key_on("case", events, lambda event: event["case_id"])
    rows = op.stateful_flat_map("fold", cases, transition)
    messages = op.map(
        "encode",
        rows,
        lambda keyed: KafkaSinkMessage(keyed[0].encode(), orjson.dumps(keyed[1])),
    )
    kafka.output("write", messages, brokers=[broker], topic=target)
    return job


def main() -> None:
    """Run it in one process, with one worker."""
    parser = argparse.ArgumentParser(prog="python -m bench.stream_bytewax")
    for name in ("broker", "source", "target"):
        parser.add_argument(name)
    given = parser.parse_args()
    job = flow(given.broker, given.source, given.target)
    cli_main(job, workers_per_process=1)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
