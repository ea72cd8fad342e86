"""A mapping at work: the columns are what the rules say, row by row, in every format of columns."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.files import read_all, rows
from transforms.formats import registry
from transforms.formats.base import Context, Decoded, Message, MessageBatch
from transforms.formats.columns import to_text
from transforms.formats.dead_letters import _Letter, _replay
from transforms.formats.json_lines import FORMAT as JSON_LINES
from transforms.formats.mapping.apply import mapped_columns
from transforms.formats.mapping.context import with_mapping
from transforms.formats.mapping.document import read_mapping
from transforms.formats.mapping.rules import Rule

MAPPING = """
columns:
  case_id: id
  event_time: {path: when, format: "%d.%m.%Y %H:%M"}
  activity: {path: status, values: {1: Open, 2: Closed}, default: Other}
  workflow_group: {constant: orders}
  actor: {path: clerk, default: nobody}
items:
  amount: {path: total, type: double}
  unit: {constant: EUR}
  paid: {path: flag, values: {y: "true", n: "false"}, type: boolean}
skip_when:
  - {path: kind, equals: [ping, pong]}
timezone: Europe/Berlin
"""
ROWS: list[dict[str, Any]] = [
    {
        "id": "a",
        "when": "01.02.2024 10:00",
        "status": 1,
        "total": 12.5,
        "flag": "y",
        "clerk": "kim",
    },
    {"id": "b", "when": "01.02.2024 11:00", "status": 7, "total": "x", "flag": "n", "clerk": None},
    {"id": "c", "when": None, "status": 2, "kind": "ping"},
    {"id": "d", "when": "yesterday", "status": 2},
    {"id": "e", "when": "01.07.2024 10:00", "status": None, "flag": "?", "clerk": ""},
]


def context(text: str = MAPPING, **given: Any) -> Context:
    return with_mapping(Context(**given), read_mapping(text.encode(), "m.yaml"))


def lines(values: list[dict[str, Any]] = ROWS) -> bytes:
    return b"\n".join(orjson.dumps(value) for value in values)


def as_csv(values: list[dict[str, Any]] = ROWS) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["id", "when", "status", "total", "flag", "clerk", "kind"])
    writer.writeheader()
    writer.writerows(values)
    return out.getvalue().encode()


def as_parquet(values: list[dict[str, Any]] = ROWS) -> bytes:
    out = pa.BufferOutputStream()
    names = ["id", "when", "status", "total", "flag", "clerk", "kind"]
    texts = [{n: None if v.get(n) in (None, "") else str(v[n]) for n in names} for v in values]
    pq.write_table(pa.Table.from_pylist(texts, pa.schema([(n, pa.string()) for n in names])), out)
    return out.getvalue().to_pybytes()


@pytest.mark.parametrize("name", ["json_lines", "csv", "parquet"])
def test_every_format_of_columns(name: str) -> None:
    data = {"json_lines": lines, "csv": as_csv, "parquet": as_parquet}[name]()
    found = read_all(registry.get(name), data, context())
    assert (found.received, found.decoded, found.skipped, found.dead) == (5, 3, 1, 1)
    got = rows(found.events, "case_id", "activity", "state", "workflow_group", "actor")
    assert got == [
        ("a", "Open", "Open", "orders", "kim"),
        ("b", "Other", "Other", "orders", "nobody"),
        ("e", "Other", "Other", "orders", "nobody"),
    ]
    assert [t.isoformat() for t in found.events["event_time"].to_pylist()] == [
        "2024-02-01T09:00:00+00:00",
        "2024-02-01T10:00:00+00:00",
        "2024-07-01T08:00:00+00:00",
    ]
    # Of their types only where `with_types` has been, which every reader of units does.
    assert [dict(each) for each in found.events["attributes"].to_pylist()] == [
        {"amount": "12.5", "unit": "EUR", "paid": "true"},
        {"amount": "x", "unit": "EUR", "paid": "false"},
        {"unit": "EUR", "paid": "?"},
    ]
    failure = found.failures[0]
    assert failure.error == "BadTime"
    assert failure.message == "event_time 'yesterday' is not a time in the form %d.%m.%Y %H:%M"
    positions = found.events["position"].to_pylist()
    assert positions == ([0, 1, 4] if name != "json_lines" else [0, *positions[1:]])


def test_what_options_say_counts_more() -> None:
    found = read_all(
        JSON_LINES, lines(ROWS[:2]), context(columns={"activity": "clerk"}, items=("id",))
    )
    assert rows(found.events, "case_id", "activity") == [("a", "kim")]
    assert [f.error for f in found.failures] == ["MissingActivity"]
    typed = context(items=("amount",), item_types={"amount": "long"})
    assert typed.item_types["amount"] == "long"
    assert typed.items == ("amount", "unit", "paid")
    assert context(time_format="s").time_format == "s"
    assert context(timezone="Asia/Tokyo").timezone == "Asia/Tokyo"


def test_nested_values_keys_with_dots_and_places_in_lists() -> None:
    text = """
