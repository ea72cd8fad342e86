"""Partial rows of each kind, as tables (see `partial_rows`): sums over rows that share a key."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import NAME, TIME
from transforms.arrays import conform, integers, nulls
from transforms.hashing import HIGH, LOW, hash_strings, to_hex
from transforms.kernels.case_rows import timestamps
from transforms.kernels.completions import Completions, variant_codes
from transforms.kernels.grouping import (
    Keys,
    counts,
    dense,
    extremes,
    histogram,
    keys_of,
    name_codes,
    totals,
)
from transforms.kernels.levels import level_changes
from transforms.kernels.partial_rows import (
    EDGE,
    FLOW,
    LEVEL,
    NAMES,
    PARTIALS,
    VARIANT,
    bin_of,
)
from transforms.kernels.segments import Flags, Integers
from transforms.kernels.takes import Takes
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
class Span:
    """When partial rows are handed on.

    Attributes:
        windowing: how order time is cut.
        end_ms: of the step, in ms.
    """

    windowing: Windowing
    end_ms: int

    @classmethod
    def of(cls, folded: Folded, windowing: Windowing) -> Span:
        """Return when those of a step are handed on: at its end, or that of the input."""
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
        columns = [
            conform(made[field.name], field.type) if field.name in made else nulls(field.type, n)
            for field in PARTIALS
        ]
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


def rows_of_takes(
    kind: int,
    moved: Moved,
    keys: Keys,
    bucket_of: Integers,
    new: Integers,
    span: Span,
) -> pa.Table:
    """Make EDGE or ACTOR rows.

    Args:
        kind: which.
        moved: the transitions.
        keys: key and bucket of each.
        bucket_of: bucket of each key.
        new: cases that are new to each window, a row a key.
        span: when they are handed on.
    """
    take = pa.array(keys.picks)
    count = counts(keys)
    width = new.shape[1]
    offsets = pa.array(np.arange(len(keys) + 1, dtype=np.int32) * np.int32(width))
    made: dict[str, Any] = {
        "count": pa.array(count),
        "cases": pa.ListArray.from_arrays(offsets, pa.array(new.reshape(-1))),
        **_timed(keys, moved.timed, moved.duration_us),
    }
    names = moved.names
    if kind == EDGE:
        made |= _extremes(keys, moved.timed, moved.duration_us)
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
    """Flag transitions by somebody else than the one before, where both are known."""
    pair = pa.chunked_array([names["actor"], names["previous_actor"]]).unify_dictionaries()
    now, before = (
        pair.chunk(i).indices.fill_null(-1).to_numpy(zero_copy_only=False) for i in (0, 1)
    )
    # Who is not known may be the same person: nothing says that work was handed over.
    flags: Flags = (before >= 0) & (now >= 0) & (now != before)
    return flags


def _timed(keys: Keys, timed: Flags, values: Integers) -> dict[str, Any]:
    return dict(zip(("timed", "sum_us"), map(pa.array, totals(keys, timed, values)), strict=True))


def _extremes(keys: Keys, timed: Flags, values: Integers) -> dict[str, Any]:
    return dict(zip(("min_us", "max_us"), extremes(keys, timed, values), strict=True))


def rows_of_flow(moved: Moved, edges: Takes, span: Span) -> pa.Table:
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


def rows_of_late(folded: Folded, span: Span) -> pa.Table:
    """Make FLOW rows of events that came too late."""
    late = folded.late
    groups, versions = (conform(late[name], NAME) for name in ("workflow_group", "model_version"))
    buckets = span.windowing.index(integers(conform(late["order_time"], TIME)))
    keys = keys_of(dense(buckets)[0], name_codes(groups), name_codes(versions))
    take = pa.array(keys.picks)
    made = {"model_version": versions.take(take), "late": pa.array(counts(keys))}
    return span.table(FLOW, buckets[keys.picks], groups.take(take), made)


def rows_of_completed(folded: Folded, span: Span, kinds: Collection[int]) -> list[pa.Table]:
    """Make FLOW and VARIANT rows of completed cases, or those of them that are wanted."""
    found = Completions.of(folded)
    if folded.rules.since is not None:
        found = found.rows(np.flatnonzero(found.event_us >= folded.rules.since))
    buckets = span.windowing.index(found.order_us)
    tables = []
    if FLOW in kinds:
        tables.append(_completed_flow(found, buckets, span))
    if VARIANT in kinds:
        tables.append(_variants(found, buckets, span))
    return tables


def _completed_flow(found: Completions, buckets: Integers, span: Span) -> pa.Table:
    every = np.ones(len(buckets), bool)
    groups, versions = (name_codes(c) for c in (found.workflow_group, found.model_version))
    keys = keys_of(dense(buckets)[0], groups, versions)
    take = pa.array(keys.picks)
    bins = bin_of(found.cycle_us).astype(np.int64)
    shape = dict(zip(("bins", "tallies"), histogram(keys, every, bins), strict=True))
    return span.table(
        FLOW,
        buckets[keys.picks],
        found.workflow_group.take(take),
        {
            "model_version": found.model_version.take(take),
            "completed": pa.array(counts(keys)),
            "rework": pa.array(counts(keys, found.reworked())),
            **_timed(keys, every, found.cycle_us),
            **_extremes(keys, every, found.cycle_us),
            **shape,
        },
    )


def _variants(found: Completions, buckets: Integers, span: Span) -> pa.Table:
    high = found.variants(HIGH)
    groups = name_codes(found.workflow_group)
    keys = keys_of(dense(buckets)[0], groups, variant_codes(high))
    first = found.rows(keys.picks)
    return span.table(
        VARIANT,
        buckets[keys.picks],
        found.workflow_group.take(pa.array(keys.picks)),
        {
            "name": to_hex(high[keys.picks], first.variants(LOW)),
            "count": pa.array(counts(keys)),
            "states": first.states(),
            **_timed(keys, np.ones(len(buckets), bool), found.cycle_us),
        },
    )


def rows_of_levels(folded: Folded, span: Span) -> pa.Table:
    """Make LEVEL rows."""
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


def rows_of_names(folded: Folded, span: Span) -> pa.Table:
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
