"""From a run's tables to what the page shows: one JSON document of a bounded size.

Thousands of windows and a hundred thousand states become at most `MOST_ROWS` rows a part; what
was put together for that is said in `cut`, in sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.laws import laws
from pipelines.report import parts
from pipelines.report.panes import last_panes
from pipelines.report.parts import Frame, Part, start_ms
from pipelines.report.periods import MISSING, Windows, cut_evenly, periods_of, windows_of
from pipelines.report.sums import Names, integers, weigh
from pipelines.table_files import plain_schema
from schemas.tables import TABLES
from transforms.kernels.partial_rows import ERROR
from transforms.windows import DAY_MS, WindowError, windowing

MOST_ROWS = 50_000
"""Of a part."""

MOST_NAMES = {"groups": 50, "versions": 50, "states": 200, "actors": 200, "variants": 200}
MOST_ERRORS = 50
CASE_STEPS = 120
TAIL = 10
"""Windows of nothing but open cases are kept at the end: a tenth as many as were before them."""

COARSEST = 24

PANES = ("process_map", "state_times", "flow", "workload", "variants")
"""The tables of analytics, without which there is no report."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    **{name: tuple(TABLES[name].schema.names) for name in PANES},
    "cases": (
        *("row_id", "case_id", "workflow_group", "model_version", "first_event_time"),
        *("last_event_time", "state", "is_complete", "cycle_time_s", "updated_at"),
    ),
    "late": ("row_id", "workflow_group", "state", "reason"),
    "retracted": ("row_id", "workflow_group", "state", "reason"),
    "dead_letters": ("row_id", "error", "message", "source"),
}
"""Table -> the columns of it that a report reads."""


@dataclass(frozen=True)
class Contents:
    """What a report is made of.

    Attributes:
        tables: name -> rows of its columns in `COLUMNS`, the newest of each key.
        manifest: what the run says of itself; None while it runs.
        source: what was read, to be shown.
        notes: what is not there of it, in sentences.
        problem: why there is no manifest, other than that the run has not ended.
    """

    tables: Mapping[str, pa.Table]
    manifest: Mapping[str, Any] | None = None
    source: str = ""
    notes: tuple[str, ...] = ()
    problem: str = ""

    def rows(self, name: str) -> pa.Table:
        """Return the rows of a table, none if it is not there."""
        found = self.tables.get(name)
        return plain_schema(TABLES[name], COLUMNS[name]).empty_table() if found is None else found


@dataclass(frozen=True)
class Look:
    """How a report looks.

    Attributes:
        title: its heading.
        zone: time zone that times are shown in; empty for that of the windows, if they are days
            of one and the run has said so, else UTC.
        made: when it was made, in ms since the epoch.
        positions: state -> x, y, width, height, where the map has a drawing of its own, as a
            BPMN diagram is; states without one are laid out below.
    """

    title: str
    zone: str = ""
    made: int = 0
    positions: Mapping[str, Sequence[float]] = field(default_factory=dict)


def document(contents: Contents, look: Look) -> dict[str, Any]:
    """Return the data of a page.

    Args:
        contents: a run's tables.
        look: title, zone, time.
    """
    cut = list(contents.notes)
    contents = replace(contents, tables=last_panes(contents.tables, PANES))
    zone = look.zone or _zone_of(contents.manifest)
    frame = _frame(contents, zone, cut)
    chosen = _chosen(contents, frame.windows)
    coarser = 0
    made = _parts(chosen, frame)
    while _largest(made) > MOST_ROWS and frame.periods.count > 1 and coarser < COARSEST:
        coarser += 1
        frame = replace(frame, periods=periods_of(frame.windows, zone, coarser))
        made = _parts(chosen, frame)
    for name, weight in parts.WEIGHTS.items():
        made[name], lost = parts.trimmed(made[name], weight, MOST_ROWS)
        if lost:
            cut.append(f"{lost:,} of the rarest rows of {name} are left out")
    cases = contents.rows("cases")
    return {
        "title": look.title,
        "source": contents.source,
        "made": look.made,
        "zone": zone,
        "error": ERROR,
        "groups": frame.groups.document(),
        "versions": frame.versions.document(),
        "states": frame.states.document(),
        "actors": frame.actors.document(),
        "ways": parts.ways(contents.rows("variants"), frame),
        "variant_rest": frame.variants.rest,
        "periods": {
            **frame.periods.document(zone),
            "window": frame.windows.length,
            "overlap": frame.windows.overlap,
        },
        **made,
        "case_flow": _case_flow(cases, frame),
        "has": {name: name in contents.tables for name in COLUMNS},
        "cases": _cases(cases),
        "dead": _dead_letters(contents.rows("dead_letters")),
        "late": _reasons(contents.rows("late"), frame),
        "retracted": _reasons(contents.rows("retracted"), frame),
        "run": _run(contents.manifest),
        "unknown": bool(contents.problem),
        "positions": _positions(look.positions, frame.states),
        "cut": cut,
        "live": None,
    }


