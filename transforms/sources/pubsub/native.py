"""Beam's own reading of Pub/Sub, which Dataflow replaces by its service's: messages to batches.

The service acknowledges, holds the watermark by publish times, and gives each message by itself;
here those of a bundle are made one element. The watermark is not D behind: see
`timeline.BeamTime`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.transforms.window import GlobalWindow, TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from transforms.pubsub import PubSubAddress
from transforms.sources.messages import pack_messages
from transforms.sources.pubsub.columns import headers, places

BATCH_BYTES = 4 * 1024 * 1024


@dataclass(eq=False)
class ReadNative(beam.PTransform):
    """Reads subscriptions with `ReadFromPubSub`: packed batches, stamped with publish times.

    Attributes:
        address: the subscriptions; of its options only they are of use.
        batch: most messages of an element.
    """

    address: PubSubAddress
    batch: int = 5000

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        """Wire the steps."""
        from apache_beam.io.gcp.pubsub import ReadFromPubSub  # noqa: PLC0415 (needs the client)

        read = []
        for name in self.address.subscriptions:
            native = ReadFromPubSub(subscription=self.address.path(name), with_attributes=True)
            gather = _Gather(self.address.source(name), self.batch)
            read.append(
                root
                | f"Read subscription {name}" >> native
                | f"Gather messages {name}" >> beam.ParDo(gather).with_output_types(bytes)
            )
        return read[0] if len(read) == 1 else read | "Gather subscriptions" >> beam.Flatten()


class _Gather(beam.DoFn):
    """Makes one element of the messages of a bundle, or a few if they are many."""

    def __init__(self, topic: str, batch: int) -> None:
        self._topic, self._batch = topic, batch
        self._messages: list[Any] = []
        self._times: list[int] = []
        self._bytes = 0

    def start_bundle(self) -> None:
        self._messages, self._times, self._bytes = [], [], 0

    def process(
        self, message: Any, published: Timestamp = beam.DoFn.TimestampParam
    ) -> Iterator[TimestampedValue]:
        self._messages.append(message)
        self._times.append(int(published.micros))
        self._bytes += len(message.data)
        if len(self._messages) >= self._batch or self._bytes >= BATCH_BYTES:
            packed, oldest = self._pack()
            yield TimestampedValue(packed, oldest)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._messages:
            packed, oldest = self._pack()
            yield WindowedValue(packed, oldest, (GlobalWindow(),))

    def _pack(self) -> tuple[bytes, Timestamp]:
        messages, times = self._messages, np.array(self._times, np.int64)
        names, codes, offsets = places(self._topic, [each.message_id for each in messages])
        packed = pack_messages(
            [each.data for each in messages], (names, codes), offsets, times, headers(messages)
        )
        self.start_bundle()
        return packed, Timestamp(micros=int(times.min()))
