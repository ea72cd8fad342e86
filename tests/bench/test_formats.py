"""The section of message formats: what is decoded, and how figures become a table and targets."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench import decode, formats
from bench.measure import CommandFailed, Run
from bench.report import render, targets


@pytest.mark.parametrize("kind", decode.KINDS)
def test_every_message_that_is_measured_is_an_event(kind: str) -> None:
    assert decode.decode(kind, 1) == decode.BATCH


def test_the_program_writes_what_is_checked(tmp_path: Path) -> None:
    decode.main(["json_lines", "1", str(tmp_path)])
    formats._checker(decode.BATCH)(tmp_path)
    with pytest.raises(CommandFailed, match="10001 events were to be decoded, there are 10000"):
        formats._checker(decode.BATCH + 1)(tmp_path)


def measured(us: dict[str, float]) -> dict[str, Any]:
    """Return figures: CPU µs a message by kind, in processes that take 1 s to start."""
    entries = []
    for program, count in formats.contestants(quick=False):
        kind = program.name.removesuffix(formats.START)
        cpu = 1 + count * us[kind] / 1e6
        run = asdict(Run(cpu, cpu, 0, 0, 0, 0.0)) if kind in us else None
        entries.append({"name": program.name, "count": count, "runs": [run], "failure": None})
    return {
        "unit": "messages",
        "input": "",
        "cores": 1,
        "quick": False,
        "machine": "m",
        "date": "2026-11-27",
        "entries": entries,
    }


def test_targets_and_table() -> None:
    costs = {"zeebe": 6.0, "cloudevents": 8.0, "cloudevents_binary": 9, "json_lines": 2}
    m = {"formats/decode": measured({**costs, "mixed": 8.4})}
    assert [(t.measured, t.met) for t in targets(m)] == [
        ("166,667 messages/s", True),
        ("125,000 messages/s", False),
        ("1.20", True),
    ]
    text = render(m)
    assert "## Formats of messages, decoded" in text
    assert "| json_lines | 500,000 | 2.00 (2.00-2.00) |" in text
