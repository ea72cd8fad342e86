"""The two ends of a stream as steps: which source reads an address, which sink writes to one.

Chosen by the broker and by the engine: Dataflow reads and writes Pub/Sub by itself, everywhere
else it is done here. The same pipeline, the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipelines.brokers import is_database, is_pubsub
from pipelines.registry import Stream
from pipelines.settings import Settings
from schemas.tables import Output
from transforms.timeline import BeamTime

if TYPE_CHECKING:
    from pipelines.brokers import Address, Target
    from transforms.sources.step import NamedSource

CLUSTER_BATCH = 20_000
"""Most messages of a batch on a cluster: each gives an element to every shard, and an element costs
the runner the same for any number of rows."""

CLUSTER_LINGER_MS = 50
"""So long a batch waits there to fill."""

REST_EVERY_S, REST_S = 5.0, 1.25
"""How often a reader rests on Flink, and for how long: whole seconds count, of what is left when
Beam's worker has told it (decision 13)."""

MARKED_BATCH = 10_000
"""Most messages of a batch where a fold goes by marks: a step of it costs the same for any."""


def beam_time(settings: Settings, stream: Stream) -> BeamTime:
    """Return how the engine's event time differs from order time."""
    native = stream.native and any(map(is_pubsub, settings.sources))
    return BeamTime(settings.disorder_ms if native else 0)


def reading(address: Address, number: int, settings: Settings, stream: Stream) -> Any:
    """Return the step that reads an address.

    Args:
        address: what is read.
        number: of the input.
        settings: of the run.
        stream: of the run.
    """
    # Where event time is ahead of order time, nobody holds the watermark back.
    disorder_ms = settings.disorder_ms - beam_time(settings, stream).ahead_ms
    source: NamedSource
    if is_pubsub(address):
        from transforms.sources.pubsub import (  # noqa: PLC0415 (its client may be missing)
            PubSubSource,
            ReadNative,
            ReadPubSub,
        )

        if stream.native:
            return ReadNative(address, CLUSTER_BATCH)
        step: Any = ReadPubSub
        source = PubSubSource(
            address,  # type: ignore[arg-type]
            disorder_ms,
            stream.splits,
            stop=stream.stop,
            account=stream.account,
            reads=f"input {number}",
        )
    else:
        from transforms.sources.kafka import KafkaSource, ReadKafka  # noqa: PLC0415

        step = ReadKafka
        source = KafkaSource(
            address,  # type: ignore[arg-type]
            disorder_ms,
            stream.splits,
            stop=stream.stop,
            reads=f"input {number}",
        )
    return _cut(step, source, settings, stream)


def _cut(step: Any, source: Any, settings: Settings, stream: Stream) -> Any:
    """Return the source's step, which cuts its work as the fold wants it.

    Where rows leave in the midst of a bundle, it is long.
    """
    if not stream.by_marks:
        source = replace(source, batch=CLUSTER_BATCH, linger_ms=CLUSTER_LINGER_MS)
        if stream.rests:
            resting = replace(source, rest_every_s=REST_EVERY_S)
            return step(resting, poll_interval_s=REST_S, ahead=True)
        return step(source)
    linger_ms = max(5, min(50, settings.granule_ms // 4))
    source = replace(source, batch=MARKED_BATCH, linger_ms=linger_ms, marks_ms=settings.granule_ms)
    return step(source, batches_per_bundle=10_000, seconds_per_bundle=5.0)


def writing(
    target: Target, tables: Mapping[str, Output], number: int, scratch: str, stream: Stream
) -> Any:
    """Return the step that writes to a target.

    Args:
        target: where to.
        tables: that are written.
        number: of the target.
        scratch: where delivered rows are counted.
        stream: of the run.
    """
    if is_database(target):
        return _into_tables(target, tables, number, scratch, stream)
    if is_pubsub(target):
        from transforms.sinks.pubsub import WriteNative, WritePubSub  # noqa: PLC0415

        if stream.native:
            return WriteNative(target, tables)
        return WritePubSub(target, tables, number, scratch)
    from transforms.sinks.kafka import WriteKafka  # noqa: PLC0415

    return WriteKafka(target, tables, number=number, scratch=scratch)


def _into_tables(
    target: Any, tables: Mapping[str, Output], number: int, scratch: str, stream: Stream
) -> Any:
    """Return the step that writes to a database."""
    from transforms.sinks.lakes.address import BigQueryTarget  # noqa: PLC0415

    if isinstance(target, BigQueryTarget):
        from transforms.sinks.lakes.bigquery_steps import (  # noqa: PLC0415 (its client may be missing)
            InsertBigQuery,
            WriteBigQuery,
        )

        if stream.account:
            # Engines of one process group nothing of a stream, as Beam's own step has to.
            return InsertBigQuery(target, tables, number, scratch)
        return WriteBigQuery(target, tables)
    from transforms.sinks.lakes.write import WriteTables  # noqa: PLC0415

    return WriteTables(target, tables, number, scratch)
