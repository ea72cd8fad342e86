"""Runs a backfill from options to exit code: plan, checks, engine, waiting, closing.

Everything that can be wrong with the configuration is found before the engine starts. The
pipeline runs in a thread of its own, because the FnApiRunner's `run` blocks, so that
progress is shown and Ctrl-C is heard. A run that fails leaves the output as it was.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import apache_beam as beam
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from pipelines import (
    beam_log,
    dataflow,
    engine,
    flink,
    flink_options,
    flink_watch,
    prism_engine,
    summary,
    watch,
)
from pipelines.databases import check_databases, databases_of, deliver, staged
from pipelines.exit_codes import ExitCode, RunError
from pipelines.flink import FlinkPlan
from pipelines.job import Job
from pipelines.output import NO_ROOM, hold_output, one_line, read_manifest
from pipelines.paths import CLIENTS, with_top_level
from pipelines.registry import Pipeline, RunContext
from pipelines.screen import Screen
from pipelines.settings import Settings
from pipelines.version import version
from pipelines.workers import Workers
from transforms import progress
from transforms.formats import registry
from transforms.sinks.commit import Run
from transforms.sources import files

POLL_S = 0.1


def launch_backfill(
    pipeline: Pipeline, settings: Settings, flags: PipelineOptions, screen: Screen
) -> ExitCode:
    """Run a pipeline over files.

    Raises:
        RunError: it can't be started, or it failed.
        KeyboardInterrupt: the user has had enough; everything temporary is removed.
    """
    with staged(settings) as held, Workers([f"pipelines.{pipeline.name}"]) as workers:
        return _run(pipeline, held, flags, screen, workers)


def _run(
    pipeline: Pipeline,
    settings: Settings,
    flags: PipelineOptions,
    screen: Screen,
    workers: Workers,
) -> ExitCode:
    begun = time.monotonic()
    if dataflow.wanted(flags):
        dataflow.check(settings, flags)
    _check_file_systems(settings)
    choose = partial(
        engine.choose,
        flags,
        settings.arguments,
        settings.workers,
        python_bound=frozenset(n for n in registry.names() if registry.get(n).python_bound),
    )

    def foresee(sizes: Mapping[str, int]) -> bool:
        ahead = choose(sizes)
        if ahead.mode != "processes":
            return False
        workers.start(ahead.workers)
        return True

    if settings.explain_plan or foresee({}):
        plan = make_plan(settings)
    else:
        plan = make_plan(settings, engine.PROCESSES_FROM, foresee)
    chosen = choose({name: size for name, (_, size) in plan.formats.items()})
    if chosen.mode != "processes":
        workers.stop()
    # Prism is a process of ours.
    here = chosen.mode != "elsewhere" or prism_engine.wanted(flags)
    beam_log.configure(settings.verbose, local=here)
    detached = flags.view_as(StandardOptions).no_wait_until_finish
    on_flink: FlinkPlan | None = None
    if flink_options.wanted(flags):
        on_flink = flink.plan(
            flags, streaming=False, detached=detached, name=pipeline.name, useful=plan.shards
        )
        # Its workers are processes of this machine then, and see its files.
        chosen = replace(chosen, local=chosen.local or on_flink.own_pool)
    check_databases(pipeline, settings, screen, flags, local=chosen.local, streaming=False)
    if databases_of(settings) and (detached or not (chosen.local or "://" in settings.output)):
        raise RunError(ExitCode.USAGE, _undeliverable(settings, chosen, detached))
    if settings.explain_plan:
        summary.show_plan(screen, pipeline, settings, plan, chosen, on_flink)
        return ExitCode.OK
    run_id = _run_id(settings)
    with hold_output(pipeline, settings, run_id) as sink:
        screen.note(f"engine: {chosen} ({chosen.reason})")
        summary.note_of_ends(screen, settings)
        scratch = sink.scratch if chosen.local else ""
        _warn_early(screen, settings, plan, chosen, sink)
        run = RunContext(
            run_id,
            str(chosen),
            chosen.local,
            scratch,
            plan,
            sink if chosen.local else sink.elsewhere(),
            pipeline.tables,
            version(),
        )
        if scratch:
            progress.prepare(scratch)
        if prism_engine.wanted(flags):
            prism_engine.prepare(flags)
        runner = engine.make_runner(chosen, flags, settings.verbose, scratch, workers)
        root = beam.Pipeline(runner=runner, options=flags)
        pipeline.build(root, settings, run)
        quiet = here or on_flink is not None
        with (
            _serving(on_flink, root.options, pipeline),
            beam_log.quiet_stderr(quiet and not settings.verbose),
        ):
            job = Job(root, wait=not detached)
            try:
                with watch.watching(screen, settings.progress, plan.bytes, plan.shards) as watcher:

                    def update() -> None:
                        watcher.update(progress.read_progress(scratch))

                    if on_flink is None:
                        _await(job, workers, update)
                    else:
                        patience_s = settings.start_patience_ms / 1000
                        flink_watch.await_job(
                            job, on_flink, screen, patience_s, detached=detached, update=update
                        )
            finally:
                # Still quiet: the runner's threads complain of workers that are ended.
                workers.stop()
        if detached and chosen.mode == "elsewhere":
            screen.note(f"submitted to {chosen}; not waiting (--no_wait_until_finish)")
            return ExitCode.OK
        manifest = read_manifest(settings.output, run.run_id)
    delivered = deliver(screen, settings, manifest, flags)
    return summary.close(screen, settings, manifest, time.monotonic() - begun, delivered)


def _undeliverable(settings: Settings, chosen: engine.Engine, detached: bool) -> str:
    target = databases_of(settings)[0]
    if detached:
        return (
            f"--output {target} is filled when the tables are whole, and --no_wait_until_finish "
            "does not wait for that; leave it out"
        )
    return (
        f"--output {target} is filled from files, and the workers of {chosen} share none with this "
        f"machine; give a folder of theirs besides: --output gs://bucket/out {target}"
    )


def _serving(
    on_flink: FlinkPlan | None, flags: PipelineOptions, pipeline: Pipeline
) -> AbstractContextManager[None]:
    if on_flink is None:
        return prism_engine.serving(flags) if prism_engine.wanted(flags) else nullcontext()
    return flink.serving(on_flink, flags, (f"pipelines.{pipeline.name}",))


def _check_file_systems(settings: Settings) -> None:
    named = [("input", pattern) for pattern in settings.input]
    if settings.output:
        named.append(("output", settings.output))
    for option, path in named:
        try:
            FileSystems.get_filesystem(path)
        except ValueError:
            text = (
                f"--{option} '{path}' is on a file system that Beam does not know; use a path of "
                f"this machine or one of {', '.join(f'{scheme}://' for scheme in CLIENTS)}"
            )
            raise RunError(ExitCode.USAGE, text) from None


def make_plan(
    settings: Settings,
    much: int = 0,
    foresee: Callable[[Mapping[str, int]], object] | None = None,
) -> files.Plan:
    """Match the input and say what is to be read.

    Args:
        settings: of the run.
        much: bytes of input from which `foresee` is called.
        foresee: called once, as soon as so much has been found, with the bytes of each format as
            they seem to be. Nothing is called if there is less.

    Raises:
        RunError: nothing matches, or it can't be matched.
    """
    try:
        plan = files.plan(
            with_top_level(settings.input),
            settings.format,
            settings.context(),
            shards=settings.shards,
            much=much,
            foresee=foresee,
        )
    except (BeamIOError, OSError) as error:
        raise RunError(ExitCode.NO_INPUT, f"--input can't be read: {one_line(error)}") from None
    if not plan.files:
        missing = "; ".join(_no_match(pattern) for pattern in settings.input)
        raise RunError(ExitCode.NO_INPUT, missing)
    unmet = files.unmet_demand(plan, settings.format, settings.context())
    if unmet is not None:
        raise RunError(ExitCode.USAGE, unmet)
    if settings.columns or settings.mapping is not None:
        # Columns given by name that the first file lacks are a slip, not bad data.
        unfit = files.unfit_columns(plan, settings.context())
        if unfit is not None:
            given = ",".join(f"{column}={name}" for column, name in settings.columns)
            option = f"--columns {given}" if given else "--mapping"
            raise RunError(ExitCode.USAGE, f"{option} does not fit {unfit}")
    return plan


def _no_match(pattern: str) -> str:
    text = f"no file matches --input '{pattern}'"
    if "://" in pattern:
        return text
    fixed = Path(pattern)
    while any(c in str(fixed) for c in "*?[") or not os.path.exists(fixed):
        missing, fixed = fixed, fixed.parent
        if fixed == missing:
            return text
    if fixed.is_dir():
        first = missing if fixed != Path(pattern) else fixed
        if not any(c in first.name for c in "*?["):
            return f"{text}; there is no '{first}'"
        return f"{text}; there is a folder '{fixed}', but nothing in it matches"
    return text


def _warn_early(
    screen: Screen, settings: Settings, plan: files.Plan, chosen: engine.Engine, sink: Run
) -> None:
    for warning in (*plan.warnings, *sink.notes):
        screen.warn(warning)
    if chosen.local and shutil.disk_usage(sink.scratch).free < plan.bytes:
        screen.warn(
            f"the disk of {sink.scratch} has less room than the input has bytes; "
            "give an --output on a larger one"
        )
    if not chosen.local and sink.store.local:
        screen.warn(
            f"--output '{settings.output}' is a folder of this machine, but the workers of "
            f"{chosen} may be on others; give one that all of them see"
        )


def _await(job: Job, workers: Workers, watcher: Callable[[], None]) -> None:
    """Wait for a job.

    Raises:
        RunError: it failed.
        KeyboardInterrupt: not waited any longer; a runner elsewhere is told to cancel.
    """
    try:
        over = False
        while not over:
            over = job.ended.wait(POLL_S)
            watcher()
            died = workers.dead()
            if died and job.error is None:
                raise RunError(ExitCode.FAILED, died)
    except KeyboardInterrupt:
        if job.result is not None:
            job.result.cancel()
        raise
    if isinstance(job.error, KeyboardInterrupt):
        raise job.error
    if job.error is not None:
        trouble = beam_log.original_error(job.error)
        if trouble.kind == "OutputError" or trouble.number in NO_ROOM:
            text = NO_ROOM.get(trouble.number or 0, "")
            raise RunError(ExitCode.OUTPUT, f"{trouble}{text}", traceback=True) from job.error
        raise RunError(ExitCode.FAILED, f"{trouble}", traceback=True) from job.error


def _run_id(settings: Settings) -> str:
    started = datetime.fromtimestamp(settings.started_us // 1_000_000, timezone.utc)
    return f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
