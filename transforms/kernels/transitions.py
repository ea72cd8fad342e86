"""The transitions kernel: ordered events of many cases become transitions, all cases at once.

Per case: a known event id is a duplicate; an event older than the newest one folded is late;
everything else moves the case. A snapshot's log that lacks a known line between its ends
retracts it. The rules in plain form are `case_state.CaseFold`, which also folds, event by
event, the few cases in which something rare happens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import NAME, ORDERED_SCHEMA
from schemas.tables import CASES, LATE, RETRACTED, TRANSITIONS, Output
from transforms.arrays import conform, integers, nulls
from transforms.hashing import hash_strings
from transforms.kernels import case_rows
from transforms.kernels.base import END, Control, Order, Step
from transforms.kernels.case_batch import CaseBatch
from transforms.kernels.case_state import PATH_ITEM, STATE_SCHEMA, CaseFold, Rules
from transforms.kernels.segments import (
    NONE,
    Flags,
    Integers,
    append_lists,
    first_of_group,
    last_of_group,
    rank_in_group,
)

NEVER = np.int64(np.iinfo(np.int64).max)
_WAKES = 16
"""How often a retention period is looked for cases to forget."""


@dataclass(frozen=True)
class TransitionsKernel:
    """Kernel that writes `transitions`, `cases`, `late` and `retracted` (see `schemas.tables`).

    Counts of a step: `events`, `transitions`, `outside` (before `Rules.since`), `duplicates`,
    `late`, `retracted`, and for data quality `gaps`, `ties` (equal times in a case) and
    `reversals` (a transition that stands before an older one of its case in the same file).
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
        batch = CaseBatch.of(events, state)
        rare = batch.rare_cases(self.rules)
        singles = _Singles.fold(batch, rare, self.rules)
        moves = _Moves.of(batch, rare, self.rules)
        after = _after(batch, moves, singles, rare)
        moved = pa.concat_tables([moves.table, singles.transitions])
        outside = moved.num_rows - self._since(moved, "event_time").num_rows
        transitions = moved
        is_last = np.concatenate((moves.is_last, singles.is_last))
        held: pa.Table | None = None
        if self.rules.complete_log:
            transitions, held = _hold_last(batch, transitions, is_last, until >= END)
        over = self.rules.complete_log and until >= END
        touched = after if over else after.filter(after["touched"])
        late_rows = np.flatnonzero(batch.late & ~rare[batch.groups])
        late = singles.late
        if len(late_rows):
            found = case_rows.late(batch.events.take(pa.array(late_rows)), batch.bound[late_rows])
            late = pa.concat_tables([found, singles.late])
        deadlines = _deadlines(after, self.rules)
        gone = deadlines < until * 1000 if until < END else np.ones(len(deadlines), bool)
        remaining = deadlines[~gone & (deadlines < NEVER)]
        return Step(
            outputs={
                "transitions": self._since(transitions, "event_time"),
                "cases": self._since(case_rows.cases(touched, self.rules, over), "last_event_time"),
                "late": late,
                "retracted": singles.retracted,
            },
            changed=lambda: _changed(batch, moves, singles, rare, after, ~gone, held),
            removed=conform(after["case_id"], pa.string()).filter(pa.array(gone)),
            wake_at=_wake(int(remaining.min()), self.rules) if len(remaining) else None,
            counts={
                "events": events.num_rows,
                "transitions": moved.num_rows - outside,
                "outside": outside,
                "duplicates": int((~batch.new & ~rare[batch.groups]).sum()) + singles.duplicates,
                "late": late.num_rows,
                "retracted": singles.retracted.num_rows,
                "gaps": int(moves.gap.sum()) + singles.gaps,
                "ties": moves.ties + singles.ties,
                "reversals": moves.reversals + singles.reversals,
            },
        )

    def _since(self, table: pa.Table, column: str) -> pa.Table:
        if self.rules.since is None:
            return table
        since = pa.scalar(self.rules.since, pa.int64()).cast(table[column].type)
        return table.filter(pc.greater_equal(table[column], since))


