"""Messages that this process has and has not acknowledged: prolonged, given back, acknowledged.

The service delivers a message again when its lease ends. So a thread, one a subscription,
prolongs the leases of all that is here, and sends what is to be acknowledged; a call that fails is
made again. What is held for longer than `HOLD_S` is let go: nobody will finalize it any more.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from transforms.pubsub import library, sentence, subscriber

LOGGER = logging.getLogger(__name__)

HOLD_S = 3600.0
"""A lease is prolonged for so long at most, as Google's own clients do."""

FIRST_LEASE_S = 10.0
"""The shortest lease that a subscription may give: how long a message is ours before we ask."""

TICK_S = 0.5
IDS = 1000
"""Ids of a request: it may have 512 KiB, and an id has some 200 bytes."""

CALL_S = 10.0
LAST_CALL_S = 3.0


@dataclass(eq=False)
class Lot:
    """Messages that one pull has brought.

    Attributes:
        ack_ids: what they are acknowledged by.
        message_ids: what they are known by when they come again.
        oldest_us: the oldest publish time.
        until: when their lease ends (monotonic seconds).
        since: when they came.
    """

    ack_ids: list[str]
    message_ids: list[str]
    oldest_us: int
    until: float
    since: float


class Keeper:
    """Keeps the messages of one subscription; safe between threads.

    Args:
        path: the subscription's full name.
        lease_ms: how far ahead leases are prolonged.
    """

    def __init__(self, path: str, lease_ms: int) -> None:
        self.path = path
        self._lease_s = lease_ms / 1000
        self._lock = threading.Lock()
        self._lots: dict[Lot, None] = {}
        self._to_acknowledge: list[str] = []
        self._awaited: dict[str, int] = {}
        self._awaited_until = 0.0
        self._wake = threading.Event()
        self._sending = threading.Lock()
        self._said = float("-inf")
        self._client = subscriber()
        self._patience_s = CALL_S
        self._ended = False
        threading.Thread(target=self._run, name="pubsub-leases", daemon=True).start()

    @property
    def client(self) -> Any:
        """The client of this subscription."""
        return self._client

    def keep(self, lot: Lot) -> None:
        """Keep messages from now on."""
        with self._lock:
            self._lots[lot] = None
            for id_ in lot.message_ids if self._awaited else ():
                self._awaited.pop(id_, None)

    def acknowledge(self, lots: Iterable[Lot]) -> None:
        """Tell the service, soon, that messages are done with."""
        with self._lock:
            for lot in lots:
                self._lots.pop(lot, None)
                self._to_acknowledge += lot.ack_ids
        self._wake.set()

    def give_back(self, lots: Iterable[Lot]) -> None:
        """Let messages be delivered again, at once; until they are, they are awaited."""
        listed = list(lots)
        with self._lock:
            known = [lot for lot in listed if self._lots.pop(lot, 0) is None]
            for lot in known:
                self._awaited.update(dict.fromkeys(lot.message_ids, lot.oldest_us))
            self._awaited_until = time.monotonic() + 2 * self._lease_s
        ids = [each for lot in known for each in lot.ack_ids]
        self._modify(ids, 0)

    def awaited(self) -> int | None:
        """Return the oldest publish time of what was given back and has not come again."""
        if not self._awaited:
            return None
        with self._lock:
            if time.monotonic() > self._awaited_until:
                # Somebody else has it, or it was acknowledged after all.
                self._awaited.clear()
            return min(self._awaited.values(), default=None)

    def held(self) -> int:
        """Return how many messages are here and not acknowledged."""
        with self._lock:
            return sum(len(lot.ack_ids) for lot in self._lots)

    def settle(self) -> None:
        """Send now what is to be acknowledged."""
        with self._sending:
            with self._lock:
                ids, self._to_acknowledge = self._to_acknowledge, []
            left = self._acknowledge(ids)
            if left:
                with self._lock:
                    self._to_acknowledge = left + self._to_acknowledge

    def end(self) -> None:
        """Send what is to be acknowledged, give back what is here, and let the client go."""
        self._ended = True
        # Whoever ends does not wait for a service that is away: leases end by themselves.
        self._patience_s = LAST_CALL_S
        self.settle()
        with self._lock:
            lots = list(self._lots)
        self.give_back(lots)
        self._wake.set()

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait(TICK_S)
            self._wake.clear()
            self.settle()
            self._prolong()

    def _prolong(self) -> None:
        now = time.monotonic()
        with self._lock:
            for lot in [lot for lot in self._lots if now - lot.since > HOLD_S]:
                del self._lots[lot]
            # The first lease is not known, and later ones are prolonged in their last third.
            due = [lot for lot in self._lots if lot.until - now < max(9.0, self._lease_s / 3)]
            for lot in due:
                lot.until = now + self._lease_s
        self._modify([each for lot in due for each in lot.ack_ids], int(self._lease_s))

    def _modify(self, ids: list[str], seconds: int) -> None:
        """Set how long messages are ours from now on."""
        found = library()
        for start in range(0, len(ids), IDS):
            try:
                self._client.modify_ack_deadline(
                    subscription=self.path,
                    ack_ids=ids[start : start + IDS],
                    ack_deadline_seconds=seconds,
                    retry=None,
                    timeout=self._patience_s,
                )
            except (found.errors.GoogleAPICallError, found.errors.RetryError, ValueError) as error:
                # What is lost by this is delivered again.
                self._say("Leases could not be prolonged", error)
                if self._ended:
                    return

    def _acknowledge(self, ids: list[str]) -> list[str]:
        """Acknowledge messages; return the ids of those that it did not work for."""
        found = library()
        for start in range(0, len(ids), IDS):
            try:
                # Without the client's own retry, which holds whoever waits for an end.
                self._client.acknowledge(
                    subscription=self.path,
                    ack_ids=ids[start : start + IDS],
                    retry=None,
                    timeout=self._patience_s,
                )
            except (found.errors.GoogleAPICallError, found.errors.RetryError, ValueError) as error:
                self._say("Messages could not be acknowledged", error)
                if isinstance(error, found.errors.ClientError) and not isinstance(
                    error, found.errors.TooManyRequests
                ):
                    continue  # It will never take these.
                return ids[start:]
        return []

    def _say(self, what: str, error: Exception) -> None:
        if self._ended:
            return
        if time.monotonic() - self._said > 60:
            self._said = time.monotonic()
            LOGGER.warning("%s of %s: %s", what, self.path, sentence(error))


_keepers: dict[tuple[str, int], Keeper] = {}
_keepers_lock = threading.Lock()


def keeper_of(path: str, lease_ms: int) -> Keeper:
    """Return this process's keeper of a subscription."""
    with _keepers_lock:
        key = (path, lease_ms)
        if key not in _keepers:
            _keepers[key] = Keeper(path, lease_ms)
        return _keepers[key]


def settle_all() -> None:
    """Send now what is to be acknowledged: for when the work of this process is over."""
    for keeper in list(_keepers.values()):
        keeper.settle()


def end_all() -> None:
    """End all keepers of this process: what is here is given back."""
    with _keepers_lock:
        ended = list(_keepers.values())
        _keepers.clear()
    for keeper in ended:
        keeper.end()


atexit.register(end_all)
