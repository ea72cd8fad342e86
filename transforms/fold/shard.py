"""What is kept of a shard: by its runner (`Store`, `Mark`), and decoded here (`Copies`)."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import orjson
import pyarrow as pa

from transforms.arrays import integers
from transforms.fold.elements import VERSION
from transforms.fold.keyed import KeyedRows
from transforms.fold.made import StateMisfit
from transforms.kernels.base import Control
from transforms.sources.messages import DRAIN

Bag = Literal["pending", "state"]


class Store(Protocol):
    """What a runner keeps for one shard. Writes hold with the bundle, or not at all."""

    def read_mark(self) -> bytes | None:
        """Return what `write_mark` has left."""

    def write_mark(self, mark: bytes) -> None:
        """Keep a few bytes."""

    def read(self, bag: Bag) -> Iterable[bytes]:
        """Return a bag's elements, in any order."""

    def append(self, bag: Bag, element: bytes) -> None:
        """Add an element to a bag."""

    def clear(self, bag: Bag) -> None:
        """Empty a bag."""

    def set_timer(self, at_ms: int) -> None:
        """Fire when the watermark has passed a time: the one timer, in place of an earlier one."""


@dataclass
class Mark:
    """The small part of a shard's state, read and written with every element.

    Attributes:
        token: names this state, to tell whether a decoded copy is of it.
        fired: order time in ms up to which everything has been folded.
        wake: the kernel's earliest deadline in ms.
        due: order time in ms up to which the next firing folds; the timer is set for it.
        complete: split -> order time in ms before which it has given everything.
        splits: number of splits, 0 if unknown.
        pending: rows and controls in the pending bag, those folded included.
        state: rows in the state bag, those replaced included.
        handed: order time in ms up to which another run has folded, whose state this began with.
        overlaps: how many elements have had events before that.
        made: what the state depends on (`transforms.fold.made.text_of`).
    """

    token: str = ""
    fired: int | None = None
    wake: int | None = None
    due: int | None = None
    complete: dict[str, int] = field(default_factory=dict)
    splits: int = 0
    pending: int = 0
    state: int = 0
    handed: int | None = None
    overlaps: int = 0
    made: str = ""

    @classmethod
    def of(cls, data: bytes | None) -> Mark:
        """Decode it, or make the first one.

        Raises:
            StateMisfit: a newer program has written it.
        """
        if data is None:
            return cls()
        values = orjson.loads(data)
        version = values.pop("version")
        if version > VERSION:
            reason = (
                f"the stream's state is of version {version}, and this program knows {VERSION}: "
                "start the newer program again"
            )
            raise StateMisfit(reason)
        return cls(**values)

    def note(self, said: tuple[int, int, int]) -> None:
        """Note what a reader says of itself (`elements.said`)."""
        complete, split, splits = said
        if splits:
            self.splits = splits
            self.complete[str(split)] = max(complete, self.complete.get(str(split), complete))

    def least(self) -> int:
        """Return the order time in ms before which all splits have given everything."""
        if not self.splits or len(self.complete) < self.splits:
            return -DRAIN
        return min(self.complete.values())

    def drained(self) -> bool:
        """Whether all splits have ended."""
        return self.least() >= DRAIN

    def to_bytes(self) -> bytes:
        """Encode it."""
        return orjson.dumps({"version": VERSION, **vars(self)})


@dataclass
class Waiting:
    """Events of an element that have not been folded, and their first and last order time in µs."""

    table: pa.Table
    first: int
    last: int

    def split(self, until: int) -> tuple[Waiting, Waiting]:
        """Return the events before an order time in µs, and the others; there are some of both."""
        times = integers(self.table["order_time"].combine_chunks())
        early = times < until
        before, after = (
            Waiting(
                self.table.filter(pa.array(chosen)),
                int(times[chosen].min()),
                int(times[chosen].max()),
            )
            for chosen in (early, ~early)
        )
        return before, after


@dataclass
class Copy:
    """A shard's bags, decoded."""

    token: str
    state: KeyedRows
    waiting: list[Waiting] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    newest: int = -(2**62)
    """Last order time in µs of the events that came last."""

    def earliest(self) -> int | None:
        """Return the earliest order time in ms that waits."""
        times = [w.first // 1000 for w in self.waiting] + [c.effective for c in self.controls]
        return min(times, default=None)

    def rows(self) -> int:
        """Return how many events wait."""
        return sum(w.table.num_rows for w in self.waiting)

    def take_due(self, until_ms: int) -> list[pa.Table]:
        """Take the events before an order time in ms out of what waits."""
        until = until_ms * 1000
        due, left = [], []
        for waiting in self.waiting:
            if waiting.last < until:
                due.append(waiting.table)
            elif waiting.first >= until:
                left.append(waiting)
            else:
                now, later = waiting.split(until)
                due.append(now.table)
                left.append(later)
        self.waiting = left
        return due


@dataclass(frozen=True)
class Stand:
    """Where a shard stands, for whoever watches.

    Attributes:
        fired: order time in ms up to which it has folded.
        waiting: events that wait.
        granules: granules from the first that waits to the last.
        live: state rows.
        newest: last order time in µs of the events that it was given last.
    """

    fired: int | None
    waiting: int
    granules: int
    live: int
    newest: int = -(2**62)


class Copies:
    """The decoded copies of this process, by shard; safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: dict[object, Copy] = {}
        self._stands: dict[object, Stand] = {}

    def note(self, key: object, stand: Stand) -> None:
        """Note where a shard stands."""
        with self._lock:
            self._stands[key] = stand

    def stand(self, key: object) -> Stand:
        """Return where a shard stands."""
        with self._lock:
            return self._stands[key]

    def stands(self) -> list[Stand]:
        """Return where the shards stand."""
        with self._lock:
            return list(self._stands.values())

    def pop(self, key: object) -> Copy | None:
        """Take a copy out: if the work with it fails, it is gone."""
        with self._lock:
            return self._copies.pop(key, None)

    def put(self, key: object, copy: Copy) -> None:
        """Keep a copy."""
        with self._lock:
            self._copies[key] = copy

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._copies.clear()
