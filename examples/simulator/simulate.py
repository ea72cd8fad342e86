"""The simulated engine: cases of two processes become snapshots, in the order it would send them.

A case's whole way is drawn when it arrives; a heap merges the open cases by time. Everything
comes from one `random.Random`, so a seed gives the same snapshots everywhere. What spoils the
engine's own memory (a rolled-back call, an unreadable line, an old engine) happens here; what
goes wrong on the way out (lost, doubled, broken messages) happens in `delivery`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from random import Random
from typing import NamedTuple

from examples.simulator import phrases
from examples.simulator.processes import (
    ACTORS,
    INVOICE_1_0,
    INVOICE_1_1,
    TICKET_1_0,
    Move,
    Process,
)
from examples.simulator.scenario import Faults, Scenario
from examples.simulator.worktime import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    after_work,
    iso_offset,
    next_weekend,
    to_local,
    to_utc,
    wall_clock,
    weekday,
    work_clock,
    zoneless,
)

OLD_LOG_LINES = 30
"""Lines of `$eventlog` that an old engine keeps."""

START = datetime(2024, 9, 30, tzinfo=timezone.utc)
"""Default start: 60 days from here see both offsets of Europe/Berlin."""


class Transition(NamedTuple):
    """One log line, as a reader understands it.

    Attributes:
        time: microseconds since the epoch.
        source: task id before.
        event: event id.
        target: task id afterwards.
        actor: as the log says; None where it does not, as in every old log.
    """

    time: int
    source: int
    event: int
    target: int
    actor: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One line of an `$eventlog`; snapshots of a case share it.

    Attributes:
        transition: what it says; an unreadable line says nothing, and this is what was meant.
        text: as the engine wrote it.
        migrated: as a new engine rewrites it, if an old one wrote it.
        readable: whether `text` can be read.
        comment: kept for the next call's `$eventlogcomment`.
    """

    transition: Transition
    text: str
    migrated: str | None
    readable: bool
    comment: str


@dataclass(slots=True, eq=False)
class Case:
    """What stays the same in all snapshots of a case."""

    id: str
    workitem_id: str
    process: Process
    creator: str
    business: phrases.Business
    file_bytes: int
    created: int = 0
    actors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """One processing call: the case's document as it is sent after it.

    Attributes:
        case: the case.
        time: when it is sent, in microseconds since the epoch.
        log: the lines in `$eventlog`, oldest first.
        fresh: how many of them this call has written.
        migrated: the lines of an old engine that a new one has rewritten (`$eventlogdeprecated`).
        modified: the previous `$modified`; None on the first call.
        transaction_id: of this call.
        editor: who called.
        last_editor: the last other one who did; None if there was none.
        phantom: the call was rolled back after the message was sent.
    """

    case: Case
    time: int
    log: tuple[Line, ...]
    fresh: int
    migrated: tuple[Line, ...]
    modified: int | None
    transaction_id: str
    editor: str
    last_editor: str | None
    phantom: bool

    @property
    def last(self) -> Transition:
        """The call's last transition (what it meant, if its line is unreadable)."""
        return self.log[-1].transition

    @property
    def lines(self) -> list[str]:
        """The values of `$eventlog`."""
        if not self.migrated:
            return [line.text for line in self.log]
        return [line.migrated or line.text for line in self.log]


def simulate(
    seed: int,
    cases: int,
    start: datetime = START,
    *,
    scenario: Scenario | None = None,
    faults: Faults | None = None,
) -> Iterator[Snapshot]:
    """Simulate cases and yield their snapshots in the order of time.

    Args:
        seed: the same seed gives the same snapshots.
        cases: how many cases arrive.
        start: with a time zone; the first cases arrive in the working hours after it.
        scenario: what is simulated; `Scenario()` by default.
        faults: `phantom`, `unreadable` and `old_log` are used; `Faults()` by default.

    Raises:
        ValueError: `start` has no time zone, or `cases` is negative.
    """
    if start.tzinfo is None:
        reason = f"start needs a time zone: {start.isoformat()}+00:00"
        raise ValueError(reason)
    if cases < 0:
        reason = f"cases must not be negative: {cases}"
        raise ValueError(reason)
    first = int(start.timestamp()) * SECOND
    engine = _Engine(Random(seed), first, scenario or Scenario(), faults or Faults())
    return engine.run(cases)


