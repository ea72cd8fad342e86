"""Which rows of windows a report counts: the last panes, up to the last event.

An early pane may tell what its window's final one does not have: a variant that is not among the
most frequent any more. Windows behind the last event, in which cases are only open, go on for as
long as cases are remembered, and would push all others to the page's edge.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms.hashing import LOW, combine, hash_strings

_FINAL = "final"


def standing(tables: Mapping[str, pa.Table], names: tuple[str, ...]) -> dict[str, pa.Table]:
    """Leave out early rows of windows that are over.

    Args:
        tables: name -> rows.
        names: of the tables of windows.
    """
    found = dict(tables)
    over = [
        _window_and_group(rows)[_is_final(rows)]
        for rows in (tables[name] for name in names if name in tables)
    ]
    ended = np.unique(np.concatenate(over)) if over else np.empty(0, np.uint64)
    for name in names:
        rows = found.get(name)
        if rows is None or _is_final(rows).all():
            continue
        kept = _is_final(rows) | ~np.isin(_window_and_group(rows), ended)
        found[name] = rows.filter(pa.array(kept))
    return found


def until_last_event(flow: pa.Table) -> tuple[pa.Table, int]:
    """Leave out windows behind the last one with an event, and say how many rows they had."""
    if not flow.num_rows or flow["window_start"].null_count:
        return flow, 0
    events = pc.or_(pc.greater(flow["transitions"], 0), pc.greater(flow["late"], 0))
    last = pc.max(flow.filter(events)["window_start"])
    if not last.is_valid:
        return flow, 0
    kept = flow.filter(pc.less_equal(flow["window_start"], last))
    return kept, flow.num_rows - kept.num_rows


def _is_final(rows: pa.Table) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = np.asarray(
        pc.fill_null(pc.equal(pc.cast(rows["pane"], pa.string()), _FINAL), False)
    )
    return found


def _window_and_group(rows: pa.Table) -> npt.NDArray[np.uint64]:
    times = [
        pc.fill_null(pc.cast(rows[name], pa.timestamp("us", "UTC")).cast(pa.int64()), -(2**62))
        for name in ("window_start", "window_end")
    ]
    return combine(LOW, hash_strings(rows["workflow_group"]), *(np.asarray(t) for t in times))
