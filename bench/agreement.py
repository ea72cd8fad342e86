"""Do two programs' tables hold the same rows?

A benchmark against another engine means nothing unless both did the same work. Hashed ids are
each engine's own, so they are compared up to a renaming: equal here exactly where equal there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from schemas.tables import (
    CASES,
    FLOW,
    PROCESS_MAP,
    STATE_TIMES,
    TRANSITIONS,
    VARIANTS,
    WORKLOAD,
    Output,
)
from transforms.kernels.partial_rows import ERROR

MOVED = (TRANSITIONS, CASES)
MEASURED = (PROCESS_MAP, STATE_TIMES, FLOW, WORKLOAD, VARIANTS)
_GROUP = ("window_start", "workflow_group")
ORDER = {
    "transitions": ("case_id", "sequence"),
    "cases": ("case_id",),
    "process_map": (*_GROUP, "model_version", "from_state", "to_state"),
    "state_times": (*_GROUP, "state"),
    "flow": (*_GROUP, "model_version"),
    "workload": (*_GROUP, "actor"),
    "variants": (*_GROUP, "states"),
}
HASHED = ("row_id", "event_id", "variant_id")
QUANTILE = re.compile(r"p\d+_s$")


def differences(ours: Path, theirs: Path, outputs: Sequence[Output] = MOVED) -> list[str]:
    """Compare the tables of two output folders, column by column.

    Floats may differ in their last bits, quantiles by what a sketch may be off.

    Args:
        ours: folder of `run.py`: `transitions/*.parquet`, `cases/*.parquet`.
        theirs: folder of a peer: `transitions.parquet`, `cases.parquet`.
        outputs: the tables.

    Returns:
        One sentence a column that differs; nothing if both hold the same rows.
    """
    found = []
    for output in outputs:
        a = _rows(_files(ours, output), output)
        b = _rows(_files(theirs, output), output)
        if len(a) != len(b):
            found.append(f"{output.name}: {len(a)} rows and {len(b)}")
            continue
        for name in output.schema.names:
            if name in HASHED:
                same = _renamed(a[name], b[name])
            elif pa.types.is_floating(a[name].type):
                same = _close(a[name], b[name], ERROR if QUANTILE.search(name) else 1e-12)
            else:
                same = a[name].equals(b[name])
            if not same:
                found.append(f"{output.name}.{name}: {_first_difference(a, b, name, output)}")
    return found


def _files(folder: Path, output: Output) -> list[str]:
    return [str(p) for p in sorted(folder.glob(f"{output.name}/*.parquet"))] or [
        str(folder / f"{output.name}.parquet")
    ]


def _rows(files: list[str], output: Output) -> pa.Table:
    """Read rows in one order, with the schema's types but dictionaries as plain strings."""
    table = ds.dataset(files, format="parquet").to_table()
    if table.schema.names != output.schema.names:
        reason = f"{output.name} has columns {table.schema.names}"
        raise ValueError(reason)
    columns = []
    for field in output.schema:
        column, wanted = table[field.name], field.type
        if pa.types.is_dictionary(wanted):
            wanted = wanted.value_type
        if pa.types.is_map(wanted) and column.null_count == len(column):
            column = pa.chunked_array([pa.nulls(len(column), wanted)])
        columns.append(column.cast(wanted).combine_chunks())
    table = pa.table(columns, names=output.schema.names)
    keys = [
        pc.binary_join(table[name], "|") if pa.types.is_list(table[name].type) else table[name]
        for name in ORDER[output.name]
    ]
    sorted_ = pa.table(keys, names=[f"key{n}" for n in range(len(keys))])
    order = pc.sort_indices(sorted_, [(name, "ascending") for name in sorted_.column_names])
    return table.take(order)


def _renamed(a: Any, b: Any) -> bool:
    """Say whether a renaming of values turns one column into the other."""
    # A pair has as many distinct values as each side only if none goes with two others.
    pairs = pc.binary_join_element_wise(a, b, " ")
    counts = {pc.count_distinct(column).as_py() for column in (a, b, pairs)}
    return len(counts) == 1 and not a.null_count and not b.null_count


def _close(a: Any, b: Any, rtol: float) -> bool:
    """Compare seconds; Polars multiplies by 1e-6 where others divide by 1e6 (the last bit)."""
    x, y = (column.to_numpy() for column in (a, b))
    same = np.allclose(x, y, rtol=rtol * (1 + 1e-9), atol=1e-8, equal_nan=True)
    return a.is_null().equals(b.is_null()) and same


def _first_difference(a: pa.Table, b: pa.Table, name: str, output: Output) -> str:
    for row, (x, y) in enumerate(zip(a[name].to_pylist(), b[name].to_pylist(), strict=True)):
        if x != y:
            key = a.select(list(ORDER[output.name])).slice(row, 1).to_pylist()[0]
            return f"{x!r} and {y!r} for {key}"
    return "equal values of other types"
