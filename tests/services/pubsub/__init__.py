"""A Pub/Sub service on a free loopback port: the fake of Google's own Go client.

It keeps messages in memory, redelivers what is not acknowledged in time, and stamps messages with
this machine's clock.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from google import pubsub_v1
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient

from tests.services.leash import Leashed
from tests.services.ports import free_ports, listens
from tests.services.provision import call, program, provide
from tests.services.service import Service

VERSION = "2.9.0"
"""Of the Go client, as go.mod has it."""

NAME = "a Pub/Sub service"
PROJECT = "tests-project"
EMULATOR = "PUBSUB_EMULATOR_HOST"

_HERE = Path(__file__).parent
_START_SECONDS = 30.0
_REQUEST = 1000


class ServiceError(RuntimeError):
    """The service does not do what it should; holds its log."""


class PubSubService(Service):
    """A service of its own, whose messages are gone when it ends.

    Attributes:
        address: `127.0.0.1:port`, for PUBSUB_EMULATOR_HOST.
        log: what it prints.
    """

    def __init__(self, folder: Path | None = None, *, port: int = 0) -> None:
        """Prepare a service; `start` starts it.

        Args:
            folder: where its log goes; by default a temporary folder, removed by `close`.
            port: to listen on; 0 takes a free one.
        """
        self._own_folder = folder is None
        self._folder = folder or Path(tempfile.mkdtemp(prefix="imixs-pubsub-"))
        self.log: Final = self._folder / "pubsub.log"
        self.address: Final = f"127.0.0.1:{port or free_ports(1)[0]}"
        self._process: Leashed | None = None
        self._clients: list[Any] = []

    @property
    def running(self) -> bool:
        """Whether its process is alive."""
        return self._process is not None and self._process.exit_code() is None

    @property
    def pid(self) -> int | None:
        """The process id; None while it does not run."""
        return self._process.pid if self._process is not None and self.running else None

    def start(self) -> None:
        """Start it, again after `kill`: with the same port, and without any message.

        Raises:
            Missing: Go is missing.
            ServiceError: it ended, or did not listen in time.
        """
        if self.running:
            return
        binary = provision()
        self._process = Leashed([binary, self.address.rpartition(":")[2]], self.log)
        deadline = time.monotonic() + _START_SECONDS
        while not listens(self.address):
            if not self.running or time.monotonic() > deadline:
                reason = f"it does not listen at {self.address}: {self.log.read_text('utf-8')}"
                raise ServiceError(reason)
            time.sleep(0.02)

    def kill(self) -> None:
        """End it by its process id; its messages are gone."""
        if self._process is not None:
            self._process.end(signal.SIGKILL)
            self._process = None

    def close(self) -> None:
        """End it and remove what it has left."""
        for client in self._clients:
            client.transport.close()
        self._clients.clear()
        self.kill()
        if self._own_folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """Return what lets clients of another process find it."""
        return {EMULATOR: self.address}

    @contextmanager
    def found(self) -> Iterator[None]:
        """Let clients of this process find it while the block runs."""
        before = os.environ.get(EMULATOR)
        os.environ[EMULATOR] = self.address
        try:
            yield
        finally:
            if before is None:
                del os.environ[EMULATOR]
            else:
                os.environ[EMULATOR] = before

    def publisher(self) -> PublisherClient:
        """Return a client that writes."""
        with self.found():
            client = PublisherClient()
        self._clients.append(client)
        return client

    def subscriber(self) -> SubscriberClient:
        """Return a client that reads."""
        with self.found():
            client = SubscriberClient()
        self._clients.append(client)
        return client

    def create_topic(self, topic: str, subscriptions: Iterable[str] = (), **settings: Any) -> None:
        """Create a topic and subscriptions of it.

        Args:
            topic: its name.
            subscriptions: their names.
            settings: of the subscriptions, such as `ack_deadline_seconds=10`.
        """
        path = f"projects/{PROJECT}/topics/{topic}"
        self.publisher().create_topic(name=path)
        self.subscribe(topic, *subscriptions, **settings)

    def subscribe(self, topic: str, *subscriptions: str, **settings: Any) -> None:
        """Create subscriptions of a topic."""
        path = f"projects/{PROJECT}/topics/{topic}"
        for name in subscriptions:
            wanted = {"name": f"projects/{PROJECT}/subscriptions/{name}", "topic": path}
            self.subscriber().create_subscription(request={**wanted, **settings})

    def publish(
        self,
        topic: str,
        payloads: Iterable[bytes],
        attributes: Mapping[str, str] | None = None,
        ordering_key: str = "",
    ) -> list[str]:
        """Publish messages; return their ids."""
        client, ids = self.publisher(), []
        path = f"projects/{PROJECT}/topics/{topic}"
        listed = list(payloads)
        for start in range(0, len(listed), _REQUEST):
            request = pubsub_v1.PublishRequest(
                topic=path,
                messages=[
                    {"data": each, "attributes": attributes or {}, "ordering_key": ordering_key}
                    for each in listed[start : start + _REQUEST]
                ],
            )
            answer = pubsub_v1.PublisherClient.publish(
                client, request=request, retry=None, timeout=20
            )
            ids += answer.message_ids
        return ids

    def take(self, subscription: str, at_least: int = 0, seconds: float = 5.0) -> list[Any]:
        """Take and acknowledge what a subscription has now.

        Args:
            subscription: its name.
            at_least: wait for so many messages.
            seconds: how long.
        """
        client, found = self.subscriber(), []
        path = f"projects/{PROJECT}/subscriptions/{subscription}"
        deadline = time.monotonic() + seconds
        while True:
            with warnings.catch_warnings():
                # It is deprecated, for it may miss messages: here they are there.
                warnings.simplefilter("ignore", DeprecationWarning)
                answer = client.pull(
                    request={"subscription": path, "max_messages": 1000, "return_immediately": True}
                )
            received = list(type(answer).pb(answer).received_messages)
            if received:
                client.acknowledge(subscription=path, ack_ids=[each.ack_id for each in received])
                found += [each.message for each in received]
            elif len(found) >= at_least or time.monotonic() > deadline:
                return found
            else:
                time.sleep(0.05)


def provision() -> Path:
    """Return the path of the program, built at the first call (half a minute).

    Raises:
        Missing: Go is missing, or the build fails.
    """
    folder = provide(f"pubsub-double-{VERSION}", _build)
    return folder / "pubsub-double"


def _build(folder: Path) -> None:
    go = program(NAME, "go", "Go 1.25 or newer")
    command = [go, "build", "-C", str(_HERE), "-trimpath", "-o", str(folder / "pubsub-double"), "."]
    call(NAME, command, {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"})
