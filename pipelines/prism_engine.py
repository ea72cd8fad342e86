"""Prism as an engine: the options that a job on it needs, and its program while the job runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from apache_beam.options.pipeline_options import (
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
    StandardOptions,
)

from pipelines import job_server, prism

FOR_EVER_S = 10 * 365 * 86_400
"""Beam ends a job on Prism when its client has waited so long: five minutes, if left alone."""


def wanted(flags: PipelineOptions) -> bool:
    """Say whether the options name Prism."""
    return "prism" in (flags.view_as(StandardOptions).runner or "").rpartition(".")[2].lower()


def prepare(flags: PipelineOptions) -> None:
    """Set the options that a job on Prism needs, where they are not given."""
    portable = flags.view_as(PortableOptions)
    if portable.environment_type is None:
        portable.environment_type = "LOOPBACK"
    portable.job_server_timeout = FOR_EVER_S
    options = flags.view_as(PrismRunnerOptions)
    options.prism_location = options.prism_location or prism.location()


@contextmanager
def whole_bundles() -> Iterator[None]:
    """Let the workers of this process do bundles as a whole while the block runs.

    Where an element takes longer than 0.2 s, Prism asks for what is left of its bundle, and does
    so with steps that have state, too. What it gets back it hands out again behind the bundle's
    timers, so that events come late that were not, and sometimes twice. A worker may keep what it
    has, and Beam's has no setting for it.
    """
    # Heavy, and of no use for any other engine.
    from apache_beam.runners.worker.bundle_processor import DataInputOperation  # noqa: PLC0415

    split = DataInputOperation.try_split
    DataInputOperation.try_split = lambda *_: None
    try:
        yield
    finally:
        DataInputOperation.try_split = split


@contextmanager
def serving(flags: PipelineOptions) -> Iterator[None]:
    """Run Prism while the block runs, unless the options say where one runs.

    Bundles are not split meanwhile: see `whole_bundles`.

    Args:
        flags: the pipeline's options, a copy of Beam's; they learn where it is.

    Raises:
        RunError: it can't be started.
    """
    with whole_bundles(), _server(flags):
        yield


def _server(flags: PipelineOptions) -> AbstractContextManager[None]:
    if flags.view_as(PortableOptions).job_endpoint:
        return nullcontext()
    # Heavy, and of no use for any other engine.
    from apache_beam.runners.portability.prism_runner import PrismJobServer  # noqa: PLC0415
    from apache_beam.utils.subprocess_server import pick_port  # noqa: PLC0415

    options = flags.view_as(PrismRunnerOptions)
    if options.prism_log_kind == "console" and not logging.getLogger().isEnabledFor(logging.INFO):
        # Else Beam raises the level of its log by itself.
        options.prism_log_kind = "json"
    jobs = flags.view_as(JobServerOptions)
    (jobs.job_port,) = pick_port(jobs.job_port)
    return job_server.serving(
        flags,
        PrismJobServer(flags),
        lambda: f"localhost:{jobs.job_port}",
        "Prism can't be started",
        "see --prism_location",
    )
