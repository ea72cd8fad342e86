"""The parts of a report's data: each adds up the rows of one table by period, group and name.

A part is columns of equal length. Counts and sums of seconds are exact; a quantile is only
there where one row stands alone, since quantiles do not add up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.report.periods import DAY, HOUR, MISSING, Periods, Windows, local_ms
from pipelines.report.sums import Floats, Grouped, Integers, Names, floats, group, integers
from transforms.kernels.partial_rows import bin_of

Part = dict[str, Any]
"""Name of a column -> its values."""

QUANTILES = ("p50_s", "p90_s", "p99_s")


@dataclass(frozen=True)
class Frame:
    """What rows are added up by.

    Attributes:
        windows: those that are counted.
        periods: runs of them.
        zone: whose hours and weekdays count.
        groups, versions, states, actors, variants: names, numbered.
    """

    windows: Windows
    periods: Periods
    zone: str
    groups: Names
    versions: Names
    states: Names
    actors: Names
    variants: Names

    _kept: dict[tuple[int, str], Integers] = field(default_factory=dict, repr=False)

    def sizes(self, *names: Names) -> list[int]:
        """Return the sizes of a key of period, group and names."""
        return [self.periods.count, self.groups.size, *(max(1, each.size) for each in names)]

    def codes(self, rows: pa.Table, column: str, names: Names) -> Integers:
        """Return the number of each name in a column."""
        return self._once(rows, column, lambda: names.codes(rows[column]))

    def window(self, rows: pa.Table) -> Integers:
        """Return the number of each row's window."""
        return self._once(rows, "window_start", lambda: self.windows.find(start_ms(rows)))

    def local(self, rows: pa.Table) -> Integers:
        """Return when each row's window begins, as clocks of the zone show it, in ms."""
        starts = local_ms(self.windows.start, self.zone)
        return starts[self.window(rows)]

    def keyed(self, rows: pa.Table, **names: Names) -> tuple[list[Integers], list[int]]:
        """Return the key of each row: period, group, and the named columns."""
        keys = [self.periods.of[self.window(rows)]]
        keys.append(self.codes(rows, "workflow_group", self.groups))
        keys += [self.codes(rows, name, each) for name, each in names.items()]
        return keys, self.sizes(*names.values())

    def _once(self, rows: pa.Table, column: str, make: Callable[[], Integers]) -> Integers:
        """Make what does not depend on periods once; tables live as long as this does."""
        key = (id(rows), column)
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


def start_ms(rows: pa.Table) -> Integers:
    """Return when the window of each row begins, in ms."""
    return integers(rows["window_start"], MISSING)


def process_map(rows: pa.Table, frame: Frame) -> Part:
    """Add up moves between states."""
    keys, sizes = frame.keyed(
        rows, model_version=frame.versions, from_state=frame.states, to_state=frame.states
    )
    found = group(keys, sizes)
    count, mean = integers(rows["count"]), floats(rows["mean_s"])
    timed = np.where(np.isnan(mean), 0, count)
    part = _columns(found, ("period", "group", "version", "from", "to"))
    part["count"] = whole(found.sum(count))
    part["cases"] = whole(found.sum(integers(rows["cases"])))
    part["timed"] = whole(found.sum(timed))
    part["total_s"] = rounded(found.sum(mean * count))
    part["min_s"] = rounded(found.least(floats(rows["min_s"])))
    part["max_s"] = rounded(found.most(floats(rows["max_s"])))
    return part | _quantiles(found, rows)


def state_times(rows: pa.Table, frame: Frame) -> Part:
    """Add up stays in states."""
    found = group(*frame.keyed(rows, state=frame.states))
    visits = integers(rows["visits"])
    part = _columns(found, ("period", "group", "state"))
    part["visits"] = whole(found.sum(visits))
    part["total_s"] = rounded(found.sum(floats(rows["mean_s"]) * visits))
    part["max_s"] = rounded(found.most(floats(rows["max_s"])))
    return part | _quantiles(found, rows)


