"""Whole processes, timed from outside: wall time, CPU and memory of a command and its children.

What a user waits for counts, start of the interpreter included. Contestants take turns, round
by round, so that whatever else the machine does hits all of them; ratios are taken within a
round.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAMPLE_S = 0.05


class CommandFailed(Exception):
    """A measured command ended with another exit code than 0; its last output is the message."""


@dataclass(frozen=True)
class Run:
    """One run of a command.

    Attributes:
        wall_s: seconds from start to exit.
        cpu_s: user and system seconds of the process and all its children.
        tree_bytes: peak sum of resident memory over the process tree, sampled every 50 ms;
            pages that processes share count once for each.
        own_bytes: likewise without pages of files (libraries, memory-mapped data, which the
            system can drop): anonymous and shared memory only.
        largest_bytes: peak resident memory of the largest single process, as the kernel keeps it.
        foreign_cpu_s: CPU seconds that everything else on the machine used meanwhile.
    """

    wall_s: float
    cpu_s: float
    tree_bytes: int
    own_bytes: int
    largest_bytes: int
    foreign_cpu_s: float = 0.0


@dataclass(frozen=True)
class Contestant:
    """A command to be measured.

    Attributes:
        name: as in the tables.
        command: its words; `{output}` stands for an empty folder, removed after each run.
        check: looks at the output folder after each run and raises `CommandFailed` if the run
            is not valid.
        cores: how many cores it may run on.
    """

    name: str
    command: Sequence[str]
    check: Callable[[Path], None] | None = None
    cores: int = 2


@dataclass
class Figures:
    """What came of one contestant: its runs, or why it has none.

    Attributes:
        runs: one a round.
        failure: the message of the run that failed; it takes no part in later rounds.
    """

    runs: list[Run]
    failure: str | None = None


class Running:
    """A command that runs now, measured from its start to its end.

    Attributes:
        pid: its process id.
        began: when it was started, seconds of the wall clock since 1970.
    """

    def __init__(self, command: Sequence[str], cores: int = 2) -> None:
        """Start a command, held to so many cores."""
        self._command = command
        self._busy = busy_seconds()
        with held_to(cores):
            self._start = time.perf_counter()
            self.began = time.time()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        self.pid = self._process.pid
        self._said: list[bytes] = []
        self._reader = threading.Thread(target=_read, args=(self._process, self._said), daemon=True)
        self._reader.start()
        self._memory = MemorySampler([self.pid])

    @property
    def ended(self) -> bool:
        """Whether it has ended; `wait` has still to be called."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return (
            self._process.returncode is not None or os.waitid(os.P_PID, self.pid, flags) is not None
        )

    @property
    def said(self) -> str:
        """The last that it has printed."""
        return b"".join(list(self._said)).decode(errors="replace")

    @property
    def memory_bytes(self) -> int:
        """Resident memory of it and its children now."""
        return sum(_memory(member)["VmRSS"] for member in _tree(self.pid))

    @property
    def cpu_s(self) -> float:
        """CPU seconds that it and its children have used so far; 0 when it has ended."""
        return tree_cpu_seconds(self.pid)

    def send(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if not self.ended:
            os.kill(self.pid, number)

    def wait(self) -> Run:
        """Wait for its end.

        Raises:
            CommandFailed: its exit code is not 0.
        """
        _, status, usage = os.wait4(self.pid, 0)
        wall = time.perf_counter() - self._start
        peaks = self._memory.stop()
        self._reader.join()
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._process.returncode:
            reason = (
                f"exit code {self._process.returncode} from {' '.join(self._command)}\n"
                f"{self.said[-2000:].strip()}"
            )
            raise CommandFailed(reason)
        cpu = usage.ru_utime + usage.ru_stime
        return Run(
            wall_s=wall,
            cpu_s=cpu,
            # A short peak falls between two samples; the kernel's own figure does not.
            tree_bytes=max(peaks.tree, peaks.largest),
            own_bytes=peaks.own,
            largest_bytes=peaks.largest,
            foreign_cpu_s=max(busy_seconds() - self._busy - cpu, 0.0),
        )


@contextmanager
def held_to(cores: int) -> Iterator[None]:
    """Hold what is started meanwhile to so many cores."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(allowed)[:cores]))  # inherited by children
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def hear_signals() -> None:
    """Let Ctrl-C and SIGTERM end this process in order, so that it ends what it has started.

    A shell lets what it starts in the background ignore Ctrl-C, and so would all its children:
    a stream that is stopped by it would run on.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def run(command: Sequence[str], cores: int = 2) -> Run:
    """Run a command to its end, held to so many cores, and measure it.

    Raises:
        CommandFailed: its exit code is not 0.
    """
    return Running(command, cores).wait()


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used; 0 if there is none of this id."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # user, system, and those of children that have ended
    return sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK")


def tree_cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process and its children have used; 0 if there is none."""
    return sum(map(cpu_seconds, _tree(pid)))


def busy_seconds() -> float:
    """Return the CPU seconds that all processes have used since the machine started."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _read(process: subprocess.Popen[bytes], said: list[bytes]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        del said[:-200]


@dataclass
class Peaks:
    """The most memory that processes have had, in bytes; see `Run`.

    Attributes:
        tree: of all of them.
        own: likewise without pages of files.
        largest: of a single one.
    """

    tree: int = 0
    own: int = 0
    largest: int = 0


class MemorySampler:
    """Looks now and then how much memory processes have, with all their children.

    Args:
        pids: the processes.
        every_s: how often; a look at processes of many threads costs milliseconds of a core.
    """

    def __init__(self, pids: Sequence[int], every_s: float = SAMPLE_S) -> None:
        self._pids = pids
        self._every_s = every_s
        self._peaks = Peaks()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> Peaks:
        """Look no more, and return what was seen."""
        self._over.set()
        self._thread.join()
        return self._peaks

    def _sample(self) -> None:
        peaks = self._peaks
        while not self._over.wait(self._every_s):
            tree = own = 0
            for member in (member for pid in self._pids for member in _tree(pid)):
                memory = _memory(member)
                tree += memory["VmRSS"]
                own += memory["VmRSS"] - memory["RssFile"]
                # Not ru_maxrss: that starts with what the parent held when it forked.
                peaks.largest = max(peaks.largest, memory["VmHWM"])
            peaks.tree = max(peaks.tree, tree)
            peaks.own = max(peaks.own, own)


def _memory(pid: int) -> dict[str, int]:
    """Return a process's memory in bytes by the kernel's names; zeros if it has ended."""
    found = dict.fromkeys(("VmRSS", "VmHWM", "RssFile"), 0)
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return found
    for line in lines:
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * 1024
    return found


def _tree(pid: int) -> list[int]:
    """Return a process and everything below it."""
    members = [pid]
    for member in members:
        for task in Path(f"/proc/{member}/task").glob("*/children"):
            try:
                members += map(int, task.read_text().split())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return members


def compete(
    contestants: Sequence[Contestant],
    folder: Path,
    runs: int,
    warm_up: bool = True,
    done: Callable[[str], Any] = lambda name: None,
) -> dict[str, Figures]:
    """Measure several commands in turns; who begins changes from round to round.

    Args:
        contestants: the commands.
        folder: where their output folders are made.
        runs: rounds that count.
        warm_up: whether a round that does not count comes first.
        done: called with a name after each of its runs.
    """
    figures = {c.name: Figures([]) for c in contestants}
    for round_ in range(-int(warm_up), runs):
        turn = round_ % len(contestants)
        for contestant in [*contestants[turn:], *contestants[:turn]]:
            result = figures[contestant.name]
            if result.failure is None:
                try:
                    figure = _run_once(contestant, folder)
                except CommandFailed as error:
                    result.failure = str(error)
                else:
                    if round_ >= 0:
                        result.runs.append(figure)
            done(contestant.name)
    return figures


def _run_once(contestant: Contestant, folder: Path) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as output:
        command = [word.replace("{output}", output) for word in contestant.command]
        figure = run(command, contestant.cores)
        if contestant.check is not None:
            contestant.check(Path(output))
    return figure


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Divide pair by pair; return the least, the median and the greatest ratio."""
    quotients = [a / b for a, b in zip(ours, theirs, strict=True)]
    return min(quotients), statistics.median(quotients), max(quotients)


def python(*words: str) -> list[str]:
    """Return a command that runs this interpreter."""
    return [sys.executable, *words]
