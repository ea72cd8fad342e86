"""Streams from topics to topics, whole, on a real broker: what comes out is the truth."""

from __future__ import annotations

import base64
import signal
import time
from dataclasses import replace
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

import run
from examples.simulator.scenario import Faults
from examples.simulator.stream import Disturbance
from tests.pipelines import streams
from tests.services.kafka import KafkaBroker

SECOND = 1_000_000
PAST = 1_704_096_000 * SECOND
"""The first of January 2024: long before any clock of a test."""

D = 10 * SECOND
POISON = (
    b"502 Bad Gateway\n",
    b'{"case_id": "unfinished", "event_time": "2024-',
    b'{"case_id":"fixed","event_time":"31.01.2024 10:00","activity":"10","state":"1000"}',
)

DISTURBED = Disturbance(disorder=D, duplicates=0.05, repeat_within=30 * SECOND)


def test_json_from_topics_and_a_pattern_to_topics(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Disorder, duplicates, garbage; four partitions; a model version that is new."""
    name, prefix = streams.new_name("json"), streams.new_name("out") + "-"
    first = streams.json_messages(3000, DISTURBED, seed=1, start=PAST, garbage=0.01)
    for version in {record.topic for record in first.records}:
        kafka.create_topic(f"{name}-{version}", 4)
    streams.send(kafka, first.records, lambda record: f"{name}-{record.topic}")
    topics = f"{name}-invoice-1.0.0,{name}-*"
    with streams.running(
        tmp_path,
        *("--input", f"kafka://{kafka.address}/{topics}?start=earliest&refresh=300ms"),
        *("--output", f"kafka://{kafka.address}/{prefix}?partitions=2"),
        *("--disorder", "10s", "--end_states", ",".join(first.truth.end_states)),
    ) as job:
        made = [f"{prefix}transitions"]
        # Nothing stops here: what is folded comes out by the watermark alone.
        job.wait_until(lambda: streams.counts(kafka, made) == first.truth.transitions)
        now = time.time_ns() // 1000
        second = streams.json_messages(500, Disturbance(), seed=2, start=now - 10 * SECOND)
        kafka.create_topic(f"{name}-new-9.0.0", 1)
        last = second.records[-1]._replace(payload=POISON[0])
        sent = [*second.records, last]
        streams.send(kafka, sent, lambda _: f"{name}-new-9.0.0", own_times=False)
        both = streams.together(first.truth, second.truth)
        both = replace(both, messages=both.messages + 1, dead=both.dead + 1)
        # Dead letters come at once. The events before the last of them were read, and wait for
        # ten seconds to pass: it is the stop that folds and delivers them.
        dead = [f"{prefix}dead_letters"]
        job.wait_until(lambda: streams.counts(kafka, dead) == both.dead)
        assert streams.counts(kafka, made) < both.transitions
        ended = job.stop()
    assert (ended.code, ended.laws()) == (0, streams.law_of(both))
    assert streams.differences(kafka, prefix, both, tmp_path / "tables") == []


@pytest.mark.parametrize("engine", ["FnApiRunner", "PrismRunner"])
def test_imixs_documents_on_both_engines(
    kafka: KafkaBroker, request: pytest.FixtureRequest, tmp_path: Path, engine: str
) -> None:
    """Rolled-back calls, unreadable lines, profiles, garbage; a topic for each model version."""
    name, prefix = streams.new_name("imixs"), streams.new_name("out") + "-"
    faults = Faults(
        **{each: 0.0 for each in ("duplicate", "empty", "missing", "old_log")},
        phantom=0.03,
        broken=0.01,
        profile=0.01,
        unreadable=0.01,
    )
    sent = streams.imixs_messages(1200, DISTURBED, faults, seed=3, start=PAST)
    topics = sorted({record.topic for record in sent.records})
    for version in topics:
        kafka.create_topic(f"{name}-{version}", 2)
    streams.send(kafka, sent.records, lambda record: f"{name}-{record.topic}")
    first, *others = [f"{name}-{version}" for version in topics]
    query = "?start=earliest&group=" + name
    addresses = [f"kafka://{kafka.address}/{','.join([first, *others])}{query}"]
    arguments = ["--runner", engine]
    if engine == "PrismRunner":
        addresses = [f"kafka://{kafka.address}/{each}{query}" for each in (first, ",".join(others))]
        arguments += ["--prism_location", request.getfixturevalue("prism")]
    with streams.running(
        tmp_path,
        *("--input", *addresses, *arguments, "--disorder", "10s", "--max_dead_letters", "1"),
        *("--output", f"kafka://{kafka.address}/{prefix}?partitions=2"),
        *("--end_states", ",".join(sent.truth.end_states)),
    ) as job:
        made = [f"{prefix}transitions"]
        job.wait_until(lambda: streams.counts(kafka, made) == sent.truth.transitions)
        ended = job.stop()
    assert sent.truth.retracted > 0
    assert ended.laws() == streams.law_of(sent.truth)
    assert streams.differences(kafka, prefix, sent.truth, tmp_path / "tables") == []
    dead = sent.truth.dead + sent.truth.rejected
    assert ended.code == 3
    assert f"dead      {dead} dead letters: " in ended.out
    assert f"{dead} dead letters, more than --max_dead_letters allows (1)" in ended.err


def test_orderly_messages_equal_a_backfill_and_poison_is_replayed(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    """Without disorder the rows are those that the same messages give in a file."""
    name, prefix = streams.new_name("orderly"), streams.new_name("out") + "-"
    sent = streams.json_messages(600, Disturbance(), seed=4, start=PAST)
    records = list(sent.records)
    for place, payload in enumerate(POISON):
        records.insert(100 * place, records[100 * place]._replace(payload=payload))
    kafka.create_topic(name, 1)
    streams.send(kafka, records, lambda _: name)
    options = ["--end_states", ",".join(sent.truth.end_states), "--quiet"]
    with streams.running(
        tmp_path,
        *("--input", f"kafka://{kafka.address}/{name}?start=earliest", *options),
        *("--output", f"kafka://{kafka.address}/{prefix}?partitions=1"),
    ) as job:
        made = [f"{prefix}transitions"]
        job.wait_until(lambda: streams.counts(kafka, made) == sent.truth.transitions)
        assert job.stop(signal.SIGTERM) == streams.Ended(0, "", "")
    written = {
        table: streams.rows(kafka, prefix + table)
        for table in ("transitions", "cases", "late", "retracted", "dead_letters")
    }
    assert (written["late"], written["retracted"]) == ([], [])

    # What is dead says where it is from, and can be put right.
    dead = {row["source"]: row for row in written["dead_letters"]}
    assert {source: base64.b64decode(row["payload"]) for source, row in dead.items()} == {
        f"{name}/0/{100 * place}": payload for place, payload in enumerate(POISON)
    }
    assert {row["time"] for row in dead.values()} == {
        streams.text_of(records[100 * place].arrival // 1000 * 1000) for place in range(3)
    }
    letters = tmp_path / "letters.jsonl"
    letters.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in written["dead_letters"]))
    again = ["--format", "dead_letters", "--time_format", "%d.%m.%Y %H:%M", *options]
    assert run_files(letters, tmp_path / "again", *again) == 0
    assert [row["case_id"] for row in parquet(tmp_path / "again" / "transitions")] == ["fixed"]
    left = parquet(tmp_path / "again" / "dead_letters")
    assert sorted(row["source"] for row in left) == sorted(dead)[:2]

    lines = tmp_path / "lines.jsonl"
    lines.write_bytes(b"".join(record.payload + b"\n" for record in sent.records))
    assert run_files(lines, tmp_path / "back", *options) == 0
    newest = {row["case_id"]: row for row in written["cases"]}
    for table, rows in (("transitions", written["transitions"]), ("cases", newest.values())):
        expected = streams.as_json(pq.read_table(tmp_path / "back" / table))
        # An event without an id of its own is known by its place in the input, too.
        own = ("event_id",)
        assert streams.keyed(rows, own) == streams.keyed(expected, own)


def run_files(source: Path, output: Path, *options: str) -> int:
    return run.main(["transitions", "--input", str(source), "--output", str(output), *options])


def parquet(folder: Path) -> list[streams.Row]:
    rows: list[streams.Row] = pq.read_table(folder).to_pylist()
    return rows


def test_a_plan_of_a_stream_is_explained_and_nothing_is_made(
    kafka: KafkaBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    name = streams.new_name("plan")
    kafka.create_topic(f"{name}-a", 3)
    address = f"kafka://{kafka.address}"
    arguments = ["--input", f"{address}/{name}-a", f"{address}/{name}-*?start=latest"]
    arguments += ["--output", f"{address}/{name}-out-", "--shards", "5", "--granule", "200ms"]
    arguments += ["--runner", "PrismRunner", "--prism_location", "/no/prism", "--explain_plan"]
    assert run.main(["transitions", *arguments]) == 0
    said = capsys.readouterr().out
    assert f"{address}/{name}-*?group=imixs-streams-transitions&start=latest" in said
    assert f"{name}-a: 3 partitions" in said
    assert "5 shards, granules of 200 ms" in said
    assert "PrismRunner (its binary is /no/prism; one process)" in said
    assert f"output    {address}/{name}-out-?partitions=6&replication=1" in said
    assert not [each for each in kafka.admin().list_topics().topics if each.startswith(f"{name}-o")]
    # Without a plan the program is needed.
    arguments.remove("--explain_plan")
    assert run.main(["transitions", *arguments]) == 2
    assert "error: Prism can't be started: " in capsys.readouterr().err
