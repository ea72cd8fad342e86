"""The bounded host: shards, chunks and batches change nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.messages import SECOND, START, messages, table
from transforms.exchange import Exchange
from transforms.fold.bounded import BoundedFold
from transforms.kernels.base import END
from transforms.kernels.case_state import Rules
from transforms.kernels.transitions import TransitionsKernel

relaxed = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def fold(
    rows: list[dict[str, Any]] | pa.Table,
    folder: str,
    rules: Rules,
    shards: int = 1,
    batch: int = 1000,
    chunk_bytes: int = 2**30,
    until_ms: int = END,
) -> tuple[dict[str, list[str]], Counter[str]]:
    exchange = Exchange(folder)
    packed: dict[int, list[bytes]] = {}
    events = rows if isinstance(rows, pa.Table) else table(rows)
    for start in range(0, len(rows), batch):
        for shard, each in exchange.split(events.slice(start, batch), "case_id", shards):
            packed.setdefault(shard, []).append(each)
    host = BoundedFold(TransitionsKernel(rules), 5 * SECOND, until_ms, True, exchange, chunk_bytes)
    outputs: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    for shard in sorted(packed):
        for folded in host.fold(packed[shard]):
            counts.update(folded.counts)
            for name, out in folded.outputs.items():
                outputs.setdefault(name, []).extend(map(repr, out.to_pylist()))
    return {name: sorted(found) for name, found in outputs.items() if found}, +counts


@pytest.mark.parametrize("by_reference", [True, False])
@pytest.mark.parametrize("rules", [Rules(end_states=frozenset({"end"})), Rules(complete_log=True)])
@relaxed
@given(
    rows=messages(),
    shards=st.integers(1, 4),
    batch=st.integers(1, 50),
    chunk_bytes=st.sampled_from([2_000, 20_000]),
)
def test_shards_batches_and_chunks_change_nothing(
    tmp_path: Path,
    rows: list[dict[str, Any]],
    by_reference: bool,
    rules: Rules,
    shards: int,
    batch: int,
    chunk_bytes: int,
) -> None:
    folder = str(tmp_path) if by_reference else ""
    whole, counts = fold(rows, folder, rules)
    parts, part_counts = fold(rows, folder, rules, shards, batch, chunk_bytes)
    assert parts == whole
    assert part_counts == counts
    kept = ("transitions", "duplicates", "late", "outside")
    assert sum(counts[name] for name in kept) == len(rows)


@relaxed
@given(rows=messages(), after=st.integers(0, 30))
def test_events_from_until_on_are_outside(rows: list[dict[str, Any]], after: int) -> None:
    until = START // 1000 + after * 1000
    outputs, counts = fold(rows, "", Rules(), until_ms=until)
    inside = [r for r in rows if _order(r) < until * 1000]
    expected, expected_counts = fold(inside, "", Rules())
    expected_counts["outside"] += len(rows) - len(inside)
    assert outputs == expected
    assert counts == +expected_counts


def _order(row: dict[str, Any]) -> int:
    record = row.get("record_time")
    time: int = row["event_time"]
    return time if record is None else max(time, record - 5 * SECOND)


def test_files_of_the_exchange_hold_only_columns_with_values(tmp_path: Path) -> None:
    row = {"case_id": "a", "activity": "x", "event_time": START}
    list(Exchange(str(tmp_path)).split(table([row]), "case_id", 4))
    (path,) = tmp_path.iterdir()
    with pa.memory_map(str(path)) as source:
        assert pa.ipc.open_file(source).schema.names == [
            "event_id",
            "case_id",
            "event_time",
            "activity",
            "state",
        ]
