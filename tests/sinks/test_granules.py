"""Granules as files: whole or not there, named by what is in them, beside a backfill's parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.coders import pack
from schemas.tables import DEAD_LETTERS, LATE, TABLES
from tests.sinks import memory_files
from tests.sinks.rows import plain_rows, tables
from transforms import progress
from transforms.sinks.commit import LocalStore, OutputError, Run
from transforms.sinks.granules import (
    WriteGranules,
    _Write,
    check_tables,
    content_of,
    granule_name,
    write_manifest,
    written,
)
from transforms.sinks.store import BeamStore, open_store
from transforms.sinks.tables import FileFormat

Element = tuple[str, int, int, bytes]


def late(first: int, rows: int, reason: str = "why") -> pa.Table:
    columns = []
    for field in LATE.schema:
        if pa.types.is_timestamp(field.type):
            column = pa.array(range(rows), pa.int64()).cast(field.type)
        elif field.name == "row_id":
            column = pa.array([f"{first + n:032x}" for n in range(rows)])
        else:
            column = pa.array([reason] * rows).cast(field.type)
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=LATE.schema)


def dead(*ids: str) -> pa.Table:
    row = {"payload": b"x", "step": "decode", "error": "E", "message": "m"}
    return pa.Table.from_pylist([{**row, "row_id": each} for each in ids], DEAD_LETTERS.schema)


def element(rows: pa.Table, shard: int = 0, until: int = 1000, name: str = "late") -> Element:
    return name, shard, until, pack(rows.combine_chunks())


def hold(folder: Path | str, file_format: FileFormat = "parquet") -> Run:
    run = Run.start(str(folder), open_store(str(folder)), (), file_format)
    check_tables(run, TABLES)
    return run


def write(run: Run, elements: list[Element], scratch: str = "") -> None:
    """Run one bundle, as a worker would."""
    dofn = _Write(WriteGranules(run, TABLES, scratch))
    dofn.start_bundle()
    for each in elements:
        assert list(dofn.process(each)) == []
    dofn.finish_bundle()


def names(folder: Path, table: str = "late") -> list[str]:
    return sorted(path.name for path in (folder / table).iterdir())


def ids(folder: Path, table: str = "late") -> list[str]:
    found = [pq.read_table(path)["row_id"].to_pylist() for path in (folder / table).iterdir()]
    return sorted(sum(found, []))


def test_a_file_is_seen_when_its_bundle_ends(tmp_path: Path) -> None:
    run = hold(tmp_path)
    dofn = _Write(WriteGranules(run, TABLES))
    dofn.start_bundle()
    list(dofn.process(element(late(0, 5), shard=3)))
    assert names(tmp_path) == []
    assert run.parts("late") == [], "not taken for a part either"
    dofn.finish_bundle()
    (name,) = names(tmp_path)
    assert name.startswith("late-stream-0000000001000-00003-")
    assert pq.read_table(tmp_path / "late" / name).equals(late(0, 5))
    run.abort()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_bundle_that_fails_leaves_nothing(tmp_path: Path) -> None:
    run = hold(tmp_path)
    dofn = _Write(WriteGranules(run, TABLES))
    dofn.start_bundle()
    list(dofn.process(element(late(0, 5))))
    dofn.start_bundle()
    list(dofn.process(element(late(0, 7))))
    dofn.finish_bundle()
    assert len(names(tmp_path)) == 1
    assert len(ids(tmp_path)) == 7
    assert list(Path(run.staging("late")).iterdir()) == []


def test_a_repeat_overwrites_itself_and_nothing_else(tmp_path: Path) -> None:
    run = hold(tmp_path)
    bundle = [element(late(0, 5), shard) for shard in (0, 1)]
    write(run, bundle)
    before = names(tmp_path)
    write(run, bundle)
    assert names(tmp_path) == before
    # A stream that was restarted in the midst of a granule has its other rows.
    write(run, [element(late(5, 2), 0)])
    assert len(names(tmp_path)) == 3
    assert len(set(ids(tmp_path))) == 7


def test_rows_of_one_key_at_another_time_are_others() -> None:
    rows = late(0, 4)
    later = rows.set_column(
        rows.schema.get_field_index("order_time"),
        LATE.schema.field("order_time"),
        pa.array([9] * 4, pa.int64()).cast(LATE.schema.field("order_time").type),
    )
    assert content_of(rows) != content_of(later)
    assert content_of(rows) == content_of(rows.take([3, 1, 0, 2]))
    assert content_of(rows) != content_of(rows.slice(1))


def test_dead_letters_of_a_bundle_are_one_file(tmp_path: Path) -> None:
    run = hold(tmp_path)
    # Of two partitions: same offset, same time.
    batches = [element(dead(each), 7, 1000, "dead_letters") for each in ("b", "a", "c")]
    write(run, batches)
    assert len(names(tmp_path, "dead_letters")) == 1
    assert ids(tmp_path, "dead_letters") == ["a", "b", "c"]


def test_many_dead_letters_do_not_wait_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.sinks.granules.DEAD_BYTES", 1)
    write(hold(tmp_path), [element(dead(each), 7, 1000, "dead_letters") for each in "abc"])
    assert len(names(tmp_path, "dead_letters")) == 3
    assert ids(tmp_path, "dead_letters") == ["a", "b", "c"]


@pytest.mark.parametrize("table", list(TABLES))
def test_names_sort_behind_a_backfills_and_by_time(table: str) -> None:
    part = f"{table}-00000-of-00040.parquet"
    first = granule_name(table, 999_999_999_999, 15, 2**64 - 1, "parquet")
    second = granule_name(table, 1_700_000_000_000, 0, 0, "parquet")
    assert sorted([second, first, part]) == [part, first, second]


@settings(max_examples=30, deadline=None)
@given(tables(LATE), st.sampled_from(["parquet", "jsonl", "csv"]))
def test_every_format(
    tmp_path_factory: pytest.TempPathFactory, rows: pa.Table, file_format: FileFormat
) -> None:
    folder = tmp_path_factory.mktemp("out")
    write(hold(folder, file_format), [element(rows)])
    found = list((folder / "late").iterdir())
    assert len(found) == (1 if len(rows) else 0)
    for path in found:
        assert path.suffix == f".{file_format}"
        if file_format == "parquet":
            assert pq.read_table(path).to_pylist() == rows.to_pylist()
        elif file_format == "jsonl":
            lines = path.read_bytes().splitlines()
            assert [orjson.loads(line) for line in lines] == plain_rows(rows)
        else:
            assert path.read_text("utf-8").startswith('"row_id","event_id"')


def test_rows_and_files_are_counted_when_they_are_seen(tmp_path: Path) -> None:
    scratch = str(tmp_path / "scratch")
    progress.prepare(scratch)
    run = hold(tmp_path / "out")
    write(run, [element(late(0, 5), 0), element(late(5, 2), 1)], scratch)
    progress.flush_all()
    found = written(progress.read_counts(scratch), ("late", "cases"))
    assert found == {"late": {"rows": 7, "files": 2}, "cases": {"rows": 0, "files": 0}}


def test_an_object_store() -> None:
    memory_files.OBJECTS.clear()
    run = hold("memory://bucket/out")
    for _ in range(2):
        write(run, [element(late(0, 5))])
    run.abort()
    (path,) = memory_files.OBJECTS
    assert path.startswith("memory://bucket/out/late/late-stream-")


def test_a_second_run_is_refused(tmp_path: Path) -> None:
    hold(tmp_path)
    with pytest.raises(OutputError, match="another run is writing"):
        hold(tmp_path)
    with pytest.raises(OutputError, match="another run is writing"):
        Run.start(str(tmp_path), LocalStore(), TABLES)


def test_a_backfill_does_not_replace_a_streams_files(tmp_path: Path) -> None:
    run = hold(tmp_path)
    write(run, [element(late(0, 5))])
    run.abort()
    with pytest.raises(OutputError, match="holds files of others .late-stream-"):
        Run.start(str(tmp_path), LocalStore(), TABLES)
    hold(tmp_path)
    assert len(ids(tmp_path)) == 5, "another stream goes on"


def test_files_of_another_format_are_refused(tmp_path: Path) -> None:
    run = hold(tmp_path)
    write(run, [element(late(0, 5))])
    run.abort()
    with pytest.raises(OutputError, match="parquet files.*give --output_format parquet"):
        hold(tmp_path, "csv")


def test_a_table_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "late").touch()
    with pytest.raises(OutputError, match="late: it, or a parent, is a file"):
        hold(tmp_path)


def test_a_store_that_cannot_be_written() -> None:
    with pytest.raises(OutputError, match="403 Forbidden; fix that"):
        check_tables(
            Run("memory://read-only/out", "", "", "parquet", BeamStore()), ("transitions",)
        )


def manifest(events: int, **more: Any) -> dict[str, Any]:
    return {
        "messages": {"in": events, "decoded": events},
        "events": {"in": events, "transitions": events},
        "quality": {"gaps": 1},
        "retracted": 0,
        "warnings": ["w"],
        "tables": {"transitions": {"rows": events, "files": 1}},
        **more,
    }


def test_manifests_add_up(tmp_path: Path) -> None:
    run = hold(tmp_path)
    write_manifest(run, manifest(3, run_id="a", state={"rows": 1}))
    write_manifest(run, manifest(4, run_id="b", tables={"late": {"rows": 1, "files": 1}}))
    found = orjson.loads((tmp_path / "_run.json").read_bytes())
    assert found["events"] == {"in": 7, "transitions": 7}
    assert found["tables"] == {
        "transitions": {"rows": 3, "files": 1},
        "late": {"rows": 1, "files": 1},
    }
    assert (found["run_id"], found["state"], found["warnings"]) == ("b", {"rows": 1}, ["w"])


def test_a_manifest_that_nobody_understands_is_replaced(tmp_path: Path) -> None:
    run = hold(tmp_path)
    (tmp_path / "_run.json").write_text("half")
    write_manifest(run, manifest(3))
    assert orjson.loads((tmp_path / "_run.json").read_bytes())["events"]["in"] == 3
