"""The source and its step: how a runner cuts, reads and stamps topics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.io.unbounded_source import (
    CheckpointMark,
    UnboundedSource,
    _ReadFromUnboundedSourceDoFn,
)

from transforms.kafka import KafkaAddress, Monitor, matching
from transforms.sources.kafka.marks import KafkaMark, KafkaMarkCoder, consumer_of
from transforms.sources.kafka.reader import KafkaReader
from transforms.sources.kafka.reading import ASK_S
from transforms.sources.kafka.slice import KafkaSlice

_CURRENT: dict[str, KafkaSource] = {}
"""By name, what the steps of this process read, as their job was launched with it."""


class KafkaSource(KafkaSlice, UnboundedSource):
    """One slice of the partitions of some topics, read in packed batches.

    A runner keeps a source with where it stands. So a job that goes on from a savepoint has the
    sources of the job before, and would never learn of an address that is another now: where a
    source has a name, its step's own is taken, and of the old one only which slice it is.
    """

    def split(self, desired_num_splits: int, options: Any = None) -> list[KafkaSource]:
        """Cut into slices; partitions that appear later belong to them too."""
        slices = self.splits
        if slices is None:
            slices = max(1, min(desired_num_splits, _count_partitions(self.address)))
        return [replace(self, number=number, of=slices) for number in range(slices)]

    def create_reader(self, options: Any, checkpoint_mark: CheckpointMark | None) -> KafkaReader:
        """Make a reader that goes on after a mark."""
        mark = checkpoint_mark if isinstance(checkpoint_mark, KafkaMark) else None
        return KafkaReader(self.current(), mark)

    def get_checkpoint_mark_coder(self) -> KafkaMarkCoder:
        """Return the coder of marks."""
        now = self.current()
        return KafkaMarkCoder(now.address, now.disorder_ms, now.marks_ms)

    def current(self) -> KafkaSource:
        """Return this slice as the step of this process has it."""
        found = _CURRENT.get(self.reads) if self.reads else None
        return self if found is None else replace(found, number=self.number, of=self.of)

    def default_output_coder(self) -> BytesCoder:
        """Elements are bytes."""
        return BytesCoder()


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
        read = _Read(
            self.source, self.poll_interval_s, self.batches_per_bundle, self.seconds_per_bundle
        )
        return (
            root
            | "Read topics/Create" >> beam.Create([self.source])
            | "Read topics/ReadUnbounded" >> beam.ParDo(read).with_output_types(bytes)
        )


class _Read(_ReadFromUnboundedSourceDoFn):
    """Beam's own step of an unbounded source, which lets its process know the source it has."""

    def __init__(
        self, source: KafkaSource, poll_interval_s: float, batches: int, seconds: float
    ) -> None:
        super().__init__(poll_interval_s, batches, seconds)
        self._source = source

    def setup(self) -> None:
        if self._source.reads:
            _CURRENT[self._source.reads] = self._source
        super().setup()


def _count_partitions(address: KafkaAddress) -> int:
    consumer = consumer_of(address, Monitor(address.servers))
    try:
        topics = consumer.list_topics(timeout=ASK_S).topics
    finally:
        consumer.close()
    return sum(len(topics[name].partitions) for name in matching(topics, address.topics))
