"""Runs a stream from options to exit code: checks, engine, a picture while it runs, draining.

A stream runs until it is stopped. Ctrl-C (or SIGTERM) lets its readers end: what they have
read is folded and delivered, and the laws are shown. A second one does not wait for that.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from pipelines import beam_log, picture, stream_engine, summary
from pipelines.exit_codes import ExitCode, RunError, Terminated
from pipelines.options import Settings
from pipelines.registry import Pipeline, RunContext, Stream
from pipelines.stream_engine import StreamEngine
from pipelines.version import version
from schemas.tables import TABLES
from transforms import progress
from transforms.kafka import BadAddress, BrokerFault, check, check_target
from transforms.sinks.kafka import create_topics
from transforms.sinks.steps import summarise

SHARDS = 16
"""Of a stream: docs/performance.md has the figures."""

POLL_S = 0.1
STOP = "stop"


def launch_stream(
    pipeline: Pipeline, settings: Settings, flags: PipelineOptions, screen: summary.Screen
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
    topics = _check_brokers(pipeline, settings)
    if settings.explain_plan:
        _show_plan(screen, pipeline, settings, topics, chosen)
        return ExitCode.OK
    for target in settings.targets:
        for name in _of_broker(partial(create_topics, target, _outputs(pipeline))):
            screen.note(f"created topic {name}")
    screen.note(f"engine: {chosen} ({chosen.reason})")
    with _scratch(chosen) as scratch:
        run = _context(pipeline, settings, chosen, scratch)
        runner = stream_engine.make_runner(chosen, flags, settings.arguments)
        root = beam.Pipeline(runner=runner, options=flags)
        pipeline.build(root, settings, run)
        detached = flags.view_as(StandardOptions).no_wait_until_finish and not chosen.local
        job = _Job(root, wait=not detached)
        with beam_log.quiet_stderr(chosen.local and not settings.verbose):
            with picture.watching(screen, settings.progress, begun) as panel:
                _await(job, chosen, run, screen, panel)
        if detached:
            screen.note(f"submitted to {chosen}; not waiting (--no_wait_until_finish)")
            return ExitCode.OK
        if not chosen.local:
            return ExitCode.OK
        progress.flush_all()
        counts = progress.read_counts(scratch)
    return close(screen, settings, counts, time.monotonic() - begun)


def close(
    screen: summary.Screen, settings: Settings, counts: Mapping[str, int], seconds: float
) -> ExitCode:
    """Print the laws of a stream that was stopped, and return how it ended."""
    manifest = {**summarise(counts, settings.items), "tables": {}}
    for warning in manifest.get("warnings", ()):
        screen.warn(warning)
    checked = summary.laws(manifest)
    summary.show_laws(screen, checked)
    behind = counts.get("behind_watermark", 0)
    if behind:
        screen.warn(
            f"{summary.counted(behind, 'event')} came behind the watermark: folded when they "
            "came; a longer --disorder or ?idle= waits for them"
        )
    events = manifest["events"]["in"]
    screen.say(f"stopped after {seconds:,.1f} s, {events / max(seconds, 0.001):,.0f} events/s")
    broken = [law for law in checked if not law.holds]
    if broken:
        sentence = "; ".join(" ".join(str(law).split()) for law in broken)
        screen.fail(f"LAW VIOLATED: {sentence}. The output is incomplete: please report it")
        return ExitCode.LAW
    dead = manifest["messages"]["dead"] + manifest["events"]["rejected"]
    limit = summary.dead_letter_limit(settings, manifest["messages"]["in"])
    if limit is not None and dead > limit:
        screen.fail(
            f"{summary.counted(dead, 'dead letter')}, more than --max_dead_letters allows "
            f"({limit:,})"
        )
        return ExitCode.DEAD_LETTERS
    return ExitCode.OK


def _outputs(pipeline: Pipeline) -> dict[str, Any]:
    return {name: TABLES[name] for name in pipeline.tables}


def _of_broker(ask: Callable[[], Any], code: ExitCode = ExitCode.OUTPUT) -> Any:
    """Ask a broker.

    Raises:
        RunError: it does not answer, or not as hoped.
    """
    try:
        return ask()
    except (BrokerFault, BadAddress) as error:
        raise RunError(code, str(error)) from None


def _check_brokers(pipeline: Pipeline, settings: Settings) -> dict[str, int]:
    """Return the topics that are read, and their partitions."""
    topics: dict[str, int] = {}
    for address in settings.sources:
        topics |= _of_broker(partial(check, address), ExitCode.NO_INPUT)
    for target in settings.targets:
        _of_broker(partial(check_target, target))
        own = [target.topic(name) for name in pipeline.tables]
        for address in settings.sources:
            both = sorted(set(own) & set(topics))
            if both and set(address.servers) & set(target.servers):
                text = f"--output would write to {both[0]}, which --input reads; give a prefix"
                raise RunError(ExitCode.USAGE, text)
    return topics


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
        shutil.rmtree(folder, ignore_errors=True)


def _context(
    pipeline: Pipeline, settings: Settings, engine: StreamEngine, scratch: str
) -> RunContext:
    stream = Stream(
        shards=settings.shards or SHARDS,
        by_marks=engine.by_marks,
        stop=os.path.join(scratch, STOP) if scratch else "",
        splits=1 if engine.local else None,
    )
    return RunContext(
        run_id=f"{settings.started_us}-{os.getpid()}",
        engine=str(engine),
        local=engine.local,
        scratch=scratch,
        plan=None,
        output=None,
        tables=pipeline.tables,
        version=version(),
        stream=stream,
    )


@dataclass
class _Job:
    """A pipeline that runs in a thread."""

    root: beam.Pipeline
    wait: bool
    result: Any = None
    error: BaseException | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, name="pipeline", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self.root.run()
            if self.wait:
                self.result.wait_until_finish()
        except BaseException as error:  # whatever it is, it is the main thread's to tell
            self.error = error


def _await(
    job: _Job,
    engine: StreamEngine,
    run: RunContext,
    screen: summary.Screen,
    panel: picture.Panel,
) -> None:
    """Wait until the stream has ended; Ctrl-C lets it end."""
    stopping = False
    while job.thread.is_alive():
        try:
            job.thread.join(POLL_S)
            panel.update(progress.read_counts(run.scratch))
        except KeyboardInterrupt as stopped:
            if stopping or not engine.local:
                if job.result is not None:
                    with suppress(Exception):
                        job.result.cancel()
                raise
            stopping = True
            assert run.stream is not None
            Path(run.stream.stop).touch()
            what = "terminated" if isinstance(stopped, Terminated) else "stopping"
            screen.note(f"{what}: what was read is folded and delivered (Ctrl-C again: at once)")
    if job.error is not None:
        original = beam_log.original_error(job.error)
        raise RunError(ExitCode.FAILED, original.text, traceback=True) from job.error


def _show_plan(
    screen: summary.Screen,
    pipeline: Pipeline,
    settings: Settings,
    topics: Mapping[str, int],
    engine: StreamEngine,
) -> None:
    """Print what a stream would do."""
    screen.say(f"pipeline  {pipeline.name}: {pipeline.title}")
    for address in settings.sources:
        screen.say(f"input     {address}")
    for topic, partitions in topics.items():
        screen.say(f"          {topic}: {summary.counted(partitions, 'partition')}")
    screen.say(
        f"work      {settings.shards or SHARDS} shards, granules of {settings.granule_ms} ms"
    )
    screen.say(f"engine    {engine} ({engine.reason})")
    for target in settings.targets:
        screen.say(f"output    {target}")
    if settings.output:
        screen.say(f"output    {settings.output}, {settings.output_format}")
    screen.say(f"          {', '.join(pipeline.tables)}")
    screen.say("nothing was read, and nothing written (--explain_plan)")
