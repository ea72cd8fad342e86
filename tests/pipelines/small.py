"""A small pipeline on the real engine and the real commit, whose steps do as they are told.

python -m tests.pipelines.small waits --input 'some/*.csv' --output out
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam

import run as command_line
from pipelines.registry import PIPELINES, Pipeline, RunContext
from pipelines.settings import Settings
from transforms.progress import report
from transforms.sinks.steps import Commit

TABLES = ("transitions", "dead_letters")


@dataclass(frozen=True)
class Small(Pipeline):
    """Counts one message and one duplicate event a unit.

    Attributes:
        fails: a unit raises an error.
        waits: a unit writes the file `busy` beside the input and never ends.
        loses: a message is counted as no outcome.
        full: the disk is, and so is that which a worker process prints to.
    """

    fails: bool = False
    waits: bool = False
    loses: bool = False
    full: bool = False

    def build(self, root: beam.Pipeline, settings: Settings, run: RunContext) -> None:
        about = {
            "pipeline": self.name,
            "version": run.version,
            "run_id": run.run_id,
            "engine": run.engine,
            "shards": run.plan.shards,
        }
        counts = (
            root
            | "Plan" >> beam.Create([unit.to_bytes() for unit in run.plan.units])
            | "Spread" >> beam.Reshuffle()
            | "Work hard" >> beam.ParDo(_Work(self, run.scratch, settings.input[0]))
        )
        none = root | "No parts" >> beam.Create([], reshuffle=False)
        (none, counts) | "Commit" >> Commit(run.output, run.tables, about=about)


class _Work(beam.DoFn):
    def __init__(self, pipeline: Small, scratch: str, beside: str) -> None:
        self._pipeline = pipeline
        self._scratch = scratch
        self._beside = beside

    def process(self, _: bytes) -> Iterator[tuple[str, int]]:
        if self._pipeline.fails:
            reason = "the moon is full:\nwait for another"
            raise LookupError(reason)
        if self._pipeline.waits:
            Path(self._beside).with_name("busy").touch()
            while True:
                time.sleep(0.05)
        if self._pipeline.full:
            with open("/dev/full", "wb", buffering=0) as disk:
                if Path(sys.argv[0]).name == "worker.py":
                    os.dup2(disk.fileno(), 2)
                disk.write(b"x")
        report(self._scratch, bytes=10, messages=1, events=1, flush=True)
        yield "messages", 1
        yield "decoded", 1
        yield "duplicates", 1
        yield "events", 2 if self._pipeline.loses else 1


def small(**behaviour: Any) -> Small:
    return Small("small", "does as it is told", TABLES, (), **behaviour)


if __name__ == "__main__":
    behaviour, sys.argv[1:2] = sys.argv[1], ["small"]
    PIPELINES["small"] = small(**({behaviour: True} if behaviour else {}))
    sys.exit(command_line.command())
