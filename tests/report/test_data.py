"""The data of a page: what adds up, what is bounded, and what is said of that."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.exit_codes import RunError
from pipelines.report import data as data_module
from pipelines.report.data import Contents, Look, document, packed
from pipelines.report.folder import Folder, read_folder
from pipelines.report.periods import HOUR, MOST_PERIODS, periods_of, windows_of
from pipelines.report.sums import Names
from schemas.tables import TABLES
from tests.report.tables import BEGIN, Move, cases, save, table_of, tables
from transforms.kernels.partial_rows import value_of
from transforms.sinks.tables import FILE_FORMATS, FileFormat

WAYS = (("in", "check", "done"), ("in", "check", "check", "refused"), ("in", "done"))
LOOK = Look("A report", "Europe/Berlin", 1_725_000_000_000)


def made(found: dict[str, pa.Table], **look: Any) -> dict[str, Any]:
    document_ = document(Contents(found), Look("A report", "UTC", 0, **look))
    read: dict[str, Any] = orjson.loads(packed(document_))
    return read


def edge_counts(page: dict[str, Any]) -> Counter[tuple[str | None, str | None]]:
    part, names = page["process_map"], page["states"]["names"]
    counts: Counter[tuple[str | None, str | None]] = Counter()
    for source, to, count in zip(part["from"], part["to"], part["count"], strict=True):
        counts[names[source], names[to]] += count
    return counts


def test_moves_add_up_to_those_that_were_made() -> None:
    moves = cases(40, WAYS, groups=("Order", "Ticket", None))
    page = made(tables(moves))
    assert edge_counts(page) == Counter((move.source, move.to) for move in moves)
    seconds = sum(total or 0 for total in page["process_map"]["total_s"])
    assert seconds == pytest.approx(sum(move.seconds or 0 for move in moves))
    assert page["groups"]["names"] == ["Order", "Ticket", None]
    assert sum(page["flow"]["transitions"]) == len(moves)
    assert sum(page["flow"]["started"]) == 40
    assert sum(page["workload"]["transitions"]) == len(moves)
    assert sum(page["cycles"]["count"]) == 40
    assert sum(page["ends"]["count"]) == 40
    assert sum(page["variants"]["cases"]) == 40


@pytest.mark.parametrize("kind", FILE_FORMATS)
def test_all_formats_of_files_tell_the_same(kind: FileFormat, tmp_path: Path) -> None:
    moves = cases(12, (("in", 'a "b", c', "done"), ("in", "", "ü🙂")), groups=("Order", None))
    found = tables(moves)
    found["late"] = TABLES["late"].schema.empty_table()
    contents = read_folder(str(save(tmp_path, found, kind)))
    page = document(contents, LOOK)
    expected = document(
        Contents({n: t.select(data_module.COLUMNS[n]) for n, t in found.items()}), LOOK
    )
    assert {**page, "source": ""} == expected


def test_the_newest_pane_of_a_row_counts(tmp_path: Path) -> None:
    moves = cases(3, WAYS)
    found = tables(moves)
    rows = found["process_map"].to_pylist()
    older = [{**row, "count": 1000, "pane": "early"} for row in rows]
    newer = [{**row, "pane_index": 1} for row in rows]
    # The older comes later, and in another file.
    save(tmp_path, {**found, "process_map": table_of("process_map", newer)})
    folder = tmp_path / "process_map"
    (folder / "process_map-00000-of-00001.parquet").rename(folder / "a.parquet")
    save(tmp_path, {"process_map": table_of("process_map", older)})
    page = document(read_folder(str(tmp_path)), LOOK)
    assert edge_counts(page) == Counter((move.source, move.to) for move in moves)


def test_a_folder_is_read_on_as_files_come_and_anew_when_they_go(tmp_path: Path) -> None:
    first, second = cases(2, WAYS), cases(5, WAYS)
    save(tmp_path, tables(first))
    folder = Folder(str(tmp_path))
    assert folder.refresh()
    assert not folder.refresh()
    map_ = tmp_path / "process_map"
    (map_ / "process_map-00000-of-00001.parquet").rename(map_ / "b.parquet")
    assert folder.refresh()
    save(tmp_path, {"process_map": tables(second)["process_map"]})
    assert folder.refresh()
    (map_ / "b.parquet").unlink()
    assert folder.refresh()
    page = document(folder.contents(), LOOK)
    assert edge_counts(page) == Counter((move.source, move.to) for move in second)


def test_a_file_of_another_table_is_no_file_of_this_one(tmp_path: Path) -> None:
    save(tmp_path, tables(cases(3, WAYS)))
    (flow,) = (tmp_path / "flow").iterdir()
    (other,) = (tmp_path / "cases").iterdir()
    flow.write_bytes(other.read_bytes())
    with pytest.raises(RunError, match="as a file of the table flow: it has no column"):
        read_folder(str(tmp_path))


def test_an_append_table_that_was_written_twice_counts_once(tmp_path: Path) -> None:
    letters = table_of("dead_letters", [dead("a", "BadXml"), dead("b", "BadXml"), dead("c", "<b>")])
    save(tmp_path, {**tables(cases(1, WAYS)), "dead_letters": pa.concat_tables([letters, letters])})
    page = document(read_folder(str(tmp_path)), LOOK)
    assert [(one["error"], one["count"]) for one in page["dead"]] == [("BadXml", 2), ("<b>", 1)]


def test_what_the_run_has_not_written_is_left_out_and_what_is_missing_is_said(
    tmp_path: Path,
) -> None:
    found = tables(cases(3, (("in", "done"),)))
    save(tmp_path, found)
    written = {name: {"rows": rows.num_rows} for name, rows in found.items()}
    (tmp_path / "_run.json").write_bytes(orjson.dumps({"tables": written}))
    assert read_folder(str(tmp_path)).notes == ()
    written["flow"]["rows"] += 3
    del written["cases"]
    (tmp_path / "_run.json").write_bytes(orjson.dumps({"tables": written}))
    contents = read_folder(str(tmp_path))
    assert "cases" not in contents.tables
    flow = found["flow"].num_rows
    assert contents.notes == (
        f"flow has {flow:,} rows, and the run wrote {flow + 3:,}: these are not its numbers",
        "cases is of another run, and left out",
    )


def dead(row_id: str, error: str) -> dict[str, Any]:
    return {
        **{"row_id": row_id, "payload": b"x", "payload_size": 1, "attributes": None},
        **{"source": "in.xml:0", "step": "decode", "error": error, "message": "no", "time": None},
    }


def test_a_quantile_stands_only_where_a_row_is_alone() -> None:
    moves = cases(6, WAYS[:1])
    one, many = made(tables(moves, None)), made(tables(moves, timedelta(minutes=5)))
    alone = one["process_map"]
    assert all(
        (p90 is None) == (mean == 0)
        for p90, mean in zip(alone["p90_s"], alone["total_s"], strict=True)
    )
    joined = made(tables(cases(6, WAYS[:1], apart=timedelta(0)), timedelta(hours=1)))
    assert sum(many["process_map"]["count"]) == sum(joined["process_map"]["count"]) == 18


def test_cycle_times_are_in_the_bins_of_the_sketch() -> None:
    page = made(tables(cases(30, WAYS[:1])))
    seconds = sorted(2 * (3600.0 + number) for number in range(30))
    bins = np.repeat(page["cycles"]["bin"], page["cycles"]["count"])
    found = np.sort(value_of(np.array(bins, np.int32)) / 1e6)
    assert np.allclose(found, seconds, rtol=page["error"])


def test_without_an_end_state_nothing_is_complete() -> None:
    page = made(tables(cases(5, WAYS), ends=False))
    assert page["cases"] == {"count": 5, "complete": 0}
    assert not page["ends"]["count"]
    assert not page["cycles"]["count"]


def test_ends_are_known_from_variants_where_no_cases_are() -> None:
    found = tables(cases(6, WAYS))
    del found["cases"]
    page = made(found)
    names = page["states"]["names"]
    ends: Counter[str] = Counter()
    for state, count in zip(page["ends"]["state"], page["ends"]["count"], strict=True):
        ends[names[state]] += count
    assert ends == {"done": 4, "refused": 2}


def test_one_window_over_all_time_has_its_flow_from_cases() -> None:
    page = made(tables(cases(50, WAYS), None))
    assert page["periods"]["start"] == []
    flow = page["case_flow"]
    assert sum(flow["started"]) == sum(flow["completed"]) == 50
    assert flow["active"][-1] == 0
    assert len(flow["start"]) <= data_module.CASE_STEPS


def test_nothing_at_all_is_a_page_too() -> None:
    page = made({})
    assert page["process_map"]["count"] == []
    assert made({"flow": TABLES["flow"].schema.empty_table()})["flow"]["started"] == []


def test_thousands_of_windows_become_periods_and_lose_nothing() -> None:
    moves = cases(3000, WAYS[:1], groups=("Order", "Ticket"), apart=timedelta(hours=5))
    page = made(tables(moves))
    periods = page["periods"]
    assert 1 < len(periods["start"]) <= MOST_PERIODS
    assert periods["length"] and periods["length"] % HOUR == 0
    assert edge_counts(page) == Counter((move.source, move.to) for move in moves)
    assert sum(page["heat"]["transitions"]) == len(moves)
    for part in ("process_map", "flow", "workload", "cycles", "ends"):
        assert max(page[part]["period"]) < len(periods["start"])


def test_rows_are_bounded_by_coarser_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "MOST_ROWS", 60)
    moves = cases(300, WAYS)
    page = made(tables(moves))
    assert edge_counts(page) == Counter((move.source, move.to) for move in moves)
    assert len(page["process_map"]["count"]) <= 60


def test_a_hundred_thousand_states_are_put_together_and_that_is_said() -> None:
    rows = [
        Move(f"c{n}", BEGIN + timedelta(seconds=n), "hub" if n % 2 else None, f"s{n}", None)
        for n in range(3000)
    ]
    page = made(tables(rows, None))
    most = data_module.MOST_NAMES["states"]
    # Where cases start is no state, and is told apart from the others.
    assert len(page["states"]["names"]) == most + 1
    assert page["states"]["names"][-1] is None
    assert page["states"]["rest"] == 3001 - most
    assert sum(page["process_map"]["count"]) == 3000
    assert any("states" in sentence for sentence in page["cut"])


def test_active_cases_are_those_of_the_last_window_of_a_period() -> None:
    moves = cases(700, WAYS[:1], apart=timedelta(hours=2))
    found = tables(moves)
    page = made(found)
    assert page["periods"]["length"]
    last = max(row["window_start"] for row in found["flow"].to_pylist())
    expected = sum(
        row["active_cases"] for row in found["flow"].to_pylist() if row["window_start"] == last
    )
    period = len(page["periods"]["start"]) - 1
    flow = page["flow"]
    at_end = [a for p, a in zip(flow["period"], flow["active"], strict=True) if p == period]
    assert sum(at_end) == expected


def test_windows_of_open_cases_alone_do_not_press_the_rest_into_a_corner() -> None:
    found = tables(cases(40, WAYS))
    flow = found["flow"].to_pylist()
    last = max(row["window_start"] for row in flow)
    busy = len({row["window_start"] for row in flow})
    hour = timedelta(hours=1)
    quiet = {**flow[-1], "started": 0, "completed": 0, "transitions": 0, "active_cases": 7}
    tail = [
        {
            **quiet,
            **{"row_id": f"tail-{n}", "window_start": last + n * hour},
            "window_end": last + (n + 1) * hour,
        }
        for n in range(1, 9001)
    ]
    page = made({**found, "flow": table_of("flow", [*flow, *tail])})
    assert len(page["periods"]["start"]) == busy + busy // data_module.TAIL
    assert sum(page["flow"]["transitions"]) == sum(row["transitions"] for row in flow)
    at_end = page["flow"]["active"][-1]
    assert at_end == 7
    assert any("nothing happened after" in sentence for sentence in page["cut"])
    # Few of them are what is: nothing new has come for a while.
    page = made({**found, "flow": table_of("flow", [*flow, *tail[:3]])})
    assert len(page["periods"]["start"]) == busy + 3 and not page["cut"]


@pytest.mark.parametrize(
    ("window", "unit"),
    [(timedelta(hours=1), "hour"), (timedelta(days=1), "day"), (timedelta(days=7), None)],
)
def test_heat_is_as_fine_as_windows_are(window: timedelta, unit: str | None) -> None:
    page = document(Contents(tables(cases(60, WAYS), window)), LOOK)
    assert page["heat"]["unit"] == unit


def test_heat_is_of_the_zones_hours() -> None:
    move = Move("c", BEGIN + timedelta(hours=22, minutes=30), None, "in", None)
    page = document(Contents(tables([move])), LOOK)
    # 22:30 UTC on a Monday is 0:30 on Tuesday in a Berlin summer.
    assert page["heat"]["cell"] == [24]


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=40, unique=True),
    st.integers(1, 12),
)
def test_of_sliding_windows_each_event_is_counted_once(buckets: list[int], size: int) -> None:
    """Windows of `size` buckets, one a bucket, wherever there is an event."""
    starts = sorted({bucket - shift for bucket in buckets for shift in range(size)})
    start = np.array(starts, np.int64) * HOUR
    windows = windows_of(start, start + size * HOUR)
    chosen = windows.start // HOUR
    for bucket in buckets:
        assert sum(first <= bucket < first + size for first in chosen) == 1


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=900, unique=True), st.integers(0, 3))
def test_periods_are_runs_of_whole_windows(hours: list[int], coarser: int) -> None:
    start = np.array(sorted(hours), np.int64) * HOUR
    windows = windows_of(start, start + HOUR)
    periods = periods_of(windows, "Europe/Berlin", coarser)
    assert periods.count <= MOST_PERIODS
    assert (np.diff(periods.of) >= 0).all() and len(periods.of) == len(hours)
    assert (periods.of[periods.last] == np.arange(periods.count)).all()
    assert (periods.start[periods.of] <= windows.start).all()
    assert (periods.end[periods.of] >= windows.end).all()


def test_positions_of_a_drawing_are_passed_on() -> None:
    page = made(
        tables(cases(2, WAYS)), positions={"check": (10, 20, 100, 80), "no such": (0, 0, 1, 1)}
    )
    number = page["states"]["names"].index("check")
    assert page["positions"] == {str(number): [10, 20, 100, 80]}


def test_no_name_is_kept_beside_the_names_and_is_none_of_them() -> None:
    weights: dict[str | None, float] = {"a": 5, "b": 4, "c": 3, None: 1}
    names = Names.most(weights, 2)
    assert (names.kept, names.rest, names.named, names.size) == (("a", "b", None), 1, 2, 4)
    column = pa.chunked_array([["c", None, "a", "b"]])
    assert names.codes(column).tolist() == [3, 2, 0, 1]
    assert Names.most({None: 1}, 2) == Names((None,), 0)
    assert Names.most({"a": 1}, 2) == Names(("a",), 0)
