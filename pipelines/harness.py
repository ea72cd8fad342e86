"""Beam's side of our worker processes: an environment for the FnApiRunner.

The runner's own environment for processes starts them by a shell, when the work is there. This
one orders a process that has been started before, and tells it by the same variables where
the runner listens. Its log comes the same way, too.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import grpc  # type: ignore[import-untyped]
from apache_beam.portability.api import beam_fn_api_pb2_grpc, endpoints_pb2
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    GrpcWorkerHandler,
    WorkerHandler,
)
from apache_beam.runners.portability.local_job_service import BeamFnLoggingServicer
from apache_beam.transforms import environments
from apache_beam.utils import thread_pool_executor
from google.protobuf import json_format, text_format  # type: ignore[import-untyped]

Hire = Callable[[Mapping[str, str]], "subprocess.Popen[bytes]"]
"""Lets a process work, by the variables that Beam's worker reads."""


class _Environment(environments.Environment):
    """Where the steps of a pipeline run, by the name that the runner knows it by."""

    def __init__(self, urn: str) -> None:
        super().__init__(capabilities=environments.python_sdk_capabilities(), artifacts=())
        self._urn = urn

    def to_runner_api_parameter(self, context: Any) -> tuple[str, bytes]:
        return self._urn, b""


class _Handler(GrpcWorkerHandler):
    """What the runner knows of one worker process."""

    def __init__(self, hire: Hire, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        self._hire = hire

    def start_worker(self) -> None:
        """Let it listen to the runner."""
        self._log = grpc.server(thread_pool_executor.shared_unbounded_instance())
        port = self._log.add_insecure_port("localhost:0")
        beam_fn_api_pb2_grpc.add_BeamFnLoggingServicer_to_server(BeamFnLoggingServicer(), self._log)
        self._log.start()
        self._process = self._hire(
            {
                "CONTROL_API_SERVICE_DESCRIPTOR": endpoint_text(self.control_address),
                "LOGGING_API_SERVICE_DESCRIPTOR": endpoint_text(f"localhost:{port}"),
                "PIPELINE_OPTIONS": json_format.MessageToJson(
                    self.provision_info.provision_info.pipeline_options
                ),
                "WORKER_ID": self.worker_id,
            }
        )

    def stop_worker(self) -> None:
        """Wait for its end, which the end of its connection brings."""
        self._process.wait()
        self._log.stop(0)


def environment(urn: str, hire: Hire) -> environments.Environment:
    """Make an environment for the FnApiRunner.

    Args:
        urn: a name for it.
        hire: called once for each worker that the runner wants.
    """

    def handler(_: bytes, state: Any, provision_info: Any, grpc_server: Any) -> _Handler:
        return _Handler(hire, state, provision_info, grpc_server)

    WorkerHandler.register_environment(urn, bytes)(handler)
    return _Environment(urn)


def endpoint_text(url: str) -> str:
    """Return an address in the form in which Beam's worker reads it from its environment."""
    text: str = text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=url))
    return text
