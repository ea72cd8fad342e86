"""Decoding a broker's messages as a Beam step: batches of messages become elements of the fold.

A batch is decoded at once, stamped with order times at once and split by shard, so that
nothing here runs per event. What cannot be decoded leaves as a dead letter with its original
bytes, its topic, partition and offset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.transforms.window import TimestampedValue
from apache_beam.typehints import Tuple
from apache_beam.utils.timestamp import Timestamp

from schemas.coders import pack
from schemas.events import TIME
from transforms.arrays import conform, integers
from transforms.counts import ITEM, REASON, counted
from transforms.decode import DEAD, counts_of, dead_letters, items_in
from transforms.exchange import Exchange
from transforms.fold.elements import events_element, mark_element
from transforms.fold.granules import BEHIND
from transforms.formats import registry
from transforms.formats.base import (
    Context,
    Decoded,
    Failure,
    Message,
    MessageBatch,
    Tracing,
    dead_row,
)
from transforms.formats.columns import replay_attributes
from transforms.formats.items import with_types
from transforms.mask import Masking, mask_events, mask_failure
from transforms.progress import tally
from transforms.receipts import account_of
from transforms.sources.messages import (
    extent,
    receipt_of,
    said_complete,
    table_of,
    unpack_messages,
)
from transforms.spread import keys_of_shards
from transforms.timeline import order_column, order_times
from transforms.topics import (
    Share,
    TopicPlan,
    decode_topic,
    failures_in_order,
    in_order,
)

MAX_EVENT = 512 * 1024
"""Bytes of text that an event may have: written as JSON, and next to the event before it, it
still fits into a broker's message. One that did not would stop the stream, again and again."""


