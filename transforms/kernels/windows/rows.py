"""Partial rows as NumPy columns: texts as codes, lists as lengths and values.

The state of the fold of windows is made of them, too, with some kinds of rows of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.events import NAME
from transforms.arrays import conform
from transforms.kernels.partial_rows import EDGE, PARTIALS, VARIANT
from transforms.kernels.segments import list_lengths

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

BASE, CLOSED, TICKS, PANES, WAKE = range(6, 11)
"""Kinds of rows that only the state has.

`BASE`: of a group and version, `count` cases were open when window `bucket` ended; the last
bucket with events is `min_us`, the last window with any or with a change `max_us`.
`CLOSED`: of a group, windows up to `bucket` have been written.
`TICKS`: of a slot and bucket, the times `cases` in ms at which early panes are due.
`PANES`: of a group, `count` early panes of window `bucket` have been due.
`WAKE`: is there in a step that sees all slots.

A window is numbered by the bucket that it ends before.
"""

STATE_SCHEMA = pa.schema(
    [
        pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type)
        for f in PARTIALS
        if f.name != "order_time"
    ]
)
"""`PARTIALS` without order_time, texts plain; several rows a slot."""

TEXTS = ("slot", "workflow_group", "model_version", "name", "to_state")
SUMS = (
    *("count", "timed", "sum_us", "started", "completed", "late", "rework", "illegal"),
    "handovers",
)
LEAST = np.int64(np.iinfo(np.int64).min)
MOST = np.int64(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Text:
    """Strings as codes; -1 is null."""

    codes: Integers
    values: pa.Array

    def take(self, index: Integers) -> Text:
        """Return the texts at some places."""
        return Text(taken(self.codes, index), self.values)

    def name(self) -> pa.Array:
        """Return them as a dictionary of those that occur."""
        codes, values = self.codes, self.values
        if len(values) > len(codes):
            used, codes = np.unique(codes, return_inverse=True)
            values = values.take(pa.array(used, mask=used < 0))
            codes = np.where(used[codes] < 0, -1, codes - int((used < 0).any()))
            values = values.slice(int((used < 0).any()))
        indices = pa.array(codes.astype(np.int32), mask=codes < 0)
        return pa.DictionaryArray.from_arrays(indices, values)

    def plain(self) -> pa.Array:
        """Return them as strings."""
        return self.values.take(pa.array(self.codes, mask=self.codes < 0))


@dataclass(frozen=True)
class Ragged:
    """Lists of integers, one behind another."""

    lengths: Integers
    values: Integers

    @classmethod
    def of(cls, lists: pa.Array) -> Ragged:
        """Read a list array; null counts as empty."""
        if lists.null_count == len(lists):
            return cls.empty(len(lists))
        flat = lists.flatten()
        return cls(list_lengths(lists), flat.to_numpy(zero_copy_only=False).astype(np.int64))

    @classmethod
    def empty(cls, lists: int) -> Ragged:
        """Return so many lists without items."""
        return cls(np.broadcast_to(np.int64(0), (lists,)), np.empty(0, np.int64))

    def take(self, index: Integers) -> Ragged:
        """Return the lists at some places."""
        if not len(self.values):
            return Ragged.empty(len(index))
        if len(self.values) == len(self.lengths) and (self.lengths == 1).all():
            return Ragged(self.lengths[index], self.values[index])
        lengths = self.lengths[index]
        starts = (np.cumsum(self.lengths) - self.lengths)[index]
        return Ragged(lengths, self.values[ramps(starts, lengths)])

    def at(self, index: Integers, places: Integers) -> Integers:
        """Return an item of each of some lists, 0 behind its end."""
        if not len(self.values):
            return np.zeros(len(index), np.int64)
        inside = (places >= 0) & (places < self.lengths[index])
        starts = (np.cumsum(self.lengths) - self.lengths)[index]
        return np.where(inside, self.values[np.where(inside, starts + places, 0)], 0)

    def lists(self, type_: pa.DataType) -> pa.Array:
        """Return them as a list array of the type."""
        offsets = np.zeros(len(self.lengths) + 1, np.int32)
        offsets[1:] = np.cumsum(self.lengths)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(self.values)).cast(type_)


def ramps(starts: Integers, lengths: Integers) -> Integers:
    """Count up from each start, as many steps as its length, one ramp behind another."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)


def pack(*columns: Integers) -> Integers:
    """Make one integer of each row of columns: equal for equal rows, in the order of the columns.

    Columns that do not fit into 63 bits together are numbered by the values that occur.
    """
    packed = np.zeros(len(columns[0]), np.int64)
    bits = 0
    for column in columns:
        if not len(column):
            continue
        if column.strides == (0,):
            continue
        low = int(column.min())
        width = (int(column.max()) - low).bit_length()
        if bits + width > 63:
            distinct, packed = np.unique(packed, return_inverse=True)
            packed = packed.reshape(-1)
            bits = (len(distinct) - 1).bit_length()
        if bits + width > 63:
            distinct, column = np.unique(column, return_inverse=True)  # noqa: PLW2901
            column, low = column.reshape(-1), 0  # noqa: PLW2901
            width = (len(distinct) - 1).bit_length()
        if width:
            packed = (packed << np.int64(width)) | (column - np.int64(low))
            bits += width
    return packed


