"""Sums over rows with one key, in NumPy, and names as codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def integers(column: pa.ChunkedArray, missing: int = 0) -> Integers:
    """Return a column of whole numbers; times are in ms since the epoch."""
    if pa.types.is_timestamp(column.type):
        us: Integers = np.asarray(column.cast(pa.int64()).fill_null(missing * 1000))
        return us // 1000
    found: Integers = np.asarray(column.fill_null(missing)).astype(np.int64)
    return found


def floats(column: pa.ChunkedArray) -> Floats:
    """Return a column of numbers; null is NaN."""
    found: Floats = np.asarray(column.cast(pa.float64()).fill_null(np.nan))
    return found


@dataclass(frozen=True)
class Names:
    """The names of one kind, numbered: those that matter most, and one number for the rest.

    Attributes:
        kept: the names; None is the last one, where there are rows without a name.
        rest: how many others share the number `len(kept)`; 0 if there are none.
    """

    kept: tuple[str | None, ...]
    rest: int

    @classmethod
    def most(cls, weights: Mapping[str | None, float], most: int) -> Names:
        """Keep the names of the greatest weight, in their order, and None however light it is.

        That there is no name is no name among others: as a state it is where cases start.
        """
        names = [name for name in weights if name is not None]
        ranked = sorted(names, key=lambda name: (-weights[name], name))
        none = [None] if None in weights else []
        return cls((*sorted(ranked[:most]), *none), max(0, len(ranked) - most))

    @property
    def named(self) -> int:
        """How many names are kept."""
        return sum(name is not None for name in self.kept)

    def codes(self, column: pa.ChunkedArray) -> Integers:
        """Return the number of each name."""
        indices, values = _dictionary(column)
        numbers = {name: number for number, name in enumerate(self.kept)}
        rest = len(self.kept)
        # The last place is that of null, whose index is -1.
        table = [numbers.get(value, rest) for value in [*values, None]]
        found: Integers = np.array(table, np.int64)[indices]
        return found

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return len(self.kept) + bool(self.rest)

    def document(self) -> dict[str, Any]:
        """Return what the page reads."""
        return {"names": list(self.kept), "rest": self.rest}


def weigh(weights: dict[str | None, float], column: pa.ChunkedArray, by: Floats | Integers) -> None:
    """Add the weight of each row to its name."""
    indices, values = _dictionary(column)
    sums = np.bincount(indices + 1, weights=by, minlength=len(values) + 1)
    present = np.bincount(indices + 1, minlength=len(values) + 1)
    for name, weight, count in zip([None, *values], sums, present, strict=True):
        if count:
            weights[name] = weights.get(name, 0.0) + float(weight)


def _dictionary(column: pa.ChunkedArray) -> tuple[Integers, list[str]]:
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    array = column.unify_dictionaries().combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], column.type)
    indices = np.asarray(array.indices.fill_null(-1)).astype(np.int64)
    return indices, array.dictionary.to_pylist()


@dataclass(frozen=True)
class Grouped:
    """Rows put together by their key.

    Attributes:
        keys: of each group, a column a part of the key.
        rows: how many rows each group has.
    """

    keys: tuple[Integers, ...]
    rows: Integers
    _order: Integers
    _starts: Integers

    def sum(self, values: Integers | Floats) -> Any:
        """Add up; NaN counts as nothing."""
        return self._reduced(np.add, np.nan_to_num(values) if values.dtype.kind == "f" else values)

    def most(self, values: Floats) -> Floats:
        """Return the greatest; NaN if there is none."""
        return self._reduced(np.fmax, values)

    def least(self, values: Floats) -> Floats:
        """Return the least; NaN if there is none."""
        return self._reduced(np.fmin, values)

    def only(self, values: Floats) -> Floats:
        """Return the value of groups of one row; NaN for others, as quantiles do not add up."""
        found: Floats = np.where(self.rows == 1, values[self._order][self._starts], np.nan)
        return found

    def _reduced(self, ufunc: Any, values: Any) -> Any:
        return ufunc.reduceat(values[self._order], self._starts) if len(self._starts) else values


def group(keys: Sequence[Integers], sizes: Sequence[int]) -> Grouped:
    """Put rows together.

    Args:
        keys: a column a part of the key, each of numbers from 0 up to its size.
        sizes: of the parts.
    """
    code = np.zeros(len(keys[0]), np.int64)
    for key, size in zip(keys, sizes, strict=True):
        code = code * size + key
    order = np.argsort(code, kind="stable")
    ordered = code[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    rows = np.diff(np.append(starts, len(ordered)))
    first = order[starts]
    return Grouped(tuple(key[first] for key in keys), rows, order, starts)
