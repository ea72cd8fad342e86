"""Order time, and the order in which folds see events."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.messages import SECOND, START, messages, table
from transforms.timeline import arrange, order_times

D = 5 * SECOND


@pytest.mark.parametrize(
    ("event_time", "record_time", "expected"),
    [
        (100, None, 100),
        (100, 100, 100),
        (100, 100 + D, 100),
        (100, 101 + D, 101),
        (100, 50, 100),
    ],
)
def test_order_time(event_time: int, record_time: int | None, expected: int) -> None:
    row = {"case_id": "a", "activity": "x", "event_time": event_time, "record_time": record_time}
    assert order_times(table([row]), D).tolist() == [expected]
    # Beside a row without record time the column holds nulls: they must not overflow.
    both = table([row, {"case_id": "b", "activity": "x", "event_time": 7}])
    assert order_times(both, D).tolist() == [expected, 7]


def plain(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Sort as the definition says, as far as it speaks."""
    keys = []
    for row in rows:
        record = row.get("record_time")
        order = row["event_time"] if record is None else max(row["event_time"], record - D)
        position = row.get("position")
        keys.append(
            (row["case_id"], order, row["event_time"], -1 if position is None else position)
        )
    return sorted(keys)


@settings(deadline=None)
@given(messages(), st.randoms(use_true_random=False))
def test_arranged_by_definition_whatever_the_arrival(rows: list[dict[str, Any]], seed: Any) -> None:
    events = arrange(table(rows), "case_id", D)
    found = sorted(
        (
            row["case_id"],
            int(order),
            int(time),
            -1 if row["position"] is None else row["position"],
        )
        for row, order, time in zip(
            events.to_pylist(),
            events["order_time"].cast("int64").to_pylist(),
            events["event_time"].cast("int64").to_pylist(),
            strict=True,
        )
    )
    in_place = [
        (case, order)
        for case, order in zip(
            events["case_id"].to_pylist(),
            events["order_time"].cast("int64").to_pylist(),
            strict=True,
        )
    ]
    assert found == plain(rows)
    for case in {case for case, _ in in_place}:
        at = [i for i, (c, _) in enumerate(in_place) if c == case]
        assert at == list(range(at[0], at[0] + len(at)))  # grouped
        assert [in_place[i] for i in at] == sorted(in_place[i] for i in at)
    shuffled = list(rows)
    seed.shuffle(shuffled)
    again = arrange(table(shuffled), "case_id", D)
    # Case by case the same; the cases themselves may come in another order.
    assert by_case(again) == by_case(events)


def by_case(events: pa.Table) -> dict[str, list[dict[str, Any]]]:
    kept = events.drop_columns(["record_time"]).to_pylist()
    return {case: [row for row in kept if row["case_id"] == case] for case in "abc"}


@settings(deadline=None)
@given(messages())
def test_throughout_by_time(rows: list[dict[str, Any]]) -> None:
    events = arrange(table(rows), "case_id", D, order="time")
    times = events["order_time"].cast("int64").to_pylist()
    assert times == sorted(times)


def test_a_wide_range_of_times_does_not_fit_one_integer_and_is_sorted_all_the_same() -> None:
    rows = [
        {"case_id": f"c{i % 3}", "activity": "x", "event_time": t, "position": i}
        for i, t in enumerate([2**62, -(2**62), START, 0, 2**62, START])
    ]
    events = arrange(table(rows), "case_id", D)
    pairs = list(zip(events["case_id"].to_pylist(), events["position"].to_pylist(), strict=True))
    assert pairs == [("c0", 3), ("c0", 0), ("c1", 1), ("c1", 4), ("c2", 2), ("c2", 5)]


def test_the_copy_that_ends_its_snapshot_comes_first() -> None:
    row = {"case_id": "a", "activity": "x", "event_time": START, "event_id": "1", "position": 0}
    plain_copy = dict(row, actor=None)
    last_line = dict(row, actor="anna", log=[1], attributes=[("amount", "1")])
    for rows in ([plain_copy, last_line], [last_line, plain_copy]):
        assert arrange(table(rows), "case_id", D)["actor"].to_pylist() == ["anna", None]


def test_the_order_of_two_copies_does_not_depend_on_other_rows() -> None:
    row = {"case_id": "a", "activity": "x", "event_time": START, "event_id": "1"}
    for amounts in (("1", "2"), ("3", "4"), ("5", "6"), ("7", "8")):
        copies = [dict(row, attributes=[("amount", a)]) for a in amounts]
        other = dict(row, case_id="b", actor="anna", workflow_group="Order", log=[1], task=3)
        alone = arrange(table(copies), "case_id", D)["attributes"].to_pylist()
        beside = arrange(table([*copies, other]), "case_id", D)
        both = [r["attributes"] for r in beside.to_pylist() if r["case_id"] == "a"]
        assert both == alone


def test_of_copies_that_are_equal_the_one_of_the_first_place_comes_first() -> None:
    """A broker that was away appends many messages at one time; `late` shows where one was read."""
    row = {"case_id": "a", "activity": "x", "event_time": START, "event_id": "1"}
    copies = [{**row, "source": "in/0", "source_offset": offset} for offset in (9, 10, 100)]
    for arrived in permutations(copies):
        found = arrange(table(list(arrived)), "case_id", D)
        assert found["source_offset"].to_pylist() == [9, 10, 100]
