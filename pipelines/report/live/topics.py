"""Topics as a live source: the rows of each table, from the earliest that the broker has.

Rows are JSON objects, as our sink writes them. They are read without a group's offsets, so that
nobody else is disturbed. Of each table at most `MOST_KEPT` rows are remembered, the newest.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.report.data import COLUMNS, Contents
from pipelines.report.live.source import final_until
from pipelines.table_files import parse_lines
from schemas.tables import TABLES, Output
from transforms.kafka import Hearing, KafkaTarget, Monitor, client, make, settings_for
from transforms.sinks.lakes.columns import newest_rows

MOST_KEPT = 1_000_000
"""Rows of a table."""

REFRESH_S = 10.0
"""How often it is asked for topics and partitions that are new."""

_AGAIN_S = 1.0
"""How soon a broker is asked that did not answer, or lost a connection."""

_MESSAGES = 10_000
_READ_S = 1.0
_WAIT_S = 0.2


class Topics:
    """The topics of a stream's tables.

    Args:
        target: where the stream writes to.
        most: rows of a table that are remembered.

    Attributes:
        problem: that the broker does not answer, or has lost topics; empty while all is well.
    """

    def __init__(self, target: KafkaTarget, most: int = MOST_KEPT) -> None:
        self.problem = ""
        self._target = target
        self._most = most
        self._monitor = Monitor(target.servers)
        self._hearing = Hearing(target.servers, self._make)
        self._consumer = self._make()
        self._tables = {target.topic(name): name for name in COLUMNS}
        self._assigned: set[tuple[str, int]] = set()
        # Partitions that were not there when it was last asked, and topics given up.
        self._missing: set[tuple[str, int]] = set()
        self._deleted: set[str] = set()
        self._asked = float("-inf")
        self._rows: dict[str, pa.Table] = {}
        self._lost: dict[str, int] = {}
        self._unread = 0

    def _make(self) -> Any:
        settings = settings_for(
            self._target,
            self._monitor,
            group_id="imixs-streams-report",
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="earliest",
            # A transactional producer's aborted rows are none.
            isolation_level="read_committed",
            queued_max_messages_kbytes=65_536,
        )
        return make(client().Consumer, settings, self._target)

    def refresh(self) -> bool:
        """Read what has come, for a second at most; say whether anything has."""
        self._find_topics()
        if not self._assigned:
            return False
        values: dict[str, list[bytes]] = {}
        until = time.monotonic() + _READ_S
        while time.monotonic() < until:
            messages = self._consumer.consume(_MESSAGES, _WAIT_S)
            for message in messages:
                # A fault of the connection is a message too, and a deleted row one without value.
                if message.error() is None and message.value() is not None:
                    values.setdefault(self._tables[message.topic()], []).append(message.value())
            if not messages:
                break
        for name, found in values.items():
            self._add(name, found)
        return bool(values)

    def _find_topics(self) -> None:
        doubtful = not self._hearing.well or self._monitor.faults
        if time.monotonic() - self._asked < (_AGAIN_S if doubtful else REFRESH_S):
            return
        self._asked = time.monotonic()
        self._monitor.faults.clear()
        kafka = client()
        try:
            told = self._consumer.list_topics(timeout=2.0)
        except kafka.KafkaException as error:
            # What is assigned goes on when the broker is back.
            servers = ",".join(self._target.servers)
            self.problem = f"no Kafka broker answers at {servers}: {error.args[0].str()}"
            self._succeed()
            return
        if not told.brokers:  # one that is on its way up or down
            self._succeed()
            return
        there = told.topics
        self.problem = ""
        self._hearing.good()
        wanted = {
            (topic, partition)
            for topic in self._tables
            if topic in there
            for partition in there[topic].partitions
        }
        self._give_up(self._assigned - wanted)
        new = wanted - self._assigned
        for topic in self._deleted & {topic for topic, _ in new}:
            # Another one of that name: what was in the old one is of another life.
            self._rows.pop(self._tables[topic], None)
            self._deleted.remove(topic)
        if not there.keys() & self._tables.keys() and not self._deleted:
            self.problem = (
                f"{','.join(self._target.servers)} has no topic of a stream's tables that begins "
                f"with '{self._target.prefix}', such as {self._target.topic('flow')}"
            )
        if self._deleted:
            self.problem = (
                f"deleted: {', '.join(sorted(self._deleted))}; what had come from there is still "
                "shown, and a stream that is started again creates it anew"
            )
        if new:
            begin = kafka.OFFSET_BEGINNING
            self._consumer.incremental_assign(
                [kafka.TopicPartition(topic, number, begin) for topic, number in sorted(new)]
            )
            self._assigned |= new

    def _give_up(self, missing: set[tuple[str, int]]) -> None:
        """Read no longer what the broker did not know twice: while it starts it knows nothing."""
        gone = missing & self._missing
        self._missing = missing - gone
        if not gone:
            return
        kafka = client()
        self._consumer.incremental_unassign([kafka.TopicPartition(*each) for each in sorted(gone)])
        self._assigned -= gone
        self._deleted |= {topic for topic, _ in gone}

    def _succeed(self) -> None:
        """Go on with a new consumer, at the same rows, where this one hears nobody."""
        consumer = self._hearing.successor(self._consumer)
        if consumer is None:
            return
        old, self._consumer = self._consumer, consumer
        kafka = client()
        places = old.position([kafka.TopicPartition(*each) for each in sorted(self._assigned)])
        for place in places:
            if place.offset < 0:  # nothing has come
                place.offset = kafka.OFFSET_BEGINNING
        consumer.incremental_assign(places)
        old.close()

    def _add(self, name: str, values: Sequence[bytes]) -> None:
        output = TABLES[name]
        parts = self._parsed(output, values)
        before = [self._rows[name]] if name in self._rows else []
        if not parts:
            return
        rows = newest_rows(pa.concat_tables([*before, *parts]).combine_chunks(), output)
        kept = newest_kept(rows, self._most)
        self._lost[name] = self._lost.get(name, 0) + rows.num_rows - kept.num_rows
        self._rows[name] = kept

    def _parsed(self, output: Output, values: Sequence[bytes]) -> list[pa.Table]:
        """Read rows, all at once; where one of them is none, each alone."""
        columns = COLUMNS[output.name]
        try:
            found = parse_lines(pa.BufferReader(b"\n".join(values)), output, columns)
            if found.num_rows == len(values):
                return [_checked(found, output)]
        except (pa.ArrowException, ValueError):
            pass
        if len(values) == 1:
            self._unread += 1
            return []
        middle = len(values) // 2
        return [*self._parsed(output, values[:middle]), *self._parsed(output, values[middle:])]

    def contents(self) -> Contents:
        """Return the rows that are remembered."""
        notes = [
            f"of {name} the {self._most:,} newest rows are remembered, {lost:,} older are not"
            for name, lost in self._lost.items()
            if lost
        ]
        if self._unread:
            notes.append(f"{self._unread:,} messages are no rows of their table, and left out")
        source = f"kafka://{','.join(self._target.servers)}/{self._target.prefix}"
        return Contents(dict(self._rows), None, source, tuple(notes))

    def known_until(self) -> int | None:
        """Return the end of the newest final window."""
        return final_until(self._rows)

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()


def _checked(rows: pa.Table, output: Output) -> pa.Table:
    """Refuse rows without what none of the table is without.

    Raises:
        ValueError: there is one.
    """
    for field in output.schema:
        if not field.nullable and field.name in rows.schema.names and rows[field.name].null_count:
            reason = f"no {field.name}"
            raise ValueError(reason)
    return rows


def newest_kept(rows: pa.Table, most: int) -> pa.Table:
    """Keep at most so many rows: those of the newest windows, or that changed last."""
    if rows.num_rows <= most:
        return rows
    names = rows.schema.names
    by: Any = next((name for name in ("window_end", "updated_at") if name in names), None)
    if by is None:
        return rows.slice(rows.num_rows - most)
    # Rows of the one window over all time have no end, come last, and are never old.
    order = pc.sort_indices(rows, sort_keys=[(by, "ascending")])
    return rows.take(pa.array(np.sort(np.asarray(order)[rows.num_rows - most :])))
