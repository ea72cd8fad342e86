"""Readings that stand between two bundles, for whichever step of this process goes on with them.

Beam parks a reader at the end of a bundle with the instance of its step, and takes it up again if
the next bundle has that instance. A process has several, and on Flink the next bundle is often
another's: it would make a new reader, whose client connects anew and fetches again what the old
one had fetched. So what it reads with stands here, under what it reads and where, until somebody
goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Protocol

from apache_beam.coders import Coder
from apache_beam.io.unbounded_source import CheckpointMark, UnboundedReader
from apache_beam.utils.timestamp import Timestamp

from transforms.sources.reading import Reading

Place = tuple[Hashable, bytes]
"""What is read, and the mark of where the reading stands, encoded."""

_lock = threading.Lock()
_standing: dict[Place, Reading] = {}


def stand(place: Place, reading: Reading) -> None:
    """Let a reading stand at a place."""
    with _lock:
        _standing[place] = reading


def leave(place: Place, reading: Reading) -> bool:
    """Let a reading go on from where it stands; False if somebody else has taken it up."""
    with _lock:
        if _standing.get(place) is not reading:
            return False
        del _standing[place]
        return True


def take(place: Place) -> Reading | None:
    """Take up the reading that stands at a place, if one does: from now on it is the taker's."""
    with _lock:
        return _standing.pop(place, None)


def drop(reading: Reading) -> None:
    """Let nobody go on with a reading, wherever it stands."""
    with _lock:
        for place in [place for place, each in _standing.items() if each is reading]:
            del _standing[place]


class Readable(Hashable, Protocol):
    """What a reader reads: one slice of a source, equal to itself in every process."""

    def begin(self, mark: CheckpointMark | None) -> Reading:
        """Begin to read, from a mark or anew."""
        ...

    def mark_coder(self) -> Coder:
        """Return the coder of its marks."""
        ...


class StandingReader(UnboundedReader):
    """Beam's reader of one slice: it goes on with a reading that stands, or begins one.

    Between two bundles its reading may be taken up by another reader of this process, which goes
    on from the same mark. Should this one go on after that, as when a runner repeats a bundle, it
    begins anew from the mark.

    Args:
        owned: the slice.
        mark: where to go on.
    """

    def __init__(self, owned: Readable, mark: CheckpointMark | None) -> None:
        self._slice = owned
        self._coder = owned.mark_coder()
        self._place: Place | None = None
        found = take((owned, self._coder.encode(mark))) if mark is not None else None
        self._begun = found is not None
        self._reading = found or owned.begin(mark)

    def start(self) -> bool:
        """Take the first batch; wait for it as long as the reading thinks it right."""
        return self.advance()

    def advance(self) -> bool:
        """Take the next batch."""
        if self._place is not None:
            place, self._place = self._place, None
            if not leave(place, self._reading):
                self._reading = self._slice.begin(self._coder.decode(place[1]))
                self._begun = False
        if self._reading.closed:
            # Another reader has begun at an older mark, and has what this one would have had.
            self._reading = self._slice.begin(self._reading.get_checkpoint_mark())
            self._begun = False
        if self._begun:
            return self._reading.advance()
        self._begun = True
        return self._reading.start()

    def get_current(self) -> bytes:
        """Return the batch."""
        return self._reading.get_current()

    def get_current_timestamp(self) -> Timestamp:
        """Return the record time of its oldest message, less D."""
        return self._reading.get_current_timestamp()

    def get_watermark(self) -> Timestamp:
        """Return what no message to come is before."""
        return self._reading.get_watermark()

    def get_checkpoint_mark(self) -> CheckpointMark:
        """Return where this reader stands: after the batch that was taken last."""
        mark = self._reading.get_checkpoint_mark()
        if not self._reading.ended and not self._reading.closed:
            if self._place is not None:
                leave(self._place, self._reading)
            self._place = (self._slice, self._coder.encode(mark))
            stand(self._place, self._reading)
        return mark

    def close(self) -> None:
        """Let the client go, unless another reader has it."""
        if self._place is None or leave(self._place, self._reading):
            self._reading.close()
        self._place = None
