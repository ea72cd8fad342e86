"""Pub/Sub as a sink: each table is a topic, each row a message with one JSON object.

What is guaranteed: **at least once, with deterministic row ids.** A bundle is done when the service
has taken all its rows; one that is repeated publishes its rows again, with the ids that they had,
so whoever reads drops what it has seen by `row_id` (also an attribute, as `table` is). Requests are
as large as the service allows, several at a time, and made again while it does not answer.

Pub/Sub keeps no order. With `ordering=key` the rows of a key are one request after the other, each
with the key as ordering key: for subscriptions with ordering, and much slower.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa

from schemas.tables import Output
from transforms.arrays import texts_of
from transforms.exchange import fetch, with_schema
from transforms.pubsub import BrokerFault, PubSubTarget, library, publisher, sentence
from transforms.sinks.delivery import Bundle
from transforms.sinks.text import json_lines, keys_of

REQUEST_MESSAGES = 1000
"""Most messages of a request."""

REQUEST_BYTES = 3 * 1024 * 1024
"""A request may have 10 MB, and with the double 4 MiB: a row is a little more than its JSON."""

LARGEST = 9_500_000
"""Bytes of a row that a topic takes: 10 MB, less attributes."""

ORDERING_KEY_BYTES = 1024

DELIVERY_S = 300.0
"""A service that is away for less than this is only a delay."""

REQUESTS = 4
"""At a time."""

_SLICE_ROWS = 20_000


@dataclass(eq=False)
class WritePubSub(beam.PTransform):
    """Writes tables to topics: `fold.streaming.Rows` -> nothing.

    Attributes:
        target: the project and the topics' prefix.
        outputs: table name -> table.
        number: of the target among those of the run, for what is counted.
        scratch: where delivered rows are counted; empty for nowhere.
    """

    target: PubSubTarget
    outputs: Mapping[str, Output]
    number: int = 0
    scratch: str = ""

    def expand(self, tables: beam.PCollection) -> beam.PCollection:
        """Wire the step."""
        return tables | "Publish rows" >> beam.ParDo(_Publish(self))


class _Publish(beam.DoFn):
    """Publishes rows, and waits for the service at the end of the bundle."""

    def __init__(self, step: WritePubSub) -> None:
        self._target = step.target
        self._outputs = dict(step.outputs)
        self._client: Any = None
        self._threads: ThreadPoolExecutor | None = None
        self._sent: list[Future[None]] = []
        self._bundle = Bundle(WritePubSub, step.number, step.scratch)

    def start_bundle(self) -> None:
        self._sent = []
        self._bundle.begin()
        if self._client is None:
            self._client = publisher()
            self._threads = ThreadPoolExecutor(REQUESTS, "pubsub-publish")

    def process(self, element: tuple[str, int, int, bytes]) -> Iterator[None]:
        name, _, _, packed = element
        output = self._outputs[name]
        rows = with_schema([fetch(packed)], output.schema)
        for start in range(0, rows.num_rows, _SLICE_ROWS):
            listed = messages(rows.slice(start, _SLICE_ROWS), output, self._target.ordered)
            for requests in in_requests(listed):
                self._send(self._target.path(name), requests)
        self._bundle.hold(element, rows.num_rows)
        return iter(())

    def finish_bundle(self) -> None:
        self._drain(0)
        self._bundle.close()

    def teardown(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._client.transport.close()
            self._threads = self._client = None

    def _send(self, topic: str, requests: Sequence[Sequence[Row]]) -> None:
        # What waits for the service is bounded.
        self._drain(4 * REQUESTS)
        assert self._threads is not None
        self._sent.append(self._threads.submit(self._publish, topic, requests))

    def _drain(self, left: int) -> None:
        """Wait until no more than so many calls are under way.

        Raises:
            BrokerFault: the service did not take rows; the runner repeats the bundle.
        """
        while len(self._sent) > left:
            self._sent.pop(0).result()

    def _publish(self, topic: str, requests: Sequence[Sequence[Row]]) -> None:
        """Make requests, one after the other."""
        found = library()
        errors = found.errors
        retry = found.retry.Retry(
            predicate=found.retry.if_exception_type(
                errors.ServiceUnavailable,
                errors.DeadlineExceeded,
                errors.InternalServerError,
                errors.TooManyRequests,
                errors.Aborted,
                errors.Unknown,
                errors.Cancelled,
            ),
            initial=0.1,
            maximum=10.0,
            multiplier=2.0,
            timeout=DELIVERY_S,
        )
        message, request = found.gapic.PubsubMessage.pb(), found.gapic.PublishRequest
        for rows in requests:
            listed = [
                message(
                    data=row.data,
                    attributes={"row_id": row.row_id, "table": row.table},
                    ordering_key=row.ordering_key,
                )
                for row in rows
            ]
            wrapped = request.wrap(request.pb()(topic=topic, messages=listed))
            try:
                found.gapic.PublisherClient.publish(
                    self._client, request=wrapped, retry=retry, timeout=30.0
                )
            except (errors.GoogleAPICallError, errors.RetryError) as error:
                cause = error.cause if isinstance(error, errors.RetryError) else error
                reason = f"{topic} did not take rows: {sentence(cause or error)}"
                raise BrokerFault(reason) from None


class Row(NamedTuple):
    """A row as a message.

    Attributes:
        data: one JSON object.
        row_id: its id.
        table: its table.
        ordering_key: the text of its key; empty for no order.
    """

    data: bytes
    row_id: str
    table: str
    ordering_key: str


def messages(rows: pa.Table, output: Output, ordered: bool) -> list[Row]:
    """Write rows as messages.

    Args:
        rows: of the table's schema, at most some 100 MiB.
        output: the table.
        ordered: whether they have ordering keys.

    Raises:
        BrokerFault: a row is larger than any topic takes.
    """
    rows = rows.combine_chunks()
    values = texts_of(json_lines(rows), 1)
    longest = max(map(len, values), default=0)
    if longest > LARGEST:
        reason = f"a row of {output.name} has {longest:,} bytes, and Pub/Sub takes {LARGEST:,}"
        raise BrokerFault(reason)
    ids = rows["row_id"].to_pylist()
    keys = [""] * len(ids)
    if ordered:
        texts = texts_of(keys_of(rows, output.key))
        keys = [each[:ORDERING_KEY_BYTES].decode(errors="ignore") for each in texts]
    return [
        Row(value, id_, output.name, key) for value, id_, key in zip(values, ids, keys, strict=True)
    ]


def in_requests(rows: Sequence[Row]) -> Iterator[list[list[Row]]]:
    """Cut messages into requests; those of one list are made one after the other.

    All messages of a request must have the same ordering key.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.ordering_key, []).append(row)
    for group in groups.values():
        requests: list[list[Row]] = [[]]
        size = 0
        for row in group:
            full = len(requests[-1]) == REQUEST_MESSAGES or size + len(row.data) > REQUEST_BYTES
            if requests[-1] and full:
                requests.append([])
                size = 0
            requests[-1].append(row)
            size += len(row.data)
        if group[0].ordering_key:
            yield requests
        else:
            yield from ([request] for request in requests)


