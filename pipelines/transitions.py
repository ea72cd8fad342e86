"""Archived workflow events become transitions, cases and dead letters.

python run.py transitions --input 'archive/**/*.xml' --output out
python run.py transitions --input log.xes.gz --output out --complete_log
python run.py transitions --input events.csv --columns case_id=Order --output out
"""

from __future__ import annotations

from typing import Any

import apache_beam as beam

from pipelines.options import Settings
from pipelines.registry import RunContext, Stream
from pipelines.values import time_text
from schemas.tables import DEAD_LETTERS, TABLES
from transforms.counts import COUNTS
from transforms.decode import DEAD, DecodeFiles
from transforms.decode_messages import DecodeMessages
from transforms.exchange import Exchange
from transforms.fold.bounded import BoundedFold
from transforms.fold.granules import GranuleFold
from transforms.fold.steps import FoldShards
from transforms.fold.streaming import FoldStream
from transforms.kernels.case_state import Rules
from transforms.kernels.transitions import TransitionsKernel
from transforms.mask import Masking, masking
from transforms.sinks.commit import Run
from transforms.sinks.kafka import WriteKafka
from transforms.sinks.steps import Commit, WriteBatches
from transforms.sources.kafka import ReadKafka

DEAD_PARTS_FROM = 1024**3
"""Bytes of input from which dead letters are written in several parts."""


def build(root: beam.Pipeline, settings: Settings, run: RunContext) -> None:
    """Add the pipeline's steps to `root`."""
    if run.stream is not None:
        _stream(root, settings, run, run.stream)
    else:
        assert run.output is not None
        _backfill(root, settings, run, run.output)


def _stream(root: beam.Pipeline, settings: Settings, run: RunContext, stream: Stream) -> None:
    read = [
        root
        | f"Read {number}"
        >> ReadKafka(
            address,
            settings.disorder_ms,
            splits=stream.splits,
            stop=stream.stop,
            marks_ms=settings.granule_ms if stream.by_marks else 0,
        )
        for number, address in enumerate(settings.sources)
    ]
    decoded = (
        read[0] if len(read) == 1 else read | "Gather batches" >> beam.Flatten()
    ) | "Decode" >> DecodeMessages(
        settings.context(),
        settings.format,
        "case_id",
        stream.shards,
        settings.disorder_ms,
        settings.max_future_ms,
        _masking(settings),
        settings.granule_ms if stream.by_marks else 0,
        run.scratch,
    )
    folded = (
        decoded.events
        # (shard, element)
        | "Fold"
        >> FoldStream(
            GranuleFold(
                TransitionsKernel(rules(settings)),
                disorder_us=settings.disorder_ms * 1000,
                granule_ms=settings.granule_ms,
                by_marks=stream.by_marks,
            ),
            run.run_id,
            run.scratch,
        )
    )
    rows = (folded, decoded[DEAD]) | "Gather rows" >> beam.Flatten()
    # (table, shard, until, packed rows)
    tables = {name: TABLES[name] for name in run.tables}
    for number, target in enumerate(settings.targets):
        rows | f"Write topics {number}" >> WriteKafka(target, tables)


def _masking(settings: Settings) -> Masking | None:
    return masking(settings.mask, settings.items, settings.mask_key) if settings.mask else None


def _backfill(root: beam.Pipeline, settings: Settings, run: RunContext, output: Run) -> None:
    plan = run.plan
    exchange = Exchange(run.scratch)
    hidden = _masking(settings)
    # Beam compresses what a Create holds: the names of a large archive are left in files.
    units = [exchange.leave(unit.to_bytes(), f"unit-{unit.number}") for unit in plan.units]
    decoded = (
        root
        | "Plan units" >> beam.Create(units)
        # Without this the units would be read one after the other, by one worker.
        | "Spread units" >> beam.Reshuffle()
        # unit
        | "Decode"
        >> DecodeFiles(settings.context(), "case_id", plan.shards, exchange, hidden, run.scratch)
    )
    folded = (
        decoded.events
        # (shard, packed events)
        | "Fold"
        >> FoldShards(
            BoundedFold(
                TransitionsKernel(rules(settings)),
                disorder_us=settings.disorder_ms * 1000,
                until_ms=settings.until_ms,
                closes=settings.until_us is None or settings.complete_log,
                exchange=exchange,
            ),
            output,
            plan.shards,
            run.scratch,
        )
    )
    dead = (
        decoded[DEAD]
        # (unit, packed dead letters)
        | "Write dead letters"
        >> WriteBatches(DEAD_LETTERS, output, 1 if plan.bytes < DEAD_PARTS_FROM else 8)
    )
    parts = (folded.parts, dead) | "Gather parts" >> beam.Flatten()
    counts = (decoded[COUNTS], folded[COUNTS]) | "Gather counts" >> beam.Flatten()
    # Only when every part is written: all tables appear together.
    (parts, counts) | "Commit" >> Commit(
        run.output, run.tables, settings.items, about(settings, run)
    )


def rules(settings: Settings) -> Rules:
    """Return the kernel's settings."""
    return Rules(
        end_states=frozenset(settings.end_states),
        complete_log=settings.complete_log,
        since=settings.since_us,
        case_retention=settings.case_retention_ms * 1000,
        idle_retention=settings.idle_retention_ms * 1000,
    )


def about(settings: Settings, run: RunContext) -> dict[str, Any]:
    """Return what the manifest says of the run itself."""
    return {
        "pipeline": settings.pipeline,
        "version": run.version,
        "run_id": run.run_id,
        "engine": run.engine,
        "started": time_text(settings.started_us),
        "until": "end" if settings.until_us is None else time_text(settings.until_us),
        "shards": run.plan.shards,
        "options": list(settings.arguments) if not settings.mask else _without_paths(settings),
        "input": {"files": len(run.plan.files), "bytes": run.plan.bytes},
    }


def _without_paths(settings: Settings) -> list[str]:
    """Return the options without the input's paths: they may name cases."""
    kept: list[str] = []
    hidden = False
    for argument in settings.arguments:
        if argument.startswith("--"):
            hidden = argument == "--input"
            kept.append("--input=..." if argument.startswith("--input=") else argument)
        else:
            kept.append("..." if hidden else argument)
    return kept
