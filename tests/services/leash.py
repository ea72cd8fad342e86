"""A process that dies with the one that started it.

Linux has PR_SET_PDEATHSIG for this, but it fires when the starting *thread* ends, needs code
between fork and exec (unsafe beside gRPC's threads), and no other system has it. Instead a tiny
shell holds the reading end of a pipe whose other end only the starting process has: when that
one ends, even by `kill -9`, the shell reads end of file and kills the service by its id.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

_WATCH = 'read -r _; kill -9 "$1"'


class Leashed:
    """A running process.

    Attributes:
        pid: its id.
    """

    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches only who started it.

        Args:
            command: what to run.
            log: what it prints is appended here.
        """
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._watch = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "leash", str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def exit_code(self) -> int | None:
        """Return its exit code; None while it runs."""
        code = self._process.poll()
        if code is not None:
            self._let_go()
        return code

    def end(self, how: signal.Signals = signal.SIGTERM, patience: float = 30.0) -> None:
        """Send a signal and wait for the end; after `patience` seconds kill it."""
        self._let_go()
        if self._process.poll() is None:
            self._process.send_signal(how)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _let_go(self) -> None:
        # First the watch: an id that is free again must not be killed.
        if self._watch.poll() is None:
            self._watch.kill()
            self._watch.wait()
        if self._watch.stdin is not None:
            self._watch.stdin.close()
