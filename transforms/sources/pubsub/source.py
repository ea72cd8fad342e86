"""The source and its step: how a runner cuts and reads subscriptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from apache_beam.io.unbounded_source import CheckpointMark

from transforms.sources.pubsub.marks import PubSubMark, PubSubMarkCoder
from transforms.sources.pubsub.reading import PubSubReading
from transforms.sources.pubsub.slice import PubSubSlice
from transforms.sources.step import NamedSource, ReadBatches


class PubSubSource(PubSubSlice, NamedSource):
    """One slice of the messages of some subscriptions, read in packed batches."""

    def parts(self, wanted: int) -> int:
        """Return how many slices there are, each with readers of its own."""
        readers = len(self.address.subscriptions) * self.address.readers
        return min(self.splits or max(1, wanted), readers)

    def mark_coder(self) -> PubSubMarkCoder:
        """Return the coder of this slice's marks."""
        return PubSubMarkCoder()

    def begin(self, mark: CheckpointMark | None) -> PubSubReading:
        """Begin to read, from a mark or anew."""
        return PubSubReading(self, mark if isinstance(mark, PubSubMark) else None)


@dataclass(eq=False)
class ReadPubSub(ReadBatches):
    """Reads subscriptions: see `ReadBatches`."""

    what: ClassVar[str] = "subscriptions"