@dataclass(eq=False)
class WriteNative(beam.PTransform):
    """Writes tables with `WriteToPubSub`, which Dataflow replaces by its service's.

    Attributes:
        target: the project and the topics' prefix.
        outputs: table name -> table.
    """

    target: PubSubTarget
    outputs: Mapping[str, Output]

    def expand(self, tables: beam.PCollection) -> list[beam.PCollection]:
        """Wire the steps."""
        from apache_beam.io.gcp.pubsub import WriteToPubSub  # noqa: PLC0415 (needs the client)

        step = _Messages(dict(self.outputs), self.target.ordered)
        parts = tables | "Write as messages" >> beam.ParDo(step).with_outputs(*self.outputs)
        return [
            parts[name]
            | f"Write topic {name}"
            >> WriteToPubSub(
                self.target.path(name),
                with_attributes=True,
                publish_with_ordering_key=self.target.ordered,
            )
            for name in self.outputs
        ]


class _Messages(beam.DoFn):
    """Makes Beam's messages of rows, each to the output of its table."""

    def __init__(self, outputs: Mapping[str, Output], ordered: bool) -> None:
        self._outputs, self._ordered = outputs, ordered

    def process(self, element: tuple[str, int, int, bytes]) -> Iterator[beam.pvalue.TaggedOutput]:
        from apache_beam.io.gcp.pubsub import PubsubMessage  # noqa: PLC0415 (needs the client)

        name, _, _, packed = element
        rows = with_schema([fetch(packed)], self._outputs[name].schema)
        for row in messages(rows, self._outputs[name], self._ordered):
            attributes = {"row_id": row.row_id, "table": row.table}
            message = PubsubMessage(row.data, attributes, ordering_key=row.ordering_key)
            yield beam.pvalue.TaggedOutput(name, message)


def create_topics(target: PubSubTarget, tables: Sequence[str]) -> list[str]:
    """Create topics; one that somebody else creates meanwhile is as good.

    Returns:
        The names of those created.

    Raises:
        BrokerFault: the service does not let us.
    """
    found, client = library(), publisher()
    created = []
    try:
        for table in tables:
            try:
                client.create_topic(name=target.path(table), timeout=10)
            except found.errors.AlreadyExists:
                continue
            except (found.errors.GoogleAPICallError, found.errors.RetryError) as error:
                reason = f"{target.path(table)} is not created: {sentence(error)}"
                raise BrokerFault(reason) from None
            created.append(target.topic(table))
    finally:
        client.transport.close()
    return created
