"""What a correct pipeline finds in the messages that were delivered.

Definitions, as in the two laws of every run:

- `messages = decoded + skipped + dead`; a file without a byte is no message (`empty`).
- `events = transitions + duplicates + rejected`: an event is a line of a decoded message's
  `$eventlog`. An unreadable one is rejected, in each message that holds it. Of the readable ones
  the distinct are transitions, the others duplicates.
- A transition is `retracted` if a decoded snapshot of its case begins before it, ends after it
  (by the times of its readable lines), and lacks it. It still counts as a transition.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

from examples.simulator.delivery import Message
from examples.simulator.processes import END_STATES
from examples.simulator.simulate import Case, Line, Transition


class CaseTruth(NamedTuple):
    """One case.

    Attributes:
        workflow_group: name of its process.
        model_version: version of its process.
        complete: its last transition that is not retracted leads to an end task.
        transitions: all of them, ordered by time and place in the log.
        retracted: those of them that a later snapshot denies.
    """

    workflow_group: str
    model_version: str
    complete: bool
    transitions: list[Transition]
    retracted: list[Transition]


@dataclass(frozen=True)
class Truth:
    """Expected counts of a run over some messages; the module says what each means.

    Attributes:
        cases: those with a transition, by `$uniqueid`.
    """

    messages: int
    decoded: int
    skipped: int
    dead: int
    empty: int
    events: int
    transitions: int
    duplicates: int
    rejected: int
    retracted: int
    complete: int
    end_states: tuple[str, ...] = END_STATES
    cases: Mapping[str, CaseTruth] = field(default_factory=dict, repr=False)

    def save(self, path: Path) -> None:
        """Write it as JSON; a transition is [time_us, source, event, target, actor]."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["cases"] = {id_: case._asdict() for id_, case in self.cases.items()}
        path.write_text(json.dumps(values, ensure_ascii=False, separators=(",", ":")), "utf-8")

    @classmethod
    def load(cls, path: Path) -> Truth:
        """Read what `save` has written."""
        values = json.loads(path.read_text("utf-8"))
        values["end_states"] = tuple(values["end_states"])
        values["cases"] = {
            id_: CaseTruth(
                case["workflow_group"],
                case["model_version"],
                case["complete"],
                [Transition(*transition) for transition in case["transitions"]],
                [Transition(*transition) for transition in case["retracted"]],
            )
            for id_, case in values["cases"].items()
        }
        return cls(**values)


@dataclass(slots=True)
class _Seen:
    case: Case
    lines: dict[Line, None] = field(default_factory=dict)
    denied: set[Line] = field(default_factory=set)


class Witness:
    """Watches messages go by, in the order of time, and says what they hold."""

    def __init__(self) -> None:
        self._messages = self._skipped = self._dead = self._empty = 0
        self._decoded = self._events = self._readable = 0
        self._cases: dict[str, _Seen] = {}

    def watch(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Pass messages on, each one observed."""
        for message in messages:
            self.observe(message)
            yield message

    def observe(self, message: Message) -> None:
        """Take account of one message."""
        if message.kind == "empty":
            self._empty += 1
            return
        self._messages += 1
        snapshot = message.snapshot
        if snapshot is None:
            self._skipped += 1
            return
        if message.kind != "snapshot":
            self._dead += 1
            return
        self._decoded += 1
        lines = [line for line in snapshot.log if line.readable]
        self._events += len(snapshot.log)
        self._readable += len(lines)
        seen = self._cases.get(message.id)
        if seen is None:
            seen = self._cases[message.id] = _Seen(snapshot.case)
        known = len(seen.lines)
        seen.lines.update(dict.fromkeys(lines))
        if known and len(seen.lines) > len(lines):
            begin, end = lines[0].transition.time, lines[-1].transition.time
            held = set(lines)
            seen.denied.update(
                line
                for line in seen.lines
                if line not in held and begin < line.transition.time < end
            )

    def truth(self) -> Truth:
        """Return what the messages so far amount to."""
        cases = {id_: _case_truth(seen) for id_, seen in self._cases.items()}
        transitions = sum(len(case.transitions) for case in cases.values())
        return Truth(
            messages=self._messages,
            decoded=self._decoded,
            skipped=self._skipped,
            dead=self._dead,
            empty=self._empty,
            events=self._events,
            transitions=transitions,
            duplicates=self._readable - transitions,
            rejected=self._events - self._readable,
            retracted=sum(len(case.retracted) for case in cases.values()),
            complete=sum(case.complete for case in cases.values()),
            cases=cases,
        )


def _case_truth(seen: _Seen) -> CaseTruth:
    # Sorting is stable: lines of one time stay in the order of the log.
    lines = sorted(seen.lines, key=lambda line: line.transition.time)
    process = seen.case.process
    kept = [line for line in lines if line not in seen.denied]
    return CaseTruth(
        workflow_group=process.group,
        model_version=process.version,
        complete=process.tasks[kept[-1].transition.target].end,
        transitions=[line.transition for line in lines],
        retracted=[line.transition for line in lines if line in seen.denied],
    )
