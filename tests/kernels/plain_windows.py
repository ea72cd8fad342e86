"""What the tables of windows say, in plain Python: one window, one key after another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from tests.kernels.partials import Row
from transforms.kernels.partial_rows import (
    ACTOR,
    EDGE,
    FLOW,
    LEVEL,
    NAMES,
    VARIANT,
    bin_of,
    value_of,
)
from transforms.windows import Windowing

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
Tables = dict[str, dict[tuple[Any, ...], Row]]


def quantile(values: list[int], percent: int) -> float | None:
    """Return the value in seconds of the bin that holds a rank."""
    if not values:
        return None
    at = sorted(values)[-(-len(values) * percent // 100) - 1]
    value = float(value_of(bin_of(np.array([at])))[0])
    return min(max(value, min(values)), max(values)) / 1e6


def quantiles(values: list[int], prefix: str = "") -> Row:
    return {f"{prefix}p{p}_s": quantile(values, p) for p in (50, 90, 99)}


def mean(values: list[int]) -> float | None:
    return sum(values) / len(values) / 1e6 if values else None


def values_of(rows: list[Row]) -> list[int]:
    return [value for row in rows for value in row["values"]]


def total(rows: list[Row], column: str) -> int:
    return sum(row[column] for row in rows)


def grouped(rows: list[Row], *columns: str) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(row[c] for c in columns)].append(row)
    return found


def cases_in(rows: list[Row], first: int) -> int:
    """Add up the cases that are new to the window that begins with a bucket."""
    lists = [(row["cases"] or [], row["bucket"] - first) for row in rows]
    return sum(cases[place] for cases, place in lists if place < len(cases))


def window_tables(rows: Sequence[Row], windowing: Windowing, window: int, names: Any) -> Tables:
    """Say the tables of the window that ends before a bucket (not levels)."""
    first = window - windowing.buckets
    inside = [r for r in rows if r["kind"] <= VARIANT and first <= r["bucket"] < window]
    tables: Tables = defaultdict(dict)
    edges = [r for r in inside if r["kind"] == EDGE]
    for key, some in grouped(edges, "workflow_group", "model_version", "name", "to_state").items():
        values = values_of(some)
        tables["process_map"][key] = {
            "count": total(some, "count"),
            "cases": cases_in(some, first),
            "mean_s": mean(values),
            "min_s": min(values) / 1e6 if values else None,
            **quantiles(values),
            "max_s": max(values) / 1e6 if values else None,
        }
    for key, some in grouped(edges, "workflow_group", "name").items():
        values = values_of(some)
        if values and key[1] is not None:
            tables["state_times"][key] = {
                "visits": len(values),
                "mean_s": mean(values),
                **quantiles(values),
                "max_s": max(values) / 1e6,
            }
    flows = [r for r in inside if r["kind"] == FLOW]
    for key, some in grouped(flows, "workflow_group", "model_version").items():
        completed = total(some, "completed")
        tables["flow"][key] = {
            "transitions": total(some, "count"),
            **{c: total(some, c) for c in ("started", "completed", "late", "illegal")},
            "rework_rate": total(some, "rework") / completed if completed else None,
            **quantiles(values_of(some), "cycle_"),
        }
    actors = [r for r in inside if r["kind"] == ACTOR]
    for key, some in grouped(actors, "workflow_group", "name").items():
        tables["workload"][key] = {
            "transitions": total(some, "count"),
            "cases": cases_in(some, first),
            "handovers": total(some, "handovers"),
            "mean_s": mean(values_of(some)),
        }
    ways = [r for r in inside if r["kind"] == VARIANT]
    for key, some in grouped(ways, "workflow_group", "name").items():
        of_group = [r for r in ways if r["workflow_group"] == key[0]]
        tables["variants"][key] = {
            "states": [names.get((key[0], h), f"{h:016x}") for h in some[0]["states"]],
            "cases": total(some, "count"),
            "share": total(some, "count") / total(of_group, "count"),
            "mean_cycle_s": mean(values_of(some)),
        }
    return tables


def plain(
    rows: Sequence[Row], windowing: Windowing, over: int, rest: bool, quiet: int
) -> dict[str, dict[tuple[Any, ...], Row]]:
    """Say all tables.

    Args:
        rows: partial rows.
        windowing: how time is cut.
        over: the last window that is over.
        rest: windows with rows that are not over count as well.
        quiet: windows that are written behind the last that something happened in.

    Returns:
        Table -> (window, key columns) -> columns.
    """
    n = windowing.buckets
    names = {(r["workflow_group"], r["states"][0]): r["name"] for r in rows if r["kind"] == NAMES}
    tables: Tables = defaultdict(dict)
    buckets = [r["bucket"] for r in rows]
    for window in range(min(buckets, default=0) + 1, max(max(buckets, default=0) + n, over) + 1):
        said = window_tables(rows, windowing, window, names)
        if window > over and not rest:
            break
        for group, version in {(r["workflow_group"], r["model_version"]) for r in rows}:
            own = [
                r
                for r in rows
                if (r["workflow_group"], r["model_version"]) == (group, version)
                and r["bucket"] < window
            ]
            levels = [r for r in own if r["kind"] == LEVEL]
            level = total(levels, "count")
            moved = total([r for r in levels if r["bucket"] == window - 1], "count")
            last = [
                r["bucket"] + (n if r["kind"] == FLOW else 1)
                for r in own
                if r["kind"] in (FLOW, LEVEL)
            ]
            row = said["flow"].get((group, version))
            if row is None and window <= over and last:
                if moved or (level > 0 and window <= max(last) + quiet):
                    zeros = ("transitions", "started", "completed", "late", "illegal")
                    row = {**dict.fromkeys(zeros, 0), "rework_rate": None}
                    row |= quantiles([], "cycle_")
                    said["flow"][group, version] = row
            if row is not None:
                row["active_cases"] = level
                row["throughput_per_h"] = None
                if windowing.kind != "global":
                    start, end = windowing.start_ms(np.array([window - n, window])).tolist()
                    row["throughput_per_h"] = row["completed"] / ((end - start) / 3_600_000)
        for name, found in said.items():
            for key, row in found.items():
                place = (window, *key)
                tables[name][place] = row
    return tables


KEYS = {
    "process_map": ("workflow_group", "model_version", "from_state", "to_state"),
    "state_times": ("workflow_group", "state"),
    "flow": ("workflow_group", "model_version"),
    "workload": ("workflow_group", "actor"),
    "variants": ("workflow_group", "variant_id"),
}


def keyed(panes: Sequence[tuple[str, Row]], windowing: Windowing) -> Tables:
    """Key rows of tables as `plain` does; the ends of their windows are checked on the way."""
    tables: Tables = defaultdict(dict)
    for name, row in panes:
        window = 1
        if windowing.kind == "global":
            assert row["window_start"] is None
            assert row["window_end"] is None
        else:
            end = (row["window_end"] - EPOCH) // timedelta(milliseconds=1)
            window = int(windowing.index(np.array([end * 1000]))[0])
            edges = windowing.start_ms(np.array([window - windowing.buckets, window])).tolist()
            assert end == edges[1]
            assert row["window_start"] == EPOCH + timedelta(milliseconds=edges[0])
        key = (window, *(row[c] for c in KEYS[name]))
        assert key not in tables[name]
        spoken = {*KEYS[name], "row_id", "window_start", "window_end", "pane", "pane_index"}
        tables[name][key] = {c: v for c, v in row.items() if c not in spoken}
    return tables
