"""What the live page asks of where its rows come from, and what it makes of that over time."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.report.data import PANES, Contents
from pipelines.report.sums import integers

RATE_OVER_S = 60.0

_UNTIL = re.compile(r"-stream-(\d+)-")


class Source(Protocol):
    """Rows that grow."""

    @property
    def problem(self) -> str:
        """What is wrong with where rows come from, while those that came are still shown."""
        ...

    def refresh(self) -> bool:
        """Read what is new; say whether anything is.

        Raises:
            RunError: it can't be read.
        """
        ...

    def contents(self) -> Contents:
        """Return what has been read."""
        ...

    def known_until(self) -> int | None:
        """Return up to when the input is known to be complete, in ms since the epoch."""
        ...

    def close(self) -> None:
        """Let go of what is held."""
        ...


class Rate:
    """Transitions a second over the last minute.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, total: int) -> float | None:
        """Return the rate, given how many there have been; None at first, and after a new start."""
        now = self._clock()
        if self._seen and total < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, total))
        while len(self._seen) > 2 and self._seen[1][0] <= now - RATE_OVER_S:
            self._seen.popleft()
        then, before = self._seen[0]
        return (total - before) / (now - then) if now > then else None


def transitions(contents: Contents) -> int:
    """Count the transitions that the tables of analytics have taken in."""
    for name, column in (("flow", "transitions"), ("process_map", "count")):
        if name in contents.tables:
            return int(integers(contents.tables[name][column]).sum())
    return 0


def final_until(tables: Mapping[str, pa.Table]) -> int | None:
    """Return the end of the newest window that is final, in ms."""
    ends = []
    for name in PANES:
        if name in tables:
            rows = tables[name]
            final = rows.filter(pc.equal(rows["pane"], "final"))
            newest = pc.max(final["window_end"].cast(pa.int64())).as_py()
            if newest is not None:
                ends.append(newest // 1000)
    return max(ends, default=None)


def named_until(paths: Iterable[str]) -> int | None:
    """Return the latest time that names of a stream's files say they go up to, in ms."""
    found = (_UNTIL.search(path.rpartition("/")[2]) for path in paths)
    return max((int(match[1]) for match in found if match), default=None)


def standing(source: Source, rate: float | None, now_ms: int, problem: str) -> dict[str, Any]:
    """Return what the page shows of a stream beside its tables."""
    return {
        "now": now_ms,
        "known_until": source.known_until(),
        "rate": None if rate is None else round(rate, 1),
        "problem": problem or source.problem,
    }
