"""Which partitions a reader of Kafka has, and how it reads them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from transforms.kafka import KafkaAddress


@dataclass(frozen=True)
class KafkaSlice:
    """A slice of the partitions of some topics.

    Attributes:
        address: the topics.
        disorder_ms: D: how far event times may be behind record times.
        splits: slices; None: as many as the runner wants, but not more than partitions.
        batch: most messages of an element.
        linger_ms: how long to wait for a batch to fill.
        stop: a file; once it exists, the reader ends.
        until_end: end at the offsets that were the last ones at the start.
        marks_ms: if not 0, batches say up to which time the slice has given everything, and an
            empty one says so when nothing comes for so long.
        rest_every_s: if not 0, a reader says that it has nothing once in so many seconds, and each
            time it has read all there is: for Flink, see `transforms.sources.kafka`.
        reads: names what is read, over all versions of a job; empty for no name.
        number: of this slice.
        of: number of slices.
    """

    address: KafkaAddress
    disorder_ms: int = 30_000
    splits: int | None = None
    batch: int = 5000
    linger_ms: int = 20
    stop: str = ""
    until_end: bool = False
    marks_ms: int = 0
    rest_every_s: float = 0.0
    reads: str = ""
    number: int = 0
    of: int = 1

    def owns(self, topic: str, partition: int) -> bool:
        """Whether a partition is of this slice."""
        return (zlib.crc32(topic.encode()) + partition) % self.of == self.number
