"""Runs a stream from options to exit code: checks, engine, a picture while it runs, draining.

A stream runs until it is stopped. Ctrl-C (or SIGTERM) lets its readers end: what they have
read is folded and delivered, and the laws are shown. A second one does not wait for that.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from pipelines import beam_log, brokers, flink, flink_options, flink_watch, picture, stream_engine
from pipelines import dataflow as on_dataflow
from pipelines.databases import (
    check_databases,
    databases_of,
    prepare_databases,
    show_database,
)
from pipelines.exit_codes import ExitCode, RunError, Terminated
from pipelines.flink import FlinkPlan
from pipelines.job import Job
from pipelines.laws import laws, show_laws, verdict
from pipelines.output import NO_ROOM, hold_output
from pipelines.registry import Pipeline, RunContext, Stream
from pipelines.screen import Screen, counted
from pipelines.settings import Settings
from pipelines.stream_engine import StreamEngine
from pipelines.summary import note_of_ends
from pipelines.table_files import files_of
from pipelines.topic_memory import cut_before, remember
from pipelines.topics import check_brokers, check_schemas, plan_topics
from pipelines.values import time_text
from pipelines.version import version
from schemas.tables import TABLES
from transforms import progress, receipts
from transforms.counts import REASON
from transforms.decode_messages import DecodeMessages
from transforms.fold.granules import WAITING
from transforms.fold.streaming import FoldStream
from transforms.kafka.address import COMMITTED
from transforms.sinks.commit import OutputError, Run
from transforms.sinks.delivery import delivered
from transforms.sinks.granules import check_tables, write_manifest, written
from transforms.sinks.steps import summarise
from transforms.topics import TopicPlan

SHARDS = 64
"""Of a stream on a cluster: shards of a worker should be many, or one gets more than others."""

FLINK_SHARDS = 16
"""On Flink, which gets keys that it spreads evenly: fewer shards get larger elements."""

LOCAL_SHARDS = 2
"""Of a stream in one process: each costs a step a granule."""

LEAST_FILE_MS = 10_000
"""Shorter granules make too many files."""

POLL_S = 0.1
STOP = "stop"


def launch_stream(
    pipeline: Pipeline, settings: Settings, flags: PipelineOptions, screen: Screen
) -> ExitCode:
    """Run a stream.

    Raises:
        RunError: it can't be started, or it failed.
        KeyboardInterrupt: the user has had enough of the draining, too.
    """
    begun = time.monotonic()
    chosen = stream_engine.choose(flags, len(settings.sources))
    beam_log.configure(settings.verbose, local=chosen.local)
    if chosen.by_marks and len(settings.sources) > 1:
        text = (
            "the FnApiRunner reads one --input with several topics, and here are "
            f"{len(settings.sources)}; give them in one address, or build Prism: make services"
        )
        raise RunError(ExitCode.USAGE, text)
    if chosen.native:
        on_dataflow.check(settings, flags)
    before = cut_before(settings)
    if settings.window is not None and before not in ("", str(settings.window)):
        text = (
            f"{settings.output} has windows of {before}, and --window is {settings.window}: rows "
            f"of both would be added up; give --window {before}, or another folder"
        )
        raise RunError(ExitCode.USAGE, text)
    topics = check_brokers(pipeline, settings)
    check_databases(pipeline, settings, screen, flags, local=chosen.local, streaming=True)
    detached = flags.view_as(StandardOptions).no_wait_until_finish and not chosen.local
    on_flink: FlinkPlan | None = None
    if flink_options.wanted(flags):
        useful = max(1, sum(topics.values()))
        on_flink = flink.plan(
            flags, streaming=True, detached=detached, name=pipeline.name, useful=useful
        )
        _check_finalized(settings, flags)
    check_schemas(screen, settings)
    plans = plan_topics(screen, settings, topics)
    shards = settings.shards or _shards(chosen)
    if on_flink is not None and on_flink.parallelism > shards:
        screen.warn(
            f"--parallelism {on_flink.parallelism} is more than there are shards, {shards}: give "
            "--shards, which a stream keeps for life"
        )
    if settings.explain_plan:
        _show_plan(screen, pipeline, settings, topics, chosen, on_flink)
        return ExitCode.OK
    with _scratch(chosen) as scratch, _folder(pipeline, settings, detached) as sink:
        remember(settings, plans)
        run = _context(pipeline, settings, chosen, scratch, sink, plans)
        runner = stream_engine.make_runner(chosen, flags)
        root = beam.Pipeline(runner=runner, options=flags)
        # Before anything is made: a state that is handed over may not fit.
        pipeline.build(root, settings, run)
        for target in brokers.topics_among(settings.targets):
            for name in brokers.create_topics(target, _outputs(pipeline)):
                lost = "; until it has a subscription its rows are kept by nobody"
                screen.note(f"created topic {name}{lost if brokers.is_pubsub(target) else ''}")
        prepare_databases(pipeline, settings, screen)
        screen.note(f"engine: {chosen} ({chosen.reason})")
        note_of_ends(screen, settings)
        _warn_of_files(screen, settings, chosen, sink)
        if on_flink is not None:
            return _on_flink(screen, pipeline, settings, root, on_flink, detached)
        with stream_engine.serving(chosen, root.options):
            job = Job(root, wait=not detached)
            with beam_log.quiet_stderr(chosen.local and not settings.verbose):
                with picture.watching(screen, settings.progress, begun) as panel:
                    _await(job, chosen, run, screen, panel)
        _settle(settings)
        if detached:
            screen.note(f"submitted to {chosen}; not waiting (--no_wait_until_finish)")
            return ExitCode.OK
        if not chosen.local:
            return ExitCode.OK
        progress.flush_all()
        counts = progress.read_counts(scratch)
        tables = {} if sink is None else written(counts, pipeline.tables)
        if sink is not None:
            _write_manifest(sink, settings, run, topics, counts, tables)
    return close(screen, settings, counts, time.monotonic() - begun, tables)


def _on_flink(
    screen: Screen,
    pipeline: Pipeline,
    settings: Settings,
    root: beam.Pipeline,
    on_flink: FlinkPlan,
    detached: bool,
) -> ExitCode:
    """Submit a stream to Flink and look after it until it is stopped."""
    begun = time.monotonic()
    with flink.serving(on_flink, root.options, (f"pipelines.{pipeline.name}",)):
        with beam_log.quiet_stderr(not settings.verbose):
            job = Job(root, wait=not detached)
            patience_s = settings.start_patience_ms / 1000
            watched = flink_watch.await_job(
                job, on_flink, screen, patience_s, settings.savepoint_folder, detached=detached
            )
        if detached:
            screen.note(f"{on_flink.job_name} works; not waiting (--no_wait_until_finish)")
            return ExitCode.OK
        if watched is None or watched.restarts or job.result is None or job.error is not None:
            screen.note("what was counted since the last restart is no whole: no laws are shown")
            return ExitCode.OK
        counts = flink_watch.counts_of(job.result, (DecodeMessages, FoldStream))
    # Counters say nothing of single items and states.
    counted_by_flink = replace(settings, targets=(), items=(), end_states=())
    return close(screen, counted_by_flink, counts, time.monotonic() - begun)


def _say_dead(screen: Screen, counts: Mapping[str, int], said: set[str]) -> None:
    """Name each class of dead letters when its first ones come: a mistake is seen at once."""
    for name in sorted(counts):
        if name.startswith(REASON) and name not in said:
            said.add(name)
            screen.note(f"dead letters of {name[len(REASON) :]}; the table dead_letters says why")


def close(
    screen: Screen,
    settings: Settings,
    counts: Mapping[str, int],
    seconds: float,
    tables: Mapping[str, Mapping[str, int]] | None = None,
) -> ExitCode:
    """Print the laws of a stream that was stopped, and return how it ended.

    Args:
        screen: where.
        settings: of the run.
        counts: by name.
        seconds: how long it ran.
        tables: rows and files that it has written to a folder, if to any.
    """
    manifest = {**summarise(counts, settings.items, settings.end_states), "tables": tables or {}}
    manifest["events"][WAITING] = counts.get(WAITING, 0)
    for warning in manifest.get("warnings", ()):
        screen.warn(warning)
    checked = laws(manifest)
    for number, target in enumerate(settings.targets):
        names = settings.tables
        rows = {name: {"rows": n} for name, n in delivered(counts, number, names).items()}
        for law in laws({**manifest, "tables": rows})[2:]:
            checked.append(replace(law, unit=f"{law.unit} in {target}"))
    show_laws(screen, checked)
    reasons = Counter({n[len(REASON) :]: c for n, c in counts.items() if n.startswith(REASON)})
    if reasons:
        said = ", ".join(f"{error} {count:,}" for error, count in reasons.most_common())
        screen.say(f"dead      {counted(reasons.total(), 'dead letter')}: {said}")
    behind = counts.get("behind_watermark", 0)
    if behind:
        screen.warn(
            f"{counted(behind, 'event')} came behind the watermark: folded when they "
            "came; a longer --disorder or ?idle= waits for them"
        )
    missed = counts.get("behind_windows", 0)
    if missed:
        screen.warn(
            f"{counted(missed, 'sum')} of events that came behind the watermark are in no window: "
            "those were over; a longer --disorder or ?idle= waits for them"
        )
    events = manifest["events"]["in"]
    screen.say(f"stopped after {seconds:,.1f} s, {events / max(seconds, 0.001):,.0f} events/s")
    if tables:
        files = sum(each["files"] for each in tables.values())
        screen.say(
            f"{counted(files, 'file')} written; look: "
            f"python run.py show {shlex.quote(settings.output)}"
        )
    return verdict(screen, settings, manifest, checked)


def _check_finalized(settings: Settings, flags: PipelineOptions) -> None:
    """Refuse a job on Flink that would never acknowledge a message."""
    for address in settings.sources:
        if brokers.is_pubsub(address) and not _checkpoints(flags):
            text = (
                f"--input {address}: on Flink messages are acknowledged with checkpoints, and "
                "--checkpointing_interval turns them off; give milliseconds, such as 10000"
            )
            raise RunError(ExitCode.USAGE, text)


def _checkpoints(flags: PipelineOptions) -> bool:
    interval = flags.get_all_options().get("checkpointing_interval")
    return interval is not None and int(interval) > 0


def _settle(settings: Settings) -> None:
    """Acknowledge what was delivered at the very end, and give back the rest."""
    if any(map(brokers.is_pubsub, settings.sources)):
        from transforms.sources import pubsub  # noqa: PLC0415 (its client may be missing)

        pubsub.end_all()


def _outputs(pipeline: Pipeline) -> dict[str, Any]:
    return {name: TABLES[name] for name in pipeline.tables}


@contextmanager
def _scratch(engine: StreamEngine) -> Iterator[str]:
    """Hold a folder for counts and for the file that stops the readers."""
    if not engine.local:
        yield ""
        return
    folder = tempfile.mkdtemp(prefix="imixs-streams-")
    try:
        progress.prepare(folder)
        yield folder
    finally:
        receipts.close_account(folder)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _folder(pipeline: Pipeline, settings: Settings, detached: bool) -> Iterator[Run | None]:
    """Hold the folder that tables are written to, if they are: no other run may have it.

    Args:
        pipeline: whose tables.
        settings: of the run.
        detached: whether the stream goes on when this process has ended.

    Raises:
        RunError: it can't be written, or another run is writing to it.
    """
    if not settings.output:
        yield None
        return
    # Of no table: what is there stays.
    with hold_output(replace(pipeline, tables=()), settings, _run_id(settings)) as sink:
        try:
            check_tables(sink, pipeline.tables)
        except OutputError as error:
            raise RunError(ExitCode.OUTPUT, f"--output: {error}") from None
        yield sink
        if not detached:
            sink.abort()


def _warn_of_files(
    screen: Screen, settings: Settings, engine: StreamEngine, sink: Run | None
) -> None:
    if sink is None:
        return
    for note in sink.notes:
        screen.warn(note)
    if settings.granule_ms < LEAST_FILE_MS:
        screen.warn(
            f"{settings.output} will get many small files, some for each shard and granule of "
            f"{settings.granule_ms:,} ms; --granule 60s makes fewer"
        )
    # Where it begins does not matter to a subscription.
    goes_on = any(getattr(each, "start", COMMITTED) == COMMITTED for each in settings.sources)
    if (
        engine.local
        and goes_on
        and not settings.state_from
        and any(files_of(settings.output, name) for name in settings.tables)
    ):
        screen.warn(
            f"{settings.output} has the tables of an earlier run, whose memory of open cases ended "
            "with it: they begin anew. From Kafka ?start=earliest gives the same rows again; "
            "--state_from goes on from a backfill"
        )
    if not engine.local and sink.store.local:
        screen.warn(
            f"--output '{settings.output}' is a folder of this machine, but the workers of "
            f"{engine} may be on others; give one that all of them see"
        )


def _write_manifest(
    sink: Run,
    settings: Settings,
    run: RunContext,
    topics: Mapping[str, int],
    counts: Mapping[str, int],
    tables: Mapping[str, Mapping[str, int]],
) -> None:
    manifest = {
        "pipeline": settings.pipeline,
        "version": run.version,
        "run_id": run.run_id,
        "engine": run.engine,
        "started": time_text(settings.started_us),
        "until": "stopped",
        "shards": run.stream.shards if run.stream is not None else 0,
        "options": list(settings.arguments),
        "input": {"topics": dict(topics)},
        "items": settings.types,
        **settings.cut,
        # An end state that nobody came to yet is no news to who goes on in this folder.
        **summarise(counts, settings.items),
        "tables": tables,
    }
    try:
        write_manifest(sink, manifest)
    except OutputError as error:
        raise RunError(ExitCode.OUTPUT, f"--output: {error}") from None


def _shards(engine: StreamEngine) -> int:
    if engine.local:
        return LOCAL_SHARDS
    return FLINK_SHARDS if flink_options.is_flink(engine.runner) else SHARDS


def _run_id(settings: Settings) -> str:
    return f"{settings.started_us}-{os.getpid()}"


def _context(
    pipeline: Pipeline,
    settings: Settings,
    engine: StreamEngine,
    scratch: str,
    sink: Run | None,
    plans: Mapping[str, TopicPlan | None],
) -> RunContext:
    if scratch:
        # Engines of one process keep nothing: what they finalize may not have been delivered.
        receipts.open_account(scratch, len(settings.targets) + (sink is not None))
    stream = Stream(
        shards=settings.shards or _shards(engine),
        by_marks=engine.by_marks,
        stop=os.path.join(scratch, STOP) if scratch else "",
        splits=1 if engine.local else None,
        rests=flink_options.is_flink(engine.runner),
        plans={topic: plan for topic, plan in plans.items() if plan is not None},
        account=scratch,
        native=engine.native,
    )
    return RunContext(
        run_id=_run_id(settings),
        engine=str(engine),
        local=engine.local,
        scratch=scratch,
        plan=None,
        output=sink if sink is None or engine.local else sink.elsewhere(),
        tables=pipeline.tables,
        version=version(),
        stream=stream,
    )


def _await(
    job: Job,
    engine: StreamEngine,
    run: RunContext,
    screen: Screen,
    panel: picture.Panel,
) -> None:
    """Wait until the stream has ended; Ctrl-C lets it end."""
    stopping = False
    said: set[str] = set()
    while True:
        try:
            # Within the block: a signal may come at any line.
            if job.ended.wait(POLL_S):
                break
            counts = progress.read_counts(run.scratch)
            panel.update(counts)
            _say_dead(screen, counts, said)
        except KeyboardInterrupt as stopped:
            if stopping or not engine.local:
                if job.result is not None:
                    with suppress(Exception):
                        job.result.cancel()
                if not stopping:
                    raise
                ended = isinstance(stopped, Terminated)
                text = "ended at once: what was read and not delivered is not in the output"
                code = ExitCode.TERMINATED if ended else ExitCode.INTERRUPTED
                raise RunError(code, text) from None
            stopping = True
            assert run.stream is not None
            Path(run.stream.stop).touch()
            what = "terminated" if isinstance(stopped, Terminated) else "stopping"
            screen.note(f"{what}: what was read is folded and delivered (Ctrl-C again: at once)")
    if job.error is not None:
        original = beam_log.original_error(job.error)
        if original.number in NO_ROOM:
            text = f"{original}{NO_ROOM[original.number]}"
            raise RunError(ExitCode.OUTPUT, text, traceback=True) from job.error
        raise RunError(ExitCode.FAILED, original.text, traceback=True) from job.error


def _show_plan(
    screen: Screen,
    pipeline: Pipeline,
    settings: Settings,
    topics: Mapping[str, int],
    engine: StreamEngine,
    on_flink: FlinkPlan | None,
) -> None:
    """Print what a stream would do."""
    screen.say(f"pipeline  {pipeline.name}: {pipeline.title}")
    for address in settings.sources:
        screen.say(f"input     {address}")
    for topic, partitions in topics.items():
        screen.say(f"          {topic}: {counted(partitions, 'partition')}")
    screen.say(
        f"work      {settings.shards or _shards(engine)} shards, granules of "
        f"{settings.granule_ms} ms"
    )
    screen.say(f"engine    {engine} ({engine.reason})")
    for setting in on_flink.settings if on_flink is not None else ():
        screen.say(f"          {setting}")
    for target in brokers.topics_among(settings.targets):
        screen.say(f"output    {target}")
    for database in databases_of(settings):
        show_database(screen, database, pipeline)
    if settings.output:
        screen.say(f"output    {settings.output}, {settings.output_format}")
    screen.say(f"          {', '.join(pipeline.tables)}")
    screen.say("nothing was read, and nothing written (--explain_plan)")
