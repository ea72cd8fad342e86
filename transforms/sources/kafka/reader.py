"""Beam's reader of one slice of Kafka's partitions: it goes on with a reading, or begins one."""

from __future__ import annotations

from apache_beam.io.unbounded_source import UnboundedReader
from apache_beam.utils.timestamp import Timestamp

from transforms.sources.kafka.marks import KafkaMark, KafkaMarkCoder
from transforms.sources.kafka.reading import Reading
from transforms.sources.kafka.slice import KafkaSlice
from transforms.sources.kafka.standing import Place, leave, stand, take


class KafkaReader(UnboundedReader):
    """Reads the partitions of one slice.

    Between two bundles its reading may be taken up by another reader of this process, which goes
    on from the same mark (`transforms.sources.kafka.standing`). Should this one go on after that,
    as when a runner repeats a bundle, it begins anew from the mark.

    Args:
        owned: the slice.
        mark: where to go on.
    """

    def __init__(self, owned: KafkaSlice, mark: KafkaMark | None) -> None:
        self._slice = owned
        self._coder = KafkaMarkCoder(owned.address, owned.disorder_ms, owned.marks_ms)
        self._place: Place | None = None
        found = take((owned, self._coder.encode(mark))) if mark is not None else None
        self._begun = found is not None
        self._reading = found or Reading(owned, mark)

    def start(self) -> bool:
        """Take the first batch; wait for it, or for the end of each partition."""
        return self.advance()

    def advance(self) -> bool:
        """Take the next batch."""
        if self._place is not None:
            place, self._place = self._place, None
            if not leave(place, self._reading):
                self._reading = Reading(self._slice, self._coder.decode(place[1]))
                self._begun = False
        if self._begun:
            return self._reading.advance()
        self._begun = True
        return self._reading.start()

    def get_current(self) -> bytes:
        """Return the batch."""
        return self._reading.get_current()

    def get_current_timestamp(self) -> Timestamp:
        """Return the record time of its oldest message, less D."""
        return self._reading.get_current_timestamp()

    def get_watermark(self) -> Timestamp:
        """Return what no message to come is before."""
        return self._reading.get_watermark()

    def get_checkpoint_mark(self) -> KafkaMark:
        """Return where this reader stands: after the batch that was taken last."""
        mark = self._reading.get_checkpoint_mark()
        if not self._reading.ended:
            if self._place is not None:
                leave(self._place, self._reading)
            self._place = (self._slice, self._coder.encode(mark))
            stand(self._place, self._reading)
        return mark

    def close(self) -> None:
        """Let the client go, unless another reader has it."""
        if self._place is None or leave(self._place, self._reading):
            self._reading.close()
        self._place = None
