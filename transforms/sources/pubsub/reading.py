"""The reading of one slice of Pub/Sub: pulled messages to batches, in the subscriptions' turn."""

from __future__ import annotations

import itertools
import time
import uuid
from itertools import chain
from weakref import WeakValueDictionary

import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.utils.timestamp import Timestamp

from transforms.sources.messages import pack_messages
from transforms.sources.pubsub import given
from transforms.sources.pubsub.bounds import Bound
from transforms.sources.pubsub.columns import headers, places
from transforms.sources.pubsub.leases import Keeper, keeper_of
from transforms.sources.pubsub.marks import PubSubMark
from transforms.sources.pubsub.pulling import Pulled, Puller
from transforms.sources.pubsub.slice import PubSubSlice
from transforms.sources.reading import Reading
from transforms.sources.standing import drop

BATCH_BYTES = 4 * 1024 * 1024
"""A batch gets no further pull that would make it larger."""

FIRST_FILL_S = 5.0

_numbers = itertools.count(1)
"""Of the batches of all readings of this process."""


_live: WeakValueDictionary[str, PubSubReading] = WeakValueDictionary()
"""By name, the readings of this process."""


def _supersede(mark: PubSubMark) -> None:
    """Let a reading that has gone beyond a mark end: somebody begins at the mark again.

    Else it would pull, and keep for itself, what is delivered again.
    """
    beyond = _live.pop(mark.reading, None)
    if beyond is not None and not beyond.closed:
        drop(beyond)
        beyond.close()
    given.take_back(mark.reading, mark.number)


class PubSubReading(Reading):
    """Reads one slice.

    Args:
        owned: the slice.
        mark: where to go on: what was given away after it is delivered again.
    """

    _slice: PubSubSlice

    def __init__(self, owned: PubSubSlice, mark: PubSubMark | None) -> None:
        super().__init__(owned)
        self._name = uuid.uuid4().hex
        self._at = self._marked = 0
        if mark is not None:
            _supersede(mark)
        _live[self._name] = self
        address, now = owned.address, time.time_ns() // 1000
        self._floors = dict(mark.floors) if mark is not None else {}
        self._keepers: dict[str, Keeper] = {}
        self._pullers: dict[str, Puller] = {}
        for name in owned.subscriptions():
            self._keepers[name] = keeper_of(address.path(name), address.lease_ms)
            bound = Bound(1000 * address.idle_ms, self._floors.get(name), now)
            self._pullers[name] = Puller(address, self._keepers[name], bound)
        self._turn = 0
        self._messages = Metrics.counter(PubSubReading, "messages")
        self._behind = Metrics.counter(PubSubReading, "behind_watermark")

    def start(self) -> bool:
        """Wait for the first batch, for as long as connecting may take."""
        deadline = time.monotonic() + FIRST_FILL_S
        while not self.advance():
            if self._ended or time.monotonic() > deadline:
                return False
        return True

    def get_checkpoint_mark(self) -> PubSubMark:
        """Return where this reading stands: after the batch that was given away last."""
        self._marked = self._at
        self._watermark_us()
        floors = {name: puller.floor() for name, puller in self._pullers.items()}
        kept = {name: floor for name, floor in floors.items() if floor is not None}
        return PubSubMark(self._name, self._at, kept)

    def close(self) -> None:
        """Give back what was pulled and not given away, or given away and in no mark."""
        self.closed = True
        for puller in self._pullers.values():
            puller.close()
        given.take_back(self._name, self._marked)

    def _poll(self) -> bool:
        deadline = time.monotonic() + self._slice.linger_ms / 1000
        names = list(self._pullers)
        while True:
            for number in range(len(names)):
                name = names[(self._turn + number) % len(names)]
                found = self._pullers[name].take(self._slice.batch, BATCH_BYTES)
                if found:
                    self._turn = (self._turn + number + 1) % len(names)
                    self._give(name, found)
                    return True
            left = deadline - time.monotonic()
            if left <= 0 or not names:
                return False
            # Of several one may have something while another is waited for.
            self._pullers[names[self._turn]].wait(min(left, 0.02) if len(names) > 1 else left)

    def _give(self, name: str, pulls: list[Pulled]) -> None:
        """Make a batch of pulled messages."""
        messages = list(chain.from_iterable(each.messages for each in pulls))
        ids = list(chain.from_iterable(each.lot.message_ids for each in pulls))
        published = np.concatenate([each.times for each in pulls])
        times, behind = self._pullers[name].raised(published)
        names, codes, offsets = places(self._slice.address.source(name), ids)
        self._at = next(_numbers)
        lots = tuple(each.lot for each in pulls)
        scratch = self._slice.account
        given.give(self._name, self._at, given.Batch(self._keepers[name], lots, scratch))
        self._current = pack_messages(
            [each.data for each in messages],
            (names, codes),
            offsets,
            times,
            headers(messages),
            behind=behind,
            said=self._say_now(),
            receipt=self._at if scratch else 0,
        )
        oldest = int(times.min()) - 1000 * self._slice.disorder_ms
        self._current_time = Timestamp(micros=oldest)
        self._messages.inc(len(messages))
        if behind:
            self._behind.inc(behind)

    def _watermark_us(self) -> int | None:
        if not self._pullers:
            # More slices than readers: nothing ever comes here.
            return time.time_ns() // 1000 - 1000 * self._slice.disorder_ms
        bounds = [puller.promise() for puller in self._pullers.values()]
        known = [each for each in bounds if each is not None]
        if len(known) < len(bounds):
            return None
        return min(known) - 1000 * self._slice.disorder_ms
