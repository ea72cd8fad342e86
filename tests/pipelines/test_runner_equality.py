"""One definition, three engines, files and topics: the same messages give the same tables.

Every pipeline runs on the FnApiRunner, Prism and Flink, bounded over files and unbounded over a
topic. Tables are compared row by row, rows by their ids: of upsert tables the newest row of a key.
Windows are compared of each kind; on the local engines in `test_window_equality`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.registry import PIPELINES
from tests.pipelines import streams
from tests.pipelines.equality import (
    FOLDED,
    WINDOWS,
    bounded,
    check_windows,
    messages,
    options_of,
    unbounded,
    without,
)
from tests.pipelines.flink_jobs import end_all, on_cluster
from tests.services.fixtures import on_flink
from tests.services.flink import FlinkCluster
from tests.services.kafka import KafkaBroker

pytestmark = on_flink

ENGINES = ("FnApiRunner", "PrismRunner", "FlinkRunner")


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
    return messages()


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


def test_unbounded_tables_are_equal_and_those_of_files(
    engines: Engines, kafka: KafkaBroker, sent: streams.Sent, tmp_path: Path
) -> None:
    topic = streams.new_name("equal")
    kafka.create_topic(topic, 3)
    streams.send(kafka, sent.records, lambda _: topic)
    options = options_of("transitions", sent)
    found = []
    for engine in ENGINES:
        prefix = streams.new_name(f"{engine}-out").lower() + "-"
        job = (engines.options(engine, prefix.rstrip("-")), [*options, "--disorder", "5s"])
        made = unbounded("transitions", {prefix: job}, sent, tmp_path, kafka, topic)
        found.append(made[prefix])
    assert found[1] == found[0], ENGINES[1]
    assert found[2] == found[0], ENGINES[2]
    local = engines.options(ENGINES[0], "")
    files = bounded("transitions", local, sent, tmp_path / "files", options)
    for table in FOLDED:
        # When a case was known to have changed is the stream's own: it has record times.
        assert without(files[table]) == without(found[0][table]), table


def test_windows_of_each_kind_on_flink_are_those_of_files(
    engines: Engines, kafka: KafkaBroker, sent: streams.Sent, tmp_path: Path
) -> None:
    topic = streams.new_name("equal")
    kafka.create_topic(topic, 3)
    streams.send(kafka, sent.records, lambda _: topic)
    jobs = {}
    for window in WINDOWS:
        prefix = streams.new_name("flink-windows") + "-"
        # A slot each: the three run at once.
        cluster = on_cluster(engines.flink, prefix.rstrip("-"), 1)
        jobs[prefix] = (cluster, [*options_of("analytics", sent, window), "--disorder", "5s"])
    found = unbounded("analytics", jobs, sent, tmp_path, kafka, topic)
    for window, tables in zip(WINDOWS, found.values(), strict=True):
        folder = tmp_path / f"files {WINDOWS.index(window)}"
        engine = engines.options(ENGINES[0], "")
        files = bounded("analytics", engine, sent, folder, options_of("analytics", sent, window))
        check_windows(tables, files)
