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

**Record times** are the messages' timestamps, made monotone by `kafka.partitions`; without
one, and where it is more than a minute ahead of this machine's clock, the time of reading. What
that changed is counted: `behind_watermark`, `ahead_of_clock`.

**Faults.** A broker that is away means no data and a watermark that stands. Offsets that the
broker no longer has are counted as `lost_offsets`, said, and skipped.
"""

from __future__ import annotations

from transforms.sources.kafka.marks import KafkaMark
from transforms.sources.kafka.sampling import sample
from transforms.sources.kafka.source import KafkaSource, ReadKafka

__all__ = ["KafkaMark", "KafkaSource", "ReadKafka", "sample"]
