"""The reading of one slice of Kafka's partitions: messages to batches, and what may go wrong.

What it owes to Beam and to whom it reads from is said in `transforms.sources.kafka`; record times
and the watermark are those of `transforms.sources.kafka.partitions`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from itertools import compress
from typing import Any

import numpy as np
import orjson
from apache_beam.metrics import Metrics
from apache_beam.utils.timestamp import Timestamp

from transforms.kafka import BrokerFault, Hearing, Monitor, client, matching
from transforms.kafka.address import COMMITTED
from transforms.sources.kafka.marks import KafkaMark, bound_of, committer_of, consumer_of
from transforms.sources.kafka.partitions import Key, Partitions, restore
from transforms.sources.kafka.slice import KafkaSlice
from transforms.sources.messages import pack_messages
from transforms.sources.reading import Reading

LOGGER = logging.getLogger(__name__)

BATCH_BYTES = 4 * 1024 * 1024
"""A batch ends at this size, whatever its number of messages."""

_AHEAD_US = 60_000_000
"""A message's timestamp may be so far ahead of this machine's clock."""

FIRST_FILL_S = 5.0
ASK_S = 5.0
_STATISTICS_MS = 500

_COUNTERS = ("messages", "behind_watermark", "ahead_of_clock", "lost_offsets")


_NEVER = 2**62


def _name(key: Key) -> str:
    return f"{key[0]}/{key[1]}"


def _keys_of(messages: list[Any]) -> tuple[list[Key], Any]:
    """Return the partitions of messages, and for each message the index of its own."""
    topics = [message.topic() for message in messages]
    partitions = np.array([message.partition() for message in messages], np.int64)
    names = list(dict.fromkeys(topics))
    width = int(partitions.max()) + 1
    if len(names) > 1:
        numbers = {topic: number for number, topic in enumerate(names)}
        partitions += width * np.array([numbers[topic] for topic in topics], np.int64)
    found, codes = np.unique(partitions, return_inverse=True)
    return [(names[each // width], each % width) for each in found.tolist()], codes


class KafkaReading(Reading):
    """Reads the partitions of one slice; its methods are those of Beam's readers.

    Args:
        owned: the slice.
        mark: where to go on.
    """

    _slice: KafkaSlice

    def __init__(self, owned: KafkaSlice, mark: KafkaMark | None) -> None:
        super().__init__(owned)
        kafka = client()
        self._errors, self._exception = kafka.KafkaError, kafka.KafkaException
        self._place = kafka.TopicPartition
        self._partitions = Partitions(
            1000 * owned.disorder_ms, 1000 * owned.address.idle_ms, mark.floor if mark else None
        )
        self._restored = restore(mark.positions) if mark and mark.positions else {}
        # Without partitions to go on with, nothing is known until the broker has told.
        self._known = mark is not None and mark.positions is not None
        self._index: dict[Key, int] = {}
        self._names: list[str] = []
        self._missing: dict[Key, int] = {}
        self._ends: dict[Key, int] | None = None
        self._held: list[Any] = []
        self._statistics: bytes | str = ""
        self._ask = min(owned.batch, 1000)
        self._refreshed = float("-inf")
        self._counters = {name: Metrics.counter(KafkaReading, name) for name in _COUNTERS}
        self._monitor = Monitor(owned.address.servers)
        self._hearing = Hearing(owned.address.servers, self._make_consumer)
        self._consumer = self._make_consumer()

    def _make_consumer(self) -> Any:
        return consumer_of(
            self._slice.address,
            self._monitor,
            stats_cb=self._on_statistics,
            statistics_interval_ms=_STATISTICS_MS,
            enable_partition_eof=True,
            isolation_level="read_committed",
            # A broker answers as soon as it has anything; idle ones are asked ten times a second.
            fetch_min_bytes=1,
            fetch_wait_max_ms=100,
            # Half a second of prefetch; and, when it is used up, no pause of a second.
            queued_min_messages=100_000,
            queued_max_messages_kbytes=32 * 1024,
            fetch_queue_backoff_ms=5,
        )

    def start(self) -> bool:
        """Assign the partitions and wait for the first batch, or for the end of each of them."""
        if self._restored:
            self._assign(self._restored)
        deadline = time.monotonic() + FIRST_FILL_S
        while not self.advance():
            done = self._ended or time.monotonic() > deadline
            if done or (self._known and self._has_read_all()):
                return False
        return True

    def _poll(self) -> bool:
        self._refresh()
        wait = self._slice.linger_ms / 1000
        messages = self._held or self._consumer.consume(self._ask, wait)
        self._held = []
        found = bool(messages) and self._take(messages)
        if self._statistics:
            self._confirm()
        return found

    def _has_read_all(self) -> bool:
        return all(map(self._partitions.at_end, self._partitions))

    def _is_over(self) -> bool:
        return self._slice.until_end and self._at_ends()

    def _watermark_us(self) -> int | None:
        return self._partitions.watermark()

    def get_checkpoint_mark(self) -> KafkaMark:
        """Return where this reader stands: after the batch that was taken last."""
        positions = None
        if self._known:
            self._partitions.watermark()
            positions = self._partitions.positions()
        owned = self._slice
        floor = self._partitions.floor
        # At the end everything is folded.
        marks = 0 if self._ended else owned.marks_ms
        return KafkaMark(owned.address, positions, floor, owned.disorder_ms, marks)

    def close(self) -> None:
        """Let the consumer go."""
        self._consumer.close()

    # Messages: a column at a time, since a call a message is most of what reading costs.

    def _take(self, messages: list[Any]) -> bool:
        """Make a batch of what was consumed; False if there was no message in it."""
        faults = [message.error() for message in messages]
        others: list[Any] = []
        if any(faults):
            others = [m for m, fault in zip(messages, faults, strict=True) if fault is not None]
            messages = [m for m, fault in zip(messages, faults, strict=True) if fault is None]
        if messages:
            keys, codes = _keys_of(messages)
            offsets = np.array([message.offset() for message in messages], np.int64)
            stale = self._stale(keys, codes, offsets)
            if stale.any():
                messages = list(compress(messages, (~stale).tolist()))
                return self._take([*messages, *others])
            payloads = [message.value() for message in messages]
            cut = self._cut(payloads)
            if cut < len(messages):
                self._held = [*messages[cut:], *others]
                others = []
            self._pack(messages[:cut], keys, codes[:cut], offsets[:cut], payloads[:cut])
        for other in others:
            self._on_fault(other)
        return bool(messages)

    def _stale(self, keys: list[Key], codes: Any, offsets: Any) -> Any:
        """Say which messages are not awaited: of partitions given up or moved."""
        partitions = self._partitions
        awaited = [partitions.next(key) if key in partitions else _NEVER for key in keys]
        return offsets < np.array(awaited, np.int64)[codes]

    def _cut(self, payloads: list[bytes | None]) -> int:
        """Return how many messages fit into one batch; ask for about as many next time."""
        try:
            sizes = np.array([*map(len, payloads)], np.int64)  # type: ignore[arg-type]
        except TypeError:  # a deleted record has no payload
            sizes = np.array([len(each) if each else 0 for each in payloads], np.int64)
        ends = sizes.cumsum()
        fits = max(1, int(ends.searchsorted(BATCH_BYTES, "right")))
        mean = max(1, int(ends[-1]) // len(payloads))
        self._ask = max(1, min(self._slice.batch, BATCH_BYTES // mean))
        return min(fits, len(payloads))

    def _pack(
        self,
        messages: list[Any],
        keys: list[Key],
        codes: Any,
        offsets: Any,
        payloads: list[bytes | None],
    ) -> None:
        times = 1000 * np.array([message.timestamp()[1] for message in messages], np.int64)
        now = time.time_ns() // 1000
        ahead = times > now + _AHEAD_US
        if ahead.any():
            self._count("ahead_of_clock", int(ahead.sum()))
        times[ahead | (times < 0)] = now
        behind = 0
        for code, key in enumerate(keys):
            rows = np.flatnonzero(codes == code)
            if not len(rows):  # all of them are held
                continue
            raised, raised_count = self._partitions.take(key, int(offsets[rows[-1]]), times[rows])
            times[rows] = raised
            behind += raised_count
        headers = [message.headers() for message in messages]
        names = np.array([self._index[key] for key in keys], np.int32)
        self._current = pack_messages(
            payloads,
            (self._names, names[codes]),
            offsets,
            times,
            headers if any(headers) else (),
            behind=behind,
            said=self._say_now(),
        )
        oldest = int(times.min()) - 1000 * self._slice.disorder_ms
        self._current_time = Timestamp(micros=oldest)
        self._count("messages", len(messages))
        if behind:
            self._count("behind_watermark", behind)

    def _count(self, name: str, number: int) -> None:
        self._counters[name].inc(number)

    def _on_fault(self, message: Any) -> None:
        """Take what librdkafka says in place of a message."""
        fault, key = message.error(), (message.topic(), message.partition())
        code = fault.code()
        if code == self._errors._PARTITION_EOF:
            if key in self._partitions:
                self._partitions.reach(key, message.offset())
        elif code in {self._errors._AUTO_OFFSET_RESET, self._errors.OFFSET_OUT_OF_RANGE}:
            if key in self._partitions:
                self._reset(key)
        elif code in {
            self._errors.TOPIC_AUTHORIZATION_FAILED,
            self._errors.GROUP_AUTHORIZATION_FAILED,
        }:
            servers = ",".join(self._slice.address.servers)
            reason = f"{servers} does not let us read {key[0]}: {fault.str()}"
            raise BrokerFault(reason)
        else:
            self._monitor.on_error(fault)

    # Time

    def _on_statistics(self, text: str) -> None:
        self._statistics = text

    def _confirm(self) -> None:
        """Learn from the client's statistics which partitions still end where we met their end.

        A fetch is answered ten times a second even if there is nothing, so the time since the
        broker was last heard says when the ends were true.
        """
        text, self._statistics = self._statistics, ""
        ended = [key for key in self._partitions if self._partitions.at_end(key)]
        if not ended:
            return
        found = orjson.loads(text)
        # Statistics may have waited for us: their own clock counts, in whole seconds.
        said = min(time.time_ns() // 1000, 1_000_000 * (found["time"] + 1))
        heard = {
            broker["nodeid"]: said - broker["rxidle"]
            for broker in found["brokers"].values()
            if broker["state"] == "UP" and broker["rxidle"] >= 0
        }
        topics = found["topics"]
        for key in ended:
            state = topics.get(key[0], {}).get("partitions", {}).get(str(key[1]))
            if state is None or state["leader"] not in heard or state["fetch_state"] != "active":
                continue
            # Before the last stable offset's end may be messages of an open transaction.
            if state["hi_offset"] == state["ls_offset"]:
                self._partitions.confirm(key, state["hi_offset"], heard[state["leader"]])

    # Partitions

    def _at_ends(self) -> bool:
        return self._ends is not None and all(
            key not in self._partitions or self._partitions.next(key) >= end
            for key, end in self._ends.items()
        )

    def _refresh(self) -> None:
        """Look for partitions that are new, or gone."""
        owned = self._slice
        # Where a connection was lost, we soon want to know whether somebody is there.
        answered = self._hearing.well and not self._monitor.faults
        settled = answered and self._known and len(self._partitions) and not self._missing
        now = time.monotonic()
        refresh_s = owned.address.refresh_ms / 1000
        if now - self._refreshed < (refresh_s if settled else min(1.0, refresh_s)):
            return
        self._refreshed = now
        self._monitor.faults.clear()
        try:
            asked = time.time_ns() // 1000
            told = self._consumer.list_topics(timeout=ASK_S if not self._known else min(1.0, ASK_S))
            if not told.brokers:
                # By a broker on its way up or down: what it knows of topics may be as little.
                self._succeed()
                return
            topics = told.topics
            found = {
                (name, number)
                for name in matching(topics, owned.address.topics)
                for number in topics[name].partitions
                if owned.owns(name, number)
            }
            fresh = self._begin(sorted(key for key in found if key not in self._partitions))
            if owned.until_end and self._ends is None:
                kept = [key for key in self._partitions if key in found]
                self._ends = {key: self._range(key)[1] for key in [*fresh, *kept]}
        except self._exception as e:
            self._monitor.on_error(e.args[0])
            self._succeed()
            return
        self._hearing.good()
        if fresh:
            if self._known:
                LOGGER.info("Reading new partitions: %s", ", ".join(map(_name, fresh)))
            self._assign(fresh)
        self._known = True
        self._drop_missing(found)
        self._partitions.confirm_none(asked)

    def _range(self, key: Key) -> tuple[int, int]:
        low, high = self._consumer.get_watermark_offsets(self._place(*key), timeout=ASK_S)
        return low, high

    def _begin(self, keys: list[Key]) -> dict[Key, tuple[int, int | None]]:
        """Return where to begin with partitions that have no checkpoint, and their bounds.

        Those that appear while we read began after us: they are read from their beginning.
        """
        if not keys:
            return {}
        address = self._slice.address
        begin: dict[Key, tuple[int, int | None]] = {}
        places: dict[Key, Any] = {}
        start_ms = address.start_ms
        if address.start == COMMITTED:
            wanted = [self._place(*key) for key in keys]
            answers = self._consumer.committed(wanted, timeout=ASK_S)
            places = {(each.topic, each.partition): each for each in answers}
        elif start_ms is not None and not self._known:
            wanted = [self._place(*key, start_ms) for key in keys]
            answers = self._consumer.offsets_for_times(wanted, timeout=ASK_S)
            places = {(each.topic, each.partition): each for each in answers}
        for key in keys:
            low, high = self._range(key)
            offset, bound = low, None
            place = places.get(key)
            if place is not None and place.error is not None:
                raise self._exception(place.error)
            if address.start == COMMITTED and place is not None and place.offset >= 0:
                if low <= place.offset <= high:
                    offset, bound = place.offset, bound_of(place.metadata)
                else:
                    self._lost(key, place.offset, low)
            elif start_ms is not None and place is not None:
                offset = place.offset if place.offset >= 0 else high
            elif address.start == "latest" and not self._known:
                offset = high
            begin[key] = (offset, bound)
        return begin

    def _assign(self, begin: Mapping[Key, tuple[int, int | None]]) -> None:
        for key, (offset, bound) in begin.items():
            self._partitions.add(key, offset, bound)
            if key not in self._index:
                self._index[key] = len(self._names)
                self._names.append(_name(key))
        self._consumer.incremental_assign(
            [self._place(*key, offset) for key, (offset, _) in begin.items()]
        )

    def _succeed(self) -> None:
        """Go on with a new consumer, at the same messages, where this one hears nobody."""
        consumer = self._hearing.successor(self._consumer)
        if consumer is None:
            return
        old, self._consumer = self._consumer, consumer
        self._held = []
        consumer.incremental_assign(
            [self._place(*key, self._partitions.next(key)) for key in self._partitions]
        )
        old.close()

    def _drop_missing(self, found: set[Key]) -> None:
        """Give up partitions that the broker did not know twice: their topic was deleted."""
        self._missing = {
            key: self._missing.get(key, 0) + 1 for key in self._partitions if key not in found
        }
        gone = [key for key, times in self._missing.items() if times > 1]
        if not gone:
            return
        self._consumer.incremental_unassign([self._place(*key) for key in gone])
        for key in gone:
            LOGGER.warning("%s was deleted; it is read no longer", _name(key))
            self._partitions.remove(key)
            self._missing.pop(key)
            committer_of(self._slice.address).forget(key)

    def _reset(self, key: Key) -> None:
        """Go on at the earliest message: the broker no longer has the one we want."""
        try:
            low = self._range(key)[0]
        except self._exception as e:
            self._monitor.on_error(e.args[0])
            low = 0
        self._lost(key, self._partitions.next(key), low)
        self._consumer.incremental_unassign([self._place(*key)])
        self._partitions.move(key, low)
        self._consumer.incremental_assign([self._place(*key, low)])

    def _lost(self, key: Key, wanted: int, low: int) -> None:
        committer_of(self._slice.address).forget(key)
        if low > wanted:
            self._count("lost_offsets", low - wanted)
            LOGGER.warning(
                "%s: %d messages from offset %d are lost, the topic no longer has them; going on "
                "at %d (see its retention.ms)",
                _name(key),
                low - wanted,
                wanted,
                low,
            )
        else:
            LOGGER.warning(
                "%s: offset %d is past its end, so it was made anew; reading it from offset %d",
                _name(key),
                wanted,
                low,
            )
