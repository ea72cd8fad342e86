"""The simulated cases as small JSON events, a line a transition, fast enough for benchmarks.

The cases of one simulation are used again and again with other ids: as many at a time as wanted
open, and as long as wanted. An event is about 250 bytes with the columns of `schemas.events`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import count
from random import Random
from typing import NamedTuple

from examples.simulator.processes import Process
from examples.simulator.scenario import Faults
from examples.simulator.simulate import Transition, simulate
from examples.simulator.stream import Record
from examples.simulator.truth import CaseTruth, Truth
from examples.simulator.worktime import SECOND

_ODD = 0x9E3779B1
"""Odd, so that multiples of different numbers differ modulo 2^32: ids that look random."""

_GARBAGE = (
    b"502 Bad Gateway\n",
    b"\x00\x01\x02\xff\xfe not an event",
    b'{"case_id": "unfinished", "event_time": "2024-',
)


class Event(NamedTuple):
    """What a JSON event says.

    Attributes:
        case_id: its case.
        process: the case's process.
        transition: what happened.
    """

    case_id: str
    process: Process
    transition: Transition


class _Call(NamedTuple):
    id_tail: str
    id_head: int
    process: Process
    transition: Transition
    text: str


def json_events(
    seed: int,
    cases: int,
    *,
    start: int,
    rate: float,
    copies: int = 1,
    again: bool = False,
    garbage: float = 0.0,
) -> Iterator[Record[Event | None]]:
    """Yield events without end, in the order of time, no two at one time below 1,000,000/s.

    Args:
        seed: the same seed gives the same events, but for their times.
        cases: how many are simulated; about a fifth of them is open at a time.
        start: of the first event's second, in microseconds since the epoch.
        rate: events a second.
        copies: so many cases of different ids take each simulated way at the same time.
        again: cases whose way has ended take it again; else others follow them.
        garbage: share of the events that come as something nobody can decode.
    """
    ways = _ways(seed, cases)
    draw = Random(f"json events {seed}").random
    step = SECOND / rate
    number, second, wall = 0, -1, ""
    for round_ in count():
        first = 0 if again else round_ * copies
        for way in ways:
            for copy in range(first, first + copies):
                number += 1
                time = start + int(number * step)
                if time // SECOND != second:
                    second = time // SECOND
                    wall = f"{datetime.fromtimestamp(second, timezone.utc):%Y-%m-%dT%H:%M:%S}"
                case_id = f"{(way.id_head + copy) * _ODD & 0xFFFFFFFF:08x}{way.id_tail}"
                topic, key = way.process.version, case_id.encode()
                if garbage and draw() < garbage:
                    junk = _GARBAGE[int(draw() * len(_GARBAGE))]
                    yield Record(time, time, topic, key, junk, None, False)
                    continue
                payload = (
                    f'{{"case_id":"{case_id}","event_time":"{wall}.{time % SECOND:06d}Z",'
                    f'{way.text},"transaction_id":"{number:016x}"}}'
                )
                event = Event(case_id, way.process, way.transition._replace(time=time))
                yield Record(time, time, topic, key, payload.encode(), event, True)


def _ways(seed: int, cases: int) -> list[_Call]:
    """Return the transitions of a simulation without faults, in the order of time."""
    found = []
    for snapshot in simulate(seed, cases, faults=Faults.none()):
        case, process = snapshot.case, snapshot.case.process
        for line in snapshot.log[-snapshot.fresh :]:
            said = line.transition
            text = (
                f'"activity":"{said.event}","state":"{said.target}",'
                f'"source_state":"{said.source}","actor":"{said.actor}",'
                f'"workflow_group":"{process.group}","model_version":"{process.version}"'
            )
            found.append(_Call(case.id[8:], int(case.id[:8], 16), process, said, text))
    return found


class EventWitness:
    """Watches JSON events go by and says what they hold."""

    def __init__(self) -> None:
        self._dead = self._decoded = 0
        # Events are told apart by time: a case has no two at one.
        self._cases: dict[str, tuple[Process, dict[int, Transition]]] = {}

    def observe(self, event: Event | None) -> None:
        """Take account of one message; None is garbage."""
        if event is None:
            self._dead += 1
            return
        self._decoded += 1
        known = self._cases.get(event.case_id)
        if known is None:
            known = self._cases[event.case_id] = (event.process, {})
        known[1][event.transition.time] = event.transition

    def truth(self) -> Truth:
        """Return what the messages so far amount to: a message is an event."""
        cases = {}
        for case_id, (process, seen) in self._cases.items():
            ordered = [seen[time] for time in sorted(seen)]
            complete = process.tasks[ordered[-1].target].end
            cases[case_id] = CaseTruth(process.group, process.version, complete, ordered, [])
        transitions = sum(len(case.transitions) for case in cases.values())
        return Truth(
            messages=self._decoded + self._dead,
            decoded=self._decoded,
            skipped=0,
            dead=self._dead,
            empty=0,
            events=self._decoded,
            transitions=transitions,
            duplicates=self._decoded - transitions,
            rejected=0,
            retracted=0,
            complete=sum(case.complete for case in cases.values()),
            cases=cases,
        )
