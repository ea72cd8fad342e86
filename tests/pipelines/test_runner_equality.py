"""One definition, three engines, files and topics: the same messages give the same tables.

Every pipeline runs on the FnApiRunner, Prism and Flink, bounded over files and unbounded over a
topic. Tables are compared row by row, rows by their ids: of upsert tables the newest row of a key.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from examples.simulator.stream import Disturbance
from pipelines.registry import PIPELINES
from schemas.tables import TABLES
from tests.pipelines import streams
from tests.pipelines.flink_jobs import PATIENCE_S, end_all, on_cluster
from tests.services.fixtures import on_flink
from tests.services.flink import FlinkCluster
from tests.services.kafka import KafkaBroker

pytestmark = on_flink

SECOND = 1_000_000
ENGINES = ("FnApiRunner", "PrismRunner", "FlinkRunner")
DISTURBED = Disturbance(disorder=5 * SECOND, duplicates=0.05, repeat_within=15 * SECOND)

Tables = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Engines:
    """What is needed to run on each of them."""

    flink: FlinkCluster
    prism: str

    def options(self, engine: str, name: str) -> list[str]:
        """Return the options that choose an engine."""
        if engine == "FlinkRunner":
            return on_cluster(self.flink, name)
        chosen = ["--runner", engine]
        return [*chosen, "--prism_location", self.prism] if engine == "PrismRunner" else chosen


@pytest.fixture
def engines(flink: FlinkCluster, prism: str) -> Iterator[Engines]:
    yield Engines(flink, prism)
    end_all(flink)


@pytest.fixture(scope="module")
def sent() -> streams.Sent:
    """Events with ids of their own, as those of a file and of a topic must be the same."""
    start = time.time_ns() // 1000 - 40 * SECOND
    drawn = streams.json_messages(1500, DISTURBED, seed=11, start=start, garbage=0.01)
    numbers: dict[bytes, int] = {}
    records = []
    for record in drawn.records:
        number = numbers.setdefault(record.payload, len(numbers))
        try:
            event = {**orjson.loads(record.payload), "event_id": f"e{number}"}
        except (orjson.JSONDecodeError, TypeError):
            records.append(record)
            continue
        records.append(record._replace(payload=orjson.dumps(event)))
    return streams.Sent(records, drawn.truth)


def bounded(
    pipeline: str, engine: list[str], sent: streams.Sent, folder: Path, options: list[str]
) -> Tables:
    """Run over a file, one for all, as rows tell where they were read; return the tables."""
    folder.mkdir()
    lines = folder.parent / "events.jsonl"
    lines.write_bytes(b"".join(record.payload + b"\n" for record in sent.records))
    out = folder / "out"
    arguments = ["--input", str(lines), "--output", str(out), *options, *engine]
    with streams.running(folder, *arguments, program=("run.py", pipeline)) as job:
        ended = job.ended(PATIENCE_S)
    assert ended.code == 0, ended.err
    ended.laws()
    return {
        name: newest(name, streams.as_json(pq.read_table(out / name)))
        for name in PIPELINES[pipeline].tables
    }


def unbounded(
    pipeline: str,
    engine: list[str],
    sent: streams.Sent,
    folder: Path,
    options: list[str],
    topics: tuple[KafkaBroker, str, str],
) -> Tables:
    """Run over a topic until every row is there, and stop; return the tables."""
    kafka, topic, prefix = topics
    address = f"kafka://{kafka.address}"
    query = f"start=earliest&group={prefix}"
    arguments = ["--input", f"{address}/{topic}?{query}", "--output", f"{address}/{prefix}"]
    with streams.running(
        folder, *arguments, *options, *engine, program=("run.py", pipeline)
    ) as job:
        made = [f"{prefix}transitions"]
        job.wait_until(lambda: streams.counts(kafka, made) == sent.truth.transitions, PATIENCE_S)
        ended = job.stop()
    assert ended.code == 0, ended.err
    assert ended.laws()["messages"] == streams.law_of(sent.truth)["messages"]
    return {
        name: newest(name, streams.rows(kafka, prefix + name))
        for name in PIPELINES[pipeline].tables
    }


def newest(table: str, rows: list[streams.Row]) -> dict[str, Any]:
    """Return rows by id; of an upsert table only the newest of a key."""
    output = TABLES[table]
    if output.mode == "upsert":
        rows = list({tuple(row[name] for name in output.key): row for row in rows}.values())
    return streams.keyed(rows)


@pytest.mark.parametrize("pipeline", list(PIPELINES))
def test_bounded_tables_are_equal(
    engines: Engines, sent: streams.Sent, tmp_path: Path, pipeline: str
) -> None:
    options = ["--end_states", ",".join(sent.truth.end_states), "--columns", "event_id=event_id"]
    found = {
        engine: bounded(
            pipeline, engines.options(engine, "equal"), sent, tmp_path / engine, options
        )
        for engine in ENGINES
    }
    assert len(found["FnApiRunner"]["transitions"]) == sent.truth.transitions
    for engine in ENGINES[1:]:
        for table, rows in found[ENGINES[0]].items():
            assert found[engine][table] == rows, (engine, table)


@pytest.mark.parametrize("pipeline", list(PIPELINES))
def test_unbounded_tables_are_equal_and_those_of_files(
    engines: Engines, kafka: KafkaBroker, sent: streams.Sent, tmp_path: Path, pipeline: str
) -> None:
    topic = streams.new_name("equal")
    kafka.create_topic(topic, 3)
    streams.send(kafka, sent.records, lambda _: topic)
    options = ["--end_states", ",".join(sent.truth.end_states), "--columns", "event_id=event_id"]
    found = {}
    for engine in ENGINES:
        prefix = streams.new_name(f"{engine}-out").lower() + "-"
        chosen = engines.options(engine, prefix.rstrip("-"))
        asked = [*options, "--disorder", "5s"]
        place = (kafka, topic, prefix)
        found[engine] = unbounded(pipeline, chosen, sent, tmp_path, asked, place)
    for engine in ENGINES[1:]:
        for table, rows in found[ENGINES[0]].items():
            assert found[engine][table] == rows, (engine, table)
    files = bounded(pipeline, engines.options(ENGINES[0], ""), sent, tmp_path / "files", options)
    for table in ("transitions", "cases", "late", "retracted"):
        # When a case was known to have changed is the stream's own: it has record times.
        assert without(files[table]) == without(found[ENGINES[0]][table]), table


def without(rows: dict[str, Any]) -> dict[str, Any]:
    """Return rows without what only a broker tells."""
    return {
        id_: {name: value for name, value in row.items() if name != "updated_at"}
        for id_, row in rows.items()
    }
