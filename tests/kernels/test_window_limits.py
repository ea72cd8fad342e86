"""The kernel of windows at its limits: bounds, late rows, wakes, quantiles against exact ones."""

from __future__ import annotations

from typing import Any

import pytest
from ddsketch import DDSketch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.partials import HOUR, START, Host, Row, durations, partial, state_hash, table
from transforms.kernels.base import END
from transforms.kernels.partial_rows import ACTOR, EDGE, ERROR, FLOW, LEVEL, NAMES, VARIANT
from transforms.kernels.window_tables import WindowKernel
from transforms.windows import windowing

CUT = windowing("fixed:1h")
relaxed = settings(max_examples=25, deadline=None)


def edge(name: str | None, to_state: str, at: int = START, **more: Any) -> Row:
    columns = durations(more.pop("values", []))
    more = {"model_version": "1", "count": 1, "cases": [1]} | columns | more
    return partial(CUT, EDGE, at, "a", name=name, to_state=to_state, **more)


def flow(at: int, **more: Any) -> Row:
    return partial(CUT, FLOW, at, "a", **({"model_version": "1", "count": 1} | more))


def level(at: int, count: int, ahead: int = 0) -> Row:
    return partial(CUT, LEVEL, at, "a", model_version="1", count=count, ahead=ahead)


def variant(name: str, count: int, states: list[int]) -> Row:
    more = durations([10**6] * count) | {"bins": None, "tallies": None}
    return partial(CUT, VARIANT, START, "a", name=name, count=count, states=states, **more)


def closed(rows: list[Row], **settings: Any) -> Host:
    return Host(WindowKernel(CUT, closes=True, last_ms=END, **settings)).run(rows, [END])


def of(host: Host, name: str) -> list[Row]:
    return [row for table, row in host.panes if table == name]