@dataclass(eq=False)
class DecodeMessages(beam.PTransform):
    """Decodes batches of messages: (key of a shard, element of the fold); `DEAD` of `Rows`.

    Attributes:
        context: settings for decoding.
        format: name of the format, or `auto`: that of each message.
        plans: topic -> what was found out about it before the stream began.
        key: event column that the fold is sharded by.
        shards: number of shards.
        disorder_ms: D (see `transforms.timeline`).
        max_future_ms: an event so far ahead of its record time is refused.
        masking: what is hidden before anything is written; None for nothing.
        granule_ms: if not 0, every shard is told when a granule is over, rows or none: for a
            fold `by_marks`.
        scratch: where counts are reported; empty for nowhere.
    """

    context: Context
    format: str
    key: str
    shards: int
    disorder_ms: int
    max_future_ms: int
    plans: Mapping[str, TopicPlan] = field(default_factory=dict)
    masking: Masking | None = None
    granule_ms: int = 0
    scratch: str = ""

    def expand(self, batches: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """Wire the step."""
        decoded = batches | "Decode batches" >> beam.ParDo(_DecodeBatch(self)).with_outputs(
            DEAD, main="events"
        )
        # Keys must have a coder that is deterministic.
        decoded.events.element_type = Tuple[int, bytes]
        decoded[DEAD].element_type = Tuple[str, int, int, bytes]
        return decoded


class _DecodeBatch(beam.DoFn):
    def __init__(self, step: DecodeMessages) -> None:
        self._step = step
        self._exchange = Exchange("")
        # Split -> the last granule that shards were told to be over.
        self._told: dict[int, int] = {}

    def process(
        self, packed: bytes, stamped: Timestamp = beam.DoFn.TimestampParam
    ) -> Iterator[TimestampedValue | beam.pvalue.TaggedOutput]:
        step = self._step
        table = table_of(packed)
        messages = unpack_messages(table)
        counts: Counter[str] = Counter()
        said = said_complete(table)
        parts: list[pa.Table] = []
        failures: list[Failure] = []
        for topic, some in _by_topic(messages) if len(messages) else ():
            shares = decode_topic(some, step.plans.get(topic), step.format, step.context)
            tables: list[pa.Table] = []
            found: list[Failure] = []
            for share in shares:
                decoded, refused = share.decoded, 0
                if share.plan is not None:
                    decoded, early = refuse(share, step.max_future_ms)
                    found += early
                    refused = len(early)
                counts.update(counts_of(decoded, step.masking is not None))
                if step.context.items:
                    counts.update({ITEM + item: 1 for item in items_in(decoded.events)})
                found += decoded.failures
                counts.update(rejected=refused, events=refused)
                if decoded.events.num_rows:
                    tables.append(decoded.events)
            if tables:
                parts.append(in_order(some, tables))
            failures += found if len(shares) == 1 else failures_in_order(some, found)
        counts.update(REASON + failure.error for failure in failures)
        counts[BEHIND] += extent(table).behind
        tally(step.scratch, dict(counted(DecodeMessages, counts)))
        batch = receipt_of(table)
        account = account_of(step.scratch) if batch else None
        if account is not None:
            account.begin(batch)
        if failures:
            dead = self._dead(failures, messages, stamped)
            if account is not None:
                account.dead(batch, dead.value[:3])
            yield beam.pvalue.TaggedOutput(DEAD, dead)
        keys = keys_of_shards(step.shards)
        silent = set(range(step.shards)) if self._is_over(said) else set()
        if parts:
            events = parts[0] if len(parts) == 1 else pa.concat_tables(parts).unify_dictionaries()
            if step.masking is not None:
                events = mask_events(events, step.masking)
            times = order_times(events, step.disorder_ms * 1000)
            events = events.append_column("order_time", order_column(times))
            for shard, part in self._exchange.split(events, step.key, step.shards):
                silent.discard(shard)
                element = events_element(part, *said)
                if account is not None:
                    account.part(batch, keys[shard], element)
                yield TimestampedValue((keys[shard], element), stamped)
        if account is not None:
            account.end(batch)
        for shard in silent:
            yield TimestampedValue((keys[shard], mark_element(*said)), stamped)

    def _is_over(self, said: tuple[int, int, int] | tuple[()]) -> bool:
        """Say whether a reader has completed a granule with this batch."""
        if not self._step.granule_ms or not said:
            return False
        split, _, complete = said
        granule = complete // self._step.granule_ms
        over = granule > self._told.get(split, granule - 1)
        self._told[split] = granule
        return over

    def _dead(
        self, failures: Sequence[Failure], messages: MessageBatch, stamped: Timestamp
    ) -> TimestampedValue:
        step = self._step
        times = messages.record_times_by_place()
        if step.masking is not None:
            failures = [mask_failure(each, step.masking) for each in failures]
        rows = dead_letters(failures, "decode", times)
        # Named by its first message: a batch that is repeated writes the same rows.
        place = pc.min(messages.offsets).as_py()
        batch = pack(rows.combine_chunks().to_batches()[0])
        return TimestampedValue((DEAD, place, stamped.micros // 1000, batch), stamped)


def _by_topic(messages: MessageBatch) -> Iterator[tuple[str, MessageBatch]]:
    """Sort messages by their topic."""
    sources = messages.sources.dictionary.to_pylist()
    topics = [source.rpartition("/")[0] for source in sources]
    codes = messages.sources.indices.to_numpy()
    for topic in dict.fromkeys(topics):
        of_topic = np.array([each == topic for each in topics])[codes]
        if of_topic.all():
            yield topic, messages
        elif of_topic.any():
            yield topic, messages.pick(np.flatnonzero(of_topic).tolist())


def refuse(share: Share, max_future_ms: int) -> tuple[Decoded, list[Failure]]:
    """Give items their types, and take out the events that are too early, or too large."""
    if share.plan is not None:
        share = replace(share, decoded=with_types(share.decoded, share.plan.context))
    decoded, early = _refuse_future(share, max_future_ms)
    decoded, large = _refuse_large(replace(share, decoded=decoded))
    return decoded, early + large


def _refuse_future(share: Share, max_future_ms: int) -> tuple[Decoded, list[Failure]]:
    """Take out the events that are too far ahead of their record times: a wrong clock.

    One such event would hold its case's later ones for late, and wait in memory for days. Its
    dead letter holds the whole message: a replay finds the others of its events to be duplicates.
    """
    decoded = share.decoded
    events = decoded.events
    recorded = conform(events["record_time"], TIME)
    if not events.num_rows or recorded.null_count == len(recorded):
        return decoded, []
    times = integers(conform(events["event_time"], TIME))
    limit = max_future_ms * 1000
    ahead = (times - integers(recorded) > limit) & recorded.is_valid().to_numpy(
        zero_copy_only=False
    )
    if not ahead.any():
        return decoded, []
    reasons = {
        row: f"event time {events['event_time'][row].as_py().isoformat()} is more than"
        " --max_future ahead of the record's time"
        for row in np.flatnonzero(ahead).tolist()
    }
    return _refuse(share, "FutureEvent", reasons)


def _refuse_large(share: Share) -> tuple[Decoded, list[Failure]]:
    """Take out the events whose texts are longer than `MAX_EVENT` together."""
    decoded = share.decoded
    events = decoded.events
    longest = sum(max(map(_longest, column.chunks), default=0) for column in events.columns)
    if longest <= MAX_EVENT:
        return decoded, []
    sizes = np.zeros(events.num_rows, np.int64)
    for column in events.columns:
        sizes += _text_sizes(conform(column, column.type))
    reasons = {
        row: f"an event of {int(sizes[row]):,} bytes exceeds the maximum of {MAX_EVENT:,} bytes"
        for row in np.flatnonzero(sizes > MAX_EVENT).tolist()
    }
    return _refuse(share, "TooLarge", reasons) if reasons else (decoded, [])


def _longest(column: pa.Array) -> int:
    """Return what no text of a column is longer than, in bytes: a quick look."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary
    if pa.types.is_string(column.type):
        return int(pc.max(pc.binary_length(column)).as_py() or 0)
    if pa.types.is_map(column.type) and len(column):
        return int(np.diff(column.offsets).max()) * _longest(column.items)
    return 0


def _text_sizes(column: pa.Array) -> npt.NDArray[np.int64]:
    """Return the bytes of text of each value: a string, or a map of them; else 0."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        return integers(pc.binary_length(column).fill_null(0).cast(pa.int64()))
    sizes = np.zeros(len(column), np.int64)
    if pa.types.is_map(column.type):
        for row, pairs in enumerate(column.to_pylist()):
            sizes[row] = sum(len((text or "").encode()) for _, text in pairs or ())
    return sizes


def _refuse(share: Share, error: str, reasons: Mapping[int, str]) -> tuple[Decoded, list[Failure]]:
    """Take out events, by row, that were decoded but are not to be folded."""
    decoded = share.decoded
    rows = np.array(list(reasons), np.int64)
    refused = decoded.events.take(pa.array(rows))
    places = list(
        zip(refused["source"].to_pylist(), refused["source_offset"].to_pylist(), strict=True)
    )
    originals = _originals(share, set(places))
    failures = []
    for place, text in zip(places, reasons.values(), strict=True):
        message = originals.get(place) or Message(b"", *place)
        at = "/".join(map(str, place))
        failure = dead_row(message.payload, at, error, text, message.attributes)
        failures.append(replace(failure, time=message.record_time))
    kept = np.ones(decoded.events.num_rows, np.bool_)
    kept[rows] = False
    return replace(decoded, events=decoded.events.filter(pa.array(kept))), failures


def _originals(share: Share, wanted: set[tuple[str, int]]) -> dict[tuple[str, int], Message]:
    """Return messages by source and offset of their events, as dead letters hold them."""
    plan, messages = share.plan, share.messages
    if plan is None:
        return {}
    format_ = registry.get(plan.format)
    if not isinstance(format_, Tracing):
        attributes = replay_attributes(plan.format, plan.context)
        return {
            (m.source, m.offset): replace(m, attributes={**m.attributes, **attributes})
            for m in messages
            if (m.source, m.offset) in wanted
        }
    # What is replayed names other places than its own.
    direct = [m for m in messages if (m.source, m.offset) in wanted]
    found = [format_.original(m, plan.context) for m in direct]
    if len(found) < len(wanted):
        found = [format_.original(m, plan.context) for m in messages]
    return {(m.source, m.offset): m for m in found}
