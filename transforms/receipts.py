"""When what a batch of messages became has been delivered: for engines that keep nothing.

A broker that forgets what is acknowledged must be told only when nothing can be lost any more. A
runner that keeps its state says so by finalizing a bundle. Engines of one process finalize what
has merely been read (Prism), so there the steps themselves keep account, in memory: a batch is
delivered when each of its parts has been folded, and everything that was folded up to then, and
its dead letters, have been taken by every output.

Nothing here can claim too much: a bundle that fails leaves its batches undelivered.
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

Delivered = tuple[str, int, int]
"""Table, shard or place, and order time in ms: names an element that outputs take."""

_NEVER = -(2**63)


@dataclass
class _Firing:
    shard: int
    until_us: int
    left: int


@dataclass
class _Shard:
    complete_us: int = _NEVER
    firings: deque[_Firing] = field(default_factory=deque)
    waiting: list[tuple[int, int]] = field(default_factory=list)
    """Heap of (last order time in µs, batch)."""


class Receipts:
    """The account of one run; safe between threads.

    Args:
        outputs: how many take each element.
    """

    def __init__(self, outputs: int) -> None:
        self._outputs = outputs
        self._lock = threading.Lock()
        self._left: Counter[int] = Counter()
        self._parts: defaultdict[tuple[int, int], deque[int]] = defaultdict(deque)
        self._expected: defaultdict[Delivered, deque[int | _Firing]] = defaultdict(deque)
        self._shards: defaultdict[int, _Shard] = defaultdict(_Shard)
        self._done: set[int] = set()
        self._then: dict[int, Callable[[], None]] = {}

    def begin(self, batch: int) -> None:
        """A batch's parts follow."""
        with self._lock:
            self._left[batch] += 1

    def part(self, batch: int, key: int, content: bytes) -> None:
        """It has a part, which goes to the fold."""
        with self._lock:
            self._left[batch] += 1
            self._parts[key, hash(content)].append(batch)

    def dead(self, batch: int, element: Delivered) -> None:
        """It has dead letters, which go to the outputs."""
        with self._lock:
            self._left[batch] += self._outputs
            self._expected[element].extend([batch] * self._outputs)

    def end(self, batch: int) -> None:
        """These were its parts."""
        self._run(self._locked(lambda: self._close(batch)))

    def received(self, shard: int, key: int, content: bytes, last_us: int) -> None:
        """A shard of the fold has a part, of which it has folded everything after `last_us`."""
        with self._lock:
            batches = self._parts.get((key, hash(content)))
            if batches:
                heapq.heappush(self._shards[shard].waiting, (last_us, batches.popleft()))
                if not batches:
                    del self._parts[key, hash(content)]

    def fired(self, shard: int, until_us: int, elements: Iterable[Delivered]) -> None:
        """A shard has folded up to an order time, and these leave it."""

        def note() -> list[Callable[[], None]]:
            listed = list(elements)
            firing = _Firing(shard, until_us, len(listed) * self._outputs)
            self._shards[shard].firings.append(firing)
            for element in listed:
                self._expected[element].extend([firing] * self._outputs)
            return self._settle(shard)

        self._run(self._locked(note))

    def delivered(self, elements: Iterable[Delivered]) -> None:
        """An output has taken these for good."""

        def note() -> list[Callable[[], None]]:
            found: list[Callable[[], None]] = []
            for element in elements:
                awaited = self._expected.get(element)
                if not awaited:
                    continue
                whose = awaited.popleft()
                if not awaited:
                    del self._expected[element]
                if isinstance(whose, _Firing):
                    whose.left -= 1
                    found += self._settle(whose.shard)
                else:
                    found += self._close(whose)
            return found

        self._run(self._locked(note))

    def when_delivered(self, batch: int, then: Callable[[], None]) -> None:
        """Call back when a batch has been delivered; at once if it has."""
        with self._lock:
            if batch not in self._done:
                self._then[batch] = then
                return
            self._done.discard(batch)
        then()

    def _locked(self, what: Callable[[], list[Callable[[], None]]]) -> list[Callable[[], None]]:
        with self._lock:
            return what()

    @staticmethod
    def _run(found: list[Callable[[], None]]) -> None:
        # Outside the lock: who is called may ask again.
        for then in found:
            then()

    def _settle(self, number: int) -> list[Callable[[], None]]:
        shard = self._shards[number]
        while shard.firings and not shard.firings[0].left:
            shard.complete_us = max(shard.complete_us, shard.firings.popleft().until_us)
        found: list[Callable[[], None]] = []
        while shard.waiting and shard.waiting[0][0] < shard.complete_us:
            found += self._close(heapq.heappop(shard.waiting)[1])
        return found

    def _close(self, batch: int) -> list[Callable[[], None]]:
        self._left[batch] -= 1
        if self._left[batch]:
            return []
        del self._left[batch]
        then = self._then.pop(batch, None)
        if then is not None:
            return [then]
        self._done.add(batch)
        return []


_runs: dict[str, Receipts] = {}


def open_account(scratch: str, outputs: int) -> None:
    """Begin to keep account of a run of this process.

    Args:
        scratch: names the run: its scratch folder.
        outputs: how many there are.
    """
    _runs[scratch] = Receipts(outputs)


def account_of(scratch: str) -> Receipts | None:
    """Return a run's account; None if it keeps none, or works in another process."""
    return _runs.get(scratch) if scratch else None


def acknowledge(scratch: str, elements: Iterable[Delivered]) -> None:
    """Tell a run's account, if it keeps one, what an output has taken for good."""
    account = account_of(scratch)
    if account is not None:
        account.delivered(elements)


def close_account(scratch: str) -> None:
    """Forget a run."""
    _runs.pop(scratch, None)
