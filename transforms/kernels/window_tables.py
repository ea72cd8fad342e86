"""The kernel of windows: partial rows of buckets become panes of the five tables of analytics.

Its state is the partial rows of open windows, put together slot by slot. What needs to see all
slots - to close windows, to write early panes and levels - waits for a wake, as then the host
steps it with the whole state. A window is numbered by the bucket that it ends before: window e of
n buckets holds buckets e - n to e - 1, and is over when bucket e begins.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa

from schemas.events import TIME
from schemas.tables import FLOW, PROCESS_MAP, STATE_TIMES, VARIANTS, WORKLOAD, Output
from transforms.arrays import conform, integers
from transforms.kernels.base import END, Control, Order, Step
from transforms.kernels.partial_rows import LEVEL, NAMES, PARTIALS
from transforms.kernels.windows.early import NONE_DUE, Due, Ticks
from transforms.kernels.windows.levels import QUIET_WINDOWS, Levels
from transforms.kernels.windows.merging import bound, merge_slots
from transforms.kernels.windows.remembered import Remembered
from transforms.kernels.windows.rows import (
    CLOSED,
    STATE_SCHEMA,
    TICKS,
    WAKE,
    Flags,
    Integers,
    Ragged,
    Rows,
    ramps,
)
from transforms.kernels.windows.tables import Writer, empty_tables
from transforms.kernels.windows.variants import MOST_VARIANTS, Names
from transforms.windows import Windowing

MOST_KEYS = 100_000
"""Edges, actors, variants and names that are kept apart in a slot."""

_ALL = 2**60
"""A window behind every other."""

AT_ONCE = 1_000_000
"""Rows that windows are put together from, and written, at a time."""


@dataclass(frozen=True)
class WindowKernel:
    """Kernel that writes `process_map`, `state_times`, `flow`, `workload` and `variants`.

    A window's final pane comes in the first step whose `until` is not before its end. What a
    step gives does not depend on how steps are cut; numbers of panes neither. All slots of a
    group must be on one shard. Steps are of two kinds: where the state holds a slot that no event
    touches, or the row that the kernel itself leaves for this (WAKE), the host has given all
    slots.

    What only early panes have told - a variant that is not among the most frequent any more, a key
    that found no room later - has no final pane: of a window with final panes only these count.

    With `global` windows every change of a level counts at once, as all are of one bucket.

    Counts of a step: `events`, `behind_windows` (partial rows whose bucket was over at their
    order time: they are left out, as its windows may have been written; levels and names are
    not left out), `bounded_keys` (keys that a slot had no room for: see `merging.bound`),
    `quiet_windows` (rows of `flow` of windows without events).

    Attributes:
        windowing: how order time is cut.
        early_ms: interval of early panes in order time; 0 for none.
        closes: the last step writes every window with rows, those that are not over, too, and
            leaves no state.
        last_ms: `until` of the last step, where that is known: then every step sees the whole
            state. With `closes` and without it the last step is that up to `END`.
        most_keys: see `MOST_KEYS`.
        most_variants: of a group and window that are told one by one.
        quiet_windows: see `levels.QUIET_WINDOWS`.
        at_once: see `AT_ONCE`.
        since_ms: windows without events that end before it are not told.
        tables: names of the tables that are wanted; None for all.
    """

    windowing: Windowing
    early_ms: int = 0
    closes: bool = False
    last_ms: int | None = None
    most_keys: int = MOST_KEYS
    most_variants: int = MOST_VARIANTS
    quiet_windows: int = QUIET_WINDOWS
    at_once: int = AT_ONCE
    since_ms: int | None = None
    name: str = "windows"
    key: str = "slot"
    order: Order = "any"
    tables: Collection[str] | None = None

    @property
    def takes(self) -> pa.Schema:
        """Schema of the rows that it folds."""
        return PARTIALS

    @property
    def state_schema(self) -> pa.Schema:
        """Several rows a slot: `windows.rows.STATE_SCHEMA`."""
        return STATE_SCHEMA

    @property
    def outputs(self) -> Mapping[str, Output]:
        """Tables written, by name."""
        tables = (PROCESS_MAP, STATE_TIMES, FLOW, WORKLOAD, VARIANTS)
        return {t.name: t for t in tables if self.tables is None or t.name in self.tables}

    def step(
        self, state: pa.Table, events: pa.Table, control: Sequence[Control], until: int
    ) -> Step:
        """Put the next partial rows to the others (see `Kernel.step`); `control` means nothing."""
        del control
        counts = {"events": events.num_rows}
        bounded = self.closes or self.last_ms is not None
        last = self.closes and until >= (END if self.last_ms is None else self.last_ms)
        events, order_us, counts["behind_windows"] = self._punctual(events)
        rows = Rows.of(state, events)
        known = state.num_rows
        touched = _flags(rows, rows.slot[known:])
        awake = bool((rows.kind[:known] == WAKE).any())
        whole = bounded or awake or not touched[rows.slot[:known]].all()
        before = _flags(rows, rows.slot[:known])
        ticks = Ticks.of(rows, known, order_us // 1000, self.early_ms)
        rows = merge_slots(rows.where((rows.kind != TICKS) & (rows.kind != WAKE)))
        rows, counts["bounded_keys"] = bound(rows, self.most_keys)
        remembered = Remembered(rows, ticks)
        parts: Iterator[dict[str, pa.Table]] = iter(())
        if whole:
            counts["quiet_windows"], parts = self._close(remembered, touched, until, last)
        outputs = self._next_rows(parts)
        if not bounded and not awake and (known or len(rows)):
            remembered.wake()
        return Step(
            outputs=outputs or self._rows_of([]),
            changed=remembered.changed,
            removed=remembered.removed(before),
            wake_at=None if last or until >= END else self._wake(remembered),
            counts=counts,
            more=iter(partial(self._next_rows, parts), None),
        )

    def _next_rows(self, parts: Iterator[dict[str, pa.Table]]) -> dict[str, pa.Table] | None:
        """Put parts together until there are many rows; None if no part is left."""
        taken: list[dict[str, pa.Table]] = []
        rows = 0
        for part in parts:
            taken.append(part)
            rows += sum(table.num_rows for table in part.values())
            if rows >= self.at_once:
                break
        return self._rows_of(taken) if taken else None

    def _rows_of(self, parts: Sequence[Mapping[str, pa.Table]]) -> dict[str, pa.Table]:
        return {
            name: pa.concat_tables([part[name] for part in parts if name in part] or [none])
            for name, none in empty_tables().items()
            if name in self.outputs
        }

    def _punctual(self, events: pa.Table) -> tuple[pa.Table, Integers, int]:
        """Leave out rows whose bucket was over; levels move into the bucket that was not.

        Returns:
            The rows, their order times in µs, and how many were left out.
        """
        order_us = integers(conform(events["order_time"], TIME))
        if self.windowing.kind == "global":
            return events, order_us, 0
        bucket = integers(conform(events["bucket"], pa.int64()))
        current = self.windowing.index(order_us)
        over = current > bucket
        if not over.any():
            return events, order_us, 0
        kind = conform(events["kind"], pa.int8()).to_numpy(zero_copy_only=False)
        bucket = np.where(over & (kind == LEVEL), current, bucket)
        at = events.schema.get_field_index("bucket")
        events = events.set_column(at, "bucket", pa.array(bucket))
        kept = ~over | (kind == LEVEL) | (kind == NAMES)
        return events.filter(pa.array(kept)), order_us[kept], int((~kept).sum())

    def _close(
        self, remembered: Remembered, touched: Flags, until: int, last: bool
    ) -> tuple[int, Iterator[dict[str, pa.Table]]]:
        """Write the windows that are over, and early panes; forget what no open window needs.

        Returns:
            The number of windows without events, and the rows of all.
        """
        rows = remembered.rows
        n = self.windowing.buckets
        over = self._over(until, last)
        written = _written(rows)
        live = rows.in_buckets()
        begin = np.maximum(rows.bucket, written) + 1
        end = np.where(live, rows.bucket + n, -_ALL)
        levels = Levels(rows, n, self.quiet_windows)
        names = Names(rows)
        due = NONE_DUE
        if self.early_ms:
            due = Due.of(rows, remembered.ticks, written, self.windowing, until)

        def final_index(group: Integers, window: Integers) -> Integers:
            return due.at(group, window)[0]

        def early_index(group: Integers, window: Integers) -> Integers:
            return due.at(group, window)[0] - 1

        make = partial(
            Writer,
            windowing=self.windowing,
            levels=levels,
            names=names,
            most_variants=self.most_variants,
        )
        final = make(pane="final", index=final_index)
        all_over = _ALL if last else over
        quiet, stretches = levels.quiet(self._first(), over, self.at_once)

        def parts() -> Iterator[dict[str, pa.Table]]:
            for index, window in self._chunks(begin, np.minimum(end, all_over)):
                yield final.tables(self._windows(rows, index, window))
            values = (rows.texts["workflow_group"].values, rows.texts["model_version"].values)
            for stretch in stretches:
                yield {"flow": final.quiet(stretch, *values)}
            if not due.changed.any() or last:
                return
            early = make(pane="early", index=early_index)
            open_from = np.maximum(begin, over + 1)
            for index, window in self._chunks(open_from, end):
                changed = due.at(rows.group[index], window)[1]
                if changed.any():
                    chosen = self._windows(rows, index[changed], window[changed])
                    yield early.tables(chosen)

        if last:
            remembered.forget()
        else:
            remembered.close(levels.base(over), due, over, n, touched, until)
        return quiet, parts()

    def _first(self) -> int:
        """Return the first window that is told if nothing happened in it."""
        if self.since_ms is None or self.windowing.kind == "global":
            return -_ALL
        return int(self.windowing.index(np.array([self.since_ms * 1000]))[0]) + 1

    def _over(self, until: int, last: bool) -> int:
        """Return the last window that is over."""
        if self.windowing.kind == "global":
            return int(last)
        if until >= END:
            return _ALL
        return int(self.windowing.index(np.array([until * 1000]))[0])

    def _windows(self, rows: Rows, index: Integers, window: Integers) -> Rows:
        """Take rows as those of windows: the new cases of each are those that count there."""
        cases = rows.cases.at(index, rows.bucket[index] - (window - self.windowing.buckets))
        # Each row has a list as long as a window, and is in as many windows.
        rows = replace(rows, cases=Ragged.empty(len(rows)))
        whole = len(index) == len(rows) and bool((index == np.arange(len(index))).all())
        chosen = rows if whole else rows.take(index)
        return replace(chosen, bucket=window, cases=Ragged(np.ones(len(window), np.int64), cases))

    def _chunks(self, begin: Integers, end: Integers) -> Iterator[tuple[Integers, Integers]]:
        """Yield rows and the windows that they are in, some whole windows at a time.

        Args:
            begin: the first window of each row.
            end: the last one.
        """
        index = np.flatnonzero(begin <= end)
        begin, end = begin[index], end[index]
        if not len(index):
            return
        if self.windowing.buckets == 1:
            yield index, begin
            return
        points, places = np.unique(np.concatenate((begin, end + 1)), return_inverse=True)
        steps = np.where(np.arange(2 * len(index)) < len(index), 1, -1)
        active = np.zeros(len(points), np.int64)
        np.add.at(active, places.reshape(-1), steps)
        active = np.cumsum(active)[:-1]
        total = np.concatenate((np.zeros(1, np.int64), np.cumsum(active * np.diff(points))))
        marks = np.arange(0, int(total[-1]), self.at_once)
        at = np.searchsorted(total, marks, side="right") - 1
        cuts = np.unique(points[at] + (marks - total[at]) // np.maximum(active[at], 1))
        for low, high in zip(cuts, [*cuts[1:], points[-1]], strict=True):
            first, final = np.maximum(begin, low), np.minimum(end, high - 1)
            inside = np.flatnonzero(first <= final)
            lengths = (final - first + 1)[inside]
            yield np.repeat(index[inside], lengths), ramps(first[inside], lengths)

    def _wake(self, remembered: Remembered) -> int | None:
        """Return when the next window is over or the next early pane is due, less 1 ms.

        A host steps a kernel in the granule that the deadline is in, so that a window is written
        in the step that ends with it.
        """
        times = remembered.ticks.time[:1] if not len(remembered.ticks.time) else None
        deadlines = [int(remembered.ticks.time.min())] if times is None else []
        window = remembered.next_window()
        if window is not None and self.windowing.kind != "global":
            deadlines.append(int(self.windowing.start_ms(np.array([window]))[0]))
        return min(deadlines) - 1 if deadlines else None


def _flags(rows: Rows, codes: Integers) -> Flags:
    """Flag some of the slots."""
    flags = np.zeros(len(rows.texts["slot"].values), bool)
    flags[codes] = True
    return flags


def _written(rows: Rows) -> Integers:
    """Return for each row the last window of its group that has been written."""
    closed = np.flatnonzero(rows.kind == CLOSED)
    windows = np.full(len(rows.texts["workflow_group"].values) + 1, -_ALL)
    windows[rows.group[closed]] = rows.bucket[closed]
    return windows[rows.group]
