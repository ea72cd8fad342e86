"""What a stream found of its topics, kept in its folder for the next start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import run
from pipelines.exit_codes import RunError
from pipelines.settings import Settings
from pipelines.topic_memory import TOPICS, cut_before, recall, remember
from tests.formats.messages.builder import zeebe
from transforms.formats.base import Message
from transforms.formats.mapping.document import read_mapping
from transforms.topics import plan_topic
from transforms.windows import windowing

JSON = b'{"case_id": "a", "activity": "b", "timestamp": "2024-01-01", "event_id": "E1"}'
OTHER = b'{"case": "a", "what": "b", "timestamp": "2024-01-01"}'


def settings(folder: Path) -> Settings:
    return Settings("transitions", (), str(folder), 0)


def plan_of(payloads: list[bytes], given: Settings) -> object:
    messages = [Message(payload, "t/0", i) for i, payload in enumerate(payloads)]
    return plan_topic(messages, given.format, given.context())[0]


def test_plans_come_back_as_they_were(tmp_path: Path) -> None:
    given = replace(settings(tmp_path), items=("amount",), timezone="Europe/Berlin")
    mixed = plan_topic(
        [Message(p, "t/0", i) for i, p in enumerate([JSON, zeebe(), zeebe()])],
        "auto",
        given.context(),
    )[0]
    assert mixed is not None and mixed.others["json_lines"].columns["event_id"] == "event_id"
    plans = {"one": mixed, "two": None}
    assert recall(given) == {}
    remember(given, plans)
    assert recall(given) == plans
    # Settings that do not say which column is which are those of now.
    later = replace(given, timezone="UTC")
    found = recall(later)["one"]
    assert found is not None and found.others["json_lines"].timezone == "UTC"


def test_topics_are_added(tmp_path: Path) -> None:
    given = settings(tmp_path)
    remember(given, {"one": None})
    remember(given, {"two": None})
    assert recall(given) == {"one": None, "two": None}


def test_windows_of_a_folder_are_remembered(tmp_path: Path) -> None:
    given = settings(tmp_path)
    remember(given, {"one": None})
    assert cut_before(given) == ""
    hours = replace(given, window=windowing("fixed:1h"))
    remember(hours, {"one": None})
    assert cut_before(hours) == "fixed:1h"
    assert recall(hours) == {"one": None}
    # A backfill has replaced the tables since.
    (tmp_path / "_run.json").write_text('{"window": "fixed:1d"}')
    assert cut_before(hours) == "fixed:1d"
    (tmp_path / "_run.json").write_text("{")
    assert cut_before(hours) == "fixed:1h"


def test_other_windows_than_those_of_a_folder_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "_run.json").write_text('{"window": "fixed:1m"}')
    words = ["analytics", "--input", "kafka://127.0.0.1:9/orders", "--output", str(tmp_path)]
    assert run.main([*words, "--window", "fixed:1h"]) == 2
    said = capsys.readouterr().err
    assert "has windows of fixed:1m, and --window is fixed:1h" in said
    assert "give --window fixed:1m, or another folder" in said


def test_what_is_told_otherwise_is_found_anew(tmp_path: Path) -> None:
    given = settings(tmp_path)
    remember(given, {"one": None})
    mapping = read_mapping(b"columns: {activity: what}", "m.yaml")
    others = [
        replace(given, columns=(("activity", "what"),)),
        replace(given, format="json_lines"),
        replace(given, mapping=mapping),
        replace(given, output=str(tmp_path / "other")),
        replace(given, output=""),
    ]
    assert [recall(each) for each in others] == [{}] * len(others)
    remember(others[0], {"two": None})
    assert recall(others[0]) == {"two": None}
    assert recall(given) == {}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'{"topics": {}}',
        b'{"settings": {"columns": {}, "format": "auto", "mapping": null}}',
        b'{"settings": {"columns": {}, "format": "auto", "mapping": null}, "topics": {"t": 1}}',
        b'{"settings": {"columns": {}, "format": "auto", "mapping": null},'
        b' "topics": {"t": {"each": true, "formats": []}}}',
        b'{"settings": {"columns": {}, "format": "auto", "mapping": null},'
        b' "topics": {"t": {"each": true, "formats":'
        b' [{"format": "gone", "columns": {}, "own_names": true}]}}}',
        b"\xff",
    ],
)
def test_a_file_that_is_not_ours_is_as_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / TOPICS).write_bytes(text)
    assert recall(settings(tmp_path)) == {}


def test_a_folder_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match="--output: "):
        remember(settings(tmp_path / "file"), {"one": None})
