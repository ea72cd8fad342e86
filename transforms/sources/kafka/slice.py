"""Which partitions a reader of Kafka has, and how it reads them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from transforms.kafka import KafkaAddress
from transforms.sources.slice import Slice


@dataclass(frozen=True)
class KafkaSlice(Slice):
    """A slice of the partitions of some topics: see `Slice`.

    Attributes:
        address: the topics.
        until_end: end at the offsets that were the last ones at the start.
    """

    address: KafkaAddress
    until_end: bool = False

    def owns(self, topic: str, partition: int) -> bool:
        """Whether a partition is of this slice."""
        return (zlib.crc32(topic.encode()) + partition) % self.of == self.number
