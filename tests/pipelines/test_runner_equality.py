"""One definition, three engines, files and topics: the same messages give the same tables.

Every pipeline runs on the FnApiRunner, Prism and Flink, bounded over files and unbounded over a
topic. Tables are compared row by row, rows by their ids: of upsert tables the newest row of a key.
Windows are compared of each kind: their last panes in a stream are the rows of a backfill.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
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

FOLDED = ("transitions", "cases", "late", "retracted")
MEASURED = ("process_map", "state_times", "flow", "workload", "variants")
WINDOWS = ("fixed:10s", "sliding:20s/5s", "global")

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
    if pipeline == "analytics":
        # As cases are open there are windows up to then.
        until = datetime.fromtimestamp(sent.records[-1].arrival / SECOND + 1, timezone.utc)
        options = [*options, "--until", until.isoformat()]
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
    """Run over a topic until every row is there, and windows are over; return the tables."""
    kafka, topic, prefix = topics
    address = f"kafka://{kafka.address}"
    query = f"start=earliest&group={prefix}"
    arguments = ["--input", f"{address}/{topic}?{query}", "--output", f"{address}/{prefix}"]
    with streams.running(
        folder, *arguments, *options, *engine, program=("run.py", pipeline)
    ) as job:
        made = [f"{prefix}transitions"]
        job.wait_until(lambda: streams.counts(kafka, made) == sent.truth.transitions, PATIENCE_S)
        if pipeline == "analytics":
            job.wait_until(
                lambda: measured(kafka, prefix, options) == sent.truth.transitions, PATIENCE_S
            )
        ended = job.stop()
    assert ended.code == 0, ended.err
    assert ended.laws()["messages"] == streams.law_of(sent.truth)["messages"]
    return {
        name: newest(name, streams.rows(kafka, prefix + name))
        for name in PIPELINES[pipeline].tables
    }


def measured(kafka: KafkaBroker, prefix: str, options: list[str]) -> int:
    """Return how many transitions are in the last panes of windows, that of global included."""
    panes = newest("flow", streams.rows(kafka, prefix + "flow")).values()
    once = "global" in options or "fixed:10s" in options
    return sum(
        row["transitions"]
        for row in panes
        if (row["pane"] == "final" or "global" in options)
        # A sliding window begins every 5 s: each fourth tells every transition once.
        and (once or int(row["window_start"][17:19]) % 20 == 0)
    )


def newest(table: str, rows: list[streams.Row]) -> dict[str, Any]:
    """Return rows by id; of an upsert table only the newest of a key."""
    output = TABLES[table]
    if output.mode == "upsert":
        rows = list({tuple(row[name] for name in output.key): row for row in rows}.values())
    return streams.keyed(rows)


def options_of(pipeline: str, sent: streams.Sent, window: str = WINDOWS[0]) -> list[str]:
    """Return the options of a run; all its tables are written."""
    options = ["--end_states", ",".join(sent.truth.end_states), "--columns", "event_id=event_id"]
    if pipeline != "analytics":
        return options
    return [*options, "--window", window, "--tables", ",".join(PIPELINES[pipeline].tables)]


@pytest.mark.parametrize("pipeline", list(PIPELINES))
def test_bounded_tables_are_equal(
    engines: Engines, sent: streams.Sent, tmp_path: Path, pipeline: str
) -> None:
    options = options_of(pipeline, sent)
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


@pytest.mark.parametrize(
    ("pipeline", "window"),
    [("transitions", ""), *(("analytics", window) for window in WINDOWS)],
)
def test_unbounded_tables_are_equal_and_those_of_files(
    engines: Engines,
    kafka: KafkaBroker,
    sent: streams.Sent,
    tmp_path: Path,
    pipeline: str,
    window: str,
) -> None:
    topic = streams.new_name("equal")
    kafka.create_topic(topic, 3)
    streams.send(kafka, sent.records, lambda _: topic)
    options = options_of(pipeline, sent, window)
    found = {}
    for engine in ENGINES:
        prefix = streams.new_name(f"{engine}-out").lower() + "-"
        chosen = engines.options(engine, prefix.rstrip("-"))
        asked = [*options, "--disorder", "5s"]
        place = (kafka, topic, prefix)
        found[engine] = unbounded(pipeline, chosen, sent, tmp_path, asked, place)
    for engine in ENGINES[1:]:
        for table, rows in found[ENGINES[0]].items():
            if table not in MEASURED:
                assert found[engine][table] == rows, (engine, table)
    files = bounded(pipeline, engines.options(ENGINES[0], ""), sent, tmp_path / "files", options)
    for table in FOLDED:
        # When a case was known to have changed is the stream's own: it has record times.
        assert without(files[table]) == without(found[ENGINES[0]][table]), table
    if pipeline == "analytics":
        for engine in ENGINES:
            for table in MEASURED:
                last, whole = without(found[engine][table]), without(files[table])
                if table == "flow":
                    # Those without events, as cases are open, go on for as long as somebody looks.
                    last = {id_: row for id_, row in last.items() if id_ in whole}
                    whole = {id_: row for id_, row in whole.items() if row["transitions"]}
                    last = {id_: row for id_, row in last.items() if id_ in whole}
                assert last == whole, (engine, table)


def without(rows: dict[str, Any]) -> dict[str, Any]:
    """Return rows without what only a broker tells, and what tells panes apart."""
    own = ("updated_at", "pane", "pane_index")
    return {
        id_: {name: value for name, value in row.items() if name not in own}
        for id_, row in rows.items()
    }
