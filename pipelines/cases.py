"""From events to folded cases: what every pipeline that folds cases begins, and ends, with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import apache_beam as beam

from pipelines.exit_codes import ExitCode, RunError
from pipelines.registry import RunContext, Stream
from pipelines.settings import Settings
from pipelines.stream_io import beam_time, reading, writing
from pipelines.values import time_text
from schemas.tables import DEAD_LETTERS, TABLES, Output
from transforms.counts import COUNTS
from transforms.decode import DEAD, DecodeFiles
from transforms.decode_messages import DecodeMessages
from transforms.exchange import Exchange
from transforms.fold.bounded import CHUNK_BYTES, BoundedFold
from transforms.fold.granules import GranuleFold
from transforms.fold.handover import (
    STATE,
    Handover,
    HandoverError,
    describe,
    state_output,
)
from transforms.fold.made import Setting
from transforms.fold.passing import HandOn
from transforms.fold.steps import FoldShards
from transforms.fold.streaming import FoldStream
from transforms.kernels.base import Kernel
from transforms.kernels.case_state import Rules
from transforms.mask import Masking, masking
from transforms.sinks.commit import Run
from transforms.sinks.granules import WriteGranules
from transforms.sinks.steps import Commit, WriteBatches

DEAD_PARTS_FROM = 1024**3
"""Bytes of input from which dead letters are written in several parts."""

STATE_VERSION = 1
"""Of `transforms.kernels.case_state.STATE_SCHEMA`."""


def decode_stream(
    root: beam.Pipeline, settings: Settings, run: RunContext, stream: Stream
) -> beam.pvalue.DoOutputsTuple:
    """Read topics and decode their messages: (key of a shard, element); `DEAD` of rows."""
    read = [
        root | f"Read {number}" >> reading(address, number, settings, stream)
        for number, address in enumerate(settings.sources)
    ]
    return (
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


def case_stream(
    kernel: Kernel,
    settings: Settings,
    run: RunContext,
    stream: Stream,
    *,
    begins: Handover | None = None,
    made: Iterable[Setting] = (),
    hands_on: HandOn | None = None,
    unit_ms: int = 0,
) -> FoldStream:
    """Return the step that folds a stream's cases.

    Args:
        kernel: with `case_state.STATE_SCHEMA`, or more.
        settings: of the run.
        run: of the run.
        stream: of the run.
        begins: the state that it begins with.
        made: what the state depends on besides.
        hands_on: what another fold takes.
        unit_ms: see `GranuleFold`.
    """
    fold = GranuleFold(
        kernel,
        disorder_us=settings.disorder_ms * 1000,
        granule_ms=settings.granule_ms,
        by_marks=stream.by_marks,
        unit_ms=unit_ms,
        tells=hands_on is not None,
        state_version=STATE_VERSION,
        beam_time=beam_time(settings, stream),
        made=(Setting("shards", "--shards", stream.shards), *state_settings(settings), *made),
    )
    element = begins.element if begins is not None else None
    return FoldStream(fold, run.run_id, run.scratch, stream.shards, element, hands_on)


def write_stream(
    rows: Mapping[str, beam.PCollection],
    dead: beam.PCollection,
    settings: Settings,
    run: RunContext,
    stream: Stream,
) -> None:
    """Write a stream's tables to all its outputs.

    Args:
        rows: what the labels of their steps begin with -> packed rows (`fold.streaming.Rows`).
        dead: packed rows of dead letters.
        settings: of the run.
        run: of the run.
        stream: of the run.
    """
    tables = {name: TABLES[name] for name in run.tables}
    letters: dict[str, Output] = {n: t for n, t in tables.items() if n == DEAD_LETTERS.name}
    others = {name: table for name, table in tables.items() if name not in letters}
    # No Flatten: the FnApiRunner does not fuse what is behind one, and holds it back for ever.
    for number, target in enumerate(settings.targets):
        for label, folded in rows.items():
            write = writing(target, others, number, run.scratch, stream)
            folded | f"Write {label}topics {number}" >> write
        if letters:
            write_dead = writing(target, letters, number, run.scratch, stream)
            dead | f"Write dead letters {number}" >> write_dead
    if run.output is not None:
        files = WriteGranules(run.output, tables, run.scratch)
        for label, folded in rows.items():
            folded | f"Write {label}files" >> files
        if letters:
            dead | "Write dead files" >> files


def decode_files(
    root: beam.Pipeline, settings: Settings, run: RunContext, exchange: Exchange
) -> beam.pvalue.DoOutputsTuple:
    """Read files and decode them: (shard, packed events); `DEAD` and `COUNTS`."""
    plan = run.plan
    hidden = _masking(settings)
    # Beam compresses what a Create holds: the names of a large archive are left in files.
    units = [exchange.leave(unit.to_bytes(), f"unit-{unit.number}") for unit in plan.units]
    return (
        root
        | "Plan units" >> beam.Create(units)
        # Without this the units would be read one after the other, by one worker.
        | "Spread units" >> beam.Reshuffle()
        # unit
        | "Decode"
        >> DecodeFiles(settings.context(), "case_id", plan.shards, exchange, hidden, run.scratch)
    )


def case_files(
    kernel: Kernel,
    settings: Settings,
    run: RunContext,
    output: Run,
    exchange: Exchange,
    hands_on: HandOn | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> FoldShards:
    """Return the step that folds an archive's cases and writes their tables."""
    fold = BoundedFold(
        kernel,
        disorder_us=settings.disorder_ms * 1000,
        until_ms=settings.until_ms,
        closes=closes(settings),
        exchange=exchange,
        chunk_bytes=chunk_bytes,
        keep_state=settings.keep_state,
    )
    return FoldShards(fold, output, run.plan.shards, run.scratch, hands_on)