def packed(made: Mapping[str, Any]) -> bytes:
    """Write a page's data as JSON; `live` is what a stream that still runs adds."""
    return orjson.dumps(made)


def _frame(contents: Contents, zone: str, cut: list[str]) -> Frame:
    starts, ends = [], []
    for name in PANES:
        rows = contents.rows(name)
        starts.append(start_ms(rows))
        ends.append(integers(rows["window_end"], MISSING))
    windows = windows_of(np.concatenate(starts), np.concatenate(ends))
    if windows.mixed:
        cut.append("rows of the global window stand beside those of others, and are left out")
    _check_days(windows, zone, cut)
    windows = _without_tail(contents, windows, zone, cut)
    names = _names(contents, cut)
    return Frame(
        windows,
        periods_of(windows, zone),
        zone,
        groups=names["groups"],
        versions=names["versions"],
        states=names["states"],
        actors=names["actors"],
        variants=names["variants"],
    )


def _zone_of(manifest: Mapping[str, Any] | None) -> str:
    """Return the zone of the days that a run's windows are, as it says itself; else UTC."""
    given = str((manifest or {}).get("window", ""))
    try:
        return windowing(given).zone or "UTC"
    except WindowError:
        return "UTC"


def _check_days(windows: Windows, zone: str, cut: list[str]) -> None:
    """Say so if windows are days, but not of the zone that they are shown in."""
    if windows.is_global or windows.overlap or windows.length % DAY_MS:
        return
    begins = datetime.fromtimestamp(windows.start[0] / 1000, ZoneInfo(zone))
    if (begins.hour, begins.minute) != (0, 0):
        cut.append(
            f"days begin at {begins:%H:%M} here: --timezone shows them in the zone of --window"
        )


