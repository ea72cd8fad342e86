"""Clients that their brokers do not hear any more, and those made in their place.

A broker that is being shut down, or has just come, may answer a request for metadata with no
brokers at all, and hang up. librdkafka (2.10 to 2.16; its issue 5301) forgets every broker then,
also those of `bootstrap.servers`, and does not connect again, ever: a stream would be silent
while its broker is well. A new client is answered at once, so whoever has a client for long asks
here for a successor where nothing comes any more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from transforms.kafka.clients import client

LOGGER = logging.getLogger(__name__)

DEAF_S = 10.0
"""A client that has not been answered for so long is asked once more, and then a new one."""

_ASK_S = 1.0
_FRESH_S = 3.0


class Hearing:
    """Whether a client is answered, and who takes its place.

    Attributes:
        well: whether it was answered when it asked last.

    Args:
        servers: whom it talks to, for the log.
        make: makes such a client.
    """

    def __init__(self, servers: tuple[str, ...], make: Callable[[], Any]) -> None:
        self._servers = ",".join(servers)
        self._make = make
        self.well = False
        self._since: float | None = None

    def good(self) -> None:
        """Take note that the client was answered."""
        self.well, self._since = True, None

    def successor(self, old: Any, since: float | None = None) -> Any | None:
        """Return a client in place of one that is not answered; to be called as long as it is not.

        Args:
            old: the client; it is the caller's to close.
            since: when it was asked what it does not answer, by the monotonic clock; now by
                default.

        Returns:
            A client that is answered, where for `DEAF_S` the old one was not; None where it is too
            early to say, the old one is answered after all, or nobody is: then the broker is away,
            and the old client will notice when it is back.
        """
        self.well = False
        now = time.monotonic()
        if self._since is None:
            self._since = now if since is None else since
        if now - self._since < DEAF_S:
            return None
        self._since = None
        if _answered(old, _ASK_S):
            return None
        fresh = self._make()
        if not _answered(fresh, _FRESH_S):
            close(fresh)
            return None
        LOGGER.warning(
            "Kafka at %s: a client lost its brokers; a new one goes on in its place", self._servers
        )
        return fresh


def close(one: Any) -> None:
    """Let a client go, with all that waits in it."""
    if hasattr(one, "purge"):  # a producer; older ones have no `close`
        one.purge()
    else:
        one.close()


def _answered(one: Any, seconds: float) -> bool:
    try:
        # A broker that is fenced answers, too, and knows of nobody.
        return bool(one.list_topics(timeout=seconds).brokers)
    except client().KafkaException:
        return False
