"""A pool of Python workers for clusters: the processes that Flink's task managers ask for.

    python run.py workers --port 50000

One pool runs beside each task manager (or one for all of a machine), and a job names it with
`--environment_type EXTERNAL --environment_config localhost:50000`. It speaks Beam's protocol for
external workers. Beam's own pool differs in three things that a job can hang on: it knows a worker
by its name alone, which two task managers give alike; it does not pass a job's options on; and it
takes any `python` of PATH. A process that waits with everything imported makes a restart shorter
by the two seconds that this takes.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import platform
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import Popen
from types import TracebackType
from typing import Any

import grpc  # type: ignore[import-untyped]
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
)
from google.protobuf import json_format  # type: ignore[import-untyped]

from pipelines.exit_codes import ExitCode, RunError
from pipelines.harness import endpoint_text
from pipelines.memory import spare_collections
from pipelines.registry import PIPELINES
from pipelines.screen import Screen, counted
from pipelines.version import beam_version, version
from pipelines.workers import Workers

LOGGER = logging.getLogger(__name__)

ASK_S = 20.0
"""So long a task manager may take to say what a job's options are."""

GRACE_S = 10.0
"""So long a worker that is no longer wanted may take to end."""

LOOK_S = 0.5

_THREADS = 16


def needs(modules: tuple[str, ...] = ()) -> dict[str, str]:
    """Return what a job asks of its workers: this process's own versions, and modules."""
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "beam": beam_version(),
        "imixs_data_streaming": version(),
        "modules": ",".join(modules),
    }


def misfit(wanted: Mapping[str, str]) -> str:
    """Say why this interpreter can't work for a job; empty if it can.

    Args:
        wanted: what `needs` returned where the job was launched; what is missing is not asked for.
    """
    here = needs()
    names = {"python": "Python", "beam": "Apache Beam", "imixs_data_streaming": "this program"}
    for key, name in names.items():
        if key in wanted and wanted[key] != here[key]:
            return (
                f"the pool of workers on {platform.node()} has {name} {here[key]}, and the job was "
                f"launched with {wanted[key]}: start the pool from the same installation"
            )
    missing = [each for each in wanted.get("modules", "").split(",") if each and not _found(each)]
    if missing:
        return (
            f"the pool of workers on {platform.node()} lacks {', '.join(missing)}: "
            "install it there, and start the pool again"
        )
    return ""


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


