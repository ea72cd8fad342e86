"""Kafka as a sink: each table is a topic, each row one JSON object, as in JSON Lines.

What is guaranteed: **at least once, with deterministic row ids.** A bundle is done when the
broker has taken all its rows; one that is repeated writes its rows again, with the ids that they
had, so whoever reads drops what it has seen by `row_id` (an upsert table needs not even that).
The producer is idempotent: its own retries double and reorder nothing. Rows of one key go to one
partition, in order, by the partitioner that Java's clients use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa

from schemas.tables import Output
from transforms.arrays import texts_of
from transforms.exchange import fetch, with_schema
from transforms.kafka import (
    BrokerFault,
    Hearing,
    KafkaTarget,
    Monitor,
    client,
    make,
    patiently,
    settings_for,
)
from transforms.sinks.delivery import Bundle
from transforms.sinks.text import json_lines, keys_of

MESSAGE_BYTES = 16 * 1024 * 1024
"""Rows may be larger than Kafka's default of 1 MB: a dead letter, a case with many items."""

DELIVERY_MS = 300_000
"""A broker that is away for less than this is only a delay."""

PROPAGATION_MS = 30_000
"""How long a topic may be unknown to a broker that has just started."""

WAITING_ROWS = 100_000
"""Rows that wait for the broker, at most."""

_WAITING_BYTES = 256 * 1024 * 1024
_SLICE_ROWS = 20_000
_SLICE_BYTES = 16 * 1024 * 1024


@dataclass(eq=False)
class WriteKafka(beam.PTransform):
    """Writes tables to topics: `fold.streaming.Rows` -> nothing.

    Attributes:
        target: the broker and the topics' prefix.
        outputs: table name -> table.
        linger_ms: how long rows wait for others to share a request.
        number: of the target among those of the run, for what is counted.
        scratch: where delivered rows are counted; empty for nowhere.
    """

    target: KafkaTarget
    outputs: Mapping[str, Output]
    linger_ms: int = 5
    number: int = 0
    scratch: str = ""

    def expand(self, tables: beam.PCollection) -> beam.PCollection:
        """Wire the step."""
        return tables | "Produce rows" >> beam.ParDo(_Produce(self))


