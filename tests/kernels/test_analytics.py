"""Partial rows against their plain statement, and the fold law of the analytics kernel."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.messages import SECOND, START, messages, table
from transforms.hashing import hash_strings, to_hex
from transforms.kernels.analytics import AnalyticsKernel
from transforms.kernels.base import END
from transforms.kernels.case_rows import variant_lanes
from transforms.kernels.case_state import CaseFold, Rules, wake_ms
from transforms.kernels.completions import MOST_STATES
from transforms.kernels.partial_rows import (
    ACTOR,
    EDGE,
    FAMILY_OF_TABLES,
    FLOW,
    LEVEL,
    NAMES,
    PARTIALS,
    VARIANT,
    bin_of,
)
from transforms.kernels.transitions import TransitionsKernel
from transforms.timeline import arrange
from transforms.windows import Windowing, windowing

D = 5 * SECOND
LATEST = (START + 500 * 86_400 * SECOND) // 1000
RULES = [
    Rules(),
    Rules(end_states=frozenset({"end", "2"})),
    Rules(end_states=frozenset({"end", "1"}), since=START + 5 * SECOND),
    Rules(end_states=frozenset({"end", "1"}), case_retention=3 * SECOND, idle_retention=9 * SECOND),
    Rules(complete_log=True),
    Rules(end_states=frozenset({"2"}), complete_log=True, since=START + 5 * SECOND),
]
WINDOWS = ["fixed:5s", "sliding:30s/5s", "global", "fixed:1d@Europe/Berlin"]
relaxed = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])

SUMS = (
    "count",
    "timed",
    "sum_us",
    "started",
    "completed",
    "late",
    "rework",
    "illegal",
    "handovers",
)
KEY = ("kind", "bucket", "workflow_group", "model_version", "name", "to_state")


class Sums:
    """Partial rows put together by bucket and key."""

    def __init__(self) -> None:
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}

    def add(self, key: tuple[Any, ...], **numbers: Any) -> None:
        row = self.rows.setdefault(key, {"bins": Counter(), "cases": [], "min": [], "max": []})
        for name in SUMS:
            row[name] = row.get(name, 0) + (numbers.get(name) or 0)
        row["bins"].update(numbers.get("bins", {}))
        cases = numbers.get("cases", [])
        row["cases"] = [a + b for a, b in zip(row["cases"] or [0] * len(cases), cases, strict=True)]
        for name in ("min", "max"):
            row[name] += [numbers[f"{name}_us"]] if numbers.get(f"{name}_us") is not None else []
        if "states" in numbers:
            assert row.setdefault("states", numbers["states"]) == numbers["states"]

    def timed(self, key: tuple[Any, ...], duration: int, bins: bool, **numbers: Any) -> None:
        binned = Counter({int(bin_of(np.array([duration]))[0]): 1}) if bins else {}
        same = {"sum_us": duration}
        if bins:
            same |= {"min_us": duration, "max_us": duration}
        self.add(key, timed=1, bins=binned, **same, **numbers)

    def result(self) -> dict[tuple[Any, ...], Any]:
        done = {}
        for key, row in self.rows.items():
            if key[0] == LEVEL and row["count"] == 0:
                continue
            least, greatest = min(row["min"], default=None), max(row["max"], default=None)
            done[key] = {**row, "min": least, "max": greatest, "bins": dict(row["bins"])}
        return done


def merge(partials: list[dict[str, Any]]) -> dict[tuple[Any, ...], Any]:
    sums = Sums()
    for row in partials:
        numbers = {k: row[k] for k in (*SUMS, "min_us", "max_us")}
        bins, tallies = row["bins"] or [], row["tallies"] or []
        assert bins == sorted(set(bins))
        more = {"states": tuple(row["states"])} if row["states"] is not None else {}
        found = dict(zip(bins, tallies, strict=True))
        sums.add(
            tuple(row[k] for k in KEY), bins=found, cases=row["cases"] or [], **numbers, **more
        )
    return sums.result()


def level_of(state: dict[str, Any] | None, rules: Rules) -> tuple[Any, Any] | None:
    if state is None or state["last_time"] is None:
        return None
    if not rules.complete_log and state["state"] in rules.end_states:
        return None
    return state["workflow_group"], state["model_version"]


class Plain:
    """The partial rows of whole histories, one event after the other."""

    def __init__(self, rules: Rules, windows: Windowing) -> None:
        self.rules, self.windows, self.sums = rules, windows, Sums()

    def bucket(self, us: int) -> int:
        return int(self.windows.index(np.array([us]))[0])

    def level(self, us: int, was: Any, now: Any) -> None:
        for at, change in ((was, -1), (now, 1)):
            if at is not None:
                self.sums.add((LEVEL, self.bucket(us), *at, None, None), count=change)

    def case(self, case_id: str, events: list[dict[str, Any]], until: int) -> None:
        rules = self.rules
        fold = CaseFold(rules, case_id)
        self.taken: dict[Any, int] = {}
        for event in events:
            deadline = fold.deadline()
            was = level_of(fold.state, rules)
            if deadline is not None and deadline <= event["order_us"]:
                self.level(wake_ms(deadline, rules) * 1000, was, None)
                self.taken, was = {}, None
            moves, lates = len(fold.transitions), len(fold.late)
            fold.fold(event)
            assert fold.state is not None
            self.level(event["order_us"], was, level_of(fold.state, rules))
            bucket = self.bucket(event["order_us"])
            process = (event["workflow_group"], event["model_version"])
            if len(fold.late) > lates:
                self.sums.add((FLOW, bucket, *process, None, None), late=1)
            if len(fold.transitions) > moves:
                self.move(fold.transitions[-1], fold.state["visits"], bucket, process)
        state = fold.state
        if state is None:
            return
        is_open = level_of(state, rules)
        if rules.complete_log:
            if until >= END and is_open:
                self.level(state["updated"], is_open, None)
                if rules.since is None or state["last_time"] >= rules.since:
                    cycle = state["last_time"] - state["first_time"]
                    self.complete(self.bucket(state["updated"]), is_open, state["visits"], cycle)
        elif until >= END or fold.deadline() < until * 1000:  # type: ignore[operator]
            self.level(wake_ms(fold.deadline(), rules) * 1000, is_open, None)  # type: ignore[type-var, operator]

    def move(
        self, row: dict[str, Any], visits: list[int], bucket: int, process: tuple[Any, Any]
    ) -> None:
        group, state = process[0], row["to_state"]
        hashed = (int(hash_strings(pa.array([state]))[0]),)
        self.sums.add((NAMES, 0, group, None, state, None), states=hashed)
        if self.rules.since is not None and row["event_time"] < self.rules.since:
            return
        flow = (FLOW, bucket, *process, None, None)
        self.sums.add(flow, count=1, started=int(row["is_start"] is True))
        edge = (EDGE, bucket, *process, row["from_state"], state)
        actor = (ACTOR, bucket, group, None, row["actor"], None)
        pair = (row["previous_actor"], row["actor"])
        handover = int(None not in pair and pair[0] != pair[1])
        for key, more in ((edge, {}), (actor, {"handovers": handover})):
            now = {"count": 1, "cases": self.cases(key, bucket), **more}
            if row["duration_us"] is None:
                self.sums.add(key, **now)
            else:
                self.sums.timed(key, row["duration_us"], key is edge, **now)
        if state in self.rules.end_states and not self.rules.complete_log:
            self.complete(bucket, process, visits, row["elapsed_us"])

    def cases(self, key: tuple[Any, ...], bucket: int) -> list[int]:
        key = (key[0], *key[2:])
        last = self.taken.get(key)
        self.taken[key] = bucket
        size = self.windows.buckets
        return [int(last is None or last < bucket - j) for j in range(size)]

    def complete(self, bucket: int, process: tuple[Any, Any], visits: list[int], us: int) -> None:
        rework = int(len(set(visits)) < len(visits))
        self.sums.timed((FLOW, bucket, *process, None, None), us, True, completed=1, rework=rework)
        lanes = variant_lanes(np.array(visits, np.uint64), np.array([len(visits)]))
        key = (VARIANT, bucket, process[0], None, to_hex(*lanes)[0].as_py(), None)
        self.sums.timed(key, us, False, count=1, states=tuple(visits))


def plain(rows: list[dict[str, Any]], rules: Rules, windows: Windowing, until: int) -> Any:
    statement = Plain(rules, windows)
    cases: dict[str, list[dict[str, Any]]] = defaultdict(list)
    arranged = arrange(table(rows), "case_id", D)
    for name in ("event_time", "start_time", "record_time", "order_time"):
        at = arranged.schema.get_field_index(name)
        arranged = arranged.set_column(at, name, arranged[name].cast(pa.int64()))
    for i, event in enumerate(arranged.to_pylist()):
        event["hash"] = int(hash_strings(pa.array([event["event_id"]]))[0])
        event["state_hash"] = int(hash_strings(pa.array([event["state"]]))[0])
        cases[event["case_id"]].append({**event, "order_us": event["order_time"], "row": i})
    for case_id, events in cases.items():
        statement.case(case_id, events, until)
    return statement.sums.result()


def fold(
    rows: list[dict[str, Any]], rules: Rules, windows: Windowing, untils: list[int]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Fold in steps, and return the partial rows and the state."""
    kernel = AnalyticsKernel(TransitionsKernel(rules), windows)
    state = kernel.state_schema.empty_table()
    arranged = arrange(table(rows), "case_id", D)
    times = arranged["order_time"].cast(pa.int64()).to_numpy()
    done = np.zeros(len(times), bool)
    partials: list[dict[str, Any]] = []
    since = None
    for until in untils:
        due = (times < until * 1000) & ~done
        done |= due
        step = kernel.step(state, arranged.filter(pa.array(due)), [], until)
        assert set(step.outputs) == set(kernel.outputs)
        found = step.outputs["partials"]
        assert found.schema.equals(PARTIALS)
        found.validate(full=True)
        check_places(found.to_pylist(), windows, since, until)
        partials += found.to_pylist()
        changed = step.changed()
        assert changed.schema.equals(kernel.state_schema)
        gone = pa.concat_arrays([changed["case_id"].combine_chunks(), step.removed])
        kept = state.filter(pc.invert(pc.is_in(state["case_id"], value_set=gone)))
        state = pa.concat_tables([kept, changed])
        since = until
    return partials, sorted(map(repr, state.to_pylist()))


