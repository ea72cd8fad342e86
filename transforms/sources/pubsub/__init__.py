"""Pub/Sub as a source: batches of messages, acknowledged when what they became is durable.

**Messages.** Plain pulls (`pulling`), as many as there is room for: `waiting=` messages and 64 MiB
of a subscription. All that is here is prolonged by a thread until it is acknowledged, an hour at
most (`leases`). A batch's place is `project/subscription/message/ID`; its attributes are headers.

**Acknowledgement.** Only where a runner finalizes a bundle, and never before; in an engine of one
process, which finalizes what has merely been read, only when every output has also taken what
the messages became (`transforms.receipts`). What is given away in vain - a bundle that fails, a
checkpoint that is restored - is given back, and so is what was not taken when a reader ends. What
another process had is delivered again by the service when its lease ends. So a message may come
twice, and is known by its event id; none is lost.

**Record times** are the publish times: all that a message has of time, whoever reads it and when.
The watermark (`bounds`) is an estimate. A message that is behind it is raised to it, and counted.

**Faults.** A service that is away means no data and a watermark that stands. A subscription that is
gone, or refuses us, fails the bundle.
"""

from __future__ import annotations

from transforms.sources.pubsub.leases import end_all, settle_all
from transforms.sources.pubsub.marks import PubSubMark
from transforms.sources.pubsub.native import ReadNative
from transforms.sources.pubsub.sampling import sample
from transforms.sources.pubsub.source import PubSubSource, ReadPubSub

__all__ = [
    "PubSubMark",
    "PubSubSource",
    "ReadNative",
    "ReadPubSub",
    "end_all",
    "sample",
    "settle_all",
]
