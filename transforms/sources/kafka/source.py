"""The source and its step: how a runner cuts, reads and stamps topics."""

from __future__ import annotations

from dataclasses import dataclass

from apache_beam.io.unbounded_source import CheckpointMark

from transforms.kafka import KafkaAddress, Monitor, matching
from transforms.sources.kafka.marks import KafkaMark, KafkaMarkCoder, consumer_of
from transforms.sources.kafka.reading import ASK_S, KafkaReading
from transforms.sources.kafka.slice import KafkaSlice
from transforms.sources.step import NamedSource, ReadBatches


class KafkaSource(KafkaSlice, NamedSource):
    """One slice of the partitions of some topics, read in packed batches."""

    def parts(self, wanted: int) -> int:
        """Return how many slices there are; partitions that appear later belong to them too."""
        if self.splits is not None:
            return self.splits
        return max(1, min(wanted, _count_partitions(self.address)))

    def mark_coder(self) -> KafkaMarkCoder:
        """Return the coder of this slice's marks."""
        return KafkaMarkCoder(self.address, self.disorder_ms, self.marks_ms)

    def begin(self, mark: CheckpointMark | None) -> KafkaReading:
        """Begin to read, from a mark or anew."""
        return KafkaReading(self, mark if isinstance(mark, KafkaMark) else None)


@dataclass(eq=False)
class ReadKafka(ReadBatches):
    """Reads topics: see `ReadBatches`; without `splits` a slice a partition, at most 20."""


def _count_partitions(address: KafkaAddress) -> int:
    consumer = consumer_of(address, Monitor(address.servers))
    try:
        topics = consumer.list_topics(timeout=ASK_S).topics
    finally:
        consumer.close()
    return sum(len(topics[name].partitions) for name in matching(topics, address.topics))
