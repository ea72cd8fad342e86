"""Whole runs of `analytics` through the command line, against counts made in plain Python."""

from __future__ import annotations

import csv
import gzip
import json
import math
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import run
from pipelines.registry import PIPELINES
from pipelines.report.data import Contents, Look, document
from pipelines.report.folder import read_folder
from pipelines.report.live.files import LiveFolder
from tests.pipelines.test_transitions import manifest_of
from transforms.kernels.partial_rows import ERROR

SHARED = Path(__file__).parents[3] / "shared" / "data"
START = datetime(2024, 3, 4, 8, tzinfo=timezone.utc)
DEFAULT = set(PIPELINES["analytics"].default)

Step = tuple[str, datetime]


def analytics(source: str | Path, output: Path, *options: str) -> dict[str, Any]:
    """Run the pipeline and return its manifest; the laws hold, or the exit code is not 0."""
    code = run.main(
        ["analytics", "--input", str(source), "--output", str(output), "--workers", "1"]
        + ["--progress", "off", *options]
    )
    assert code == 0
    return manifest_of(output)


def table(output: Path, name: str) -> list[dict[str, Any]]:
    found = [pq.read_table(path) for path in sorted((output / name).iterdir())]
    rows: list[dict[str, Any]] = pa.concat_tables(found).to_pylist()
    assert len({row["row_id"] for row in rows}) == len(rows)
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def event(case: str, state: str, minutes: float, **more: Any) -> dict[str, Any]:
    at = START + timedelta(minutes=minutes)
    return {"case_id": case, "activity": state, "event_time": at.isoformat(), **more}


def cases_of_xes(path: Path) -> Iterator[tuple[str, Step]]:
    """Read a log with nothing of ours."""
    opened = gzip.open(path) if path.suffix == ".gz" else path.open("rb")
    with opened as source:
        for number, trace in enumerate(ET.parse(source).getroot().iter()):  # noqa: S314
            if trace.tag.rpartition("}")[2] != "trace":
                continue
            names = [c.get("value") for c in trace if c.get("key") == "concept:name"]
            for each in trace:
                if each.tag.rpartition("}")[2] == "event":
                    values = {c.get("key"): c.get("value") for c in each}
                    at = datetime.fromisoformat(
                        str(values["time:timestamp"]).replace("Z", "+00:00")
                    )
                    yield str(names[0] if names else number), (str(values["concept:name"]), at)


def cases_of_csv(path: Path) -> Iterator[tuple[str, Step]]:
    with gzip.open(path, "rt", newline="") as source:
        for row in csv.DictReader(source):
            case = row.get("case:concept:name") or row["case_id"]
            name = row.get("concept:name") or row["activity"]
            at = row.get("time:timestamp") or row["end_time"]
            yield case, (name, datetime.fromisoformat(at))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared logs are not here")
