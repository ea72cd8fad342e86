"""The partitions of one reader: positions, record times made monotone, and the watermark.

Pure: no client, no clock; whoever drives it says what came and when the broker said that no
more had come. What it owes: a message that is taken after `watermark` returned W has a record
time of at least W + D.

Each partition has a *bound*: no message to come has a record time below it. It is the running
maximum of record times, and for a partition that is read to its end also the time at which
the broker said so, less the grace for idleness. A message whose own time is below a bound that
idleness made is raised to it, and counted. The watermark is the least bound, less D; without
a bound (never a message, end not seen) there is none. A partition that is found later starts
at the bound that the watermark has promised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

Key = tuple[str, int]
"""Topic and partition."""

Positions = dict[str, dict[int, tuple[int, "int | None"]]]
"""Topic -> partition -> (next offset, bound in µs or None)."""

_NEVER = int(np.iinfo(np.int64).min)


@dataclass
class _Partition:
    next: int
    seen: int
    """Running maximum of the messages' own times."""
    bound: int
    end: int | None = None
    """Where its end was met, while nothing has come since."""


class Partitions:
    """The ledger of a reader.

    Args:
        disorder_us: D.
        idle_us: grace for idleness.
        floor: the bound that an earlier reader of this slice has promised, in µs.
    """

    def __init__(self, disorder_us: int, idle_us: int, floor: int | None = None) -> None:
        self._disorder = disorder_us
        self._idle = idle_us
        self._floor = _NEVER if floor is None else floor
        self._alone = _NEVER
        self._partitions: dict[Key, _Partition] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._partitions

    def __iter__(self) -> Iterator[Key]:
        return iter(self._partitions)

    def __len__(self) -> int:
        return len(self._partitions)

    @property
    def floor(self) -> int | None:
        """The bound that has been promised, in µs."""
        return None if self._floor == _NEVER else self._floor

    def add(self, key: Key, offset: int, bound: int | None = None) -> None:
        """Begin to read a partition at an offset; its bound is known from an earlier reader."""
        known = _NEVER if bound is None else bound
        self._partitions[key] = _Partition(offset, known, max(known, self._floor))

    def remove(self, key: Key) -> None:
        """Read it no longer."""
        del self._partitions[key]

    def move(self, key: Key, offset: int) -> None:
        """Go on at another offset: what was at the old one is lost."""
        partition = self._partitions[key]
        partition.next, partition.end = offset, None

    def next(self, key: Key) -> int:
        """Return the offset of the message to come."""
        return self._partitions[key].next

    def take(self, key: Key, last: int, times: Integers) -> tuple[Integers, int]:
        """Take messages, in order.

        Args:
            key: their partition.
            last: offset of the last one.
            times: their own record times in µs.

        Returns:
            Their record times, monotone, and how many were raised to a bound of idleness.
        """
        partition = self._partitions[key]
        natural = np.maximum.accumulate(np.maximum(times, partition.seen))
        behind = int(np.searchsorted(natural, partition.bound))
        record_times = np.maximum(natural, partition.bound)
        partition.next, partition.end = last + 1, None
        partition.seen, partition.bound = int(natural[-1]), int(record_times[-1])
        return record_times, behind

    def reach(self, key: Key, offset: int) -> None:
        """The end was met: there is no message at this offset yet."""
        partition = self._partitions[key]
        # Of an end that was met before the newest message nothing follows.
        if offset >= partition.next:
            # What lies between is no message: a transaction's marker, or compacted away.
            partition.next = partition.end = offset

    def at_end(self, key: Key) -> bool:
        """Whether its end was met and nothing has come since."""
        return self._partitions[key].end is not None

    def confirm(self, key: Key, end: int, at_us: int) -> None:
        """The broker said at a time that the partition ended at an offset."""
        partition = self._partitions[key]
        if partition.end == end:
            partition.bound = max(partition.bound, at_us - self._idle)

    def confirm_none(self, at_us: int) -> None:
        """The broker said at a time that there are no partitions for us."""
        if not self._partitions:
            self._alone = max(self._alone, at_us - self._idle)

    def watermark(self) -> int | None:
        """Return and promise the watermark in µs; None: nothing can be said yet."""
        bounds = [partition.bound for partition in self._partitions.values()]
        self._floor = max(self._floor, min(bounds, default=self._alone))
        return None if self._floor == _NEVER else self._floor - self._disorder

    def positions(self) -> Positions:
        """Return what a later reader needs to go on."""
        found: Positions = {}
        for (topic, number), partition in self._partitions.items():
            bound = None if partition.bound == _NEVER else partition.bound
            found.setdefault(topic, {})[number] = (partition.next, bound)
        return found


def restore(
    positions: Mapping[str, Mapping[int, tuple[int, int | None]]],
) -> dict[Key, tuple[int, int | None]]:
    """Return positions by (topic, partition)."""
    return {
        (topic, number): place
        for topic, numbers in positions.items()
        for number, place in numbers.items()
    }
