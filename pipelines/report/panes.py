"""Which rows of windows count: an early pane does not, where its window has a final one.

It may tell what the final one does not: a variant that is not among the most frequent any more.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms.hashing import LOW, combine, hash_strings

_FINAL = "final"


def last_panes(tables: Mapping[str, pa.Table], names: tuple[str, ...]) -> dict[str, pa.Table]:
    """Leave out early rows of windows that are over.

    Args:
        tables: name -> rows.
        names: of the tables of windows.
    """
    found = dict(tables)
    final = {name: _is_final(found[name]) for name in names if name in found}
    early = [name for name, flags in final.items() if not flags.all()]
    if not early:
        return found
    windows = {name: _window_and_group(found[name]) for name in final}
    over = np.unique(np.concatenate([windows[name][flags] for name, flags in final.items()]))
    for name in early:
        kept = final[name] | ~np.isin(windows[name], over)
        found[name] = found[name].filter(pa.array(kept))
    return found


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
