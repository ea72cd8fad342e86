"""Entry of a worker process on this machine: finds our modules, and ends with its parent.

Beam starts its own worker with `python -m`, which looks for modules in the user's folder
first, is killed by Ctrl-C with a stack trace, and outlives a parent that was killed.
Started by path, as `python .../pipelines/worker.py MODULE...`, this one does not. It imports
the modules, waits for its orders on stdin (`pipelines.workers` writes them), and ends if
there are none. While it works there is a file FOLDER/<its number> that takes its stderr.

Beam's worker prints an error before it reports it: where the disk is full, and printing fails
too, the report must still be made. So what can't be printed is dropped.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

CHECK_S = 0.5


def main() -> None:
    """Run Beam's worker until its runner or our parent is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A script's own folder comes first on the path; ours is the one above.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    warnings.simplefilter("ignore")
    _import(sys.argv[1:])

    from pipelines.bundle_ends import wait_less  # noqa: PLC0415 (needs the path)
    from pipelines.memory import spare_collections  # noqa: PLC0415

    spare_collections()
    wait_less()
    orders = sys.stdin.buffer.read()
    if not orders:
        os._exit(0)
    order = json.loads(orders)
    said = Path(order["folder"], str(os.getpid()))
    # Its log goes to the runner; what is printed beside it is only of use if it dies.
    _print_to(said)
    os.environ.update(order["environment"])

    from apache_beam.runners.worker import sdk_worker_main  # noqa: PLC0415 (needs the path)

    sdk_worker_main.main(sys.argv)
    said.unlink(missing_ok=True)
    # Nothing is left to be done, and taking an interpreter down takes half a second.
    os._exit(0)


def _import(modules: Sequence[str]) -> None:
    """Import modules, so that the time is not spent when there is work."""
    for module in modules:
        # One that is needed fails once more, where it is heard.
        with suppress(ImportError):
            importlib.import_module(module)


class _Patient(io.FileIO):
    """Takes everything, and writes what there is room for."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _print_to(said: Path) -> None:
    """Let this process's stderr, of Python and of libraries, go to a file."""
    try:
        target = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    except OSError:
        target = os.open(os.devnull, os.O_WRONLY)
    os.dup2(target, 2)
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Patient(2, "w", closefd=False)),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(CHECK_S)
    os._exit(1)


if __name__ == "__main__":
    main()