@dataclass
class _Singles:
    """What the cases folded one by one gave."""

    groups: Integers
    transitions: pa.Table
    is_last: Flags
    late: pa.Table
    retracted: pa.Table
    state: pa.Table
    touched: Flags
    duplicates: int = 0
    gaps: int = 0
    ties: int = 0
    reversals: int = 0

    @classmethod
    def fold(cls, batch: CaseBatch, rare: Flags, rules: Rules) -> _Singles:
        """Fold the rare cases with `CaseFold`."""
        groups = np.flatnonzero(rare)
        if not len(groups):
            return _NO_SINGLES
        folds = []
        moved: list[dict[str, Any]] = []
        is_last: list[bool] = []
        for group, before, events in batch.singles(groups):
            fold = CaseFold(rules, batch.case_ids[group].as_py(), before)
            for event in events:
                fold.fold(event)
            folds.append(fold)
            moved += fold.transitions
            is_last += [False] * (len(fold.transitions) - 1) + [True] * bool(fold.transitions)
        late = [row for fold in folds for row in fold.late]
        late_rows = batch.events.take(pa.array([row["row"] for row in late], pa.int64()))
        bounds = np.array([row["last_event_time"] for row in late], np.int64)
        # A case that was complete, came back and was denied anew keeps its gaps in its rows.
        return cls(
            groups=groups,
            transitions=case_rows.transitions_of_rows(moved, rules),
            is_last=np.array(is_last, bool),
            late=case_rows.late(late_rows, bounds),
            retracted=case_rows.retracted([row for fold in folds for row in fold.retracted]),
            state=pa.Table.from_pylist([fold.state for fold in folds], schema=STATE_SCHEMA),
            touched=np.array([fold.touched for fold in folds], bool),
            duplicates=sum(fold.duplicates for fold in folds),
            gaps=sum(bool(row["gap"]) for row in moved),
            ties=sum(fold.ties for fold in folds),
            reversals=sum(fold.reversals for fold in folds),
        )


_NO_SINGLES = _Singles(
    groups=np.empty(0, np.int64),
    transitions=TRANSITIONS.schema.empty_table(),
    is_last=np.empty(0, bool),
    late=LATE.schema.empty_table(),
    retracted=RETRACTED.schema.empty_table(),
    state=STATE_SCHEMA.empty_table(),
    touched=np.empty(0, bool),
)


@dataclass
class _Moves:
    """The transitions of all other cases, as columns over the event rows that made them."""

    rows: Integers
    groups: Integers
    table: pa.Table
    is_last: Flags
    sequence: Integers
    gap: Flags
    first_time: Integers
    ties: int
    reversals: int

    @classmethod
    def of(cls, batch: CaseBatch, rare: Flags, rules: Rules) -> _Moves:
        """Compute the transitions of every row that is new, punctual and in no rare case."""
        rows = np.flatnonzero(batch.new & ~batch.late & ~rare[batch.groups])
        groups = batch.groups[rows]
        n = len(rows)
        first = first_of_group(groups)
        rank = rank_in_group(first)
        opening = np.flatnonzero(first)
        times = batch.event_time[rows]
        sequence = batch.number("next_sequence", 0)[groups] + rank
        has_previous = np.ones(n, bool)
        has_previous[opening] = batch.valid("last_time")[groups[opening]]
        # Where a row's predecessor stands: an earlier event row, or its case's state behind them.
        previous = np.empty(n, np.int64)
        previous[1:] = rows[:-1]
        previous[opening] = batch.events.num_rows + groups[opening]
        previous_time = np.empty(n, np.int64)
        previous_time[1:] = times[:-1]
        previous_time[opening] = batch.number("last_time", 0)[groups[opening]]
        first_time = batch.number("first_time", 0)
        fresh = opening[~has_previous[opening]]
        first_time[groups[fresh]] = times[fresh]
        take = pa.array(rows)
        came_from, gap = _gaps(batch, rows, previous, has_previous)
        cut = batch.flags("truncated")[rows] & (sequence == 0)
        gap = gap | cut
        is_start = pa.array(sequence == 0, mask=cut) if cut.any() else pa.array(sequence == 0)
        to_state = batch.events["state"].chunk(0).take(take) if n else nulls(NAME, 0)
        lanes = case_rows.case_lanes(batch.case_ids)
        made: dict[str, Any] = {
            "row_id": case_rows.row_ids((lanes[0][groups], lanes[1][groups]), sequence, times),
            "case_id": batch.case_ids.take(pa.array(groups)),
            "sequence": pa.array(sequence),
            "from_state": came_from,
            "to_state": to_state,
            "duration_s": case_rows.seconds(times - previous_time, has_previous),
            "elapsed_s": case_rows.seconds(times - first_time[groups]),
            "previous_actor": batch.with_state("actor").take(pa.array(previous)),
            "is_start": is_start,
            "is_end": pa.array(case_rows.is_member(to_state, rules.end_states)),
            "verdict": case_rows.constant("unknown", n),
            "gap": pa.array(gap),
        }
        schema = TRANSITIONS.schema
        columns = [
            conform(made[f.name] if f.name in made else batch.taken(f.name, take), f.type)
            for f in schema
        ]
        tie = has_previous & (times == previous_time)
        return cls(
            rows=rows,
            groups=groups,
            table=pa.Table.from_arrays(columns, schema=schema),
            is_last=last_of_group(groups),
            sequence=sequence,
            gap=gap,
            first_time=first_time,
            ties=int(tie.sum()),
            reversals=_reversals(batch, rows, previous, has_previous & ~tie),
        )


