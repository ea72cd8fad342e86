"""Where a reader of Pub/Sub stands: a name and a number, which only its own process understands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from apache_beam.coders import Coder
from apache_beam.io.unbounded_source import CheckpointMark

from transforms.sources.pubsub import given
from transforms.sources.versioned import read_versioned, write_versioned


@dataclass(frozen=True)
class PubSubMark(CheckpointMark):
    """Where a reader stands.

    Attributes:
        reading: name of the reading.
        number: of the batch that it gave away last.
        floors: subscription -> bound of publish times that the watermark has promised, in µs.
    """

    reading: str
    number: int
    floors: Mapping[str, int] = field(default_factory=dict)

    def finalize_checkpoint(self) -> None:
        """Acknowledge what was given away up to here."""
        given.finalize(self.reading, self.number)


class PubSubMarkCoder(Coder):
    """Writes a mark as JSON with a version."""

    def encode(self, value: PubSubMark) -> bytes:
        """Write a mark."""
        return write_versioned(
            {"reading": value.reading, "number": value.number, "floors": dict(value.floors)}
        )

    def decode(self, encoded: bytes) -> PubSubMark:
        """Read a mark.

        Raises:
            ValueError: it is of a newer version.
        """
        found = read_versioned(encoded)
        return PubSubMark(found["reading"], found["number"], found["floors"])

    def is_deterministic(self) -> bool:
        """Equal marks are equal bytes."""
        return True
