"""Runs a pipeline from options to exit code: plan, checks, engine, waiting, closing.

Everything that can be wrong with the configuration is found before the engine starts. The
pipeline runs in a thread of its own, because the FnApiRunner's `run` blocks, so that
progress is shown and Ctrl-C is heard. The scratch folder is removed however it ends.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineState

from pipelines import beam_log, engine, summary, watch
from pipelines.exit_codes import ExitCode, RunError
from pipelines.options import Settings
from pipelines.registry import Pipeline, RunContext
from transforms import progress
from transforms.formats.registry import FORMATS
from transforms.sources import files

POLL_S = 0.1
MANIFEST = "_run.json"

_log = logging.getLogger(__name__)


def launch(
    pipeline: Pipeline, settings: Settings, flags: PipelineOptions, screen: summary.Screen
) -> ExitCode:
    """Run a pipeline.

    Raises:
        RunError: it can't be started, or it failed.
        KeyboardInterrupt: the user has had enough; everything temporary is removed.
    """
    begun = time.monotonic()
    plan = make_plan(settings)
    chosen = engine.choose(
        flags,
        settings.workers,
        {name: size for name, (_, size) in plan.formats.items()},
        frozenset(name for name, known in FORMATS.items() if known.python_bound),
    )
    beam_log.configure(settings.verbose, local=chosen.mode != "elsewhere")
    if settings.explain_plan:
        summary.show_plan(screen, pipeline, settings, plan, chosen)
        return ExitCode.OK
    for warning in plan.warnings:
        screen.warn(warning)
    with writable(settings.output), scratch_folder(chosen.local, flags) as scratch:
        screen.note(f"engine: {chosen} ({chosen.reason})")
        run = RunContext(_run_id(settings), str(chosen), chosen.local, scratch, plan)
        if scratch and shutil.disk_usage(scratch).free < plan.bytes:
            screen.warn(
                f"the disk of {scratch} has less room than the input has bytes; "
                "set TMPDIR to a folder on a larger one"
            )
        runner = engine.make_runner(chosen, flags, settings.verbose)
        root = beam.Pipeline(runner=runner, options=flags)
        pipeline.build(root, settings, run)
        detached = flags.view_as(StandardOptions).no_wait_until_finish
        job = _Job(root, wait=not detached)
        with watch.watching(screen, settings.progress, plan.bytes, plan.shards) as watcher:
            _await(job, lambda: watcher.update(progress.read_progress(scratch)))
        if detached and chosen.mode == "elsewhere":
            screen.note(f"submitted to {chosen}; not waiting (--no_wait_until_finish)")
            return ExitCode.OK
        manifest = read_manifest(settings.output, run.run_id)
    return summary.close(screen, settings, manifest, time.monotonic() - begun)


def make_plan(settings: Settings) -> files.Plan:
    """Match the input and say what is to be read.

    Raises:
        RunError: nothing matches, or a file system is not available.
    """
    try:
        plan = files.plan(
            settings.input, settings.format, settings.context(), shards=settings.shards
        )
    except ValueError as error:
        # Beam has no file system for the scheme, or its package is not installed.
        raise RunError(ExitCode.USAGE, f"--input: {_one_line(error)}") from None
    except (BeamIOError, OSError) as error:
        raise RunError(ExitCode.NO_INPUT, f"--input can't be read: {_one_line(error)}") from None
    if not plan.files:
        missing = "; ".join(_no_match(pattern) for pattern in settings.input)
        raise RunError(ExitCode.NO_INPUT, missing)
    return plan


def _no_match(pattern: str) -> str:
    text = f"no file matches --input '{pattern}'"
    if "://" in pattern:
        return text
    fixed = Path(pattern)
    while any(c in str(fixed) for c in "*?[") or not fixed.exists():
        missing, fixed = fixed, fixed.parent
        if fixed == missing:
            return text
    if fixed.is_dir():
        first = missing if fixed != Path(pattern) else fixed
        if not any(c in first.name for c in "*?["):
            return f"{text}; there is no '{first}'"
        return f"{text}; there is a folder '{fixed}', but nothing in it matches"
    return text


@contextmanager
def writable(output: str) -> Iterator[None]:
    """Make sure that the output folder can be written; take it away again if the run fails.

    Raises:
        RunError: it can't.
    """
    made: list[Path] = []
    try:
        if "://" in output:
            probe = f"{output}/_writable"
            FileSystems.create(probe).close()
            FileSystems.delete([probe])
        else:
            made = _missing_folders(Path(output))
            os.makedirs(output, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=output, prefix="_writable-"):
                pass
    except (BeamIOError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or _one_line(error)
        if os.path.isfile(output):
            reason = "it is a file"
        text = f"--output '{output}' can't be written: {reason}; give a folder that can"
        raise RunError(ExitCode.OUTPUT, text) from None
    try:
        yield
    except BaseException:
        for folder in made:
            try:
                folder.rmdir()
            except OSError:
                break
        raise


def _missing_folders(folder: Path) -> list[Path]:
    """Return the folders that have to be made, the deepest first."""
    missing = []
    while not folder.exists() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    return missing


@contextmanager
def scratch_folder(local: bool, flags: PipelineOptions) -> Iterator[str]:
    """Make the run's own temporary folder; empty if workers don't share this machine's files."""
    if not local:
        yield ""
        return
    place = flags.view_as(GoogleCloudOptions).temp_location
    if place and "://" not in place:
        os.makedirs(place, exist_ok=True)
    else:
        place = None
    scratch = tempfile.mkdtemp(prefix="imixs-streams-", dir=place)
    try:
        progress.prepare(scratch)
        yield scratch
    finally:
        # Workers that are still busy after Ctrl-C may write into it while it goes.
        for _ in range(3):
            shutil.rmtree(scratch, ignore_errors=True)


