"""Threads that pull the messages of a subscription into a buffer that is never too full.

Plain pulls of up to 1,000 messages, several at a time: with the official test double they bring
29,000 messages a second, and its streaming pull, which sends each message by itself, 50. They also
are a flow control that needs no trust: what is not asked for does not come, and does not count
against the service's own limits while it waits for its bundle to be final.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections import deque
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from transforms.pubsub import BrokerFault, PubSubAddress, library, sentence
from transforms.sources.pubsub.bounds import Bound
from transforms.sources.pubsub.leases import FIRST_LEASE_S, Keeper, Lot

LOGGER = logging.getLogger(__name__)

PULL = 1000
"""Most messages of a pull: the service gives no more."""

PULL_S = 5.0
"""So long a pull may wait for a message; then one that does not wait proves that somebody is there,
and that there is nothing."""

PULLS = 2
"""Pulls at a time, so that one is under way while another's messages are taken."""

_PAUSE_S = (0.1, 5.0)


class Pulled(NamedTuple):
    """What a pull has brought.

    Attributes:
        lot: what is acknowledged together.
        messages: the service's `PubsubMessage`s.
        times: publish times in µs.
        bytes: of the payloads.
    """

    lot: Lot
    messages: list[Any]
    times: npt.NDArray[np.int64]
    bytes: int


class Puller:
    """Pulls one subscription for one reading.

    Args:
        address: its limits.
        keeper: keeps what comes.
        bound: of the subscription; only used under this puller's lock.
    """

    def __init__(self, address: PubSubAddress, keeper: Keeper, bound: Bound) -> None:
        self._address, self._keeper, self._bound = address, keeper, bound
        self._changed = threading.Condition()
        self._waiting: deque[Pulled] = deque()
        self._messages = self._bytes = self._asked = 0
        self._fault: BrokerFault | None = None
        self._ended = False
        self._said = float("-inf")
        for number in range(PULLS):
            threading.Thread(target=self._run, name=f"pubsub-pull-{number}", daemon=True).start()

    def take(self, messages: int, size: int) -> list[Pulled]:
        """Take what has come, whole pulls, up to so many messages and bytes; at least one pull.

        Raises:
            BrokerFault: the service will give nothing any more.
        """
        with self._changed:
            if self._fault is not None:
                raise self._fault
            found: list[Pulled] = []
            while self._waiting:
                first = self._waiting[0]
                messages -= len(first.messages)
                size -= first.bytes
                if found and (messages < 0 or size < 0):
                    break
                found.append(self._waiting.popleft())
                self._messages -= len(first.messages)
                self._bytes -= first.bytes
            if found:
                self._changed.notify_all()
            return found

    def wait(self, seconds: float) -> None:
        """Wait until something is there."""
        with self._changed:
            if not self._waiting and self._fault is None and not self._ended:
                self._changed.wait(seconds)

    def waiting(self) -> int:
        """Return how many messages are here and not given away."""
        return self._messages

    def raised(self, times: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], int]:
        """Return record times: see `Bound.raised`."""
        with self._changed:
            return self._bound.raised(times)

    def promise(self) -> int | None:
        """Return what no record time to come is before: see `Bound.promise`."""
        with self._changed:
            held = min((each.lot.oldest_us for each in self._waiting), default=None)
            awaited = self._keeper.awaited()
            oldest = [each for each in (held, awaited) if each is not None]
            return self._bound.promise(time.time_ns() // 1000, min(oldest, default=None))

    def floor(self) -> int | None:
        """Return what has been promised."""
        with self._changed:
            return self._bound.floor

    def close(self) -> None:
        """Pull no more, and give back what nobody has taken."""
        with self._changed:
            self._ended = True
            left = [each.lot for each in self._waiting]
            self._waiting.clear()
            self._changed.notify_all()
        self._keeper.give_back(left)

    def _room(self) -> bool:
        free = self._address.waiting - self._messages - self._asked
        return free >= min(PULL, self._address.waiting) and (
            self._bytes < self._address.waiting_bytes
        )

    def _run(self) -> None:
        pause = _PAUSE_S[0]
        while True:
            with self._changed:
                while not self._ended and not self._room():
                    self._changed.wait()
                if self._ended:
                    return
                wanted = min(PULL, self._address.waiting)
                self._asked += wanted
            try:
                found = self._pull(wanted)
                pause = _PAUSE_S[0]
            except BrokerFault as fault:
                with self._changed:
                    self._fault = fault
                    self._changed.notify_all()
                return
            except _Away:
                time.sleep(pause)
                pause = min(2 * pause, _PAUSE_S[1])
                continue
            finally:
                with self._changed:
                    self._asked -= wanted
            self._put(found)

    def _pull(self, wanted: int) -> Pulled | None:
        found = library()
        request = {"subscription": self._keeper.path, "max_messages": wanted}
        pull = self._keeper.client.pull
        try:
            # The client's own retry would wait for ten minutes before it says anything.
            try:
                answer = pull(request=request, retry=None, timeout=PULL_S)
            except found.errors.DeadlineExceeded:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)
                    at_once = {**request, "return_immediately": True}
                    answer = pull(request=at_once, retry=None, timeout=PULL_S)
        except (
            found.errors.NotFound,
            found.errors.PermissionDenied,
            found.errors.Unauthenticated,
            found.errors.InvalidArgument,
            found.errors.FailedPrecondition,
        ) as error:
            reason = f"{self._keeper.path} can't be read any more: {sentence(error)}"
            raise BrokerFault(reason) from None
        except (found.errors.GoogleAPICallError, found.errors.RetryError, ValueError) as error:
            if not self._ended and time.monotonic() - self._said > 60:
                self._said = time.monotonic()
                LOGGER.warning("%s: %s", self._keeper.path, sentence(error))
            raise _Away from None
        received = type(answer).pb(answer).received_messages
        if not received:
            return None
        messages = [each.message for each in received]
        stamps = [each.publish_time for each in messages]
        times = np.array([each.seconds for each in stamps], np.int64) * 1_000_000
        times += np.array([each.nanos for each in stamps], np.int64) // 1000
        now = time.monotonic()
        lot = Lot(
            [each.ack_id for each in received],
            [each.message_id for each in messages],
            int(times.min()),
            now + FIRST_LEASE_S,
            now,
        )
        return Pulled(lot, messages, times, sum(len(each.data) for each in messages))

    def _put(self, pulled: Pulled | None) -> None:
        if pulled is not None:
            self._keeper.keep(pulled.lot)
        with self._changed:
            now = time.time_ns() // 1000
            if pulled is None:
                if not self._messages:
                    self._bound.found_nothing(now)
                return
            self._bound.received(pulled.lot.oldest_us, now)
            if not self._ended:
                self._waiting.append(pulled)
                self._messages += len(pulled.messages)
                self._bytes += pulled.bytes
                self._changed.notify_all()
                return
        self._keeper.give_back([pulled.lot])


class _Away(Exception):
    """The service does not answer now."""
