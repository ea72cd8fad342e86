"""A stream's files: equal to its topics, never half, and `show` reads them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import run
from examples.simulator.stream import Disturbance
from tests.pipelines import streams
from tests.services.kafka import KafkaBroker

SECOND = 1_000_000
TABLES = ("transitions", "cases", "late", "retracted", "dead_letters")
BOTH = ("--granule", "10s", "--disorder", "1s", "--shards", "3")


def sent(kafka: KafkaBroker, name: str, messages: int = 2000, seed: int = 5) -> streams.Sent:
    drawn = streams.json_messages(
        messages,
        Disturbance(duplicates=0.02),
        seed=seed,
        start=time.time_ns() // 1000 - 3600 * SECOND,
        garbage=0.01,
    )
    kafka.create_topic(name, 2)
    streams.send(kafka, drawn.records, lambda _: name)
    return drawn


def ids_of_files(folder: Path, table: str, extension: str) -> list[str]:
    found: list[str] = []
    for path in sorted((folder / table).glob(f"*.{extension}")):
        if extension == "parquet":
            found += pq.read_table(path)["row_id"].to_pylist()
        elif extension == "csv":
            found += pa.csv.read_csv(path)["row_id"].to_pylist()
        else:
            found += [orjson.loads(line)["row_id"] for line in path.read_bytes().splitlines()]
    return sorted(found)


@pytest.mark.parametrize("extension", ["parquet", "jsonl", "csv"])
def test_files_and_topics_hold_the_same_rows(
    kafka: KafkaBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str], extension: str
) -> None:
    name = streams.new_name("files")
    drawn = sent(kafka, name)
    out, prefix = tmp_path / "out", f"{name}-out-"
    arguments = [
        *("--input", f"kafka://{kafka.address}/{name}?start=earliest"),
        *("--output", f"kafka://{kafka.address}/{prefix}", str(out)),
        *("--output_format", extension, *BOTH),
    ]
    with streams.running(tmp_path, *arguments) as job:
        # Deadlines need a later message; the drain folds the rest.
        job.wait_until(lambda: list(out.glob("transitions/*")))
        ended = job.stop()
    assert ended.code == 0, ended.err
    assert ended.laws() == streams.law_of(drawn.truth)
    manifest = orjson.loads((out / "_run.json").read_bytes())
    for table in TABLES:
        expected = sorted(row["row_id"] for row in streams.rows(kafka, prefix + table))
        assert ids_of_files(out, table, extension) == expected, table
        files = list((out / table).iterdir())
        assert manifest["tables"][table] == {"rows": len(expected), "files": len(files)}
        assert [p for p in files if p.suffix != f".{extension}"] == []
    assert manifest["tables"]["dead_letters"]["rows"] == drawn.truth.dead > 0
    assert [p.name for p in out.iterdir() if p.name.startswith(".")] == []
    assert run.main(["show", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"transitions: {drawn.truth.transitions:,} rows" in shown
    assert "VIOLATED" not in shown


def test_a_stream_that_is_killed_leaves_whole_files(kafka: KafkaBroker, tmp_path: Path) -> None:
    name = streams.new_name("killed")
    out = tmp_path / "out"
    drawn = sent(kafka, name, 20_000)
    group = f"&group={name}"
    arguments: list[Any] = [
        *("--input", f"kafka://{kafka.address}/{name}?start=earliest{group}"),
        *("--output", str(out), *BOTH, "--granule", "1s"),
    ]
    with streams.running(tmp_path, *arguments) as job:
        # Written, and some of it not seen yet.
        job.wait_until(lambda: [*out.glob(".run-*/staging/*/*"), *out.glob("transitions/*")])
        job.kill()
    for path in out.glob("*/*"):
        if not path.parent.name.startswith("."):
            assert path.suffix == ".parquet"
            pq.read_table(path)
    assert not (out / "_run.json").exists()
    # From the group's offsets: what was shown may come again, with the ids that it had.
    other = [each.replace(group, f"{group}-again") for each in arguments]
    with streams.running(tmp_path, *other) as job:
        job.wait_until(lambda: len(set(ids_of_files(out, "transitions", "parquet"))) > 1000)
        job.wait_until(lambda: streams.committed(kafka, f"{name}-again", [name]))
        ended = job.stop()
    assert ended.code == 0, ended.err
    forgotten = "whose memory of open cases ended with it"
    assert forgotten not in ended.err
    assert [p.name for p in out.iterdir() if p.name.startswith(".")] == [], "also of the killed"
    found = set(ids_of_files(out, "transitions", "parquet"))
    assert len(found) == drawn.truth.transitions
    # From where it stopped it does not see what its open cases did before.
    on = [each.replace("?start=earliest&", "?") for each in other]
    with streams.running(tmp_path, *on) as job:
        job.wait_for(forgotten)
        assert job.stop().code == 0


def test_an_output_that_cannot_be_written_is_said_first(kafka: KafkaBroker, tmp_path: Path) -> None:
    name = streams.new_name("refused")
    sent(kafka, name, 10)
    (tmp_path / "file").touch()
    prefix = f"kafka://{kafka.address}/{name}-out-"
    arguments = ["--input", f"kafka://{kafka.address}/{name}", "--output", prefix]
    with streams.running(tmp_path, *arguments, str(tmp_path / "file")) as job:
        ended = job.ended()
    assert ended.code not in (0, 1)
    assert "is a file; choose another folder" in ended.err
    assert "Traceback" not in ended.err
    assert "created topic" not in ended.err, "nothing has been started"
