"""Tables of analytics for tests, from a few moves, as the pipeline would make them."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.tables import TABLES
from transforms.sinks.tables import FileFormat, write_table

UTC = timezone.utc
FOREVER = datetime(9999, 1, 1, tzinfo=UTC)
BEGIN = datetime(2024, 9, 2, tzinfo=UTC)  # a Monday


@dataclass(frozen=True)
class Move:
    """A transition.

    Attributes:
        case: whose.
        at: when.
        source: the state before; None at the start.
        to: the state afterwards.
        seconds: since the transition before.
    """

    case: str
    at: datetime
    source: str | None
    to: str
    seconds: float | None
    actor: str | None = "anna"
    group: str | None = "Order"
    version: str | None = "1.0"
    ends: bool = False


def cases(
    count: int,
    ways: Sequence[Sequence[str]],
    groups: Sequence[str | None] = ("Order",),
    actors: Sequence[str | None] = ("anna", "bert"),
    apart: timedelta = timedelta(hours=1),
) -> list[Move]:
    """Return the moves of cases that go some ways in turn, a step an hour."""
    moves = []
    for number in range(count):
        at = BEGIN + number * apart
        before: str | None = None
        way = ways[number % len(ways)]
        for step, state in enumerate(way):
            seconds = None if before is None else 3600.0 + number
            at += timedelta(seconds=seconds or 0)
            moves.append(
                Move(
                    f"case-{number}",
                    at,
                    before,
                    state,
                    seconds,
                    actors[(number + step) % len(actors)],
                    groups[number % len(groups)],
                    f"{1 + number % 2}.0",
                    step == len(way) - 1,
                )
            )
            before = state
    return moves


def tables(
    moves: Iterable[Move], window: timedelta | None = timedelta(hours=1), ends: bool = True
) -> dict[str, pa.Table]:
    """Return the tables of analytics, and of cases, of some moves, by plain Python."""
    listed = sorted(moves, key=lambda move: move.at)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    edges: dict[Any, list[Move]] = defaultdict(list)
    stays: dict[Any, list[float]] = defaultdict(list)
    flows: dict[Any, list[Move]] = defaultdict(list)
    work: dict[Any, list[Move]] = defaultdict(list)
    whole: dict[str, list[Move]] = defaultdict(list)
    for move in listed:
        start = _start(move.at, window)
        edges[start, move.group, move.version, move.source, move.to].append(move)
        if move.source is not None:
            stays[start, move.group, move.source].append(move.seconds or 0.0)
        flows[start, move.group, move.version].append(move)
        work[start, move.group, move.actor].append(move)
        whole[move.case].append(move)

    def add(
        table: str, key: Sequence[Any], window_start: datetime | None, values: dict[str, Any]
    ) -> None:
        rows[table].append(
            {
                "row_id": hashlib.sha256(repr((table, key)).encode()).hexdigest()[:32],
                "window_start": window_start,
                "window_end": window_start and window_start + (window or timedelta()),
                **values,
                "pane": "final",
                "pane_index": 0,
            }
        )

    for key, found in edges.items():
        start, group, version, source, to = key
        add(
            "process_map",
            key,
            start,
            {
                **{"workflow_group": group, "model_version": version},
                **{"from_state": source, "to_state": to, "count": len(found)},
                **{"cases": len({move.case for move in found})},
                **_times([move.seconds for move in found if move.seconds is not None]),
            },
        )
    for key, seconds in stays.items():
        start, group, state = key
        times = {name: value for name, value in _times(seconds).items() if name != "min_s"}
        add(
            "state_times",
            key,
            start,
            {
                **{"workflow_group": group, "state": state, "visits": len(seconds), **times},
            },
        )
    opened: dict[Any, tuple[list[datetime], list[datetime]]] = defaultdict(lambda: ([], []))
    for found in whole.values():
        begun, over = opened[found[-1].group, found[-1].version]
        begun.append(found[0].at)
        over.append(found[-1].at)
    for begun, over in opened.values():
        begun.sort()
        over.sort()
    for key, found in flows.items():
        start, group, version = key
        until = start + (window or timedelta()) if start else FOREVER
        begun, over = opened[group, version]
        active = bisect_left(begun, until) - (bisect_left(over, until) if ends else 0)
        completed = sum(move.ends for move in found) if ends else 0
        add(
            "flow",
            key,
            start,
            {
                **{"workflow_group": group, "model_version": version, "late": 0, "illegal": 0},
                **{"started": sum(move.source is None for move in found), "completed": completed},
                **{"transitions": len(found), "active_cases": active, "rework_rate": 0.0},
                **{"throughput_per_h": None, "cycle_p50_s": None},
                **{"cycle_p90_s": None, "cycle_p99_s": None},
            },
        )
    for key, found in work.items():
        start, group, actor = key
        add(
            "workload",
            key,
            start,
            {
                **{"workflow_group": group, "actor": actor, "transitions": len(found)},
                **{"cases": len({move.case for move in found}), "handovers": 1},
                **{"mean_s": _times([m.seconds for m in found if m.seconds is not None])["mean_s"]},
            },
        )
    ended: dict[Any, list[list[Move]]] = defaultdict(list)
    for case, found in whole.items():
        complete = ends and found[-1].ends
        way = tuple(move.to for move in found)
        if complete:
            ended[_start(found[-1].at, window), found[-1].group, way].append(found)
        cycle = (found[-1].at - found[0].at).total_seconds()
        rows["cases"].append(
            {
                "row_id": case,
                "case_id": case,
                "workflow_group": found[-1].group,
                "model_version": found[-1].version,
                "first_event_time": found[0].at,
                "last_event_time": found[-1].at,
                "transitions": len(found),
                "state": found[-1].to,
                "is_complete": complete,
                "cycle_time_s": cycle if complete else None,
                "rework": 0,
                "gaps": 0,
                "variant_id": repr(way),
                "updated_at": found[-1].at,
            }
        )
    for key, ways in ended.items():
        start, group, way = key
        cycles = [(found[-1].at - found[0].at).total_seconds() for found in ways]
        add(
            "variants",
            key,
            start,
            {
                **{"workflow_group": group, "variant_id": repr(way), "states": list(way)},
                **{"cases": len(ways), "share": 0.0, "mean_cycle_s": float(np.mean(cycles))},
            },
        )
    made = {name: table_of(name, found) for name, found in rows.items() if found}
    return made


def table_of(name: str, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return rows as a table."""
    return pa.Table.from_pylist(list(rows), schema=TABLES[name].schema)


def save(folder: Path, made: dict[str, pa.Table], kind: FileFormat = "parquet") -> Path:
    """Write tables as a run does."""
    for name, rows in made.items():
        path = folder / name / f"{name}-00000-of-00001.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(rows, TABLES[name], str(path), kind)
    return folder


def _start(at: datetime, window: timedelta | None) -> datetime | None:
    return None if window is None else at - (at - datetime(1970, 1, 1, tzinfo=UTC)) % window


def _times(seconds: list[float]) -> dict[str, float | None]:
    if not seconds:
        names = ("mean_s", "min_s", "p50_s", "p90_s", "p99_s", "max_s")
        return dict.fromkeys(names)
    found = np.quantile(seconds, [0.5, 0.9, 0.99])
    return {
        **{"mean_s": float(np.mean(seconds)), "min_s": min(seconds), "max_s": max(seconds)},
        **{"p50_s": float(found[0]), "p90_s": float(found[1]), "p99_s": float(found[2])},
    }
