"""From snapshots to messages: what arrives, and what goes wrong on the way.

`deliver` is what a broker's producer or an archive writer takes its messages from. It draws from
a random stream of its own, so other rates here leave the simulated cases as they are.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from examples.simulator.documents import items, profile_items, xml_document
from examples.simulator.scenario import Faults
from examples.simulator.simulate import Snapshot, uuid_text
from examples.simulator.worktime import SECOND

Kind = Literal["snapshot", "profile", "empty", "truncated", "no_xml", "no_id", "latin1"]

BROKEN: tuple[Kind, ...] = ("truncated", "no_xml", "no_id", "latin1")
"""Kinds of messages that nobody can decode."""

_NO_XML = (
    b"502 Bad Gateway\n",
    b"\x00\x01\x02\xff\xfe not a document",
    b"<!DOCTYPE html><html><head><title>Login</title></head><body><br>",
)


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """One message as it arrives.

    Attributes:
        time: when it arrives, in microseconds since the epoch.
        kind: `snapshot` is a good one, `profile` a document of another type, `empty` has no byte;
            the others are what is broken about it.
        id: `$uniqueid` of the document (of the one it should have been).
        topic: `$modelversion`, the topic of the engine's Kafka adapter.
        snapshot: what it is made from; None for profiles.
        repeated: the same bytes have come before.
    """

    time: int
    kind: Kind
    id: str
    topic: str
    snapshot: Snapshot | None
    repeated: bool = False

    def payload(self) -> bytes:
        """Return its bytes: XML, or what is left of it."""
        if self.snapshot is None:
            return xml_document(profile_items(self.id, self.time))
        if self.kind == "empty":
            return b""
        if self.kind == "no_xml":
            return _NO_XML[int(self.id[:8], 16) % len(_NO_XML)]
        found = items(self.snapshot)
        if self.kind == "no_id":
            return xml_document([item for item in found if item[0] != "$uniqueid"])
        if self.kind == "latin1":
            # Written by a script that forgot to say so: it claims to be UTF-8.
            found = [*found, ("zusatz", [("xs:string", "geändert durch Büro")])]
            return xml_document(found).decode().encode("latin-1", "replace")
        payload = xml_document(found)
        if self.kind == "truncated":
            return payload[: len(payload) * (20 + int(self.id[:2], 16) % 70) // 100]
        return payload


def deliver(
    snapshots: Iterable[Snapshot], *, seed: int, faults: Faults | None = None
) -> Iterator[Message]:
    """Deliver snapshots as messages, in the order of time.

    A broken or empty message comes in the place of the good one. A repeated one comes up to half
    a minute later, and is never broken.

    Args:
        snapshots: in the order of time.
        seed: of what goes wrong.
        faults: `duplicate`, `missing`, `broken`, `empty` and `profile` are used; `Faults()` by
            default.
    """
    faults = faults or Faults()
    random = Random(f"delivery {seed}")
    draw = random.random
    later: list[tuple[int, int, Message]] = []
    serial = 0
    for snapshot in snapshots:
        while later and later[0][0] <= snapshot.time:
            yield heapq.heappop(later)[2]
        if draw() < faults.profile:
            yield Message(snapshot.time, "profile", uuid_text(random), "system-1.0.0", None)
        kind: Kind = "snapshot"
        fate = draw()
        if fate < faults.missing:
            continue
        fate -= faults.missing
        if fate < faults.broken:
            kind = BROKEN[random.randrange(len(BROKEN))]
        elif fate < faults.broken + faults.empty:
            kind = "empty"
        case = snapshot.case
        message = Message(snapshot.time, kind, case.id, case.process.version, snapshot)
        yield message
        if kind == "snapshot" and draw() < faults.duplicate:
            again = replace(message, time=message.time + int(draw() * 30 * SECOND), repeated=True)
            serial += 1
            heapq.heappush(later, (again.time, serial, again))
    while later:
        yield heapq.heappop(later)[2]


def newest(snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    """Return each case's last committed snapshot, as a backup holds it, in the order of time."""
    last = {snapshot.case.id: snapshot for snapshot in snapshots if not snapshot.phantom}
    return sorted(last.values(), key=lambda snapshot: (snapshot.time, snapshot.case.id))
