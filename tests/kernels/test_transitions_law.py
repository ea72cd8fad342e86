"""The fold law of the transitions kernel, and its columns against the plain rules."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.messages import SECOND, START, messages, table
from transforms.kernels.base import END
from transforms.kernels.case_batch import CaseBatch
from transforms.kernels.case_state import STATE_SCHEMA, Rules
from transforms.kernels.transitions import TransitionsKernel
from transforms.timeline import arrange

D = 5 * SECOND
RULES = [
    Rules(),
    Rules(end_states=frozenset({"end", "2"})),
    Rules(end_states=frozenset({"end", "1"}), since=START + 5 * SECOND),
    Rules(complete_log=True),
    Rules(end_states=frozenset({"2"}), complete_log=True),
]
APPEND = ("transitions", "late", "retracted")


class Run:
    """Folds a table in steps and keeps what came out."""

    def __init__(self, rules: Rules) -> None:
        self.kernel = TransitionsKernel(rules)
        self.state = STATE_SCHEMA.empty_table()
        self.append: dict[str, list[dict[str, Any]]] = {name: [] for name in APPEND}
        self.cases: dict[str, dict[str, Any]] = {}
        self.counts: Counter[str] = Counter()

    def step(self, events: pa.Table, until: int) -> None:
        result = self.kernel.step(self.state, events, [], until)
        for name, rows in result.outputs.items():
            assert rows.schema.equals(self.kernel.outputs[name].schema)
            rows.validate(full=True)
        for name in APPEND:
            self.append[name] += result.outputs[name].to_pylist()
        for row in result.outputs["cases"].to_pylist():
            self.cases[row["case_id"]] = row
        changed = result.changed()
        assert changed.schema.equals(STATE_SCHEMA)
        gone = pa.concat_arrays([changed["case_id"].combine_chunks(), result.removed])
        kept = self.state.filter(pc.invert(pc.is_in(self.state["case_id"], value_set=gone)))
        self.state = pa.concat_tables([kept, changed])
        self.counts.update(result.counts)

    def result(self) -> tuple[Any, ...]:
        tables = {name: sorted(map(repr, rows)) for name, rows in self.append.items()}
        state = sorted(map(repr, self.state.to_pylist()))
        return tables, {k: repr(v) for k, v in sorted(self.cases.items())}, self.counts, state


def fold(rows: list[dict[str, Any]], rules: Rules, untils: list[int]) -> Run:
    events = table(rows)
    run = Run(rules)
    times = (
        arrange(events, "case_id", D)["order_time"].cast(pa.int64()).to_numpy()
        if rows
        else np.empty(0, np.int64)
    )
    arranged = arrange(events, "case_id", D)
    done = np.zeros(len(times), bool)
    for until in untils:
        due = (times < until * 1000) & ~done
        done |= due
        run.step(arranged.filter(pa.array(due)), until)
    return run


LATEST = (START + 500 * 86_400 * SECOND) // 1000

untils_strategy = st.lists(
    st.one_of(
        st.integers(START // 1000, START // 1000 + 120_000),
        st.integers(START // 1000, START // 1000 + 400 * 86_400_000),
    ),
    max_size=6,
)
relaxed = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("end", [END, LATEST])
@pytest.mark.parametrize("rules", RULES)
@relaxed
@given(rows=messages(), untils=untils_strategy)
def test_any_number_of_steps_gives_the_same(
    rules: Rules, end: int, rows: list[dict[str, Any]], untils: list[int]
) -> None:
    whole = fold(rows, rules, [end])
    split = fold(rows, rules, [*sorted(untils), end])
    assert split.result() == whole.result()
    counts = whole.counts
    assert counts["events"] == len(rows)
    parts = ("transitions", "outside", "duplicates", "late")
    assert counts["events"] == sum(counts[part] for part in parts)
    if end == END or not rules.complete_log:  # which keeps back the last one of each case
        assert counts["transitions"] == len(whole.append["transitions"])


@pytest.mark.parametrize("rules", RULES)
@relaxed
@given(rows=messages(), untils=untils_strategy)
def test_columns_equal_the_plain_rules(
    rules: Rules, rows: list[dict[str, Any]], untils: list[int]
) -> None:
    columns = fold(rows, rules, [*sorted(untils), LATEST])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            CaseBatch,
            "rare_cases",
            lambda self, rules: np.arange(len(self.case_ids)) < self.cases_with_events,
        )
        plain = fold(rows, rules, [*sorted(untils), LATEST])
    assert columns.result() == plain.result()


@relaxed
@given(rows=messages(), seed=st.randoms(use_true_random=False))
def test_arrival_order_changes_nothing(rows: list[dict[str, Any]], seed: Any) -> None:
    shuffled = list(rows)
    seed.shuffle(shuffled)
    assert fold(shuffled, RULES[1], [END]).result()[:2] == fold(rows, RULES[1], [END]).result()[:2]


@relaxed
@given(rows=messages(), shards=st.integers(1, 5))
def test_shards_change_nothing(rows: list[dict[str, Any]], shards: int) -> None:
    whole = fold(rows, RULES[1], [END])
    parts = [
        fold([r for r in rows if ord(r["case_id"]) % shards == s], RULES[1], [END])
        for s in range(shards)
    ]
    for name in APPEND:
        rows_of_parts = [repr(row) for part in parts for row in part.append[name]]
        assert sorted(rows_of_parts) == sorted(map(repr, whole.append[name]))
    assert sum((part.counts for part in parts), Counter()) == +whole.counts