def flow(rows: pa.Table, frame: Frame) -> Part:
    """Add up what came in and went out; what was there is that of the period's last window."""
    keys, sizes = frame.keyed(rows, model_version=frame.versions)
    found = group(keys, sizes)
    window = frame.window(rows)
    last = frame.periods.last[frame.periods.of[window]] if len(frame.periods.last) else window
    part = _columns(found, ("period", "group", "version"))
    completed = integers(rows["completed"])
    for name in ("started", "completed", "transitions", "late", "illegal"):
        part[name] = whole(found.sum(integers(rows[name])))
    active = integers(rows["active_cases"])
    part["active"] = whole(found.sum(np.where(window == last, active, 0)))
    rework = np.nan_to_num(floats(rows["rework_rate"])) * completed
    part["rework"] = whole(np.rint(found.sum(rework)))
    for name in ("cycle_p50_s", "cycle_p90_s", "cycle_p99_s"):
        part[name] = rounded(found.only(floats(rows[name])))
    return part


def workload(rows: pa.Table, frame: Frame) -> Part:
    """Add up what people did."""
    found = group(*frame.keyed(rows, actor=frame.actors))
    count, mean = integers(rows["transitions"]), floats(rows["mean_s"])
    part = _columns(found, ("period", "group", "actor"))
    part["transitions"] = whole(found.sum(count))
    part["cases"] = whole(found.sum(integers(rows["cases"])))
    part["handovers"] = whole(found.sum(integers(rows["handovers"])))
    part["timed"] = whole(found.sum(np.where(np.isnan(mean), 0, count)))
    part["total_s"] = rounded(found.sum(mean * count))
    return part


