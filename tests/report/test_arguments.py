"""The command lines of report and serve: what is wrong is said with its fix."""

from __future__ import annotations

from pathlib import Path

import pytest

import run
from pipelines.exit_codes import ExitCode
from tests.report.tables import cases, save, tables


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = run.main(arguments)
    return code, capsys.readouterr().err


def test_a_report_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save(tmp_path / "out", tables(cases(5, (("in", "done"),))))
    file = tmp_path / "new" / "report.html"
    code = run.main(["report", "--input", str(folder), "--output", str(file), "--title", "T & U"])
    assert code == ExitCode.OK
    assert "report.html" in capsys.readouterr().out
    assert b"<title>T &amp; U</title>" in file.read_bytes()
    assert [each.name for each in file.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("report",), "--input is missing"),
        (("report", "--input", "out"), "--output is missing; give the page's file"),
        (("report", "--input", "out", "--output", "."), "is a folder; give a file"),
        (("report", "--input", "kafka://b/x-", "--output", "r"), "run.py serve --input kafka"),
        (
            ("report", "--input", "o", "--output", "r", "--timezone", "Europe/Berlni"),
            "did you mean 'Europe/Berlin'?",
        ),
        (("report", "--inptu", "out"), "did you mean '--input'?"),
        (("serve",), "--input is missing"),
        (("serve", "--input", "out", "--host", "0.0.0.0"), "add --token env:NAME or file:PATH"),
        (("serve", "--input", "out", "--port", "70000"), "from 0 to 65535"),
        (("serve", "--input", "out", "--token", "secret"), "never stands on the command line"),
        (("serve", "--input", "pubsub://p/s"), "only those of Kafka"),
        (("serve", "--input", "kafka://b/*"), "cannot begin a topic name"),
    ],
)
def test_wrong_options(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    code, error = failing(capsys, *arguments)
    assert code == ExitCode.USAGE
    assert said in error


def test_a_short_token_is_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOK", "short")
    code, error = failing(capsys, "serve", "--input", "out", "--token", "env:LOOK")
    assert code == ExitCode.USAGE
    assert "at least 16" in error and "short" not in error.split("holds")[1]


def test_no_folder_and_no_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "r.html")
    code, error = failing(capsys, "report", "--input", str(tmp_path / "no"), "--output", output)
    assert code == ExitCode.NO_INPUT
    assert "no such folder" in error and "run.py analytics" in error
    made = tables(cases(3, (("in", "done"),)))
    folder = save(tmp_path / "out", {"cases": made["cases"]})
    code, error = failing(capsys, "report", "--input", str(folder), "--output", output)
    assert code == ExitCode.NO_INPUT
    assert "no tables of analytics (it has cases)" in error and "run.py analytics" in error
    assert not (tmp_path / "r.html").exists()


def test_a_file_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.parquet"
    file.touch()
    page = str(tmp_path / "r.html")
    code, error = failing(capsys, "report", "--input", str(file), "--output", page)
    assert code == ExitCode.NO_INPUT
    assert "is a file, and a report is of a folder" in error


def test_a_file_that_is_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save(tmp_path / "out", tables(cases(3, (("in", "done"),))))
    (folder / "flow" / "x.parquet").write_bytes(b"no")
    code, error = failing(capsys, "report", "--input", str(folder), "--output", str(tmp_path / "r"))
    assert code == ExitCode.FAILED
    assert "x.parquet can't be read as a file of the table flow" in error


def test_what_the_run_says_of_itself_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save(tmp_path / "out", tables(cases(3, (("in", "done"),))))
    (folder / "_run.json").write_text('{"pipeline": "analytics", "tab')
    page = tmp_path / "r.html"
    code, error = failing(capsys, "report", "--input", str(folder), "--output", str(page))
    assert code == ExitCode.FAILED
    assert f"{folder}/_run.json can't be read as what a run says of itself" in error
    assert "run it again" in error and "Traceback" not in error
    assert not page.exists()


DATABASES = (
    ("out.duckdb", "duckdb's own command line"),
    ("delta:///data/lake", "DuckDB's delta_scan"),
    ("delta+s3://bucket/lake", "DuckDB's delta_scan"),
    ("iceberg://local/events?uri=sqlite:////c.db&warehouse=/w", "PyIceberg"),
    ("bigquery://project/set", "bq query"),
)


@pytest.mark.parametrize(("database", "reader"), DATABASES)
@pytest.mark.parametrize("command", ["report", "serve", "show"])
def test_a_database_is_told_what_to_use(
    command: str, database: str, reader: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {
        "report": ("--input", database, "--output", "r.html"),
        "serve": ("--input", database, "--port", "0"),
        "show": (database,),
    }
    code, error = failing(capsys, command, *named[command])
    assert code == ExitCode.USAGE
    assert f"'{database}' is a database, and only folders are read" in error
    assert f"--output OUT '{database}'" in error and reader in error


def test_a_folder_that_is_called_as_a_database_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save(tmp_path / "out.duckdb", tables(cases(3, (("in", "done"),))))
    page = str(tmp_path / "r.html")
    assert run.main(["report", "--input", str(folder), "--output", page]) == ExitCode.OK


def test_a_page_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save(tmp_path / "out", tables(cases(3, (("in", "done"),))))
    (tmp_path / "file").touch()
    place = str(tmp_path / "file" / "r.html")
    code, error = failing(capsys, "report", "--input", str(folder), "--output", place)
    assert code == ExitCode.OUTPUT
    assert "can't be written" in error


@pytest.mark.parametrize("command", ["report", "serve"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([command, "--help"]) == ExitCode.OK
    said = capsys.readouterr().out
    assert f"{command} --input out" in said
    assert all(len(line) <= 100 for line in said.splitlines())
    assert run.main(["--help"]) == ExitCode.OK
    assert f"  {command} " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["_run.json", "flow/flow.parquet"])
def test_a_page_does_not_take_the_place_of_a_run_s_files(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "out", tables(cases(3, (("in", "done"),))))
    page = tmp_path / "out" / name
    assert run.main(["report", "--input", str(tmp_path / "out"), "--output", str(page)]) == 2
    assert "is a file of the run" in capsys.readouterr().err
    assert not page.exists() or page.read_bytes()[:4] == b"PAR1"
