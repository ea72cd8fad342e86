"""The producer's truth is what lies in the topic; its streams repeat, and disturb as told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from argparse import ArgumentTypeError
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path

import orjson
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from examples import compare, producer
from examples.simulator import END_STATES, Faults, Truth, Witness
from examples.simulator import Message as Sent
from examples.simulator.json_stream import EventWitness, json_events
from examples.simulator.stream import Disturbance, Record, arrivals, calls, documents
from examples.simulator.worktime import SECOND
from run import main
from tests.services.kafka import KafkaBroker
from tests.services.schema_registry import FakeRegistry
from transforms.formats.avro.messages import read_messages
from transforms.formats.avro.settings import AvroSettings

START = 1_700_000_000 * SECOND


def read(kafka: KafkaBroker, topic: str) -> list[Message]:
    """Return all messages of a topic."""
    consumer = Consumer(
        {"bootstrap.servers": kafka.address, "group.id": "reads-all", "log_level": "0"}
    )
    parts = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    ends = [
        consumer.get_watermark_offsets(TopicPartition(topic, part), timeout=10)[1] for part in parts
    ]
    consumer.assign([TopicPartition(topic, part, OFFSET_BEGINNING) for part in parts])
    found: list[Message] = []
    while len(found) < sum(ends):
        got = consumer.consume(min(1000, sum(ends) - len(found)), timeout=10)
        assert got, f"{len(found)} of {sum(ends)} messages came"
        found.extend(got)
    consumer.close()
    return found


def run(kafka: KafkaBroker, *arguments: str) -> int:
    return producer.main(["--broker", kafka.address, *arguments])


def value(message: Message) -> bytes:
    return message.value() or b""


def test_truth_is_what_lies_in_the_topic(kafka: KafkaBroker, tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    options = "--topic lies --rate 0 --messages 1500 --cases 300 --partitions 3 --disorder 5s"
    faults = "--duplicates 0.05 --delays 0.01:60s --garbage 0.02 --phantoms 0.01 --profiles 0.02"
    assert run(kafka, *options.split(), *faults.split(), "--truth", str(path)) == 0
    truth = Truth.load(path)
    found = read(kafka, "lies")
    assert len(found) == truth.messages
    # Counted by the reader's own eyes, not by the witness.
    lines: dict[str, set[tuple[str, ...]]] = {}
    events = decoded = 0
    partitions: dict[bytes, set[int | None]] = {}
    for message in found:
        text = value(message).decode("utf-8", "replace")
        partitions.setdefault(message.key() or b"", set()).add(message.partition())
        case_id = re.search(r'"\$uniqueid"><value[^>]*>([^<]+)', text)
        if (
            case_id is None
            or not text.endswith("</document>")
            or ">profile<" in text
            or "\ufffd" in text
        ):
            continue
        decoded += 1
        log = re.search(r'<item name="\$eventlog">(.*?)</item>', text)
        assert log is not None
        held = re.findall(r"<value[^>]*>([^<]*)</value>", log[1])
        events += len(held)
        known = lines.setdefault(case_id[1], set())
        for line in held:
            when, _, task, event, target, actor, *_ = line.split("|")
            known.add((when, task, event, target, actor))
    assert decoded == truth.decoded
    assert events == truth.events
    assert sum(map(len, lines.values())) == truth.transitions
    for case_id_, case in truth.cases.items():
        times = sorted(_micros(line[0]) for line in lines[case_id_])
        assert times == [transition.time for transition in case.transitions]
    assert all(len(where) == 1 for where in partitions.values())
    assert truth.retracted > 0
    assert truth.dead > 10
    assert truth.skipped > 10


def _micros(text: str) -> int:
    # Python 3.10 reads fractions of three or six digits only.
    whole, fraction, zone = re.fullmatch(r"([^.+]*)(?:\.(\d+))?(.*)", text).groups()  # type: ignore[union-attr]
    seconds = datetime.fromisoformat(whole + zone.replace("Z", "+00:00")).timestamp()
    return int(seconds) * SECOND + int((fraction or "").ljust(6, "0"))


def test_json_events_are_small_and_counted(kafka: KafkaBroker, tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    options = "--topic small --format json_lines --rate 0 --messages 5000 --cases 200"
    faults = "--duplicates 0.02 --garbage 0.01 --start 2024-01-01T00:00Z --times create"
    assert run(kafka, *options.split(), *faults.split(), "--truth", str(path)) == 0
    truth = Truth.load(path)
    found = read(kafka, "small")
    assert len(found) == truth.messages > 5000
    good = []
    for message in found:
        try:
            good.append(orjson.loads(value(message)))
        except orjson.JSONDecodeError:
            continue
    assert len(good) == truth.decoded
    assert len({each["transaction_id"] for each in good}) == truth.transitions
    rows = Counter(each["case_id"] for each in {e["transaction_id"]: e for e in good}.values())
    assert rows == {case_id: len(case.transitions) for case_id, case in truth.cases.items()}
    ended = {each["case_id"] for each in good if each["state"] in END_STATES}
    assert ended == {case_id for case_id, case in truth.cases.items() if case.complete}
    assert 240 < sum(len(value(each)) for each in found) / len(found) < 290
    # The record's time is the events' clock: a millisecond an event, from --start.
    begin = int(datetime(2024, 1, 1, tzinfo=timezone.utc).timestamp()) * 1000
    times = sorted(message.timestamp()[1] - begin for message in found)
    assert times[0] == 1
    assert times[-1] >= 5000


def test_events_as_avro_are_those_of_json(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a schema registry, which is told the schema once; garbage stays as it is."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    common = ["--rate", "0", "--messages", "500", "--garbage", "0.02", "--start", "2024-01-01"]
    with FakeRegistry() as server:
        avro = ["--format", "avro", "--schema-registry", server.url]
        assert run(kafka, "--topic", "steps-avro", *common, *avro) == 0
        assert run(kafka, "--topic", "steps-avro-2", *common, *avro) == 0
        assert run(kafka, "--topic", "steps-json", *common, "--format", "json_lines") == 0
        sent = [value(each) for each in read(kafka, "steps-avro")]
        settings = AvroSettings(server.url)
        lines = [each for each in read_messages(sent, settings, 1 << 20) if isinstance(each, bytes)]
    wanted = [value(each) for each in read(kafka, "steps-json")]
    good = []
    for each in wanted:
        with suppress(orjson.JSONDecodeError):
            good.append(orjson.loads(each))
    assert 450 < len(good) < 500

    def plain(event: dict[str, str]) -> tuple[tuple[str, str], ...]:
        when = datetime.fromisoformat(event["event_time"].replace("Z", "+00:00")).isoformat()
        return tuple(sorted({**event, "event_time": when}.items()))

    assert Counter(plain(orjson.loads(each)) for each in lines) == Counter(map(plain, good))


def test_a_registry_that_does_not_take_the_schema_is_said(
    kafka: KafkaBroker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FakeRegistry() as server:
        server.register({"type": "string"}, "steps-other-value")
        arguments = ["--topic", "steps-other", "--rate", "0", "--messages", "5"]
        avro = ["--format", "avro", "--schema-registry", server.url]
        assert run(kafka, *arguments, *avro) == 1
    assert "did not take the schema: 409" in capsys.readouterr().err


def test_a_paced_stream_keeps_its_pace_and_ends_whole(kafka: KafkaBroker, tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    command = [sys.executable, "-m", "examples.producer", "--broker", kafka.address]
    options = "--topic paced --rate 200 --disorder 60s --cases 100 --format json_lines"
    process = subprocess.Popen(
        [*command, *options.split(), "--truth", str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        deadline = time.monotonic() + 30
        while "paced" not in kafka.admin().list_topics(timeout=10).topics:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(2)
        os.kill(process.pid, signal.SIGINT)
        text = process.communicate(timeout=30)[0]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert process.returncode == 0, text
    truth = Truth.load(path)
    assert len(read(kafka, "paced")) == truth.messages
    # Most is held back for up to a minute when it is interrupted, and sent all the same.
    assert truth.messages > 100
    times = [t.time for case in truth.cases.values() for t in case.transitions]
    assert abs(max(times) / SECOND - time.time()) < 60


def test_a_topic_that_is_deleted_meanwhile_is_said(
    kafka: KafkaBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    options = "--topic gone --rate 500 --seconds 120 --format json_lines"
    codes: list[int] = []
    sender = threading.Thread(target=lambda: codes.append(run(kafka, *options.split())))
    sender.start()
    time.sleep(2)
    kafka.delete_topics("gone")
    sender.join(90)
    assert codes == [1]
    said = capfd.readouterr().err
    assert re.search(r"error: .*gone.*", said)
    assert "Traceback" not in said


def test_a_topic_for_each_model(kafka: KafkaBroker) -> None:
    options = "--topic by-{model} --rate 0 --messages 300 --cases 200 --keys none"
    assert run(kafka, *options.split()) == 0
    found = [
        message
        for name in ("invoice-1.0.0", "ticket-1.0.0")
        for message in read(kafka, f"by-{name}")
    ]
    assert len(found) == 300
    assert {message.key() for message in found} == {None}
    assert all((message.topic() or "")[3:].encode() in value(message) for message in found)


def test_what_is_wrong_is_said(
    kafka: KafkaBroker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "client.properties"
    settings.write_text(
        "# a stranger\nsecurity.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n"
        "sasl.username=stranger\nsasl.password=guessed\n"
    )
    began = time.monotonic()
    arguments = ["--broker", kafka.sasl_address, "--topic", "x", "--config", str(settings)]
    assert producer.main(arguments) == 2
    assert time.monotonic() - began < 5
    error = capfd.readouterr().err
    assert re.fullmatch(r"error: [\d.:]+: .*Invalid username or password.*\n", error), error
    assert "guessed" not in error
    for wrong, said in (
        ("--rate 0", "needs --messages"),
        ("--seconds 5 --messages 5", "leave one out"),
        ("--duplicates 2", "duplicates is a rate"),
        ("--format json_lines --phantoms 0.1", "need --format imixs_xml"),
        ("--copies 2", "--copies needs --format json_lines"),
        ("--again", "--again needs --format json_lines"),
    ):
        assert run(kafka, "--topic", "x", *wrong.split()) == 2
        assert said in capfd.readouterr().err


def test_durations_are_read() -> None:
    assert [producer.duration(text) for text in ("200ms", "1.5s", "2m", "1h")] == [
        200_000,
        1_500_000,
        120 * SECOND,
        3600 * SECOND,
    ]
    for text in ("5", "s", "-1s", "5 days"):
        with pytest.raises(ArgumentTypeError, match="no duration"):
            producer.duration(text)


def sent(count: int, faults: Faults) -> list[Record[Sent]]:
    snapshots = calls(3, 150, start=START, rate=500, faults=faults)
    return list(islice(documents(snapshots, seed=3, faults=faults), count))


def test_retimed_calls_keep_their_order() -> None:
    records = sent(2000, replace(Faults.none(), phantom=0.02))
    times = [record.time for record in records]
    assert times == [START + number * 2000 for number in range(1, 2001)]
    last: dict[str, int] = {}
    seen: dict[int, str] = {}
    for record in records:
        snapshot = record.fact.snapshot
        assert snapshot is not None
        fresh = [line.transition.time for line in snapshot.log[-snapshot.fresh :]]
        assert fresh == sorted(set(fresh))
        assert last.get(snapshot.case.id, 0) < fresh[0]
        assert record.time - 2000 <= fresh[0]
        assert fresh[-1] < record.time
        last[snapshot.case.id] = record.time
        for line in snapshot.log:
            assert seen.setdefault(line.transition.time, line.text) == line.text
            assert _micros(line.text.split("|")[0]) == line.transition.time
        assert (snapshot.modified is None) == (snapshot.fresh == len(snapshot.log))
    # More cases follow when those of the first simulation have ended.
    assert len({record.key for record in records}) > 150


def test_arrivals_disturb_as_told_and_lose_nothing() -> None:
    records = list(islice(json_events(5, 100, start=START, rate=1000, garbage=0.01), 20_000))
    plain, disturbed = EventWitness(), EventWitness()
    assert list(arrivals(records, Disturbance(), seed=1, observe=plain.observe)) == records
    how = Disturbance(disorder=2 * SECOND, delays=0.01, delay=9 * SECOND, duplicates=0.05)
    found = list(arrivals(records, how, seed=1, observe=disturbed.observe))
    times = [record.arrival for record in found]
    assert times == sorted(times)
    assert {record.payload for record in found} == {record.payload for record in records}
    repeats = len(found) - len(records)
    assert repeats / len(records) == pytest.approx(0.05, rel=0.2)
    first: dict[bytes, int] = {}
    for record in found:
        first.setdefault(record.payload, record.arrival - record.time)
    late = sum(by >= 9 * SECOND for by in first.values()) / len(records)
    assert late == pytest.approx(0.01, rel=0.4)
    assert max(first.values()) < 11 * SECOND
    one, other = plain.truth(), disturbed.truth()
    assert other.duplicates == repeats
    assert one.cases == other.cases
    again = list(arrivals(records, how, seed=1, observe=lambda fact: None))
    assert again == found


def test_copies_are_cases_of_their_own() -> None:
    one, many = EventWitness(), EventWitness()
    for witness, copies in ((one, 1), (many, 5)):
        for record in islice(
            json_events(5, 100, start=START, rate=1e4, copies=copies), 400 * copies
        ):
            witness.observe(record.fact)
    assert len(many.truth().cases) == 5 * len(one.truth().cases)
    assert many.truth().transitions == 2000


def test_cases_that_go_on_move_in_turn_and_never_twice_in_one() -> None:
    drawn = json_events(7, 1, start=START, rate=1e4, copies=1000, again=True)
    found = [orjson.loads(record.payload)["case_id"] for record in islice(drawn, 6500)]

    assert len(set(found[:1000])) == 1000
    for turn in range(1, 6):
        assert found[1000 * turn : 1000 * turn + 1000] == found[:1000]
    assert found[6000:] == found[:500]


def test_a_witness_cares_for_no_order_of_arrival() -> None:
    """Retractions are about the order of time, which `arrivals` keeps for its witness."""
    faults = replace(Faults.none(), phantom=0.05)
    records = sent(1500, faults)
    plain, disturbed = Witness(), Witness()
    for record in records:
        plain.observe(record.fact)
    how = Disturbance(disorder=10 * SECOND)
    found = list(arrivals(records, how, seed=2, observe=disturbed.observe))
    assert [record.key for record in found] != [record.key for record in records]
    assert disturbed.truth() == plain.truth()
    assert plain.truth().retracted > 10


@pytest.mark.parametrize("kind", ["imixs_xml", "json_lines"])
def test_the_pipeline_finds_the_truth(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    witness: Witness | EventWitness
    if kind == "imixs_xml":
        faults = Faults(0.0, phantom=0.03, broken=0.02, profile=0.02, unreadable=0.002)
        how = Disturbance(disorder=3 * SECOND, duplicates=0.03, repeat_within=SECOND)
        witness = xml_witness = Witness()
        records = sent(800, faults)
        for number, record in enumerate(
            arrivals(records, how, seed=1, observe=xml_witness.observe)
        ):
            (source / f"{number:04d}.xml").write_bytes(record.payload)
    else:
        witness = EventWitness()
        # Equal lines of a file are events of their own, so nothing comes twice.
        events = islice(json_events(4, 200, start=START, rate=100, garbage=0.01), 3000)
        found = arrivals(events, Disturbance(disorder=SECOND), seed=1, observe=witness.observe)
        # A line break within garbage would be a line more.
        lines = [record.payload.rstrip() for record in found]
        (source / "events.jsonl").write_bytes(b"\n".join(lines))
    truth = witness.truth()
    truth.save(tmp_path / "truth.json")
    arguments = ["transitions", "--input", str(source / "*"), "--output", str(tmp_path / "out")]
    ends = ["--end_states", ",".join(truth.end_states), "--progress", "off", "--workers", "1"]
    assert main([*arguments, *ends]) == 0
    assert compare.main([str(tmp_path / "out"), str(tmp_path / "truth.json")]) == 0
    assert truth.dead > 5
    assert f"{truth.transitions:,} transitions" in capfd.readouterr().out
