"""What is Delta Lake's and Iceberg's own: days, snapshots, writers that come in between."""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyiceberg.transforms import DayTransform

from schemas.tables import CASES, FLOW, LATE, TABLES, TRANSITIONS
from tests.sinks.lakes.places import Place, filled, one_part, place
from transforms.addresses import BrokerFault
from transforms.sinks.lakes.address import DeltaTarget, IcebergTarget, parse_tables
from transforms.sinks.lakes.store import Batch

DAYS = [dt.datetime(2024, 1, day, 23, 30, tzinfo=dt.timezone.utc) for day in (1, 1, 2)]


def transitions(*ids: str) -> Any:
    rows = [{"row_id": each, "event_time": at} for each, at in zip(ids, DAYS, strict=False)]
    return filled(TRANSITIONS, *rows)


def delta(there: Place, name: str) -> DeltaTable:
    assert isinstance(there.target, DeltaTarget)
    return DeltaTable(there.target.place(name))


def test_delta_is_partitioned_by_day(tmp_path: Path) -> None:
    there = place("delta", tmp_path)
    there.open().replace(
        {"transitions": TRANSITIONS}, one_part(transitions=transitions("a", "b", "c")), "run"
    )
    table = delta(there, "transitions")
    assert table.metadata().partition_columns == ["day"]
    assert sorted(map(str, (each["day"] for each in table.partitions()))) == [
        "2024-01-01",
        "2024-01-02",
    ]
    assert [row["day"] for row in sorted(there.read("transitions").to_pylist(), key=str)] != []
    window = filled(FLOW, {"row_id": "g", "window_start": None})
    there.open().add({"flow": FLOW}, {"flow": [Batch("1", window)]})
    assert there.read("flow")["day"].to_pylist() == [None]


def test_delta_without_partitions_and_no_mixture(tmp_path: Path) -> None:
    target = parse_tables(f"delta://{tmp_path}/lake?partition=none")
    there = Place(target)
    there.open().add({"late": LATE}, {"late": [Batch("1", filled(LATE, {"row_id": "a"}))]})
    assert delta(there, "late").metadata().partition_columns == []
    assert "day" not in there.read("late").column_names
    with pytest.raises(
        BrokerFault, match="is partitioned by nothing, not by day; give .partition=none"
    ):
        place("delta", tmp_path).open().check(TABLES, replaced=False)


def test_delta_tells_a_column_that_differs_in_case(tmp_path: Path) -> None:
    there = place("delta", tmp_path)
    other = TRANSITIONS.schema.append(pa.field("TASK", pa.int64()))
    renamed = replace(TRANSITIONS, schema=other.remove(other.get_field_index("task")))
    there.open().add(
        {"transitions": renamed}, {"transitions": [Batch("1", filled(renamed, {"row_id": "a"}))]}
    )
    with pytest.raises(BrokerFault, match="column TASK is there, and rows have task; give another"):
        there.open().check({"transitions": TRANSITIONS}, replaced=True)


def test_iceberg_takes_a_table_that_somebody_else_has_just_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = place("iceberg", tmp_path)
    there.open().add({"late": LATE}, {"late": ()})
    late: Any = there.open()
    monkeypatch.setattr(late, "_load", lambda _: None)
    assert late._made(LATE).schema().find_field("row_id")


def test_delta_keeps_ids_of_batches_as_transactions(tmp_path: Path) -> None:
    there = place("delta", tmp_path)
    there.open().add({"late": LATE}, {"late": [Batch("7", filled(LATE, {"row_id": "a"}))]})
    table = delta(there, "late")
    assert table.transaction_version("imixs-0-7") == 1
    before = table.version()
    there.open().add({"late": LATE}, {"late": [Batch("7", filled(LATE, {"row_id": "a"}))]})
    assert delta(there, "late").version() == before
    configuration = table.metadata().configuration
    assert configuration["delta.setTransactionRetentionDuration"] == "interval 30 days"


def test_delta_checks_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BrokerFault, match="is a file"):
        Place(parse_tables(f"delta://{tmp_path}/file/lake")).open().check(TABLES, replaced=True)


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_two_writers_of_one_table_lose_nothing(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the lock of one process they are as two processes: a conflict is tried again."""
    from contextlib import nullcontext  # noqa: PLC0415

    from transforms.sinks.lakes import delta as delta_module  # noqa: PLC0415
    from transforms.sinks.lakes import iceberg as iceberg_module  # noqa: PLC0415

    for module in (delta_module, iceberg_module):
        monkeypatch.setattr(module, "_writing", nullcontext())
    there = place(kind, tmp_path)
    there.open().add({"cases": CASES}, {"cases": []})
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for n in range(4):
                rows = [
                    {"row_id": f"{number}", "case_id": f"{number}", "updated_at": n},
                    {"row_id": "both", "case_id": "both", "updated_at": 10 * n + number},
                ]
                batch = Batch(f"{number}-{n}", filled(CASES, *rows))
                there.open().add({"cases": CASES}, {"cases": [batch]})
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    newest = {row["row_id"]: row["updated_at"].timestamp() * 1e6 for row in there.rows("cases")}
    assert {name: round(at) for name, at in newest.items()} == {"0": 3, "1": 3, "both": 31}


def test_iceberg_is_partitioned_by_day(tmp_path: Path) -> None:
    there = place("iceberg", tmp_path)
    there.open().replace(
        {"transitions": TRANSITIONS}, one_part(transitions=transitions("a", "b", "c")), "run"
    )
    table = there.iceberg("transitions")
    (field,) = table.spec().fields
    assert (field.name, field.transform) == ("day", DayTransform())
    assert table.schema().find_column_name(field.source_id) == "event_time"
    assert len(list(table.scan().plan_files())) == 2
    assert table.schema().find_field("row_id").doc == "deterministic id of the row"


def test_iceberg_says_in_its_snapshots_what_they_hold(tmp_path: Path) -> None:
    there = place("iceberg", tmp_path)
    batches = [Batch(n, filled(LATE, {"row_id": n})) for n in ("1", "2")]
    there.open().add({"late": LATE}, {"late": batches})
    table = there.iceberg("late")
    assert table.current_snapshot().summary["imixs.batches"] == "1,2"
    there.open().add({"late": LATE}, {"late": batches})
    assert there.iceberg("late").current_snapshot() == table.current_snapshot()


def test_iceberg_without_a_catalog_or_partitions(tmp_path: Path) -> None:
    missing = f"iceberg://c/n?uri=sqlite:///{tmp_path}/no/folder/c.db&warehouse={tmp_path}"
    with pytest.raises(BrokerFault, match="catalog c can't be reached"):
        Place(parse_tables(missing)).open().check(TABLES, replaced=True)
    there = place("iceberg", tmp_path)
    plain = parse_tables(f"{there.target}&partition=none")
    assert isinstance(plain, IcebergTarget)
    Place(plain).open().add({"late": LATE}, {"late": []})
    assert Place(plain).iceberg("late").spec().fields == ()
