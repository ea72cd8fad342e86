"""What a run says at its end, what `show` shows, and the lines of its progress."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import run
from pipelines import show, watch
from pipelines.exit_codes import ExitCode
from pipelines.laws import laws
from pipelines.screen import Screen
from pipelines.settings import Settings
from pipelines.summary import close
from schemas.tables import DEAD_LETTERS, TRANSITIONS
from transforms.progress import Totals
from transforms.sinks.tables import FileFormat, write_table


def manifest(**changed: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "pipeline": "transitions",
        "run_id": "r",
        "engine": "FnApiRunner, 2 threads",
        "shards": 4,
        "messages": {"in": 12345, "decoded": 12300, "skipped": 40, "dead": 5},
        "events": {
            **{"in": 30000, "transitions": 20000, "duplicates": 9990, "late": 7},
            **{"rejected": 3, "outside": 0},
        },
        "retracted": 2,
        "quality": {"gaps": 1, "ties": 0, "reversals": 0},
        "tables": {
            "dead_letters": {"rows": 8, "files": 1},
            "late": {"rows": 7, "files": 1},
            "retracted": {"rows": 2, "files": 1},
            "transitions": {"rows": 20000, "files": 4},
        },
        "warnings": [],
    }
    for path, value in changed.items():
        *parents, name = path.split("__")
        place = made
        for parent in parents:
            place = place[parent]
        place[name] = value
    return made


def closing(
    capsys: pytest.CaptureFixture[str], made: dict[str, Any], **settings: Any
) -> tuple[ExitCode, str, str]:
    chosen = Settings("transitions", ("in",), "out", 0, **settings)
    code = close(Screen(), chosen, made, seconds=2.0)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_laws_are_sums() -> None:
    messages, events = laws(manifest())[:2]
    assert str(messages) == "messages  12,345 = 12,300 decoded + 40 skipped + 5 dead"
    assert str(events) == (
        "events    30,000 = 20,000 transitions + 9,990 duplicates + 7 late + 3 rejected"
    )
    assert all(law.holds for law in laws(manifest()))


def test_events_outside_are_named_only_if_there_are_some() -> None:
    law = laws(manifest(events__outside=5, events__in=30005))[1]
    assert str(law).endswith("+ 3 rejected + 5 outside")
    assert law.holds


def test_the_summary_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = closing(capsys, manifest())
    assert (code, err) == (ExitCode.OK, "")
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[:2] == [
        "messages  12,345 = 12,300 decoded + 40 skipped + 5 dead  ✓",
        "events    30,000 = 20,000 transitions + 9,990 duplicates + 7 late + 3 rejected  ✓",
    ]
    tables = [line.split() for line in lines if "/*.parquet" in line and "FROM" not in line]
    assert [row[0] for row in tables] == ["transitions", "late", "retracted", "dead_letters"]
    assert tables[0][1:] == ["20,000", "4", "out/transitions/*.parquet"]
    assert "quality   1 gap, 2 retracted" in lines
    assert "dead      8 dead letters" in lines
    assert lines[-1] == "2.0 s, 15,000 events/s; FnApiRunner, 2 threads, 4 shards"


def test_a_damaged_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    (out / "late").mkdir(parents=True)
    (out / "late" / "late-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    (out / "_run.json").write_text(json.dumps(manifest()))
    assert run.main(["show", str(out), "--table", "late"]) == ExitCode.FAILED
    said = capsys.readouterr().err
    assert "late-00000-of-00001.parquet can't be read as a file of the table late" in said
    assert "Traceback" not in said


def test_warnings_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = closing(capsys, manifest(warnings=["a.xml is empty"]))
    assert err == "warning: a.xml is empty\n"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"messages__decoded": 12299}, "messages 12,345 ≠ 12,299 decoded"),
        ({"events__late": 8}, "events 30,000 ≠"),
        (
            {"tables__transitions": {"rows": 19999, "files": 4}},
            "rows of transitions 19,999 ≠ 20,000",
        ),
        ({"tables__dead_letters": {"rows": 0, "files": 1}}, "rows of dead_letters 0 ≠ 5 dead"),
    ],
)
def test_a_broken_law_has_its_exit_code(
    capsys: pytest.CaptureFixture[str], changed: dict[str, Any], named: str
) -> None:
    code, out, err = closing(capsys, manifest(**changed), max_dead_letters=0)
    assert code == ExitCode.LAW
    assert err.startswith("error: LAW VIOLATED: ")
    assert named in err
    assert "✗ LAW VIOLATED" in out


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ({}, 0),
        ({"max_dead_letters": 8}, 0),
        ({"max_dead_letters": 7}, 3),
        ({"max_dead_letters": 0}, 3),
        ({"max_dead_percent": 0.1}, 0),
        ({"max_dead_percent": 0.05}, 3),
    ],
)
def test_too_many_dead_letters(
    capsys: pytest.CaptureFixture[str], limit: dict[str, Any], code: int
) -> None:
    assert closing(capsys, manifest(), **limit)[0] == code


def rows_of_dead_letters(count: int, error: str) -> pa.Table:
    columns = {
        "row_id": [f"{error}{number}" for number in range(count)],
        "payload": [b"\xff{"] * count,
        "payload_size": [2] * count,
        "attributes": [[("format", "json_lines")]] * count,
        "source": [f"some/long/path/of/a/folder/file.jsonl:{number}" for number in range(count)],
        "step": ["decode"] * count,
        "error": [error] * count,
        "message": [f"line {number} is\nno object" for number in range(count)],
        "time": [None] * count,
    }
    return pa.table(columns, schema=DEAD_LETTERS.schema)


@pytest.mark.parametrize("file_format", ["parquet", "jsonl", "csv"])
def test_dead_letters_are_told_by_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file_format: FileFormat
) -> None:
    folder = tmp_path / "dead_letters"
    folder.mkdir()
    for number, (count, error) in enumerate([(3, "BadTime"), (5, "InvalidJson")]):
        path = str(folder / f"dead_letters-0000{number}-of-00002.{file_format}")
        write_table(rows_of_dead_letters(count, error), DEAD_LETTERS, path, file_format)
    chosen = Settings("transitions", ("in",), str(tmp_path), 0, output_format=file_format)
    assert close(Screen(), chosen, manifest(), 1.0) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("dead      8 dead letters")
    assert lines[start + 1 : start + 6] == [
        "  InvalidJson 5: line 0 is no object",
        "    some/long/path/of/a/folder/file.jsonl:0",
        "  BadTime 3: line 0 is no object",
        "    some/long/path/of/a/folder/file.jsonl:0",
        f"  look: python run.py show {tmp_path} --table dead_letters",
    ]


def write_run(folder: Path) -> None:
    made = manifest(tables={"transitions": {"rows": 0, "files": 1}, "dead_letters": {"rows": 8}})
    for name in made["tables"]:
        (folder / name).mkdir(parents=True)
    made["tables"]["transitions"]["rows"] = 20000
    (folder / "_run.json").write_text(json.dumps(made))
    part = folder / "dead_letters" / "dead_letters-00000-of-00001.parquet"
    write_table(rows_of_dead_letters(8, "BadTime"), DEAD_LETTERS, str(part), "parquet")
    part = folder / "transitions" / "transitions-00000-of-00001.parquet"
    write_table(TRANSITIONS.schema.empty_table(), TRANSITIONS, str(part), "parquet")


def test_show_prints_first_rows_within_100_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path)
    assert run.main(["show", str(tmp_path), "--table", "dead_letters", "--rows", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("✓")
    assert lines[3] == "dead_letters: 8 rows"
    assert lines[4].split()[:3] == ["error", "message", "source"]
    assert lines[5].split()[:2] == ["BadTime", "line"]
    assert "…ong/path/of/a/folder/file.jsonl:0"[-20:] in lines[5]
    assert len([line for line in lines if line.startswith("BadTime")]) == 2
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--table", "case"], 2, "--table 'case' is not there; use one of"),
        (["--rows", "0"], 2, "--rows '0' is out of range"),
        (["--row", "3"], 2, "--row is not an option of show; did you mean '--rows'?"),
    ],
)
def test_show_refuses_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    write_run(tmp_path)
    assert run.main(["show", str(tmp_path), *arguments]) == code
    assert words in capsys.readouterr().err


def test_show_of_a_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["show", str(tmp_path)]) == 4
    assert "holds no finished run" in capsys.readouterr().err


def test_columns_without_a_value_or_room_are_named() -> None:
    table = pa.table(
        {"a": [None, None], "b": ["x" * 50, "y"], "c": [1.5, None], "d": ["z" * 9, ""]}
    )
    rendered, left_out = show.render(table, "other", 33)
    assert [column.header for column in rendered.columns] == ["b", "c"]
    assert left_out == ["a", "d"]


def test_progress_is_a_line_every_ten_seconds() -> None:
    now = [0.0]
    said: list[str] = []
    lines = watch.Lines(said.append, size=2000, shards=4, clock=lambda: now[0])
    for second in range(0, 26):
        now[0] = float(second)
        lines.update(Totals(bytes=second * 100, events=second * 1000, shards=second // 10))
    assert said == [
        "10 s: read 1,000 B of 2.0 KiB (50 %), 10,000 events (1,000/s), folded 1 of 4 shards",
        "20 s: read 2.0 KiB of 2.0 KiB (100 %), 20,000 events (1,000/s), folded 2 of 4 shards",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"tables": {"transitions"', "_run.json can't be read as what a run says of itself"),
        ('{"tables": {"transitions": {"rows": 1}}}', "_run.json lacks what a run of ours says"),
    ],
)
def test_show_says_that_a_manifest_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    (tmp_path / "_run.json").write_text(content)
    assert run.main(["show", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path}/{said}" in error
    assert "Traceback" not in error
