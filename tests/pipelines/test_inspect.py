"""`inspect`: what the first messages are, where columns come from, and why one is a dead letter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import run
from pipelines.inspect import as_json as to_json
from pipelines.inspect import look_at_topic
from pipelines.inspect_screen import show_looks
from pipelines.inspect_seen import deal
from pipelines.options import parse_inspect
from pipelines.screen import Screen
from tests.formats.avro.records import container, step
from tests.formats.messages.builder import cloud_event, zeebe
from tests.formats.ocel.logs import orders
from tests.pipelines.test_foreign_formats import LINES, MAPPING
from tests.services.kafka import KafkaBroker
from tests.services.pubsub import PROJECT, PubSubService
from transforms.formats import json_lines
from transforms.formats.base import Message


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    Path("m.yaml").write_text(MAPPING)
    Path("in.jsonl").write_text("\n".join(LINES))


def inspect(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert run.main(["inspect", *arguments]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(inspect(capsys, "--json", *arguments))["inputs"]
    return found


def origins(found: dict[str, Any]) -> dict[str, tuple[str | None, str]]:
    return {each["column"]: (each["from"], each["how"]) for each in found["mapping"]}


def test_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    text = inspect(capsys, "--input", "in.jsonl", "--mapping", "m.yaml")
    for part in (
        "in.jsonl: json_lines (found by content)",
        "--mapping, 2 values translated, default 'Other'",
        "in.jsonl:0  decoded",
        "case_id=A  event_time=2024-02-01T10:00:00Z  activity=Open",
        "attributes.amount=12.5",
        "BadTime: event_time 'yesterday' is not a time in the form %d.%m.%Y %H:%M",
        '{"kind": "ping"}',
        "showing 4 of 4 messages looked at: 2 decoded, 1 skipped, 1 dead",
    ):
        assert part in text, part
    assert all(len(line) <= 100 for line in text.splitlines())


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = as_json(capsys, "--input", "in.jsonl", "--mapping", "m.yaml")
    assert (found["input"], found["format"], found["detected"]) == ("in.jsonl", "json_lines", True)
    assert origins(found)["case_id"] == ("order.id", "--mapping")
    assert origins(found)["attributes.amount"] == ("order.total", "--mapping, double")
    statuses = [(each["place"], each["status"]) for each in found["messages"]]
    assert [status for _, status in statuses] == ["decoded", "decoded", "skipped", "dead"]
    assert found["messages"][2]["payload"] == LINES[2]
    assert found["messages"][0]["payload"] == LINES[0]
    assert found["messages"][0]["events"][0]["event_time"] == "2024-02-01T10:00:00Z"
    assert found["messages"][3]["dead_letters"][0]["error"] == "BadTime"
    assert found["counts"] == {"decoded": 2, "skipped": 1, "dead": 1, "rejected": 0}
    assert found["warnings"] == ["item amount: not of its type and left out: 1"]
    assert {each["format"] for each in found["messages"]} == {"json_lines"}
    (kind,) = found["formats"]
    assert (kind["format"], kind["messages"]) == ("json_lines", 4)
    assert kind["mapping"] == found["mapping"]


def test_where_columns_of_messages_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    Path("zeebe.jsonl").write_bytes(zeebe())
    Path("ce.jsonl").write_bytes(cloud_event(data={"who": "kim"}))
    given = ("--columns", "actor=ce:userid,activity=who", "--items", "type")
    (found,) = as_json(capsys, "--input", "zeebe.jsonl", *given)
    assert origins(found) == {
        "event_id": ("partitionId-position", "the format, zeebe"),
        "case_id": ("value.processInstanceKey", "the format, zeebe"),
        "event_time": ("timestamp", "the format, zeebe"),
        "activity": ("value.elementId", "the format, zeebe"),
        "lifecycle": ("intent", "the format, zeebe"),
        "workflow_group": ("value.bpmnProcessId", "the format, zeebe"),
        "model_version": ("value.version", "the format, zeebe"),
        "attributes.type": ("type", "--items"),
    }
    (found,) = as_json(capsys, "--input", "ce.jsonl", *given)
    assert origins(found)["event_id"] == ("ce:id", "the format, cloudevents")
    assert origins(found)["activity"] == ("who", "--columns")
    assert origins(found)["actor"] == ("ce:userid", "--columns")
    (event,) = found["messages"][0]["events"]
    assert event["activity"] == "kim"
    assert found["messages"][0]["payload"] == Path("ce.jsonl").read_text()


def test_blank_lines_are_skipped_and_not_missing(capsys: pytest.CaptureFixture[str]) -> None:
    Path("blank.jsonl").write_text("\n\n")
    said = inspect(capsys, "--input", "blank.jsonl")
    assert "showing 2 of 2 messages looked at: 0 decoded, 2 skipped, 0 dead" in said
    assert said.count("(blank)") == 2
    assert "no messages were found" not in said


def test_where_columns_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.csv").write_text("CaseID,Step,When,resource,cost\n1,a,2024-01-01,kim,5\n")
    arguments = ("--columns", "activity=Step", "--items", "cost:double,gone")
    (found,) = as_json(capsys, "--input", "in.csv", *arguments)
    assert found["format"] == "csv"
    assert origins(found) == {
        "event_id": (None, "none: the hash of case, time, activity and place or content"),
        "case_id": ("CaseID", "recognised by its name"),
        "event_time": (None, "not found: --columns event_time=NAME or --mapping"),
        "activity": ("Step", "--columns"),
        "state": (None, "none: the activity"),
        "actor": ("resource", "recognised by its name"),
        "attributes.cost": ("cost", "--items, double"),
        "attributes.gone": (None, "--items: not found"),
    }
    assert found["messages"][0]["dead_letters"] == [
        {
            "error": "MissingTime",
            "message": "no event time; --columns event_time=NAME says where it is",
        }
    ]
    assert "no column for event_time" in found["warnings"][0]


def test_formats_that_know_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    Path("log.jsonocel").write_bytes(orders().as_json())
    Path("steps.avro").write_bytes(container([step(i) for i in range(3)]))
    (found,) = as_json(
        capsys, "--input", "log.jsonocel", "--object_type", "order", "--messages", "9"
    )
    assert origins(found)["activity"] == ("type of the event", "the format, ocel")
    assert [e["case_id"] for m in found["messages"] for e in m["events"]] == [
        "o1",
        "o2",
        "o1",
        "o1",
        "o2",
        "o2",
    ]
    (found,) = as_json(capsys, "--input", "log.jsonocel")
    (message,) = found["messages"]
    assert message["status"] == "dead"
    assert "--object_type says which are cases" in message["dead_letters"][0]["message"]
    (found,) = as_json(capsys, "--input", "steps.avro", "--messages", "2")
    assert origins(found)["case_id"] == ("case_id", "recognised by its name")
    assert len(found["messages"]) == 2


def test_several_files_until_there_are_enough(capsys: pytest.CaptureFixture[str]) -> None:
    Path("many").mkdir()
    for i in range(9):
        Path(f"many/{i}.jsonl").write_text(LINES[0] + "\n")
    found = as_json(capsys, "--input", "many", "--mapping", "m.yaml", "--messages", "3")
    assert [each["input"] for each in found] == [f"many/{i}.jsonl" for i in range(3)]


def test_messages_are_dealt_out_among_formats(capsys: pytest.CaptureFixture[str]) -> None:
    Path("many").mkdir()
    Path("many/a.jsonl").write_text("\n".join(LINES))
    Path("many/b.csv").write_text("CaseID,Activity,Time\n1,a,2024-01-01\n1,b,2024-01-02\n")
    Path("many/b.txt").write_text("Step;Order;When\nx;1;2024-01-01\n")
    Path("many/c.jsonl").write_bytes(zeebe())
    arguments = ("--input", "many", "--mapping", "m.yaml", "--messages")

    def shares(most: int) -> dict[str, int]:
        found = as_json(capsys, *arguments, str(most))
        return {each["input"]: len(each["messages"]) for each in found}

    # Each format has one, though that is more than were asked for; then each mapping.
    assert shares(1) == {"many/a.jsonl": 1, "many/b.csv": 1, "many/c.jsonl": 1}
    assert shares(4) == {**shares(1), "many/b.txt": 1}
    assert shares(6) == {"many/a.jsonl": 2, "many/b.csv": 2, "many/b.txt": 1, "many/c.jsonl": 1}
    assert shares(8) == {**shares(6), "many/a.jsonl": 4}
    formats = [each["format"] for each in as_json(capsys, *arguments, "1")]
    assert formats == ["json_lines", "csv", "zeebe"]


def test_a_format_behind_very_many_files(capsys: pytest.CaptureFixture[str]) -> None:
    Path("many/z").mkdir(parents=True)
    for i in range(300):
        Path(f"many/{i:03}.jsonl").write_text(LINES[0] + "\n")
    Path("many/z/last.jsonl").write_bytes(zeebe())
    found = as_json(capsys, "--input", "many/**", "--mapping", "m.yaml", "--messages", "3")
    assert [each["input"] for each in found] == [
        "many/000.jsonl",
        "many/001.jsonl",
        "many/z/last.jsonl",
    ]


def test_columns_of_files_that_are_alike_are_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    Path("many").mkdir()
    for i in range(3):
        Path(f"many/{i}.jsonl").write_text(LINES[0] + "\n")
    said = inspect(capsys, "--input", "many", "--mapping", "m.yaml")
    assert said.count("order.id") == 1
    assert said.count("columns as in many/0.jsonl") == 2


def test_files_skipped_as_a_whole_are_not_read_to_their_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lines, "BATCH_BYTES", 64 * 1024)
    Path("pings.jsonl").write_text((LINES[2] + "\n") * 30_000)
    arguments = ("--input", "pings.jsonl", "--mapping", "m.yaml", "--messages", "2")
    (found,) = as_json(capsys, *arguments)
    assert [each["status"] for each in found["messages"]] == ["skipped", "skipped"]
    assert 2 < found["counts"]["skipped"] < 20_000


def test_unknown_and_empty_files(capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.bin").write_bytes(b"\x00\x01\x02" * 50)
    (found,) = as_json(capsys, "--input", "x.bin")
    assert found["format"] is None
    assert found["messages"][0]["payload"].startswith("0x000102")
    assert found["messages"][0]["dead_letters"][0]["error"] == "UnknownFormat"
    Path("e.jsonl").touch()
    assert "no messages were found" in inspect(capsys, "--input", "e.jsonl")
    assert "no known format" in inspect(capsys, "--input", "x.bin")


def test_masks_apply(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "0123456789abcdef")
    Path("A.jsonl").write_text("\n".join(LINES).replace('"A"', '"SECRET"'))
    arguments = ("--mask", "case_id,amount", "--mask_key", "env:KEY", "--mapping", "m.yaml")
    for extra in ((), ("--json",)):
        text = inspect(capsys, "--input", "A.jsonl", *arguments, *extra)
        assert "SECRET" not in text
        assert "12.5" not in text
        assert "A.jsonl" not in text
        assert "yesterday" not in text
        assert "withheld because of --mask" in text
        assert "activity" in text


def test_a_pipeline_s_command_can_be_tried_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--input", "in.jsonl", "--mapping", "m.yaml", "--output", "out", "--shards", "2")
    assert "decoded" in inspect(capsys, *arguments, "--runner", "FlinkRunner")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "--input is missing"),
        (("--input", "in.jsonl", "--messages", "0"), 2, "give a number from 1 to 1000"),
        (("--input", "in.jsonl", "--mesages", "3"), 2, "did you mean '--messages'"),
        (("--input", "in.jsonl", "--format", "nonsense"), 2, "is not a format"),
        (("--input", "gone.jsonl"), 4, "no file matches --input 'gone.jsonl'"),
        (("--input", "kafka://127.0.0.1:9/x"), 4, "no Kafka broker answers"),
    ],
)
def test_mistakes(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    assert said in inspect(capsys, *arguments, code=code)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    text = inspect(capsys, "--help")
    assert "--messages N" in text
    assert "--schema_registry URL" in text
    assert run.main(["--help"]) == 0
    assert "inspect" in capsys.readouterr().out


def test_messages_of_a_topic() -> None:
    settings = parse_inspect(["--input", "kafka://localhost/t", "--mapping", "m.yaml"])[0]
    now = 1_706_782_000_000_000
    payloads = [*(line.encode() for line in LINES), LINES[0].replace("2024", "2034").encode(), b""]
    messages = [
        Message(payload, "t/0", i, {"h": str(i)}, now) for i, payload in enumerate(payloads)
    ]
    found = look_at_topic("t", messages, settings, 6)
    assert found.format == "json_lines"
    assert [seen.status for seen in found.messages] == [
        "decoded",
        "decoded",
        "skipped",
        "dead",
        "dead",
        "skipped",
    ]
    assert found.messages[4].reasons[0][0] == "FutureEvent"
    assert found.messages[1].attributes == {"h": "1"}
    assert found.counts == {"decoded": 3, "skipped": 2, "dead": 1, "rejected": 1}
    unknown = look_at_topic("t", [Message(b"plain words", "t/0", 0, {}, now)], settings, 5)
    assert unknown.messages[0].reasons[0][0] == "UnknownFormat"


def topic_of(payloads: list[bytes]) -> list[Message]:
    return [Message(each, "t/0", i, {}, 1_706_782_000_000_000) for i, each in enumerate(payloads)]


def test_a_topic_of_several_formats() -> None:
    settings = parse_inspect(["--input", "kafka://localhost/t", "--mapping", "m.yaml"])[0]
    line = LINES[0].encode()
    messages = topic_of([line] * 20 + [b"plain words", zeebe(), cloud_event(), line, zeebe(), b""])
    found = look_at_topic("t", messages, settings, 5)
    assert [(kind.format, kind.messages) for kind in found.kinds] == [
        ("json_lines", 22),
        ("zeebe", 2),
        ("cloudevents", 1),
    ]
    sources = {kind.format: {o.column: o.source for o in kind.origins} for kind in found.kinds}
    assert sources["json_lines"]["case_id"] == "order.id"
    assert sources["zeebe"]["activity"] == "value.elementId"
    assert sources["cloudevents"]["event_id"] == "ce:id"
    shown = [(seen.place, seen.format) for seen in found.messages]
    # One of each before the second of any, in the order of the topic.
    assert shown == [
        ("t/0/0", "json_lines"),
        ("t/0/1", "json_lines"),
        ("t/0/21", "zeebe"),
        ("t/0/22", "cloudevents"),
        ("t/0/24", "zeebe"),
    ]
    assert found.looked_at == len(messages)
    few = look_at_topic("t", messages, settings, 1)
    assert [seen.format for seen in few.messages] == ["json_lines", "zeebe", "cloudevents"]
    (given,) = json.loads(to_json([found]))["inputs"]
    assert given["format"] == "json_lines"
    assert given["mapping"] == given["formats"][0]["mapping"]
    assert [each["format"] for each in given["messages"]] == [name for _, name in shown]


def test_a_topic_of_several_formats_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    settings = parse_inspect(["--input", "kafka://localhost/t"])[0]
    line = b'{"case_id": "A", "activity": "a", "time": "2024-01-01"}'
    messages = topic_of([line, zeebe(), zeebe(valueType="JOB"), line])
    show_looks(Screen(), [look_at_topic("t", messages, settings, 5)])
    said = capsys.readouterr().out
    for part in (
        "t: 2 formats (found by content): json_lines, zeebe",
        "json_lines: 2 messages",
        "zeebe: 2 messages",
        "recognised by its name",
        "value.elementId",
        "t/0/0  decoded  json_lines",
        "t/0/1  decoded  zeebe",
        "t/0/2  skipped  zeebe",
        "t/0/3  decoded  json_lines",
        "showing 4 of 4 messages looked at: 3 decoded, 1 skipped, 0 dead",
    ):
        assert part in said, part


def test_a_topic_of_no_known_format() -> None:
    settings = parse_inspect(["--input", "kafka://localhost/t"])[0]
    found = look_at_topic("t", topic_of([b"plain words", b"other words"]), settings, 1)
    assert [(kind.format, kind.messages) for kind in found.kinds] == [("", 2)]
    assert found.format == ""
    assert json.loads(to_json([found]))["inputs"][0]["messages"][0]["format"] is None


def test_dealing() -> None:
    assert deal({"a": 9, "b": 9}, 5) == {"a": 3, "b": 2}
    assert deal({"a": 1, "b": 9}, 5) == {"a": 1, "b": 4}
    assert deal({"a": 2, "b": 1}, 5) == {"a": 2, "b": 1}
    assert deal({"a": 9, "b": 9, "c": 9}, 1, ["a", "c"]) == {"a": 1, "c": 1}
    assert deal({"a": 9, "b": 9, "c": 9}, 4, ["c"]) == {"a": 2, "b": 1, "c": 1}
    assert deal({"a": 0}, 3, ["a"]) == {"a": 0}


def test_a_topic_is_not_consumed(kafka: KafkaBroker, capsys: pytest.CaptureFixture[str]) -> None:
    from confluent_kafka import Consumer, Producer, TopicPartition  # noqa: PLC0415

    kafka.create_topic("inspected", 1)
    producer = Producer({"bootstrap.servers": kafka.address})
    for line in LINES * 5:
        producer.produce("inspected", line.encode(), headers={"engine": "x"})
    producer.flush()
    uri = f"kafka://{kafka.address}/inspected?group=mine"
    (found,) = as_json(capsys, "--input", uri, "--mapping", "m.yaml", "--messages", "4")
    assert (found["input"], found["format"]) == ("inspected", "json_lines")
    assert [each["place"] for each in found["messages"]] == [f"inspected/0/{i}" for i in range(4)]
    assert found["messages"][0]["attributes"] == {"engine": "x"}
    assert [each["status"] for each in found["messages"]] == [
        "decoded",
        "decoded",
        "skipped",
        "dead",
    ]
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": "mine"})
    committed = consumer.committed([TopicPartition("inspected", 0)], timeout=10)
    consumer.close()
    assert committed[0].offset < 0


def test_a_subscription_is_not_consumed(
    pubsub: PubSubService, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in pubsub.environment().items():
        monkeypatch.setenv(name, value)
    pubsub.create_topic("inspected", ["inspected-sub"])
    pubsub.publish("inspected", [line.encode() for line in LINES])
    uri = f"pubsub://{PROJECT}/inspected-sub"
    (found,) = as_json(capsys, "--input", uri, "--mapping", "m.yaml", "--messages", "4")
    assert found["format"] == "json_lines"
    statuses = sorted(each["status"] for each in found["messages"])
    assert statuses == ["dead", "decoded", "decoded", "skipped"]
    # They are there still.
    assert len(pubsub.take("inspected-sub", 4)) == 4
