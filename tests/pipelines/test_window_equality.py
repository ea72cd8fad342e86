"""Windows of a stream are those of a backfill over the same messages, on both local engines."""

from __future__ import annotations

from pathlib import Path

import pytest

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
from tests.services.kafka import KafkaBroker


@pytest.mark.parametrize("window", [*WINDOWS, "fixed:1d@Pacific/Chatham"])
def test_windows_of_a_stream_are_those_of_files(
    kafka: KafkaBroker, prism: str, tmp_path: Path, window: str
) -> None:
    sent = messages()
    topic = streams.new_name("windows")
    kafka.create_topic(topic, 3)
    streams.send(kafka, sent.records, lambda _: topic)
    options = options_of("analytics", sent, window)
    asked = [*options, "--disorder", "5s"]
    if "@" in window:
        # A day is not over in a test's time.
        asked += ["--early_firing", "5s"]
    jobs = {}
    for name, engine in (
        ("fnapi", ["--runner", "FnApiRunner"]),
        ("prism", ["--runner", "PrismRunner", "--prism_location", prism]),
    ):
        jobs[streams.new_name(name) + "-"] = (engine, asked)
    found = unbounded("analytics", jobs, sent, tmp_path, kafka, topic)
    files = bounded("analytics", ["--runner", "FnApiRunner"], sent, tmp_path / "files", options)
    for job, tables in found.items():
        check_windows(tables, files)
        for table in FOLDED:
            assert without(tables[table]) == without(files[table]), (job, table)
