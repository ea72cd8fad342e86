"""Partial rows for tests: made at random, and stepped as the hosts do it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import strategies as st

from schemas.events import TIME
from transforms.hashing import hash_strings
from transforms.kernels.partial_rows import (
    ACTOR,
    EDGE,
    FLOW,
    LEVEL,
    NAMES,
    PARTIALS,
    VARIANT,
    bin_of,
)
from transforms.kernels.window_tables import WindowKernel
from transforms.windows import Windowing

HOUR = 3_600_000
START = 1_711_670_400_000
"""2024-03-29 in UTC in ms: two days later a day of Europe/Berlin has 23 hours."""

Row = dict[str, Any]
NUMBERS = ("count", "timed", "sum_us", "started", "completed", "late", "rework", "illegal")


def state_hash(name: str) -> int:
    return int(hash_strings(pa.array([name]))[0])


def durations(values: Sequence[int]) -> Row:
    """Return the columns that tell of durations in µs."""
    bins = Counter(bin_of(np.array(values, np.int64)).tolist())
    return {
        "timed": len(values),
        "sum_us": sum(values),
        "min_us": min(values, default=None),
        "max_us": max(values, default=None),
        "bins": sorted(bins),
        "tallies": [bins[b] for b in sorted(bins)],
        "values": list(values),
    }


def partial(windowing: Windowing, kind: int, order_ms: int, group: str | None, **more: Any) -> Row:
    """Make a partial row; its bucket is that of its order time unless `ahead` of it."""
    bucket = int(windowing.index(np.array([order_ms * 1000]))[0]) + more.pop("ahead", 0)
    place = {LEVEL: "level", NAMES: "names"}.get(kind, str(bucket))
    row: Row = dict.fromkeys(PARTIALS.names)
    row |= dict.fromkeys((*NUMBERS, "handovers"), 0)
    row |= {"slot": f"{place}|{group or ''}", "order_time": order_ms * 1000, "bucket": bucket}
    return row | {"kind": kind, "workflow_group": group, "values": []} | more


def table(rows: Sequence[Row]) -> pa.Table:
    columns = []
    for each in PARTIALS:
        values = [row[each.name] for row in rows]
        if pa.types.is_dictionary(each.type):
            columns.append(pa.array(values, pa.string()).dictionary_encode())
        elif each.type == TIME:
            columns.append(pa.array(values, pa.int64()).cast(TIME))
        else:
            columns.append(pa.array(values, each.type))
    return pa.Table.from_arrays(columns, schema=PARTIALS)


STATES = ("new", "open", "<b>'zu'</b>", "ende 🎉")


@st.composite
def partials(draw: st.DrawFn, windowing: Windowing, hours: int = 8) -> list[Row]:
    """Draw partial rows of some hours (days where there is a zone)."""
    unit = 8 * HOUR if windowing.zone else HOUR
    ticks = hours * 4
    rows = []
    for _ in range(draw(st.integers(0, 25))):
        at = START + draw(st.integers(0, ticks - 1)) * unit // 4
        group = draw(st.sampled_from(["a", "a", "b", None]))
        version = draw(st.sampled_from(["1", "1", "2", None]))
        kind = draw(st.sampled_from([EDGE, EDGE, ACTOR, FLOW, VARIANT, LEVEL, NAMES]))
        count = draw(st.integers(1, 5))
        values = draw(
            st.lists(st.one_of(st.integers(0, 20), st.integers(0, 10**12)), max_size=min(4, count))
        )
        name = draw(st.sampled_from([None, *STATES]))
        cases = draw(st.lists(st.integers(0, 3), max_size=windowing.buckets))
        more: Row = {"model_version": version, "count": count}
        if kind == EDGE:
            to_state = draw(st.sampled_from(STATES))
            more |= durations(values) | {"name": name, "to_state": to_state, "cases": cases}
        elif kind == ACTOR:
            spent = durations(values) | {"bins": None, "tallies": None}
            more |= spent | {"name": name, "cases": cases, "handovers": count // 2}
            more["model_version"] = None
        elif kind == FLOW:
            more |= durations(values)
            for column in ("started", "completed", "late", "rework", "illegal"):
                more[column] = draw(st.integers(0, 3))
        elif kind == VARIANT:
            way = draw(st.lists(st.sampled_from(STATES), min_size=1, max_size=3))
            spent = durations(values or [7]) | {"bins": None, "tallies": None}
            more |= spent | {"name": "v" + "-".join(str(STATES.index(s)) for s in way)}
            more |= {"model_version": None, "states": [state_hash(s) for s in way]}
        elif kind == LEVEL:
            ahead = 0 if windowing.kind == "global" else draw(st.sampled_from([0, 0, 0, 2, 5]))
            more |= {"count": draw(st.sampled_from([-1, 1, 1, 2])), "ahead": ahead}
        else:
            name = name or "new"
            more |= {"name": name, "count": 0, "states": [state_hash(name)]}
            more["model_version"] = None
            # A state has its name before a way through it is told.
            at = START
        rows.append(partial(windowing, kind, at, group, **more))
    return rows


class Host:
    """Steps a kernel as the hosts do: with the slots touched, or with all when a wake is due."""

    def __init__(self, kernel: WindowKernel) -> None:
        self.kernel = kernel
        self.state = kernel.state_schema.empty_table()
        self.wake: int | None = None
        self.panes: list[tuple[str, Row]] = []
        self.newest: dict[tuple[str, str], Row] = {}
        self.counts: Counter[str] = Counter()
        self.untils: list[int] = []

    def step(self, events: pa.Table, until: int, always: bool = False) -> None:
        wakes = self.wake is not None and self.wake < until
        if not (events.num_rows or wakes or always):
            return
        bounded = self.kernel.closes or self.kernel.last_ms is not None
        state = self.state
        if not (wakes or bounded):
            keys = events["slot"].combine_chunks().dictionary_decode().unique()
            state = state.filter(pc.is_in(state["slot"], value_set=keys))
        step = self.kernel.step(state, events, (), until)
        for name, rows in step.whole().items():
            assert rows.schema.equals(self.kernel.outputs[name].schema)
            rows.validate(full=True)
            for row in rows.to_pylist():
                self.panes.append((name, row))
                old = self.newest.get((name, row["row_id"]))
                assert old is None or old["pane_index"] < row["pane_index"]
                self.newest[name, row["row_id"]] = row
        changed = step.changed()
        assert changed.schema.equals(self.kernel.state_schema)
        slots = changed["slot"].to_pylist()
        runs = [s for i, s in enumerate(slots) if not i or slots[i - 1] != s]
        assert len(runs) == len(set(runs)), "rows of a slot are next to each other"
        assert not set(runs) & set(step.removed.to_pylist())
        gone = pa.concat_arrays([changed["slot"].combine_chunks(), step.removed])
        kept = self.state.filter(pc.invert(pc.is_in(self.state["slot"], value_set=gone)))
        self.state = pa.concat_tables([kept, changed])
        times = [step.wake_at, None if wakes else self.wake]
        self.wake = min((t for t in times if t is not None), default=None)
        self.counts.update(step.counts)
        self.untils.append(until)

    def run(self, rows: Sequence[Row], untils: Sequence[int]) -> Host:
        """Step to each time, with the rows before it."""
        done = -(2**62)
        for until in untils:
            due = [r for r in rows if done <= r["order_time"] < until * 1000]
            self.step(table(due), until, always=until == self.kernel.last_ms)
            done = until * 1000
        return self

    def known(self) -> list[str]:
        """Return the state's rows, in order."""
        return sorted(map(repr, self.state.to_pylist()))

    def rows(self, pane: str | None = None) -> dict[tuple[str, str], Row]:
        """Return the newest rows, of one kind of pane."""
        return {k: r for k, r in self.newest.items() if pane in (None, r["pane"])}