class _Produce(beam.DoFn):
    """Gives rows to a producer, and waits for the broker at the end of the bundle."""

    def __init__(self, step: WriteKafka) -> None:
        self._target = step.target
        self._outputs = dict(step.outputs)
        self._linger_ms = step.linger_ms
        self._producer: Any = None
        self._hearing: Hearing | None = None
        self._given: list[tuple[str, Output, pa.Table]] = []
        self._sent = 0
        self._failed: list[Any] = []
        self._spent: list[dict[str, Any]] = []
        self._bytes = 0
        self._bundle = Bundle(WriteKafka, step.number, step.scratch)

    def start_bundle(self) -> None:
        self._failed = []
        self._forget_given()
        self._bundle.begin()
        if self._producer is None:
            self._producer = self._make()
            self._hearing = Hearing(self._target.servers, self._make)

    def process(self, element: tuple[str, int, int, bytes]) -> Iterator[None]:
        name, _, _, packed = element
        output = self._outputs[name]
        rows = with_schema([fetch(packed)], output.schema)
        topic = self._target.topic(name)
        mean = max(1, rows.nbytes // max(1, rows.num_rows))
        step = max(1, min(_SLICE_ROWS, _SLICE_BYTES // mean, WAITING_ROWS))
        for start in range(0, rows.num_rows, step):
            self._give(topic, output, rows.slice(start, step), mean)
        self._bundle.hold(element, rows.num_rows)
        return iter(())

    def finish_bundle(self) -> None:
        self._drain()
        self._bundle.close()

    def teardown(self) -> None:
        if self._producer is not None:
            self._producer.flush(5.0)
            self._producer = None

    def _make(self) -> Any:
        return _producer(self._target, Monitor(self._target.servers), self._linger_ms)

    def _give(self, topic: str, output: Output, rows: pa.Table, mean: int) -> None:
        # JSON repeats the names that memory holds once.
        size = 3 * mean * rows.num_rows
        if self._bytes + size > _WAITING_BYTES:
            self._drain()
        self._bytes += size
        self._given.append((topic, output, rows))
        self._send()

    def _send(self) -> None:
        """Give the producer what it has not been given yet."""
        while self._sent < len(self._given):
            topic, output, rows = self._given[self._sent]
            # A full queue takes some rows of a batch and refuses others, which would leave a
            # key's rows out of order: so it never gets full.
            if len(self._producer) + rows.num_rows > WAITING_ROWS and not self._failed:
                self._wait(0.01)
                continue
            part = messages(rows, output, self._spent)
            if len(part) > len(self._spent):
                self._spent = part
            taken = self._producer.produce_batch(topic, part, on_delivery=self._on_delivery)
            if taken < len(part):
                self._spent = []  # they hold their errors
                self._raise(next(row["_error"] for row in part if "_error" in row), topic)
            self._producer.poll(0)
            self._sent += 1

    def _drain(self) -> None:
        """Wait until the broker has taken everything; each row is, or fails after DELIVERY_MS."""
        while not self._failed:
            self._send()
            if not len(self._producer):
                break
            self._wait(1.0)
        if self._failed:
            self._raise(*self._failed[0])
        self._forget_given()

    def _wait(self, seconds: float) -> None:
        """Wait for the broker; where the producer hears nobody, another takes its place.

        It is given all that has been given since the last drain: some of it twice, perhaps.
        """
        assert self._hearing is not None
        before = len(self._producer)
        if self._producer.flush(seconds) < before or not before:
            self._hearing.good()
            return
        producer = self._hearing.successor(self._producer)
        if producer is not None:
            old, self._producer = self._producer, producer
            old.purge()
            self._sent = 0

    def _forget_given(self) -> None:
        self._given = []
        self._sent = self._bytes = 0

    def _on_delivery(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failed.append((error, message.topic()))

    def _raise(self, error: Any, topic: str) -> None:
        """Fail the bundle, so that the runner repeats it, with a producer that knows nothing."""
        producer, self._producer = self._producer, None
        producer.purge()
        servers = ",".join(self._target.servers)
        hint = ""
        if error.code() == error.MSG_SIZE_TOO_LARGE:
            hint = "; raise max.message.bytes of the topic"
        gone = (error.UNKNOWN_TOPIC_OR_PART, error._UNKNOWN_TOPIC, error._UNKNOWN_PARTITION)
        if error.code() in gone:
            hint = "; it was deleted: run the stream again, which creates it"
        reason = f"{servers} did not take rows of {topic}: {error.str()}{hint}"
        raise BrokerFault(reason)


def _producer(target: KafkaTarget, monitor: Monitor, linger_ms: int) -> Any:
    settings = settings_for(
        target,
        monitor,
        enable_idempotence=True,
        linger_ms=linger_ms,
        compression_type="lz4",
        partitioner="murmur2_random",
        delivery_timeout_ms=DELIVERY_MS,
        # Only failures are told: a call a row would cost more than the row.
        delivery_report_only_error=True,
        message_max_bytes=MESSAGE_BYTES,
        batch_size=1_000_000,
        topic_metadata_propagation_max_ms=PROPAGATION_MS,
        queue_buffering_max_messages=WAITING_ROWS,
        queue_buffering_max_kbytes=512 * 1024,
    )
    return make(client().Producer, settings, target)


def messages(
    rows: pa.Table, output: Output, into: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Write rows as messages: `value`, a JSON object; `key`, the table's key as text.

    Args:
        rows: of the table's schema, at most some 100 MiB.
        output: the table.
        into: messages that are over, to be used again: making one takes longer than filling it.
    """
    rows = rows.combine_chunks()
    values = texts_of(json_lines(rows), 1)
    keys = texts_of(keys_of(rows, output.key))
    found = [*into[: len(values)], *({} for _ in range(len(values) - len(into)))]
    for message, value, key in zip(found, values, keys, strict=True):
        message["value"] = value
        message["key"] = key
    return found


def create_topics(
    target: KafkaTarget, outputs: Mapping[str, Output], timeout_s: float = 10.0
) -> list[str]:
    """Create the topics that are missing; those that exist stay as they are.

    Append tables keep everything (`retention.ms=-1`), upsert tables the newest row of a key
    (`cleanup.policy=compact`); the broker's clock stamps the messages.

    Returns:
        The names of those created.

    Raises:
        BrokerFault: no broker answers, or it does not let us.
        BadAddress: the properties file cannot be used.
    """
    kafka = client()
    monitor = Monitor(target.servers, silent=True)
    admin = make(kafka.admin.AdminClient, settings_for(target, monitor), target)
    existing = patiently(
        lambda seconds: admin.list_topics(timeout=seconds), admin, monitor, target, timeout_s
    ).topics
    wanted = [
        kafka.admin.NewTopic(
            target.topic(name),
            num_partitions=target.partitions,
            replication_factor=target.replication,
            config=topic_settings(output),
        )
        for name, output in outputs.items()
        if target.topic(name) not in existing
    ]
    created = []
    futures = admin.create_topics(wanted, operation_timeout=timeout_s) if wanted else {}
    for topic, future in futures.items():
        try:
            future.result(timeout_s)
        except kafka.KafkaException as e:
            error = e.args[0]
            if error.code() == kafka.KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            servers = ",".join(target.servers)
            reason = f"{servers} does not create topic {topic}: {error.str()}; create it yourself"
            raise BrokerFault(reason) from None
        created.append(topic)
    return created


def topic_settings(output: Output) -> dict[str, str]:
    """Return the settings that a table's topic is created with."""
    policy = (
        {"cleanup.policy": "compact"}
        if output.mode == "upsert"
        else {"cleanup.policy": "delete", "retention.ms": "-1"}
    )
    return {
        **policy,
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(MESSAGE_BYTES),
    }
