"""Streams in trouble: brokers that refuse or go away, jobs that are killed, poison, impatience."""

from __future__ import annotations

import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

import run
from examples.simulator.stream import Disturbance
from tests.pipelines import streams
from tests.services.kafka import SASL_USER, KafkaBroker
from tests.services.ports import free_ports

SECOND = 1_000_000
ORDERLY = Disturbance()


def now_us() -> int:
    return time.time_ns() // 1000


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run the command line, which must fail, and return its exit code and one line."""
    began = time.monotonic()
    code = run.main(["transitions", *arguments])
    assert time.monotonic() - began < 30
    said = capsys.readouterr()
    assert said.out == ""
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said.err
    assert "Traceback" not in said.err
    return code, errors[0]


def test_a_broker_that_refuses_is_one_line(
    kafka: KafkaBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = streams.new_name("there")
    kafka.create_topic(name)
    topic, target = f"kafka://{kafka.address}/{name}", f"kafka://{kafka.address}/{name}-"
    (tmp_path / "wrong").write_text(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n"
        f"sasl.username={SASL_USER}\nsasl.password=not-the-one\n"
    )
    (tmp_path / "bad").write_text("no.such.setting=1\n")
    (tmp_path / "tls").write_text("security.protocol=SSL\n")
    sasl = f"kafka://{kafka.sasl_address}/{name}?config={tmp_path}/wrong"
    wrong = [
        # Input, output, exit code, what the line says.
        (f"kafka://{kafka.address}/{name}x", target, 4, [f"has no topic '{name}x'", name]),
        (sasl, target, 4, [f"{kafka.sasl_address} refuses us", "uthenticat"]),
        (
            f"kafka://{kafka.ssl_address}/{name}",
            target,
            4,
            [f"no Kafka broker answers at {kafka.ssl_address}", "want TLS", "?config="],
        ),
        (
            f"kafka://{kafka.ssl_address}/{name}?config={tmp_path}/tls",
            target,
            4,
            [f"{kafka.ssl_address} refuses us", "certificate", "ssl.ca.location"],
        ),
        (
            topic,
            f"kafka://{kafka.sasl_address}/{name}-",
            5,
            [f"no Kafka broker answers at {kafka.sasl_address}", "credentials"],
        ),
        (topic, f"{tmp_path}/bad", 5, [f"cannot write to {tmp_path}/bad", "is a file"]),
        (topic, f"{tmp_path}/bad/below", 5, ["cannot write to", "or a parent, is a file"]),
        (topic, f"{sasl.replace(name, name + '-')}", 5, [f"{kafka.sasl_address} refuses us"]),
        (f"{topic}?config={tmp_path}/none", target, 4, [f"config={tmp_path}/none: No such file"]),
        (f"{topic}?config={tmp_path}/bad", target, 4, [f"{tmp_path}/bad", "no.such.setting"]),
        (topic, f"{target}?replication=3", 5, [f"does not create topic {name}-", "replication"]),
        (
            f"kafka://{kafka.address}/{name},{name}-*",
            f"kafka://{kafka.address}/{name}-",
            2,
            ["--output would write to", "give a prefix"],
        ),
    ]
    streams_out = f"{name}-transitions"
    for source, output, code, words in wrong:
        if code == 2:
            kafka.create_topic(streams_out)
        found, line = failing(capsys, "--input", source, "--output", output)
        assert (found, [word for word in words if word.lower() not in line.lower()]) == (
            code,
            [],
        ), line
        assert "not-the-one" not in line


def test_what_is_no_broker_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client:
                        client.recv(1000)
                        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        port = server.getsockname()[1]
        nobody = f"kafka://127.0.0.1:{port}/x"
        code, line = failing(capsys, "--input", nobody, "--output", nobody)
        server.shutdown(socket.SHUT_RDWR)
    assert code == 4
    assert f"no Kafka broker answers at 127.0.0.1:{port}: what answers is no Kafka" in line


def test_no_broker_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    nobody = f"kafka://127.0.0.1:{port}/x"
    code, line = failing(capsys, "--input", nobody, "--output", nobody)
    assert code == 4
    assert line.startswith(f"error: no Kafka broker answers at 127.0.0.1:{port}")


def test_a_broker_that_goes_away_is_a_delay(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    """It bounces, it is away for a minute; then the user has no patience with one that is gone."""
    name = streams.new_name("bounced")
    prefix = f"{name}-out-"
    made = [f"{prefix}transitions"]
    own_kafka.create_topic(name, 2)
    truths = []

    def more(seed: int) -> int:
        sent = streams.json_messages(400, ORDERLY, seed=seed, start=now_us() - 4 * SECOND)
        streams.send(own_kafka, sent.records, lambda _: name, own_times=False)
        truths.append(sent.truth)
        return streams.together(*truths).transitions

    more(1)
    with streams.running(
        tmp_path,
        *("--input", f"kafka://{own_kafka.address}/{name}?start=earliest"),
        *("--output", f"kafka://{own_kafka.address}/{prefix}?partitions=2"),
        *("--disorder", "0s", "--granule", "200ms"),
        *("--end_states", ",".join(truths[0].end_states)),
    ) as job:
        job.wait_until(lambda: streams.counts(own_kafka, made) >= truths[0].transitions)
        own_kafka.restart()
        expected = more(2)
        job.wait_until(lambda: streams.counts(own_kafka, made) >= expected)
        expected = more(3)
        # In the midst of reading and writing.
        own_kafka.kill()
        time.sleep(60)
        own_kafka.start()
        job.wait_until(lambda: streams.counts(own_kafka, made) >= expected)
        expected = more(4)
        job.wait_until(lambda: streams.counts(own_kafka, made) >= expected)
        both = streams.together(*truths)
        assert streams.differences(own_kafka, prefix, both, tmp_path / "tables") == []
        # A pipe has a line every ten seconds.
        assert " events (" in job.said
        ended = job.stop()
        assert (ended.code, ended.laws()) == (0, streams.law_of(both))
        assert "Traceback" not in ended.err


def test_a_second_interruption_ends_at_once(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    name = streams.new_name("impatient")
    own_kafka.create_topic(name, 1)
    sent = streams.json_messages(400, ORDERLY, seed=1, start=now_us() - 4 * SECOND, garbage=0.1)
    streams.send(own_kafka, sent.records, lambda _: name, own_times=False)
    with streams.running(
        tmp_path,
        *("--input", f"kafka://{own_kafka.address}/{name}?start=earliest"),
        *("--output", f"kafka://{own_kafka.address}/{name}-", "--disorder", "1h"),
    ) as job:
        # Dead letters come at once: all was read, and the events wait for their granule.
        dead = [f"{name}-dead_letters"]
        job.wait_until(lambda: streams.counts(own_kafka, dead) == sent.truth.dead)
        own_kafka.kill()
        job.process.send_signal(signal.SIGINT)
        job.wait_for("stopping: ")
        time.sleep(1)
        # What was read can't be delivered.
        assert job.process.poll() is None
        began = time.monotonic()
        ended = job.stop()
        assert time.monotonic() - began < 5
    assert ended.code == 130
    assert ended.out == ""
    assert "at once" in ended.err.splitlines()[-1]


def test_a_job_that_is_killed_loses_nothing(kafka: KafkaBroker, tmp_path: Path) -> None:
    """From the beginning again: the truth, by row ids. From the group's offsets: every event."""
    name = streams.new_name("killed")
    prefix, other = f"{name}-out-", f"{name}-rest-"
    kafka.create_topic(name, 2)
    # As long as it is killed: what waits for its granule is in no output.
    disturbed = Disturbance(disorder=2 * SECOND, duplicates=0.05)
    sent = streams.json_messages(2000, disturbed, seed=5, start=now_us() - 40 * SECOND)
    half = len(sent.records) // 2
    options = ["--disorder", "2s", "--end_states", ",".join(sent.truth.end_states)]
    source = f"kafka://{kafka.address}/{name}"

    def arguments(query: str, to: str) -> list[str]:
        return ["--input", source + query, "--output", f"kafka://{kafka.address}/{to}", *options]

    streams.send(kafka, sent.records[:half], lambda _: name)
    # What is sent late here has old record times: a partition taken for idle would raise them.
    with streams.running(tmp_path, *arguments(f"?group={name}&idle=1h", prefix)) as job:
        made = [f"{prefix}transitions"]
        job.wait_until(lambda: streams.counts(kafka, made) > 0)
        paced = threading.Thread(
            target=streams.send, args=(kafka, sent.records[half:], lambda _: name)
        )
        paced.start()
        time.sleep(0.3)
        job.kill()
        paced.join()
    before = streams.seen(streams.rows(kafka, f"{prefix}transitions"))
    with streams.running(tmp_path, *arguments(f"?group={name}", other)) as job:
        job.wait_until(lambda: streams.committed(kafka, name, [name]))
        assert job.stop().code == 0
    after = streams.seen(
        [row for table in ("transitions", "late") for row in streams.rows(kafka, other + table)]
    )
    assert before | after == streams.expected(sent.truth)
    assert before != streams.expected(sent.truth)
    with streams.running(tmp_path, *arguments(f"?group={name}-2&start=earliest", prefix)) as job:
        job.wait_until(lambda: streams.committed(kafka, f"{name}-2", [name]))
        assert job.stop(signal.SIGTERM).code == 0
        assert "terminated: " in job.said
    assert streams.differences(kafka, prefix, sent.truth, tmp_path / "tables") == []
    # And it was repeated.
    twice = streams.rows(kafka, f"{prefix}transitions")
    assert len(twice) > len(streams.once(twice)) == sent.truth.transitions
