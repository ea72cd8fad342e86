"""Streams between the topics of a Pub/Sub service: what `streams` is for those of Kafka."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from examples.simulator.truth import Truth
from pipelines.registry import PIPELINES
from tests.pipelines import streams
from tests.services.pubsub import PROJECT, PubSubService

TABLES = PIPELINES["transitions"].tables


class Outputs:
    """The topics of a stream's tables, and whoever reads them all the time.

    Attributes:
        address: the stream's `--output`.
    """

    def __init__(self, service: PubSubService, prefix: str) -> None:
        """Create the topics, each with a subscription."""
        self._service, self._prefix = service, prefix
        self.address = f"pubsub://{PROJECT}/{prefix}"
        self._rows: dict[str, list[streams.Row]] = {table: [] for table in TABLES}
        self._ended = threading.Event()
        self._lock = threading.Lock()
        for table in TABLES:
            service.create_topic(prefix + table, [prefix + table])
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Outputs:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._ended.wait(0.3):
            self.take()

    def take(self) -> None:
        """Read what is there now."""
        with self._lock:
            for table in TABLES:
                found = self._service.take(self._prefix + table)
                self._rows[table] += [orjson.loads(each.data) for each in found]

    def rows(self, table: str) -> list[streams.Row]:
        """Return the rows of a table so far, some perhaps twice."""
        return list(self._rows[table])

    def differences(self, truth: Truth, folder: Path, late: bool = False) -> list[str]:
        """Say in what the tables differ from the truth: see `streams.differences_of`."""
        self.take()
        return streams.differences_of(
            {table: self.rows(table) for table in TABLES}, truth, folder, late
        )


def send(
    service: PubSubService, topic: str, payloads: Iterable[bytes], seconds: float = 0.0
) -> None:
    """Publish messages in the order of arrival, over so many seconds."""
    listed = list(payloads)
    steps = max(1, round(seconds * 10))
    size = -(-len(listed) // steps)
    for start in range(0, len(listed), size):
        service.publish(topic, listed[start : start + size])
        if seconds:
            time.sleep(seconds / steps)


def unfinished(service: PubSubService, subscription: str, lease_s: float = 0.0) -> list[Any]:
    """Return what a subscription would still deliver when every lease has ended."""
    time.sleep(lease_s)
    return service.take(subscription)


def law_of(truth: Truth) -> Mapping[str, Mapping[str, int]]:
    """Return the numbers of the laws of a stream that has read each message once."""
    return streams.law_of(truth)
