"""Do two programs' `transitions` and `cases` hold the same rows?

A benchmark against another engine means nothing unless both did the same work. Hashed ids are
each engine's own, so they are compared up to a renaming: equal here exactly where equal there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from schemas.tables import CASES, TRANSITIONS, Output

ORDER = {"transitions": ("case_id", "sequence"), "cases": ("case_id",)}
HASHED = {"transitions": ("row_id", "event_id"), "cases": ("row_id", "variant_id")}


def differences(ours: Path, theirs: Path) -> list[str]:
    """Compare the tables of two output folders, column by column.

    Args:
        ours: folder of `run.py transitions`: `transitions/*.parquet`, `cases/*.parquet`.
        theirs: folder of a peer: `transitions.parquet`, `cases.parquet`.

    Returns:
        One sentence a column that differs; nothing if both hold the same rows.
    """
    found = []
    for output in (TRANSITIONS, CASES):
        a = _rows(_files(ours, output), output)
        b = _rows(_files(theirs, output), output)
        if len(a) != len(b):
            found.append(f"{output.name}: {len(a)} rows and {len(b)}")
            continue
        for name in output.schema.names:
            if name in HASHED[output.name]:
                same = _renamed(a[name], b[name])
            elif pa.types.is_floating(a[name].type):
                same = _close(a[name], b[name])
            else:
                same = a[name].equals(b[name])
            if not same:
                found.append(f"{output.name}.{name}: {_first_difference(a, b, name)}")
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
    return table.sort_by([(name, "ascending") for name in ORDER[output.name]])


def _renamed(a: Any, b: Any) -> bool:
    """Say whether a renaming of values turns one column into the other."""
    # A pair has as many distinct values as each side only if none goes with two others.
    pairs = pc.binary_join_element_wise(a, b, " ")
    counts = {pc.count_distinct(column).as_py() for column in (a, b, pairs)}
    return len(counts) == 1 and not a.null_count and not b.null_count


def _close(a: Any, b: Any) -> bool:
    """Compare seconds; Polars multiplies by 1e-6 where others divide by 1e6 (the last bit)."""
    x, y = (column.to_numpy() for column in (a, b))
    return a.is_null().equals(b.is_null()) and np.allclose(x, y, rtol=1e-12, equal_nan=True)


def _first_difference(a: pa.Table, b: pa.Table, name: str) -> str:
    for row, (x, y) in enumerate(zip(a[name].to_pylist(), b[name].to_pylist(), strict=True)):
        if x != y:
            return f"{x!r} and {y!r} for case {a['case_id'][row].as_py()}"
    return "equal values of other types"
