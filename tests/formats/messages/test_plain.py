"""Plain JSON in lists and whole files: the same events as the same objects give as lines."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from tests.formats.files import memory_file, read_all
from transforms.formats import json_lines, registry
from transforms.formats.base import BATCH_BYTES, Context, Message
from transforms.formats.messages.plain import FORMAT
from transforms.formats.recognition import recognise

ROWS: list[dict[str, Any]] = [
    {
        "order": {"id": f"o{i % 3}"},
        "activity": "ab"[i % 2],
        "event_time": f"2024-01-01T00:00:{i:02d}Z",
        "note": 'a "]" and {',
    }
    for i in range(10)
]
COLUMNS = Context(columns={"case_id": "order.id"})
SAID = ("case_id", "activity", "event_time", "state", "actor")


def lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS).encode(),
        json.dumps(ROWS, indent=2).encode(),
        b"\xef\xbb\xbf \n" + json.dumps(ROWS, indent=1).encode(),
        lines(ROWS),
    ],
    ids=["one line", "indented", "with a mark", "lines"],
)
def test_a_list_gives_what_its_objects_give_as_lines(text: bytes) -> None:
    found, said = read_all(FORMAT, text, COLUMNS), read_all(json_lines.FORMAT, lines(ROWS), COLUMNS)
    assert (found.messages, found.dead) == (10, 0)
    assert found.events.select(SAID).to_pylist() == said.events.select(SAID).to_pylist()


def test_a_file_may_be_one_object_on_many_lines() -> None:
    text = json.dumps(ROWS[0], indent=4).encode()
    assert registry.detect(text, "order.json") is FORMAT
    [event] = read_all(FORMAT, text, COLUMNS).events.to_pylist()
    assert (event["case_id"], event["activity"]) == ("o0", "a")


def test_columns_of_a_file_do_not_depend_on_how_it_is_cut_into_batches() -> None:
    """What only later objects have counts under its own name; the first ones fix the rest."""
    many = BATCH_BYTES // 60
    rows = [
        {"case_id": i, "activity": "a", "event_time": 1_700_000_000 + i}
        | ({"actor": "kim"} if i > many // 2 else {})
        for i in range(many)
    ]
    found = read_all(FORMAT, orjson.dumps(rows))
    assert (found.messages, found.dead, found.events.num_rows) == (many, 0, many)
    actors = found.events["actor"].to_pylist()
    assert set(actors[: many // 2 + 1]) == {None}
    assert set(actors[many // 2 + 1 :]) == {"kim"}


def test_what_is_broken_or_no_object_is_dead_by_itself() -> None:
    rest = orjson.dumps(ROWS)[1:]
    found = read_all(FORMAT, b'[{"order": {"id": "x"}}, ' + rest, COLUMNS)
    assert (found.events.num_rows, found.dead) == (10, 1)
    cut = read_all(FORMAT, orjson.dumps(ROWS)[:-30], COLUMNS)
    assert (cut.events.num_rows, cut.dead) == (9, 1)
    assert cut.failures[0].error == "InvalidJson"
    nothing = read_all(FORMAT, memory_file(b"[]"))
    assert (nothing.dead, nothing.events.num_rows) == (0, 0)


def test_a_topic_may_carry_lists_beside_single_objects() -> None:
    messages = [Message(orjson.dumps(row), "t-0", i) for i, row in enumerate(ROWS[:3])]
    messages.append(Message(orjson.dumps(ROWS[3:]), "t-0", 3))
    assert {name: rows.tolist() for name, rows in recognise(messages).items()} == {
        "json_lines": [0, 1, 2],
        "json": [3],
    }
    fixed, _ = FORMAT.recognise([messages[3].payload], COLUMNS)
    found = FORMAT.decode(messages[3:], fixed)
    assert (found.messages, found.events.num_rows, found.dead) == (7, 7, 0)
    assert set(found.events["case_id"].to_pylist()) == {"o0", "o1", "o2"}


def test_inspect_is_told_the_columns_of_the_first_objects() -> None:
    found = FORMAT.mapping_of(memory_file(json.dumps(ROWS, indent=2).encode()), COLUMNS)
    assert found.columns["case_id"] == "order.id"
    assert found.columns["activity"] == "activity"
