"""Where the Prism runner is on this machine, and how it runs while a job does.

Prism is a program of its own: a Go binary that `make services` builds once and keeps. What
looks for it (the choice of the engine) and what builds it (the services of the tests) agree here.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apache_beam.options.pipeline_options import (
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
    StandardOptions,
)

from pipelines.exit_codes import ExitCode, RunError

FOR_EVER_S = 10 * 365 * 86_400
"""Beam ends a job on Prism when its client has waited so long: five minutes, if left alone."""

VERSION = "2.77.0"
"""Of Beam, and so of Prism: the two speak one protocol."""


def cache() -> Path:
    """Return the folder that keeps what is fetched or built once for all checkouts of a user."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "imixs-data-streaming"


def built() -> Path:
    """Return where `make services` puts the binary; it may not be there yet."""
    return cache() / f"prism-{VERSION}" / "prism"


def location() -> str | None:
    """Return the path of the binary: `prism` on PATH, else the built one; None without either."""
    found = shutil.which("prism")
    if found is not None:
        return found
    return shutil.which(str(built()))


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
    options.prism_location = options.prism_location or location()


@contextmanager
def serving(flags: PipelineOptions) -> Iterator[None]:
    """Run Prism while the block runs, unless the options say where one runs.

    Left to itself Beam starts it in the pipeline's thread, where no signal can be handled, and
    ends it at Ctrl-C, before anything is drained.

    Args:
        flags: the pipeline's options, a copy of Beam's; they learn where it is.

    Raises:
        RunError: it can't be started.
    """
    portable = flags.view_as(PortableOptions)
    if portable.job_endpoint:
        yield
        return
    # Heavy, and of no use for any other engine.
    from apache_beam.runners.portability.prism_runner import PrismJobServer  # noqa: PLC0415
    from apache_beam.utils.subprocess_server import pick_port  # noqa: PLC0415

    options = flags.view_as(PrismRunnerOptions)
    if options.prism_log_kind == "console" and not logging.getLogger().isEnabledFor(logging.INFO):
        # Else Beam raises the level of its log by itself.
        options.prism_log_kind = "json"
    jobs = flags.view_as(JobServerOptions)
    (jobs.job_port,) = pick_port(jobs.job_port)
    server = PrismJobServer(flags)
    # A terminal's Ctrl-C reaches all processes it runs: one started now ignores it.
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        server.start()
        portable.job_endpoint = f"localhost:{jobs.job_port}"
    except (OSError, RuntimeError, ValueError) as error:
        text = " ".join(f"Prism can't be started: {error}".split())
        raise RunError(ExitCode.USAGE, f"{text}; see --prism_location") from error
    finally:
        signal.signal(signal.SIGINT, heard)
    try:
        yield
    finally:
        server.stop()