def _gaps(
    batch: CaseBatch, rows: Integers, previous: Integers, has_previous: Flags
) -> tuple[pa.Array, Flags]:
    """Return the state before each move, and whether the event says it was another one."""
    states = batch.with_state("state")
    came_from = states.take(pa.array(previous))
    says = batch.events["source_state"]
    if says.null_count == len(says) or not len(rows):
        return came_from, np.zeros(len(rows), bool)
    both = pa.chunked_array([states, says.chunk(0)]).unify_dictionaries()
    was, said = (both.chunk(i).indices.fill_null(-1).to_numpy() for i in (0, 1))
    said = said[rows]
    gap: Flags = has_previous & (said >= 0) & (said != was[previous])
    return came_from, gap


def _reversals(batch: CaseBatch, rows: Integers, previous: Integers, comparable: Flags) -> int:
    """Count moves that stand before their predecessor in the same file (log lines apart)."""
    positions = batch.events["position"]
    if positions.null_count == len(positions) or not len(rows):
        return 0
    here = integers(conform(positions, pa.int64()))
    all_positions = np.concatenate((here, batch.number("position", int(NONE))))
    known = all_positions != NONE
    sources = batch.with_state("source").indices.fill_null(-1).to_numpy()
    plain = batch.events["source_task"].is_null().to_numpy()[rows]
    back = (
        comparable
        & plain
        & known[rows]
        & known[previous]
        & (sources[rows] == sources[previous])
        & (all_positions[rows] < all_positions[previous])
    )
    return int(back.sum())


def _after(batch: CaseBatch, moves: _Moves, singles: _Singles, rare: Flags) -> pa.Table:
    """Return the state of every case after the step, without its lists of ids and paths.

    Columns: `STATE_SCHEMA` up to `visits`, then `touched` (it changed) and `group`.
    """
    count = len(batch.case_ids)
    last = np.full(count, -1, np.int64)
    ends = np.flatnonzero(moves.is_last)
    last[moves.groups[ends]] = moves.rows[ends]
    moved = last >= 0
    n = batch.events.num_rows
    pick = pa.array(np.where(moved, last, n + np.arange(count)))
    newest = np.where(moved, last, 0)

    def number(name: str, values: Integers) -> pa.Array:
        old = batch.number(name, 0)
        old[moved] = values[newest[moved]]
        return pa.array(old, mask=~(moved | batch.valid(name)) | (old == NONE))

    def name(column: str) -> pa.Array:
        return batch.with_state(column).take(pick)

    added = np.bincount(moves.groups, minlength=count)
    lates = np.bincount(batch.groups[batch.late], minlength=count)
    hashes = hash_strings(batch.events["state"]) if n else np.empty(0, np.uint64)
    made: dict[str, Any] = {
        "case_id": batch.case_ids,
        **{c: name(c) for c in ("workflow_group", "model_version", "state", "actor")},
        "first_time": pa.array(moves.first_time, mask=~(moved | batch.valid("first_time"))),
        "last_time": number("last_time", batch.event_time),
        "bound": number("bound", batch.event_time),
        "updated": number("updated", batch.order_us),
        "next_sequence": pa.array(batch.number("next_sequence", 0) + added),
        "gaps": pa.array(
            batch.number("gaps", 0) + np.bincount(moves.groups[moves.gap], minlength=count)
        ),
        "lates": pa.array(batch.number("lates", 0) + lates),
        "position": number("position", batch.positions()),
        "source": name("source"),
        "visits": append_lists(
            batch.lists("visits"), moves.groups, pa.array(hashes[moves.rows]), count
        ),
        "touched": pa.array(moved),
        "group": pa.array(np.arange(count)),
    }
    schema = _AFTER
    table = pa.Table.from_arrays([conform(made[f.name], f.type) for f in schema], schema=schema)
    if not rare.any():
        return table
    single = singles.state.select(STATE_SCHEMA.names[: STATE_SCHEMA.names.index("known")])
    single = single.append_column("touched", pa.array(singles.touched))
    single = single.append_column("group", pa.array(singles.groups))
    columns = [conform(single[f.name], f.type) for f in schema]
    return pa.concat_tables(
        [table.filter(pa.array(~rare)), pa.Table.from_arrays(columns, schema=schema)]
    )


