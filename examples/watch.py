"""Print the rows of a topic as they come, one a line.

python -m examples.watch --broker localhost:9092 --topic out-transitions
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from confluent_kafka import Consumer, TopicPartition

SHOWN = ("case_id", "event_time", "from_state", "to_state", "activity", "actor", "duration_s")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command until Ctrl-C, or until so many rows have been shown."""
    parser = argparse.ArgumentParser(prog="python -m examples.watch", description=__doc__)
    parser.add_argument("--broker", required=True, metavar="HOST:PORT")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--columns", default=",".join(SHOWN), help="those shown, or all")
    parser.add_argument("--from_start", action="store_true", help="and what is there already")
    parser.add_argument("--rows", type=int, help="stop after so many")
    options = parser.parse_args(argv)
    consumer = Consumer(
        {"bootstrap.servers": options.broker, "group.id": "watch", "enable.auto.commit": False}
    )
    try:
        return _watch(consumer, options)
    except KeyboardInterrupt:
        return 0
    finally:
        consumer.close()


def _watch(consumer: Consumer, options: argparse.Namespace) -> int:
    topics = consumer.list_topics(options.topic, timeout=10).topics
    if options.topic not in topics or topics[options.topic].error is not None:
        print(f"error: {options.broker} has no topic {options.topic}", file=sys.stderr)
        return 1
    places, there = [], 0
    for partition in topics[options.topic].partitions:
        place = TopicPartition(options.topic, partition)
        low, high = consumer.get_watermark_offsets(place, timeout=10)
        place.offset = low if options.from_start else high
        there += high - low
        places.append(place)
    consumer.assign(places)
    if not options.from_start:
        shown = f"; --from_start shows those that have come ({there:,})" if there else ""
        print(f"waiting for rows{shown}", file=sys.stderr)
    left = options.rows
    while left is None or left > 0:
        message = consumer.poll(0.5)
        value = None if message is None or message.error() is not None else message.value()
        if value is None:
            continue
        row = json.loads(value)
        names = row if options.columns == "all" else options.columns.split(",")
        print("  ".join(f"{row[n]}" for n in names if row.get(n) is not None), flush=True)
        left = None if left is None else left - 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
