"""Runs that write to databases: whole runs, and streams into several at once."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import run
from examples.simulator.stream import Disturbance
from pipelines import databases
from pipelines.registry import PIPELINES
from pipelines.settings import Settings
from schemas.tables import TABLES
from tests.pipelines import streams
from tests.pipelines.pubsub_streams import send
from tests.services.pubsub import EMULATOR, PROJECT, PubSubService
from tests.sinks.lakes import bigquery_double
from tests.sinks.lakes.places import KINDS, Place, place
from transforms.addresses import BrokerFault
from transforms.sinks.lakes.address import DuckDBTarget
from transforms.sinks.lakes.columns import plain_rows, plain_schema
from transforms.sinks.lakes.store import open_database

SECOND = 1_000_000
NAMES = PIPELINES["transitions"].tables
LOG = """case_id,activity,event_time,actor
a,open,2024-01-01T10:00:00Z,anna
a,done,2024-01-02T10:00:00Z,ben
b,open,2024-01-01T11:00:00Z,
c,open,soon,anna
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    return path


@pytest.fixture(params=KINDS)
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place(request.param, tmp_path)


def sorted_rows(table: pa.Table) -> list[dict[str, Any]]:
    return sorted(table.to_pylist(), key=lambda row: row["row_id"])


def of_folder(folder: Path, name: str) -> list[dict[str, Any]]:
    return sorted_rows(plain_rows(pq.read_table(folder / name), TABLES[name]))


