"""Shows a run's progress: a display on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from pipelines.screen import Screen
from pipelines.values import size_text
from transforms.progress import Totals

LINE_EVERY_S = 10.0


class Watcher(Protocol):
    """Takes the totals of a run, again and again."""

    def update(self, totals: Totals) -> None:
        """Show what has been done."""
        ...


@contextmanager
def watching(screen: Screen, wanted: bool, size: int, shards: int) -> Iterator[Watcher]:
    """Show progress while the block runs.

    Args:
        screen: where.
        wanted: False shows nothing.
        size: bytes of the input, as stored.
        shards: parts of the fold.
    """
    if not wanted:
        yield _Nothing()
    elif screen.err.is_terminal:
        with _Display(screen, size, shards) as display:
            yield display
    else:
        yield Lines(screen.note, size, shards)


class _Nothing:
    def update(self, totals: Totals) -> None:
        pass


class Lines:
    """A line every ten seconds; none if the run is over sooner.

    Args:
        say: takes a line.
        size: bytes of the input.
        shards: parts of the fold.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        size: int,
        shards: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._size = size
        self._shards = shards
        self._clock = clock
        self._begun = clock()
        self._due = self._begun + LINE_EVERY_S
        self._last = 0

    def update(self, totals: Totals) -> None:
        """Say how far the run is, if it is time."""
        now = self._clock()
        if now < self._due or totals.bytes < self._last:
            # Or the commit has removed the folder that workers report to.
            return
        self._last = totals.bytes
        self._due = now + LINE_EVERY_S
        seconds = now - self._begun
        percent = f" ({100 * totals.bytes / self._size:.0f} %)" if self._size > 0 else ""
        self._say(
            f"{seconds:,.0f} s: read {size_text(totals.bytes)} of {size_text(self._size)}{percent}"
            f", {totals.events:,} events ({totals.events / seconds:,.0f}/s)"
            f", folded {totals.shards} of {self._shards} shards"
        )


class _Display:
    """Two bars: bytes read, then shards folded."""

    def __init__(self, screen: Screen, size: int, shards: int) -> None:
        self._begun = self._counted = time.monotonic()
        self._size = size
        self._last = Totals()
        self._progress = Progress(
            TextColumn("{task.description:<5}"),
            BarColumn(),
            _Amount(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=screen.err,
            transient=True,
        )
        self._bytes = self._progress.add_task("read", total=max(size, 1), unit="bytes", rate="")
        self._shards = self._progress.add_task(
            "fold", total=max(shards, 1), unit="shards", rate="", start=False
        )

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, totals: Totals) -> None:
        if totals.bytes < self._last.bytes:
            # The commit has removed the folder that workers report to.
            return
        now = time.monotonic()
        if totals.events > self._last.events:
            self._counted = now
        self._last = totals
        rate = totals.events / max(self._counted - self._begun, 0.1)
        self._progress.update(
            self._bytes,
            completed=self._size if self._read(totals) else totals.bytes,
            rate=f"{rate:,.0f} events/s" if totals.events else "",
        )
        if self._read(totals) and not self._progress.tasks[1].started:
            self._progress.start_task(self._shards)
        self._progress.update(self._shards, completed=totals.shards)

    def _read(self, totals: Totals) -> bool:
        """Say whether all is read; parts of files are sized roughly."""
        return totals.shards > 0 or totals.bytes >= 0.995 * self._size


class _Amount(ProgressColumn):
    """Bytes for one bar, a count for the other."""

    def render(self, task: Task) -> Text:
        if task.fields["unit"] == "bytes":
            return Text(f"{size_text(task.completed)} of {size_text(task.total or 0)}")
        return Text(f"{task.completed:.0f} of {task.total or 0:.0f} shards")
