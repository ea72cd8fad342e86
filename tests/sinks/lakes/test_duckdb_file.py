"""What is DuckDB's own: one writer, readers in between, one transaction for all tables."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from schemas.tables import CASES, LATE, TABLES
from tests.sinks.lakes.places import filled, one_part
from transforms.addresses import BrokerFault
from transforms.sinks.lakes.address import DuckDBTarget
from transforms.sinks.lakes.duckdb_file import DuckDBFile
from transforms.sinks.lakes.store import Batch

HOLD = """
import duckdb, sys
held = duckdb.connect(sys.argv[1], read_only=len(sys.argv) > 2)
print("held", flush=True)
sys.stdin.readline()
"""


@contextmanager
def held(path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Have a file open in another process."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def ids(path: Path, name: str) -> list[str]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return [
            row[0] for row in connection.execute(f"SELECT row_id FROM {name} ORDER BY 1").fetchall()
        ]


def late(*rows: str) -> Batch:
    return Batch("-".join(rows), filled(LATE, *({"row_id": each} for each in rows)))


@pytest.mark.parametrize("reading", [(), ("reading",)])
def test_a_file_that_is_open_elsewhere_is_an_error_that_says_so(
    tmp_path: Path, reading: tuple[str, ...]
) -> None:
    path = tmp_path / "a.duckdb"
    database = DuckDBFile(DuckDBTarget(str(path)), wait_s=0.5)
    database.add({"late": LATE}, {"late": [late("a")]})
    with held(path, *reading):
        for act in (
            lambda: database.check(TABLES, replaced=False),
            lambda: database.add({"late": LATE}, {"late": [late("b")]}),
            lambda: database.replace({"late": LATE}, one_part(), "run"),
        ):
            with pytest.raises(BrokerFault, match="open in another process.*close it there"):
                act()
    assert ids(path, "late") == ["a"]


def test_a_bundle_waits_for_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    database = DuckDBFile(DuckDBTarget(str(path)), wait_s=60)
    database.add({"late": LATE}, {"late": [late("a")]})
    with held(path, "reading") as reader:
        thread = threading.Thread(target=database.add, args=({"late": LATE}, {"late": [late("b")]}))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        assert reader.stdin is not None
        reader.stdin.write("\n")
        reader.stdin.flush()
        thread.join(30)
        assert not thread.is_alive()
    assert ids(path, "late") == ["a", "b"]


def test_all_tables_of_a_bundle_are_there_or_none(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    database = DuckDBFile(DuckDBTarget(str(path)))
    database.add({"late": LATE}, {"late": [late("a")]})
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE cases (row_id INTEGER)")
    some = Batch("x", filled(CASES, {"row_id": "x"}))
    with pytest.raises(BrokerFault, match="column row_id is INTEGER, and rows have VARCHAR"):
        database.add({"late": LATE, "cases": CASES}, {"late": [late("b")], "cases": [some]})
    assert ids(path, "late") == ["a"]


def test_threads_of_a_process_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    target = DuckDBTarget(str(path))

    def work(number: int) -> None:
        for n in range(5):
            row = {"row_id": "k", "case_id": "k", "updated_at": number * 5 + n}
            batch = Batch(f"{number}-{n}", filled(CASES, row))
            DuckDBFile(target).add({"cases": CASES}, {"cases": [batch]})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ids(path, "cases") == ["k"]
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM _batches").fetchall() == [(15,)]
        newest = connection.execute("SELECT epoch_us(updated_at) FROM cases").fetchall()
    assert newest == [(14,)]


def test_tables_and_columns_are_described(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    DuckDBFile(DuckDBTarget(str(path))).replace(TABLES, one_part(), "run")
    with duckdb.connect(str(path), read_only=True) as connection:
        found = connection.execute(
            "SELECT comment FROM duckdb_columns() WHERE table_name = 'cases' "
            "AND column_name = 'updated_at'"
        ).fetchall()
        tables = dict(
            connection.execute("SELECT table_name, comment FROM duckdb_tables()").fetchall()
        )
    assert found == [("order time of its newest change",)]
    assert tables["cases"] == CASES.doc
    assert set(TABLES) < set(tables)


def test_what_can_not_be_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "is_a_folder.duckdb").mkdir()
    (tmp_path / "text.duckdb").write_text("no database" * 1000)
    for name, said in (
        ("is_a_folder.duckdb", "is a folder"),
        ("missing/a.duckdb", "there is no folder"),
        ("text.duckdb", "can't be opened"),
    ):
        with pytest.raises(BrokerFault, match=said):
            DuckDBFile(DuckDBTarget(str(tmp_path / name))).check(TABLES, replaced=True)
