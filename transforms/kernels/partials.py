"""A step's partial rows: what it did, summed up by bucket and key (see `partial_rows`)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from transforms.hashing import LOW, combine, hash_strings
from transforms.kernels.grouping import (
    dense,
    keys_of,
    name_codes,
)
from transforms.kernels.partial_rows import (
    ACTOR,
    EDGE,
    FLOW,
    KINDS,
    LEVEL,
    NAMES,
    PARTIALS,
    VARIANT,
)
from transforms.kernels.partial_tables import (
    Moved,
    Span,
    rows_of_completed,
    rows_of_flow,
    rows_of_late,
    rows_of_levels,
    rows_of_names,
    rows_of_takes,
)
from transforms.kernels.segments import Hashes, Integers, first_of_group, last_of_group
from transforms.kernels.takes import Seen, Takes, as_lists, remembered
from transforms.kernels.transitions import Folded
from transforms.windows import Windowing


@dataclass(frozen=True)
class Partials:
    """Partial rows of a step, and what its cases remember for the next ones.

    Attributes:
        rows: of the schema `PARTIALS`.
        seen: makes the state columns `seen` and `seen_at` of the cases that have a new state.
    """

    rows: pa.Table
    seen: Callable[[], tuple[pa.Array, pa.Array]]


def partials_of(
    folded: Folded, windowing: Windowing, seen: Seen, kinds: Collection[int] = KINDS
) -> Partials:
    """Sum up a step.

    Args:
        folded: the step.
        windowing: how order time is cut.
        seen: what its cases remember (`groups` are numbers in `folded.batch`).
        kinds: of the rows wanted.
    """
    count = len(folded.batch.case_ids)
    lives, first_life, last_life = _lives(folded, count)
    alive = first_life[seen.groups] != _RENEWED
    seen = seen.where(alive)
    lives_seen = first_life[seen.groups]
    moved = Moved.of(folded, lives)
    span = Span.of(folded, windowing)
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
    # Transitions of FLOW are counted by edge.
    edges = EDGE in kinds or FLOW in kinds
    for kind in (*([EDGE] if edges else []), *([ACTOR] if ACTOR in kinds else [])):
        columns = _KEYS[kind]
        distinct = keys_of(*(codes[column] for column in columns))
        hashes[kind] = _hashes(
            kind, [names[column].take(pa.array(distinct.picks)) for column in columns]
        )
        found = Takes.of(
            distinct,
            hashes[kind],
            (every[0], every[1]),
            moved.lives,
            known,
            lives_seen[joins],
            of_seen[joins],
        )
        takes[kind] = found
        matched |= found.matched
        if kind in kinds:
            new = found.new_cases(windowing.buckets)
            parts.append(rows_of_takes(kind, moved, found.keys, found.bucket_of, new, span))
    if FLOW in kinds:
        parts += [rows_of_flow(moved, takes[EDGE], span), rows_of_late(folded, span)]
    if FLOW in kinds or VARIANT in kinds:
        parts += rows_of_completed(folded, span, kinds)
    if LEVEL in kinds:
        parts.append(rows_of_levels(folded, span))
    if NAMES in kinds:
        parts.append(rows_of_names(folded, span))

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

    return Partials(pa.concat_tables([*parts, PARTIALS.empty_table()]), remember)


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
