"""Kafka as a source: batches of messages, with a watermark from the broker's own times.

**Partitions.** A slice owns the partitions whose `crc32(topic) + partition` modulo the number
of slices is its own, of all topics that match now and later: topics and partitions that appear
are read within the address's `refresh_ms`, from their beginning, without a restart. Partitions
are assigned, never balanced: a consumer group here is only a name for committed offsets. Two
jobs with one group both read everything, and overwrite each other's offsets; give each its own.

**Offsets.** A reader goes on from its checkpoint mark. Without one it begins where the address
says. The group's offsets (with the running maximum of record times as their metadata) are
committed when a runner has made a bundle's results durable, and never before; where the runner
keeps nothing (`marks_ms`), when what lies before them has been folded and delivered. A job that
is killed and started anew reads again what it had not finished.

**Record times** are the messages' timestamps, made monotone by `partitions.Partitions`; without
one, and where it is more than a minute ahead of this machine's clock, the time of reading. What
that changed is counted: `behind_watermark`, `ahead_of_clock`.

**Faults.** A broker that is away means no data and a watermark that stands. Offsets that the
broker no longer has are counted as `lost_offsets`, said, and skipped.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.io.unbounded_source import (
    CheckpointMark,
    ReadFromUnboundedSource,
    UnboundedSource,
)

from transforms.kafka import KafkaAddress, Monitor, matching
from transforms.sources.kafka_marks import KafkaMark, KafkaMarkCoder, consumer_of
from transforms.sources.kafka_reader import ASK_S, KafkaReader

__all__ = ["KafkaMark", "KafkaReader", "KafkaSource", "ReadKafka"]


@dataclass(frozen=True)
class KafkaSource(UnboundedSource):
    """One slice of the partitions of some topics, read in packed batches.

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
    number: int = 0
    of: int = 1

    def split(self, desired_num_splits: int, options: Any = None) -> list[KafkaSource]:
        """Cut into slices; partitions that appear later belong to them too."""
        slices = self.splits
        if slices is None:
            slices = max(1, min(desired_num_splits, _count_partitions(self.address)))
        return [replace(self, number=number, of=slices) for number in range(slices)]

    def create_reader(self, options: Any, checkpoint_mark: CheckpointMark | None) -> KafkaReader:
        """Make a reader that goes on after a mark."""
        mark = checkpoint_mark if isinstance(checkpoint_mark, KafkaMark) else None
        return KafkaReader(self, mark)

    def get_checkpoint_mark_coder(self) -> KafkaMarkCoder:
        """Return the coder of marks."""
        return KafkaMarkCoder(self.address, self.disorder_ms, self.marks_ms)

    def default_output_coder(self) -> BytesCoder:
        """Elements are bytes."""
        return BytesCoder()

    def owns(self, topic: str, partition: int) -> bool:
        """Whether a partition is of this slice."""
        return (zlib.crc32(topic.encode()) + partition) % self.of == self.number


@dataclass(eq=False)
class ReadKafka(beam.PTransform):
    """Reads topics: packed batches of `MESSAGE_SCHEMA` (bytes), stamped with record time - D.

    A batch's timestamp is that of its oldest message.

    Attributes:
        source: what to read, and how; without `splits` a slice a partition, at most 20.
        poll_interval_s: pause of a reader that has nothing.
        batches_per_bundle: after so many batches a bundle ends, and offsets are committed.
        seconds_per_bundle: likewise.
    """

    source: KafkaSource
    poll_interval_s: float = 0.05
    batches_per_bundle: int = 4
    seconds_per_bundle: float = 0.2

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        """Wire the step."""
        return root | "Read topics" >> ReadFromUnboundedSource(
            self.source,
            poll_interval=self.poll_interval_s,
            max_records_per_bundle=self.batches_per_bundle,
            max_read_time_seconds=self.seconds_per_bundle,
        )


def _count_partitions(address: KafkaAddress) -> int:
    consumer = consumer_of(address, Monitor(address.servers))
    try:
        topics = consumer.list_topics(timeout=ASK_S).topics
    finally:
        consumer.close()
    return sum(len(topics[name].partitions) for name in matching(topics, address.topics))
