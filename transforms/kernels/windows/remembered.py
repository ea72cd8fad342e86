"""What the fold of windows remembers: its rows, and how they become those of the state."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms.arrays import conform
from transforms.kernels.partial_rows import LEVEL
from transforms.kernels.windows.early import Due, Ticks
from transforms.kernels.windows.levels import Base
from transforms.kernels.windows.rows import (
    BASE,
    CLOSED,
    PANES,
    STATE_SCHEMA,
    SUMS,
    TICKS,
    WAKE,
    Flags,
    Integers,
    Ragged,
    Rows,
    Text,
)

WAKE_SLOT = "wake|"
"""The slot that no partial row has."""


class Remembered:
    """The rows that stay, and the slots that are written anew.

    Attributes:
        rows: put together, slot by slot.
        ticks: that wait.
    """

    def __init__(self, rows: Rows, ticks: Ticks) -> None:
        """Begin with what has been put together: all of it stays, and all is written."""
        self.rows, self.ticks = rows, ticks
        self._slots: pa.Array = rows.texts["slot"].values
        self._written: Flags | None = None
        self._books: list[tuple[Integers, pa.Table]] = []
        self._window: int | None = None
        self._wakes = False
        self._note_windows(None)

    def _note_windows(self, over: int | None) -> None:
        """Note the next window that is to be written, when windows up to one have been."""
        moves = self.rows.in_buckets() | (self.rows.kind == LEVEL)
        buckets = self.rows.bucket[moves]
        self._window = None
        if len(buckets):
            self._window = int(buckets.min()) + 1
            if over is not None:
                self._window = max(self._window, over + 1)

    def next_window(self) -> int | None:
        """Return the next window that is to be written."""
        return self._window

    def wake(self) -> None:
        """Leave the row that is seen only together with all others."""
        self._wakes = True

    def forget(self) -> None:
        """Keep nothing."""
        self.rows = self.rows.take(np.empty(0, np.int64))
        self.ticks = self.ticks.where(np.zeros(len(self.ticks.time), bool))
        self._window = None

    def close(
        self, base: Base, due: Due, over: int, buckets: int, touched: Flags, until: int
    ) -> None:
        """Forget what no window needs that is not over, and note what has been written.

        Args:
            base: levels, as they are known from here on.
            due: early panes up to now.
            over: the last window that is over.
            buckets: of a window.
            touched: of slots: new rows came for it.
            until: order time in ms, before which ticks have been.
        """
        rows = self.rows
        book = np.isin(rows.kind, (LEVEL, BASE, CLOSED, PANES))
        live = rows.in_buckets()
        kept = (live & (rows.bucket + buckets > over)) | ~(live | book)
        kept |= (rows.kind == LEVEL) & (rows.bucket >= over)
        gone = self.ticks.time <= until
        changed = np.concatenate((rows.slot[book], self.ticks.slot[gone]))
        self.rows = rows.where(kept)
        self.ticks = self.ticks.where(~gone)
        self._note_windows(over)
        if base.wakes.any():
            self._window = over + 1
        self._keep(BASE, base.group, base.version, base.written, base.level, base.flow, base.last)
        open_panes = (due.window > over) & (due.panes > 0)
        self._keep(
            PANES, due.group[open_panes], None, due.window[open_panes], due.panes[open_panes]
        )
        if buckets > 1:
            groups = np.unique(self.rows.group[self.rows.in_buckets()])
            self._keep(CLOSED, groups, None, np.full(len(groups), over))
        changed = np.concatenate((changed, *(codes for codes, _ in self._books)))
        self._written = np.zeros(len(self._slots), bool)
        self._written[: len(touched)] = touched
        self._written[changed] = True

    def _keep(
        self,
        kind: int,
        group: Integers,
        version: Integers | None,
        bucket: Integers,
        count: Integers | None = None,
        least: Integers | None = None,
        most: Integers | None = None,
    ) -> None:
        """Keep rows of a kind that only the state has, in the slots of their groups' levels."""
        if not len(group):
            return
        groups = self.rows.texts["workflow_group"].values
        distinct, places = np.unique(group, return_inverse=True)
        named = groups.take(pa.array(distinct, mask=distinct < 0)).fill_null("")
        slots = pc.binary_join_element_wise("level", named, "|")
        codes = self._codes(slots)[places.reshape(-1)]
        columns = {
            "slot": self._slots.take(pa.array(codes)),
            "bucket": pa.array(bucket),
            "kind": pa.array(np.full(len(group), kind, np.int8)),
            "workflow_group": Text(group, groups).plain(),
        }
        if version is not None:
            columns["model_version"] = Text(
                version, self.rows.texts["model_version"].values
            ).plain()
        for name, values in (("count", count), ("min_us", least), ("max_us", most)):
            if values is not None:
                columns[name] = pa.array(values)
        self._books.append((codes, _table(columns, len(group))))

    def _codes(self, slots: pa.Array) -> Integers:
        """Return the codes of slots; new ones get one."""
        new = slots.filter(pc.invert(pc.is_in(slots, value_set=self._slots)))
        self._slots = pa.concat_arrays([self._slots, new.unique()])
        codes: Integers = pc.index_in(slots, value_set=self._slots).to_numpy().astype(np.int64)
        return codes

    def _tick_rows(self) -> tuple[Integers, pa.Table]:
        ticks = self.ticks
        starts, lists = ticks.rows()
        slots = ticks.slot[starts]
        columns = {
            "slot": self._slots.take(pa.array(slots)),
            "bucket": pa.array(ticks.bucket[starts]),
            "kind": pa.array(np.full(len(starts), TICKS, np.int8)),
            "workflow_group": Text(
                ticks.group[starts], self.rows.texts["workflow_group"].values
            ).plain(),
            "count": pa.array(ticks.levels[starts].astype(np.int64)),
            "cases": lists.lists(STATE_SCHEMA.field("cases").type),
        }
        return slots, _table(columns, len(starts))

    def changed(self) -> pa.Table:
        """Return the rows of the slots that are written anew, those of a slot together."""
        parts = [(self.rows.slot, None), *self._books, self._tick_rows()]
        tables, codes = [], []
        for slots, table in parts:
            places = np.arange(len(slots))
            if self._written is not None:
                places = np.flatnonzero(self._written[slots])
            rows = self.rows.take(places).table() if table is None else table.take(pa.array(places))
            tables.append(rows)
            codes.append(slots[places])
        table = pa.concat_tables(tables)
        order = np.argsort(np.concatenate(codes), kind="stable")
        columns = [conform(c, c.type).take(pa.array(order)) for c in table.columns]
        table = pa.Table.from_arrays(columns, schema=STATE_SCHEMA)
        if self._wakes:
            row = {"slot": pa.array([WAKE_SLOT]), "kind": pa.array([WAKE], pa.int8())}
            table = pa.concat_tables([table, _table(row, 1)]).combine_chunks()
        return table

    def removed(self, before: Flags) -> pa.Array:
        """Return the slots that had rows and have none.

        Args:
            before: of slots: had rows in the state.
        """
        left = np.zeros(len(self._slots), bool)
        for slots in (self.rows.slot, self.ticks.slot, *(codes for codes, _ in self._books)):
            left[slots] = True
        gone: npt.NDArray[np.bool_] = before & ~left[: len(before)]
        slots = self._slots.take(pa.array(np.flatnonzero(gone)))
        return slots.filter(pc.not_equal(slots, WAKE_SLOT))


def _table(columns: dict[str, pa.Array], rows: int) -> pa.Table:
    """Make state rows of some columns: numbers that are not given are 0, texts null."""
    arrays = []
    for each in STATE_SCHEMA:
        found = columns.get(each.name)
        if found is None and each.name in (*SUMS, "bucket"):
            found = pa.array(np.zeros(rows, np.int64))
        elif found is None and each.name in ("cases", "bins", "tallies"):
            found = Ragged(np.zeros(rows, np.int64), np.empty(0, np.int64)).lists(each.type)
        elif found is None:
            found = pa.nulls(rows, each.type)
        arrays.append(conform(found, each.type))
    return pa.Table.from_arrays(arrays, schema=STATE_SCHEMA)