columns: {case_id: "$.order.id", event_time: "meta['sent.at']", activity: "steps[1].name"}
items: {first: "steps[0].name", none: "steps[9].name", word: "order.id[0]"}
"""
    value = {
        "order": {"id": 17},
        "meta": {"sent.at": "2024-01-01"},
        "steps": [{"name": "x"}, {"name": "y"}],
    }
    found = read_all(JSON_LINES, lines([value] * 300), context(text))
    assert rows(found.events, "case_id", "activity")[0] == ("17", "y")
    assert found.decoded == 300
    assert dict(found.events["attributes"][0].as_py()) == {"first": "x"}


def test_other_columns_are_recognised_unless_told_not_to() -> None:
    value = {"id": "a", "t": "2024-01-01", "s": "x", "resource": "kim", "state": "open"}
    text = "columns: {case_id: id, event_time: t, activity: s}\n"
    plain = read_all(JSON_LINES, lines([value]), context(text))
    assert rows(plain.events, "actor", "state") == [("kim", "open")]
    alone = read_all(JSON_LINES, lines([value]), context(text + "recognise: false"))
    assert rows(alone.events, "actor", "state") == [(None, "x")]


@pytest.mark.parametrize("recognise", ["true", "false"])
def test_messages_of_a_topic_are_as_lines_of_a_file(recognise: str) -> None:
    settled = context(MAPPING + f"recognise: {recognise}")
    payloads = [orjson.dumps(value) for value in ROWS]
    fixed, warnings = JSON_LINES.recognise(payloads, settled)
    assert warnings == ()
    batch = MessageBatch(
        pa.array(payloads, pa.binary()),
        pa.array(["t/0"] * 5).dictionary_encode(),
        pa.array(range(5), pa.int64()),
        pa.array([1_720_000_000_000_000] * 5, pa.int64()),
    )
    for found in (JSON_LINES.decode(batch, fixed), JSON_LINES.decode(batch, settled)):
        assert (found.decoded, found.skipped, found.dead) == (3, 1, 1)
        assert rows(found.events, "activity", "workflow_group", "actor", "source_offset") == [
            ("Open", "orders", "kim", 0),
            ("Other", "orders", "nobody", 1),
            ("Other", "orders", "nobody", 4),
        ]


def test_a_topic_whose_first_messages_lack_a_column() -> None:
    fixed, _ = JSON_LINES.recognise([b'{"id": "a"}'], context())
    found = JSON_LINES.decode([Message(orjson.dumps(ROWS[0]), "t/0", 1, {}, 1)], fixed)
    assert rows(found.events, "activity", "actor") == [("Open", "kim")]


def replayed(found: Decoded, settings_: Context) -> Decoded:
    letters = [_Letter(f.payload, len(f.payload), f.attributes, f.source) for f in found.failures]
    return _replay(letters, settings_)


@pytest.mark.parametrize("name", ["json_lines", "csv", "parquet"])
def test_a_dead_letter_keeps_the_mapping(name: str) -> None:
    data = {"json_lines": lines, "csv": as_csv, "parquet": as_parquet}[name]()
    found = read_all(registry.get(name), data, context())
    again = replayed(found, Context())
    assert [f.error for f in again.failures] == ["BadTime"]
    mended = MAPPING.replace('{path: when, format: "%d.%m.%Y %H:%M"}', "{constant: '2024-03-01'}")
    again = replayed(found, context(mended))
    assert rows(again.events, "case_id", "activity", "workflow_group") == [
        ("d", "Closed", "orders")
    ]


def test_headers_that_are_no_mapping_are_left_aside() -> None:
    letter = _Letter(
        orjson.dumps({"case_id": "a", "activity": "b", "event_time": "2024-01-01"}),
        1,
        {"format": "json_lines", "mapping": "!!python/object:x {}"},
        "t/0/1",
    )
    assert _replay([letter], Context()).decoded == 1


def test_a_large_mapping_is_not_kept_in_dead_letters() -> None:
    values = ", ".join(f"{n}: name of {n}" for n in range(1000))
    text = MAPPING.replace("1: Open, 2: Closed", values)
    found = read_all(JSON_LINES, lines(), context(text))
    assert rows(found.events, "activity")[0] == ("name of 1",)
    assert "mapping" not in found.failures[0].attributes


TEXTS = st.sampled_from(["1", "2", "x", "", None])


@given(
    st.lists(TEXTS),
    st.dictionaries(st.sampled_from(["1", "2", "y"]), st.sampled_from(["one", "two"])),
    st.none() | st.sampled_from(["d", "one"]),
    st.booleans(),
)
def test_columns_are_translated_as_each_row_would_be(
    texts: list[str | None], values: dict[str, str], default: str | None, coded: bool
) -> None:
    array = pa.array(texts, pa.string())
    rule = Rule("p", values=values, default=default)
    given_ = array.dictionary_encode() if coded else array
    found = mapped_columns({"state": given_}, {"state": rule}, len(texts), to_text)["state"]

    def one(text: str | None) -> str | None:
        if not text:
            return default if default is not None else text
        if text in values:
            return values[text]
        return default if default is not None and values else text

    assert found.to_pylist() == [one(text) for text in texts]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(ROWS), min_size=1, max_size=30), st.integers(1, 20))
def test_the_law_of_messages_however_they_are_batched(
    values: list[dict[str, Any]], size: int
) -> None:
    settled = context()
    whole = read_all(JSON_LINES, lines(values), settled)
    assert whole.received == whole.decoded + whole.skipped + whole.dead == len(values)
    parts = [values[i : i + size] for i in range(0, len(values), size)]
    cut = [read_all(JSON_LINES, lines(part), settled) for part in parts]
    columns = ("case_id", "event_time", "activity", "actor", "workflow_group")
    assert [row for part in cut for row in rows(part.events, *columns)] == rows(
        whole.events, *columns
    )
    assert sum(part.skipped for part in cut) == whole.skipped
    assert (
        json.loads(settled.mapping.text if settled.mapping else "")["timezone"] == "Europe/Berlin"
    )