def closes(settings: Settings) -> bool:
    """Whether the input ends for good, so that every deadline fires."""
    return settings.until_us is None or settings.complete_log


def commit(
    folded: Mapping[str, beam.pvalue.DoOutputsTuple],
    decoded: beam.pvalue.DoOutputsTuple,
    settings: Settings,
    run: RunContext,
    output: Run,
    kernel: Kernel,
) -> None:
    """Write the dead letters, and make all tables the output, together.

    Args:
        folded: parts and counts of the folds, by name.
        decoded: what was decoded.
        settings: of the run.
        run: of the run.
        output: of the run.
        kernel: of the cases.
    """
    written = [each.parts for each in folded.values()]
    if DEAD_LETTERS.name in run.tables:
        many = run.plan.bytes >= DEAD_PARTS_FROM
        # (unit, packed dead letters)
        write = WriteBatches(DEAD_LETTERS, output, 8 if many else 1)
        written.append(decoded[DEAD] | "Write dead letters" >> write)
    parts = written | "Gather parts" >> beam.Flatten()
    counted = [decoded[COUNTS], *(each[COUNTS] for each in folded.values())]
    counts = counted | "Gather counts" >> beam.Flatten()
    # Only when every part is written: all tables appear together.
    (parts, counts) | "Commit" >> Commit(
        output,
        run.tables,
        settings.items,
        settings.end_states,
        about(settings, run, kernel),
        {STATE: state_output(kernel)} if settings.keep_state else {},
        # Of another run, whose tables are not these.
        (
            *(name for name in TABLES if name not in run.tables),
            *(() if settings.keep_state else (STATE,)),
        ),
    )


def _masking(settings: Settings) -> Masking | None:
    return masking(settings.mask, settings.items, settings.mask_key) if settings.mask else None


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


def handover(settings: Settings, kernel: Kernel, shards: int) -> Handover | None:
    """Return the state that a stream begins with; None if it begins with none.

    Raises:
        RunError: it can't go on from that state.
    """
    if not settings.state_from:
        return None
    try:
        return Handover.open(
            settings.state_from,
            kernel,
            state_settings(settings),
            shards,
            settings.started_us // 1000,
            STATE_VERSION,
        )
    except HandoverError as error:
        raise RunError(ExitCode.USAGE, f"--state_from: {error}") from None


def about(settings: Settings, run: RunContext, kernel: Kernel) -> dict[str, Any]:
    """Return what the manifest says of the run itself."""
    made: dict[str, Any] = {}
    if settings.keep_state:
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
        **settings.cut,
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
