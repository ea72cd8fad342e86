"""Output rows of the transitions kernel, as whole columns: ids, durations, rework, variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import NAME
from schemas.tables import CASES, LATE, RETRACTED, TRANSITIONS
from transforms.arrays import conform, integers
from transforms.hashing import HIGH, LOW, Lane, combine, hash_strings, identify, mix, to_hex
from transforms.kernels.case_state import Rules
from transforms.kernels.segments import Flags, Integers, list_lengths, sums

SECOND = 1_000_000.0


def timestamps(us: Integers, valid: Flags | None = None) -> pa.Array:
    """Make a UTC timestamp column of µs since the epoch."""
    mask = None if valid is None else ~valid
    return pa.array(us, pa.int64(), mask=mask).view(pa.timestamp("us", tz="UTC"))


def seconds(us: Integers, valid: Flags | None = None) -> pa.Array:
    """Make a column of seconds of µs."""
    mask = None if valid is None else ~valid
    return pa.array(us / SECOND, pa.float64(), mask=mask)


def row_ids(cases: tuple[Lane, Lane], sequence: Integers, event_time: Integers) -> pa.Array:
    """Make ids of transitions from (case, sequence, event_time).

    The time keeps apart a case that comes back, from sequence 0, after its retention.
    """
    high = combine(HIGH, cases[0], sequence, event_time)
    return to_hex(high, combine(LOW, cases[1], sequence, event_time))


def case_lanes(case_ids: pa.Array) -> tuple[Lane, Lane]:
    """Hash case ids to two lanes, for row ids."""
    return hash_strings(case_ids, HIGH), hash_strings(case_ids, LOW)


def constant(value: str, rows: int) -> pa.DictionaryArray:
    """Make a dictionary column of one value."""
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array([value]))


def is_member(states: pa.DictionaryArray, wanted: frozenset[str]) -> Flags:
    """Flag rows whose value is one of the wanted."""
    if not wanted:
        return np.zeros(len(states), bool)
    hits = pc.is_in(states.dictionary, value_set=pa.array(sorted(wanted), pa.string()))
    flags = np.append(hits.to_numpy(zero_copy_only=False), False)
    codes = states.indices.fill_null(len(flags) - 1).to_numpy(zero_copy_only=False)
    found: Flags = flags[codes].astype(bool)
    return found


def transitions_of_rows(rows: Sequence[Mapping[str, Any]], rules: Rules) -> pa.Table:
    """Make a `transitions` table of rows that `CaseFold` found."""
    schema = TRANSITIONS.schema
    if not rows:
        return schema.empty_table()
    times = np.array([r["event_time"] for r in rows], np.int64)
    sequence = np.array([r["sequence"] for r in rows], np.int64)
    case_ids = pa.array([r["case_id"] for r in rows], pa.string())
    durations = [None if r["duration_us"] is None else r["duration_us"] / SECOND for r in rows]
    made: dict[str, Any] = {
        "row_id": row_ids(case_lanes(case_ids), sequence, times),
        "event_time": timestamps(times),
        "duration_s": pa.array(durations, pa.float64()),
        "elapsed_s": pa.array([r["elapsed_us"] / SECOND for r in rows], pa.float64()),
        "is_end": pa.array([r["to_state"] in rules.end_states for r in rows]),
        "verdict": constant("unknown", len(rows)),
    }
    columns = [conform(made.get(f.name, [r.get(f.name) for r in rows]), f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def cases(state: pa.Table, rules: Rules, complete: bool) -> pa.Table:
    """Make `cases` rows of state rows.

    Args:
        state: rows with the columns of `STATE_SCHEMA` up to `visits`, of cases in which at least
            one transition stands or stood.
        rules: the kernel's settings.
        complete: every case is complete (the end of a complete log).
    """
    schema = CASES.schema
    state = state.filter(pc.is_valid(state["last_time"]))
    n = state.num_rows
    if n == 0:
        return schema.empty_table()
    case_ids = conform(state["case_id"], pa.string())
    visits = conform(state["visits"], state.schema.field("visits").type)
    lengths = list_lengths(visits)
    flat = visits.flatten().to_numpy(zero_copy_only=False)
    first = integers(conform(state["first_time"], pa.int64()))
    last = integers(conform(state["last_time"], pa.int64()))
    states = conform(state["state"], NAME)
    ended = np.ones(n, bool) if complete else is_member(states, rules.end_states)
    lanes = case_lanes(case_ids)
    made: dict[str, Any] = {
        "row_id": to_hex(combine(HIGH, lanes[0]), combine(LOW, lanes[1])),
        "case_id": case_ids,
        "workflow_group": state["workflow_group"],
        "model_version": state["model_version"],
        "first_event_time": timestamps(first),
        "last_event_time": timestamps(last),
        "transitions": pa.array(lengths),
        "state": states,
        "is_complete": pa.array(ended),
        "cycle_time_s": seconds(last - first, ended),
        "rework": pa.array(rework(flat, lengths)),
        "gaps": state["gaps"],
        "variant_id": to_hex(*variant_lanes(flat, lengths)),
        "updated_at": timestamps(integers(conform(state["updated"], pa.int64()))),
    }
    return pa.Table.from_arrays([conform(made[f.name], f.type) for f in schema], schema=schema)


def rework(visits: Lane, lengths: Integers) -> Integers:
    """Count, per case, the states entered more than once (`visits` are hashes of them)."""
    count = len(lengths)
    groups = np.repeat(np.arange(count, dtype=np.uint64), lengths)
    bits = np.uint64(64 - max(1, int(count).bit_length()))
    # Group number above, as much of the hash as fits below: one sort finds what recurs.
    keys = np.sort((groups << bits) | (visits >> (np.uint64(64) - bits)))
    again = np.zeros(len(keys), bool)
    again[1:] = keys[1:] == keys[:-1]
    second = again.copy()
    second[1:] &= ~again[:-1]
    found = (keys[second] >> bits).astype(np.int64)
    return np.bincount(found, minlength=count).astype(np.int64)


def variant_lanes(visits: Lane, lengths: Integers) -> tuple[Lane, Lane]:
    """Hash, per case, the sequence of its states to 128 bits, in two lanes."""
    high, low = (variant_terms(seed, visits, lengths) for seed in (HIGH, LOW))
    return (
        combine(HIGH, sums(high, lengths), lengths),
        combine(LOW, sums(low, lengths), lengths),
    )


def variant_terms(seed: int, visits: Lane, lengths: Integers) -> Lane:
    """Hash each visit with its place: a variant is made of the sum of its visits, and their number.

    So the ways up to every visit of a case are found in one go.

    Args:
        seed: the lane.
        visits: hashes of the states entered, case by case.
        lengths: how many each case entered.
    """
    starts = np.cumsum(lengths) - lengths
    index = np.arange(len(visits), dtype=np.int64) - np.repeat(starts, lengths)
    places = mix(np.arange(lengths.max(initial=0), dtype=np.uint64) + np.uint64(seed))
    return mix(visits ^ places[index])


def _event_columns(events: pa.Table) -> dict[str, Any]:
    names = ["event_id", "event_time", "activity", "state", "source_state", "actor"]
    return {name: events[name] for name in [*names, "workflow_group", "model_version"]}


def late(events: pa.Table, bound: npt.NDArray[np.int64]) -> pa.Table:
    """Make `late` rows of events and the newest event time of their case by then (µs)."""
    schema = LATE.schema
    n = events.num_rows
    if n == 0:
        return schema.empty_table()
    case_ids = conform(events["case_id"], pa.string())
    event_ids = conform(events["event_id"], pa.string())
    made: dict[str, Any] = {
        **_event_columns(events),
        "row_id": identify([case_ids, event_ids, constant("late", n)], [bound]),
        "case_id": case_ids,
        "order_time": events["order_time"],
        "last_event_time": timestamps(bound),
        "reason": ["older than the newest event of its case"] * n,
        "source": render_source(events),
    }
    return pa.Table.from_arrays([conform(made[f.name], f.type) for f in schema], schema=schema)


def retracted(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Make `retracted` rows of what `CaseFold` took back."""
    schema = RETRACTED.schema
    if not rows:
        return schema.empty_table()
    n = len(rows)
    case_ids = pa.array([r["case_id"] for r in rows], pa.string())
    event_ids = pa.array([r["event_id"] for r in rows], pa.string())
    sequence = np.array([r["sequence"] for r in rows], np.int64)
    made: dict[str, Any] = {
        "row_id": identify([case_ids, event_ids, constant("retracted", n)], [sequence]),
        "event_time": timestamps(np.array([r["event_time"] for r in rows], np.int64)),
        "retracted_at": timestamps(np.array([r["order_us"] for r in rows], np.int64)),
        "retracted_by": [r["by"] for r in rows],
        "reason": ["a later snapshot of the case does not hold it"] * n,
    }
    columns = [conform(made.get(f.name, [r.get(f.name) for r in rows]), f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def render_source(events: pa.Table) -> pa.Array:
    """Write where events were read as `source:offset`."""
    source = conform(events["source"], pa.string())
    offset = conform(events["source_offset"], pa.int64()).cast(pa.string())
    return pc.coalesce(pc.binary_join_element_wise(source, offset, ":"), source)
