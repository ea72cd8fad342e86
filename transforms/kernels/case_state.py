"""What the transitions kernel remembers of a case, and one case folded event by event.

`CaseFold` is the plain statement of the rules. The kernel itself does the same to all cases
at once and hands over only cases in which something rare happens (a denied transition, a
case that comes back after its retention); tests hold the two against each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.tables import TRANSITIONS

PATH_ITEM = pa.struct(
    [
        ("event_id", pa.string()),
        ("hash", pa.uint64()),
        ("event_time", pa.int64()),
        ("sequence", pa.int64()),
        ("visit", pa.int64()),
        ("activity", pa.string()),
        ("state", pa.string()),
        ("source_state", pa.string()),
        ("actor", pa.string()),
        ("workflow_group", pa.string()),
        ("model_version", pa.string()),
        ("gap", pa.bool_()),
    ]
)

STATE_SCHEMA = pa.schema(
    [
        ("case_id", pa.string()),
        ("workflow_group", pa.string()),
        ("model_version", pa.string()),
        # As after the newest transition that stands.
        ("state", pa.string()),
        ("actor", pa.string()),
        # µs since the epoch, of the first and the newest transition that stand; null without.
        ("first_time", pa.int64()),
        ("last_time", pa.int64()),
        # The newest event time ever folded: what is older is late.
        ("bound", pa.int64()),
        # Order time of the newest change in µs: retention counts from it.
        ("updated", pa.int64()),
        ("next_sequence", pa.int64()),
        ("gaps", pa.int64()),
        ("lates", pa.int64()),
        # Where the newest transition stood in its source, to see reversals.
        ("position", pa.int64()),
        ("source", pa.string()),
        # Hash of the state of each transition that stands.
        ("visits", pa.list_(pa.uint64())),
        # hash64 of every event id that has been a transition or late, in that order.
        ("known", pa.list_(pa.uint64())),
        # Transitions that a snapshot's log may still deny (those of logged events).
        ("path", pa.list_(PATH_ITEM)),
        # With complete_log: the newest transition, kept back until it is known to be the last.
        ("held", pa.struct(list(TRANSITIONS.schema))),
    ]
)


@dataclass(frozen=True)
class Rules:
    """Settings of the transitions kernel.

    Attributes:
        end_states: states in which a case is complete.
        complete_log: the input holds whole cases, so each case's last transition is its end.
        since: write only transitions at or after this event time (µs); earlier ones still
            count for the state of their case.
        case_retention: µs after its end that a case is remembered.
        idle_retention: µs after its newest change that an open case is remembered.
    """

    end_states: frozenset[str] = frozenset()
    complete_log: bool = False
    since: int | None = None
    case_retention: int = 30 * 86_400_000_000
    idle_retention: int = 365 * 86_400_000_000


_WAKES = 16
"""How often a retention period is looked for cases to forget."""

_Times = TypeVar("_Times", int, npt.NDArray[np.int64])


def wake_ms(deadline: _Times, rules: Rules) -> _Times:
    """Return when to forget cases, in ms: together with those whose retention ends soon after.

    A case that is over but still remembered changes no transition: its next event begins it anew.
    It counts as open until then (`flow.active_cases`), in batch and stream alike.
    So the state is gone through a few times a retention, and not with every case that ends.
    """
    retention = min(rules.case_retention, rules.idle_retention)
    grid = max(1, retention // _WAKES // 1000)
    return (deadline // 1000 // grid + 1) * grid


class Level(NamedTuple):
    """A change of how many cases of a process are open.

    Attributes:
        order_us: when.
        workflow_group, model_version: of the case.
        change: 1 or -1.
    """

    order_us: int
    workflow_group: str | None
    model_version: str | None
    change: int


@dataclass
class CaseFold:
    """One case, event by event.

    Attributes:
        rules: the kernel's settings.
        case_id: the case.
        state: a row of `STATE_SCHEMA` as a dict, or None before the first event.
        transitions, late, retracted: rows found so far (columns that need more than the case
            alone, such as row ids, are added by the kernel). A transition's way
            is the first `visited` of the list `way`.
        levels: what changed in the number of open cases.
        touched: the case has changed.
        renewed: how often it came back after it had been forgotten, and began anew.
    """

    rules: Rules
    case_id: str
    state: dict[str, Any] | None = None
    transitions: list[dict[str, Any]] = field(default_factory=list)
    late: list[dict[str, Any]] = field(default_factory=list)
    retracted: list[dict[str, Any]] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    duplicates: int = 0
    ties: int = 0
    reversals: int = 0
    touched: bool = False
    renewed: int = 0

    def deadline(self) -> int | None:
        """Return the order time in µs at which the case is forgotten."""
        if self.state is None or self.rules.complete_log:
            return None
        ended = self.state["state"] in self.rules.end_states
        keep = self.rules.case_retention if ended else self.rules.idle_retention
        return int(self.state["updated"]) + keep

    def fold(self, event: dict[str, Any]) -> None:
        """Fold the case's next event.

        Args:
            event: an event row with integer times (µs), plus `hash`, `order_us` and `log`
                (list of hashes or None).
        """
        deadline = self.deadline()
        was = self._open_as()
        if deadline is not None and deadline <= event["order_us"]:
            self._level(wake_ms(deadline, self.rules) * 1000, was, None)
            self.renewed += self.state is not None and self.state["last_time"] is not None
            self.state = was = None
        if self.state is None:
            self.state = _new_state(self.case_id)
        state = self.state
        known = event["hash"] in state["known"]
        late = not known and state["bound"] is not None and event["event_time"] < state["bound"]
        if known:
            self.duplicates += 1
        elif late:
            self._keep_late(event)
        if event["log"]:
            self._deny(event)
        if not known and not late:
            self._move(event)
        self._level(event["order_us"], was, self._open_as())

    def _open_as(self) -> tuple[str | None, str | None] | None:
        """Return the group and version that the case counts for while it is open."""
        state = self.state
        if state is None or state["last_time"] is None:
            return None
        # In a complete log a case goes on until its last event, whatever its states are called.
        if state["state"] in self.rules.end_states and not self.rules.complete_log:
            return None
        return state["workflow_group"], state["model_version"]

    def _level(
        self,
        order_us: int,
        was: tuple[str | None, str | None] | None,
        now: tuple[str | None, str | None] | None,
    ) -> None:
        if was == now:
            return
        if was is not None:
            self.levels.append(Level(order_us, *was, -1))
        if now is not None:
            self.levels.append(Level(order_us, *now, 1))

    def _keep_late(self, event: dict[str, Any]) -> None:
        state = self.state
        assert state is not None
        self.late.append(dict(event, last_event_time=state["bound"]))
        state["known"].append(event["hash"])
        state["lates"] += 1
        if is_logged(event):
            state["path"].append(_path_item(event, sequence=-1, visit=-1, gap=False))

    def _move(self, event: dict[str, Any]) -> None:
        state = self.state
        assert state is not None
        sequence = state["next_sequence"]
        has_previous = state["last_time"] is not None
        if sequence == 0 and event["truncated"]:
            gap, is_start = True, None
        else:
            came_from = event["source_state"]
            gap = has_previous and came_from is not None and came_from != state["state"]
            is_start = sequence == 0
        first = state["first_time"] if has_previous else event["event_time"]
        self.transitions.append(
            {
                **event,
                "sequence": sequence,
                "from_state": state["state"] if has_previous else None,
                "to_state": event["state"],
                "duration_us": event["event_time"] - state["last_time"] if has_previous else None,
                "elapsed_us": event["event_time"] - first,
                "previous_actor": state["actor"] if has_previous else None,
                "is_start": is_start,
                "gap": gap,
            }
        )
        if has_previous and event["event_time"] == state["last_time"]:
            self.ties += 1
        elif has_previous and _reversed(event, state):
            self.reversals += 1
        if is_logged(event):
            state["path"].append(
                _path_item(event, sequence=sequence, visit=len(state["visits"]), gap=gap)
            )
        state["known"].append(event["hash"])
        state["visits"].append(event["state_hash"])
        state.update(
            first_time=first,
            last_time=event["event_time"],
            bound=event["event_time"],
            updated=event["order_us"],
            state=event["state"],
            actor=event["actor"],
            workflow_group=event["workflow_group"],
            model_version=event["model_version"],
            next_sequence=sequence + 1,
            gaps=state["gaps"] + int(gap),
            position=event["position"],
            source=event["source"],
        )
        # Later moves go on with the same list and retractions leave it alone: no copy a move.
        self.transitions[-1].update(way=state["visits"], visited=len(state["visits"]))
        self.touched = True

    def _deny(self, event: dict[str, Any]) -> None:
        """Retract what stands between the snapshot's first and last line and is not in its log."""
        state = self.state
        assert state is not None
        log = set(event["log"])
        begins = min(
            (item["event_time"] for item in state["path"] if item["hash"] in log),
            default=None,
        )
        if begins is None:
            return
        for item in list(state["path"]):
            inside = begins < item["event_time"] < event["event_time"]
            if inside and item["sequence"] >= 0 and item["hash"] not in log:
                self._retract(item, event)

    def _retract(self, item: dict[str, Any], event: dict[str, Any]) -> None:
        state = self.state
        assert state is not None
        self.retracted.append(
            dict(item, case_id=self.case_id, order_us=event["order_us"], by=event["event_id"])
        )
        state["path"].remove(item)
        gone = item["visit"]
        # A new list: transitions found so far keep the way that stood when they were made.
        state["visits"] = state["visits"][:gone] + state["visits"][gone + 1 :]
        for other in state["path"]:
            if other["visit"] > gone:
                other["visit"] -= 1
        state["gaps"] -= int(item["gap"])
        state["updated"] = event["order_us"]
        self.touched = True
        standing = {other["visit"]: other for other in state["path"] if other["sequence"] >= 0}
        count = len(state["visits"])
        if count == 0:
            state.update(first_time=None, last_time=None, state=None, actor=None)
            return
        if gone == 0 and 0 in standing:
            state["first_time"] = standing[0]["event_time"]
        if gone == count and count - 1 in standing:
            newest = standing[count - 1]
            state.update(
                last_time=newest["event_time"],
                **{k: newest[k] for k in ("state", "actor", "workflow_group", "model_version")},
            )


def is_logged(event: dict[str, Any]) -> bool:
    """Say whether a later snapshot's log may deny the event: it comes from such a log itself."""
    return event["source_task"] is not None or event["log"] is not None


def _reversed(event: dict[str, Any], state: dict[str, Any]) -> bool:
    """Say whether the event stands before the older one in their file (not so for log lines)."""
    if event["position"] is None or state["position"] is None or event["source_task"] is not None:
        return False
    return bool(event["source"] == state["source"] and event["position"] < state["position"])


def _new_state(case_id: str) -> dict[str, Any]:
    state: dict[str, Any] = dict.fromkeys(STATE_SCHEMA.names)
    state.update(case_id=case_id, next_sequence=0, gaps=0, lates=0, visits=[], known=[], path=[])
    return state


def _path_item(event: dict[str, Any], sequence: int, visit: int, gap: bool) -> dict[str, Any]:
    own = dict(event, sequence=sequence, visit=visit, gap=gap)
    return {f.name: own[f.name] for f in PATH_ITEM}
