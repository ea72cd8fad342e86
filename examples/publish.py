"""Publish messages to a Pub/Sub topic: the lines of JSON Lines files, other files as they are.

python -m examples.publish pubsub://local-project/imixs events.jsonl --create

With --attributes each line is an object with the message's attributes and its data, as CloudEvents
in binary mode have them:

{"attributes": {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/shop", "ce-type": "Paid",
"ce-subject": "order-1", "ce-time": "2024-08-27T10:00:00Z"}, "data": {"amount": 12.5}}
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from transforms.addresses import BadAddress, BrokerFault
from transforms.pubsub import PubSubAddress, PubSubTarget, library, publisher, sentence, subscriber

REQUEST_MESSAGES = 1000
REQUEST_BYTES = 3 * 1024 * 1024
"""A request may have 1,000 messages, and 10 MB; with the double 4 MiB."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 all published, 1 not all, 2 a wrong address."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.publish",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("topic", help="pubsub://PROJECT/TOPIC")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument(
        "--create", action="store_true", help="make the topic, and a subscription of its name"
    )
    parser.add_argument(
        "--attributes", action="store_true", help="the lines hold attributes and data"
    )
    options = parser.parse_args(argv)
    read = attributed if options.attributes else messages
    try:
        target = PubSubTarget.parse(options.topic)
        # A prefix of topics may be short or empty, the name of one not.
        PubSubAddress.parse(f"pubsub://{target.project}/{target.prefix}")
        if options.create:
            create(target)
        number = publish(target, read(options.files))
    except (BadAddress, BadLine) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (BrokerFault, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{number:,} messages published to {target}")
    return 0


class BadLine(ValueError):
    """A line that holds no attributes and data; the text says which, and why."""


class Sent(NamedTuple):
    """A message: its data and its attributes."""

    data: bytes
    attributes: dict[str, str]


def messages(files: Iterable[Path]) -> Iterator[Sent]:
    """Return the messages that files hold."""
    for path in files:
        if path.suffix != ".jsonl":
            yield Sent(path.read_bytes(), {})
            continue
        for _, line in _lines(path):
            yield Sent(line, {})


def attributed(files: Iterable[Path]) -> Iterator[Sent]:
    """Return the messages of lines that hold attributes and data.

    Raises:
        BadLine: one does not.
    """
    for path in files:
        for number, line in _lines(path):
            try:
                found = json.loads(line)
                given = found["attributes"]
                data = found.get("data", "")
                text = data if isinstance(data, str) else json.dumps(data)
                yield Sent(text.encode(), {str(name): str(given[name]) for name in given})
            except (ValueError, KeyError, TypeError, AttributeError):
                reason = (
                    f'{path}:{number} is no {{"attributes": {{NAME: TEXT}}, "data": ...}}, '
                    "as --attributes has it"
                )
                raise BadLine(reason) from None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, line.rstrip()


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


def publish(target: PubSubTarget, payloads: Iterable[Sent]) -> int:
    """Publish messages; return how many.

    Raises:
        BrokerFault: the service did not take them.
    """
    found, client = library(), publisher()
    send, number = found.gapic.PublisherClient.publish, 0
    waiting: list[Sent] = []
    size = 0

    def flush() -> None:
        request = {"topic": target.path(""), "messages": [each._asdict() for each in waiting]}
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
        length = len(payload.data) + sum(len(n) + len(v) for n, v in payload.attributes.items())
        if waiting and (len(waiting) == REQUEST_MESSAGES or size + length > REQUEST_BYTES):
            flush()
            size = 0
        waiting.append(payload)
        size += length
        number += 1
    if waiting:
        flush()
    return number


if __name__ == "__main__":
    sys.exit(main())