@dataclass
class _Job:
    """A pipeline that runs in a thread.

    Attributes:
        root: the pipeline.
        wait: whether to wait for a runner that works elsewhere.
        result: Beam's result, as soon as there is one.
        error: what it failed with.
    """

    root: beam.Pipeline
    wait: bool = True
    result: Any = None
    error: BaseException | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        # A daemon: after Ctrl-C nobody waits for it.
        self.thread = threading.Thread(target=self._run, name="pipeline", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self.root.run()
            if self.wait:
                state = self.result.wait_until_finish()
                if state not in (None, PipelineState.DONE):
                    reason = f"the runner says {state}"
                    raise RuntimeError(reason)
        except BaseException as error:  # whatever it is, it is the main thread's to tell
            self.error = error


def _await(job: _Job, watcher: Callable[[], None]) -> None:
    """Wait for a job.

    Raises:
        RunError: it failed.
        KeyboardInterrupt: not waited any longer; a runner elsewhere is told to cancel.
    """
    try:
        while job.thread.is_alive():
            job.thread.join(POLL_S)
            watcher()
    except KeyboardInterrupt:
        if job.result is not None:
            job.result.cancel()
        raise
    if isinstance(job.error, KeyboardInterrupt):
        raise job.error
    if job.error is not None:
        trouble = beam_log.original_error(job.error)
        raise RunError(_code_of(trouble), f"{trouble}", traceback=True) from job.error


def _code_of(trouble: beam_log.Trouble) -> ExitCode:
    return ExitCode.OUTPUT if trouble.kind == "OutputError" else ExitCode.FAILED


def read_manifest(output: str, run_id: str) -> dict[str, Any]:
    """Read what a run says of itself.

    Raises:
        RunError: there is none, or it is another run's.
    """
    path = f"{output}/{MANIFEST}"
    try:
        with FileSystems.open(path) as file:
            manifest = json.loads(file.read())
    except (BeamIOError, OSError, ValueError) as error:
        text = f"the run has ended without its manifest {path}: {_one_line(error)}"
        raise RunError(ExitCode.FAILED, text) from None
    if not isinstance(manifest, dict) or manifest.get("run_id") != run_id:
        text = f"the run has ended, but {path} is another run's: did two runs write there?"
        raise RunError(ExitCode.FAILED, text)
    return manifest


def _run_id(settings: Settings) -> str:
    started = datetime.fromtimestamp(settings.started_us // 1_000_000, timezone.utc)
    return f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