class _Engine:
    def __init__(self, random: Random, start: int, scenario: Scenario, faults: Faults) -> None:
        self.random = random
        self.scenario = scenario
        self.faults = faults
        self.start = start
        self.end = start + int(scenario.days * DAY)
        self.new_version = start + int(scenario.days * scenario.new_version * DAY)

    def run(self, cases: int) -> Iterator[Snapshot]:
        pending: list[tuple[int, int, Snapshot]] = []
        serial = 0
        for arrival in self.arrivals(cases):
            while pending and pending[0][0] <= arrival:
                yield heapq.heappop(pending)[2]
            for snapshot in self.live(arrival):
                serial += 1
                heapq.heappush(pending, (snapshot.time, serial, snapshot))
        while pending:
            yield heapq.heappop(pending)[2]

    def arrivals(self, cases: int) -> list[int]:
        """Return the times at which cases arrive, nearly all of them in working hours."""
        draw = self.random.random
        opens, closes = work_clock(to_local(self.start)), work_clock(to_local(self.end))
        times = []
        for _ in range(cases):
            if opens < closes and draw() >= self.scenario.out_of_hours:
                time = to_utc(wall_clock(opens + int(draw() * (closes - opens))))
            else:
                time = self.start + int(draw() * (self.end - self.start))
                time = self.awake(time)
            times.append(min(max(time, self.start), self.end))
        times.sort()
        return times

    def awake(self, time: int) -> int:
        """Move a time between 22:00 and 06:00 into the day: nobody works at night."""
        local = to_local(time)
        day, rest = divmod(local, DAY)
        if 6 * HOUR <= rest < 22 * HOUR:
            return time
        return to_utc(day * DAY + 6 * HOUR + int(self.random.random() * 16 * HOUR))

    def live(self, arrival: int) -> Iterator[Snapshot]:
        """Draw a case's way from its arrival to its end, or to the end of the scenario."""
        random, draw = self.random, self.random.random
        case = self.new_case(arrival)
        process = case.process
        chatty = process is TICKET_1_0 and draw() < self.scenario.chatty
        old = draw() < self.faults.old_log
        upgrade_after = int(draw() * 12) if old and draw() < 0.5 else None
        log: tuple[Line, ...] = ()
        migrated: tuple[Line, ...] = ()
        task = process.tasks[process.start]
        editor, last_editor = "", None
        modified: int | None = None
        time, calls = arrival, 0
        while not task.end:
            if calls and draw() < task.abandon:
                return
            move = self.choose(case, process.moves[task.id], chatty)
            if calls:
                time = self.wait(time, move, task.hours, task.spread)
            if old and calls and calls == upgrade_after:
                old = False
                # The engine looks at the first line only: with a `|` in its comment it
                # does not recognise the old form, and the log stays mixed.
                if log[0].text.count("|") <= 4:
                    migrated = log
            while True:
                actor = self.actor(case, "scheduler" if move.timer_days is not None else task.role)
                lines = self.write(case, time, task.id, move, actor, old, bool(calls))
                done = log + lines
                sent = lines[-1].transition.time + int((5 + draw() * 75) * 1000)
                if sent > self.end:
                    return
                phantom = bool(calls) and draw() < self.faults.phantom
                # Only an other editor than before moves the previous one to $lasteditor.
                previous = editor if calls and editor and editor != actor else last_editor
                yield Snapshot(
                    case=case,
                    time=sent,
                    log=done[-OLD_LOG_LINES:] if old else done,
                    fresh=len(lines),
                    migrated=migrated,
                    modified=modified,
                    transaction_id=f"{random.getrandbits(64):016x}",
                    editor=actor,
                    last_editor=previous,
                    phantom=phantom,
                )
                if not phantom:
                    break
                if draw() < 0.05:
                    return
                # The case goes on from before the rolled-back call, by the same move or another.
                time = sent + int((1 + draw() * 90) * SECOND)
                move = self.choose(case, process.moves[task.id], chatty)
            log = done[-OLD_LOG_LINES:] if old else done
            if not calls:
                case.created = sent
            modified, time = sent, sent
            editor, last_editor = actor, previous
            task = process.tasks[move.target]
            calls += 1

    def new_case(self, arrival: int) -> Case:
        random, draw = self.random, self.random.random
        if draw() < self.scenario.invoices:
            process = INVOICE_1_1 if arrival >= self.new_version else INVOICE_1_0
            business = phrases.invoice(random, arrival)
        else:
            process = TICKET_1_0
            business = phrases.ticket(random)
        smallest, largest = self.scenario.file_kib
        size = 0
        if draw() < self.scenario.files:
            size = int((smallest + draw() * (largest - smallest)) * 1024)
        case = Case(
            id=uuid_text(random),
            workitem_id=uuid_text(random),
            process=process,
            creator="",
            business=business,
            file_bytes=size,
        )
        case.creator = self.actor(case, process.tasks[process.start].role)
        return case

    def choose(self, case: Case, moves: tuple[Move, ...], chatty: bool) -> Move:
        """Draw one of the moves that are open to the case."""
        limit = case.process.small_amount
        weights = []
        total = 0.0
        for move in moves:
            weight = move.weight
            if move.small is not None and move.small != (case.business.amount < limit):
                weight = 0.0
            elif chatty and move.events == (1,):
                weight *= 200
            total += weight
            weights.append(total)
        point = self.random.random() * total
        for move, reached in zip(moves, weights, strict=True):
            if point < reached:
                return move
        return moves[-1]

    def wait(self, time: int, move: Move, hours: float, spread: float) -> int:
        """Draw when the move happens."""
        random, draw = self.random, self.random.random
        if move.timer_days is not None:
            due = to_local(time + int(move.timer_days * DAY))
            # The scheduler runs every morning.
            run = (due // DAY + 1) * DAY + 6 * HOUR + int(draw() * 4 * MINUTE)
            return to_utc(run)
        duration = hours * move.pace * random.lognormvariate(0.0, spread)
        due = max(after_work(time, int(duration * HOUR)), time + SECOND + int(draw() * 20 * SECOND))
        if draw() >= self.scenario.out_of_hours:
            return due
        local = to_local(due)
        if draw() < 0.3 and weekday(local) < 5:
            return to_utc(next_weekend(local) + int((9 + draw() * 11) * HOUR))
        evening = local // DAY * DAY + int((18.2 + draw() * 3.5) * HOUR)
        return max(due, to_utc(evening))

    def actor(self, case: Case, role: str) -> str:
        """Return who does it: mostly the one who did it before, and some more than others."""
        known = case.actors.get(role)
        draw = self.random.random
        if known is not None and (role in ("requester", "customer") or draw() < 0.75):
            return known
        names = ACTORS[role]
        name = names[int(len(names) * draw() ** 1.6)]
        case.actors[role] = name
        return name

    def write(
        self, case: Case, time: int, task: int, move: Move, actor: str, old: bool, damage: bool
    ) -> tuple[Line, ...]:
        """Write a call's log lines: one a hop; every hop but the last stays in the task."""
        draw = self.random.random
        lines = []
        for hop, event in enumerate(move.events):
            if hop and draw() < 0.9:  # the others happen within the same tick of the clock
                time += int((1 + draw() * 9) * 1000)
            last = hop == len(move.events) - 1
            comment = ""
            if (move.comments and last and draw() < 0.6) or draw() < 0.02:
                comment = phrases.comment(self.random)
            said = time // 1000 * 1000 if old else time
            target = move.target if last else task
            transition = Transition(said, task, event, target, None if old else actor or None)
            lines.append(self.line(case, transition, comment, old, damage))
        return tuple(lines)

    def line(
        self, case: Case, transition: Transition, comment: str, old: bool, damage: bool
    ) -> Line:
        """Write one line as the engine does, or unreadable."""
        time, task, event, target, actor = transition
        version, migrated = case.process.version, None
        if old:
            zone = self.scenario.old_zone
            text = f"{zoneless(time, zone)}|{version}|{task}.{event}|{target}|{comment}"
            # The migration splits at every `|`, so the rest of such a comment is lost.
            kept = comment.split("|", maxsplit=1)[0]
            migrated = f"{iso_offset(time, zone)}|{version}|{task}|{event}|{target}||{kept}"
        else:
            nanos = self.random.randrange(1000) if self.scenario.nanos else 0
            when = iso_offset(time, "Europe/Berlin", nanos)
            text = f"{when}|{version}|{task}|{event}|{target}|{actor or ''}|{comment}"
        if damage and self.random.random() < self.faults.unreadable:
            broken = self.random.choice(("time", "short", "task"))
            if broken == "time":
                text = "yesterday" + text[text.index("|") :]
            elif broken == "short":
                text = text[: text.index("|") + 1 + len(version)]
            else:
                head, rest = text.split(f"|{task}", 1)
                text = f"{head}|task {task}{rest}"
            return Line(transition, text, text if old else None, False, comment)
        return Line(transition, text, migrated, True, comment)


def uuid_text(random: Random) -> str:
    """Return a version 4 UUID as text."""
    bits = random.getrandbits(128)
    bits = bits & ~(0xF000 << 64) | 0x4000 << 64
    bits = bits & ~(0xC000 << 48) | 0x8000 << 48
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
