"""Messages are published in requests that the service takes; what it does not take is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import run
from examples import publish
from tests.services.pubsub import PROJECT, PubSubService


def test_large_messages_go_in_requests_of_their_own(
    pubsub: PubSubService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Together they are more than a request may have."""
    files = [tmp_path / f"{number}.xml" for number in range(4)]
    for number, file in enumerate(files):
        file.write_bytes(b"%d" % number * 1_000_000)
    lines = tmp_path / "events.jsonl"
    lines.write_bytes(b'{"a": 1}\n\n' * 1_500)
    with pubsub.found():
        topic = f"pubsub://{PROJECT}/published"
        assert publish.main([topic, "--create", *map(str, [*files, lines])]) == 0
        taken = pubsub.take("published", 1_504)
    assert "1,504 messages published" in capsys.readouterr().out
    large = sorted(each.data for each in taken if len(each.data) > 100)
    assert large == [file.read_bytes() for file in files]
    assert len(taken) == 1_504


def test_what_the_service_does_not_take_is_said_at_once(
    pubsub: PubSubService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (large := tmp_path / "large.xml").write_bytes(b"x" * 5_000_000)
    (small := tmp_path / "small.xml").write_bytes(b"x")
    with pubsub.found():
        assert publish.main([f"pubsub://{PROJECT}/refused", "--create", str(large)]) == 1
        assert publish.main([f"pubsub://{PROJECT}/nowhere", str(small)]) == 1
    said = capsys.readouterr().err
    assert "larger than max" in said
    assert "topics/nowhere does not exist; --create makes it" in said


EVENTS = """
{"attributes": {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/shop", "ce-type": "Paid",\
 "ce-subject": "order-1", "ce-time": "2024-08-27T10:00:00Z"}, "data": {"amount": 12.5}}

{"attributes": {"number": 7}, "data": "text"}
{"attributes": {"alone": "x"}}
"""


def test_lines_with_attributes(
    pubsub: PubSubService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first is an event in binary mode, which a stream reads as one."""
    (lines := tmp_path / "binary.jsonl").write_text(EVENTS)
    topic = f"pubsub://{PROJECT}/attributed"
    with pubsub.found():
        assert publish.main([topic, "--create", "--attributes", str(lines)]) == 0
        assert run.main(["inspect", "--input", topic, "--json"]) == 0
        taken = pubsub.take("attributed", 3)
    said = capsys.readouterr().out
    assert "3 messages published" in said
    found = {each.data: dict(each.attributes) for each in taken}
    assert found.keys() == {b'{"amount": 12.5}', b"text", b""}
    assert (found[b"text"], found[b""]) == ({"number": "7"}, {"alone": "x"})
    looked = json.loads(said[said.index("{") :])["inputs"][0]["messages"]
    [event] = [each["events"][0] for each in looked if each["status"] == "decoded"]
    assert (event["case_id"], event["activity"]) == ("/shop order-1", "Paid")


@pytest.mark.parametrize("line", ["{", "[]", "7", '{"data": 1}', '{"attributes": 7}', '"a"'])
def test_a_line_without_attributes_is_named(
    pubsub: PubSubService, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    (lines := tmp_path / "bad.jsonl").write_text(f"\n{line}\n")
    with pubsub.found():
        topic = f"pubsub://{PROJECT}/bad-lines"
        assert publish.main([topic, "--create", "--attributes", str(lines)]) == 2
    assert f"{lines}:2 is no " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "ab", "goog-1"])
def test_a_name_that_no_subscription_can_have_is_not_made(
    capsys: pytest.CaptureFixture[str], name: str, tmp_path: Path
) -> None:
    assert publish.main([f"pubsub://{PROJECT}/{name}", "--create", str(tmp_path)]) == 2
    assert "error: " in capsys.readouterr().err
