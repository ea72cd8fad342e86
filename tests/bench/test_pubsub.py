"""How Pub/Sub's figures are made of what was measured. Nothing here measures time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.measure import CommandFailed
from bench.pubsub import FN_API, MESSAGES, PRISM, PUBSUB_SECTIONS, READING, whole
from bench.pubsub_report import rows
from bench.pubsub_runs import check_ids
from bench.report import render, targets
from bench.sections import Plan, measure


def a_run(**changes: Any) -> dict[str, Any]:
    plain = {
        "wall_s": 30.0,
        "cpu_s": 9.0,
        "tree_bytes": 2**29,
        "own_bytes": 2**28,
        "largest_bytes": 2**29,
        "foreign_cpu_s": 0.0,
        "messages": 50_000,
        "took_s": 20.0,
        "used_s": 4.0,
        "service_cpu_s": 8.0,
    }
    return {**plain, **changes}


def measured(entries: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    return {
        "unit": "messages",
        "input": "some messages",
        "cores": 2,
        "quick": False,
        "machine": "a machine",
        "date": "2026-01-05 10:00 UTC",
        "entries": [
            {
                "name": name,
                "count": 50_000,
                "runs": runs,
                "failure": None if runs else "it broke",
            }
            for name, runs in entries.items()
        ],
    }


@pytest.mark.parametrize(("used_s", "met"), [(4.0, True), (5.0, True), (6.25, False)])
def test_a_stream_is_judged_by_its_own_cpu(used_s: float, met: bool) -> None:
    run = a_run(used_s=used_s, took_s=100.0, cpu_s=100.0)
    found = targets({"pubsub/50000": measured({whole(FN_API): [run]})})

    assert [(t.text, t.measured, t.met) for t in found] == [
        (
            "Pub/Sub: at least 10,000 messages/s a core",
            f"{50_000 / used_s:,.0f} messages/s",
            met,
        )
    ]


def test_reading_has_its_own_target_and_prism_has_none() -> None:
    m = measured({READING: [a_run(used_s=2.0)], whole(PRISM): [a_run(used_s=8.0)]})
    found = targets({"pubsub/50000": m})

    assert [(t.text, t.measured, t.met) for t in found] == [
        ("Pub/Sub: at least 40,000 messages/s a core are read", "25,000 messages/s", False)
    ]


def test_the_double_is_told_apart_from_us() -> None:
    head, row = rows({"pubsub/50000": measured({whole(FN_API): [a_run()]})})

    assert dict(zip(head, row, strict=True)) == {
        "input": "some messages",
        "program": "run.py transitions, FnApiRunner",
        "messages/s": "2,500",
        "messages/s a core": "12,500",
        "CPU s / 1M messages": "80.0",
        "the double's CPU s / 1M": "160.0",
        "peak memory MiB": "512",
    }


def test_the_table_is_rendered_and_a_failed_entry_does_not_stop_it() -> None:
    m = measured({READING: [a_run()], whole(FN_API): [a_run()], whole(PRISM): []})
    text = render({"pubsub/50000": m})

    assert "## Pub/Sub, on its test double" in text
    assert "| some messages | run.py transitions, PrismRunner | failed |" in text
    assert "it broke" in text


@pytest.mark.parametrize("ids", [["a"], ["a", "a"], ["a", "b", "b"], []])
def test_every_row_must_come_once(ids: list[str]) -> None:
    check_ids(["a", "b"], 2, "")
    with pytest.raises(CommandFailed, match=f"2 rows were to be written; {len(ids)} are there"):
        check_ids(ids, 2, "what it said")


@pytest.mark.parametrize(
    ("quick", "events", "many"),
    [(False, None, MESSAGES), (True, None, 10_000), (False, 20_000, 20_000), (True, 500, 500)],
)
def test_a_section_has_its_size(quick: bool, events: int | None, many: int) -> None:
    plan = Plan(only=PUBSUB_SECTIONS, quick=quick, stream_events=events, runs=2)
    (match,) = plan.matches()

    assert match.key == f"pubsub/{many}"
    assert f"{many:,} JSON messages" in match.input


def test_without_go_the_section_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plan = Plan(only=PUBSUB_SECTIONS)
    (match,) = plan.matches()

    with pytest.raises(CommandFailed, match="^a Pub/Sub service: go is not on PATH; install Go"):
        measure(match, plan)
