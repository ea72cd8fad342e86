"""Which engine runs the work, and why; and the Beam runner for it.

Bounded work on this machine runs on Beam's FnApiRunner: in memory with one worker, in
threads where Arrow and NumPy do the work (they let go of the interpreter lock), in
processes where decoding holds that lock and the input is large enough to pay for their
start. Another `--runner` is Beam's matter and passed on as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

from pipelines.workers import Workers

FN_API_RUNNERS = ("direct", "directrunner", "switchingdirectrunner", "fnapirunner", "fnapi")
PROCESSES_FROM = 128 * 2**20
"""Bytes of input in formats decoded in Python, from which processes are used.

Measured with 40,000 documents of 4 KiB (165 MB), two cores: threads 12.5 s, processes 10.7 s,
their start (1.5 s of CPU each) included; XES in two threads is no faster than in one."""

Mode = Literal["memory", "threads", "processes", "elsewhere"]
_MODES: Mapping[str, Mode] = {
    "in_memory": "memory",
    "multi_threading": "threads",
    "multi_processing": "processes",
}


@dataclass(frozen=True)
class Engine:
    """The engine of a run.

    Attributes:
        runner: the name of Beam's runner.
        mode: where the workers are.
        workers: how many there are; 0 if the runner decides.
        reason: why it is this one.
        local: whether the workers share this machine's files.
    """

    runner: str
    mode: Mode
    workers: int
    reason: str
    local: bool

    def __str__(self) -> str:
        if self.mode == "elsewhere":
            return self.runner
        if self.mode == "memory":
            return f"{self.runner}, 1 thread"
        one = {"threads": "thread", "processes": "process"}[self.mode]
        return f"{self.runner}, {self.workers} {one if self.workers == 1 else self.mode}"


def choose(
    flags: PipelineOptions,
    arguments: Sequence[str],
    workers: int,
    bytes_by_format: Mapping[str, int],
    python_bound: frozenset[str],
) -> Engine:
    """Choose the engine.

    Args:
        flags: Beam's options.
        arguments: the command line; an explicit choice in it is kept.
        workers: how many workers this machine is to have.
        bytes_by_format: size of the input by name of format.
        python_bound: the formats whose decoding holds the interpreter lock.
    """
    runner = flags.view_as(StandardOptions).runner
    if runner and runner.rpartition(".")[2].lower() not in FN_API_RUNNERS:
        return Engine(runner, "elsewhere", 0, "--runner", _shares_files(runner, flags))
    given = {argument.partition("=")[0] for argument in arguments}
    direct = flags.view_as(DirectOptions)
    if "--direct_num_workers" in given:
        workers = direct.direct_num_workers or workers
    if "--direct_running_mode" in given:
        mode = _MODES[direct.direct_running_mode]
        workers = 1 if mode == "memory" else workers
        return Engine("FnApiRunner", mode, workers, "--direct_running_mode", True)
    if workers == 1:
        return Engine("FnApiRunner", "memory", 1, "one worker", True)
    locked = sum(size for name, size in bytes_by_format.items() if name in python_bound)
    if locked >= PROCESSES_FROM and 2 * locked >= sum(bytes_by_format.values()):
        names = " and ".join(sorted(n for n in bytes_by_format if n in python_bound))
        return Engine("FnApiRunner", "processes", workers, f"{names} is decoded in Python", True)
    return Engine("FnApiRunner", "threads", workers, "Arrow works in threads", True)


def make_runner(
    engine: Engine, flags: PipelineOptions, verbose: bool, scratch: str, workers: Workers
) -> Any:
    """Return what `beam.Pipeline(runner=...)` takes, and set Beam's options to suit it.

    Args:
        engine: as chosen.
        flags: Beam's options; changed.
        verbose: whether workers log everything from INFO on.
        scratch: the run's scratch folder, where worker processes leave their last words.
        workers: the processes, should it be theirs to do the work.
    """
    if flags.view_as(WorkerOptions).default_sdk_harness_log_level is None:
        flags.view_as(WorkerOptions).default_sdk_harness_log_level = "INFO" if verbose else "ERROR"
    if engine.mode == "elsewhere":
        return engine.runner
    # Heavy, and not needed for a plan or another runner.
    from apache_beam.portability.api import beam_provision_api_pb2  # noqa: PLC0415
    from apache_beam.runners.portability.fn_api_runner import fn_runner  # noqa: PLC0415
    from apache_beam.runners.portability.portable_runner import JobServiceHandle  # noqa: PLC0415
    from apache_beam.transforms import environments  # noqa: PLC0415

    flags.view_as(SetupOptions).save_main_session = False
    direct = flags.view_as(DirectOptions)
    direct.direct_num_workers = engine.workers if engine.mode != "memory" else 1
    direct.direct_running_mode = "in_memory"
    environment = environments.EmbeddedPythonEnvironment.default()
    if engine.mode == "threads":
        direct.direct_running_mode = "multi_threading"
    elif engine.mode == "processes":
        environment = workers.environment(scratch)
    # Worker processes learn Beam's options, credentials of file systems among them, from here.
    encoded = JobServiceHandle.encode_pipeline_options(flags.get_all_options())
    provision = fn_runner.ExtendedProvisionInfo(
        beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    )
    return fn_runner.FnApiRunner(default_environment=environment, provision_info=provision)


def _shares_files(runner: str, flags: PipelineOptions) -> bool:
    """Say whether a runner's workers run in this process, and so see this machine's files."""
    portable = flags.view_as(PortableOptions)
    if portable.environment_type:
        return bool(portable.environment_type.upper() == "LOOPBACK")
    return "prism" in runner.lower() and not portable.job_endpoint
