"""Mapping files: what is right is read, what is wrong is named with its file, key and fix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.formats.items import TYPES
from transforms.formats.mapping import document
from transforms.formats.mapping.document import MappingError, read_mapping
from transforms.formats.mapping.rules import Condition, Rule, path_of, path_problem

WHOLE = """
description: steps of orders
columns:
  case_id: order.id
  event_time: {path: when, format: "%d.%m.%Y %H:%M"}
  activity:
    path: status
    values: {1: Open, no: Refused, 007: Bond}
    default: Other
  workflow_group: {constant: orders}
items:
  amount: {path: "order['a.b']", type: float}
  region: lines[0].region
skip_when:
  - {path: kind, equals: [ping, pong]}
  - {path: order, missing: true}
timezone: Europe/Berlin
time_format: ms
recognise: false
"""


def test_a_whole_mapping() -> None:
    mapping = read_mapping(WHOLE.encode(), "m.yaml")
    assert mapping.columns == {
        "case_id": Rule("order.id"),
        "event_time": Rule("when", time_format="%d.%m.%Y %H:%M"),
        # Words stay words: YAML's booleans and octal numbers are not asked.
        "activity": Rule(
            "status", values={"1": "Open", "no": "Refused", "007": "Bond"}, default="Other"
        ),
        "workflow_group": Rule(constant="orders"),
    }
    assert mapping.items == {
        "amount": Rule("order['a.b']", type="double"),
        "region": Rule("lines[0].region"),
    }
    assert mapping.skip == (Condition("kind", ("ping", "pong")), Condition("order", missing=True))
    assert (mapping.timezone, mapping.time_format, mapping.recognise) == (
        "Europe/Berlin",
        "ms",
        False,
    )
    # Its text is the same mapping, as a dead letter keeps it.
    assert read_mapping(mapping.text.encode(), "again") == mapping


def test_json_is_taken_too() -> None:
    text = json.dumps(
        {
            "columns": {
                "case_id": "id",
                "event_time": {"path": "t"},
                "activity": {"path": "s", "values": {"1": "Open"}},
            },
            "skip_when": [{"path": "ok", "equals": [True, 5, 1.50]}],
            "recognise": True,
        },
        indent="\t",
    )
    mapping = read_mapping(text.encode(), "m.json")
    assert mapping.skip == (Condition("ok", ("true", "5", "1.5")),)


BAD = [
    ("", "is empty"),
    ("   \n# nothing\n", "is not a mapping"),
    ("- a\n- b", "is not a mapping"),
    ("just text", "is not a mapping"),
    ("columns:\n  case_id: [a", "line 2"),
    ("columns: {case_id: a}\ncolumns: {}", "line 2: has the key 'columns' twice"),
    ('{"columns": {}, "columns": {}}', "the key 'columns' twice"),
    ('{"columns": ', "line 1, column 13"),
    ("columns: !!python/object/apply:os.system [ls]", "line 1: the tag .*os.system is refused"),
    ("columns:\n  case_id: !!binary aGk=", "line 2: the tag"),
    ("columns: !thing {case_id: a}", "the tag !thing"),
    ("columns: &a {case_id: b}\nitems: *a", "anchors and aliases"),
    ("? [a, b]\n: c", "a key is a word"),
    ("colums: {case_id: a}", "colums is not known; did you mean 'columns'"),
    ("columns: [case_id]", "columns is a list"),
    ("columns: {case: a}", "columns.case is not an event column; did you mean 'case_id'"),
    ("columns: {source: a}", "columns.source is not an event column"),
    ("columns: {case_id: }", "columns.case_id is empty"),
    ("columns: {case_id: [a]}", "columns.case_id is a list; give a path"),
    ("columns: {case_id: {}}", "columns.case_id has neither path nor constant"),
    ("columns: {case_id: {path: a, constant: b}}", "both path and constant"),
    ("columns: {case_id: {pth: a}}", "columns.case_id.pth is not known; did you mean 'path'"),
    ("columns: {case_id: {path: {a: b}}}", "columns.case_id.path is an object; give a path"),
    ("columns: {case_id: a..b}", "'a..b' is no path at '..b'"),
    ("columns: {case_id: 'a[x]'}", "no path"),
    ("columns: {state: {path: a, values: [b]}}", "columns.state.values is a list"),
    ("columns: {state: {path: a, values: {1: [b]}}}", "columns.state.values.1 is a list"),
    ("columns: {state: {path: a, default: ''}}", "columns.state.default is empty"),
    ("columns: {state: {constant: a, values: {b: c}}}", "columns.state.values is for a path"),
    ("columns: {state: {constant: [a]}}", "columns.state.constant is a list"),
    ("columns: {state: {path: a, format: s}}", "columns.state.format is for times alone"),
    (
        "columns: {event_time: {path: a, format: iso}}",
        "columns.event_time.format 'iso' is neither a strptime format",
    ),
    ("columns: {event_time: {path: a, format: '%Y-%Q'}}", "format '%Y-%Q' is not a strptime"),
    ("columns: {event_time: {path: a, format: '%H:%M'}}", "format '%H:%M' holds no full date"),
    ("columns: {event_time: {path: a, format: [s]}}", "columns.event_time.format is a list; give"),
    ("columns: {case_id: a}\ntime_format: '%Y'", "time_format '%Y' holds no full date"),
    ("columns: {case_id: {path: a, type: long}}", "columns.case_id.type is not known"),
    (
        "items: {a: {path: b, type: duoble}}",
        "items.a.type 'duoble' is no type; did you mean 'double'",
    ),
    ("items: {a: {path: b, type: [long]}}", "items.a.type 'a list' is no type"),
    ("items: {a: {path: b, format: s}}", "items.a.format is not known"),
    ("skip_when: ping", "skip_when is the text 'ping'"),
    ("skip_when: [ping]", r"skip_when\[0\] is the text 'ping'; give an object"),
    ("skip_when: [{equals: a}]", r"skip_when\[0\].path is missing"),
    ("skip_when: [{path: a}]", "neither equals nor missing"),
    ("skip_when: [{path: a, equals: b, missing: true}]", "both equals and missing"),
    ("skip_when: [{path: a, missing: false}]", "skips nothing"),
    ("skip_when: [{path: a, missing: perhaps}]", "'perhaps'; give true or false"),
    ("skip_when: [{path: a, when: b}]", "when is not known"),
    ("recognise: perhaps", "recognise is 'perhaps'"),
    ("recognise: false\ncolumns: {case_id: a}", "columns.event_time is missing"),
    ("timezone: Europe/Berln", "unknown time zone 'Europe/Berln'"),
    ("timezone: [UTC]", "timezone is a list"),
    ("description: [a]\ncolumns: {case_id: a}", "description is a list"),
    ("description: nothing else", "columns is missing"),
    ("a: " + "[" * 3000, "nested|line"),
    ("a: " + "[" * 3000 + "]" * 3000, "nested|line|not known"),
    ('{"a": ' + "[" * 100_000, "nested"),
]


@pytest.mark.parametrize(("text", "reason"), BAD)
def test_what_is_wrong_is_named(text: str, reason: str) -> None:
    with pytest.raises(MappingError, match=reason) as wrong:
        read_mapping(text.encode(), "m.yaml")
    assert all(problem.startswith("m.yaml: ") for problem in wrong.value.problems)
    assert all("\n" not in problem for problem in wrong.value.problems)


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(MappingError) as wrong:
        read_mapping(b"colums: {}\ncolumns: {case: a, state: {path: ''}}\ntimezone: x", "m")
    assert len(wrong.value.problems) == 4


def test_bytes_that_are_no_text_and_files_that_are_too_large() -> None:
    with pytest.raises(MappingError, match="not UTF-8"):
        read_mapping(b"\xff\xfe", "m")
    with pytest.raises(MappingError, match="at most 262,144"):
        read_mapping(b"#" * (document.MAX_BYTES + 1), "m")
    assert read_mapping(b"\xef\xbb\xbfcolumns: {case_id: a}", "m").columns["case_id"].path == "a"


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_nothing_else_is_raised(text: str) -> None:
    try:
        read_mapping(text.encode("utf-8", "replace"), "m")
    except MappingError:
        pass


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a", ("a",)),
        ("a.b", ("a", "b")),
        ("$.a.b", ("a", "b")),
        ("$uniqueid", ("$uniqueid",)),
        ("$['a.b'].c", ("a.b", "c")),
        ('a["b.c"][0].d', ("a", "b.c", 0, "d")),
        ("case:concept:name", ("case:concept:name",)),
        ("a[x]", ("a[x]",)),
        ("a..b", ("a", "", "b")),
    ],
)
def test_paths(name: str, path: tuple[str | int, ...]) -> None:
    assert path_of(name) == path
    assert (path_problem(name) is None) == (name not in ("a[x]", "a..b"))


def test_the_json_schema_knows_the_same_keys() -> None:
    path = Path(__file__).parents[3] / "schemas" / "mapping.schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    known = schema["properties"], schema["$defs"]
    assert set(known[0]) == set(document.TOP)
    assert set(known[1]["column"]["properties"]) == set(document.COLUMN)
    assert set(known[1]["item"]["properties"]) == set(document.ITEM)
    assert set(known[1]["condition"]["properties"]) == set(document.CONDITION)
    assert known[0]["columns"]["propertyNames"]["enum"] == list(document.COLUMNS)
    assert known[1]["item"]["properties"]["type"]["enum"] == list(TYPES)