@pytest.mark.parametrize(
    "name",
    [
        *("running-example.xes", "receipt.xes.gz", "helpdesk.xes.gz", "roadtraffic100traces.xes"),
        *("BPIC15_1.csv.gz", "PurchasingExample.csv.gz"),
    ],
)
def test_the_process_map_of_a_log_is_its_directly_follows_graph(name: str, tmp_path: Path) -> None:
    read = cases_of_xes if ".xes" in name else cases_of_csv
    ways: dict[str, list[Step]] = defaultdict(list)
    for case, step in read(SHARED / "logs" / name):
        ways[case].append(step)
    follows: dict[tuple[str, str], list[float]] = defaultdict(list)
    by_case: dict[tuple[str, str], set[str]] = defaultdict(set)
    starts: Counter[str] = Counter()
    for case, way in ways.items():
        # Events of one time stay in the order of the log.
        way.sort(key=lambda step: step[1])
        starts[way[0][0]] += 1
        for (one, began), (other, ended) in zip(way, way[1:], strict=False):
            follows[one, other].append((ended - began).total_seconds())
            by_case[one, other].add(case)
    analytics(SHARED / "logs" / name, tmp_path / "out", "--complete_log", "--window", "global")
    rows = table(tmp_path / "out", "process_map")
    assert Counter({r["to_state"]: r["count"] for r in rows if r["from_state"] is None}) == starts
    found = {(r["from_state"], r["to_state"]): r for r in rows if r["from_state"] is not None}
    assert {edge: row["count"] for edge, row in found.items()} == {
        edge: len(times) for edge, times in follows.items()
    }
    assert {edge: row["cases"] for edge, row in found.items()} == {
        edge: len(cases) for edge, cases in by_case.items()
    }
    for edge, times in follows.items():
        row = found[edge]
        assert math.isclose(row["mean_s"], sum(times) / len(times), rel_tol=1e-6, abs_tol=1e-6)
        assert (row["min_s"], row["max_s"]) == (min(times), max(times))
        times.sort()
        for column, percent in (("p50_s", 50), ("p90_s", 90), ("p99_s", 99)):
            # Of 100 values p99 is the 99th.
            exact = times[-(-len(times) * percent // 100) - 1]
            assert math.isclose(row[column], exact, rel_tol=ERROR * 1.001, abs_tol=2e-6), column
    # The other tables tell the same log.
    [flow] = table(tmp_path / "out", "flow")
    assert flow["started"] == flow["completed"] == len(ways)
    assert flow["transitions"] == sum(map(len, ways.values()))
    assert flow["active_cases"] == 0
    variants = Counter(tuple(state for state, _ in way) for way in ways.values())
    shown = table(tmp_path / "out", "variants")
    assert Counter({tuple(r["states"]): r["cases"] for r in shown}) == variants
    assert math.isclose(sum(r["share"] for r in shown), 1)
    stays: Counter[str] = Counter()
    for (one, _), times in follows.items():
        stays[one] += len(times)
    times_of = table(tmp_path / "out", "state_times")
    assert Counter({r["state"]: r["visits"] for r in times_of}) == stays
    assert sum(r["transitions"] for r in table(tmp_path / "out", "workload")) == sum(
        map(len, ways.values())
    )


def test_hours_tell_what_the_whole_tells(tmp_path: Path) -> None:
    rows = [
        event(f"c{case}", state, 37 * case + 25 * step, actor=f"a{(case + step) % 3}")
        for case in range(40)
        for step, state in enumerate(["new", "checked", "new", "checked", "done"][: 2 + case % 4])
    ]
    source = write(tmp_path / "in.jsonl", rows)
    manifest = analytics(source, tmp_path / "out", "--end_states", "done")
    assert set(manifest["tables"]) == DEFAULT
    analytics(source, tmp_path / "all", "--end_states", "done", "--window", "global")
    for name, key, number in (
        ("process_map", ("from_state", "to_state"), "count"),
        ("state_times", ("state",), "visits"),
        ("workload", ("actor",), "transitions"),
        ("flow", (), "started"),
        ("flow", (), "completed"),
        ("variants", ("variant_id",), "cases"),
    ):
        hours: Counter[tuple[str, ...]] = Counter()
        for row in table(tmp_path / "out", name):
            hours[tuple(row[k] for k in key)] += row[number]
        whole = {tuple(r[k] for k in key): r[number] for r in table(tmp_path / "all", name)}
        assert dict(hours) == whole, (name, number)
    level = 0
    for row in sorted(table(tmp_path / "out", "flow"), key=lambda r: r["window_start"])[:50]:
        level += row["started"] - row["completed"]
        assert row["active_cases"] == level


def test_an_empty_input_gives_empty_tables(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("\n")
    manifest = analytics(source, tmp_path / "out", "--format", "json_lines", "--window", "Global")
    assert manifest["window"] == "global"
    assert {name: each["rows"] for name, each in manifest["tables"].items()} == dict.fromkeys(
        DEFAULT, 0
    )


def test_a_single_event(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [event("c", "new", 0)])
    analytics(source, tmp_path / "out", "--end_states", "new")
    [flow] = table(tmp_path / "out", "flow")
    assert (flow["started"], flow["completed"], flow["active_cases"]) == (1, 1, 0)
    assert flow["cycle_p50_s"] == 0
    [edge] = table(tmp_path / "out", "process_map")
    assert (edge["from_state"], edge["to_state"], edge["count"], edge["mean_s"]) == (
        *(None, "new", 1),
        None,
    )


def test_a_case_of_years_and_a_clock_that_jumps(tmp_path: Path) -> None:
    years = 900 * 24 * 60
    rows = [event("long", "new", 0), event("long", "done", years)]
    rows += [event("back", "new", 90), event("back", "checked", -90)]
    source = write(tmp_path / "in.jsonl", rows)
    analytics(
        source, tmp_path / "out", "--end_states", "done", "--window", "fixed:1d",
        "--idle_retention", "9000d",
    )  # fmt: skip
    flow = {r["window_start"]: r for r in table(tmp_path / "out", "flow") if r["transitions"]}
    assert sum(r["transitions"] for r in flow.values()) == 4
    [done] = [r for r in table(tmp_path / "out", "process_map") if r["to_state"] == "done"]
    assert done["mean_s"] == years * 60
    # Between them there was a case open, day by day.
    quiet = [r for r in table(tmp_path / "out", "flow") if not r["transitions"]]
    assert len(quiet) >= 890
    assert {r["active_cases"] for r in quiet} == {1, 2}


def test_a_state_entered_ten_thousand_times(tmp_path: Path) -> None:
    rows = [event("c", ("ping", "pong")[n % 2], n / 60) for n in range(20_000)]
    source = write(tmp_path / "in.jsonl", rows)
    analytics(source, tmp_path / "out", "--complete_log", "--window", "global")
    [variant] = table(tmp_path / "out", "variants")
    assert variant["cases"] == 1
    assert len(variant["states"]) == 1000
    edges = {(r["from_state"], r["to_state"]): r for r in table(tmp_path / "out", "process_map")}
    assert edges["ping", "pong"]["count"] == 10_000
    assert edges["ping", "pong"]["cases"] == 1


def test_more_states_than_are_kept_apart(tmp_path: Path) -> None:
    rows = [event(f"c{n}", f"state {n}", n / 60) for n in range(100_500)]
    source = write(tmp_path / "in.jsonl", rows)
    manifest = analytics(source, tmp_path / "out", "--window", "global")
    assert [w for w in manifest["warnings"] if "(other) or others" in w]
    edges = table(tmp_path / "out", "process_map")
    assert len(edges) == 100_001
    [others] = [r for r in edges if r["to_state"] == "(other)"]
    assert others["count"] == 500
    assert sum(r["count"] for r in edges) == len(rows)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--window", "fixed:90"], "'90' is not a duration"),
        (["--window", "sliding:1h/7m"], "give a period that divides it, such as 15m"),
        (["--window", "fixed:1d@Europe/Berlim"], "no time zone 'Europe/Berlim'"),
        (["--window", "fixed:1h@Europe/Berlin"], "of whole days"),
        (["--window", "hourly"], "is no window: give fixed:1h"),
        (["--window", ""], "is no window: give fixed:1h"),
        (["--window", "fixed:1d@"], "names no time zone"),
        (["--window", "sliding:1d/1s"], "2m is a step that fits"),
        (["--window", "weekly"], "sliding:7d/1d@Europe/Berlin or global"),
        (["--window", "fixed:99999999999999999999d"], "36500d is the longest window"),
        (["--window", "sliding:3d/2d@Europe/Berlin"], "such as 1d"),
        (["--tables", "proces_map"], "did you mean 'process_map'"),
        (["--early_firing", "10s"], "is for streams"),
        (["--since", "2099-01-01"], "the start of the run, where none is given"),
        (["--keep_state"], "is of transitions"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_starts(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.jsonl", [event("c", "new", 0)])
    arguments = ["--input", str(source), "--output", str(tmp_path / "out"), *options]
    assert run.main(["analytics", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_granule_that_does_not_divide_the_window_is_told_some_that_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--input", "kafka://localhost:1/t", "--output", "kafka://localhost:1/o-"]
    code = run.main(["analytics", *arguments, "--window", "fixed:1h", "--granule", "7s"])
    assert code == 2
    found = capsys.readouterr().err
    assert "--granule 7s does not divide 1h of --window fixed:1h; 2s, 5s, 10s would" in found


def test_an_end_state_that_no_case_comes_to_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [event(f"c{i}", state, i + n) for i in range(5) for n, state in enumerate("AB")]
    source = write(tmp_path / "events.jsonl", [*events, event("d", "Done", 60)])
    out = tmp_path / "out"
    manifest = analytics(source, out, "--end_states", "Done,Rejected")
    assert manifest["warnings"] == ["--end_states Rejected: no case came to it"]
    said = capsys.readouterr().err
    assert "the last states of cases are B (5), Done (1)" in said
    assert len(table(out, "variants")) == 1
    analytics(source, out, "--end_states", "Rejected", "--output_format", "csv")
    assert "are B (5), Done (1)" in capsys.readouterr().err
    assert run.main(["show", str(out), "--table", "variants"]) == 0
    assert "0 rows (no case came to an end" in capsys.readouterr().out
    # Nothing at all happened: no word of it.
    source.write_text("")
    assert analytics(source, out, "--end_states", "Rejected")["warnings"] == [f"{source} is empty"]


def test_a_case_that_was_forgotten_and_came_back_is_said(tmp_path: Path) -> None:
    day = 24 * 60
    events = [event("c", state, at * day) for state, at in (("A", 0), ("B", 1), ("C", 400))]
    source = write(tmp_path / "events.jsonl", events)
    out = tmp_path / "out"
    options = ("--window", "global", "--until", "2026-01-01")
    said = analytics(source, out, *options)["warnings"]
    assert [each for each in said if each.startswith("1 times a case came back after")]
    [flow] = table(out, "flow")
    assert flow["started"] == 2
    manifest = analytics(source, out, *options, "--idle_retention", "3650d")
    assert manifest["warnings"] == []
    [flow] = table(out, "flow")
    assert flow["started"] == 1


@pytest.mark.parametrize("window", ["fixed:1d", "sliding:2d/1d"])
def test_windows_without_events_begin_with_since(window: str, tmp_path: Path) -> None:
    day = 24 * 60
    events = [event("open", "A", 0), event("new", "A", 10 * day), event("new", "B", 12 * day)]
    source = write(tmp_path / "events.jsonl", events)
    out = tmp_path / "out"
    options = ("--window", window, "--since", "2024-03-10", "--until", "2024-03-20")
    analytics(source, out, *options)
    flow = sorted(table(out, "flow"), key=lambda row: row["window_end"])
    assert flow[0]["window_end"] == datetime(2024, 3, 11, tzinfo=timezone.utc)
    # Who had begun before is open all the same.
    assert flow[0]["active_cases"] == 1
    assert flow[-1]["active_cases"] == 2
    assert [each["active_cases"] for each in flow].count(1) == 4


def test_a_day_that_a_zone_left_out_has_no_window(tmp_path: Path) -> None:
    """Samoa went from 29 to 31 December 2011."""
    events = [
        {"case_id": "c", "activity": state, "event_time": at}
        for state, at in (("A", "2011-12-27T20:00Z"), ("B", "2012-01-03T20:00Z"))
    ]
    source = write(tmp_path / "events.jsonl", events)
    out = tmp_path / "out"
    analytics(source, out, "--window", "fixed:1d@Pacific/Apia", "--until", "2012-01-06")
    flow = table(out, "flow")
    assert all(row["window_start"] < row["window_end"] for row in flow)
    assert not any(math.isnan(row["throughput_per_h"]) for row in flow)
    days = sorted(row["window_start"] for row in flow)
    assert datetime(2011, 12, 30, 10, tzinfo=timezone.utc) in days
    ends = sorted(row["window_end"] for row in flow)
    assert days[1:] == ends[:-1]


def test_long_names_are_cut_and_told_apart(tmp_path: Path) -> None:
    names = ["ü" * 60_000 + tail for tail in ("a", "b", "a")]
    events = [event(f"c{n}", "A", n, actor=name) for n, name in enumerate(names)]
    source = write(tmp_path / "events.jsonl", events)
    analytics(source, tmp_path / "out", "--complete_log", "--window", "global")
    found = {row["actor"]: row["transitions"] for row in table(tmp_path / "out", "workload")}
    assert sorted(found.values()) == [1, 2]
    assert all(4000 < len(name.encode()) <= 4096 and "ü…" in name for name in found)


def test_a_window_too_short_for_its_cases_is_warned_of(tmp_path: Path) -> None:
    """Each event of an open case has up to 10,000 windows without events behind it."""
    events = [event(f"c{i}", "A", i) for i in range(105)]
    source = write(tmp_path / "events.jsonl", events)
    manifest = analytics(source, tmp_path / "out", "--window=fixed:1ms")
    # And the one in which they are forgotten.
    assert manifest["tables"]["flow"]["rows"] == 105 * 10_001 + 1
    assert [w for w in manifest["warnings"] if "a longer --window makes fewer" in w]
    flow = table(tmp_path / "out", "flow")
    assert len({row["row_id"] for row in flow}) == len(flow)
    assert sum(row["started"] for row in flow) == 105


def test_days_of_a_zone_are_shown_in_that_zone(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [event(f"c{n}", "A", 700 * n) for n in range(4)])
    out = tmp_path / "out"
    manifest = analytics(source, out, "--window", "fixed:1d@America/Lima")
    assert manifest["window"] == "fixed:1d@America/Lima"
    contents = read_folder(str(out))

    def shown(contents: Contents, zone: str = "") -> tuple[str, list[str]]:
        page = document(contents, Look("T", zone))
        return page["zone"], [each for each in page["cut"] if "days begin" in each]

    assert shown(contents) == ("America/Lima", [])
    said = "days begin at {} here: --timezone shows them in the zone of --window"
    assert shown(contents, "Asia/Kolkata") == ("Asia/Kolkata", [said.format("10:30")])
    # A stream that has not ended says nothing of itself yet.
    assert shown(replace(contents, manifest=None)) == ("UTC", [said.format("05:00")])
    analytics(source, out, "--window", "sliding:2d/1d")
    assert shown(read_folder(str(out))) == ("UTC", [])


def test_tables_of_a_run_before_do_not_stay(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [event("c", "new", 0)])
    analytics(source, tmp_path / "out")
    analytics(source, tmp_path / "out", "--tables", "flow,process_map")
    names = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert names == {"flow", "process_map"}


@pytest.mark.parametrize("window", ["fixed:1h", "sliding:2h/1h", "global"])
def test_shards_and_other_tables_change_nothing(window: str, tmp_path: Path) -> None:
    rows = [
        event(f"c{n}", state, 37 * n + 25 * step, actor=f"a{n % 3}", workflow_group=f"g{n % 4}")
        for n in range(60)
        for step, state in enumerate(["new", "checked", "new", "checked", "done"][: 2 + n % 4])
    ]
    source = write(tmp_path / "in.jsonl", rows)
    common = ("--end_states", "done", "--window", window)
    analytics(source, tmp_path / "one", *common, "--shards", "1")
    analytics(source, tmp_path / "many", *common, "--shards", "7")
    assert len(list((tmp_path / "many" / "process_map").iterdir())) > 1
    for name in DEFAULT - {"dead_letters", "late", "retracted"}:
        analytics(source, tmp_path / name, *common, "--shards", "3", "--tables", name)
        found = [
            sorted(table(tmp_path / output, name), key=lambda r: str(r["row_id"]))
            for output in ("one", "many", name)
        ]
        assert found[0]
        assert found[0] == found[1] == found[2]


LEFT = """
import os, signal, sys
import pyarrow as pa
from schemas.tables import FLOW
from transforms.sinks.commit import LocalStore, Run
run = Run.start(sys.argv[1], LocalStore(), ["flow", "transitions"])
with run.open_part(FLOW, 0, 1) as writer:
    writer.write(FLOW.schema.empty_table())
os.kill(os.getpid(), signal.SIGKILL)
"""


def left_by_a_killed_run(out: Path) -> Path:
    """Let a run into an output be killed (`kill -9`) when it has written a part."""
    root = str(Path(run.__file__).parent)
    ended = subprocess.run([sys.executable, "-c", LEFT, str(out)], cwd=root, check=False)
    assert ended.returncode == -signal.SIGKILL
    (left,) = out.glob(".run-*")
    assert list(left.glob("staging/flow/*.parquet"))
    return left


def test_what_a_killed_run_leaves_is_not_shown_and_the_next_run_removes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the next run is: of other tables, or of another pipeline."""
    out, page = tmp_path / "out", tmp_path / "page.html"
    source = write(tmp_path / "in.jsonl", [event("c", "new", 0), event("c", "done", 5)])
    left = left_by_a_killed_run(out)
    assert run.main(["show", str(out)]) == 4
    assert "holds no finished run" in capsys.readouterr().err
    assert run.main(["report", "--input", str(out), "--output", str(page)]) == 4
    assert "has no tables of analytics" in capsys.readouterr().err
    analytics(source, out, "--tables", "process_map,flow", "--end_states", "done")
    assert not left.exists()

    left = left_by_a_killed_run(out)
    capsys.readouterr()
    assert run.main(["show", str(out), "--table", "flow"]) == 0
    assert "flow: 1 row\n" in capsys.readouterr().out
    assert read_folder(str(out)).notes == ()
    live = LiveFolder(str(out))
    live.refresh()
    assert (live.contents().tables["flow"].num_rows, live.problem) == (1, "")
    arguments = ["transitions", "--input", str(source), "--output", str(out), "--progress", "off"]
    assert run.main([*arguments, "--workers", "1"]) == 0
    assert not left.exists()
    assert not list(out.glob(".*"))


def test_a_run_that_lives_is_not_cleaned_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    source = write(tmp_path / "in.jsonl", [event("c", "new", 0)])
    code = LEFT.replace("os.kill(os.getpid(), signal.SIGKILL)", "print(1, flush=True); input()")
    root = str(Path(run.__file__).parent)
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, str(out)]
    with subprocess.Popen(command, cwd=root, stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        (lives,) = out.glob(".run-*")
        before = sorted(lives.rglob("*"))
        arguments = ["--input", str(source), "--output", str(out), "--tables", "variants"]
        assert run.main(["analytics", *arguments]) == 5
        assert f"another run is writing to {out} (pid {other.pid})" in capsys.readouterr().err
        assert sorted(lives.rglob("*")) == before
        other.communicate(b"\n")
