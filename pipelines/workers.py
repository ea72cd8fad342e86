"""The worker processes of a run, started before there is work for them.

A fresh process takes 1.5 s of CPU to import Beam, Arrow and our steps. So it is started as soon
as it is likely to be needed, while the input is still looked through, and waits for its
orders. Processes are started fresh and not forked: no threads are lost, on any system.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

from pipelines.beam_log import original_error

FOLDER = "workers"
"""Folder in the scratch folder with a file for each process that works: see `pipelines.worker`."""

END_S = 5.0
"""So long a killed process is waited for."""

_BEAM = "apache_beam.runners.worker.sdk_worker_main"


class Workers:
    """Worker processes; those that are still there at the end of the block are ended.

    Args:
        modules: what their work needs, imported ahead.
    """

    def __init__(self, modules: Sequence[str] = ()) -> None:
        self._modules = (_BEAM, *modules)
        self._waiting: list[subprocess.Popen[bytes]] = []
        self._working: list[tuple[subprocess.Popen[bytes], Path]] = []

    def __enter__(self) -> Workers:
        """Return this."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all processes."""
        self.stop()

    def start(self, count: int) -> None:
        """Start processes until so many wait for orders."""
        while len(self._waiting) < count:
            self._waiting.append(self._start())

    def environment(self, scratch: str) -> Any:
        """Return the Beam environment in which the FnApiRunner takes these as its workers.

        Args:
            scratch: the run's scratch folder.
        """
        from pipelines import harness  # noqa: PLC0415 (heavy, and not needed for a plan)

        folder = Path(scratch, FOLDER)
        folder.mkdir(parents=True, exist_ok=True)
        # A name of its own: what a runner knows of it must not be another run's.
        return harness.environment(
            f"imixs:env:waiting:{uuid4().hex}", lambda orders: self.hire(folder, orders)[0]
        )

    def hire(
        self, folder: Path, environment: Mapping[str, str]
    ) -> tuple[subprocess.Popen[bytes], Path]:
        """Give a process its orders: the one that has waited longest, or a new one.

        Args:
            folder: where it leaves what it prints.
            environment: the variables that Beam's worker reads.

        Returns:
            The process, and the file that it prints to: there while it works, and afterwards if
            its work did not come to its end.
        """
        waiting = [each for each in self._waiting if each.poll() is None] or [self._start()]
        process = waiting.pop(0)
        said = folder / str(process.pid)
        self._waiting = waiting
        self._working.append((process, said))
        order = {"folder": str(folder), "environment": dict(environment)}
        assert process.stdin is not None
        # If it has died meanwhile, whoever looks after it says so.
        with suppress(BrokenPipeError), process.stdin as orders:
            orders.write(json.dumps(order).encode())
        return process, said

    def forget(self, process: subprocess.Popen[bytes]) -> None:
        """Look after a process no longer: it has ended."""
        self._working = [each for each in self._working if each[0] is not process]

    def dead(self) -> str | None:
        """Say which process has died, and its last words, if one has.

        Beam's runner would wait for it for ever.
        """
        for process, said in self._working:
            # The file goes last of all where work has come to its end.
            if process.poll() is None or (process.returncode == 0 and not said.exists()):
                continue
            text = said.read_text("utf-8", "replace") if said.exists() else ""
            if "Traceback" not in text:
                text = "killed, as it happens when memory runs out; try fewer --workers"
            why = original_error(RuntimeError(text)).text
            return f"worker process {process.pid} has died: {why}"
        return None

    def stop(self) -> None:
        """End the processes that are still there."""
        everyone = [*self._waiting, *(process for process, _ in self._working)]
        for process in everyone:
            process.kill()
        for process in everyone:
            if process.stdin is not None:
                process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
        self._waiting.clear()

    def _start(self) -> subprocess.Popen[bytes]:
        # Not the runner's own multi_processing mode: see pipelines.worker.
        command = [sys.executable, str(Path(__file__).with_name("worker.py")), *self._modules]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
