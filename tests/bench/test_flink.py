"""How Flink's figures are made of what was measured. Nothing here measures time."""

from __future__ import annotations

from typing import Any

import pytest

from bench.flink import DISORDERS, FLINK_SECTIONS, flink_matches, java, ours
from bench.flink_job import options
from bench.flink_report import beside, settings, state
from bench.report import render
from bench.streams import NO_DISORDER


def a_run(**changes: Any) -> dict[str, Any]:
    plain = {
        "wall_s": 40.0,
        "cpu_s": 30.0,
        "tree_bytes": 2**30,
        "own_bytes": 2**29,
        "largest_bytes": 2**29,
        "foreign_cpu_s": 0.0,
        "rows": 1_000_000,
        "first_s": 20.0,
        "append_s": 20.0,
        "steady_us": 24.0,
        "broker_cpu_s": 3.0,
        "latency_ms": {},
        "tasks_s": 18.0,
        "half_s": 8.0,
        "checkpoints": [{"bytes": 2**20, "ms": 900}, {"bytes": 2**22, "ms": 400}],
    }
    return {**plain, **changes}


def measured(**entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "unit": "events",
        "input": "some events",
        "cores": 2,
        "quick": False,
        "machine": "a machine",
        "date": "2026-01-05 10:00 UTC",
        "entries": [
            {
                "name": name,
                "count": 1_000_000,
                "runs": runs,
                "failure": None if runs else "it broke",
            }
            for name, runs in entries.items()
        ],
    }


def test_ratios_are_ours_over_the_peers_with_the_same_disorder() -> None:
    fast = a_run(append_s=10.0, half_s=4.0, cpu_s=15.0, steady_us=12.0)
    runs = {ours(NO_DISORDER): [a_run()], java(NO_DISORDER): [fast]}

    _, mine, theirs = beside({"flink/1": measured(**runs)})

    assert mine[-4:] == ("", "", "", "")
    assert theirs[-4:] == ("0.50", "0.50", "2.00", "2.00")


def test_ratios_are_taken_within_a_round() -> None:
    slow_round = {"append_s": 40.0}
    runs = {
        ours(NO_DISORDER): [a_run(), a_run(**slow_round), a_run()],
        java(NO_DISORDER): [a_run(), a_run(**slow_round), a_run(append_s=10.0)],
    }

    *_, theirs = beside({"flink/1": measured(**runs)})

    assert theirs[-4] == "1.00"


def test_speed_is_that_from_the_first_row_and_that_of_the_second_half() -> None:
    _, row = settings({"flink_settings/1": measured(**{"2 / 1,000": [a_run()]})})

    assert row[1:4] == ("2 / 1,000", "50,000", "62,500")


def test_the_last_checkpoint_is_shown_and_the_longest() -> None:
    _, row = state({"flink_state/1": measured(**{"10,000": [a_run()]})})

    assert row[1:7] == ("10,000", "4.0", "419", "400", "900", "2")


@pytest.mark.parametrize("table", [beside, settings, state])
def test_a_contestant_that_failed_has_a_row_as_long_as_the_head(table: Any) -> None:
    head, *rows = table({"x/1": measured(**{"10,000": [], "100,000": [a_run()]})})

    assert rows[0][2] == "failed"
    assert {len(row) for row in rows} == {len(head)}


def test_every_section_is_rendered() -> None:
    found = {f"{name}/1": measured(**{"10,000": [a_run()]}) for name in FLINK_SECTIONS}

    assert render(found).count("## On Flink") == len(FLINK_SECTIONS)


def test_a_section_can_be_made_smaller() -> None:
    for name in FLINK_SECTIONS:
        (match,) = flink_matches(name, 100_000, 3)
        assert match.key == f"{name}/100000"
        assert match.rounds == (3 if name == "flink" else 1)


def test_each_disorder_has_a_peer_of_its_own() -> None:
    names = {name(disorder) for disorder in DISORDERS for name in (ours, java)}

    assert len(names) == 2 * len(DISORDERS)


def test_the_peer_is_told_where_to_read_and_write_and_that_it_is_to_end() -> None:
    words = options("localhost:9092", "events", "out-", disorder_ms=30_000, parallelism=1)
    given = dict(zip(words[::2], words[1::2], strict=True))

    assert given["--topic"] == "events"
    assert given["--prefix"] == "out-"
    assert given["--disorder"] == "30000"
    assert given["--checkpoint"] == "10000"
    assert given["--parallelism"] == "1"
    assert given["--until-end"] == "true"
