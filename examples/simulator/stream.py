"""The simulated cases as a stream that runs now: retimed to a rate, then disturbed on their way.

The simulator's cases take weeks; a stream needs so many calls a second. `retimed` keeps the order
and gives every call and log line a new time, `calls` goes on with more cases for ever,
`arrivals` lets records come late, out of order, and twice. Time is microseconds since the epoch.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from typing import Generic, NamedTuple, TypeVar

from examples.simulator.delivery import Message, deliver
from examples.simulator.scenario import Faults
from examples.simulator.simulate import Case, Line, Snapshot, simulate
from examples.simulator.worktime import SECOND, iso_offset

_CALL = 50_000
"""The longest time, in microseconds, from a call's first log line to its message."""

Fact = TypeVar("Fact")


class Record(NamedTuple, Generic[Fact]):
    """One message for a broker.

    Attributes:
        time: when the engine sends it.
        arrival: when it reaches the broker.
        topic: the model version, as the engine's adapter names its topics.
        key: the case.
        payload: its value.
        fact: what a witness makes of it.
        good: it can be decoded, so it may come twice.
    """

    time: int
    arrival: int
    topic: str
    key: bytes
    payload: bytes
    fact: Fact
    good: bool


@dataclass(frozen=True)
class Disturbance:
    """What happens between engine and broker.

    Attributes:
        disorder: records come up to so many microseconds late.
        disordered: share of the records that do.
        delays: share of the records that come later still.
        delay: by so many microseconds.
        duplicates: share of the good records that come a second time.
        repeat_within: up to so many microseconds after the first.
    """

    disorder: int = 0
    disordered: float = 1.0
    delays: float = 0.0
    delay: int = 60 * SECOND
    duplicates: float = 0.0
    repeat_within: int = 30 * SECOND

    def __post_init__(self) -> None:
        for name in ("disordered", "delays", "duplicates"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                reason = f"{name} is a rate between 0 and 1, not {value}"
                raise ValueError(reason)
        for name in ("disorder", "delay", "repeat_within"):
            value = getattr(self, name)
            if value < 0:
                reason = f"{name} must not be negative: {value / SECOND} s"
                raise ValueError(reason)


def arrivals(
    records: Iterable[Record[Fact]],
    disturbance: Disturbance,
    *,
    seed: int,
    observe: Callable[[Fact], None],
) -> Iterator[Record[Fact]]:
    """Yield records in the order in which they reach the broker.

    Args:
        records: in the order of `time`.
        disturbance: what happens to them.
        seed: of that; the records themselves do not depend on it.
        observe: is told of each record that will arrive, in the order of `time`, so that a
            witness need not care for the order of arrival.
    """
    draw = Random(f"arrivals {seed}").random
    disorder, delays = disturbance.disorder, disturbance.delays
    disordered = disturbance.disordered
    waiting: list[tuple[int, int, Record[Fact]]] = []
    serial = count()
    for record in records:
        while waiting and waiting[0][0] <= record.time:
            yield heapq.heappop(waiting)[2]
        observe(record.fact)
        arrival = record.time
        if disorder and (disordered >= 1 or draw() < disordered):
            arrival += int(draw() * disorder)
        if delays and draw() < delays:
            arrival += disturbance.delay
        if record.good and disturbance.duplicates and draw() < disturbance.duplicates:
            observe(record.fact)
            again = arrival + int(draw() * disturbance.repeat_within)
            heapq.heappush(waiting, (again, next(serial), record._replace(arrival=again)))
        if arrival == record.time:
            yield record
        else:
            heapq.heappush(waiting, (arrival, next(serial), record._replace(arrival=arrival)))
    while waiting:
        yield heapq.heappop(waiting)[2]


def calls(seed: int, cases: int, *, start: int, rate: float, faults: Faults) -> Iterator[Snapshot]:
    """Yield processing calls without end, `rate` of them a second.

    Args:
        seed: the same seed gives the same calls, but for their times.
        cases: how many are simulated at once; when their scenario ends, others follow.
        start: of the first call's second.
        rate: calls a second.
        faults: `phantom` and `unreadable` are used. `old_log` is not: old logs tell
            milliseconds, too coarse for a stream of thousands a second.
    """
    faults = replace(faults, old_log=0.0)
    step = SECOND / rate
    number = 0
    for round_ in count():
        retimer = _Retimer()
        for snapshot in simulate(seed + round_ * 1_000_003, cases, faults=faults):
            number += 1
            yield retimer.retimed(snapshot, start + int(number * step), min(int(step), _CALL))


def documents(
    snapshots: Iterable[Snapshot], *, seed: int, faults: Faults
) -> Iterator[Record[Message]]:
    """Yield the records of snapshots as Imixs XML, as the engine's adapter sends them.

    Args:
        snapshots: in the order of time.
        seed: of what goes wrong.
        faults: as `deliver` takes them; repeated messages are the matter of `arrivals`.
    """
    for message in deliver(snapshots, seed=seed, faults=replace(faults, duplicate=0.0)):
        yield Record(
            message.time,
            message.time,
            message.topic,
            message.id.encode(),
            message.payload(),
            message,
            message.kind == "snapshot",
        )


@dataclass(slots=True)
class _Case:
    case: Case
    modified: int | None = None
    lines: dict[Line, Line] = field(default_factory=dict)


class _Retimer:
    """Gives the calls of one simulation new times; the order of all log lines stays."""

    def __init__(self) -> None:
        self._cases: dict[str, _Case] = {}

    def retimed(self, snapshot: Snapshot, time: int, room: int) -> Snapshot:
        """Return the snapshot as sent at `time`, its new lines in the `room` before."""
        known = self._cases.get(snapshot.case.id)
        if known is None:
            known = _Case(replace(snapshot.case, created=time))
            self._cases[snapshot.case.id] = known
        fresh = snapshot.log[-snapshot.fresh :]
        for place, line in enumerate(fresh, 1):
            at = time - room + room * place // (len(fresh) + 1)
            known.lines[line] = _line(line, at)
        modified = None if snapshot.modified is None else known.modified
        if not snapshot.phantom:
            known.modified = time
        return replace(
            snapshot,
            case=known.case,
            time=time,
            log=tuple([known.lines[line] for line in snapshot.log]),
            modified=modified,
        )


def _line(line: Line, time: int) -> Line:
    text = line.text
    # One kind of unreadable line has no time to replace.
    if text[:1].isdigit():
        text = iso_offset(time, "Europe/Berlin") + text[text.index("|") :]
    return replace(line, transition=line.transition._replace(time=time), text=text)