def _without_tail(contents: Contents, windows: Windows, zone: str, cut: list[str]) -> Windows:
    """Leave out most of the windows at the end in which cases only stayed open.

    A case that is left open has its windows until it is forgotten, by default for a year: they
    would press all that happened into a corner.
    """
    last = -1
    for name in PANES:
        rows = contents.rows(name)
        found = windows.find(start_ms(rows))
        if name == "flow":
            happened = sum(integers(rows[each]) for each in ("transitions", "late"))
            found = found[happened > 0]
        last = max(last, int(found.max(initial=-1)))
    kept = last + 1 + max(1, (last + 1) // TAIL)
    lost = len(windows.start) - kept
    if windows.is_global or last < 0 or lost <= 0:
        return windows
    ended = datetime.fromtimestamp(windows.end[last] / 1000, ZoneInfo(zone))
    cut.append(
        f"nothing happened after {ended.day} {ended:%b %Y, %H:%M}; {lost:,} later windows, in "
        "which cases only stayed open, are left out"
    )
    return replace(windows, start=windows.start[:kept], end=windows.end[:kept])


def _names(contents: Contents, cut: list[str]) -> dict[str, Names]:
    weights: dict[str, dict[str | None, float]] = {kind: {} for kind in MOST_NAMES}

    def add(kind: str, table: str, column: str, by: str | None = None) -> None:
        rows = contents.rows(table)
        weight = integers(rows[by]) if by else np.ones(rows.num_rows, np.int64)
        weigh(weights[kind], rows[column], weight)

    tables = {
        **{"process_map": "count", "state_times": "visits", "flow": "transitions"},
        **{"workload": "transitions", "variants": "cases", "cases": None},
        **{"late": None, "retracted": None},
    }
    for table, by in tables.items():
        add("groups", table, "workflow_group", by)
    add("versions", "process_map", "model_version", "count")
    add("versions", "flow", "model_version", "transitions")
    add("versions", "cases", "model_version")
    add("states", "process_map", "to_state", "count")
    add("states", "process_map", "from_state", "count")
    add("states", "state_times", "state", "visits")
    add("states", "cases", "state")
    add("actors", "workload", "actor", "transitions")
    add("variants", "variants", "variant_id", "cases")
    found = {kind: Names.most(weights[kind], most) for kind, most in MOST_NAMES.items()}
    for kind, each in found.items():
        if each.rest and kind != "variants":
            cut.append(
                f"of {each.named + each.rest:,} {kind} the {each.named:,} most frequent "
                f"are shown; the others are put together"
            )
    return found


def _chosen(contents: Contents, windows: Windows) -> dict[str, pa.Table]:
    """Return the rows that are added up: of windows that are counted, of cases that are over."""
    chosen = {}
    for name in PANES:
        rows = contents.rows(name)
        found = windows.find(start_ms(rows)) >= 0
        chosen[name] = rows if found.all() else rows.filter(pa.array(found))
    cases = contents.rows("cases")
    over = pc.and_(cases["is_complete"], cases["cycle_time_s"].is_valid())
    chosen["cases"] = cases.filter(over)
    return chosen


def _parts(rows: Mapping[str, pa.Table], frame: Frame) -> dict[str, Part]:
    over = rows["cases"]
    return {
        "process_map": parts.process_map(rows["process_map"], frame),
        "state_times": parts.state_times(rows["state_times"], frame),
        "flow": parts.flow(rows["flow"], frame),
        "workload": parts.workload(rows["workload"], frame),
        "heat": parts.heat(rows["workload"], frame),
        "variants": parts.variants(rows["variants"], frame),
        "cycles": parts.cycles(over, frame, MOST_ROWS),
        "ends": parts.ends_of_cases(over, frame)
        if over.num_rows
        else parts.ends_of_variants(rows["variants"], frame),
    }


def _largest(made: Mapping[str, Part]) -> int:
    return max(len(made[name][weight]) for name, weight in parts.WEIGHTS.items())


def _case_flow(cases: pa.Table, frame: Frame) -> Part | None:
    """Return flow over time from cases, where there is one window over all time."""
    if not frame.windows.is_global or not cases.num_rows:
        return None
    first = int(integers(cases["first_event_time"]).min())
    last = int(integers(cases["last_event_time"]).max())
    return parts.case_flow(cases, frame, cut_evenly(first, last, frame.zone, CASE_STEPS))


def _cases(cases: pa.Table) -> dict[str, int]:
    complete = pc.sum(cases["is_complete"]).as_py() or 0
    return {"count": cases.num_rows, "complete": int(complete)}


def _dead_letters(rows: pa.Table) -> list[dict[str, Any]]:
    """Count dead letters by class of error, with an example of each."""
    if not rows.num_rows:
        return []
    codes = rows["error"].combine_chunks().dictionary_encode(null_encoding="encode")
    number, first, count = np.unique(
        np.asarray(codes.indices), return_index=True, return_counts=True
    )
    order = np.argsort(-count, kind="stable")[:MOST_ERRORS]
    examples = rows.take(pa.array(first[order])).to_pylist()
    return [
        {
            "error": example["error"],
            "count": int(count[place]),
            "message": _short(example["message"]),
            "source": _short(example["source"]),
        }
        for place, example in zip(order, examples, strict=True)
    ] + _rest(count, number, order)


def _rest(count: Any, number: Any, order: Any) -> list[dict[str, Any]]:
    left = int(count.sum() - count[order].sum())
    if not left:
        return []
    kinds = f"{len(number) - len(order)} other kinds of error"
    return [{"error": kinds, "count": left, "message": "", "source": ""}]


def _reasons(rows: pa.Table, frame: Frame) -> list[dict[str, Any]]:
    """Count rows by group and reason."""
    if not rows.num_rows:
        return []
    found = rows.append_column(
        "group", pa.array(frame.groups.codes(rows["workflow_group"]))
    ).group_by(["group", "reason"], use_threads=False)
    counted = found.aggregate([([], "count_all")]).sort_by([("count_all", "descending")])
    return [
        {"group": row["group"], "reason": _short(row["reason"]), "count": row["count_all"]}
        for row in counted.slice(0, MOST_ERRORS).to_pylist()
    ]


def _short(text: str | None, most: int = 300) -> str:
    words = " ".join((text or "").split())
    return words if len(words) <= most else f"{words[: most - 1]}…"


def _run(manifest: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if manifest is None:
        return None
    try:
        found = laws(manifest)
    except (KeyError, TypeError):
        # Of a pipeline, or a version, that counts other things.
        found = []
    return {
        "pipeline": manifest.get("pipeline"),
        "engine": manifest.get("engine"),
        "laws": [{"text": " ".join(str(law).split()), "holds": law.holds} for law in found],
        "quality": manifest.get("quality", {}),
        "warnings": [_short(str(text)) for text in manifest.get("warnings", ())],
    }


def _positions(given: Mapping[str, Sequence[float]], states: Names) -> dict[str, list[float]]:
    """Return the place of each numbered state that has one."""
    numbers = {name: number for number, name in enumerate(states.kept)}
    return {str(numbers[name]): list(place) for name, place in given.items() if name in numbers}
