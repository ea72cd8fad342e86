"""Free ports of the loopback address."""

from __future__ import annotations

import random
import socket

_PORTS = range(20_000, 32_000)
"""Below the range from which clients get theirs: while a service is down, nobody else takes its
port, and no client that tries again connects to itself."""


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that nobody listens on now."""
    found: list[int] = []
    opened: list[socket.socket] = []
    # Not seeded: workers of one test run must not all try the same ports.
    draw = random.SystemRandom()
    try:
        while len(found) < count:
            port = draw.choice(_PORTS)
            one = socket.socket()
            opened.append(one)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    finally:
        for one in opened:
            one.close()
    return found


def listens(address: str) -> bool:
    """Say whether somebody listens at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True
