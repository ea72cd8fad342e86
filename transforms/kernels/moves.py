"""What a step's events do to their cases: transitions as columns, and each case afterwards.

`Moves` are the transitions of nearly all cases, computed at once; `Singles` those of the few
cases that `case_state.CaseFold` folds event by event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.events import NAME
from schemas.tables import LATE, RETRACTED, TRANSITIONS
from transforms.arrays import conform, integers, nulls
from transforms.hashing import hash_strings
from transforms.kernels import case_rows
from transforms.kernels.case_batch import CaseBatch
from transforms.kernels.case_state import PATH_ITEM, STATE_SCHEMA, CaseFold, Level, Rules
from transforms.kernels.segments import (
    NONE,
    Flags,
    Integers,
    append_lists,
    first_of_group,
    last_of_group,
    rank_in_group,
)


@dataclass
class Singles:
    """What the cases folded one by one gave.

    Attributes:
        groups: their numbers.
        transitions, late, retracted: rows of these tables.
        rows: what `CaseFold` found of each transition.
        of: group number of each transition.
        is_last: flags the newest transition of each case.
        levels: changes of the number of open cases.
        state: of the cases, afterwards.
        touched: flags the cases that changed.
        duplicates, gaps, ties, reversals, renewed: counts.
    """

    groups: Integers
    transitions: pa.Table
    rows: Sequence[dict[str, Any]]
    of: Integers
    is_last: Flags
    levels: Sequence[Level]
    late: pa.Table
    retracted: pa.Table
    state: pa.Table
    touched: Flags
    duplicates: int = 0
    gaps: int = 0
    ties: int = 0
    reversals: int = 0
    renewed: int = 0

    @classmethod
    def fold(cls, batch: CaseBatch, rare: Flags, rules: Rules) -> Singles:
        """Fold the rare cases with `CaseFold`."""
        groups = np.flatnonzero(rare)
        if not len(groups):
            return NO_SINGLES
        folds = []
        of: list[int] = []
        moved: list[dict[str, Any]] = []
        is_last: list[bool] = []
        for group, before, events in batch.singles(groups):
            fold = CaseFold(rules, batch.case_ids[group].as_py(), before)
            for event in events:
                fold.fold(event)
            folds.append(fold)
            moved += fold.transitions
            of += [group] * len(fold.transitions)
            is_last += [False] * (len(fold.transitions) - 1) + [True] * bool(fold.transitions)
        late = [row for fold in folds for row in fold.late]
        late_rows = batch.events.take(pa.array([row["row"] for row in late], pa.int64()))
        bounds = np.array([row["last_event_time"] for row in late], np.int64)
        # A case that was complete, came back and was denied anew keeps its gaps in its rows.
        return cls(
            groups=groups,
            transitions=case_rows.transitions_of_rows(moved, rules),
            rows=moved,
            of=np.array(of, np.int64),
            levels=[level for fold in folds for level in fold.levels],
            is_last=np.array(is_last, bool),
            late=case_rows.late(late_rows, bounds),
            retracted=case_rows.retracted([row for fold in folds for row in fold.retracted]),
            state=pa.Table.from_pylist([fold.state for fold in folds], schema=STATE_SCHEMA),
            touched=np.array([fold.touched for fold in folds], bool),
            duplicates=sum(fold.duplicates for fold in folds),
            gaps=sum(bool(row["gap"]) for row in moved),
            ties=sum(fold.ties for fold in folds),
            reversals=sum(fold.reversals for fold in folds),
            renewed=sum(fold.renewed for fold in folds),
        )


NO_SINGLES = Singles(
    groups=np.empty(0, np.int64),
    transitions=TRANSITIONS.schema.empty_table(),
    rows=(),
    of=np.empty(0, np.int64),
    levels=(),
    is_last=np.empty(0, bool),
    late=LATE.schema.empty_table(),
    retracted=RETRACTED.schema.empty_table(),
    state=STATE_SCHEMA.empty_table(),
    touched=np.empty(0, bool),
)


@dataclass
class Moves:
    """The transitions of all other cases, as columns over the event rows that made them.

    Attributes:
        batch: the step's events.
        rules: the kernel's settings.
        rows, groups: event row and case of each.
        previous: where what it follows stands: an event row, or behind them its case's state.
        has_previous: it follows something.
        event_us, previous_us: event time of both, in µs (0 where there is nothing before).
        sequence, is_last, gap, cut: number in its case; newest of its case; says it came from
            elsewhere; first of a log whose engine dropped the lines before it.
        first_time: of each case in µs.
        ties, reversals: counts (see `TransitionsKernel`).
    """

    batch: CaseBatch
    rules: Rules
    rows: Integers
    groups: Integers
    previous: Integers
    has_previous: Flags
    event_us: Integers
    previous_us: Integers
    sequence: Integers
    is_last: Flags
    gap: Flags
    cut: Flags
    first_time: Integers
    ties: int
    reversals: int
    _came_from: pa.Array = field(repr=False)

    @classmethod
    def of(cls, batch: CaseBatch, rare: Flags, rules: Rules) -> Moves:
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
        previous = np.empty(n, np.int64)
        previous[1:] = rows[:-1]
        previous[opening] = batch.events.num_rows + groups[opening]
        previous_time = np.empty(n, np.int64)
        previous_time[1:] = times[:-1]
        previous_time[opening] = batch.number("last_time", 0)[groups[opening]]
        first_time = batch.number("first_time", 0)
        fresh = opening[~has_previous[opening]]
        first_time[groups[fresh]] = times[fresh]
        came_from, gap = _gaps(batch, rows, previous, has_previous)
        cut = batch.flags("truncated")[rows] & (sequence == 0)
        tie = has_previous & (times == previous_time)
        return cls(
            batch=batch,
            rules=rules,
            rows=rows,
            groups=groups,
            previous=previous,
            has_previous=has_previous,
            event_us=times,
            previous_us=previous_time,
            sequence=sequence,
            is_last=last_of_group(groups),
            gap=gap | cut,
            cut=cut,
            first_time=first_time,
            ties=int(tie.sum()),
            reversals=_reversals(batch, rows, previous, has_previous & ~tie),
            _came_from=came_from,
        )

    def table(self, names: Sequence[str]) -> pa.Table:
        """Return columns of `TRANSITIONS`; ids and items take longest, and not all need them."""
        columns = {name: self._column(name) for name in names}
        schema = pa.schema([TRANSITIONS.schema.field(name) for name in names])
        arrays = [conform(columns[f.name], f.type) for f in schema]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _column(self, name: str) -> pa.Array:
        making: dict[str, Callable[[], pa.Array]] = {
            "row_id": self._row_ids,
            "case_id": lambda: self.batch.case_ids.take(pa.array(self.groups)),
            "sequence": lambda: pa.array(self.sequence),
            "from_state": lambda: self._came_from,
            "to_state": self._to_state,
            "duration_s": lambda: case_rows.seconds(
                self.event_us - self.previous_us, self.has_previous
            ),
            "elapsed_s": lambda: case_rows.seconds(self.elapsed_us),
            "previous_actor": lambda: self.batch.with_state("actor").take(pa.array(self.previous)),
            "is_start": self._is_start,
            "is_end": lambda: pa.array(self.is_end),
            "verdict": lambda: case_rows.constant("unknown", len(self.rows)),
            "gap": lambda: pa.array(self.gap),
        }
        if name in making:
            return making[name]()
        return self.batch.taken(name, pa.array(self.rows))

    @cached_property
    def order_us(self) -> Integers:
        """Order time in µs."""
        return self.batch.order_us[self.rows]

    @cached_property
    def is_end(self) -> Flags:
        """Flags transitions into an end state."""
        return case_rows.is_member(self._to_state(), self.rules.end_states)

    def before(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what stands at `previous`: a shift by one row, but where a case begins."""
        found = np.empty(len(self.rows), values.dtype)
        found[1:] = values[self.rows[:-1]]
        opening = np.flatnonzero(first_of_group(self.groups))
        found[opening] = values[self.previous[opening]]
        return found

    @property
    def elapsed_us(self) -> Integers:
        """Time since the start of the case."""
        return self.event_us - self.first_time[self.groups]

    def _row_ids(self) -> pa.Array:
        lanes = case_rows.case_lanes(self.batch.case_ids)
        own = (lanes[0][self.groups], lanes[1][self.groups])
        return case_rows.row_ids(own, self.sequence, self.event_us)

    def _to_state(self) -> pa.DictionaryArray:
        if not len(self.rows):
            return nulls(NAME, 0)
        return self.batch.events["state"].chunk(0).take(pa.array(self.rows))

    def _is_start(self) -> pa.Array:
        if self.cut.any():
            return pa.array(self.sequence == 0, mask=self.cut)
        return pa.array(self.sequence == 0)


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


def after_step(batch: CaseBatch, moves: Moves, singles: Singles, rare: Flags) -> pa.Table:
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


def path_items(batch: CaseBatch, moves: Moves, rows: Integers) -> pa.Array:
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
