"""A step's events beside the state of their cases: who is new, who is late, who is rare.

Cases are numbered (groups) in the order of their events, then those that have state only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import EVENT_SCHEMA, NAME
from schemas.tables import TRANSITIONS
from transforms.arrays import conform, integers, nulls
from transforms.hashing import hash_strings
from transforms.kernels.case_rows import is_member
from transforms.kernels.case_state import STATE_SCHEMA, Rules
from transforms.kernels.segments import (
    NONE,
    Flags,
    Hashes,
    Integers,
    append_lists,
    first_of_group,
    list_lengths,
    repeated,
    running_max_before,
    sums,
)


@dataclass
class CaseBatch:
    """Events and state of a step.

    Attributes:
        events: the step's events, grouped by case.
        case_ids: one a group.
        cases_with_events: groups below this have events.
        groups: group number of each event row.
        event_time, order_us: µs since the epoch of each row.
        ids: hash64 of each row's event id.
        new: rows that are no duplicates.
        late: new rows older than the newest event folded before them.
        bound: that newest event time, where a row is late.
    """

    events: pa.Table
    state: pa.Table
    case_ids: pa.Array
    cases_with_events: int
    groups: Integers
    event_time: Integers
    order_us: Integers
    ids: Hashes
    new: Flags = field(init=False)
    late: Flags = field(init=False)
    bound: Integers = field(init=False)
    _merged: dict[str, pa.DictionaryArray] = field(default_factory=dict)

    @classmethod
    def of(cls, events: pa.Table, state: pa.Table) -> CaseBatch:
        """Join a step's events with its cases' state."""
        events = events.combine_chunks()
        n = events.num_rows
        keys = conform(events["case_id"], pa.dictionary(pa.int32(), pa.string()))
        codes = keys.indices.to_numpy(zero_copy_only=False)
        first = first_of_group(codes) if n else np.zeros(0, bool)
        groups = np.cumsum(first, dtype=np.int64) - 1
        case_ids = keys.dictionary.take(pa.array(codes[first]))
        count = len(case_ids)
        if state.num_rows:
            known = conform(state["case_id"], pa.string())
            at = pc.index_in(case_ids, value_set=known)
            only = np.ones(state.num_rows, bool)
            only[at.drop_null().to_numpy()] = False
            others = pa.array(np.flatnonzero(only), pa.int32())
            state = state.take(pa.concat_arrays([at, others]))
            case_ids = pa.concat_arrays([case_ids, known.take(others)])
        else:
            state = pa.Table.from_arrays(
                [nulls(f.type, count) for f in STATE_SCHEMA], schema=STATE_SCHEMA
            )
        batch = cls(
            events=events,
            state=state,
            case_ids=case_ids,
            cases_with_events=count,
            groups=groups,
            event_time=integers(conform(events["event_time"], events["event_time"].type)),
            order_us=integers(conform(events["order_time"], events["order_time"].type)),
            ids=hash_strings(events["event_id"]) if n else np.empty(0, np.uint64),
        )
        batch._judge()
        return batch

    def number(self, name: str, default: int) -> Integers:
        """Return an integer column of the state, one a group; a copy to write into."""
        column = conform(self.state[name], pa.int64())
        return np.array(column.fill_null(int(default)).to_numpy(zero_copy_only=False))

    def valid(self, name: str) -> Flags:
        """Flag groups whose state has a value in the column."""
        flags: Flags = (
            conform(self.state[name], self.state[name].type)
            .is_valid()
            .to_numpy(zero_copy_only=False)
        )
        return flags

    def lists(self, name: str) -> pa.ListArray:
        """Return a list column of the state, one list a group."""
        return conform(self.state[name], STATE_SCHEMA.field(name).type)

    def list_length(self, name: str) -> Integers:
        """Return the length of a list column of the state, one a group."""
        return list_lengths(self.lists(name))

    def flags(self, name: str) -> Flags:
        """Return a boolean event column; null counts as false."""
        column = conform(self.events[name], pa.bool_())
        if column.null_count == len(column):
            return np.zeros(len(column), bool)
        flags: Flags = column.fill_null(False).to_numpy(zero_copy_only=False)
        return flags

    def positions(self) -> Integers:
        """Return the event rows' positions (the smallest integer where there is none)."""
        return integers(conform(self.events["position"], pa.int64()))

    def taken(self, name: str, rows: pa.Array) -> pa.Array:
        """Take rows of an event column."""
        column = self.events[name]
        if column.null_count == len(column):
            return nulls(column.type, len(rows))
        return conform(column, column.type).take(rows)

    def with_state(self, name: str) -> pa.DictionaryArray:
        """Return a name column of all event rows, followed by that of the groups' state."""
        if name not in self._merged:
            event_part = conform(self.events[name], NAME)
            state_part = conform(self.state[name], NAME)
            self._merged[name] = conform(pa.chunked_array([event_part, state_part]), NAME)
        return self._merged[name]

    def logged(self) -> Flags:
        """Flag rows that come from a log, which a later snapshot may deny."""
        task = conform(self.events["source_task"], pa.int32()).is_valid()
        log = conform(self.events["log"], EVENT_SCHEMA.field("log").type).is_valid()
        flags: Flags = pc.or_(task, log).to_numpy(zero_copy_only=False)
        return flags

    def held(self) -> pa.Table:
        """Return the transitions held back so far."""
        column = conform(self.state["held"], STATE_SCHEMA.field("held").type).drop_null()
        if not len(column):
            return TRANSITIONS.schema.empty_table()
        return pa.Table.from_arrays(column.flatten(), schema=TRANSITIONS.schema)

    def _judge(self) -> None:
        known = self.lists("known")
        of_known = np.repeat(np.arange(len(self.case_ids)), list_lengths(known))
        self.new = ~repeated(
            of_known, known.flatten().to_numpy(zero_copy_only=False), self.groups, self.ids
        )
        n = len(self.groups)
        self.late = np.zeros(n, bool)
        self.bound = np.full(n, NONE)
        rows = np.flatnonzero(self.new)
        if not len(rows):
            return
        times, groups = self.event_time[rows], self.groups[rows]
        start = self.number("bound", int(NONE))
        opening = np.flatnonzero(first_of_group(groups))
        back = times[1:] < times[:-1]
        back[opening[1:] - 1] = False
        if back.any() or (times[opening] < start[groups[opening]]).any():
            bound = running_max_before(groups, times, start)
            self.bound[rows] = bound
            self.late[rows] = times < bound

    def rare_cases(self, rules: Rules) -> Flags:
        """Flag the cases that must be folded event by event."""
        rare = np.zeros(len(self.case_ids), bool)
        if not rules.complete_log:
            self._mark_returning(rules, rare)
        self._mark_denied(rare)
        return rare

    def _mark_returning(self, rules: Rules, rare: Flags) -> None:
        """Mark cases with an event after their retention: they begin anew in between."""
        n = len(self.groups)
        if n == 0:
            return
        shortest = min(rules.idle_retention, rules.case_retention)
        if not rules.end_states:
            shortest = rules.idle_retention
        updated = self.number("updated", np.iinfo(np.int64).max)
        earliest = min(int(self.order_us.min()), int(updated.min()))
        if int(self.order_us.max()) - earliest < shortest:
            return
        moved = self.new & ~self.late
        row = np.arange(n, dtype=np.int64)
        newest = np.empty(n, np.int64)
        newest[0] = -1
        newest[1:] = np.maximum.accumulate(np.where(moved, row, -1))[:-1]
        opening = np.maximum.accumulate(np.where(first_of_group(self.groups), row, 0))
        inside = newest >= opening
        ended = is_member(self.with_state("state"), rules.end_states)
        before = np.where(inside, newest, n + self.groups)
        since = np.where(inside, self.order_us[newest], updated[self.groups])
        keep = np.where(ended[before], rules.case_retention, rules.idle_retention)
        # Cases without state have `updated` in the far future: the difference is negative.
        over = (since <= self.order_us) & (self.order_us - since >= keep)
        rare[self.groups[over]] = True

    def _mark_denied(self, rare: Flags) -> None:
        """Mark cases in which a snapshot's log is not just the newest events known by then."""
        logs = conform(self.events["log"], EVENT_SCHEMA.field("log").type)
        if logs.null_count == len(logs):
            return
        count = len(self.case_ids)
        rows = np.flatnonzero(logs.is_valid().to_numpy(zero_copy_only=False))
        groups = self.groups[rows]
        new_rows = np.flatnonzero(self.new)
        merged = append_lists(
            self.lists("known"), self.groups[new_rows], pa.array(self.ids[new_rows]), count
        )
        total = np.zeros(len(merged.values) + 1, np.uint64)
        total[1:] = np.cumsum(merged.values.to_numpy(zero_copy_only=False), dtype=np.uint64)
        offsets = merged.offsets.to_numpy().astype(np.int64)
        new_before: Integers = np.cumsum(self.new) - self.new
        opening = np.flatnonzero(first_of_group(self.groups))
        known_by_then = (
            self.list_length("known")[groups]
            + (new_before + self.new)[rows]
            - new_before[opening][groups]
        )
        held = logs.take(pa.array(rows))
        lengths = list_lengths(held)
        expected = sums(held.flatten().to_numpy(zero_copy_only=False), lengths)
        ends = offsets[groups] + known_by_then
        starts = ends - lengths
        short = starts < offsets[groups]
        agrees = total[ends] - total[np.maximum(starts, 0)] == expected
        rare[groups[short | ~agrees]] = True
        # With late events known ids are no longer in order of time.
        lates = self.number("lates", 0) > 0
        lates[self.groups[self.late]] = True
        rare[groups[lates[groups]]] = True

    def singles(
        self, groups: Integers
    ) -> Iterator[tuple[int, dict[str, Any] | None, list[dict[str, Any]]]]:
        """Yield (group, state row or None, event rows) of some cases, as Python values."""
        if not len(groups):
            return
        chosen = np.zeros(len(self.case_ids), bool)
        chosen[groups] = True
        rows = np.flatnonzero(chosen[self.groups])
        table = self.events.take(pa.array(rows))
        for name in ("event_time", "start_time", "record_time", "order_time"):
            at = table.schema.get_field_index(name)
            values = conform(table[name], pa.timestamp("us", tz="UTC")).view(pa.int64())
            table = table.set_column(at, name, values)
        events = table.to_pylist()
        state_hashes = hash_strings(table["state"])
        by_group: dict[int, list[dict[str, Any]]] = {int(g): [] for g in groups}
        for i, event in enumerate(events):
            row = int(rows[i])
            event["hash"] = int(self.ids[row])
            event["order_us"] = event["order_time"]
            event["state_hash"] = int(state_hashes[i])
            event["row"] = row
            by_group[int(self.groups[row])].append(event)
        has_state = self.valid("next_sequence")
        states = self.state.take(pa.array(groups)).to_pylist()
        for group, state in zip(groups.tolist(), states, strict=True):
            yield group, state if has_state[group] else None, by_group[group]
