"""Where a reader of Kafka stands, and the commit of that for its group.

A mark is JSON with a version, never a pickle. Offsets are committed by clients of this process
that read nothing: one a group, so that a commit never goes backwards.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from apache_beam.coders import Coder
from apache_beam.io.unbounded_source import CheckpointMark

from transforms.kafka import Hearing, KafkaAddress, Monitor, client, make, settings_for
from transforms.sources.kafka.partitions import Key, Positions, restore
from transforms.sources.versioned import read_versioned, write_versioned

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class KafkaMark(CheckpointMark):
    """Where a reader stands.

    Attributes:
        address: whose group the offsets are committed for.
        positions: topic -> partition -> (next offset, bound of record times in µs); None while
            the reader has not yet learned of any partition.
        floor: bound that the watermark has promised, in µs.
        disorder_ms: D.
        marks_ms: granule of a fold that goes by marks: its runner keeps no state, so offsets are
            committed only when what was read before them has been folded and delivered.
    """

    address: KafkaAddress
    positions: Positions | None = None
    floor: int | None = None
    disorder_ms: int = 0
    marks_ms: int = 0

    def finalize_checkpoint(self) -> None:
        """Commit the offsets for the group; a failure is logged, as the next one includes it."""
        if not self.positions:
            return
        places = restore(self.positions)
        committer = committer_of(self.address)
        if self.marks_ms:
            places = committer.delivered(places, self.folded_us())
        committer.commit(places)

    def folded_us(self) -> int:
        """Return the order time up to which granules are over, of a reader by marks."""
        if self.floor is None:
            return -(2**62)
        granule = 1000 * self.marks_ms
        return (self.floor - 1000 * self.disorder_ms) // granule * granule - _AHEAD_US


class KafkaMarkCoder(Coder):
    """Writes a mark as JSON with a version.

    Args:
        address: of the source; not written, as are the others.
        disorder_ms: see `KafkaMark`.
        marks_ms: see `KafkaMark`.
    """

    def __init__(self, address: KafkaAddress, disorder_ms: int = 0, marks_ms: int = 0) -> None:
        self._address = address
        self._disorder_ms = disorder_ms
        self._marks_ms = marks_ms

    def encode(self, value: KafkaMark) -> bytes:
        """Write a mark."""
        at = None
        if value.positions is not None:
            at = {
                topic: {str(number): list(place) for number, place in numbers.items()}
                for topic, numbers in value.positions.items()
            }
        return write_versioned({"floor": value.floor, "at": at})

    def decode(self, encoded: bytes) -> KafkaMark:
        """Read a mark.

        Raises:
            ValueError: it is of a newer version.
        """
        found = read_versioned(encoded)
        positions: Positions | None = None
        if found["at"] is not None:
            positions = {
                topic: {int(number): (place[0], place[1]) for number, place in numbers.items()}
                for topic, numbers in found["at"].items()
            }
        return KafkaMark(
            self._address, positions, found["floor"], self._disorder_ms, self._marks_ms
        )

    def is_deterministic(self) -> bool:
        """Equal marks are equal bytes."""
        return True


def consumer_of(address: KafkaAddress, monitor: Monitor, **own: Any) -> Any:
    """Make a consumer that commits nothing by itself, and skips nothing in silence."""
    settings = settings_for(
        address,
        monitor,
        group_id=address.group,
        enable_auto_commit=False,
        enable_auto_offset_store=False,
        auto_offset_reset="error",
        **own,
    )
    return make(client().Consumer, settings, address)


def bound_of(metadata: str | None) -> int | None:
    """Read the running maximum of record times that was committed with an offset."""
    if not metadata or not metadata.startswith(_BOUND):
        return None
    text = metadata[len(_BOUND) :]
    return int(text) if text.isdecimal() else None


_BOUND = "record_time="

_COMMIT_MS = 10_000
"""How long a commit may take."""

_AHEAD_US = 1_000_000
"""An engine's clock may be so far ahead of the broker's."""


class _Committer:
    """Commits a group's offsets, forwards only; a member of no group."""

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._done: dict[Key, int] = {}
        self._consumer: Any = None
        self._hearing = Hearing(address.servers, self._make)
        self._said = float("-inf")
        self._read: dict[Key, deque[tuple[int, int | None]]] = {}

    def _make(self) -> Any:
        silent = Monitor(self._address.servers, silent=True)
        # A commit waits as long for the group's coordinator as a member may be silent, which
        # means nothing to who is no member, and holds up the stream.
        return consumer_of(
            self._address,
            silent,
            socket_timeout_ms=_COMMIT_MS,
            session_timeout_ms=_COMMIT_MS,
        )

    def forget(self, key: Key) -> None:
        """Let a partition's offsets begin anew."""
        with self._lock:
            self._done.pop(key, None)
            self._read.pop(key, None)

    def delivered(
        self, positions: Mapping[Key, tuple[int, int | None]], folded_us: int
    ) -> dict[Key, tuple[int, int | None]]:
        """Return the newest places of earlier marks that lie before a folded order time.

        A message's order time is at most its record time, and a place's bound is the greatest
        record time before it: if that is folded, everything before the place is.
        """
        found: dict[Key, tuple[int, int | None]] = {}
        with self._lock:
            for key, place in positions.items():
                read = self._read.setdefault(key, deque())
                if not read or read[-1][0] < place[0]:
                    read.append(place)
                while read and (read[0][1] is None or read[0][1] < folded_us):
                    found[key] = read.popleft()
        return found

    def commit(self, positions: Mapping[Key, tuple[int, int | None]]) -> None:
        """Commit the offsets that are ahead of those committed before."""
        with self._lock:
            ahead = {
                key: place for key, place in positions.items() if place[0] > self._done.get(key, -1)
            }
            if not ahead:
                return
            if self._consumer is None:
                self._consumer = self._make()
            places = [
                client().TopicPartition(*key, offset, "" if bound is None else f"{_BOUND}{bound}")
                for key, (offset, bound) in ahead.items()
            ]
            begun = time.monotonic()
            try:
                answers = self._consumer.commit(offsets=places, asynchronous=False)
            except client().KafkaException as e:
                if time.monotonic() - self._said > 60:
                    self._said = time.monotonic()
                    LOGGER.warning(
                        "Offsets of group %s could not be committed: %s",
                        self._address.group,
                        e.args[0].str(),
                    )
                successor = self._hearing.successor(self._consumer, begun)
                if successor is not None:
                    old, self._consumer = self._consumer, successor
                    old.close()
                return
            self._hearing.good()
            self._done.update(
                {
                    (each.topic, each.partition): each.offset
                    for each in answers
                    if each.error is None
                }
            )

    def close(self) -> None:
        """Let the client go."""
        with self._lock:
            if self._consumer is not None:
                self._consumer.close()
                self._consumer = None


_committers: dict[KafkaAddress, _Committer] = {}
_committers_lock = threading.Lock()


def committer_of(address: KafkaAddress) -> _Committer:
    """Return this process's committer of a group."""
    whose = KafkaAddress(address.servers, address.config, (), address.group)
    with _committers_lock:
        return _committers.setdefault(whose, _Committer(whose))


def _close_all(committers: Iterable[_Committer]) -> None:
    for each in list(committers):
        each.close()


atexit.register(_close_all, _committers.values())
