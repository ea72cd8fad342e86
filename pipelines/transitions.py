"""Archived workflow events become transitions, cases and dead letters.

python run.py transitions --input 'archive/**/*.xml' --output out
python run.py transitions --input log.xes.gz --output out --complete_log
python run.py transitions --input events.csv --columns case_id=Order --output out
"""

from __future__ import annotations

from typing import Any

import apache_beam as beam

from pipelines.exit_codes import ExitCode, RunError
from pipelines.registry import RunContext, Stream
from pipelines.settings import Settings
from pipelines.stream_io import beam_time, reading, writing
from pipelines.values import time_text
from schemas.tables import DEAD_LETTERS, TABLES
from transforms.counts import COUNTS
from transforms.decode import DEAD, DecodeFiles
from transforms.decode_messages import DecodeMessages
from transforms.exchange import Exchange
from transforms.fold.bounded import BoundedFold
from transforms.fold.granules import GranuleFold
from transforms.fold.handover import (
    STATE,
    Handover,
    HandoverError,
    describe,
    state_output,
)
from transforms.fold.made import Setting
from transforms.fold.steps import FoldShards
from transforms.fold.streaming import FoldStream
from transforms.kernels.case_state import Rules
from transforms.kernels.transitions import TransitionsKernel
from transforms.mask import Masking, masking
from transforms.sinks.commit import Run
from transforms.sinks.granules import WriteGranules
from transforms.sinks.steps import Commit, WriteBatches

DEAD_PARTS_FROM = 1024**3
"""Bytes of input from which dead letters are written in several parts."""

STATE_VERSION = 1
"""Of `transforms.kernels.case_state.STATE_SCHEMA`."""


def build(root: beam.Pipeline, settings: Settings, run: RunContext) -> None:
    """Add the pipeline's steps to `root`."""
    if run.stream is not None:
        _stream(root, settings, run, run.stream)
    else:
        assert run.output is not None
        _backfill(root, settings, run, run.output)


def _stream(root: beam.Pipeline, settings: Settings, run: RunContext, stream: Stream) -> None:
    begins = handover(settings, stream.shards)
    read = [
        root | f"Read {number}" >> reading(address, number, settings, stream)
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
        stream.plans,
        _masking(settings),
        settings.granule_ms if stream.by_marks else 0,
        run.scratch,
    )
    folded = (
        decoded.events
        # (key of a shard, element)
        | "Fold"
        >> FoldStream(
            GranuleFold(
                TransitionsKernel(rules(settings)),
                disorder_us=settings.disorder_ms * 1000,
                granule_ms=settings.granule_ms,
                by_marks=stream.by_marks,
                state_version=STATE_VERSION,
                beam_time=beam_time(settings, stream),
                made=(Setting("shards", "--shards", stream.shards), *state_settings(settings)),
            ),
            run.run_id,
            run.scratch,
            stream.shards,
            begins.element if begins is not None else None,
        )
    )
    # (table, shard, until, packed rows)
    tables = {name: TABLES[name] for name in run.tables}
    # No Flatten: the FnApiRunner does not fuse what is behind one, and holds it back for ever.
    dead = {DEAD_LETTERS.name: tables[DEAD_LETTERS.name]}
    rows = {name: table for name, table in tables.items() if name not in dead}
    for number, target in enumerate(settings.targets):
        write = writing(target, rows, number, run.scratch, stream)
        folded | f"Write topics {number}" >> write
        write_dead = writing(target, dead, number, run.scratch, stream)
        decoded[DEAD] | f"Write dead letters {number}" >> write_dead
    if run.output is not None:
        files = WriteGranules(run.output, tables, run.scratch)
        folded | "Write files" >> files
        decoded[DEAD] | "Write dead files" >> files


def _masking(settings: Settings) -> Masking | None:
    return masking(settings.mask, settings.items, settings.mask_key) if settings.mask else None


def _backfill(root: beam.Pipeline, settings: Settings, run: RunContext, output: Run) -> None:
    plan = run.plan
    exchange = Exchange(run.scratch)
    hidden = _masking(settings)
    kernel = TransitionsKernel(rules(settings))
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
                kernel,
                disorder_us=settings.disorder_ms * 1000,
                until_ms=settings.until_ms,
                closes=settings.until_us is None or settings.complete_log,
                exchange=exchange,
                keep_state=settings.keep_state,
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
        output,
        run.tables,
        settings.items,
        about(settings, run),
        {STATE: state_output(kernel)} if settings.keep_state else {},
        () if settings.keep_state else (STATE,),
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


def state_settings(settings: Settings) -> list[Setting]:
    """Return what the state of a run depends on."""
    hidden = _masking(settings)
    return [
        Setting("disorder_ms", "--disorder", settings.disorder_ms),
        Setting("end_states", "--end_states", sorted(settings.end_states)),
        Setting("case_retention_ms", "--case_retention", settings.case_retention_ms),
        Setting("idle_retention_ms", "--idle_retention", settings.idle_retention_ms),
        Setting("mask", "--mask", sorted(settings.mask)),
        # Tells whether the key is the same one, and not the key.
        Setting(
            "mask_key_check",
            "--mask_key",
            "" if hidden is None else hidden.token(b"", b"state"),
            secret=True,
        ),
    ]


def handover(settings: Settings, shards: int) -> Handover | None:
    """Return the state that a stream begins with; None if it begins with none.

    Raises:
        RunError: it can't go on from that state.
    """
    if not settings.state_from:
        return None
    try:
        return Handover.open(
            settings.state_from,
            TransitionsKernel(rules(settings)),
            state_settings(settings),
            shards,
            settings.started_us // 1000,
            STATE_VERSION,
        )
    except HandoverError as error:
        raise RunError(ExitCode.USAGE, f"--state_from: {error}") from None


def about(settings: Settings, run: RunContext) -> dict[str, Any]:
    """Return what the manifest says of the run itself."""
    made: dict[str, Any] = {}
    if settings.keep_state:
        kernel = TransitionsKernel(rules(settings))
        left = describe(kernel, STATE_VERSION, settings.until_ms, state_settings(settings))
        # Not compared: the stream's own format may name the same things otherwise.
        made[STATE] = {**left, "columns": dict(settings.columns), "format": settings.format}
    return {
        **made,
        "pipeline": settings.pipeline,
        "version": run.version,
        "run_id": run.run_id,
        "engine": run.engine,
        "started": time_text(settings.started_us),
        "until": "end" if settings.until_us is None else time_text(settings.until_us),
        "shards": run.plan.shards,
        "options": list(settings.arguments) if not settings.mask else _without_paths(settings),
        "input": {"files": len(run.plan.files), "bytes": run.plan.bytes},
        "items": settings.types,
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
