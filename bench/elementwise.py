"""The same transitions the way most Beam Python pipelines are written, as the comparison.

One element an event: read lines, `json.loads`, key by case, a stateful DoFn that keeps the
case's last event, `json.dumps`, write lines. It does a little less than `run.py transitions`
(no deduplication, dead letters or `cases`) and trusts the input's order.

    python -m bench.elementwise bench/work/log-20000.jsonl /tmp/out [--constant_weight]

`--constant_weight` patches out, in this process only, what Beam's state cache spends on
weighing each value that is put into it (a walk over everything the value refers to).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.coders import FastPrimitivesCoder
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.worker import statecache
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

WEIGHT = 512


def key_by_case(line: str) -> tuple[str, dict[str, Any]]:
    """Read one line of JSON; its case is the key."""
    event = json.loads(line)
    return event["case_id"], event


def seconds(text: str) -> float:
    """Read `2025-01-06T06:00:00.009Z` as seconds since the epoch."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()


class MakeTransition(beam.DoFn):
    """Turn each event into a transition from the case's last one.

    State: `last`, one value a case: (sequence, start, time, state, actor); never cleared, as a
    bounded run ends. No timers.
    """

    LAST = ReadModifyWriteStateSpec("last", FastPrimitivesCoder())

    def process(
        self,
        element: tuple[str, dict[str, Any]],
        last: Any = beam.DoFn.StateParam(LAST),  # noqa: B008 - how Beam declares it
    ) -> Iterator[dict[str, Any]]:
        """Yield the transition (columns of `schemas.tables.TRANSITIONS`)."""
        case_id, event = element
        time = seconds(event["event_time"])
        before = last.read()
        sequence = 0 if before is None else before[0] + 1
        start = time if before is None else before[1]
        identity = f"{case_id}|{event['event_time']}|{event['activity']}|{sequence}"
        last.write((sequence, start, time, event["activity"], event["resource"]))
        yield {
            "row_id": hashlib.md5(f"transitions|{identity}".encode()).hexdigest(),
            "case_id": case_id,
            "sequence": sequence,
            "event_id": hashlib.md5(identity.encode()).hexdigest(),
            "event_time": event["event_time"],
            "activity": event["activity"],
            "from_state": before and before[3],
            "to_state": event["activity"],
            "duration_s": None if before is None else time - before[2],
            "elapsed_s": time - start,
            "actor": event["resource"],
            "previous_actor": before and before[4],
            "workflow_group": event["workflow_group"],
            "model_version": event["model_version"],
            "task": None,
            "event": None,
            "source_task": None,
            "is_start": before is None,
            "is_end": False,
            "verdict": "unknown",
            "gap": False,
            "attributes": None,
        }


def build(root: beam.Pipeline, log: Path, output: Path) -> None:
    """Add the pipeline's steps."""
    _ = (
        root
        | "Read lines" >> beam.io.ReadFromText(str(log))
        | "Key by case" >> beam.Map(key_by_case)
        | "Make transitions" >> beam.ParDo(MakeTransition())
        | "Write JSON" >> beam.Map(json.dumps)
        | "Write lines" >> beam.io.WriteToText(str(output / "transitions"), ".jsonl")
    )


def main() -> None:
    """Run it on the FnApiRunner, Beam's faster local engine for bounded input."""
    parser = argparse.ArgumentParser(prog="python -m bench.elementwise", description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--constant_weight", action="store_true")
    args = parser.parse_args()
    if args.constant_weight:
        statecache.get_deep_size = lambda *values: WEIGHT * len(values)
    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([])) as root:
        build(root, args.log, args.output)


if __name__ == "__main__":
    main()
