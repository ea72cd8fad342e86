"""The first messages of topics, to find out what they are before a stream begins."""

from __future__ import annotations

import time

from transforms.formats.base import Message
from transforms.kafka import KafkaAddress, Monitor, client
from transforms.sources.kafka.marks import consumer_of
from transforms.sources.messages import header_texts

WAIT_S = 3.0


def sample(
    address: KafkaAddress, topics: dict[str, int], most: int = 200, wait_s: float = WAIT_S
) -> dict[str, list[Message]]:
    """Read the first messages that topics still have.

    Args:
        address: the broker and its settings.
        topics: topic -> partitions.
        most: messages of each topic.
        wait_s: how long to wait for them, together.

    Returns:
        Topic -> messages, by partition and offset; none of an empty topic.
    """
    found: dict[str, dict[tuple[int, int], Message]] = {topic: {} for topic in topics}
    kafka = client()
    consumer = consumer_of(
        address, Monitor(address.servers, silent=True), enable_partition_eof=True
    )
    try:
        wanted = {}
        for topic, partitions in topics.items():
            for partition in range(partitions):
                place = kafka.TopicPartition(topic, partition)
                low, high = consumer.get_watermark_offsets(place, timeout=wait_s)
                if high > low:
                    place.offset = low
                    wanted[topic, partition] = (place, max(1, most // partitions))
        consumer.assign([place for place, _ in wanted.values()])
        counts = dict.fromkeys(wanted, 0)
        deadline = time.monotonic() + wait_s
        while wanted and time.monotonic() < deadline:
            for message in consumer.consume(500, 0.05):
                key = (message.topic(), message.partition())
                if key not in wanted:
                    continue
                counts[key] += 1
                if message.error() is None:
                    found[key[0]][key[1], message.offset()] = Message(
                        message.value() or b"",
                        f"{key[0]}/{key[1]}",
                        message.offset(),
                        dict(header_texts(message.headers() or ())),
                        record_time=message.timestamp()[1] * 1000,
                    )
                if message.error() is not None or counts[key] >= wanted[key][1]:
                    consumer.incremental_unassign([wanted.pop(key)[0]])
    except kafka.KafkaException:
        # Whatever it is: the stream itself will say so, and may do without a sample.
        return {}
    finally:
        consumer.close()
    return {topic: [rows[at] for at in sorted(rows)][:most] for topic, rows in found.items()}
