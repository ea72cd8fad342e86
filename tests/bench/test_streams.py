"""How the stream's figures are made of what was measured. Nothing here measures time."""

from __future__ import annotations

from typing import Any

import pytest

from bench import soak
from bench.report import render, targets
from bench.stream_runs import Sample, quantiles, steady_us
from bench.streams import FEW, MANY, NO_DISORDER, STREAM_SECTIONS, matches


def a_run(**changes: Any) -> dict[str, Any]:
    plain = {
        "wall_s": 20.0,
        "cpu_s": 15.0,
        "tree_bytes": 2**29,
        "own_bytes": 2**28,
        "largest_bytes": 2**29,
        "foreign_cpu_s": 0.0,
        "rows": 1_000_000,
        "first_s": 4.0,
        "append_s": 12.5,
        "steady_us": 10.0,
        "broker_cpu_s": 3.0,
        "latency_ms": {},
    }
    return {**plain, **changes}


def measured(*entries: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "unit": "events",
        "input": "some events",
        "cores": 2,
        "quick": False,
        "machine": "a machine",
        "date": "2026-01-05 10:00 UTC",
        "entries": [
            {"name": name, "count": 1_000_000, "runs": [run], "failure": None}
            for name, run in entries
        ],
    }


def test_cost_is_taken_over_the_second_half_of_the_rows() -> None:
    samples = [
        Sample(0, 0.0),
        Sample(0, 3.0),
        Sample(400, 5.0),
        Sample(500, 5.5),
        Sample(1000, 6.5),
    ]

    assert steady_us(samples) == pytest.approx(2000)


def test_a_job_without_rows_has_no_cost_a_row() -> None:
    assert steady_us([Sample(0, 0.0), Sample(0, 3.0)]) == 0


def test_quantiles_of_latencies() -> None:
    found = quantiles(list(range(101)))

    assert found == {"p50": 50, "p90": 90, "p99": 99, "max": 100}


@pytest.mark.parametrize(("append_s", "met"), [(12.5, True), (25.0, False)])
def test_speed_is_judged_from_the_first_row_to_the_last(append_s: float, met: bool) -> None:
    found = targets({"stream/1": measured((NO_DISORDER, a_run(append_s=append_s)))})

    assert [t.met for t in found] == [met]
    assert found[0].measured == f"{1_000_000 / append_s:,.0f} events/s"


def test_open_cases_are_judged_by_their_ratio() -> None:
    few, many = a_run(steady_us=10.0), a_run(steady_us=16.0)
    found = targets({"stream_state/1": measured((FEW, few), (MANY, many))})

    assert [(t.measured, t.met) for t in found] == [("1.60", False)]


def test_each_quantile_of_latency_has_its_target() -> None:
    run = a_run(latency_ms={"p50": 300.0, "p90": 600.0, "p99": 1200.0, "max": 2000.0})
    found = targets({"stream_latency/paced": measured(("paced", run))})

    assert [t.met for t in found] == [True, False]


def test_every_section_is_rendered_and_a_failed_one_does_not_stop_it() -> None:
    latency = {"p50": 1.0, "p90": 2.0, "p99": 3.0, "max": 4.0}
    found = {
        f"{name}/1": measured((NO_DISORDER, a_run(latency_ms=latency))) for name in STREAM_SECTIONS
    }
    failed = measured((NO_DISORDER, a_run()))
    failed["entries"][0].update(runs=[], failure="it failed")

    assert render(found).count("## A stream") == len(STREAM_SECTIONS)
    for name in STREAM_SECTIONS:
        assert "it failed" in render({f"{name}/1": failed})


def test_a_section_can_be_made_smaller() -> None:
    for name in STREAM_SECTIONS:
        (match,) = matches(name, 100_000, 1)
        assert match.key.startswith(f"{name}/")
        if name != "stream_latency":
            assert match.key.endswith("/100000")


def test_growth_of_memory_leaves_out_the_beginning() -> None:
    filling = [(hour / 10, 100.0 + 50 * hour) for hour in range(60)]
    then_leaking = [(hour / 10, 300.0 + 20 * hour / 10) for hour in range(60, 120)]

    slope, error = soak.growth(soak.settled(filling + then_leaking))

    assert slope == pytest.approx(20)
    assert error == pytest.approx(0, abs=1e-6)


def test_memory_that_goes_up_and_down_does_not_grow_beyond_its_error() -> None:
    up_and_down = [(at / 360, 400.0 + at * 7 % 120) for at in range(90)]

    slope, error = soak.growth(up_and_down)

    assert abs(slope) < 2 * error


def test_the_number_of_messages_is_read_from_the_laws() -> None:
    said = "stopping\nmessages  1,300,000 = 1,299,999 decoded + 0 skipped + 1 dead\nevents 3 = 3"

    assert soak.messages_read(said) == 1_300_000
    assert soak.messages_read("it broke") is None
