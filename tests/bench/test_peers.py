"""The engines that the benchmarks compare do the same work. Nothing here measures time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq
import pytest

from bench.agreement import differences
from bench.data import ROW_GROUP, business_log
from bench.sections import our_command

EVENTS = 30_000


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("logs")
    return {kind: business_log(kind, EVENTS, folder) for kind in ("jsonl", "parquet")}


def run_peer(peer: str, log: Path, output: Path) -> Path:
    pytest.importorskip(peer)
    command = [sys.executable, "-m", "bench.peers", peer, str(log), str(output)]
    subprocess.run(command, check=True, timeout=120)
    return output


def test_a_log_is_the_same_rows_in_both_kinds_in_time_order(logs: dict[str, Path]) -> None:
    rows = pq.read_table(logs["parquet"])
    lines = pj.read_json(logs["jsonl"])
    times = rows["event_time"]

    assert len(rows) == EVENTS
    assert pc.all(pc.greater_equal(times[1:], times[:-1])).as_py()
    assert lines.schema.names == rows.schema.names
    assert lines["event_time"].cast(pa.timestamp("us", tz="UTC")).equals(times)
    for name in set(rows.schema.names) - {"event_time"}:
        assert lines[name].combine_chunks().equals(rows[name].combine_chunks()), name


def test_a_log_interleaves_cases_and_has_ties_of_time(logs: dict[str, Path]) -> None:
    rows = pq.read_table(logs["parquet"])
    cases = rows.group_by("case_id").aggregate([("event_time", "count"), ("event_time", "max")])
    ties = rows.group_by(["case_id", "event_time"]).aggregate([([], "count_all")])
    neighbours = pc.equal(rows["case_id"][1:], rows["case_id"][:-1])

    assert len(cases) > EVENTS / 15
    assert pc.max(cases["event_time_count"]).as_py() > 10
    assert pc.max(ties["count_all"]).as_py() > 1
    assert pc.sum(neighbours).as_py() < EVENTS / 20
    assert {len(set(rows[name].to_pylist())) for name in ("workflow_group", "model_version")} == {
        3,
        6,
    }


def test_a_log_is_the_same_every_time_and_pieces_do_not_show(tmp_path: Path) -> None:
    first = business_log("parquet", 5_000, tmp_path / "a")
    again = business_log("parquet", 5_000, tmp_path / "b")
    long = business_log("parquet", ROW_GROUP + 1, tmp_path)

    assert first.read_bytes() == again.read_bytes()
    assert pq.ParquetFile(long).num_row_groups == 2
    assert pq.read_metadata(long).num_rows == ROW_GROUP + 1


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_polars_makes_the_rows_that_duckdb_makes(
    kind: str, logs: dict[str, Path], tmp_path: Path
) -> None:
    duckdb = run_peer("duckdb", logs[kind], tmp_path / "duckdb")
    polars = run_peer("polars", logs[kind], tmp_path / "polars")

    assert differences(polars, duckdb) == []


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_run_transitions_makes_the_rows_that_duckdb_makes(
    kind: str, logs: dict[str, Path], tmp_path: Path
) -> None:
    duckdb = run_peer("duckdb", logs[kind], tmp_path / "duckdb")
    ours = tmp_path / "ours"
    subprocess.run(our_command(logs[kind], str(ours)), check=True, timeout=120)

    assert differences(ours, duckdb) == []


def test_a_difference_in_any_column_is_found(logs: dict[str, Path], tmp_path: Path) -> None:
    duckdb = run_peer("duckdb", logs["parquet"], tmp_path / "duckdb")
    changed = tmp_path / "changed"
    changed.mkdir()
    for file in ("transitions.parquet", "cases.parquet"):
        table = pq.read_table(duckdb / file)
        for place, name in enumerate(table.schema.names):
            column = table[name]
            if column.null_count < len(column) and name not in ("case_id", "sequence"):
                shifted = pa.chunked_array([column[-1:].chunk(0), *column[:-1].chunks])
                if pc.count_distinct(column).as_py() > 1:
                    table = table.set_column(place, name, shifted)
        pq.write_table(table, changed / file)

    found = {sentence.split(":")[0] for sentence in differences(changed, duckdb)}

    assert {"transitions.from_state", "transitions.duration_s", "cases.rework"} <= found
    assert {"transitions.activity", "transitions.actor", "cases.state"} <= found
    # Ids are compared up to a renaming, and moved along they are one.
    assert not {"transitions.row_id", "transitions.event_id", "cases.row_id"} & found
    assert "cases.variant_id" in found