def check_places(
    rows: list[dict[str, Any]], windows: Windowing, since: int | None, until: int
) -> None:
    for row in rows:
        head = {LEVEL: "level", NAMES: "names"}.get(row["kind"], row["bucket"])
        assert row["slot"] == f"{head}|{row['workflow_group'] or ''}"
        at = int(row["order_time"].timestamp() * 1000)
        assert at < until
        if windows.kind != "global" and row["kind"] != NAMES:
            assert at < windows.start_ms(np.array([row["bucket"] + 1]))[0]
        # Levels of the past are those of a complete log that is over, and of cases forgotten.
        if since is not None and until < END and row["kind"] != LEVEL:
            assert at >= since


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Messages of cases whose group and version change."""
    rows = []
    for row in draw(messages()):
        group = draw(st.sampled_from(["Order", "Order", "Order", "Claim", None]))
        version = draw(st.sampled_from(["1", "1", "1", "2", None]))
        rows.append({**row, "workflow_group": group, "model_version": version})
    return rows


untils_strategy = st.lists(
    st.one_of(
        st.integers(START // 1000, START // 1000 + 120_000),
        st.integers(START // 1000, START // 1000 + 400 * 86_400_000),
    ),
    max_size=6,
)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("rules", RULES)
@relaxed
@given(rows=histories(), untils=untils_strategy, end=st.sampled_from([END, LATEST]))
def test_any_number_of_steps_sums_up_to_the_plain_statement(
    rules: Rules, window: str, rows: list[dict[str, Any]], untils: list[int], end: int
) -> None:
    windows = windowing(window)
    whole, state = fold(rows, rules, windows, [end])
    assert merge(whole) == plain(rows, rules, windows, end)
    split, state_of_split = fold(rows, rules, windows, [*sorted(untils), end])
    assert merge(split) == merge(whole)
    assert state_of_split == state


def events(
    states: list[str], case: str = "a", step: int = SECOND, **more: Any
) -> list[dict[str, Any]]:
    return [
        {
            "event_id": f"{case}{i}",
            "case_id": case,
            "event_time": START + i * step,
            "activity": state,
            **more,
        }
        for i, state in enumerate(states)
    ]


def of_kind(partials: list[dict[str, Any]], kind: int) -> list[dict[str, Any]]:
    return [row for row in partials if row["kind"] == kind]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("cuts", [[2], [4], [20], [2, 24], [2, 20], [4, 20, 24], [2, 4, 20, 24]])
def test_a_case_that_comes_back_after_it_was_forgotten_is_another_one(
    window: str, cuts: list[int]
) -> None:
    """It remembers nothing of before: neither when a step begins with its return nor within one."""
    times = {0: "x", 1: "y", 3: "z", 23: "x", 24: "y", 25: "z"}
    rows = [
        {"event_id": str(at), "case_id": "a", "event_time": START + at * SECOND, "activity": state}
        for at, state in times.items()
    ]
    rules = Rules(idle_retention=9 * SECOND)
    windows = windowing(window)
    # A moment later still nothing is forgotten, so that there is a state to compare.
    end = START // 1000 + 26_000
    whole, state = fold(rows, rules, windows, [end])
    assert merge(whole) == plain(rows, rules, windows, end)
    assert len(state) == 1
    untils = [START // 1000 + cut * 1000 for cut in cuts]
    split, state_of_split = fold(rows, rules, windows, [*untils, end])
    assert merge(split) == merge(whole)
    assert state_of_split == state


def test_no_event_gives_no_row() -> None:
    partials, state = fold([], Rules(), windowing("fixed:1h"), [END])
    assert partials == []
    assert state == []


def test_a_state_that_is_an_end_ten_thousand_times() -> None:
    rows = events(["go", *["end"] * 10_000])
    rules = Rules(end_states=frozenset({"end"}))
    partials, _ = fold(rows, rules, windowing("global"), [END])
    variants = of_kind(partials, VARIANT)
    assert len(variants) == 10_000
    assert max(len(row["states"]) for row in variants) == MOST_STATES
    assert sum(row["rework"] or 0 for row in of_kind(partials, FLOW)) == 9_999
    edges = {(row["name"], row["to_state"]): row for row in of_kind(partials, EDGE)}
    assert edges["end", "end"]["count"] == 9_999
    assert edges["end", "end"]["cases"] == [1]


def test_a_hundred_thousand_states() -> None:
    rows = events([f"s{i}" for i in range(100_000)], step=1000)
    partials, _ = fold(rows, Rules(), windowing("fixed:1h"), [END])
    assert len(of_kind(partials, EDGE)) == 100_000
    assert len(of_kind(partials, NAMES)) == 100_000


def test_names_of_every_kind_are_kept() -> None:
    rows = events(['<b>"x"</b>', "✅"], actor="Ann|e", workflow_group="a|b'c")
    partials, _ = fold(rows, Rules(), windowing("global"), [END])
    assert {row["name"] for row in of_kind(partials, NAMES)} == {'<b>"x"</b>', "✅"}
    assert {row["workflow_group"] for row in partials} == {"a|b'c"}
    assert {row["name"] for row in of_kind(partials, ACTOR)} == {"Ann|e"}


def test_work_is_handed_over_between_people_who_are_known() -> None:
    actors = ["anna", "ben", "ben", None, "anna", None, None, "ben", "anna"]
    rows = [{**row, "actor": a} for row, a in zip(events(list("abcdefghi")), actors, strict=True)]
    # The last of the case is remembered over steps, as who is known and as who is not.
    for cuts in ([], [1], [2, 4, 8]):
        untils = [START // 1000 + cut * 1000 for cut in cuts]
        partials, _ = fold(rows, Rules(), windowing("global"), [*untils, END])
        found: dict[str | None, list[int]] = {}
        for row in of_kind(partials, ACTOR):
            done = found.setdefault(row["name"], [0, 0])
            done[0] += row["count"]
            done[1] += row["handovers"]
        assert found == {"anna": [3, 1], "ben": [3, 1], None: [3, 0]}


def test_tables_of_the_transitions_kernel_are_kept_or_not() -> None:
    inner = TransitionsKernel(Rules(end_states=frozenset({"end"})))
    arranged = arrange(table(events(["go", "end"])), "case_id", D)
    kernel = AnalyticsKernel(inner, windowing("global"), frozenset({"transitions", "cases"}))
    step = kernel.step(kernel.state_schema.empty_table(), arranged, [], END)
    alone = inner.step(inner.state_schema.empty_table(), arranged, [], END)
    assert set(step.outputs) == {"transitions", "cases", "partials"}
    for name in ("transitions", "cases"):
        assert step.outputs[name].equals(alone.outputs[name])
    assert {k: v for k, v in step.counts.items() if k != "partials"} == alone.counts
    variant = of_kind(step.outputs["partials"].to_pylist(), VARIANT)[0]
    assert variant["name"] == step.outputs["cases"]["variant_id"][0].as_py()


@pytest.mark.parametrize("name", FAMILY_OF_TABLES)
def test_only_kinds_that_are_wanted_are_made(name: str) -> None:
    rows = [event for case in "abc" for event in events(["x", "y", "end"], case)]
    every = AnalyticsKernel(TransitionsKernel(RULES[1]), windowing("fixed:1h"))
    kinds = frozenset(FAMILY_OF_TABLES[name])
    some = replace(every, kinds=kinds)
    whole, part = (
        k.step(k.state_schema.empty_table(), arrange(table(rows), "case_id", D), [], END)
        .outputs["partials"]
        .to_pylist()
        for k in (every, some)
    )
    assert min(kinds) in {row["kind"] for row in part}
    assert part == [row for row in whole if row["kind"] in kinds]


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no table 'wages'; there are transitions, cases"):
        AnalyticsKernel(tables=frozenset({"wages"}))
