"""The live page of a stream on a real broker: its numbers are those of a run over files."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from confluent_kafka import Producer

import run
from examples.simulator.stream import Record
from pipelines.report.data import Look, document, packed
from pipelines.report.folder import read_folder
from pipelines.report.live.topics import Topics
from schemas.tables import TABLES
from tests.pipelines import streams
from tests.report.tables import cases, tables
from tests.services.kafka import KafkaBroker
from transforms.kafka import KafkaTarget
from transforms.sinks.kafka import messages

SECOND = 1_000_000
WAYS = (("in", "check", "done"), ("in", "check", "check", "refused"), ("in", "done"))
OPTIONS = ("--window", "fixed:2s", "--end_states", "done,refused")
SAME = (
    *("groups", "versions", "states", "actors", "ways", "periods", "process_map", "state_times"),
    *("flow", "workload", "heat", "variants", "cycles", "ends", "late", "cases"),
)
"""Parts of a page's data that do not tell where its rows came from."""


def record(at: int, key: str, payload: bytes) -> Record[Any]:
    return Record(at, at, "", key.encode(), payload, None, True)


def events(first: int, cases: int) -> list[Record[Any]]:
    """Make cases that have just been worked on, each to its end."""
    start = time.time_ns() // 1000 - 1 * SECOND
    made = []
    for case in range(first, first + cases):
        for number, state in enumerate(WAYS[case % len(WAYS)]):
            at = start + number * 200_000 + case
            event = {
                **{"case_id": f"c{case}", "activity": state, "event_time": at},
                **{"actor": f"a{(case + number) % 3}", "workflow_group": f"G{case % 2}"},
            }
            made.append(record(at, f"c{case}", orjson.dumps(event)))
    return sorted(made, key=lambda each: each.arrival)


def moves(first: int, cases: int) -> int:
    return sum(len(WAYS[case % len(WAYS)]) for case in range(first, first + cases))


def asked(url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a page's data, and how the stream stands."""
    with urllib.request.urlopen(f"{url}data", timeout=20) as answer:  # noqa: S310
        return orjson.loads(answer.read()), json.loads(answer.headers["X-Stream"])


def test_topics_that_are_deleted_are_said_and_read_anew_when_they_are_back(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.report.live.topics.REFRESH_S", 0.3)
    target = KafkaTarget((kafka.address,), prefix=streams.new_name("p") + "-")
    flow = tables(cases(9, (("in", "done"),)))["flow"]
    names = [target.topic(name) for name in ("flow", "workload")]
    source = Topics(target)

    def follow(until: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not until():
            assert time.monotonic() < end, source.problem
            source.refresh()

    def rows() -> int:
        found = source.contents().tables.get("flow")
        return 0 if found is None else found.num_rows

    def send(table: pa.Table) -> None:
        for name in names:
            kafka.create_topic(name)
        producer = Producer({"bootstrap.servers": kafka.address})
        for message in messages(table, TABLES["flow"]):
            producer.produce(names[0], **message)
        producer.flush(10)

    try:
        follow(lambda: f"such as {names[0]}" in source.problem)
        send(flow)
        follow(lambda: rows() == flow.num_rows)
        assert source.problem == ""
        kafka.delete_topics(*names)
        follow(lambda: source.problem.startswith(f"deleted: {names[0]}, {names[1]}; "))
        # What came before is still shown, until there is something else.
        assert rows() == flow.num_rows
        send(flow.slice(0, 2))
        follow(lambda: rows() == 2 and source.problem == "")
    finally:
        source.close()


def test_the_live_page_is_the_report_of_a_run_over_files(
    own_kafka: KafkaBroker, tmp_path: Path
) -> None:
    topic, prefix = streams.new_name("live"), streams.new_name("m") + "-"
    own_kafka.create_topic(topic, 2)
    sent: list[Record[Any]] = []

    def send(first: int, cases: int, *more: bytes) -> None:
        now = time.time_ns() // 1000
        made = [*events(first, cases), *(record(now, "", each) for each in more)]
        streams.send(own_kafka, made, lambda _: topic)
        sent.extend(made)

    address = f"kafka://{own_kafka.address}"
    stream = [
        *("--input", f"{address}/{topic}?start=earliest", "--output", address + f"/{prefix}"),
        *("--disorder", "2s", "--early_firing", "1s", *OPTIONS),
    ]
    serve = ["--input", f"{address}/{prefix}", "--port", "0"]
    send(0, 30, b"{no event")
    with (
        streams.running(tmp_path, *stream, program=("run.py", "analytics")) as job,
        streams.running(tmp_path, *serve, program=("run.py", "serve")) as server,
    ):
        server.wait_for("the report is at ")
        url = re.findall(r"http://[0-9.:]+/", server.said)[0]

        def wait_for(cases: int) -> None:
            wanted = (*[moves(0, cases)] * 2, *[cases] * 2)
            said: list[Any] = [None]

            def shown() -> bool:
                data, live = asked(url)
                found = (
                    sum(data["flow"]["transitions"]),
                    sum(data["process_map"]["count"]),
                    sum(data["flow"]["completed"]),
                    data["cases"]["complete"],
                )
                said[0] = (found, live)
                return found == wanted and live["problem"] == ""

            try:
                job.wait_until(shown)
            except AssertionError:
                pytest.fail(f"not {wanted}, but {said[0]}; {job.said} {server.said}")

        wait_for(30)
        send(30, 20)
        wait_for(50)
        own_kafka.stop()
        down = f"no Kafka broker answers at {own_kafka.address}"
        server.wait_until(lambda: down in asked(url)[1]["problem"])
        # What came before is still shown.
        assert sum(asked(url)[0]["flow"]["completed"]) == 50
        own_kafka.start()
        send(50, 10)
        wait_for(60)
        # No pane is to come that would tell more.
        last = max(record.arrival for record in sent) // 1000
        job.wait_until(lambda: (asked(url)[1]["known_until"] or 0) > last)
        data, live = asked(url)
        assert live["known_until"] <= live["now"]
        ended = job.stop()
        assert ended.code == 0, ended.err
        assert server.stop().code == 0

    lines = tmp_path / "sent.jsonl"
    lines.write_bytes(b"".join(record.payload + b"\n" for record in sent))
    out = tmp_path / "out"
    arguments = ["analytics", "--input", str(lines), "--output", str(out), *OPTIONS]
    assert run.main([*arguments, "--workers", "1", "--progress", "off"]) == 0
    report = orjson.loads(packed(document(read_folder(str(out)), Look("T"))))
    assert sum(report["flow"]["completed"]) == 60
    for part in SAME:
        assert data[part] == report[part], part
    errors = [[(one["error"], one["count"]) for one in page["dead"]] for page in (data, report)]
    assert errors[0] == errors[1] == [("InvalidJson", 1)]
