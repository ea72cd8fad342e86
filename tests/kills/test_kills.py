"""A cut of the suite, and how its figures are made."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import orjson
import pytest

from tests.kills import recount, report
from tests.kills.scenario import VICTIMS, Victim, draw
from tests.kills.stage import Outcome, Recovery, play
from tests.services.provision import Missing, missing_part

SHORT: tuple[Victim, ...] = ("task manager", "worker pool", "harness")


@pytest.mark.xdist_group("flink")
def test_a_stream_outlives_what_it_runs_on(tmp_path: Path) -> None:
    scenario = draw(5, SHORT, rate=100, disorder_s=2, checkpoint_ms=2000)
    try:
        outcome = play(scenario, tmp_path)
    except Missing as missing:
        missing_part(missing.name, missing.why)
    assert outcome.differences == ()
    # Otherwise the comparison would say little.
    assert outcome.rows["transitions"] > 2000
    assert outcome.rows["late"] > 5
    assert outcome.rows["dead_letters"] > 20
    assert sum(outcome.repeats.values()) > 0
    for recovery in outcome.recoveries:
        assert recovery.tasks_s is not None
        assert recovery.rows_s > recovery.tasks_s


def test_a_seed_repeats_its_run() -> None:
    assert draw(3) == draw(3)
    assert {kill.victim for kill in draw(3).kills} == set(VICTIMS)
    assert len({tuple(kill.victim for kill in draw(seed).kills) for seed in range(10)}) > 5
    assert draw(3).high_availability
    assert not draw(3, SHORT).high_availability


def test_what_differs_is_found() -> None:
    rows = {id_: {"row_id": id_, "source": "in/0:1"} for id_ in "ab"}
    assert recount.differences("late", rows, rows) == []
    moved = {**rows, "b": {"row_id": "b", "source": "in/0:2"}}
    (found,) = recount.differences("late", moved, rows)
    assert "b: source 'in/0:2', not 'in/0:1'" in found
    only = {"a": rows["a"]}
    assert "1 lost" in recount.differences("late", only, rows)[0]
    assert "1 not wanted" in recount.differences("late", rows, only)[0]
    values = [orjson.dumps(each) for each in (rows["a"], rows["a"], {**rows["a"], "source": "x"})]
    assert len(recount.written("late", values[:2])[1]) == 0
    assert len(recount.written("late", values)[1]) == 1
    # The newest row of a case counts.
    assert recount.written("cases", values) == ({"a": {"row_id": "a", "source": "x"}}, [])


def test_figures_replace_those_of_before() -> None:
    scenario = draw(3, ("broker", "harness"))
    first, second = scenario.kills
    outcome = Outcome(
        scenario,
        90.0,
        1234,
        {"transitions": 1000, "late": 7},
        50,
        {"transitions": 20, "late": 1},
        (Recovery(first, None, 8.0, 0), Recovery(second, 12.34, 15.0, 21)),
        (),
    )
    when = datetime(2026, 1, 5, tzinfo=timezone.utc)
    text = report.render([outcome], "a machine", when)
    assert text.startswith("Measured 2026-01-05 on a machine: 2 kills.")
    assert "| 3 | json_lines | 1,234 | 1,007 | 7 | 50 | 21 | 0 | 1.5 |" in text
    assert "| never stopped | 8.0 | 0 |" in text
    assert "| 12.3 | 15.0 | 21 |" in text
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.put(page, text) == f"before\n{report.BEGIN}\n\n{text}\n\n{report.END}\nafter\n"
    with pytest.raises(ValueError, match="no place"):
        report.put("before", text)


def test_the_page_has_a_place_for_figures() -> None:
    assert report.put(report.PAGE.read_text("utf-8"), "new").count("new") >= 1
