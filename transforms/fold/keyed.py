"""A kernel's state rows by key, in memory: lookups cost what they touch, not what is open.

Rows live in one large Arrow table and a small one of the newest changes; a dictionary tells
where the rows of each key begin. The small table is merged into the large one before it
weighs, so that a step with a few hundred keys costs the same beside ten thousand open cases
as beside a million.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.arrays import conform

MERGE_FROM = 2048
"""Changed rows that may wait beside the large table; a quarter of it, if that is more."""

_COUNT_BITS = 20
_COUNT = (1 << _COUNT_BITS) - 1


class KeyedRows:
    """Rows of a state schema, found by key (its first column, strings).

    Attributes:
        live: rows that stand.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._main = schema.empty_table()
        self._delta = schema.empty_table()
        # Key -> where its rows begin (in the large table, then the small one) and how many.
        self._index: dict[str, int] = {}
        self.live = 0

    def rows_of(self, keys: pa.Array) -> pa.Table:
        """Return the rows of some keys (distinct strings)."""
        found = [p for p in map(self._index.get, keys.to_pylist()) if p is not None]
        return self._take(_positions(np.array(found, np.int64)))

    def all(self) -> pa.Table:
        """Return every row."""
        self._merge()
        return self._main

    def apply(self, changed: pa.Table, removed: pa.Array) -> None:
        """Put rows in the place of the old ones of their keys, and drop removed keys.

        Args:
            changed: new rows (`schema`), those of a key next to each other.
            removed: keys.
        """
        for key in removed.to_pylist():
            self._forget(key)
        if changed.num_rows:
            keys = conform(changed.column(0), pa.string()).to_pylist()
            base = self._main.num_rows + self._delta.num_rows
            index = self._index
            previous = None
            for row, key in enumerate(keys, base):
                if key == previous:
                    index[key] += 1
                    continue
                self._forget(key)
                index[key] = row << _COUNT_BITS | 1
                previous = key
            self.live += len(keys)
            self._delta = _concatenate([self._delta, changed], self._schema)
        if self._delta.num_rows > max(MERGE_FROM, self._main.num_rows // 4):
            self._merge()

    def _forget(self, key: str) -> None:
        place = self._index.pop(key, None)
        if place is not None:
            self.live -= place & _COUNT

    def _merge(self) -> None:
        """Make one table of the rows that stand."""
        if not self._delta.num_rows and self.live == self._main.num_rows:
            return
        places = np.fromiter(self._index.values(), np.int64, len(self._index))
        places.sort()
        self._main = self._take(_positions(places))
        self._delta = self._schema.empty_table()
        keys = conform(self._main.column(0), pa.string()).to_pylist()
        if len(keys) == len(self._index):
            self._index = {key: row << _COUNT_BITS | 1 for row, key in enumerate(keys)}
            return
        self._index = {}
        for row, key in enumerate(keys):
            self._index[key] = self._index.get(key, row << _COUNT_BITS) + 1

    def _take(self, positions: npt.NDArray[np.int64]) -> pa.Table:
        border = self._main.num_rows
        old = positions[positions < border]
        new = positions[positions >= border] - border
        parts = []
        if len(old):
            parts.append(self._main.take(pa.array(old)))
        if len(new):
            parts.append(self._delta.take(pa.array(new)))
        return _concatenate(parts, self._schema)


def _positions(places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return every row's position, of places that hold first position and count."""
    counts = places & _COUNT
    starts = places >> _COUNT_BITS
    if not len(places) or counts.max() == 1:
        return starts
    ends = np.cumsum(counts)
    return np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1])


def _concatenate(tables: list[pa.Table], schema: pa.Schema) -> pa.Table:
    """Put tables after each other, one chunk a column."""
    tables = [table for table in tables if table.num_rows]
    if not tables:
        return schema.empty_table()
    if len(tables) == 1 and all(column.num_chunks == 1 for column in tables[0].columns):
        return tables[0]
    columns = [
        conform(pa.chunked_array([c for t in tables for c in t[f.name].chunks], f.type), f.type)
        for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
