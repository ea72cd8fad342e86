"""The exit codes of a run: what each means, for the help text, the documentation and the code."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a run ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DEAD_LETTERS = 3
    NO_INPUT = 4
    OUTPUT = 5
    LAW = 70
    INTERRUPTED = 130
    TERMINATED = 143


MEANING: dict[ExitCode, str] = {
    ExitCode.OK: "done; there may be dead letters",
    ExitCode.FAILED: "failed; the tables of an earlier run are as they were",
    ExitCode.USAGE: "a wrong option or configuration; nothing was started",
    ExitCode.DEAD_LETTERS: "done and written, but with more dead letters than --max_dead_letters",
    ExitCode.NO_INPUT: "no input file matches",
    ExitCode.OUTPUT: "the output can't be written",
    ExitCode.LAW: "written, but the counts don't add up: a bug of this program",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C); the tables of an earlier run are as they were",
    ExitCode.TERMINATED: "terminated (SIGTERM); as if interrupted",
}


class Terminated(KeyboardInterrupt):
    """The process was told to end (SIGTERM)."""


class RunError(Exception):
    """A run that can't go on.

    Args:
        code: how the program exits.
        text: one line that names what is wrong and how to put it right.
        traceback: whether there is a stack trace that `--verbose` would show.
    """

    def __init__(self, code: ExitCode, text: str, traceback: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.traceback = traceback


class UsageError(Exception):
    """Wrong options: one sentence a problem."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
