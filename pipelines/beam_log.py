"""What Beam says, and how much of it reaches the user: its log, and the errors of its workers.

Beam logs much that a user can't act upon, and wraps an error of a worker in the text of
several stack traces. `--verbose` shows all of it.
"""

from __future__ import annotations

import io
import logging
import re
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

_ERROR_LINE = re.compile(r"(?P<kind>[A-Za-z_][\w.]*): ?(?P<text>.*)", re.DOTALL)
_BARE_ERROR = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Timeout)")
_STEP = re.compile(r"\s*\[while running '(?P<step>[^']*)'\]")
_NUMBER = re.compile(r"\[Errno (\d+)\]")
_NUMBERED = re.compile(r"-ptransform-\d+$")


def configure(verbose: bool, local: bool = True) -> None:
    """Choose what is logged on stderr.

    Args:
        verbose: everything from INFO on; otherwise our own warnings, and errors of others.
        local: the engine runs in this process, so its errors reach us as exceptions and
            need not be logged too.
    """
    root = logging.getLogger()
    for earlier in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(earlier)
    root.addHandler(_Handler(sys.stderr))
    root.setLevel(logging.INFO if verbose else logging.ERROR)
    beam = logging.CRITICAL if local else logging.WARNING
    logging.getLogger("apache_beam").setLevel(logging.NOTSET if verbose else beam)
    for ours in ("transforms", "pipelines"):
        logging.getLogger(ours).setLevel(logging.INFO if verbose else logging.WARNING)
    if not verbose:
        for package in ("apache_beam", "google", "grpc"):
            warnings.filterwarnings("ignore", module=package)


@contextmanager
def quiet_stderr(wanted: bool) -> Iterator[None]:
    """Drop what is printed on `sys.stderr` while the block runs.

    Worker threads of Beam print their stack traces there, past the log. Whoever has taken
    hold of the stream before, as our screen and log have, still writes to it. Threads that the
    block leaves behind, as those of an engine that was given up, may still fail: that is
    nobody's concern any more, and is not printed either.
    """
    if not wanted:
        yield
        return
    before = set(threading.enumerate())
    # Never closed: a thread may be in the middle of a stack trace when the block ends.
    with redirect_stderr(_Nowhere()):
        try:
            yield
        finally:
            left = weakref.WeakSet(each for each in threading.enumerate() if each not in before)
            if left:
                _forget(left)


class _Nowhere(io.TextIOBase):
    """Takes text, and forgets it."""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


def _forget(threads: weakref.WeakSet[threading.Thread]) -> None:
    """Let no error of some threads be printed."""
    hook = threading.excepthook
    if not isinstance(hook, _Forgetful):
        hook = threading.excepthook = _Forgetful(hook)
    hook.forgotten |= threads


class _Forgetful:
    """A `threading.excepthook` that hands errors on, but for those of forgotten threads."""

    def __init__(self, others: Callable[[threading.ExceptHookArgs], object]) -> None:
        self.others = others
        self.forgotten: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    def __call__(self, args: threading.ExceptHookArgs) -> None:
        if args.thread not in self.forgotten:
            self.others(args)


if TYPE_CHECKING:
    _Stream = logging.StreamHandler[TextIO]
else:
    # Not a generic class at run time before Python 3.11.
    _Stream = logging.StreamHandler


class _Handler(_Stream):
    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.setFormatter(_Formatter())


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = f"{record.levelname.lower()}: {record.getMessage()}"
        if record.name.split(".")[0] not in ("transforms", "pipelines", "root"):
            line = f"{line} ({record.name})"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


@dataclass(frozen=True)
class Trouble:
    """What went wrong in a worker, in one line.

    Attributes:
        kind: class of the original error, without its module.
        text: its message, on one line.
        step: label of the step it happened in, if known.
    """

    kind: str
    text: str
    step: str | None = None

    @property
    def number(self) -> int | None:
        """The operating system's number of the error (`errno`), if it has one."""
        match = _NUMBER.match(self.text)
        return int(match[1]) if match else None

    def __str__(self) -> str:
        place = f" (in step '{self.step}')" if self.step else ""
        return f"{self.kind}: {self.text}{place}" if self.text else f"{self.kind}{place}"


def original_error(error: BaseException) -> Trouble:
    """Find what a worker raised, in an exception that may hold the text of its stack trace.

    An error of an embedded worker comes as itself, one of another thread or process as a
    `RuntimeError` whose text is the trace; a step's error has `[while running '<step>']`
    at its end in both.
    """
    text = str(error)
    if "Traceback (most recent call last)" not in text:
        return _trouble(type(error).__name__, text)
    # Of several traces in one text the last is what left the step, with the step's label.
    found = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = _ERROR_LINE.fullmatch(line)
        if match and not line.startswith((" ", "Traceback")):
            # A message may go on until the next trace begins.
            rest = []
            for more in lines[number + 1 :]:
                if not more.strip() or more.startswith(("Traceback", "During ", "  File ")):
                    break
                rest.append(more)
            found.append(_trouble(match["kind"], "\n".join([match["text"], *rest])))
        elif _BARE_ERROR.fullmatch(line):
            found.append(_trouble(line, ""))
    if not found:
        last = [line for line in lines if line.strip()]
        return _trouble(type(error).__name__, last[-1] if last else "")
    return found[-1]


def _trouble(kind: str, text: str) -> Trouble:
    match = _STEP.search(text)
    step = _NUMBERED.sub("", match["step"]) if match else None
    text = _STEP.sub("", text)
    wrapped = _ERROR_LINE.fullmatch(text) if kind == "RuntimeError" else None
    if step and wrapped and _BARE_ERROR.fullmatch(wrapped["kind"]):
        # Beam could not make another exception of that class.
        kind, text = wrapped["kind"], wrapped["text"]
    return Trouble(kind.rsplit(".", 1)[-1], " ".join(text.split()), step)
