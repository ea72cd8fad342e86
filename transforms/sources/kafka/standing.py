"""Readings that stand between two bundles, for whichever step of this process goes on with them.

Beam parks a reader at the end of a bundle with the instance of its step, and takes it up again if
the next bundle has that instance. A process has several, and on Flink the next bundle is often
another's: it would make a new reader, whose client connects anew and fetches again what the old
one had fetched. So what it reads with stands here, under what it reads and where, until somebody
goes on.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transforms.sources.kafka.reading import Reading
    from transforms.sources.kafka.slice import KafkaSlice

Place = tuple["KafkaSlice", bytes]
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