def taken(column: npt.NDArray[np.int64], index: Integers) -> Integers:
    """Take rows of a column; one that is all the same value costs nothing."""
    if len(column) and column.strides == (0,):
        return np.broadcast_to(column[:1], (len(index),)) if len(index) else column[:0]
    return column[index]


@dataclass(frozen=True)
class Rows:
    """Partial rows, or rows of windows (`bucket` is then the window's number).

    Attributes:
        texts: by name, see `TEXTS`.
        bucket: number of the bucket.
        kind: of `partial_rows` or of this module.
        sums: by name, see `SUMS`; a column that is all zeros takes no room.
        least: min_us, `MOST` where there is none.
        most: max_us, `LEAST` where there is none.
        cases: counts of new cases.
        bins: of the distribution.
        tallies: as many as `bins`.
        states: hashes.
    """

    texts: dict[str, Text]
    bucket: Integers
    kind: npt.NDArray[np.int8]
    sums: dict[str, Integers]
    least: Integers
    most: Integers
    cases: Ragged
    bins: Ragged
    tallies: Ragged
    states: pa.Array

    @classmethod
    def of(cls, state: pa.Table, events: pa.Table) -> Rows:
        """Put state rows and then new partial rows into columns."""

        def both(name: str) -> pa.Array:
            type_ = STATE_SCHEMA.field(name).type
            parts = [conform(t[name], type_) for t in (state, events) if t.num_rows]
            return pa.concat_arrays(parts) if parts else pa.array([], type_)

        def number(name: str, null: int) -> Integers:
            column = both(name)
            if column.null_count == len(column):
                return np.broadcast_to(np.int64(null), (len(column),))
            values: Integers = column.fill_null(null).to_numpy(zero_copy_only=False)
            return values if values.any() else np.broadcast_to(np.int64(0), (len(values),))

        return cls(
            texts={name: _text(state[name], events[name]) for name in TEXTS},
            bucket=number("bucket", 0),
            kind=both("kind").to_numpy(zero_copy_only=False),
            sums={name: number(name, 0) for name in SUMS},
            least=number("min_us", int(MOST)),
            most=number("max_us", int(LEAST)),
            cases=Ragged.of(both("cases")),
            bins=Ragged.of(both("bins")),
            tallies=Ragged.of(both("tallies")),
            states=both("states"),
        )

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def group(self) -> Integers:
        """Codes of the groups."""
        return self.texts["workflow_group"].codes

    @property
    def version(self) -> Integers:
        """Codes of the versions."""
        return self.texts["model_version"].codes

    @property
    def slot(self) -> Integers:
        """Codes of the slots."""
        return self.texts["slot"].codes

    def in_buckets(self) -> Flags:
        """Flag rows that are in windows."""
        flags: Flags = (self.kind >= EDGE) & (self.kind <= VARIANT)
        return flags

    def take(self, index: Integers) -> Rows:
        """Return the rows at some places."""
        return Rows(
            texts={name: text.take(index) for name, text in self.texts.items()},
            bucket=taken(self.bucket, index),
            kind=self.kind[index],
            sums={name: taken(column, index) for name, column in self.sums.items()},
            least=taken(self.least, index),
            most=taken(self.most, index),
            cases=self.cases.take(index),
            bins=self.bins.take(index),
            tallies=self.tallies.take(index),
            states=self._states(index),
        )

    def _states(self, index: Integers) -> pa.Array:
        if self.states.null_count == len(self.states):
            return pa.nulls(len(index), self.states.type)
        return self.states.take(pa.array(index))

    def where(self, flags: Flags) -> Rows:
        """Return the rows that are flagged."""
        return self if flags.all() else self.take(np.flatnonzero(flags))

    def renamed(self, name: str, codes: Integers, values: pa.Array | None = None) -> Rows:
        """Put other codes in the place of a text's."""
        old = self.texts[name]
        return replace(
            self, texts=self.texts | {name: Text(codes, old.values if values is None else values)}
        )

    def table(self) -> pa.Table:
        """Return them as state rows."""
        types = {f.name: f.type for f in STATE_SCHEMA}
        columns: dict[str, pa.Array] = {name: text.plain() for name, text in self.texts.items()}
        columns |= {name: pa.array(column) for name, column in self.sums.items()}
        columns["bucket"] = pa.array(self.bucket)
        columns["kind"] = pa.array(self.kind)
        columns["min_us"] = pa.array(self.least, mask=self.least == MOST)
        columns["max_us"] = pa.array(self.most, mask=self.most == LEAST)
        for name, lists in (("cases", self.cases), ("bins", self.bins), ("tallies", self.tallies)):
            columns[name] = lists.lists(types[name])
        columns["states"] = self.states
        return pa.Table.from_arrays([columns[f.name] for f in STATE_SCHEMA], schema=STATE_SCHEMA)


def _text(*columns: pa.ChunkedArray) -> Text:
    """Number the strings of some columns by one dictionary."""
    parts = [conform(column, NAME) for column in columns if len(column)]
    if not parts:
        return Text(np.empty(0, np.int64), pa.array([], pa.string()))
    whole = conform(pa.chunked_array(parts, NAME), NAME)
    if whole.null_count == len(whole):
        return Text(np.broadcast_to(np.int64(-1), (len(whole),)), pa.array([], pa.string()))
    codes = whole.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return Text(codes, whole.dictionary)
