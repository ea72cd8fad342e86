"""Where a reader of Pub/Sub stands: a name and a number, which only its own process understands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
from apache_beam.coders import Coder
from apache_beam.io.unbounded_source import CheckpointMark

from transforms.sources.pubsub import given


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
        return orjson.dumps(
            {
                "version": 1,
                "reading": value.reading,
                "number": value.number,
                "floors": dict(value.floors),
            },
            option=orjson.OPT_SORT_KEYS,
        )

    def decode(self, encoded: bytes) -> PubSubMark:
        """Read a mark.

        Raises:
            ValueError: it is of a newer version.
        """
        found = orjson.loads(encoded)
        if found["version"] != 1:
            reason = f"checkpoint mark of version {found['version']}; this release reads 1"
            raise ValueError(reason)
        return PubSubMark(found["reading"], found["number"], found["floors"])

    def is_deterministic(self) -> bool:
        """Equal marks are equal bytes."""
        return True
