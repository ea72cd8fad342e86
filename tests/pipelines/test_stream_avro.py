"""A stream of Avro messages whose schema registry goes away and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.formats.avro.records import SCHEMA, registered, step
from tests.pipelines import streams
from tests.services.kafka import KafkaBroker
from tests.services.schema_registry import FakeRegistry


def test_the_registry_goes_away_and_comes_back(
    tmp_path: Path, kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("REGISTRY", "kim:secret")
    topic, prefix = streams.new_name("avro"), streams.new_name("avro-out") + "-"
    kafka.create_topic(topic, 1)
    producer = Producer({"bootstrap.servers": kafka.address})

    def send(number: int, first: int, schema: object = None) -> None:
        for i in range(first, first + 10):
            producer.produce(topic, registered(number, step(i, case_id=f"c{i}"), schema))
        producer.flush()

    later = {**SCHEMA, "name": "Later"}
    with FakeRegistry(user="kim", password="secret") as server:
        known, unknown = server.register(SCHEMA), server.register(later)
        send(known, 0)
        arguments = [
            *("--input", f"kafka://{kafka.address}/{topic}?start=earliest&idle=200ms"),
            *("--output", f"kafka://{kafka.address}/{prefix}", "--disorder", "100ms"),
            *("--schema_registry", server.url, "--schema_registry_auth", "env:REGISTRY"),
            *("--items", "amount:double", "--progress", "off"),
        ]
        rows = f"{prefix}transitions"
        with streams.running(tmp_path, *arguments) as job:
            job.wait_until(lambda: len(streams.rows(kafka, rows)) == 10)
            server.stop()
            # What is known still comes through; what is not is dead, and says why.
            send(unknown, 10, later)
            send(known, 20)
            dead = f"{prefix}dead_letters"
            job.wait_until(lambda: len(streams.rows(kafka, dead)) == 10)
            job.wait_until(lambda: len(streams.rows(kafka, rows)) == 20)
            server.start()

            def read_again() -> bool:
                send(unknown, 30, later)
                return any(row["case_id"] == "c30" for row in streams.rows(kafka, rows))

            job.wait_until(read_again)
            ended = job.stop()
    laws = ended.laws()
    assert laws["messages"]["dead"] >= 10
    assert "secret" not in ended.out + ended.err
    assert "dead letters of RegistryDown; the table dead_letters says why" in ended.err
    letters = streams.rows(kafka, f"{prefix}dead_letters")
    assert {letter["error"] for letter in letters} == {"RegistryDown"}
    assert "cannot be asked" in letters[0]["message"]
    assert letters[0]["attributes"]["format"] == "avro"
    made = streams.rows(kafka, rows)
    assert made[0]["attributes"] == {"amount": "12.5"}


def test_a_registry_that_is_away_at_the_start_is_said(
    tmp_path: Path, kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    topic = streams.new_name("avro")
    kafka.create_topic(topic, 1)
    with FakeRegistry() as server:
        arguments = [
            *("--input", f"kafka://{kafka.address}/{topic}"),
            *("--output", f"kafka://{kafka.address}/{topic}-out-", "--explain_plan"),
            *("--schema_registry", server.url),
        ]
        with streams.running(tmp_path, *arguments) as job:
            there = job.ended()
        server.stop()
        with streams.running(tmp_path, *arguments) as job:
            away = job.ended()
    assert (there.code, away.code) == (0, 0)
    assert "--schema_registry" not in there.err
    assert f"warning: --schema_registry {server.url} cannot be asked: " in away.err
