"""What every database promises: whole tables, batches once, newest rows, columns that fit."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.events import TIME
from schemas.tables import CASES, DEAD_LETTERS, FLOW, LATE, TABLES, TRANSITIONS, VARIANTS, Output
from tests.sinks.lakes.places import KINDS, Place, filled, one_part, place
from transforms.addresses import BrokerFault
from transforms.sinks.lakes.columns import newest_rows, plain_rows
from transforms.sinks.lakes.store import Batch

SECOND = 1_000_000
START = 1_700_000_000 * SECOND


@pytest.fixture(params=KINDS)
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place(request.param, tmp_path)


def transitions(*ids: str) -> pa.Table:
    rows = [
        {
            "row_id": each,
            "event_time": START + n * 86_400 * SECOND,
            "attributes": [("amount", "12"), ('"é', None)],
            "actor": None,
            "task": 7,
        }
        for n, each in enumerate(ids)
    ]
    return filled(TRANSITIONS, *rows)


def case(id_: str, updated: int, state: str) -> dict[str, Any]:
    return {"row_id": id_, "case_id": id_, "updated_at": START + updated, "state": state}


def cases(*rows: dict[str, Any]) -> pa.Table:
    return filled(CASES, *rows)


def expected(rows: pa.Table, output: Output) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = plain_rows(rows, output).to_pylist()
    return sorted(found, key=lambda row: row["row_id"])


def test_a_run_replaces_all_tables_and_says_how_many_rows_they_have(there: Place) -> None:
    outputs = {t.name: t for t in (TRANSITIONS, CASES, LATE, DEAD_LETTERS)}
    first = transitions("a", "b")
    dead = filled(DEAD_LETTERS, {"row_id": "d", "payload": b"\x00\xff", "time": None})
    with_rows = one_part(transitions=first, dead_letters=dead, cases=cases(case("c", 0, "open")))
    assert there.open().check(outputs, replaced=True) == []
    counts = there.open().replace(outputs, with_rows, "run-1")
    assert counts == {"transitions": 2, "cases": 1, "late": 0, "dead_letters": 1}
    assert there.rows("transitions") == expected(first, TRANSITIONS)
    assert there.rows("dead_letters") == expected(dead, DEAD_LETTERS)
    assert there.rows("late") == []
    # Another run: nothing of the first is left; a table may become empty.
    counts = there.open().replace(outputs, one_part(transitions=transitions("z")), "run-2")
    assert counts == {"transitions": 1, "cases": 0, "late": 0, "dead_letters": 0}
    assert there.ids("transitions") == ["z"]
    assert there.rows("cases") == []


def test_a_run_that_is_delivered_again_changes_nothing(there: Place) -> None:
    outputs = {"transitions": TRANSITIONS}
    database = there.open()
    database.replace(outputs, one_part(transitions=transitions("a")), "run-1")
    again = database.replace(outputs, one_part(transitions=transitions("b", "c")), "run-1")
    assert again == {"transitions": 1}
    assert there.ids("transitions") == ["a"]


def test_rows_in_many_parts_are_one_table(there: Place) -> None:
    parts = [transitions(f"{n:03d}") for n in range(5)]
    counts = there.open().replace({"transitions": TRANSITIONS}, lambda _: iter(parts), "run-1")
    assert counts == {"transitions": 5}
    assert there.ids("transitions") == [f"{n:03d}" for n in range(5)]


class Broken(Exception):
    pass


def test_what_breaks_off_while_it_replaces_leaves_the_tables_as_they_were(there: Place) -> None:
    outputs = {"transitions": TRANSITIONS, "late": LATE}
    before = one_part(transitions=transitions("a"), late=filled(LATE, {"row_id": "l"}))
    there.open().replace(outputs, before, "run-1")

    def breaking(name: str) -> Iterator[pa.Table]:
        yield transitions("b") if name == "transitions" else filled(LATE, {"row_id": "m"})
        raise Broken

    with pytest.raises(Exception):  # noqa: B017, PT011 (each library wraps it in its own)
        there.open().replace(outputs, breaking, "run-2")
    assert there.ids("transitions") == ["a"]
    assert there.ids("late") == ["l"]


def test_what_breaks_off_between_two_tables_is_completed_by_a_repeat(there: Place) -> None:
    outputs = {"transitions": TRANSITIONS, "late": LATE}

    def second_fails(name: str) -> Iterator[pa.Table]:
        if name == "late":
            raise Broken
        yield transitions("a")

    with pytest.raises(Exception):  # noqa: B017, PT011
        there.open().replace(outputs, second_fails, "run-1")
    whole = one_part(transitions=transitions("a"), late=filled(LATE, {"row_id": "l"}))
    assert there.open().replace(outputs, whole, "run-1") == {"transitions": 1, "late": 1}
    assert (there.ids("transitions"), there.ids("late")) == (["a"], ["l"])


def test_a_batch_is_added_once_however_often_it_comes(there: Place) -> None:
    outputs = {"transitions": TRANSITIONS}
    one, two = Batch("1", transitions("a")), Batch("2", transitions("b"))
    there.open().add(outputs, {"transitions": [one]})
    there.open().add(outputs, {"transitions": [one, two]})
    there.open().add(outputs, {"transitions": [two, two]})
    assert there.ids("transitions") == ["a", "b"]
    assert there.rows("transitions") == expected(
        pa.concat_tables([one.rows, two.rows]), TRANSITIONS
    )


def test_batches_may_come_again_when_a_table_has_been_replaced(there: Place) -> None:
    outputs = {"transitions": TRANSITIONS}
    one = Batch("1", transitions("a"))
    there.open().add(outputs, {"transitions": [one]})
    there.open().replace(outputs, one_part(), "run-1")
    assert there.ids("transitions") == []
    there.open().add(outputs, {"transitions": [one]})
    there.open().add(outputs, {"transitions": [one]})
    assert there.ids("transitions") == ["a"]


def test_of_the_rows_of_a_key_the_newest_stays(there: Place) -> None:
    outputs = {"cases": CASES}
    first = cases(case("a", 1, "new"), case("b", 1, "new"), case("a", 3, "done"))
    there.open().add(outputs, {"cases": [Batch("1", first)]})
    states = {row["row_id"]: row["state"] for row in there.rows("cases")}
    assert states == {"a": "done", "b": "new"}
    # An older row, as a restart may bring, does not win; an equal one is the same.
    second = cases(case("a", 2, "old"), case("b", 5, "late"), case("c", 1, "new"))
    there.open().add(outputs, {"cases": [Batch("2", second)]})
    there.open().add(outputs, {"cases": [Batch("1", first)]})
    states = {row["row_id"]: row["state"] for row in there.rows("cases")}
    assert states == {"a": "done", "b": "late", "c": "new"}


def test_of_the_panes_of_a_window_the_last_stays(there: Place) -> None:
    def pane(id_: str, index: int, start: int | None) -> dict[str, Any]:
        return {
            "row_id": id_,
            "pane_index": index,
            "pane": "final" if index else "early",
            "window_start": start,
            "started": index * 10,
        }

    rows = filled(FLOW, pane("w1", 0, START), pane("global", 0, None))
    there.open().add({"flow": FLOW}, {"flow": [Batch("1", rows)]})
    rows = filled(FLOW, pane("w1", 1, START), pane("global", 2, None), pane("w2", 0, START))
    there.open().add({"flow": FLOW}, {"flow": [Batch("2", rows)]})
    found = {row["row_id"]: (row["pane_index"], row["started"]) for row in there.rows("flow")}
    assert found == {"w1": (1, 10), "global": (2, 20), "w2": (0, 0)}


def test_lists_and_all_tables_can_be_written(there: Place) -> None:
    variants = filled(VARIANTS, {"row_id": "v", "states": ["new", 'a "b"', "ü"]})
    batches = {name: [Batch("1", filled(t, {"row_id": "r"}))] for name, t in TABLES.items()}
    batches["variants"] = [Batch("1", variants)]
    there.open().add(TABLES, batches)
    assert {name: there.ids(name) for name in TABLES} == {
        name: ["v" if name == "variants" else "r"] for name in TABLES
    }
    assert there.rows("variants")[0]["states"] == ["new", 'a "b"', "ü"]
    assert there.open().check(TABLES, replaced=False) == []


def older(output: Output, *names: str) -> Output:
    """Return a table as it was before it had some columns."""
    fields = [field for field in output.schema if field.name not in names]
    return replace(output, schema=pa.schema(fields))


@pytest.mark.parametrize("output", [TRANSITIONS, CASES])
def test_a_table_gains_a_column_and_keeps_its_rows(there: Place, output: Output) -> None:
    gained = "attributes" if output is TRANSITIONS else "variant_id"
    before = older(output, gained)
    name = output.name
    there.open().add({name: before}, {name: [Batch("1", filled(before, {"row_id": "a"}))]})
    (note,) = there.open().check({name: output}, replaced=False)
    assert note.endswith(f"gains {gained}")
    value: Any = [("k", "v")] if output is TRANSITIONS else "v"
    rows = filled(output, {"row_id": "b", "case_id": "b", gained: value})
    there.open().add({name: output}, {name: [Batch("2", rows)]})
    found = {row["row_id"]: row[gained] for row in there.rows(name)}
    assert found == {"a": None, "b": value}
    assert there.open().check({name: output}, replaced=False) == []
    # And one that does not know the column can go on.
    rows = filled(before, {"row_id": "c", "case_id": "c"})
    there.open().add({name: before}, {name: [Batch("3", rows)]})
    found = {row["row_id"]: row[gained] for row in there.rows(name)}
    assert found == {"a": None, "b": value, "c": None}


def test_a_replaced_table_gains_a_column(there: Place) -> None:
    before = older(TRANSITIONS, "verdict")
    there.open().replace(
        {"transitions": before}, one_part(transitions=filled(before, {"row_id": "a"})), "1"
    )
    there.open().replace({"transitions": TRANSITIONS}, one_part(transitions=transitions("b")), "2")
    assert [row["verdict"] for row in there.rows("transitions")] == ["x"]


def retyped(output: Output, name: str, type_: pa.DataType) -> Output:
    fields = [pa.field(f.name, type_) if f.name == name else f for f in output.schema]
    return replace(output, schema=pa.schema(fields))


def test_a_column_of_another_type_is_an_error_with_both_types(there: Place) -> None:
    other = retyped(TRANSITIONS, "task", pa.string())
    there.open().add(
        {"transitions": other}, {"transitions": [Batch("1", filled(other, {"row_id": "a"}))]}
    )
    outputs = {"transitions": TRANSITIONS}
    for act in (
        lambda: there.open().check(outputs, replaced=False),
        lambda: there.open().check(outputs, replaced=True),
        lambda: there.open().add(outputs, {"transitions": [Batch("2", transitions("b"))]}),
        lambda: there.open().replace(outputs, one_part(transitions=transitions("b")), "1"),
    ):
        with pytest.raises(BrokerFault) as error:
            act()
        text = str(error.value).lower()
        assert "transitions" in text
        assert "column task is " in text
        assert "string" in text or "varchar" in text
        assert " int" in text
        assert "give another" in text
    assert there.ids("transitions") == ["a"]


def test_checking_makes_nothing(there: Place, tmp_path: Path) -> None:
    before = {path for path in tmp_path.rglob("*") if "catalog.db" not in path.name}
    there.open().check(TABLES, replaced=False)
    after = {path for path in tmp_path.rglob("*") if "catalog.db" not in path.name}
    assert after == before


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=12))
def test_newest_rows_is_the_last_of_the_greatest(drawn: list[tuple[str, int]]) -> None:
    rows = cases(*(case(key, at, str(n)) for n, (key, at) in enumerate(drawn)))
    best: dict[str, tuple[int, int]] = {}
    for n, (key, at) in enumerate(drawn):
        if key not in best or at >= best[key][0]:
            best[key] = (at, n)
    found = newest_rows(plain_rows(rows, CASES), CASES)
    assert {row["row_id"]: int(row["state"]) for row in found.to_pylist()} == {
        key: n for key, (_, n) in best.items()
    }
    assert found.num_rows == len(best)


def test_days_are_those_of_utc() -> None:
    late = dt.datetime(2024, 1, 31, 23, 59, 59, tzinfo=dt.timezone.utc)
    rows = filled(TRANSITIONS, {"row_id": "a", "event_time": late})
    assert rows.schema.field("event_time").type == TIME
    assert plain_rows(rows, TRANSITIONS, day=True)["day"].to_pylist() == [dt.date(2024, 1, 31)]
