"""The transitions kernel: ordered events of many cases become transitions, all cases at once.

Per case: a known event id is a duplicate; an event older than the newest one folded is late;
everything else moves the case. A snapshot's log that lacks a known line between its ends
retracts it. The rules in plain form are `case_state.CaseFold`, which also folds, event by
event, the few cases in which something rare happens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import NAME, ORDERED_SCHEMA
from schemas.tables import CASES, LATE, RETRACTED, TRANSITIONS, Output
from transforms.arrays import conform, integers
from transforms.counts import ENDED
from transforms.kernels import case_rows
from transforms.kernels.base import END, Control, Order, Step
from transforms.kernels.case_batch import CaseBatch
from transforms.kernels.case_state import STATE_SCHEMA, Rules, wake_ms
from transforms.kernels.moves import Moves, Singles, after_step, path_items
from transforms.kernels.segments import Flags, Integers, append_lists

NEVER = np.int64(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class TransitionsKernel:
    """Kernel that writes `transitions`, `cases`, `late` and `retracted` (see `schemas.tables`).

    Counts of a step: `events`, `transitions`, `outside` (before `Rules.since`), `duplicates`,
    `late`, `retracted`, and for data quality `gaps`, `ties` (equal times in a case) and
    `reversals` (a transition that stands before an older one of its case in the same file); by
    `counts.ENDED`, how many came to each end state of the rules. It may see `renewed`: how often
    a case came back after it had been forgotten.
    """

    rules: Rules = field(default_factory=Rules)
    name: str = "transitions"
    key: str = "case_id"
    order: Order = "key"
    takes: pa.Schema = ORDERED_SCHEMA

    @property
    def state_schema(self) -> pa.Schema:
        """One row a case: `case_state.STATE_SCHEMA`."""
        return STATE_SCHEMA

    @property
    def outputs(self) -> Mapping[str, Output]:
        """Tables written, by name."""
        return {table.name: table for table in (TRANSITIONS, CASES, LATE, RETRACTED)}

    def step(
        self, state: pa.Table, events: pa.Table, control: Sequence[Control], until: int
    ) -> Step:
        """Fold the next events (see `Kernel.step`); `control` means nothing to transitions."""
        del control
        return self.fold(state, events, until).step(self.outputs)

    def fold(self, state: pa.Table, events: pa.Table, until: int) -> Folded:
        """Fold the next events (see `Kernel.step`); tables are made of what that gives."""
        batch = CaseBatch.of(events, state)
        rare = batch.rare_cases(self.rules)
        singles = Singles.fold(batch, rare, self.rules)
        moves = Moves.of(batch, rare, self.rules)
        after = after_step(batch, moves, singles, rare)
        return Folded(self.rules, until, batch, rare, moves, singles, after)


@dataclass
class Folded:
    """What a step did to its cases.

    Attributes:
        rules, until: of the kernel, and of the step.
        batch: the events, and the state before.
        rare: flags the cases that were folded one by one.
        moves, singles: the transitions of the others, and of these; none is held back yet.
        after: state of every case after the step, even if it is forgotten then (see
            `moves.after_step`).
    """

    rules: Rules
    until: int
    batch: CaseBatch
    rare: Flags
    moves: Moves
    singles: Singles
    after: pa.Table

    @property
    def over(self) -> bool:
        """The input has ended."""
        return self.until >= END

    def transitions(self, names: Sequence[str]) -> pa.Table:
        """Return columns of all transitions: those of `moves`, then those of `singles`."""
        moved = self.moves.table(names)
        if not self.singles.transitions.num_rows:
            return moved
        return pa.concat_tables([moved, self.singles.transitions.select(names)])

    @cached_property
    def late(self) -> pa.Table:
        """Rows of the table `late`."""
        batch = self.batch
        rows = np.flatnonzero(batch.late & ~self.rare[batch.groups])
        if not len(rows):
            return self.singles.late
        found = case_rows.late(batch.events.take(pa.array(rows)), batch.bound[rows])
        return pa.concat_tables([found, self.singles.late])

    @cached_property
    def deadlines(self) -> Integers:
        """Order time in µs at which each case of `after` is forgotten."""
        return _deadlines(self.after, self.rules)

    @cached_property
    def gone(self) -> Flags:
        """Flags the cases of `after` that are forgotten with this step."""
        if self.over:
            return np.ones(len(self.deadlines), bool)
        return self.deadlines < self.until * 1000

    @cached_property
    def groups_changed(self) -> Integers:
        """Numbers of the cases that have a new state, in the order of its rows."""
        return self._groups[self.stays]

    @cached_property
    def stays(self) -> Flags:
        """Flags the cases of `after` that had events and are remembered."""
        flags: Flags = ~self.gone & (self._groups < self.batch.cases_with_events)
        return flags

    @cached_property
    def _groups(self) -> Integers:
        return integers(conform(self.after["group"], pa.int64()))

    def step(self, tables: Collection[str]) -> Step:
        """Return the kernel's step.

        Args:
            tables: which tables to make; `counts` are of all of them.
        """
        moves, singles, batch = self.moves, self.singles, self.batch
        closed = self.rules.complete_log and self.over
        held: pa.Table | None = None
        outputs: dict[str, pa.Table] = {}
        if "transitions" in tables:
            transitions = self.transitions(TRANSITIONS.schema.names)
            if self.rules.complete_log:
                is_last = np.concatenate((moves.is_last, singles.is_last))
                transitions, held = _hold_last(batch, transitions, is_last, self.over)
            outputs["transitions"] = self._since(transitions, "event_time")
        if "cases" in tables:
            touched = self.after if closed else self.after.filter(self.after["touched"])
            rows = case_rows.cases(touched, self.rules, closed)
            outputs["cases"] = self._since(rows, "last_event_time")
        if "late" in tables:
            outputs["late"] = self.late
        if "retracted" in tables:
            outputs["retracted"] = singles.retracted
        remaining = self.deadlines[~self.gone & (self.deadlines < NEVER)]
        moved = len(moves.rows) + singles.transitions.num_rows
        outside = self._outside()
        duplicates = int((~batch.new & ~self.rare[batch.groups]).sum())
        return Step(
            outputs=outputs,
            changed=lambda: _changed(self, held),
            removed=conform(self.after["case_id"], pa.string()).filter(pa.array(self.gone)),
            wake_at=wake_ms(int(remaining.min()), self.rules) if len(remaining) else None,
            counts={
                "events": batch.events.num_rows,
                "transitions": moved - outside,
                "outside": outside,
                "duplicates": duplicates + singles.duplicates,
                "late": self.late.num_rows,
                "retracted": singles.retracted.num_rows,
                "gaps": int(moves.gap.sum()) + singles.gaps,
                "ties": moves.ties + singles.ties,
                "reversals": moves.reversals + singles.reversals,
                **self._ended(),
            },
            seen={"renewed": singles.renewed},
        )

    def _ended(self) -> dict[str, int]:
        if not self.rules.end_states:
            return {}
        states = conform(self.transitions(["to_state"])["to_state"], NAME)
        many = np.bincount(states.indices.drop_null(), minlength=len(states.dictionary))
        found = zip(states.dictionary.to_pylist(), many.tolist(), strict=True)
        return {ENDED + name: n for name, n in found if name in self.rules.end_states}

    def _outside(self) -> int:
        if self.rules.since is None:
            return 0
        single = integers(
            conform(self.singles.transitions["event_time"], pa.timestamp("us", "UTC"))
        )
        before = (self.moves.event_us < self.rules.since, single < self.rules.since)
        return int(sum(flags.sum() for flags in before))

    def _since(self, table: pa.Table, column: str) -> pa.Table:
        if self.rules.since is None:
            return table
        since = pa.scalar(self.rules.since, pa.int64()).cast(table[column].type)
        return table.filter(pc.greater_equal(table[column], since))


def _deadlines(after: pa.Table, rules: Rules) -> Integers:
    """Return the order time in µs at which each case is forgotten (`NEVER` in a complete log)."""
    if rules.complete_log:
        return np.full(after.num_rows, NEVER)
    ended = case_rows.is_member(conform(after["state"], NAME), rules.end_states)
    updated = integers(conform(after["updated"], pa.int64()))
    return updated + np.where(ended, rules.case_retention, rules.idle_retention)


def _hold_last(
    batch: CaseBatch, transitions: pa.Table, is_last: Flags, over: bool
) -> tuple[pa.Table, pa.Table | None]:
    """Keep each case's newest transition back until it is known to be the last, then end with it.

    Returns:
        The rows to write now, and the rows held (None when the input is over).
    """
    earlier = batch.held()
    newest = transitions.filter(pa.array(is_last))
    moved = pc.is_in(earlier["case_id"], value_set=conform(newest["case_id"], pa.string()))
    parts = [transitions.filter(pa.array(~is_last)), earlier.filter(moved)]
    if not over:
        return pa.concat_tables(parts), pa.concat_tables([newest, earlier.filter(pc.invert(moved))])
    ends = pa.concat_tables([newest, earlier.filter(pc.invert(moved))])
    at = TRANSITIONS.schema.get_field_index("is_end")
    ends = ends.set_column(at, TRANSITIONS.schema.field(at), pa.array(np.ones(len(ends), bool)))
    return pa.concat_tables([*parts, ends]), None


def _changed(folded: Folded, held: pa.Table | None) -> pa.Table:
    """Return the new state rows of the cases that had events and are not forgotten."""
    batch, rare = folded.batch, folded.rare
    count = len(batch.case_ids)
    fast = batch.new & ~rare[batch.groups]
    new_rows = np.flatnonzero(fast)
    known = append_lists(
        batch.lists("known"), batch.groups[new_rows], pa.array(batch.ids[new_rows]), count
    )
    path_rows = np.flatnonzero(fast & batch.logged())
    path = append_lists(
        batch.lists("path"),
        batch.groups[path_rows],
        path_items(batch, folded.moves, path_rows),
        count,
    )
    lists = pa.table({"known": known, "path": path})
    if rare.any():
        lists = pa.concat_tables(
            [lists.filter(pa.array(~rare)), folded.singles.state.select(["known", "path"])]
        )
    after = folded.after
    columns: dict[str, Any] = {name: after[name] for name in after.column_names}
    columns["known"], columns["path"] = lists["known"], lists["path"]
    columns["held"] = _held_column(after["case_id"], held)
    table = pa.Table.from_arrays(
        [conform(columns[f.name], f.type) for f in STATE_SCHEMA], schema=STATE_SCHEMA
    )
    return table.filter(pa.array(folded.stays))


def _held_column(case_ids: pa.ChunkedArray, held: pa.Table | None) -> pa.Array:
    struct = STATE_SCHEMA.field("held").type
    if held is None or held.num_rows == 0:
        return pa.nulls(len(case_ids), struct)
    rows = pa.StructArray.from_arrays(
        [conform(held[f.name], f.type) for f in TRANSITIONS.schema],
        fields=list(TRANSITIONS.schema),
    )
    at = pc.index_in(
        conform(case_ids, pa.string()), value_set=conform(held["case_id"], pa.string())
    )
    return rows.take(at)
