"""Which engine runs a stream on this machine, and what it can't do.

Prism keeps Beam's whole model: event-time timers wait for the watermark. The FnApiRunner fires
them at once and holds back the rest of a pipeline until its source ends, so there a fold goes
by the marks in its elements, and everything must fuse to one stage. It needs no other program.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    PrismRunnerOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

from pipelines import dataflow, flink_options, prism, prism_engine
from pipelines.bundle_ends import wait_less
from pipelines.engine import FN_API_RUNNERS

_ANY = ("direct", "directrunner", "switchingdirectrunner")


@dataclass(frozen=True)
class StreamEngine:
    """The engine of a stream.

    Attributes:
        runner: the name of Beam's runner.
        reason: why it is this one, and what it can't do.
        local: whether it runs here, so that Ctrl-C can drain it.
        by_marks: its timers do not wait for the watermark: see `transforms.fold.granules`.
        native: it reads and writes Pub/Sub by itself: Dataflow.
    """

    runner: str
    reason: str
    local: bool
    by_marks: bool
    native: bool = False

    def __str__(self) -> str:
        return self.runner


def choose(flags: PipelineOptions, sources: int) -> StreamEngine:
    """Choose the engine of a stream.

    Args:
        flags: Beam's options.
        sources: how many addresses it reads.
    """
    runner = flags.view_as(StandardOptions).runner or ""
    short = runner.rpartition(".")[2].lower()
    asked = prism_engine.wanted(flags)
    if short and short not in FN_API_RUNNERS and not asked:
        native = dataflow.wanted(flags)
        return StreamEngine(runner, "--runner", local=False, by_marks=False, native=native)
    given = flags.view_as(PrismRunnerOptions).prism_location
    found = given or prism.location()
    if asked or (found and (not short or short in _ANY) and sources > 1):
        place = f"its binary is {found}" if found else "Beam fetches its binary"
        return StreamEngine("PrismRunner", f"{place}; one process", local=True, by_marks=False)
    reason = "one process, one core; no Beam windows after the fold; a job's state ends with it"
    return StreamEngine("FnApiRunner", reason, local=True, by_marks=True)


def make_runner(engine: StreamEngine, flags: PipelineOptions) -> Any:
    """Return what `beam.Pipeline(runner=...)` takes, and set Beam's options to suit it."""
    flags.view_as(StandardOptions).streaming = True
    if flink_options.is_flink(engine.runner):
        # Heavy, and not needed for another runner.
        from pipelines.flink_ids import LabelledFlinkRunner  # noqa: PLC0415

        return LabelledFlinkRunner()
    if not engine.local:
        return engine.runner
    wait_less()
    flags.view_as(SetupOptions).save_main_session = False
    if flags.view_as(WorkerOptions).default_sdk_harness_log_level is None:
        flags.view_as(WorkerOptions).default_sdk_harness_log_level = "ERROR"
    if engine.runner == "PrismRunner":
        prism_engine.prepare(flags)
        return engine.runner
    from apache_beam.runners.portability.fn_api_runner import (  # noqa: PLC0415
        fn_runner,
        worker_handlers,
    )

    direct = flags.view_as(DirectOptions)
    direct.direct_num_workers, direct.direct_running_mode = 1, "in_memory"
    # The runner has no option for it. Weighing what is cached costs a hundred times what a
    # cache of state that lies in the same process could save.
    worker_handlers.STATE_CACHE_SIZE_MB = 0
    return fn_runner.FnApiRunner()


def serving(engine: StreamEngine, flags: PipelineOptions) -> AbstractContextManager[None]:
    """Run what the engine needs while the block runs; see `prism_engine.serving`."""
    return prism_engine.serving(flags) if engine.runner == "PrismRunner" else nullcontext()
