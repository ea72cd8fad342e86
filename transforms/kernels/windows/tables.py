"""Rows of windows become rows of the five tables (`schemas.tables`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.events import TIME
from schemas.tables import FLOW, PROCESS_MAP, STATE_TIMES, VARIANTS, WORKLOAD, Output
from transforms.arrays import conform
from transforms.hashing import LOW, combine, hash_strings, identify
from transforms.kernels import partial_rows
from transforms.kernels.segments import first_of_group
from transforms.kernels.windows.levels import Levels, Quiet
from transforms.kernels.windows.merging import merge, quantiles
from transforms.kernels.windows.rows import Flags, Integers, Rows, Text, pack
from transforms.kernels.windows.variants import Names, most_frequent
from transforms.windows import Windowing

_PERCENTS = (50, 90, 99)


@dataclass(frozen=True)
class Writer:
    """Writes panes of one kind.

    Attributes:
        windowing: how time is cut.
        pane: `early` or `final`.
        index: numbers of panes, of codes of groups and windows.
        levels: of open cases.
        names: of states.
        most_variants: of a group and window that are told one by one.
    """

    windowing: Windowing
    pane: str
    index: Callable[[Integers, Integers], Integers]
    levels: Levels
    names: Names
    most_variants: int

    def tables(self, rows: Rows) -> dict[str, pa.Table]:
        """Write rows of windows (`bucket` is the window's number, `cases` one number)."""
        edges = rows.where(rows.kind == partial_rows.EDGE)
        name, to = edges.texts["name"], edges.texts["to_state"]
        edges_of_windows = self._merged(edges, edges.version, name.codes, to.codes)
        stays = edges.where((name.codes >= 0) & (edges.sums["timed"] > 0))
        stays = merge(stays, pack(stays.bucket, stays.group, stays.texts["name"].codes))
        flow = rows.where(rows.kind == partial_rows.FLOW)
        actors = rows.where(rows.kind == partial_rows.ACTOR)
        actors = self._merged(actors, actors.texts["name"].codes)
        variants = rows.where(rows.kind == partial_rows.VARIANT)
        return {
            "process_map": self._process_map(edges_of_windows),
            "state_times": self._state_times(stays),
            "flow": self._flow(self._merged(flow, flow.version)),
            "workload": self._workload(actors),
            "variants": self._variants(most_frequent(variants, self.most_variants)),
        }

    def _merged(self, rows: Rows, *keys: Integers) -> Rows:
        # In a window of one bucket the rows are together already.
        if self.windowing.buckets == 1:
            return rows
        return merge(rows, pack(rows.bucket, rows.group, *keys))

    def _process_map(self, rows: Rows) -> pa.Table:
        timed = rows.sums["timed"] > 0
        return self._table(
            PROCESS_MAP,
            rows,
            ("model_version", rows.texts["model_version"]),
            ("from_state", rows.texts["name"]),
            ("to_state", rows.texts["to_state"]),
            count=rows.sums["count"],
            cases=rows.cases.values,
            mean_s=_mean(rows),
            min_s=_some(rows.least / 1e6, timed),
            max_s=_some(rows.most / 1e6, timed),
            **_quantiles(rows, "", timed),
        )

    def _state_times(self, rows: Rows) -> pa.Table:
        timed = rows.sums["timed"] > 0
        return self._table(
            STATE_TIMES,
            rows,
            ("state", rows.texts["name"]),
            visits=rows.sums["timed"],
            mean_s=_mean(rows),
            max_s=rows.most / 1e6,
            **_quantiles(rows, "", timed),
        )

    def _flow(self, rows: Rows) -> pa.Table:
        completed = rows.sums["completed"]
        return self._table(
            FLOW,
            rows,
            ("model_version", rows.texts["model_version"]),
            started=rows.sums["started"],
            completed=completed,
            transitions=rows.sums["count"],
            active_cases=self.levels.at(rows.group, rows.version, rows.bucket),
            late=rows.sums["late"],
            throughput_per_h=self._per_hour(completed, rows.bucket),
            rework_rate=_ratio(rows.sums["rework"], completed),
            illegal=rows.sums["illegal"],
            **_quantiles(rows, "cycle_", rows.sums["timed"] > 0),
        )

    def quiet(self, quiet: Quiet, groups: pa.Array, versions: pa.Array) -> pa.Table:
        """Write rows of `flow` for windows without events."""
        if self.windowing.zone:
            # Without a day that was left out there.
            start, end = self._ends(quiet.window)
            columns = (quiet.group, quiet.version, quiet.window, quiet.level)
            quiet = Quiet(*(column[start < end] for column in columns))
        none = np.zeros(len(quiet.window), np.int64)
        nothing = pa.nulls(len(none), pa.float64())
        return self._assembled(
            FLOW,
            Text(quiet.group, groups),
            quiet.window,
            [("model_version", Text(quiet.version, versions))],
            {
                **dict.fromkeys(("started", "completed", "transitions", "late", "illegal"), none),
                "active_cases": quiet.level,
                "throughput_per_h": self._per_hour(none, quiet.window),
                **dict.fromkeys((*(f"cycle_p{p}_s" for p in _PERCENTS), "rework_rate"), nothing),
            },
        )

    def _workload(self, rows: Rows) -> pa.Table:
        return self._table(
            WORKLOAD,
            rows,
            ("actor", rows.texts["name"]),
            transitions=rows.sums["count"],
            cases=rows.cases.values,
            handovers=rows.sums["handovers"],
            mean_s=_mean(rows),
        )

    def _variants(self, rows: Rows) -> pa.Table:
        cases = rows.sums["count"]
        window = pack(rows.bucket, rows.group)
        _, place = np.unique(window, return_inverse=True)
        place = place.reshape(-1)
        total = np.zeros(int(place.max()) + 1 if len(place) else 0, np.int64)
        np.add.at(total, place, cases)
        return self._table(
            VARIANTS,
            rows,
            ("variant_id", rows.texts["name"]),
            states=self.names.of(rows.group, rows.states),
            cases=cases,
            share=cases / np.maximum(total[place], 1),
            mean_cycle_s=rows.sums["sum_us"] / np.maximum(rows.sums["timed"], 1) / 1e6,
        )

    def _per_hour(self, completed: Integers, windows: Integers) -> pa.Array:
        if self.windowing.kind == "global":
            return pa.nulls(len(completed), pa.float64())
        start, end = self._ends(windows)
        return pa.array(completed / ((end - start) / 3_600_000))

    def _ends(self, windows: Integers) -> tuple[Integers, Integers]:
        start = self.windowing.start_ms(windows - self.windowing.buckets)
        return start, self.windowing.start_ms(windows)

    def _table(
        self, output: Output, rows: Rows, *keys: tuple[str, Text], **columns: Any
    ) -> pa.Table:
        return self._assembled(
            output, rows.texts["workflow_group"], rows.bucket, list(keys), columns
        )

    def _assembled(
        self,
        output: Output,
        group: Text,
        windows: Integers,
        keys: list[tuple[str, Text]],
        columns: dict[str, Any],
    ) -> pa.Table:
        n = len(windows)
        # Rows of a window and group are mostly next to each other: what they share is made once.
        first = first_of_group(pack(windows, group.codes))
        runs, run = np.flatnonzero(first), np.cumsum(first) - 1
        start, end = self._ends(windows[runs])
        shared = [hash_strings(_constant(output.name, len(runs)))]
        shared.append(hash_strings(group.take(runs).name()))
        heads = combine(LOW, *shared, start, end).view(np.int64)[run]
        start, end = start[run], end[run]
        none = np.full(n, self.windowing.kind == "global")
        named = {name: text.name() for name, text in keys}
        made: dict[str, Any] = {
            "row_id": identify(list(named.values()), [heads]),
            "workflow_group": group.name(),
            "window_start": pa.array(start * 1000, mask=none).cast(TIME),
            "window_end": pa.array(end * 1000, mask=none).cast(TIME),
            **named,
            **{name: pa.array(values) for name, values in columns.items()},
            "pane": _constant(self.pane, n),
            "pane_index": pa.array(self.index(group.codes, windows)),
        }
        return pa.Table.from_arrays(
            [conform(made[f.name], f.type) for f in output.schema], schema=output.schema
        )


def empty_tables() -> dict[str, pa.Table]:
    """Return the five tables without rows."""
    outputs = (PROCESS_MAP, STATE_TIMES, FLOW, WORKLOAD, VARIANTS)
    return {output.name: output.schema.empty_table() for output in outputs}


def _constant(text: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))


def _some(values: npt.NDArray[np.float64], flags: Flags) -> pa.Array:
    return pa.array(values, mask=~flags)


def _mean(rows: Rows) -> pa.Array:
    timed = rows.sums["timed"]
    return _some(rows.sums["sum_us"] / np.maximum(timed, 1) / 1e6, timed > 0)


def _ratio(part: Integers, whole: Integers) -> pa.Array:
    return _some(part / np.maximum(whole, 1), whole > 0)


def _quantiles(rows: Rows, prefix: str, timed: Flags) -> dict[str, pa.Array]:
    values = quantiles(rows, _PERCENTS)
    return {
        f"{prefix}p{p}_s": _some(column, timed) for p, column in zip(_PERCENTS, values, strict=True)
    }
