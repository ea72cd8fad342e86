"""What reading one slice of a broker's messages is, whichever broker: batches, marks, the end.

A reading is what Beam's reader drives (`transforms.sources.standing`). Of the broker it knows
nothing: `_poll` takes what has come, `_watermark_us` says what no message to come is before.

**Rests.** Beam's runner for Flink tells the watermark only between two bundles, when no other is
due, and a reader that goes on at once is always due first: rows would come with each checkpoint
(`docs/decisions/0013-rests.md`). With `rest_every_s` all readers of a process say once in so many
seconds that they have nothing, and each does so when it has read all there is.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod

import numpy as np
from apache_beam.io.unbounded_source import CheckpointMark
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP, Timestamp

from transforms.sources.messages import DRAIN, pack_messages
from transforms.sources.slice import Slice

PATIENCE_S = 1.0
"""So long a bundle goes on without a message, where marks are wanted."""

BEHIND_S = 60.0
"""A reader so far behind the clock, and D, makes up for it,"""

SELDOM = 4
"""and rests so many times more seldom: nobody waits for a row of an hour ago to the second."""

_STOP_LOOKS_S = 0.1


class Reading(ABC):
    """Reads one slice; its methods are those of Beam's readers.

    Attributes:
        closed: its client is gone, although somebody may still have it.

    Args:
        owned: the slice.
    """

    def __init__(self, owned: Slice) -> None:
        self._slice = owned
        self._read_all = False
        self.closed = False
        self._ended = False
        self._looked = float("-inf")
        self._told = -DRAIN
        self._current = b""
        self._current_time = MIN_TIMESTAMP
        self._rested = self._rest_slot()

    @abstractmethod
    def start(self) -> bool:
        """Take the first batch, and wait for it as long as may be needed to connect."""

    @abstractmethod
    def get_checkpoint_mark(self) -> CheckpointMark:
        """Return where this reading stands: after the batch that was taken last."""

    @abstractmethod
    def close(self) -> None:
        """Let the client go."""

    @abstractmethod
    def _poll(self) -> bool:
        """Take a batch of what has come into `_current` and `_current_time`, if anything has."""

    @abstractmethod
    def _watermark_us(self) -> int | None:
        """Return and promise the watermark; None: nothing can be said yet."""

    def _has_read_all(self) -> bool:
        """Say whether nothing is known to follow the batch that was taken last."""
        return False

    def _is_over(self) -> bool:
        """Say whether all that was wanted has been read."""
        return False

    def advance(self) -> bool:
        """Take the next batch; wait for it no longer than `PATIENCE_S`, and that for a mark only.

        Where marks are wanted a bundle goes on while nothing comes: its end costs the runner
        more than the wait.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not (found := self._advance()):
            if not self._slice.marks_ms or self._ended or time.monotonic() > deadline:
                break
        return found

    def _advance(self) -> bool:
        if self._ended or self._rests():
            return False
        if self._stopping():
            return self._end()
        if self._poll():
            self._read_all = self._has_read_all()
            return True
        if self._is_over():
            return self._end()
        return self._mark_time()

    def _rests(self) -> bool:
        slot = self._rest_slot()
        if slot == self._rested and not (self._read_all and self._slice.rest_every_s):
            return False
        self._rested, self._read_all = slot, False
        return True

    def _rest_slot(self) -> int:
        every_s = self._slice.rest_every_s
        if not every_s:
            return 0
        now = time.time()
        # A multiple: readers rest together, those that are behind and those that are not.
        if MIN_TIMESTAMP < self._current_time < Timestamp(now - BEHIND_S):
            every_s *= SELDOM
        return int(now // every_s * every_s)

    def _end(self) -> bool:
        """End; the last batch is an empty one that says so, if marks are wanted."""
        self._ended = True
        if not self._slice.marks_ms:
            return False
        self._current = self._empty(DRAIN)
        return True

    def _mark_time(self) -> bool:
        """Make an empty batch where the watermark has passed a granule without messages."""
        length = self._slice.marks_ms
        watermark = self._watermark_us() if length else None
        if watermark is None or watermark // 1000 // length <= self._told // length:
            return False
        self._current = self._empty(watermark // 1000)
        self._current_time = Timestamp(micros=watermark)
        return True

    def _empty(self, complete_ms: int) -> bytes:
        none = np.empty(0, np.int64)
        codes = (list[str](), np.empty(0, np.int32))
        return pack_messages([], codes, none, none, said=self._say(complete_ms))

    def _say(self, complete_ms: int | None) -> tuple[int, int, int] | tuple[()]:
        """Return what a batch says of its reader, and remember it."""
        if complete_ms is None or not self._slice.marks_ms:
            return ()
        self._told = complete_ms
        return self._slice.number, self._slice.of, complete_ms

    def _say_now(self) -> tuple[int, int, int] | tuple[()]:
        """Return what a batch of messages says of its reader."""
        watermark = self._watermark_us()
        return self._say(None if watermark is None else watermark // 1000)

    def _stopping(self) -> bool:
        """Whether the stop file exists; looked for ten times a second at most."""
        now = time.monotonic()
        if not self._slice.stop or now - self._looked < _STOP_LOOKS_S:
            return False
        self._looked = now
        return os.path.exists(self._slice.stop)

    @property
    def ended(self) -> bool:
        """Whether nothing comes any more."""
        return self._ended

    def get_current(self) -> bytes:
        """Return the batch."""
        return self._current

    def get_current_timestamp(self) -> Timestamp:
        """Return the record time of its oldest message, less D."""
        return self._current_time

    def get_watermark(self) -> Timestamp:
        """Return what no message to come is before."""
        if self._ended:
            return MAX_TIMESTAMP
        watermark = self._watermark_us()
        return MIN_TIMESTAMP if watermark is None else Timestamp(micros=watermark)
