"""A picture of a stream while it runs: a panel on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.live import Live
from rich.table import Table

from pipelines.screen import Screen
from transforms.fold.streaming import Standing, standing

LINE_EVERY_S = 10.0
RATE_OVER_S = 5.0


class Panel(Protocol):
    """Takes the counts of a stream, again and again."""

    def update(self, counts: Mapping[str, int]) -> None:
        """Show them."""
        ...


@contextmanager
def watching(screen: Screen, wanted: bool, begun: float) -> Iterator[Panel]:
    """Show a stream while the block runs.

    Args:
        screen: where.
        wanted: False shows nothing.
        begun: when the run began, as `time.monotonic` has it.
    """
    if not wanted:
        yield _Nothing()
    elif screen.err.is_terminal:
        with Live(console=screen.err, transient=True, refresh_per_second=4) as live:
            yield _Display(live, begun)
    else:
        yield Lines(screen.note, begun)


class _Nothing:
    def update(self, counts: Mapping[str, int]) -> None:
        pass


class Rate:
    """Events a second over the last seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque([(clock(), 0)])

    def of(self, events: int) -> float:
        """Return the rate, given how many there have been."""
        now = self._clock()
        self._seen.append((now, events))
        while len(self._seen) > 2 and self._seen[1][0] < now - RATE_OVER_S:
            self._seen.popleft()
        then, before = self._seen[0]
        return (events - before) / max(now - then, 0.1)


def lag_text(complete_ms: int | None, now_s: float, idle: bool = False) -> str:
    """Say how far the folded order time is behind the clock.

    Args:
        complete_ms: until when all is folded; None if nothing is.
        now_s: seconds since the epoch.
        idle: nothing has come lately, and nothing waits. The clock alone would count then.
    """
    if complete_ms is None:
        return "nothing folded yet"
    if idle:
        return "all folded"
    seconds = max(0.0, now_s - complete_ms / 1000)
    if seconds < 120:
        return f"{seconds:,.1f} s behind"
    if seconds < 7200:
        return f"{seconds / 60:,.0f} min behind"
    if seconds < 172_800:
        return f"{seconds / 3600:,.0f} h behind"
    return f"{seconds / 86_400:,.0f} days behind"


class Lines:
    """A line every ten seconds.

    Args:
        say: takes a line.
        begun: when the run began.
        clock: seconds that never go back.
        now: seconds since the epoch.
        look: gives where the fold stands.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        begun: float,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        look: Callable[[], Standing] = standing,
    ) -> None:
        self._say = say
        self._begun = begun
        self._clock = clock
        self._now = now
        self._look = look
        self._rate = Rate(clock)
        self._due = clock() + LINE_EVERY_S

    def update(self, counts: Mapping[str, int]) -> None:
        """Say how the stream is, if it is time."""
        if self._clock() < self._due:
            return
        self._due = self._clock() + LINE_EVERY_S
        stands = self._look()
        events = counts.get("events", 0)
        rate = self._rate.of(events)
        lag = lag_text(stands.complete_ms, self._now(), rate == 0 and stands.waiting == 0)
        self._say(
            f"{self._clock() - self._begun:,.0f} s: {events:,} events ({rate:,.0f}/s), {lag}, "
            f"{stands.waiting:,} waiting, {stands.open:,} cases, "
            f"{counts.get('dead', 0) + counts.get('rejected', 0):,} dead letters"
        )


class _Display:
    def __init__(self, live: Live, begun: float) -> None:
        self._live = live
        self._begun = begun
        self._rate = Rate()

    def update(self, counts: Mapping[str, int]) -> None:
        stands = standing()
        events = counts.get("events", 0)
        rate = self._rate.of(events)
        lag = lag_text(stands.complete_ms, time.time(), rate == 0 and stands.waiting == 0)
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="dim")
        table.add_column(justify="right")
        table.add_column(style="dim")
        rows = (
            ("events", f"{events:,}", f"{rate:,.0f}/s"),
            ("transitions", f"{counts.get('transitions', 0):,}", ""),
            ("watermark", lag, ""),
            ("waiting", f"{stands.waiting:,}", f"events in {stands.granules:,} granules"),
            ("cases", f"{stands.open:,}", "remembered"),
            (
                "duplicates, late",
                f"{counts.get('duplicates', 0):,}, {counts.get('late', 0):,}",
                "",
            ),
            ("dead letters", f"{counts.get('dead', 0) + counts.get('rejected', 0):,}", ""),
        )
        for row in rows:
            table.add_row(*row)
        table.caption = f"{time.monotonic() - self._begun:,.0f} s; Ctrl-C stops the stream"
        self._live.update(table)
