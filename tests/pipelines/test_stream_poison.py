"""Poison among good messages, and dead letters read back from their topic."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer

from examples.simulator.scenario import Faults
from examples.simulator.stream import Disturbance, Record
from tests.formats.imixs_builder import log_line, snapshot, xml_document
from tests.pipelines import streams
from tests.services.kafka import KafkaBroker
from transforms.kafka import KafkaAddress

SECOND = 1_000_000
PAST = 1_704_096_000 * SECOND
CLEAN = Faults(
    **{name: 0.0 for name in ("duplicate", "empty", "missing", "old_log", "broken", "profile")},
    unreadable=0.0,
)
MB = 1_000_000


def event(**fields: Any) -> bytes:
    given = {"case_id": "x", "event_time": "2024-01-01T08:00:00Z", "activity": "10"}
    return orjson.dumps({**given, **fields})


def nested(text: str, depth: int = 100_000) -> bytes:
    """Return an event with a value that is nested so deeply."""
    opened, closed = text.split()
    value = (opened * depth + "1" + closed * depth).encode()
    return event()[:-1] + b',"z":' + value + b"}"


BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE document [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;">'
    b'<!ENTITY c "&b;&b;&b;&b;&b;&b;">]><document><item name="$uniqueid"><value>&c;</value>'
    b"</item></document>"
)
GOOD_XML = xml_document(snapshot(_lasteventdate="2024-01-01T08:00:00.000", _taskid="1"))
SKIPPED = (None, b"", b"  \r\n")
JSON: list[tuple[bytes, set[str]]] = [
    (random.Random(1).randbytes(300), {"InvalidJson", "InvalidEncoding"}),
    (b"\0", {"InvalidJson"}),
    (b"x" * (5 * MB), {"InvalidJson"}),
    (event(z="x" * (5 * MB))[:-1], {"InvalidJson"}),
    # It can be decoded. But no topic would take its row: the stream would stop there for ever.
    (event(case_id="x" * (9 * MB)), {"TooLarge"}),
    (b'{"case_id":"c\xff\xfe","activity":"1","event_time":1704096000}', {"InvalidEncoding"}),
    (b'{"case_id":"\\ud800","activity":"1","event_time":1704096000}', {"InvalidJson"}),
    (b"[" * 100_000, {"InvalidJson"}),
    (nested("[ ]"), {"InvalidJson"}),
    (nested('{"a": }'), {"InvalidJson"}),
    (event() + event(), {"InvalidJson"}),
    (b"[" + event()[:-1] + b"]", {"InvalidJson"}),
    (b"[1, 2]", {"InvalidJson"}),
    (event(event_time="soon"), {"BadTime"}),
    (event(event_time="2200-01-01T00:00:00Z"), {"FutureEvent"}),
    (event(event_time=-(2**63)), {"BadTime"}),
    (event(case_id=None), {"MissingCaseId"}),
    (BOMB, {"ForbiddenDtd"}),
]
XML: list[tuple[bytes, set[str]]] = [
    (random.Random(2).randbytes(300), {"InvalidXml"}),
    (b"\0" * 100, {"InvalidXml"}),
    (GOOD_XML[:-20], {"InvalidXml"}),
    (GOOD_XML.replace(b"lena", b"l\xe9na"), {"InvalidXml"}),
    # The encodings that are declared are none of text, none at all, or not that of the bytes.
    *(
        (GOOD_XML.replace(b"UTF-8", name), {"InvalidXml"})
        for name in (b"base64", b"idna", b"undefined", b"hex", b"no-such", b"utf-32")
    ),
    (BOMB, {"ForbiddenDtd"}),
    (b'<!DOCTYPE document SYSTEM "file:///etc/passwd"><document/>', {"ForbiddenDtd"}),
    (b"<document><item name='x'>" + b"<value>" * 100_000, {"InvalidXml"}),
    (b"<data>" * 10_000, {"InvalidXml"}),
    (GOOD_XML.replace(b"2024-01-01T08", b"x" * (5 * MB)), {"BadTime"}),
    (GOOD_XML.replace(b"2024-01-01T08", b"2200-01-01T08"), {"FutureEvent"}),
    (GOOD_XML.replace(b"$uniqueid", b"$id"), {"MissingCaseId"}),
]
HEADERS: list[tuple[str, str | bytes | None]] = [
    ("h", b"\x01" * (3 * MB)),
    ("format", b"csv"),
    ("no text", b"\xff\xfe"),
    ("none", None),
]


def send(
    broker: KafkaBroker,
    topic: str,
    records: Iterable[Record[Any]],
    poison: Iterable[tuple[bytes | None, set[str]]],
) -> dict[str, tuple[bytes, set[str]]]:
    """Send records with poison among them; return the dead: place -> bytes, possible errors."""
    producer = Producer(
        {"bootstrap.servers": broker.address, "message.max.bytes": 20 * MB, "log_level": 0}
    )
    left, offset = list(poison), 0
    dead: dict[str, tuple[bytes, set[str]]] = {}
    for number, record in enumerate(records):
        stamp = record.arrival // 1000
        if number % 5 == 4 and left:
            payload, errors = left.pop(0)
            # Poison has no key, and the first of it has headers.
            headers = None if dead else HEADERS
            producer.produce(topic, payload, timestamp=stamp, headers=headers)
            if errors and payload is not None:
                dead[f"{topic}/0/{offset}"] = (payload, errors)
            offset += 1
        producer.produce(topic, record.payload, record.key, timestamp=stamp)
        offset += 1
    assert not left
    assert producer.flush(60) == 0
    return dead


@pytest.mark.parametrize("engine", ["FnApiRunner", "PrismRunner"])
def test_no_poison_stops_a_stream(
    kafka: KafkaBroker, request: pytest.FixtureRequest, tmp_path: Path, engine: str
) -> None:
    """Each is a dead letter with topic, partition, offset; what is good comes out whole."""
    name = streams.new_name("poison")
    prefix = f"{name}-out-"
    events = streams.json_messages(200, Disturbance(), seed=9, start=PAST)
    documents = streams.imixs_messages(200, Disturbance(), CLEAN, seed=10, start=PAST)
    dead: dict[str, tuple[bytes, set[str]]] = {}
    blank = [(each, set[str]()) for each in SKIPPED]
    for topic, sent, poison in (
        (f"{name}-json", events, [*JSON, *blank]),
        (f"{name}-xml", documents, [*XML, *blank]),
    ):
        kafka.create_topic(topic, 1, max_message_bytes=str(20 * MB))
        dead |= send(kafka, topic, sent.records, poison)
    both = streams.together(events.truth, documents.truth)
    refused = sum("FutureEvent" in errors or "TooLarge" in errors for _, errors in dead.values())
    arguments = ["--runner", engine, "--end_states", ",".join(both.end_states)]
    if engine == "PrismRunner":
        arguments += ["--prism_location", request.getfixturevalue("prism")]
    topics = f"{name}-json,{name}-xml"
    with streams.running(
        tmp_path,
        *("--input", f"kafka://{kafka.address}/{topics}?start=earliest", *arguments),
        *("--output", f"kafka://{kafka.address}/{prefix}?partitions=2"),
    ) as job:
        made = [f"{prefix}transitions"]
        job.wait_until(lambda: streams.counts(kafka, made) >= both.transitions, 120)
        ended = job.stop()
    assert "Traceback" not in ended.err
    letters = {row["source"]: row for row in streams.rows(kafka, f"{prefix}dead_letters")}
    assert set(letters) == set(dead)
    for place, (payload, errors) in dead.items():
        letter = letters[place]
        assert letter["error"] in errors, (payload[:80], letter["error"], letter["message"])
        # Of a collection, what can't be cut into documents.
        left = payload.removeprefix(b"<data>")
        assert base64.b64decode(letter["payload"]) == left[: 64 * 1024]
        assert letter["payload_size"] == len(left)
        assert len(letter["message"]) <= 500
        assert letter["time"] is not None
        in_json = "-json/" in place and payload != BOMB
        assert letter["attributes"]["format"] == ("json_lines" if in_json else "imixs_xml")
    first = letters[f"{name}-json/0/4"]["attributes"]
    assert first["none"] == ""
    assert set(first["h"]) == {"\x01"}
    assert len(first["h"]) > 1_000_000 - 100

    laws = ended.laws()
    skipped = both.skipped + 2 * len(SKIPPED)
    assert laws["messages"] == {
        "in": both.messages + len(dead) + 2 * len(SKIPPED),
        "decoded": both.decoded + refused,
        "skipped": skipped,
        "dead": both.dead + len(dead) - refused,
    }
    assert (laws["events"]["transitions"], laws["events"]["rejected"]) == (
        both.transitions,
        both.rejected + refused,
    )
    assert streams.differences(kafka, prefix, both, tmp_path / "tables") == []


def holds(kafka: KafkaBroker, topic: str, messages: int) -> Callable[[], bool]:
    """Return what says whether a topic holds so many messages."""
    return lambda: streams.counts(kafka, [topic]) >= messages


def reading_again(kafka: KafkaBroker, prefix: str, to: str) -> list[str]:
    """Return the arguments of a stream that reads dead letters where another wrote them."""
    return [
        *("--input", f"kafka://{kafka.address}/{prefix}dead_letters?start=earliest&group={to}"),
        *("--output", f"kafka://{kafka.address}/{to}", "--disorder", "0s"),
    ]


def test_dead_letters_are_read_from_their_topic(kafka: KafkaBroker, tmp_path: Path) -> None:
    """A column had a name that was not given: given, each letter is its event, as it was."""
    name = streams.new_name("mended")
    prefix, other, direct = f"{name}-out-", f"{name}-again-", f"{name}-direct-"
    kafka.create_topic(name, 2)
    start = time.time_ns() // 1000 - 10 * SECOND
    sent = streams.json_messages(200, Disturbance(), seed=11, start=start)
    # The case is where nobody would look for it.
    records = [
        record._replace(payload=record.payload.replace(b'"case_id"', b'"akte"'))
        for record in sent.records
    ]
    broken = records[50]._replace(payload=b'{"akte": "c", ')
    streams.send(kafka, [*records, broken], lambda _: name)
    end = ("--end_states", ",".join(sent.truth.end_states))
    source = f"kafka://{kafka.address}/{name}?start=earliest&group="
    with streams.running(
        tmp_path,
        *("--input", f"{source}{name}", *end, "--timezone", "Europe/Berlin"),
        *("--output", f"kafka://{kafka.address}/{prefix}", "--disorder", "0s"),
    ) as job:
        letters = [f"{prefix}dead_letters"]
        job.wait_until(lambda: streams.counts(kafka, letters) == len(records) + 1)
        ended = job.stop()
        assert ended.laws()["messages"]["dead"] == len(records) + 1
    mend = ("--columns", "case_id=akte")
    for formats in ((), ("--format", "dead_letters")):
        to = f"{other}{len(formats)}-"
        with streams.running(
            tmp_path, *reading_again(kafka, prefix, to), *mend, *formats, *end
        ) as job:
            job.wait_until(holds(kafka, f"{to}transitions", sent.truth.transitions))
            ended = job.stop()
        truth = replace(sent.truth, messages=len(records) + 1, dead=1)
        assert (ended.code, ended.laws()) == (0, streams.law_of(truth))
        assert streams.differences(kafka, to, sent.truth, tmp_path / f"tables{len(formats)}") == []
    with streams.running(
        tmp_path,
        *("--input", f"{source}{direct}", *mend, *end, "--timezone", "Europe/Berlin"),
        *("--output", f"kafka://{kafka.address}/{direct}", "--disorder", "0s"),
    ) as job:
        job.wait_until(holds(kafka, f"{direct}transitions", sent.truth.transitions))
        job.stop()
    # A letter has the place and the record time of its message: so its rows have their ids.
    assert streams.keyed(streams.rows(kafka, f"{other}0-transitions")) == streams.keyed(
        streams.rows(kafka, f"{direct}transitions")
    )
    # What fails again is a letter of the same message, which a third run may read.
    (dead,) = streams.rows(kafka, f"{other}0-dead_letters")
    (first,) = [row for row in streams.rows(kafka, letters[0]) if row["payload"] == dead["payload"]]
    assert {**dead, "attributes": 0} == {**first, "attributes": 0}
    assert dead["attributes"]["timezone"] == first["attributes"]["timezone"] == "Europe/Berlin"


def test_letters_of_documents_hold_no_files_and_are_read_again(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    """An engine's clock was ahead; its documents have files, which no dead letter may hold."""
    name = streams.new_name("files")
    prefix, other, third = f"{name}-out-", f"{name}-again-", f"{name}-third-"
    kafka.create_topic(name, 1)
    producer = Producer({"bootstrap.servers": kafka.address, "log_level": 0})
    secret = base64.b64encode(b"secret" * 40_000)
    file = b'<item name="$file"><value><item name="a.pdf"><value>' + secret
    file += b"</value></item></value></item></document>"
    for number in range(5):
        log = [log_line(minute, 1000, 10, 1100) for minute in range(3)]
        items = snapshot(_uniqueid=f"case-{number}", _eventlog=log)
        payload = xml_document(items).replace(b"</document>", file)
        # The last event of three is two minutes ahead.
        producer.produce(name, payload, timestamp=1_724_709_620_469)
    # This one is cut short within its file.
    producer.produce(name, payload[:-1000], timestamp=1_724_709_620_469)
    assert producer.flush(30) == 0

    def letters_of(source: str, to: str, max_future: str) -> list[streams.Row]:
        output = ["--output", f"kafka://{kafka.address}/{to}", "--disorder", "0s"]
        arguments = [*("--input", source, "--max_future", max_future), *output]
        with streams.running(tmp_path, *arguments) as job:
            group = KafkaAddress.parse(source)
            job.wait_until(lambda: streams.committed(kafka, group.group, group.topics))
            job.stop().laws()
        return sorted(streams.rows(kafka, f"{to}dead_letters"), key=lambda row: row["source"])

    def source(topic: str, group: str) -> str:
        return f"kafka://{kafka.address}/{topic}?start=earliest&group={group}"

    letters = letters_of(source(name, name), prefix, "90s")
    assert [(row["source"], row["error"]) for row in letters] == [
        *((f"{name}/0/{offset}", "FutureEvent") for offset in range(5)),
        (f"{name}/0/5", "InvalidXml"),
    ]
    for row in letters:
        kept = base64.b64decode(row["payload"])
        assert b'<item name="$file">' in kept
        assert secret[:40] not in kept
        assert row["attributes"] == {"format": "imixs_xml"}
        assert row["time"] == "2024-08-26T22:00:20.469000Z"

    def without_reason(rows: list[streams.Row]) -> list[streams.Row]:
        # Without the file, the document breaks off at another place.
        return [{**row, "row_id": "", "message": ""} for row in rows]

    # Read again too early, they are the letters that they were.
    again = letters_of(source(f"{prefix}dead_letters", third), third, "90s")
    assert again[:-1] == letters[:-1]
    assert without_reason(again) == without_reason(letters)
    left = letters_of(source(f"{prefix}dead_letters", other), other, "1d")
    assert without_reason(left) == without_reason(letters[-1:])
    rows = [row for to in (prefix, other) for row in streams.rows(kafka, f"{to}transitions")]
    assert len(rows) == 5 * (2 + 3)
    found = sorted((row["case_id"], row["sequence"]) for row in streams.once(rows))
    assert found == [(f"case-{number}", at) for number in range(5) for at in range(3)]
