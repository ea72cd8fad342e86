"""A job server of Beam's that runs while a job does, started where signals can be handled.

Left to itself Beam starts it in the pipeline's thread, where no signal can be handled, and
ends it at Ctrl-C, before anything is drained or stopped.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions

from pipelines.exit_codes import ExitCode, RunError


@contextmanager
def serving(
    flags: PipelineOptions, server: Any, address: Callable[[], str], failed: str, hint: str
) -> Iterator[None]:
    """Run a job server while the block runs.

    Args:
        flags: the pipeline's options, a copy of Beam's; they learn where it is.
        server: started here, and stopped.
        address: where it is to be found; asked before it is started.
        failed: what is said if it can't be started.
        hint: what may help then.

    Raises:
        RunError: it can't be started.
    """
    # A terminal's Ctrl-C reaches all processes it runs: one started now ignores it.
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        endpoint = address()
        server.start()
        flags.view_as(PortableOptions).job_endpoint = endpoint
    except (OSError, RuntimeError, ValueError, grpc.RpcError) as error:
        text = " ".join(f"{failed}: {error}".split())
        raise RunError(ExitCode.USAGE, f"{text}; {hint}") from error
    finally:
        signal.signal(signal.SIGINT, heard)
    try:
        yield
    finally:
        server.stop()
