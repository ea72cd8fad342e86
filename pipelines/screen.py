"""What a run says to whom: standard output, standard error, colours, and words for figures.

What is meant for a program or a file goes to stdout, what is meant for whoever waits to
stderr.
"""

from __future__ import annotations

import os
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 100


class Screen:
    """Standard output and standard error, as the user wants them.

    Args:
        quiet: no notes and no summary.
        color: `auto`, `always` or `never`; NO_COLOR and TERM are heeded by `auto`.
    """

    def __init__(self, quiet: bool = False, color: str = "auto") -> None:
        self.quiet = quiet
        self.out = _console(color, stderr=False)
        self.err = _console(color, stderr=True)

    def say(self, text: str | Text = "", wrap: bool = False) -> None:
        """Print a line of the result, unbroken unless it may wrap."""
        if not self.quiet:
            self.out.print(text, soft_wrap=not wrap)

    def table(self, table: Table) -> None:
        """Print a table of the result."""
        if not self.quiet:
            self.out.print(table)

    def note(self, text: str) -> None:
        """Print a line for whoever waits."""
        if not self.quiet:
            self.err.print(Text(text, "dim"), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.err.print(Text.assemble(("warning: ", "yellow"), text), soft_wrap=True)

    def fail(self, text: str) -> None:
        """Print an error."""
        self.err.print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)


class _Console(Console):
    """A console whose reader may leave: a run does not fail, and nobody is told any more."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        # What is still in the file's buffer is written when the process ends.
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


def _console(color: str, stderr: bool) -> Console:
    console = _Console(
        # Held, not looked up: others' output to sys.stderr may be turned off meanwhile.
        file=sys.stderr if stderr else sys.stdout,
        highlight=False,
        markup=False,
        emoji=False,
        force_terminal=True if color == "always" else None,
        no_color=True if color == "never" else None,
    )
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def counted(count: int, unit: str) -> str:
    """Return `1 file`, `2,000 files`."""
    return f"{count:,} {unit}" if count == 1 else f"{count:,} {unit}s"
