"""Which columns feed events, what their values become, and which rows are refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from transforms.formats.base import Context
from transforms.formats.columns import (
    KNOWN,
    UnknownColumns,
    build_events,
    map_columns,
    number_text,
    replay_attributes,
    replay_context,
    to_attributes,
    to_integers,
    to_text,
)

DAY = "2024-08-27"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            "case:concept:name concept:name time:timestamp org:resource lifecycle:transition",
            "case_id=case:concept:name event_time=time:timestamp activity=concept:name "
            "actor=org:resource lifecycle=lifecycle:transition",
        ),
        (
            "case_id activity resource start_time end_time",
            "case_id=case_id event_time=end_time activity=activity actor=resource "
            "start_time=start_time",
        ),
        (
            "CaseID ActivityID CompleteTimestamp",
            "case_id=CaseID event_time=CompleteTimestamp activity=ActivityID",
        ),
        ("Case|ID Activity timestamp", "event_time=timestamp activity=Activity"),
        ("Case_ID Activity START-TIME", "case_id=Case_ID event_time=START-TIME activity=Activity"),
        ("case event time", "case_id=case event_time=time activity=event"),
        ("processInstanceKey task ts", "case_id=processInstanceKey activity=task"),
        (
            "$uniqueid activity event_time $modelversion $workflowgroup $editor",
            "case_id=$uniqueid event_time=event_time activity=activity actor=$editor "
            "workflow_group=$workflowgroup model_version=$modelversion",
        ),
        ("timestamp end_time activity case", "case_id=case event_time=end_time activity=activity"),
        ("status group id name", ""),
        ("", ""),
    ],
)
def test_common_names(names: str, expected: str) -> None:
    mapped = map_columns(names.split(), Context(), {})
    assert " ".join(f"{c}={n}" for c, n in mapped.columns.items()) == expected
    assert [c for c in ("case_id", "event_time", "activity") if c not in mapped.columns] == list(
        mapped.missing
    )


def test_every_known_name_is_in_its_compared_form() -> None:
    for names in KNOWN.values():
        assert names == names.lower()
        assert not set("_:-") & set(names)


def test_given_columns_count_more() -> None:
    names = ["case_id", "Order No", "activity", "event_time", "resource"]
    context = Context(columns={"case_id": "order no", "actor": "", "state": "gone"})
    mapped = map_columns(names, context, {})
    assert mapped.columns == {
        "case_id": "Order No",
        "event_time": "event_time",
        "activity": "activity",
    }
    assert mapped.missing == ("state",)
    assert mapped.warnings("f") == (
        "f: no column for state; it has: case_id, Order No, activity, event_time, resource; "
        "use --columns state=...",
    )


def test_unknown_columns_names_what_is_missing() -> None:
    error = UnknownColumns("f.csv", ["case_id", "activity"], [f"c{i}" for i in range(40)])
    assert isinstance(error, ValueError)
    assert str(error).startswith("f.csv: no column for case_id, activity; it has: c0, c1,")
    assert str(error).endswith("c29, ...; use --columns case_id=...,activity=...")


@pytest.mark.parametrize(
    ("values", "recognised"),
    [(["10", "20"], True), ([10, None], True), (["send", "10"], False), ([None], False)],
)
def test_numeric_columns_are_recognised_by_their_values(
    values: list[Any], recognised: bool
) -> None:
    names = ["case_id", "activity", "event_time", "event"]
    assert ("event" in map_columns(names, Context(), {"event": values}).columns) is recognised


def test_an_event_id_must_tell_events_apart() -> None:
    names = ["event_id", "case_id", "activity", "event_time"]
    events = {
        "case_id": ["1", "1", "2"],
        "activity": ["a", "b", "a"],
        "event_time": [DAY] * 3,
    }
    mapped = map_columns(names, Context(), {**events, "event_id": ["x", "y", "x"]})
    assert mapped.columns["event_id"] == "event_id"
    mapped = map_columns(names, Context(), {**events, "event_id": ["x", "x", "y"]})
    assert "event_id" not in mapped.columns
    repeated = {k: v + v for k, v in events.items()}
    mapped = map_columns(names, Context(), {**repeated, "event_id": ["x", "y", "z"] * 2})
    assert mapped.columns["event_id"] == "event_id"


@pytest.mark.parametrize(
    ("array", "texts"),
    [
        (pa.array([1, None, -3]), ["1", None, "-3"]),
        (
            pa.array([1.0, 0.5, None, 2.0**53, 1e300]),
            ["1", "0.5", None, "9.007199254740992e+15", "1e+300"],
        ),
        (pa.array([True, None]), ["true", None]),
        (pa.array([Decimal("1.50")]), ["1.50"]),
        (pa.array([b"x", b"\xff"]), ["x", "\ufffd"]),
        (pa.array([[1, 2], None]), ["[1,2]", None]),
        (pa.array([{"a": 1}]), ['{"a":1}']),
        (pa.array([None, None]), [None, None]),
        (pa.array(["x", None]).dictionary_encode(), ["x", None]),
        (pa.array([5, 5]).dictionary_encode(), ["5", "5"]),
        (pa.array(["x"], pa.large_string()), ["x"]),
        (pa.chunked_array([["x"], ["y"]]), ["x", "y"]),
    ],
)
def test_to_text(array: pa.Array, texts: list[str | None]) -> None:
    assert to_text(array).to_pylist() == texts


@pytest.mark.parametrize(
    ("array", "numbers", "bad"),
    [
        (pa.array(["10", " 20 ", "", None, "-3", "+4"]), [10, 20, None, None, -3, 4], []),
        (pa.array(["10.0", "1.5", "x", "99999999999"]), [10, None, None, None], [1, 2, 3]),
        (pa.array([1, 2**40]), [1, None], [1]),
        (pa.array([1.0, None, 2.5]), [1, None, None], [2]),
        (pa.array(["7", "x", None]).dictionary_encode(), [7, None, None], [1]),
        (pa.array([], pa.string()), [], []),
    ],
)
def test_to_integers(array: pa.Array, numbers: list[int | None], bad: list[int]) -> None:
    found, wrong = to_integers(array)
    assert found.type == pa.int32()
    assert found.to_pylist() == numbers
    assert wrong.nonzero()[0].tolist() == bad


def test_attributes_have_no_entry_for_null() -> None:
    found = to_attributes({"b": pa.array([1, None, 3]), "a": pa.array(["x", None, None])}, 3)
    assert found is not None
    assert found.to_pylist() == [[("b", "1"), ("a", "x")], [], [("b", "3")]]
    assert to_attributes({}, 3) is None


def test_rows_are_refused_for_the_first_reason() -> None:
    found = {
        "case_id": pa.array(["1", None, "3", "4", "5", "6", "7"]),
        "event_time": pa.array([DAY, "x", None, "never", DAY, DAY, DAY]),
        "activity": pa.array(["a", "a", None, "a", "", "a", "a"]),
        "start_time": pa.array([DAY, None, None, None, None, "x", None]),
        "task": pa.array(["1", None, None, None, None, None, "y"]),
        "state": pa.array(["s", None, None, None, None, None, None]),
    }
    events, refused = build_events(found, 7, Context(), {"position": pa.array(range(7))})
    assert events.column("case_id").to_pylist() == ["1"]
    assert [(r.row, r.error) for r in refused] == [
        (1, "MissingCaseId"),
        (2, "MissingTime"),
        (3, "BadTime"),
        (4, "MissingActivity"),
        (5, "BadTime"),
        (6, "BadValue"),
    ]
    assert refused[2].message.startswith("event_time 'never' is not a time; --time_format")
    assert refused[5].message == "task 'y' is not a number of 32 bits"


def test_a_time_out_of_range_is_told_as_that() -> None:
    times = ["9999-12-31", DAY, "0001-01-01T00:00:00Z", "never", None]
    found = {
        "case_id": pa.array(["1"] * 5),
        "event_time": pa.array(times),
        "activity": pa.array(["a"] * 5),
    }
    events, refused = build_events(found, 5, Context(), {"position": pa.array(range(5))})
    assert events.num_rows == 1
    within = "is out of range; a time is from 1678-01-01 to 2261-12-31"
    assert [(r.row, r.error, r.message.partition(";")[0]) for r in refused] == [
        (0, "BadTime", "event_time '9999-12-31' is out of range"),
        (2, "BadTime", "event_time '0001-01-01T00:00:00Z' is out of range"),
        (3, "BadTime", "event_time 'never' is not a time"),
        (4, "MissingTime", "no event time"),
    ]
    assert refused[0].message == f"event_time '9999-12-31' {within}"
    found["event_time"] = pa.array([1724753060469] * 5)
    _, refused = build_events(found, 5, Context(time_format="s"), {"position": pa.array(range(5))})
    assert refused[0].message == (
        "event_time '1724753060469' is out of range in the form s; "
        "a time is from 1678-01-01 to 2261-12-31"
    )


def test_a_missing_state_is_the_activity() -> None:
    found = {
        "case_id": pa.array(["1", "1"]),
        "event_time": pa.array([DAY] * 2),
        "activity": pa.array(["a", "b"]),
        "state": pa.array(["s", None]),
    }
    events, _ = build_events(found, 2, Context(), {"position": pa.array([0, 1])})
    assert events.column("state").to_pylist() == ["s", "b"]


def test_the_mapping_travels_with_a_dead_letter() -> None:
    context = Context(columns={"case_id": "x", "actor": "y"})
    attributes = replay_attributes("csv", context)
    assert attributes == {"format": "csv", "columns": "case_id=x,actor=y"}
    assert replay_context(attributes, Context()).columns == {"case_id": "x", "actor": "y"}
    later = Context(columns={"actor": "z"})
    assert replay_context(attributes, later).columns == {"case_id": "x", "actor": "z"}
    assert replay_context({}, later) is later


def test_the_settings_travel_with_a_dead_letter() -> None:
    context = Context(timezone="Europe/Berlin", time_format="%d.%m.%Y", encoding="latin-1")
    attributes = replay_attributes("csv", context)
    assert replay_context(attributes, Context()) == context
    later = Context(timezone="Asia/Tokyo")
    assert replay_context(attributes, later).timezone == "Asia/Tokyo"
    assert replay_context(attributes, later).encoding == "latin-1"
    # A broker's headers may have such names.
    strange = {"timezone": "mine", "time_format": "long", "encoding": "gzip"}
    assert replay_context(strange, Context()) == Context()
    # Encodings that Python has, but that don't read everything.
    for name in ("base64", "idna", "punycode", "undefined"):
        assert replay_context({"encoding": name}, Context()) == Context()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((2**63, float(2**63), str(2**63)), "9.223372036854776e+18"),
        ((9 * 10**18, 9e18, "9000000000000000000", "9E18"), "9e+18"),
        ((12, 12.0, "12", "12.0"), "12"),
        ((1.5, "1.50"), "1.5"),
        ((1234567890123456, 1234567890123456.0, "1234567890123456"), "1234567890123456"),
        (("007",), "007"),
        (("yesterday",), "yesterday"),
        (("1e5000", "9" * 5000), "inf"),
        ((True,), "True"),
    ],
)
def test_a_number_is_shown_in_one_notation(values: tuple[Any, ...], text: str) -> None:
    assert {number_text(value) for value in values} == {text}
