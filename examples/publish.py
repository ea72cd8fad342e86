"""Publish messages to a Pub/Sub topic: the lines of JSON Lines files, other files as they are.

python -m examples.publish pubsub://local-project/imixs events.jsonl --create
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from transforms.addresses import BadAddress, BrokerFault
from transforms.pubsub import PubSubTarget, library, publisher, sentence, subscriber

REQUEST_MESSAGES = 1000
REQUEST_BYTES = 3 * 1024 * 1024
"""A request may have 1,000 messages, and 10 MB; with the double 4 MiB."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 all published, 1 not all, 2 a wrong address."""
    parser = argparse.ArgumentParser(prog="python -m examples.publish", description=__doc__)
    parser.add_argument("topic", help="pubsub://PROJECT/TOPIC")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument(
        "--create", action="store_true", help="make the topic, and a subscription of its name"
    )
    options = parser.parse_args(argv)
    try:
        target = PubSubTarget.parse(options.topic)
        if options.create:
            create(target)
        number = publish(target, messages(options.files))
    except BadAddress as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (BrokerFault, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{number:,} messages published to {target}")
    return 0


def messages(files: Iterable[Path]) -> Iterator[bytes]:
    """Return the messages that files hold."""
    for path in files:
        if path.suffix != ".jsonl":
            yield path.read_bytes()
            continue
        with path.open("rb") as lines:
            for line in lines:
                if line.strip():
                    yield line.rstrip()


def create(target: PubSubTarget) -> None:
    """Make a topic and a subscription of its name, if they are not there."""
    found = library()
    topic = target.path("")
    name = f"projects/{target.project}/subscriptions/{target.prefix}"
    try:
        publisher().create_topic(name=topic, timeout=10)
    except found.errors.AlreadyExists:
        pass
    except (found.errors.GoogleAPICallError, found.errors.RetryError) as error:
        raise BrokerFault(sentence(error)) from None
    try:
        subscriber().create_subscription(name=name, topic=topic, timeout=10)
    except found.errors.AlreadyExists:
        pass


def publish(target: PubSubTarget, payloads: Iterable[bytes]) -> int:
    """Publish messages; return how many.

    Raises:
        BrokerFault: the service did not take them.
    """
    found, client = library(), publisher()
    send, number = found.gapic.PublisherClient.publish, 0
    waiting: list[bytes] = []
    size = 0

    def flush() -> None:
        request = {"topic": target.path(""), "messages": [{"data": each} for each in waiting]}
        try:
            # The client would try again for ten minutes, and say nothing.
            send(client, request=request, retry=None, timeout=30)
        except found.errors.NotFound:
            reason = f"{target.path('')} does not exist; --create makes it"
            raise BrokerFault(reason) from None
        except (found.errors.GoogleAPICallError, found.errors.RetryError) as error:
            raise BrokerFault(sentence(error)) from None
        waiting.clear()

    for payload in payloads:
        if waiting and (len(waiting) == REQUEST_MESSAGES or size + len(payload) > REQUEST_BYTES):
            flush()
            size = 0
        waiting.append(payload)
        size += len(payload)
        number += 1
    if waiting:
        flush()
    return number


if __name__ == "__main__":
    sys.exit(main())
