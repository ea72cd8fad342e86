"""The section of message formats: what `bench.decode` measures, its table and its targets."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.decode import BATCH, KINDS
from bench.measure import CommandFailed, Contestant, Run, python

FORMAT_SECTIONS = ("formats",)
START = ", start only"
ROUNDS, QUICK = 60, 3
LEAST = 150_000
"""Messages/s that a core has to decode."""
MOST_MIXED = 1.3
"""Cost of a topic of two formats, by that of the formats apart."""
CHECKED = ("zeebe", "cloudevents")

Measurement = Mapping[str, Any]


def contestants(quick: bool) -> Iterator[tuple[Contestant, int]]:
    """Yield programs, and how many messages each decodes."""
    rounds = QUICK if quick else ROUNDS
    for kind in KINDS:
        for name, times in ((kind + START, 0), (kind, rounds)):
            command = python("-m", "bench.decode", kind, str(times), "{output}")
            yield Contestant(name, command, _checker(times * BATCH), 1), times * BATCH


def _checker(events: int) -> Callable[[Path], None]:
    def check(output: Path) -> None:
        found = json.loads((output / "events.json").read_text())
        if found != events:
            reason = f"{events} events were to be decoded, there are {found}"
            raise CommandFailed(reason)

    return check


def costs(m: Measurement, kind: str) -> list[float]:
    """Return CPU seconds a message, round by round, the start of the process left out."""
    runs = {e["name"]: [Run(**r) for r in e["runs"]] for e in m["entries"]}
    counts = {e["name"]: e["count"] for e in m["entries"]}
    pairs = zip(runs.get(kind, ()), runs.get(kind + START, ()), strict=False)
    return [(long.cpu_s - short.cpu_s) / counts[kind] for long, short in pairs]


def _mixed(m: Measurement) -> float | None:
    rounds = zip(*(costs(m, kind) for kind in ("mixed", *CHECKED)), strict=False)
    ratios = [both / statistics.mean(apart) for both, *apart in rounds]
    return statistics.median(ratios) if ratios else None


def judge(m: Measurement) -> Iterator[tuple[str, str, bool]]:
    """Judge what was measured against what is promised."""
    for kind in CHECKED:
        found = costs(m, kind)
        if found:
            rate = 1 / statistics.median(found)
            text = f"{kind}: at least {LEAST:,} messages/s a core are decoded"
            yield text, f"{rate:,.0f} messages/s", rate >= LEAST
    ratio = _mixed(m)
    if ratio is not None:
        text = f"a topic of two formats costs at most {MOST_MIXED} times the two apart"
        yield text, f"{ratio:.2f}", ratio <= MOST_MIXED


def rows(measurements: Mapping[str, Measurement]) -> Iterator[Sequence[str]]:
    """Yield the rows of the table, its head first."""
    yield ("messages", "messages/s a core", "CPU µs a message (least-greatest)")
    for m in measurements.values():
        for kind in KINDS:
            found = costs(m, kind)
            if found:
                middle = statistics.median(found)
                spread = f"{middle * 1e6:.2f} ({min(found) * 1e6:.2f}-{max(found) * 1e6:.2f})"
                yield kind, f"{1 / middle:,.0f}", spread
            else:
                yield kind, "failed", ""


NOTE = (
    f"One thread, batches of {BATCH:,} messages, from what a source packs to event tables, with "
    "`--format auto` (`bench/decode.py`); the start of the process is left out. `mixed` is "
    "`zeebe` and `cloudevents` in turns."
)
