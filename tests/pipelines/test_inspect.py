"""`inspect`: what the first messages are, where columns come from, and why one is a dead letter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import run
from pipelines.inspect import look_at_topic
from pipelines.options import parse_inspect
from tests.formats.avro.records import container, step
from tests.formats.messages.builder import cloud_event, zeebe
from tests.formats.ocel.logs import orders
from tests.pipelines.test_foreign_formats import LINES, MAPPING
from tests.services.kafka import KafkaBroker
from tests.services.pubsub import PROJECT, PubSubService
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
        "2 decoded, 1 skipped, 1 dead of the 4 messages looked at",
    ):
        assert part in text, part
    assert all(len(line) <= 100 for line in text.splitlines())


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = as_json(capsys, "--input", "in.jsonl", "--mapping", "m.yaml")
    assert (found["input"], found["format"], found["detected"]) == ("in.jsonl", "json_lines", True)
    assert origins(found)["case_id"] == ("order.id", "--mapping")
    assert origins(found)["attributes.amount"] == ("order.total", "--mapping, double")
    statuses = [(each["place"], each["status"]) for each in found["messages"]]
    assert [status for _, status in statuses] == ["decoded", "decoded", "dead"]
    assert found["messages"][0]["payload"] == LINES[0]
    assert found["messages"][0]["events"][0]["event_time"] == "2024-02-01T10:00:00Z"
    assert found["messages"][2]["dead_letters"][0]["error"] == "BadTime"
    assert found["counts"] == {"decoded": 2, "skipped": 1, "dead": 1, "rejected": 0}
    assert found["warnings"] == ["item amount: not of its type and left out: 1"]


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


def test_of_a_list_there_is_no_line_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    Path("list.json").write_bytes(b"[" + zeebe() + b",\n" + zeebe() + b"]")
    (found,) = as_json(capsys, "--input", "list.json")
    assert [each["payload"] for each in found["messages"]] == [None, None]


def test_blank_lines_are_skipped_and_not_missing(capsys: pytest.CaptureFixture[str]) -> None:
    Path("blank.jsonl").write_text("\n\n")
    said = inspect(capsys, "--input", "blank.jsonl")
    assert "2 skipped" in said
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
    (found,) = as_json(capsys, "--input", "log.jsonocel", "--object_type", "order")
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
    unknown = look_at_topic("t", [Message(b"plain words", "t/0", 0, {}, now)], settings, 5)
    assert unknown.messages[0].reasons[0][0] == "UnknownFormat"


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