def test_a_window_is_written_in_the_step_that_ends_with_it() -> None:
    kernel = WindowKernel(CUT)
    host = Host(kernel)
    untils = [START + i * HOUR // 4 for i in range(1, 6)]
    host.run([edge("new", "open", START + 5)], untils)
    assert host.wake is None
    assert host.untils == [untils[0], untils[3]]
    assert host.untils[-1] == START + HOUR
    assert [r["pane"] for r in of(host, "process_map")] == ["final"]


def test_open_cases_are_told_without_events_until_nothing_has_happened_for_long() -> None:
    rows = [flow(START, started=3), level(START, 3), level(START, -1, ahead=3)]
    host = Host(WindowKernel(CUT, quiet_windows=4))
    host.run(rows, [START + i * HOUR for i in range(1, 20)])
    assert [r["active_cases"] for r in of(host, "flow")] == [3, 3, 3, 2, 2, 2, 2, 2]
    assert [r["transitions"] for r in of(host, "flow")] == [1] + [0] * 7
    assert host.wake is None
    # Something happens again: the level is still known.
    late = START + 30 * HOUR
    host.run([flow(late), level(late, -2)], [late + HOUR, late + 2 * HOUR, late + 3 * HOUR])
    assert [r["active_cases"] for r in of(host, "flow")[8:]] == [0]
    assert {r["kind"] for r in host.state.to_pylist()} == {10}  # the row that it wakes by


def test_many_rows_of_windows_come_in_parts() -> None:
    """Windows of a case that stays open are many: they need not fit into memory together."""
    hours = range(0, 400, 100)
    rows = [each for h in hours for each in (flow(START + h * HOUR), level(START + h * HOUR, 1))]
    kernel = WindowKernel(CUT, closes=True, last_ms=END, quiet_windows=50, at_once=20)
    step = kernel.step(kernel.state_schema.empty_table(), table(rows), (), END)
    parts = [step.outputs, *step.more]
    assert [sorted(part) for part in parts] == [sorted(kernel.outputs)] * len(parts)
    sizes = [part["flow"].num_rows for part in parts]
    assert sum(sizes) == len(hours) * 51
    assert max(sizes) < 20 + 50
    assert step.counts["quiet_windows"] == len(hours) * 50


def test_rows_of_a_bucket_that_was_over_are_counted_and_left_out() -> None:
    late = edge("new", "open", START + 2) | {"order_time": (START + 2 * HOUR) * 1000}
    gone = level(START, -1) | {"order_time": (START + 2 * HOUR) * 1000}
    rows = [edge("new", "open", START + 1), flow(START), level(START, 2), late, gone]
    host = Host(WindowKernel(CUT)).run(rows, [START + i * HOUR for i in range(1, 5)])
    assert [r["count"] for r in of(host, "process_map")] == [1]
    assert host.counts["behind_windows"] == 1
    # A level is never lost.
    assert [r["active_cases"] for r in of(host, "flow")] == [2, 2, 1, 1]


def test_early_panes_have_rising_numbers_and_the_final_one_the_next() -> None:
    minute = HOUR // 60
    at = [START + m * minute for m in (1, 2, 12, 55)]
    rows = [edge("new", "open", each) for each in at]
    host = Host(WindowKernel(CUT, early_ms=10 * minute))
    host.run(rows, [START + m * minute for m in range(1, 70)])
    said = [(r["pane"], r["pane_index"], r["count"]) for r in of(host, "process_map")]
    assert said == [("early", 0, 2), ("early", 1, 3), ("final", 2, 4)]


def test_variants_beyond_the_most_frequent_are_one_row() -> None:
    hashes = [state_hash("new"), 5]
    counts = {"v1": 1, "v2": 3, "v3": 3, "v4": 2}
    rows = [variant(name, count, hashes) for name, count in counts.items()]
    rows.append(partial(CUT, NAMES, START, "a", name="new", states=hashes[:1]))
    told = of(closed(rows, most_variants=2), "variants")
    columns = ("variant_id", "states", "cases", "share", "mean_cycle_s")
    states = ["new", f"{5:016x}"]
    assert [tuple(r[c] for c in columns) for r in told] == [
        ("v2", states, 3, 3 / 9, 1.0),
        ("v3", states, 3, 3 / 9, 1.0),
        ("others", None, 3, 3 / 9, 1.0),
    ]


def test_a_long_way_is_told_up_to_1000_states() -> None:
    told = of(closed([variant("v", 1, [7] * 1500)]), "variants")
    assert told[0]["states"] == [f"{7:016x}"] * 1000


@relaxed
@given(
    names=st.lists(st.integers(0, 40), min_size=1, max_size=60),
    cuts=st.lists(st.integers(1, 59), max_size=4),
    shuffled=st.randoms(use_true_random=False),
)
def test_bounds_do_not_depend_on_steps_and_order(
    names: list[int], cuts: list[int], shuffled: Any
) -> None:
    def rows(order: list[int]) -> list[Row]:
        made = []
        for i, name in enumerate(order):
            at = START + i
            made.append(edge("new", f"s{name}", at, values=[name + 1]))
            actor = {"name": f"p{name}", "count": 1, "cases": [1], **durations([name])}
            made.append(partial(CUT, ACTOR, at, "a", **actor))
            way = {"name": f"v{name}", "count": 1, "states": [name], **durations([name])}
            made.append(partial(CUT, VARIANT, at, "a", **way))
        return made

    other = list(names)
    shuffled.shuffle(other)
    kernel = WindowKernel(CUT, most_keys=10)
    whole = Host(kernel).run(rows(names), [START + HOUR, START + HOUR + 1])
    parts = Host(kernel)
    parts.run(rows(other), [*sorted({START + c for c in cuts}), START + HOUR, START + HOUR + 1])
    assert whole.newest == parts.newest
    distinct = len(set(names))
    for name, column, rest, count in (
        ("process_map", "to_state", "(other)", "count"),
        ("workload", "actor", "(other)", "transitions"),
        ("variants", "variant_id", "others", "cases"),
    ):
        told = {r[column]: r[count] for r in of(whole, name)}
        assert sum(told.values()) == len(names)
        assert len(told) == min(distinct, 11)
        assert (rest in told) == (distinct > 10)
        # Those that stay are whole.
        for key, number in told.items():
            assert key == rest or number == names.count(int(key[1:]))
    assert (whole.counts["bounded_keys"] > 0) == (distinct > 10)


def test_names_have_a_bound() -> None:
    rows = [
        partial(CUT, NAMES, START, "a", name=f"s{i}", states=[state_hash(f"s{i}")])
        for i in range(9)
    ]
    rows.append(variant("v", 1, [state_hash(f"s{i}") for i in range(9)]))
    host = closed(rows, most_keys=4)
    (row,) = of(host, "variants")
    assert sum(len(name) == 16 for name in row["states"]) == 5
    assert host.counts["bounded_keys"] == 5


@relaxed
@given(
    st.lists(
        st.one_of(st.integers(0, 50), st.integers(0, 10**9), st.integers(0, 4 * 10**17)),
        min_size=1,
        max_size=200,
    )
)
def test_quantiles_are_those_of_exact_ranks_and_of_another_sketch(values: list[int]) -> None:
    rows = [edge("new", "open", values=values[i::3]) for i in range(3)]
    (row,) = of(closed(rows), "process_map")
    sketch = DDSketch(ERROR)
    for value in values:
        sketch.add(value)
    for percent in (50, 90, 99):
        found = row[f"p{percent}_s"] * 1e6
        rank = -(-len(values) * percent // 100) - 1
        exact = sorted(values)[rank]
        assert abs(found - exact) <= ERROR * exact * (1 + 1e-9) + 1
        # Both are within the error of the same value. Their rank is a share of all ranks from 0,
        # and may be one less by a float.
        theirs = sketch.get_quantile_value(rank / max(len(values) - 1, 1))
        assert theirs is not None
        near = sorted(values)[max(rank - 1, 0)]
        assert min(abs(theirs - exact) - ERROR * exact, abs(theirs - near) - ERROR * near) <= 1


@pytest.mark.parametrize("spec", ["fixed:1h", "sliding:3h/1h", "global"])
def test_nothing_in_nothing_out(spec: str) -> None:
    kernel = WindowKernel(windowing(spec), closes=True)
    empty = kernel.takes.empty_table()
    step = kernel.step(kernel.state_schema.empty_table(), empty, (), END)
    assert {name: rows.num_rows for name, rows in step.outputs.items()} == dict.fromkeys(
        kernel.outputs, 0
    )
    assert step.changed().num_rows == len(step.removed) == 0
    assert step.wake_at is None


def test_versions_and_levels_are_told_apart() -> None:
    rows = [flow(START), level(START, 2), flow(START, model_version="2")]
    told = of(closed(rows, quiet_windows=0), "flow")
    assert {r["model_version"]: r["active_cases"] for r in told} == {"1": 2, "2": 0}
    assert len({r["row_id"] for r in told}) == len(told)
