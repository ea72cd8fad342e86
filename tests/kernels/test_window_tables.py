"""The kernel of windows: its tables against plain Python, and the fold law."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.analytics import route_of
from tests.kernels.partials import HOUR, START, Host, Row, partials, table
from tests.kernels.plain_windows import keyed, plain
from transforms.kernels.base import END
from transforms.kernels.partial_rows import FAMILIES
from transforms.kernels.window_tables import WindowKernel
from transforms.windows import windowing

SPECS = [
    "fixed:1h",
    "fixed:4h",
    "sliding:3h/1h",
    "sliding:2d/1d@Europe/Berlin",
    "fixed:1d@Europe/Berlin",
    "global",
]
QUIET = 5
GRANULE = HOUR // 4
SPAN = 8 * 4
relaxed = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def granule(spec: str) -> int:
    return 8 * GRANULE if "@" in spec else GRANULE


def over(spec: str, until: int) -> int:
    return 0 if spec == "global" else int(windowing(spec).index(np.array([until * 1000]))[0])


def same(found: Any, said: Any) -> None:
    assert {n: set(rows) for n, rows in found.items() if rows} == {
        n: set(rows) for n, rows in said.items() if rows
    }
    for name, rows in said.items():
        for key, row in rows.items():
            for column, value in row.items():
                expected = pytest.approx(value, rel=1e-12) if isinstance(value, float) else value
                assert found[name][key][column] == expected, (name, key, column)
            assert set(found[name][key]) == set(row)


def split(data: st.DataObject, spec: str) -> tuple[list[int], list[int]]:
    """Draw ends of granules, and say all that there are."""
    unit = granule(spec)
    every = [START + i * unit for i in range(1, SPAN + 12)]
    some = data.draw(st.sets(st.sampled_from(every[:SPAN]), max_size=8))
    # Wakes that were due in the step before are met by the granule behind it.
    return sorted(some | set(every[SPAN:])), every


@pytest.mark.parametrize("spec", SPECS)
@relaxed
@given(data=st.data())
def test_a_closing_run_says_what_plain_python_says(spec: str, data: st.DataObject) -> None:
    cut = windowing(spec)
    rows = data.draw(partials(cut))
    last = data.draw(st.sampled_from([END, START + 5 * HOUR]))
    rows = [r for r in rows if r["order_time"] < last * 1000]
    kernel = WindowKernel(cut, closes=True, last_ms=last, quiet_windows=QUIET)
    untils = sorted(data.draw(st.sets(st.integers(START, START + 5 * HOUR - 1), max_size=3)))
    host = Host(kernel).run(rows, [*untils, last])
    limit = max((r["bucket"] for r in rows), default=0) + cut.buckets + QUIET + 1
    end = 1 if spec == "global" else min(over(spec, last) if last < END else limit, limit)
    same(keyed(host.panes, cut), plain(rows, cut, end, True, QUIET))
    assert all((r["pane"], r["pane_index"]) == ("final", 0) for _, r in host.panes)
    assert host.state.num_rows == 0
    assert host.counts["events"] == len(rows)


@pytest.mark.parametrize("spec", SPECS)
@relaxed
@given(data=st.data(), at_once=st.integers(1, 9))
def test_rows_that_come_in_parts_are_the_same(spec: str, data: st.DataObject, at_once: int) -> None:
    cut = windowing(spec)
    rows = data.draw(partials(cut))
    kernel = WindowKernel(cut, early_ms=granule(spec), quiet_windows=QUIET)
    some, _ = split(data, spec)
    whole, parts = (
        Host(each).run(rows, some) for each in (kernel, replace(kernel, at_once=at_once))
    )
    assert sorted(map(repr, parts.panes)) == sorted(map(repr, whole.panes))
    assert parts.known() == whole.known()
    assert parts.counts == whole.counts


@pytest.mark.parametrize("spec", SPECS)
@relaxed
@given(data=st.data(), each=st.integers(1, 5))
def test_shards_of_families_say_together_what_one_says(
    spec: str, data: st.DataObject, each: int
) -> None:
    cut = windowing(spec)
    rows = data.draw(partials(cut))
    route = route_of(cut, each)
    kernel = WindowKernel(cut, closes=True, last_ms=END, quiet_windows=QUIET)
    together = Host(kernel).run(rows, [END])
    # In chunks of mixed kinds, too.
    places = pa.concat_tables(
        [table(rows[i : i + 7]) for i in range(0, len(rows), 7)] or [table([])]
    )
    places = places.append_column("place", pa.array(range(len(rows)), pa.int64()))
    shards: dict[int, list[Row]] = defaultdict(list)
    for part, owners in route.parts(places):
        assert set(np.unique(owners)) <= set(range(route.shards))
        for place, owner in zip(part["place"].to_pylist(), owners.tolist(), strict=True):
            shards[owner].append(rows[place])
    assert sum(map(len, shards.values())) == len(rows)
    of_kind = {kind: family for family in FAMILIES for kind in family}
    assert all(len({of_kind[row["kind"]] for row in some}) == 1 for some in shards.values())
    panes = [pane for some in shards.values() for pane in Host(kernel).run(some, [END]).panes]
    assert sorted(map(repr, panes)) == sorted(map(repr, together.panes))


@pytest.mark.parametrize("spec", SPECS)
@relaxed
@given(data=st.data())
def test_a_stream_says_what_plain_python_says_of_windows_that_are_over(
    spec: str, data: st.DataObject
) -> None:
    cut = windowing(spec)
    rows = data.draw(partials(cut))
    some, _ = split(data, spec)
    host = Host(WindowKernel(cut, quiet_windows=QUIET)).run(rows, some)
    same(keyed(host.panes, cut), plain(rows, cut, over(spec, some[-1]), False, QUIET))


@pytest.mark.parametrize("early", [0, 1, 2])
@pytest.mark.parametrize("spec", SPECS)
@relaxed
@given(data=st.data())
def test_any_steps_give_the_same_rows_and_the_same_state(
    spec: str, early: int, data: st.DataObject
) -> None:
    cut = windowing(spec)
    rows = data.draw(partials(cut))
    most = 1000 if early else 3
    kernel = WindowKernel(cut, early_ms=early * granule(spec), quiet_windows=QUIET, most_keys=most)
    some, every = split(data, spec)
    few, all_of_them = Host(kernel).run(rows, some), Host(kernel).run(rows, every)
    assert few.newest.keys() == all_of_them.newest.keys()
    differ = [(r, all_of_them.newest[k]) for k, r in few.newest.items()]
    assert [pair for pair in differ if pair[0] != pair[1]] == []
    assert few.known() == all_of_them.known()


@pytest.mark.parametrize("spec", SPECS)
@relaxed
@given(data=st.data())
def test_early_panes_tell_what_is_known_of_open_windows(spec: str, data: st.DataObject) -> None:
    cut = windowing(spec)
    rows = data.draw(partials(cut))
    kernel = WindowKernel(cut, early_ms=granule(spec), quiet_windows=QUIET)
    some, _ = split(data, spec)
    # Not to the end: windows are still open.
    some = some[: data.draw(st.integers(1, len(some)))]
    some += [some[-1] + granule(spec), some[-1] + 2 * granule(spec)]
    rows = [r for r in rows if r["order_time"] < some[-3] * 1000]
    host = Host(kernel).run(rows, some)
    end = over(spec, some[-1])
    final = [(name, r) for (name, _), r in host.rows("final").items()]
    same(keyed(final, cut), plain(rows, cut, end, False, QUIET))
    early = [(name, r) for (name, _), r in host.rows("early").items()]
    said = plain(rows, cut, end, True, QUIET)
    of_open: dict[str, dict[Any, Row]] = {
        name: {key: row for key, row in found.items() if key[0] > end}
        for name, found in said.items()
    }
    same(keyed(early, cut), of_open)
