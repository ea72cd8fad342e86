"""The SQL of analytics gives our tables. Nothing here measures time."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from bench.agreement import MEASURED, differences
from bench.analytics import MAP, PM4PY, TABLES, judge, our_command
from bench.data import business_log
from bench.measure import run

pytest.importorskip("duckdb", reason="the SQL runs on duckdb: pip install --group bench")

EVENTS = 3_000


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from bench.analytics_sql import write_tables  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("analytics")
    log = business_log("parquet", EVENTS, folder)
    theirs = folder / "theirs"
    theirs.mkdir()
    write_tables(log, theirs)
    run(our_command(log, str(folder / "ours"), "fixed:1h", TABLES))
    return folder / "ours", theirs


def test_the_sql_gives_our_tables(outputs: tuple[Path, Path]) -> None:
    assert differences(*outputs, MEASURED) == []


@pytest.mark.parametrize(
    ("table", "column"),
    [("process_map", "p90_s"), ("flow", "active_cases"), ("variants", "share")],
)
def test_a_column_that_differs_is_named(
    outputs: tuple[Path, Path], tmp_path: Path, table: str, column: str
) -> None:
    ours, theirs = outputs
    for file in theirs.glob("*.parquet"):
        rows = pq.read_table(file)
        if file.stem == table:
            at = rows.column_names.index(column)
            changed = pc.multiply(rows[column], pa.scalar(3, rows[column].type))
            rows = rows.set_column(at, column, changed)
        pq.write_table(rows, tmp_path / file.name)
    (found,) = differences(ours, tmp_path, MEASURED)
    assert found.startswith(f"{table}.{column}: ")


def test_targets_are_judged() -> None:
    ((_, shown, met),) = judge("analytics/10M", {}, 2.5)
    assert (shown, met) == ("2.50 x", False)
    ((_, shown, met),) = judge("analytics_map/2M", {MAP: 2.0, PM4PY: 50.0}, None)
    assert (shown, met) == ("25.0 x", True)
    assert not list(judge("analytics_map/2M", {MAP: 2.0}, None))