class _Worker:
    """A process that works, and for whom."""

    def __init__(self, name: str, control: str, process: Popen[bytes], said: Path) -> None:
        self.name = name
        self.control = control
        self.process = process
        self.said = said

    def last_words(self) -> str:
        """Return what it has printed; the file is gone where its work came to its end."""
        try:
            return self.said.read_text("utf-8", "replace").strip()
        except FileNotFoundError:
            return ""


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Starts workers for whoever asks, and ends them.

    A worker is known by its name and by whom it listens to: names repeat between task managers.
    An order to stop has only the name, so of several of one name each ends by itself, which it
    does when its connection is closed.

    Args:
        modules: what the work needs, imported ahead.
        spare: processes that wait for work.
    """

    def __init__(self, modules: tuple[str, ...], spare: int = 1) -> None:
        self._workers = Workers(modules)
        self._spare = spare
        self._lock = threading.Lock()
        self._working: list[_Worker] = []
        self._folder = tempfile.TemporaryDirectory(prefix="imixs-workers-")
        self._server: grpc.Server | None = None
        self._ended = threading.Event()

    def serve(self, host: str, port: int) -> int:
        """Listen.

        Args:
            host: address to bind; empty for all of them.
            port: 0 for a free one.

        Returns:
            The port.

        Raises:
            OSError: it is taken.
        """
        server = grpc.server(
            ThreadPoolExecutor(_THREADS, "pool"),
            options=[
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.http2.max_ping_strikes", 0),
                # Two pools on one port would each get some of the orders.
                ("grpc.so_reuseport", 0),
            ],
        )
        beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(self, server)
        try:
            found: int = server.add_insecure_port(f"{host or '[::]'}:{port}")
        except RuntimeError:
            found = 0
        if not found:
            reason = f"{host or 'any address'}:{port} can't be listened to: is it taken?"
            raise OSError(reason)
        server.start()
        self._server = server
        self._refill()
        threading.Thread(target=self._tend, name="tend workers", daemon=True).start()
        return found

    def __enter__(self) -> WorkerPool:
        """Return this."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End everything."""
        self._ended.set()
        if self._server is not None:
            self._server.stop(None)
        with self._lock:
            self._workers.stop()
            self._working = []
        self._folder.cleanup()

    def working(self) -> int:
        """Return how many workers there are."""
        with self._lock:
            return len(self._working)

    def StartWorker(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Let a process work. Beam's service."""
        del context
        unfit = misfit(request.params)
        if unfit:
            LOGGER.error("%s", unfit)
            return beam_fn_api_pb2.StartWorkerResponse(error=unfit)
        control = request.control_endpoint.url
        try:
            environment = _orders(request)
        except grpc.RpcError as error:
            reason = f"{request.provision_endpoint.url} does not answer: {error.code().name}"
            LOGGER.error("worker %s: %s", request.worker_id, reason)
            return beam_fn_api_pb2.StartWorkerResponse(error=reason)
        with self._lock:
            process, said = self._workers.hire(Path(self._folder.name), environment)
            self._working.append(_Worker(request.worker_id, control, process, said))
        LOGGER.info("worker %s for %s: process %d", request.worker_id, control, process.pid)
        self._refill()
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Let a worker end, by force if it does not by itself. Beam's service."""
        del context
        with self._lock:
            named = [each for each in self._working if each.name == request.worker_id]
        if len(named) == 1:
            threading.Thread(target=_end, args=(named[0].process,), daemon=True).start()
        return beam_fn_api_pb2.StopWorkerResponse()

    def _refill(self) -> None:
        with self._lock:
            if not self._ended.is_set():
                self._workers.start(self._spare)

    def _tend(self) -> None:
        """Bury the dead, and say what they died of."""
        while not self._ended.wait(LOOK_S):
            with self._lock:
                gone = [each for each in self._working if each.process.poll() is not None]
                self._working = [each for each in self._working if each not in gone]
                for each in gone:
                    self._workers.forget(each.process)
            for each in gone:
                code = each.process.returncode
                words = each.last_words()
                if code and words:
                    LOGGER.warning("worker %s has died (%d): %s", each.name, code, words)
                elif code:
                    LOGGER.warning("worker %s has died (%d)", each.name, code)
                else:
                    LOGGER.info("worker %s has ended", each.name)


def _end(process: Popen[bytes]) -> None:
    until = time.monotonic() + GRACE_S
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    if process.poll() is None:
        process.kill()


def _orders(request: Any) -> dict[str, str]:
    """Return the variables that Beam's worker reads, asked of the task manager.

    Raises:
        grpc.RpcError: it does not answer.
    """
    logging_url = request.logging_endpoint.url
    options = "{}"
    if request.provision_endpoint.url:
        with grpc.insecure_channel(request.provision_endpoint.url) as channel:
            stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
            answer = stub.GetProvisionInfo(
                beam_provision_api_pb2.GetProvisionInfoRequest(),
                metadata=[("worker_id", request.worker_id)],
                timeout=ASK_S,
            )
        options = json.dumps(json_format.MessageToDict(answer.info.pipeline_options))
        logging_url = answer.info.logging_endpoint.url or logging_url
    orders = {
        "WORKER_ID": request.worker_id,
        "PIPELINE_OPTIONS": options,
        "CONTROL_API_SERVICE_DESCRIPTOR": endpoint_text(request.control_endpoint.url),
    }
    if logging_url:
        orders["LOGGING_API_SERVICE_DESCRIPTOR"] = endpoint_text(logging_url)
    return orders


def serve(host: str, port: int, screen: Screen) -> ExitCode:
    """Serve workers until Ctrl-C or SIGTERM.

    Args:
        host: address to listen to.
        port: 0 for a free one.
        screen: where it is said that it does.

    Raises:
        RunError: nobody can listen there.
    """
    spare_collections()
    with WorkerPool(tuple(f"pipelines.{name}" for name in PIPELINES)) as pool:
        try:
            found = pool.serve(host, port)
        except OSError as error:
            raise RunError(ExitCode.USAGE, f"--port {port}: {error}") from None
        screen.note(f"workers are served at {host}:{found}; Ctrl-C ends them")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            screen.note(f"ended, with {counted(pool.working(), 'worker')}")
    return ExitCode.OK
