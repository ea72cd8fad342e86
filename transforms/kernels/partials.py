"""A step's partial rows: what it did, summed up by bucket and key (see `partial_rows`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import NAME, TIME
from transforms.arrays import conform, integers, nulls
from transforms.hashing import HIGH, LOW, combine, hash_strings, to_hex
from transforms.kernels.case_rows import timestamps
from transforms.kernels.completions import Completions, variant_codes
from transforms.kernels.grouping import (
    Codes,
    Durations,
    Keys,
    counts,
    dense,
    durations,
    histogram,
    keys_of,
    name_codes,
)
from transforms.kernels.levels import level_changes
from transforms.kernels.partial_rows import (
    ACTOR,
    EDGE,
    FLOW,
    LEVEL,
    NAMES,
    PARTIALS,
    VARIANT,
    bin_of,
)
from transforms.kernels.segments import Flags, Hashes, Integers, first_of_group, last_of_group
from transforms.kernels.takes import Seen, Takes, as_lists, remembered
from transforms.kernels.transitions import Folded
from transforms.windows import Windowing

_NAMES = ("workflow_group", "model_version", "from_state", "to_state", "actor", "previous_actor")
_FLAGS = ("is_start", "verdict")


@dataclass(frozen=True)
class Moved:
    """A step's transitions, as partial rows need them.

    Attributes:
        names: name columns by name.
        table: `is_start` and `verdict`.
        order_us: order time in µs.
        timed: flags those with a transition before.
        duration_us: time since that.
        lives: number of the case, and another one after it was forgotten.
    """

    names: dict[str, pa.DictionaryArray]
    table: pa.Table
    order_us: Integers
    timed: Flags
    duration_us: Integers
    lives: Integers

    @classmethod
    def of(cls, folded: Folded, lives: Integers) -> Moved:
        """Return all transitions of a step but those before `Rules.since`."""
        moves, rows = folded.moves, folded.singles.rows
        table = folded.transitions([*_NAMES, *_FLAGS])
        order_us, timed = moves.order_us, moves.has_previous
        duration, event_us = moves.event_us - moves.previous_us, moves.event_us
        duration[~timed] = 0
        if rows:
            has = [row["duration_us"] is not None for row in rows]
            order_us = np.append(order_us, [row["order_us"] for row in rows])
            timed = np.append(timed, has)
            duration = np.append(duration, [row["duration_us"] or 0 for row in rows])
            event_us = np.append(event_us, [row["event_time"] for row in rows])
        since = folded.rules.since
        if since is not None:
            inside = event_us >= since
            table = table.filter(pa.array(inside))
            order_us, timed, duration = order_us[inside], timed[inside], duration[inside]
            lives = lives[inside]
        return cls(
            names={name: conform(table[name], NAME) for name in _NAMES},
            table=table.select(_FLAGS),
            order_us=order_us,
            timed=timed,
            duration_us=duration,
            lives=lives,
        )


@dataclass(frozen=True)
class Partials:
    """Partial rows of a step, and what its cases remember for the next ones.

    Attributes:
        rows: of the schema `PARTIALS`.
        seen: makes the state columns `seen` and `seen_at` of the cases that have a new state.
    """

    rows: pa.Table
    seen: Callable[[], tuple[pa.Array, pa.Array]]


def partials_of(folded: Folded, windowing: Windowing, seen: Seen) -> Partials:
    """Sum up a step.

    Args:
        folded: the step.
        windowing: how order time is cut.
        seen: what its cases remember (`groups` are numbers in `folded.batch`).
    """
    count = len(folded.batch.case_ids)
    lives, first_life, last_life = _lives(folded, count)
    alive = first_life[seen.groups] != _RENEWED
    seen = seen.where(alive)
    lives_seen = first_life[seen.groups]
    moved = Moved.of(folded, lives)
    span = _Span.of(folded, windowing)
    buckets = windowing.index(moved.order_us)
    every = dense(np.concatenate((buckets, seen.buckets)) if len(seen.buckets) else buckets)
    of_seen = every[0].values[len(buckets) :]
    # What is remembered of a case without transitions in this step stays as it is.
    joins = lives_seen >= 0
    names = moved.names
    codes = {name: name_codes(column) for name, column in names.items()}
    parts: list[pa.Table] = []
    takes: dict[int, Takes] = {}
    hashes: dict[int, Hashes] = {}
    known = seen.where(joins)
    matched = np.zeros(len(known.groups), bool)
    for kind, columns in _KEYS.items():
        kinds = keys_of(*(codes[column] for column in columns))
        hashes[kind] = _hashes(
            kind, [names[column].take(pa.array(kinds.picks)) for column in columns]
        )
        found = Takes.of(
            kinds,
            hashes[kind],
            (every[0], every[1]),
            moved.lives,
            known,
            lives_seen[joins],
            of_seen[joins],
        )
        takes[kind] = found
        matched |= found.matched
        new = found.new_cases(windowing.buckets)
        parts.append(_of_takes(kind, moved, codes, found.keys, found.bucket_of, new, span))
    parts += [
        _flow(moved, takes[EDGE], span),
        _late(folded, span),
        *_completed(folded, span),
        _levels(folded, span),
        _state_names(folded, span),
    ]

    def remember() -> tuple[pa.Array, pa.Array]:
        group_of = np.full(int(lives[-1]) + 1 if len(lives) else 0, -1, np.int64)
        with_rows = np.flatnonzero(last_life >= 0)
        group_of[last_life[with_rows]] = with_rows
        lasting = lives_seen[joins] == last_life[known.groups]
        found = [seen.where(~joins), known.where(~matched & lasting)]
        for kind, each in takes.items():
            life, key, bucket = each.newest()
            last = group_of[life] >= 0
            found.append(Seen(group_of[life[last]], hashes[kind][key[last]], bucket[last]))
        whole = remembered(found, windowing.buckets, count)
        return as_lists(whole, folded.groups_changed, count)

    return Partials(pa.concat_tables(parts), remember)


_KEYS = {
    EDGE: ("workflow_group", "model_version", "from_state", "to_state"),
    ACTOR: ("workflow_group", "actor"),
}
_RENEWED = -2


def _lives(folded: Folded, cases: int) -> tuple[Integers, Integers, Integers]:
    """Number the lives of the cases: a new one begins with each transition of number 0.

    Returns:
        The life of each transition; the life in which each case was before the step (-1 without
        transitions, `_RENEWED` if it begins with the first of them); and that in which it is.
    """
    moves, singles = folded.moves, folded.singles
    groups = np.concatenate((moves.groups, singles.of))
    sequence = np.append(moves.sequence, [row["sequence"] for row in singles.rows])
    first, last = first_of_group(groups), last_of_group(groups)
    lives: Integers = np.cumsum(first | (sequence == 0)) - 1
    before = np.full(cases, -1, np.int64)
    before[groups[first]] = np.where(sequence[first] == 0, _RENEWED, lives[first])
    now = np.full(cases, -1, np.int64)
    now[groups[last]] = lives[last]
    return lives, before, now


def _hashes(kind: int, columns: list[pa.Array]) -> Hashes:
    return combine(LOW + kind, *(hash_strings(column) for column in columns))


@dataclass(frozen=True)
class _Span:
    """When partial rows are handed on."""

    windowing: Windowing
    end_ms: int

    @classmethod
    def of(cls, folded: Folded, windowing: Windowing) -> _Span:
        if not folded.over:
            return cls(windowing, folded.until)
        updated = integers(conform(folded.after["updated"], pa.int64()))
        times = np.concatenate((folded.batch.order_us, updated))
        return cls(windowing, int(times.max()) // 1000 + 1 if len(times) else 0)

    def last_us(self, buckets: Integers) -> Integers:
        """Return the last whole ms of each bucket, or of the step if that is before."""
        ends = np.full(len(buckets), self.end_ms)
        if self.windowing.kind != "global":
            ends = np.minimum(ends, self.windowing.start_ms(buckets + 1))
        return (ends - 1) * 1000

    def table(
        self, kind: int, buckets: Integers, groups: pa.DictionaryArray, made: dict[str, Any]
    ) -> pa.Table:
        """Make partial rows of their columns; those not given hold nothing."""
        n = len(buckets)
        times = self.last_us(buckets)
        if kind == NAMES:
            times = np.full(n, (self.end_ms - 1) * 1000)
        made = {
            "slot": _slots(kind, buckets, groups),
            "order_time": timestamps(times),
            "bucket": pa.array(buckets),
            "kind": pa.array(np.full(n, kind, np.int8)),
            "workflow_group": groups,
            **made,
        }
        zeros = pa.array(np.zeros(n, np.int64))
        columns = []
        for field in PARTIALS:
            if field.name in made:
                columns.append(conform(made[field.name], field.type))
            elif field.type == pa.int64() and field.name not in ("min_us", "max_us"):
                columns.append(zeros)
            else:
                columns.append(nulls(field.type, n))
        return pa.Table.from_arrays(columns, schema=PARTIALS)


def _slots(kind: int, buckets: Integers, groups: pa.DictionaryArray) -> pa.DictionaryArray:
    fixed = {LEVEL: "level", NAMES: "names"}.get(kind)
    at = dense(np.zeros_like(buckets) if fixed else buckets)[0]
    keys = keys_of(at, name_codes(groups))
    take = pa.array(keys.picks)
    tails = groups.take(take).cast(pa.string()).fill_null("")
    heads = pa.array(buckets[keys.picks]).cast(pa.string()) if fixed is None else fixed
    texts = pc.binary_join_element_wise(heads, tails, "|")
    return pa.DictionaryArray.from_arrays(pa.array(keys.ids.astype(np.int32)), texts)


def _of_takes(
    kind: int,
    moved: Moved,
    codes: dict[str, Codes],
    keys: Keys,
    bucket_of: Integers,
    new: Integers,
    span: _Span,
) -> pa.Table:
    """Make EDGE or ACTOR rows."""
    take = pa.array(keys.picks)
    count = counts(keys)
    timing = durations(keys, moved.timed, moved.duration_us)
    width = new.shape[1]
    offsets = pa.array(np.arange(len(keys) + 1, dtype=np.int32) * np.int32(width))
    made: dict[str, Any] = {
        "count": pa.array(count),
        "cases": pa.ListArray.from_arrays(offsets, pa.array(new.reshape(-1))),
        **_timed(timing),
    }
    names = moved.names
    if kind == EDGE:
        bins = bin_of(moved.duration_us).astype(np.int64)
        made["bins"], made["tallies"] = histogram(keys, moved.timed, bins)
        made["name"] = names["from_state"].take(take)
        made["to_state"] = names["to_state"].take(take)
        made["model_version"] = names["model_version"].take(take)
    else:
        made["name"] = names["actor"].take(take)
        made["handovers"] = pa.array(counts(keys, _handed_over(names)))
    table = span.table(kind, bucket_of, names["workflow_group"].take(take), made)
    return table if count.all() else table.filter(pa.array(count > 0))


def _handed_over(names: dict[str, pa.DictionaryArray]) -> Flags:
    """Flag transitions by somebody else than the one before, whoever it was."""
    pair = pa.chunked_array([names["actor"], names["previous_actor"]]).unify_dictionaries()
    now, before = (
        pair.chunk(i).indices.fill_null(-1).to_numpy(zero_copy_only=False) for i in (0, 1)
    )
    flags: Flags = (before >= 0) & (now != before)
    return flags


def _timed(timing: Durations) -> dict[str, Any]:
    return {
        "timed": pa.array(timing.timed),
        "sum_us": pa.array(timing.sum_us),
        "min_us": timing.min_us,
        "max_us": timing.max_us,
    }


def _flow(moved: Moved, edges: Takes, span: _Span) -> pa.Table:
    """Make FLOW rows of transitions, out of what was counted by edge."""
    made = moved.table
    started = pc.fill_null(made["is_start"], False).to_numpy()
    illegal = pc.fill_null(pc.equal(made["verdict"], "illegal"), False).to_numpy()
    by_edge = [counts(edges.keys), counts(edges.keys, started), counts(edges.keys, illegal)]
    used = np.flatnonzero(by_edge[0])
    take = pa.array(edges.keys.picks[used])
    groups, versions = (moved.names[n].take(take) for n in ("workflow_group", "model_version"))
    buckets = edges.bucket_of[used]
    keys = keys_of(dense(buckets)[0], name_codes(groups), name_codes(versions))
    totals = np.zeros((3, len(keys)), np.int64)
    for total, values in zip(totals, by_edge, strict=True):
        np.add.at(total, keys.ids, values[used])
    take = pa.array(keys.picks)
    return span.table(
        FLOW,
        buckets[keys.picks],
        groups.take(take),
        {
            "model_version": versions.take(take),
            "count": pa.array(totals[0]),
            "started": pa.array(totals[1]),
            "illegal": pa.array(totals[2]),
        },
    )


def _late(folded: Folded, span: _Span) -> pa.Table:
    late = folded.late
    groups, versions = (conform(late[name], NAME) for name in ("workflow_group", "model_version"))
    buckets = span.windowing.index(integers(conform(late["order_time"], TIME)))
    keys = keys_of(dense(buckets)[0], name_codes(groups), name_codes(versions))
    take = pa.array(keys.picks)
    made = {"model_version": versions.take(take), "late": pa.array(counts(keys))}
    return span.table(FLOW, buckets[keys.picks], groups.take(take), made)


def _completed(folded: Folded, span: _Span) -> list[pa.Table]:
    """Make FLOW and VARIANT rows of completed cases."""
    found = Completions.of(folded)
    if folded.rules.since is not None:
        found = found.rows(np.flatnonzero(found.event_us >= folded.rules.since))
    every = np.ones(len(found.order_us), bool)
    buckets = span.windowing.index(found.order_us)
    at = dense(buckets)[0]
    groups = name_codes(found.workflow_group)
    keys = keys_of(at, groups, name_codes(found.model_version))
    take = pa.array(keys.picks)
    bins = bin_of(found.cycle_us).astype(np.int64)
    shape = dict(zip(("bins", "tallies"), histogram(keys, every, bins), strict=True))
    flow = span.table(
        FLOW,
        buckets[keys.picks],
        found.workflow_group.take(take),
        {
            "model_version": found.model_version.take(take),
            "completed": pa.array(counts(keys)),
            "rework": pa.array(counts(keys, found.reworked())),
            **_timed(durations(keys, every, found.cycle_us)),
            **shape,
        },
    )
    high = found.variants(HIGH)
    ways = keys_of(at, groups, variant_codes(high))
    first = found.rows(ways.picks)
    take = pa.array(ways.picks)
    variants = span.table(
        VARIANT,
        buckets[ways.picks],
        found.workflow_group.take(take),
        {
            "name": to_hex(high[ways.picks], first.variants(LOW)),
            "count": pa.array(counts(ways)),
            "states": first.states(),
            **_timed(durations(ways, every, found.cycle_us)),
        },
    )
    return [flow, variants]


def _levels(folded: Folded, span: _Span) -> pa.Table:
    changes = level_changes(folded)
    groups, versions = (
        conform(changes[name], NAME) for name in ("workflow_group", "model_version")
    )
    buckets = span.windowing.index(integers(conform(changes["order_us"], pa.int64())))
    keys = keys_of(dense(buckets)[0], name_codes(groups), name_codes(versions))
    total = np.zeros(len(keys), np.int64)
    np.add.at(total, keys.ids, integers(conform(changes["change"], pa.int64())))
    changed = total != 0
    picks = keys.picks[changed]
    take = pa.array(picks)
    made = {"model_version": versions.take(take), "count": pa.array(total[changed])}
    return span.table(LEVEL, buckets[picks], groups.take(take), made)


def _state_names(folded: Folded, span: _Span) -> pa.Table:
    """Make a row of each state entered: its name by its hash, for the ways of variants."""
    table = folded.transitions(["workflow_group", "to_state"])
    groups, states = (conform(table[name], NAME) for name in ("workflow_group", "to_state"))
    keys = keys_of(name_codes(groups), name_codes(states))
    take = pa.array(keys.picks)
    names = states.take(take)
    offsets = pa.array(np.arange(len(keys) + 1, dtype=np.int32))
    hashes = pa.ListArray.from_arrays(offsets, pa.array(hash_strings(names)))
    buckets = np.zeros(len(keys), np.int64)
    return span.table(NAMES, buckets, groups.take(take), {"name": names, "states": hashes})
