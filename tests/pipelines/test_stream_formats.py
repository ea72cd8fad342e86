"""One topic with messages of several formats, on a real broker: each is read as what it is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from confluent_kafka import Producer

from tests.formats.imixs_builder import log_line, snapshot, xml_document
from tests.formats.messages.builder import cloud_event, headers, zeebe
from tests.pipelines import streams
from tests.services.kafka import KafkaBroker

Sent = tuple[bytes | None, list[tuple[str, str | bytes | None]]]
NOT_UTF_8: tuple[str, str | bytes | None] = ("trace", b"\xff\xfe")
ROUNDS = 150


def messages(number: int) -> list[Sent]:
    """Return a message of each kind."""
    binary: list[tuple[str, str | bytes | None]] = [
        (name, value.encode()) for name, value in headers(id=f"b{number}").items()
    ]
    document = xml_document(snapshot(_uniqueid=f"u{number}", _eventlog=[log_line(1, 1, 2, 3)]))
    return [
        (zeebe({"processInstanceKey": number}, position=number), []),
        (zeebe(valueType="JOB"), []),
        (cloud_event(id=f"s{number}", data={"case_id": f"c{number}"}), [NOT_UTF_8]),
        (b'{"case_id": "b%d"}' % number, [*binary, NOT_UTF_8]),
        (document, []),
        (b'{"Case ID": "j%d", "activity": "go", "timestamp": 1700000000}' % number, []),
        (None, []),
        (b"garbage", []),
        (cloud_event(specversion="7"), []),
    ]


def test_a_topic_of_several_formats(kafka: KafkaBroker, tmp_path: Path) -> None:
    """The first messages are of Zeebe and binary CloudEvents; the others turn up later."""
    name, prefix = streams.new_name("formats"), streams.new_name("out") + "-"
    kafka.create_topic(name, 1)
    producer = Producer({"bootstrap.servers": kafka.address})
    first: list[Sent] = [
        (zeebe({"processInstanceKey": -1}, position=10_000 + i), []) for i in range(250)
    ]
    sent: list[Sent] = [*first, *(each for i in range(ROUNDS) for each in messages(i))]
    for payload, given in sent:
        producer.produce(name, payload, headers=given)
    producer.flush()
    with streams.running(
        tmp_path,
        *("--input", f"kafka://{kafka.address}/{name}?start=earliest"),
        *("--output", f"kafka://{kafka.address}/{prefix}"),
        *("--disorder", "0s"),
    ) as job:
        job.wait_until(
            lambda: (
                streams.counts(kafka, [f"{prefix}dead_letters"]) == 2 * ROUNDS
                and streams.counts(kafka, [f"{prefix}transitions"]) == 250 + 5 * ROUNDS
            )
        )
        ended = job.stop()
    laws = ended.laws()
    assert ended.code == 0
    assert f"topic {name}: zeebe" in ended.err
    decoded = 250 + 5 * ROUNDS
    assert laws["messages"] == {
        "in": len(sent),
        "decoded": decoded,
        "skipped": 2 * ROUNDS,
        "dead": 2 * ROUNDS,
    }
    assert laws["events"]["transitions"] == decoded
    cases = Counter(row["case_id"][:1] for row in streams.rows(kafka, f"{prefix}cases"))
    assert {each: cases[each] >= ROUNDS for each in "cbuj"} == dict.fromkeys("cbuj", True)
    letters = streams.rows(kafka, f"{prefix}dead_letters")
    assert Counter(row["error"] for row in letters) == {
        "InvalidJson": ROUNDS,
        "UnsupportedSpecVersion": ROUNDS,
    }
    offsets = [int(row["source"].rpartition("/")[2]) for row in letters]
    assert all(sent[at][0] in (b"garbage", cloud_event(specversion="7")) for at in offsets)