def test_a_run_fills_a_database_as_it_fills_a_folder(
    there: Place, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["transitions", "--input", str(log), "--until", "end"]
    assert run.main([*arguments, "--output", str(there.target)]) == 0
    said = capsys.readouterr().out
    assert "".join(there.target.place("transitions").split()) in "".join(said.split())
    assert "imixs-staged" not in said
    assert run.main([*arguments, "--output", str(out)]) == 0
    for name in NAMES:
        expected = of_folder(out, name)
        assert there.rows(name) == expected, name
    assert [row["case_id"] for row in there.rows("cases")] != []


def test_a_folder_and_a_database_hold_the_same_and_a_second_run_replaces_both(
    there: Place, log: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    both = ["--output", str(out), str(there.target)]
    for content in (LOG, LOG.replace("anna", "zoe").replace("b,open", "x,open")):
        log.write_text(content)
        assert run.main(["transitions", "--input", str(log), *both]) == 0
        for name in NAMES:
            assert there.rows(name) == of_folder(out, name), name
    assert {row["actor"] for row in there.rows("transitions")} == {"zoe", "ben", None}


def test_what_a_killed_run_has_staged_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    given = Settings("transitions", ("in",), "", 0, targets=(DuckDBTarget(str(tmp_path / "x")),))
    killed = tmp_path / "imixs-staged-killed"
    killed.mkdir()
    (killed / ".held").touch()
    made = tmp_path / "imixs-staged-just-being-made"
    made.mkdir()
    with databases.staged(given) as first, databases.staged(given) as second:
        assert not killed.exists()
        assert Path(first.output).is_dir()
        assert Path(second.output).is_dir()
    assert [path.name for path in tmp_path.iterdir()] == [made.name]


def test_days_of_few_rows_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "MANY_DAYS", 3)
    rows = [
        {"case_id": f"c{n}", "activity": "a", "event_time": f"2024-03-{n + 1:02}T00:00Z"}
        for n in range(9)
    ]
    source = tmp_path / "events.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["transitions", "--input", str(source), "--workers", "1", "--progress", "off"]
    assert run.main([*words, "--output", f"delta://{tmp_path}/lake"]) == 0
    assert "18 rows become 18 files" in capsys.readouterr().err
    assert run.main([*words, "--output", f"delta://{tmp_path}/other?partition=none"]) == 0
    assert "files" not in capsys.readouterr().err


def test_a_database_that_fails_is_said_and_the_folder_is_whole(
    there: Place,
    log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    opened = open_database

    class Full:
        """As it is until the check is over; then the disk is full."""

        def __init__(self, target: Any) -> None:
            self._real = opened(target)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def replace(self, *_: Any) -> dict[str, int]:
            reason = "no room"
            raise BrokerFault(reason)

    monkeypatch.setattr(databases, "open_database", Full)
    out = tmp_path / "out"
    code = run.main(["transitions", "--input", str(log), "--output", str(out), str(there.target)])
    assert code == 5
    assert capsys.readouterr().err.splitlines()[-1] == "error: --output: no room"
    assert of_folder(out, "transitions") != []


def test_rows_that_were_lost_on_the_way_break_a_law(
    log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts_of = databases.parts_of

    def lossy(folder: str) -> Any:
        read = parts_of(folder)
        return lambda name: (rows.slice(1) for rows in read(name))

    monkeypatch.setattr(databases, "parts_of", lossy)
    target = str(tmp_path / "out.duckdb")
    assert run.main(["transitions", "--input", str(log), "--output", target]) == 70
    assert f"rows of transitions in duckdb://{target} 3 ≠ 2 delivered" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "a.duckdb", "b.duckdb"], "is a second database"),
        (["--output", "a.duckdb", "--output_format", "csv"], "leave out --output_format"),
        (["--output", "a.duckdb", "--keep_state"], "--keep_state needs a folder"),
        (["--output", "kafka://host:9092/x-"], "give a folder, or a database, such as out.duckdb"),
        (["--output", "duckdb://a.duckdb"], "begins with a slash: duckdb:///a.duckdb"),
        (["--output", "delta+ftp://b/x"], "there is no store 'ftp'"),
        (["--output", "delta:///x?partition=hour"], "partition=hour is neither day nor none"),
        (["--output", "delta:///x?partion=day"], "did you mean partition?"),
        (["--output", "iceberg://local"], "is no namespace"),
        (["--output", "iceberg://c/n?uri=postgresql://me:secret@h/d"], "PYICEBERG_CATALOG__C__URI"),
        (["--output", "bigquery://P/d"], "'P' is no id of a project"),
        (["--output", "bigquery://my-project/d-s"], "'d-s' is no dataset"),
        (["--output", "bigquery://my-project/ds?method=magic"], "method=magic is none of"),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(
    log: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert run.main(["transitions", "--input", str(log), *arguments]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert "secret" not in errors


def test_a_database_within_the_input_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for output in (f"{tmp_path}/in/a.duckdb", f"delta://{tmp_path}/in/lake"):
        arguments = ["--input", f"{tmp_path}/in/**", "--output", output]
        assert run.main(["transitions", *arguments]) == 2
        assert "lies in --input" in capsys.readouterr().err


def test_a_missing_library_is_named_with_its_extra(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines import options  # noqa: PLC0415

    monkeypatch.setattr(options, "missing", lambda _: True)
    for uri, extra in (
        ("a.duckdb", "duckdb"),
        ("delta+s3://b/x", "delta"),
        ("iceberg://c/n", "iceberg"),
        ("bigquery://my-project/ds", "bigquery"),
    ):
        assert run.main(["transitions", "--input", str(log), "--output", uri]) == 2
        assert f"pip install 'imixs-data-streaming[{extra}]'" in capsys.readouterr().err


def test_a_plan_names_the_database_and_changes_nothing(
    there: Place, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path for path in tmp_path.rglob("*") if "catalog.db" not in path.name}
    arguments = ["--input", str(log), "--output", str(there.target), "--explain_plan"]
    assert run.main(["transitions", *arguments]) == 0
    said = capsys.readouterr().out
    assert f"output    {there.target}" in said
    assert "imixs-staged" not in said
    after = {path for path in tmp_path.rglob("*") if "catalog.db" not in path.name}
    assert after == before


def engine(name: str, request: pytest.FixtureRequest) -> list[str]:
    """Return the options that choose an engine."""
    if name == "FnApiRunner":
        return ["--runner", name]
    return ["--runner", name, "--prism_location", request.getfixturevalue("prism")]


@pytest.mark.parametrize("name", ["FnApiRunner", "PrismRunner"])
def test_a_stream_fills_all_databases_at_once(
    pubsub: PubSubService,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Three databases and a folder: equal rows, the truth, and the laws of each."""
    monkeypatch.setenv(EMULATOR, pubsub.address)
    topic = streams.new_name("databases")
    pubsub.create_topic(topic, [topic], ack_deadline_seconds=10)
    drawn = streams.json_messages(
        600,
        Disturbance(disorder=2 * SECOND, duplicates=0.05),
        seed=11,
        start=time.time_ns() // 1000 - 15 * SECOND,
        garbage=0.01,
    )
    send(pubsub, topic, [record.payload for record in drawn.records])
    places = [place(kind, tmp_path) for kind in KINDS]
    out = tmp_path / "out"
    arguments = [
        *("--input", f"pubsub://{PROJECT}/{topic}?idle=1s&lease=10s", "--disorder", "20s"),
        *("--output", *(str(each.target) for each in places), str(out)),
        *(*engine(name, request), "--granule", "2s"),
        *("--end_states", ",".join(drawn.truth.end_states)),
    ]
    with streams.running(tmp_path, *arguments) as job:
        job.wait_until(lambda: list(out.glob("transitions/*")), 120)
        ended = job.stop()
    assert (ended.code, ended.laws()) == (0, streams.law_of(drawn.truth)), ended.err
    # One row of a case for each granule is in files; in databases the newest.
    for table in ("transitions", "late", "retracted", "dead_letters"):
        expected = of_folder(out, table) if list((out / table).iterdir()) else []
        for each in places:
            assert each.rows(table) == expected, (each.target, table)
    written = [each.rows("cases") for each in places]
    assert written[0] == written[1] == written[2]
    assert len({row["case_id"] for row in written[0]}) == len(written[0]) == len(drawn.truth.cases)
    tables = {
        name: streams.as_json(pa.Table.from_pylist(places[0].rows(name), _schema(name)))
        for name in ("transitions", "cases", "retracted")
    }
    assert streams.differences_of(tables, drawn.truth, tmp_path / "compare") == []
    manifest = orjson.loads((out / "_run.json").read_bytes())
    assert manifest["tables"]["transitions"]["rows"] == len(tables["transitions"])


def test_a_stream_inserts_into_bigquery(
    pubsub: PubSubService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Google's client, on a double of the service: the laws hold, each row is there once."""
    monkeypatch.setenv(EMULATOR, pubsub.address)
    topic = streams.new_name("bigquery")
    pubsub.create_topic(topic, [topic], ack_deadline_seconds=10)
    drawn = streams.json_messages(
        300,
        Disturbance(),
        seed=13,
        start=time.time_ns() // 1000 - 15 * SECOND,
        garbage=0.02,
    )
    send(pubsub, topic, [record.payload for record in drawn.records])
    out = tmp_path / "out"
    with bigquery_double.running() as double:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", double.address)
        arguments = [
            *("--input", f"pubsub://{PROJECT}/{topic}?idle=1s&lease=10s", "--disorder", "20s"),
            *("--output", "bigquery://my-project/ds?prefix=p_", str(out)),
            *("--runner", "FnApiRunner", "--granule", "2s"),
        ]
        with streams.running(tmp_path, *arguments) as job:
            job.wait_until(lambda: list(out.glob("transitions/*")), 120)
            ended = job.stop()
        assert ended.code == 0, ended.err
        assert set(double.tables) == {f"p_{name}" for name in NAMES}
        for name in ("transitions", "dead_letters"):
            found = sorted(row["row_id"] for row in double.rows[f"p_{name}"].values())
            assert found == [row["row_id"] for row in of_folder(out, name)] != [], name


def test_bigquery_is_refused_before_anything_starts(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["transitions", "--input", str(log), "--output", "bigquery://my-project/ds"]
    assert run.main(arguments) == 5
    assert "give a folder there for them, --temp_location gs://" in capsys.readouterr().err
    with bigquery_double.running() as double:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", double.address)
        double.datasets.clear()
        assert run.main([*arguments, "--temp_location", "gs://bucket/temp"]) == 5
    assert "make the dataset first: bq mk ds" in capsys.readouterr().err
    # Its schemas need nobody.
    assert run.main([*arguments, "--explain_plan"]) == 0
    said = capsys.readouterr().out
    assert "my-project:ds.cases" in said
    assert "attributes REPEATED RECORD<key STRING, value STRING>" in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_is_killed_leaves_whole_commits_and_loses_nothing(
    pubsub: PubSubService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """`kill -9` while it writes; the next one goes on with what was not acknowledged."""
    monkeypatch.setenv(EMULATOR, pubsub.address)
    topic = streams.new_name("killed")
    pubsub.create_topic(topic, [topic], ack_deadline_seconds=10)
    drawn = streams.json_messages(
        800,
        Disturbance(disorder=2 * SECOND, duplicates=0.05),
        seed=12,
        start=time.time_ns() // 1000 - 15 * SECOND,
    )
    payloads = [record.payload for record in drawn.records]
    there = place(kind, tmp_path)
    arguments = [
        *("--output", str(there.target), "--disorder", "3s", "--granule", "500ms"),
        *("--runner", "FnApiRunner", "--end_states", ",".join(drawn.truth.end_states)),
    ]
    source = f"pubsub://{PROJECT}/{topic}?lease=10s"
    half = len(payloads) // 2

    def rows(table: str) -> list[dict[str, Any]]:
        try:
            return there.rows(table)
        except Exception:  # (each library has its own for what is locked, or not there yet)
            return []

    with streams.running(tmp_path, "--input", f"{source}&idle=1s", *arguments) as job:
        send(pubsub, topic, payloads[:half], 4)
        job.wait_until(lambda: len(rows("transitions")) > 50)
        send(pubsub, topic, payloads[half : half + 200])
        job.kill()
    assert streams.seen(_as_rows(there, "transitions")) < streams.expected(drawn.truth)
    send(pubsub, topic, payloads[half + 200 :])
    with streams.running(tmp_path, "--input", f"{source}&idle=12s", *arguments) as job:

        def everything() -> bool:
            found = {row["row_id"]: row for row in rows("transitions") + rows("late")}
            return len(found) >= len(streams.expected(drawn.truth))

        job.wait_until(everything, 90)
        ended = job.stop()
    assert ended.code == 0, ended.err
    found = _as_rows(there, "transitions") + _as_rows(there, "late")
    assert streams.seen(found) == streams.expected(drawn.truth)
    keys = [row["case_id"] for row in there.rows("cases")]
    assert len(keys) == len(set(keys)) == len(drawn.truth.cases)


def _as_rows(there: Place, name: str) -> list[streams.Row]:
    return streams.as_json(pa.Table.from_pylist(there.rows(name), _schema(name)))


def _schema(name: str) -> pa.Schema:
    return plain_schema(TABLES[name])