def heat(rows: pa.Table, frame: Frame) -> Part:
    """Add up transitions by weekday and hour, as far as windows are short enough.

    `unit` is `hour` (windows of an hour or less), `day` (of a day or less), or null.
    """
    length = frame.windows.length
    unit = "hour" if 0 < length <= HOUR else "day" if 0 < length <= 25 * HOUR else None
    if unit is None or not rows.num_rows:
        return {"unit": unit, "period": [], "group": [], "cell": [], "transitions": []}
    keys, sizes = frame.keyed(rows)
    local = frame.local(rows)
    # The epoch was a Thursday; weeks begin on Mondays.
    cell = (local // DAY + 3) % 7 * 24
    if unit == "hour":
        cell = cell + local % DAY // HOUR
    found = group([*keys, cell], [*sizes, 7 * 24])
    part = _columns(found, ("period", "group", "cell"))
    part["transitions"] = whole(found.sum(integers(rows["transitions"])))
    return {"unit": unit, **part}


def variants(rows: pa.Table, frame: Frame) -> Part:
    """Add up the ways of cases."""
    found = group(*frame.keyed(rows, variant_id=frame.variants))
    cases = integers(rows["cases"])
    part = _columns(found, ("period", "group", "variant"))
    part["cases"] = whole(found.sum(cases))
    part["total_s"] = rounded(found.sum(floats(rows["mean_cycle_s"]) * cases))
    return part


MOST_STEPS = 60
"""States of a way that the page shows."""


def ways(rows: pa.Table, frame: Frame) -> list[list[int] | None]:
    """Return the states of each numbered variant, as numbers, at most `MOST_STEPS`."""
    number = frame.variants.codes(rows["variant_id"])
    known = np.flatnonzero(np.asarray(rows["states"].is_valid()))
    found: list[list[int] | None] = [None] * frame.variants.size
    distinct, first = np.unique(number[known], return_index=True)
    lists = rows["states"].take(pa.array(known[first])).to_pylist()
    states = {name: code for code, name in enumerate(frame.states.kept)}
    for place, way in zip(distinct, lists, strict=True):
        codes = [states.get(name, len(frame.states.kept)) for name in way]
        if place < len(frame.variants.kept) and frame.variants.kept[place] != "others":
            found[int(place)] = codes[:MOST_STEPS] + ([-1] if len(codes) > MOST_STEPS else [])
    return found


def ends_of_variants(rows: pa.Table, frame: Frame) -> Part:
    """Add up, by the last state of their ways, the cases that ended."""
    known = rows.filter(pc.greater(pc.list_value_length(rows["states"]), 0))
    known = known.append_column("state", _last(known))
    found = group(*frame.keyed(known, state=frame.states))
    part = _columns(found, ("period", "group", "state"))
    part["count"] = whole(found.sum(integers(known["cases"])))
    return part


def _last(rows: pa.Table) -> pa.ChunkedArray:
    lists = rows["states"].combine_chunks()
    offsets = np.asarray(lists.offsets)
    return pa.chunked_array([lists.values.take(pa.array(offsets[1:] - 1))])


def ends_of_cases(over: pa.Table, frame: Frame) -> Part:
    """Add up complete cases by the state that they ended in."""
    keys, sizes = _case_keys(over, frame)
    states = frame.codes(over, "state", frame.states)
    found = group([*keys, states], [*sizes, max(1, frame.states.size)])
    part = _columns(found, ("period", "group", "version", "state"))
    part["count"] = whole(found.rows)
    return part


MOST_JOINED = 8
"""Bins of cycle times that are put together, at most."""


def cycles(over: pa.Table, frame: Frame, most: int) -> Part:
    """Count complete cases by cycle time, in bins of `partial_rows.bin_of`.

    `joined` of these are one, 1, 2, 4 or 8: as few as keep the rows within `most`.
    """
    keys, sizes = _case_keys(over, frame)
    bins = bin_of(np.rint(floats(over["cycle_time_s"]) * 1e6).astype(np.int64)).astype(np.int64)
    joined = 1
    while True:
        # The bin of no time at all stays alone.
        wide = np.where(bins < 0, -1, bins // joined)
        least = int(wide.min()) if len(wide) else 0
        span = int(wide.max()) - least + 1 if len(wide) else 1
        found = group([*keys, wide - least], [*sizes, span])
        if len(found.rows) <= most or joined >= MOST_JOINED:
            break
        joined *= 2
    part = _columns(found, ("period", "group", "version", "bin"))
    part["bin"] = [bin_ + least for bin_ in part["bin"]]
    part["count"] = whole(found.rows)
    return {"joined": joined, **part}


def _case_keys(cases: pa.Table, frame: Frame) -> tuple[list[Integers], list[int]]:
    keys = [
        frame.periods.at(integers(cases["last_event_time"])),
        frame.codes(cases, "workflow_group", frame.groups),
        frame.codes(cases, "model_version", frame.versions),
    ]
    return keys, frame.sizes(frame.versions)


def case_flow(cases: pa.Table, frame: Frame, grid: Periods) -> Part:
    """Count, from cases alone, what was started, completed and open at the end of each stretch."""
    groups = frame.codes(cases, "workflow_group", frame.groups)
    over = np.asarray(cases["is_complete"].combine_chunks().fill_null(False))
    size = frame.groups.size * grid.count

    def counted(name: str, chosen: Any) -> Integers:
        at = grid.at(integers(cases[name]))
        found: Integers = np.bincount((groups * grid.count + at)[chosen], minlength=size)
        return found.reshape(frame.groups.size, grid.count)

    started = counted("first_event_time", slice(None))
    completed = counted("last_event_time", over)
    active = np.cumsum(started - completed, axis=1)
    period = np.tile(np.arange(grid.count), frame.groups.size)
    return {
        **grid.document(frame.zone),
        "period": period.tolist(),
        "group": np.repeat(np.arange(frame.groups.size), grid.count).tolist(),
        "started": started.reshape(-1).tolist(),
        "completed": completed.reshape(-1).tolist(),
        "active": active.reshape(-1).tolist(),
    }


def _columns(found: Grouped, names: Sequence[str]) -> Part:
    return {name: key.tolist() for name, key in zip(names, found.keys, strict=True)}


def _quantiles(found: Grouped, rows: pa.Table) -> Part:
    return {name: rounded(found.only(floats(rows[name]))) for name in QUANTILES}


def whole(values: Any) -> list[int]:
    """Return whole numbers."""
    return np.asarray(values).astype(np.int64).tolist()


def rounded(values: Floats) -> list[float | None]:
    """Return seconds, to the millisecond; None for NaN."""
    return [None if isnan(value) else value for value in np.round(values, 3).tolist()]


def trimmed(part: Part, weight: str, most: int) -> tuple[Part, int]:
    """Keep the rows of the greatest weight; return them, and how many were left out."""
    count = len(part[weight])
    if count <= most:
        return part, 0
    kept = np.sort(np.argsort(-np.asarray(part[weight]), kind="stable")[:most])
    cut = {
        name: np.asarray(values, object)[kept].tolist() if isinstance(values, list) else values
        for name, values in part.items()
    }
    return cut, count - most


WEIGHTS: Mapping[str, str] = {
    "process_map": "count",
    "state_times": "visits",
    "flow": "transitions",
    "workload": "transitions",
    "heat": "transitions",
    "variants": "cases",
    "cycles": "count",
    "ends": "count",
}
"""Part -> what its rows are ranked by, if there are too many."""
