"""Runs of a pipeline over the same messages, as files and as topics: their tables by row id."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from examples.simulator.stream import Disturbance
from pipelines.registry import PIPELINES
from schemas.tables import TABLES
from tests.pipelines import streams
from tests.services.kafka import KafkaBroker

PATIENCE_S = 120.0
"""A machine of tests may be slow."""

SECOND = 1_000_000
DISTURBED = Disturbance(disorder=5 * SECOND, duplicates=0.05, repeat_within=15 * SECOND)
FOLDED = ("transitions", "cases", "late", "retracted")
MEASURED = ("process_map", "state_times", "flow", "workload", "variants")
WINDOWS = ("fixed:10s", "sliding:20s/5s", "global")

Tables = dict[str, dict[str, Any]]


def messages() -> streams.Sent:
    """Draw events with ids of their own, as those of a file and of a topic must be the same."""
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
    jobs: Mapping[str, tuple[list[str], list[str]]],
    sent: streams.Sent,
    folder: Path,
    kafka: KafkaBroker,
    topic: str,
) -> dict[str, Tables]:
    """Run jobs over a topic, all at once, until every row is there and windows are over.

    Args:
        pipeline: of all.
        jobs: prefix of a job's topics -> options of its engine, and of the pipeline.
        sent: what is in the topic.
        folder: for what they say.
        kafka: the broker.
        topic: the input.

    Returns:
        The tables of each.
    """
    address = f"kafka://{kafka.address}"
    found = {}
    with ExitStack() as stack:
        started = {}
        for prefix, (engine, options) in jobs.items():
            query = f"start=earliest&group={prefix}"
            arguments = ["--input", f"{address}/{topic}?{query}", "--output", f"{address}/{prefix}"]
            started[prefix] = stack.enter_context(
                streams.running(folder, *arguments, *options, *engine, program=("run.py", pipeline))
            )
        for prefix, job in started.items():
            wait_for_rows(job, pipeline, jobs[prefix][1], sent, kafka, prefix)
            ended = job.stop()
            assert ended.code == 0, ended.err
            assert ended.laws()["messages"] == streams.law_of(sent.truth)["messages"]
            found[prefix] = {
                name: newest(name, streams.rows(kafka, prefix + name))
                for name in PIPELINES[pipeline].tables
            }
    return found


def wait_for_rows(
    job: streams.Job,
    pipeline: str,
    options: list[str],
    sent: streams.Sent,
    kafka: KafkaBroker,
    prefix: str,
) -> None:
    """Wait until all transitions are there, and in the last panes of windows."""
    made = [f"{prefix}transitions"]
    job.wait_until(lambda: streams.counts(kafka, made) == sent.truth.transitions, PATIENCE_S)
    if pipeline == "analytics":
        job.wait_until(
            lambda: measured(kafka, prefix, options) == sent.truth.transitions, PATIENCE_S
        )


def measured(kafka: KafkaBroker, prefix: str, options: list[str]) -> int:
    """Return how many transitions are in the last panes of windows, that of global included."""
    panes = newest("flow", streams.rows(kafka, prefix + "flow")).values()
    once = "sliding:20s/5s" not in options
    return sum(
        row["transitions"]
        for row in panes
        if (row["pane"] == "final" or "global" in options or "--early_firing" in options)
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


def check_windows(found: Tables, files: Tables) -> None:
    """Check that last panes in a stream are the rows of a backfill over the same messages."""
    for table in MEASURED:
        last, whole = without(found[table]), without(files[table])
        if table == "flow":
            # Those without events, as cases are open, go on for as long as somebody looks.
            whole = {id_: row for id_, row in whole.items() if row["transitions"]}
            last = {id_: row for id_, row in last.items() if id_ in whole}
        assert last == whole, table


def without(rows: dict[str, Any]) -> dict[str, Any]:
    """Return rows without what only a broker tells, and what tells panes apart."""
    own = ("updated_at", "pane", "pane_index")
    return {
        id_: {name: value for name, value in row.items() if name not in own}
        for id_, row in rows.items()
    }
