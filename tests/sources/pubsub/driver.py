"""Drives a reader of Pub/Sub as Beam's step does, on the test double."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from tests.services.pubsub import PROJECT
from transforms.formats.base import Message
from transforms.pubsub import PubSubAddress
from transforms.sources.messages import extent, unpack_messages
from transforms.sources.pubsub import PubSubMark, PubSubSource
from transforms.sources.pubsub.leases import keeper_of

_numbers = count()


def new_name(stem: str) -> str:
    """Return a name that no other test has."""
    return f"{stem}-{time.time_ns()}-{next(_numbers)}"


def source_of(subscriptions: str, query: str = "idle=1s", **settings: Any) -> PubSubSource:
    """Return a source of subscriptions, D = 1 s."""
    address = PubSubAddress.parse(f"pubsub://{PROJECT}/{subscriptions}?{query}")
    return PubSubSource(address, 1000, **settings)


class Driver:
    """A reader, driven."""

    def __init__(self, source: PubSubSource, mark: PubSubMark | None = None) -> None:
        self.source = source
        self.reader: Any = source.create_reader(None, mark)
        self._started = False

    def batch(self) -> list[Message]:
        """Return the next batch; empty if there is none now."""
        found = self.reader.advance() if self._started else self.reader.start()
        self._started = True
        return list(unpack_messages(self.reader.get_current())) if found else []

    def until(self, done: Callable[[list[Message]], bool], within: float = 40) -> list[Message]:
        """Read until it is enough."""
        messages: list[Message] = []
        deadline = time.monotonic() + within
        while not done(messages):
            assert time.monotonic() < deadline, f"only {len(messages)} messages"
            messages += self.batch()
        return messages

    def behind(self) -> int:
        """Return how many messages of the batch came behind the watermark."""
        return extent(self.reader.get_current()).behind

    def mark(self) -> PubSubMark:
        """Cut a checkpoint."""
        found: PubSubMark = self.reader.get_checkpoint_mark()
        return found

    def settle(self) -> None:
        """Send now what is to be acknowledged."""
        for name in self.source.address.subscriptions:
            self.keeper(name).settle()

    def keeper(self, name: str) -> Any:
        """Return the keeper of a subscription."""
        return keeper_of(self.source.address.path(name), self.source.address.lease_ms)


@contextmanager
def driven(source: PubSubSource, mark: PubSubMark | None = None) -> Iterator[Driver]:
    """Drive a reader while the block runs."""
    driver = Driver(source, mark)
    try:
        yield driver
    finally:
        driver.reader.close()
