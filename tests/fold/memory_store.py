"""A runner's state of one shard in memory, with bundles that hold or are undone."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from transforms.fold.shard import Bag


class MemoryStore:
    """`transforms.fold.shard.Store` in memory.

    Attributes:
        timer: when the shard wants to fire, in ms.
        reads: how many times a bag was read.
    """

    def __init__(self) -> None:
        self.mark: bytes | None = None
        self.bags: dict[Bag, list[bytes]] = {"pending": [], "state": []}
        self.timer: int | None = None
        self.reads = 0

    def read_mark(self) -> bytes | None:
        return self.mark

    def write_mark(self, mark: bytes) -> None:
        self.mark = mark

    def read(self, bag: Bag) -> Iterable[bytes]:
        self.reads += 1
        # A runner promises no order.
        return reversed(self.bags[bag])

    def append(self, bag: Bag, element: bytes) -> None:
        self.bags[bag].append(element)

    def clear(self, bag: Bag) -> None:
        self.bags[bag] = []

    def set_timer(self, at_ms: int) -> None:
        self.timer = at_ms

    def save(self) -> MemoryStore:
        """Return a copy, to go back to if a bundle fails."""
        return copy.deepcopy(self)
