"""How many cases are open: each step's changes of that number, one row a change."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from schemas.events import NAME
from transforms.arrays import conform, integers
from transforms.kernels.case_rows import is_member
from transforms.kernels.case_state import wake_ms
from transforms.kernels.segments import Flags, Integers
from transforms.kernels.transitions import Folded

_CHANGES = pa.schema(
    [
        ("order_us", pa.int64()),
        ("workflow_group", NAME),
        ("model_version", NAME),
        ("change", pa.int64()),
    ]
)


def level_changes(folded: Folded) -> pa.Table:
    """Return the changes of a step.

    A case is open from a transition to an end state, or until it is forgotten. It counts for the
    group and version of its newest transition. In a complete log all cases are closed when the
    log is over, each at its last transition.

    Returns:
        Columns `order_us`, `workflow_group`, `model_version`, `change` (1 or -1). A case that is
        forgotten is so when the fold would wake up for it, which may be after the step.
    """
    singles = folded.singles.levels
    columns: list[list[object]] = [[level[i] for level in singles] for i in range(4)]
    arrays = [conform(c, f.type) for c, f in zip(columns, _CHANGES, strict=True)]
    changes = pa.concat_tables(
        [*_of_moves(folded), pa.Table.from_arrays(arrays, schema=_CHANGES), _forgotten(folded)]
    )
    return pa.Table.from_arrays(
        [conform(changes[f.name], f.type) for f in _CHANGES], schema=_CHANGES
    )


def _of_moves(folded: Folded) -> list[pa.Table]:
    moves, batch = folded.moves, folded.batch
    names = [batch.with_state(name) for name in ("workflow_group", "model_version")]
    was_open = moves.has_previous
    is_open = np.ones(len(moves.rows), bool)
    if not folded.rules.complete_log:
        ended = is_member(batch.with_state("state"), folded.rules.end_states)
        was_open = was_open & ~moves.before(ended)
        is_open = ~moves.is_end
    moved = np.zeros(len(moves.rows), bool)
    for name in names:
        if len(name.dictionary) > 1 or name.null_count:
            codes = name.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            moved |= codes[moves.rows] != moves.before(codes)
    closes = np.flatnonzero(was_open & (~is_open | moved))
    opens = np.flatnonzero(is_open & (~was_open | moved))
    order_us = moves.order_us
    return [
        _table(order_us[closes], [n.take(pa.array(moves.previous[closes])) for n in names], -1),
        _table(order_us[opens], [n.take(pa.array(moves.rows[opens])) for n in names], 1),
    ]


def _forgotten(folded: Folded) -> pa.Table:
    after = folded.after
    is_open: Flags = after["last_time"].is_valid().to_numpy() & folded.gone
    if folded.rules.complete_log:
        at = integers(conform(after["updated"], pa.int64()))
    else:
        is_open &= ~is_member(conform(after["state"], NAME), folded.rules.end_states)
        at = folded.deadlines
    rows = pa.array(np.flatnonzero(is_open))
    at = at[is_open]
    if not folded.rules.complete_log:
        at = wake_ms(at, folded.rules) * 1000
    names = (conform(after[name], NAME) for name in ("workflow_group", "model_version"))
    return _table(at, [name.take(rows) for name in names], -1)


def _table(order_us: Integers, names: list[pa.DictionaryArray], change: int) -> pa.Table:
    changes = pa.array(np.full(len(order_us), change, np.int64))
    return pa.Table.from_arrays([pa.array(order_us), *names, changes], schema=_CHANGES)