_AFTER = pa.schema(
    [
        pa.field(f.name, NAME if f.name in _names else f.type)
        for _names in [("workflow_group", "model_version", "state", "actor", "source")]
        for f in list(STATE_SCHEMA)[: STATE_SCHEMA.names.index("known")]
    ]
    + [pa.field("touched", pa.bool_()), pa.field("group", pa.int64())]
)


def _deadlines(after: pa.Table, rules: Rules) -> Integers:
    """Return the order time in µs at which each case is forgotten (`NEVER` in a complete log)."""
    if rules.complete_log:
        return np.full(after.num_rows, NEVER)
    ended = case_rows.is_member(conform(after["state"], NAME), rules.end_states)
    updated = integers(conform(after["updated"], pa.int64()))
    return updated + np.where(ended, rules.case_retention, rules.idle_retention)


def _wake(deadline: int, rules: Rules) -> int:
    """Return when to forget cases, in ms: together with those whose retention ends soon after.

    A case that is over but still remembered changes no result: its next event begins it anew.
    So the state is gone through a few times a retention, and not with every case that ends.
    """
    retention = min(rules.case_retention, rules.idle_retention)
    grid = max(1, retention // _WAKES // 1000)
    return (deadline // 1000 // grid + 1) * grid


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


def _changed(
    batch: CaseBatch,
    moves: _Moves,
    singles: _Singles,
    rare: Flags,
    after: pa.Table,
    remains: Flags,
    held: pa.Table | None,
) -> pa.Table:
    """Return the new state rows of the cases that had events and are not forgotten."""
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
        _path_items(batch, moves, path_rows),
        count,
    )
    lists = pa.table({"known": known, "path": path})
    if rare.any():
        lists = pa.concat_tables(
            [lists.filter(pa.array(~rare)), singles.state.select(["known", "path"])]
        )
    columns: dict[str, Any] = {name: after[name] for name in after.column_names}
    columns["known"], columns["path"] = lists["known"], lists["path"]
    columns["held"] = _held_column(after["case_id"], held)
    table = pa.Table.from_arrays(
        [conform(columns[f.name], f.type) for f in STATE_SCHEMA], schema=STATE_SCHEMA
    )
    had_events = integers(conform(after["group"], pa.int64())) < batch.cases_with_events
    return table.filter(pa.array(remains & had_events))


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


def _path_items(batch: CaseBatch, moves: _Moves, rows: Integers) -> pa.Array:
    """Make path items of logged rows that moved their case or came late."""
    n = batch.events.num_rows
    sequence = np.full(n, -1, np.int64)
    sequence[moves.rows] = moves.sequence
    visit = np.full(n, -1, np.int64)
    rank = rank_in_group(first_of_group(moves.groups))
    visit[moves.rows] = batch.list_length("visits")[moves.groups] + rank
    gap = np.zeros(n, bool)
    gap[moves.rows] = moves.gap
    made: dict[str, Any] = {
        "hash": pa.array(batch.ids[rows]),
        "event_time": pa.array(batch.event_time[rows]),
        "sequence": pa.array(sequence[rows]),
        "visit": pa.array(visit[rows]),
        "gap": pa.array(gap[rows]),
    }
    take = pa.array(rows)
    columns = [
        made[f.name] if f.name in made else conform(batch.taken(f.name, take), f.type)
        for f in PATH_ITEM
    ]
    return pa.StructArray.from_arrays(columns, fields=list(PATH_ITEM))
