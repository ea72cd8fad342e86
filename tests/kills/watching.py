"""What is seen of a run while it goes on: the job's tasks and checkpoints, and the rows it writes.

A thread asks the job manager; rows are read with the time at which the broker has appended them.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from pipelines.flink_rest import RUNNING, FlinkRest, FlinkUnreachable
from tests.services.kafka import KafkaBroker

LOOK_S = 0.25


class JobWatch:
    """Looks at a job four times a second while the block runs.

    Args:
        rest: the job manager.
        job_id: of the job.
    """

    def __init__(self, rest: FlinkRest, job_id: str) -> None:
        self._rest = rest
        self._job_id = job_id
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._works: list[tuple[float, bool]] = []
        self._triggered: dict[int, float] = {}

    def __enter__(self) -> JobWatch:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""
        self._over.set()
        self._thread.join()

    def completed_since(self, at: float) -> int:
        """Return how many checkpoints were both begun and completed since a time.

        Such a checkpoint has been through all tasks, so whatever was killed before is back.
        """
        return sum(begun >= at for begun in list(self._triggered.values()))

    def works(self) -> bool:
        """Say whether all tasks ran when last looked at."""
        return bool(self._works) and self._works[-1][1]

    def running_again(self, at: float) -> float | None:
        """Return when all tasks ran again for good; None if they never stopped.

        Args:
            at: the time of a kill, whose consequences are over by now.
        """
        since = [look for look in list(self._works) if look[0] >= at]
        stopped = [number for number, (_, works) in enumerate(since) if not works]
        if not stopped or stopped[-1] + 1 == len(since):
            return None
        return since[stopped[-1] + 1][0]

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            works = False
            try:
                tasks = self._rest.tasks(self._job_id)
                works = bool(tasks) and set(tasks) == {RUNNING}
                self._note(self._rest.get(f"jobs/{self._job_id}/checkpoints"))
            except FlinkUnreachable:
                # The job manager is away, or has not yet found its job again.
                works = False
            self._works.append((time.time(), works))

    def _note(self, found: Any) -> None:
        for each in found.get("history", ()):
            if each["status"] == "COMPLETED" and not each["is_savepoint"]:
                self._triggered[each["id"]] = each["trigger_timestamp"] / 1000


@dataclass(frozen=True)
class Row:
    """A row as it lies in a topic.

    Attributes:
        table: its table.
        at: when the broker appended it, seconds since the epoch.
        id: its `row_id`.
        value: all of it, as JSON.
        repeat: whether the topic has had a row of this id before.
    """

    table: str
    at: float
    id: str
    value: bytes
    repeat: bool


class RowWatch:
    """Reads the tables of a stream as they grow.

    Args:
        broker: who has them.
        prefix: what the topics' names begin with.
        tables: which.
    """

    def __init__(self, broker: KafkaBroker, prefix: str, tables: Iterable[str]) -> None:
        self.rows: list[Row] = []
        self._tables = {prefix + table: table for table in tables}
        self._known: set[tuple[str, str]] = set()
        self._counts: Counter[str] = Counter()
        self._assigned: set[str] = set()
        self._consumer = Consumer(
            {
                "bootstrap.servers": broker.address,
                "group.id": "watches-kills",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )

    def close(self) -> None:
        """Let the client go."""
        self._consumer.close()

    def read(self) -> None:
        """Take what has come since; a broker that is away has nothing."""
        if len(self._assigned) < len(self._tables):
            self._assign()
        while got := self._consumer.consume(10_000, 0.1):
            for message in got:
                if message.error() is None:
                    self._take(message)

    def count(self, table: str) -> int:
        """Return how many rows of a table have been read, repeats left out."""
        return self._counts[table]

    def fresh_since(self, table: str, at: float) -> float | None:
        """Return when a row was appended, not before a time, that was no repeat; None if none."""
        times = (row.at for row in self.rows if row.table == table and not row.repeat)
        return min((each for each in times if each >= at), default=None)

    def _assign(self) -> None:
        try:
            there = self._consumer.list_topics(timeout=5).topics
        except KafkaException:
            return
        for topic in self._tables.keys() & there.keys() - self._assigned:
            places = [
                TopicPartition(topic, number, OFFSET_BEGINNING)
                for number in there[topic].partitions
            ]
            if places:
                self._consumer.incremental_assign(places)
                self._assigned.add(topic)

    def _take(self, message: Any) -> None:
        table, value = self._tables[message.topic()], message.value()
        id_ = orjson.loads(value)["row_id"]
        repeat = (table, id_) in self._known
        self._known.add((table, id_))
        self._counts[table] += not repeat
        self.rows.append(Row(table, message.timestamp()[1] / 1000, id_, value, repeat))
