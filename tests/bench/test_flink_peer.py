"""Flink's DataStream job makes the rows that `run.py transitions` makes of the same messages."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from bench.flink_job import jar
from bench.flink_runs import run_peer
from bench.sections import our_command
from bench.stream_runs import produce, read
from tests.services.flink import FlinkCluster
from tests.services.kafka import KafkaBroker
from tests.services.provision import Missing, missing_part

EVENTS = 2_000
DISORDER_MS = 5_000
Rows = dict[tuple[Any, ...], dict[str, Any]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkCluster]:
    try:
        jar()
        found = FlinkCluster(tmp_path_factory.mktemp("flink"), slots=1, pool=False)
    except Missing as missing:
        missing_part(missing.name, missing.why)
    with found:
        yield found


def test_the_peer_makes_our_rows(kafka: KafkaBroker, cluster: FlinkCluster, tmp_path: Path) -> None:
    disturbed = ("--disorder", "2s", "--duplicates", "0.1", "--repeat-within", "2s")
    pace = ("--times", "create", "--event-rate", "100")
    topic = produce(kafka, tmp_path, "--rate", "0", "--messages", str(EVENTS), *pace, *disturbed)
    came = [message.value() or b"" for message in read(kafka, topic.name)]
    distinct = list(dict.fromkeys(came))
    log = tmp_path / "events.jsonl"
    log.write_bytes(b"".join(line + b"\n" for line in distinct))
    subprocess.run(our_command(log, str(tmp_path / "ours")), check=True, timeout=120)

    run = run_peer(cluster, kafka, topic, "peer-", disorder_ms=DISORDER_MS)

    assert len(came) > len(distinct) == EVENTS == run.rows
    # A row is a case and the time that it changed, whatever else is in it.
    _assert_same(
        _ours(tmp_path / "ours" / "transitions", "case_id", "sequence"),
        _theirs(kafka, "peer-transitions", "case_id", "sequence"),
        hashed=("row_id", "event_id"),
    )
    _assert_same(
        _ours(tmp_path / "ours" / "cases", "case_id"),
        _theirs(kafka, "peer-cases", "case_id"),
        hashed=("row_id", "variant_id"),
    )


def test_the_peer_leaves_out_what_is_no_event(
    kafka: KafkaBroker, cluster: FlinkCluster, tmp_path: Path
) -> None:
    pace = ("--rate", "0", "--messages", "500", "--event-rate", "100", "--garbage", "0.1")
    topic = produce(kafka, tmp_path, *pace)

    run = run_peer(cluster, kafka, topic, "clean-", parallelism=1)

    assert 0 < run.rows < 500
    assert run.cpu_s > 0
    assert run.tree_bytes > 0


def _ours(folder: Path, *key: str) -> Rows:
    found = pq.read_table(folder).to_pylist()
    for row in found:
        for name, value in row.items():
            if hasattr(value, "isoformat"):
                row[name] = f"{value:%Y-%m-%dT%H:%M:%S.%fZ}"
    return {tuple(row[name] for name in key): row for row in found}


def _theirs(broker: KafkaBroker, topic: str, *key: str) -> Rows:
    """Read a topic's rows; of those with one key the newest, as in an upsert table."""
    rows = [orjson.loads(message.value() or b"") for message in read(broker, topic)]
    return {tuple(row[name] for name in key): row for row in rows}


def _assert_same(ours: Rows, theirs: Rows, hashed: tuple[str, ...]) -> None:
    assert ours.keys() == theirs.keys()
    renamed: dict[str, dict[str, str]] = {name: {} for name in hashed}
    for key, mine in ours.items():
        other = theirs[key]
        assert mine.keys() == other.keys()
        for name, value in mine.items():
            if name in hashed:
                # Hashes are each program's own: equal there exactly where equal here.
                assert renamed[name].setdefault(value, other[name]) == other[name]
            elif isinstance(value, float):
                assert value == pytest.approx(other[name], abs=1e-6), (name, key)
            else:
                assert value == other[name], (name, key)
    for names in renamed.values():
        assert len(set(names.values())) == len(names)
