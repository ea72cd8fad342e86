"""What a backfill leaves of its state, and a stream that goes on from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fold.memory_store import MemoryStore
from tests.fold.test_bounded import fold as fold_bounded
from tests.fold.test_granules import D, Stream
from tests.kernels.messages import START, messages, table
from transforms.exchange import Exchange, shards_of
from transforms.fold.bounded import BoundedFold
from transforms.fold.elements import events_element, mark_element, state_element
from transforms.fold.granules import BEHIND, WAITING, GranuleFold
from transforms.fold.handover import (
    STATE,
    Handover,
    HandoverError,
    describe,
    state_output,
)
from transforms.fold.made import Setting
from transforms.fold.shard import Copies
from transforms.kernels.base import END
from transforms.kernels.case_state import STATE_SCHEMA, Rules
from transforms.kernels.transitions import TransitionsKernel
from transforms.sources.messages import DRAIN
from transforms.timeline import arrange, order_times

RULES = Rules(end_states=frozenset({"end", "1"}))
FOR_EVER = replace(RULES, case_retention=2**60, idle_retention=2**60)
"""What is read again is known only while its case is remembered."""
EXCHANGE = Exchange("")
UNTIL = START // 1000 + 60_000
SETTINGS = (
    Setting("disorder_ms", "--disorder", 30_000),
    Setting("end_states", "--end_states", ["done", "over"]),
    Setting("mask_key_check", "--mask_key", "abc", secret=True),
)
KERNEL = TransitionsKernel(RULES)
relaxed = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])

Tables = dict[str, list[str]]


def backfill(
    rows: list[dict[str, Any]],
    rules: Rules,
    until_ms: int,
    shards: int = 1,
    batch: int = 1000,
    chunk_bytes: int = 2**30,
) -> tuple[pa.Table, Tables]:
    """Return the state at `until`, sorted by case, and the rows of the tables."""
    host = BoundedFold(
        TransitionsKernel(rules), D, until_ms, False, EXCHANGE, chunk_bytes, keep_state=True
    )
    packed: dict[int, list[bytes]] = {}
    for start in range(0, len(rows), batch):
        part = table(rows[start : start + batch])
        for shard, each in EXCHANGE.split(part, "case_id", shards):
            packed.setdefault(shard, []).append(each)
    states = [STATE_SCHEMA.empty_table()]
    tables: Tables = {}
    for own in packed.values():
        *before, last = host.fold(own)
        assert [folded.state for folded in before] == [None] * len(before)
        assert last.state is not None
        states.append(last.state)
        for folded in (*before, last):
            for name, found in folded.outputs.items():
                tables.setdefault(name, []).extend(map(repr, found.to_pylist()))
    state = pa.concat_tables(states)
    return state.take(pa.array(sorted_rows(state), pa.int64())), tables


def sorted_rows(state: pa.Table) -> list[int]:
    cases = state["case_id"].to_pylist()
    return sorted(range(len(cases)), key=lambda row: cases[row])


@pytest.mark.parametrize("rules", [Rules(), RULES, replace(RULES, case_retention=5_000_000)])
@relaxed
@given(
    rows=messages(),
    after_s=st.sampled_from([0, 3, 20, 86_400 * 41, 86_400 * 900]),
    shards=st.integers(1, 4),
    batch=st.integers(1, 50),
    chunk_bytes=st.sampled_from([2_000, 20_000]),
)
def test_shards_batches_and_chunks_change_nothing_in_the_state(
    rules: Rules,
    rows: list[dict[str, Any]],
    after_s: int,
    shards: int,
    batch: int,
    chunk_bytes: int,
) -> None:
    until = START // 1000 + after_s * 1000
    found, _ = backfill(rows, rules, until, shards, batch, chunk_bytes)
    events = table(rows)
    inside = events.filter(pa.array(order_times(events, D) < until * 1000)) if rows else events
    arranged = arrange(inside, "case_id", D)
    step = TransitionsKernel(rules).step(STATE_SCHEMA.empty_table(), arranged, (), until)
    plain = step.changed()
    plain = plain.take(pa.array(sorted_rows(plain), pa.int64()))
    assert found.to_pylist() == plain.to_pylist()
    # It is never needed: a case that is held back ends with the run.
    assert found["held"].null_count == found.num_rows


def test_state_is_made_only_when_it_is_asked_for() -> None:
    row = {"case_id": "a", "event_id": "1", "event_time": START, "activity": "go"}
    [(_, packed)] = EXCHANGE.split(table([row]), "case_id", 1)
    [folded] = BoundedFold(KERNEL, D, UNTIL, False, EXCHANGE).fold([packed])
    assert folded.state is None


@pytest.mark.parametrize("by_marks", [False, True])
@relaxed
@given(
    data=st.data(),
    rows=messages(),
    cut=st.integers(0, 25),
    again=st.integers(0, 25),
    shards=st.integers(1, 3),
    batch=st.integers(1, 9),
)
def test_a_backfill_and_its_stream_equal_one_backfill(
    data: Any,
    by_marks: bool,
    rows: list[dict[str, Any]],
    cut: int,
    again: int,
    shards: int,
    batch: int,
) -> None:
    """The stream reads some of the archive once more; bundles fail, workers forget."""
    random = data.draw(st.randoms(use_true_random=False))
    times = (order_times(table(rows), D) // 1000).tolist() if rows else []
    order = sorted(range(len(rows)), key=lambda i: times[i])
    rows = [rows[i] for i in order]
    times.sort()
    until = times[min(cut, len(rows) - 1)] if rows else START // 1000
    first = sum(time < until for time in times)
    # Behind until the archive may hold anything.
    state, tables = backfill(rows, FOR_EVER, until, chunk_bytes=5_000)
    read = [*rows[max(0, first - again) : first], *rows[first:]]
    random.shuffle(read)
    host = GranuleFold(TransitionsKernel(FOR_EVER), D, 1000, by_marks)
    chance = lambda: random.choice(["work", "work", "fail", "forget"])  # noqa: E731
    stream = Stream(host, shards, chance)
    owners = shards_of(state["case_id"], shards) if state.num_rows else pa.array([], pa.uint16())
    for shard in range(shards):
        own = state.filter(pa.array([owner == shard for owner in owners.tolist()], pa.bool_()))
        stream.deliver(shard, state_element(own, until))
    for start in range(0, len(read), batch):
        part = table(read[start : start + batch])
        for shard, packed in EXCHANGE.split(part, "case_id", shards):
            stream.deliver(shard, events_element(packed))
    for shard in range(shards if by_marks else 0):
        stream.deliver(shard, mark_element(0, 1, DRAIN))
    stream.advance(END)
    whole, _ = fold_bounded(rows, "", FOR_EVER)
    for name, found in stream.append.items():
        tables.setdefault(name, []).extend(found)
    cases = {row.split("'")[7]: row for row in tables.pop("cases", [])}
    cases |= {key[1]: row for key, row in stream.newest.items()}
    tables["cases"] = list(cases.values())
    assert {name: sorted(found) for name, found in tables.items() if found} == whole
    # All that was read again is known: it is no news, and none of it waited.
    assert not stream.counts[BEHIND]


def test_the_overlap_does_not_wait_and_what_is_new_in_it_is_counted() -> None:
    def event(number: int, time: int) -> dict[str, Any]:
        own = {"event_id": str(number), "case_id": "a", "event_time": time, "activity": "go"}
        return {**own, "record_time": time}

    early = [event(n, START + n * 1_000_000) for n in range(10)]
    state, _ = backfill(early[:5], FOR_EVER, UNTIL)
    host = GranuleFold(TransitionsKernel(FOR_EVER), D, 1000)
    stream = Stream(host, 1, lambda: "forget")
    stream.deliver(0, state_element(state, UNTIL))
    late = event(99, UNTIL * 1000 + 500)
    for some in (early[:6], early[4:9], [*early, late], [late]):
        [(_, packed)] = EXCHANGE.split(table(some), "case_id", 1)
        stream.deliver(0, events_element(packed))
    assert stream.counts == Counter(
        {BEHIND: 5, "transitions": 5, "duplicates": 6 + 5 + 10 - 5, WAITING: 2}
    ) | Counter({name: 0 for name in stream.counts})
    assert [row.split("'sequence': ")[1][0] for row in stream.append["transitions"]] == list(
        "56789"
    )
    [case] = stream.newest.values()
    # The last moment before the end of what is known: UNTIL is 22:14:20.
    assert "'updated_at': datetime.datetime(2023, 11, 14, 22, 14, 19, 999999," in case
    copy = stream.copies.pop((stream, 0))
    assert copy is not None
    assert copy.rows() == 2
    stream.advance(END)
    assert stream.counts["transitions"] == 6
    assert stream.counts["duplicates"] == 17


# What is on the disk


def left(folder: Path, rows: pa.Table, parts: int = 3, **changed: Any) -> Path:
    """Write what a backfill leaves."""
    (folder / STATE).mkdir(parents=True, exist_ok=True)
    for part in range(parts):
        own = rows.filter(pa.array(shards_of(rows["case_id"], parts) == part))
        output = state_output(KERNEL, own)
        path = folder / STATE / f"{STATE}-{part:05d}-of-{parts:05d}.parquet"
        pq.write_table(own.select(output.schema.names), path)
    state = {**describe(KERNEL, 1, UNTIL, SETTINGS), "rows": rows.num_rows, **changed}
    manifest = {"run_id": "a run", "tables": {}, STATE: state}
    (folder / "_run.json").write_bytes(orjson.dumps(manifest))
    return folder


def some_state(cases: int) -> pa.Table:
    rows = [
        {"case_id": str(n), "event_id": f"e{n}", "event_time": START + n, "activity": "go"}
        for n in range(cases)
    ]
    return backfill(rows, RULES, UNTIL)[0]


def opened(folder: Path, shards: int = 4, **changed: Any) -> Handover:
    return Handover.open(str(folder), KERNEL, SETTINGS, shards, UNTIL + 1, **changed)


@pytest.mark.parametrize("shards", [1, 4])
def test_each_shard_gets_its_own_rows(
    tmp_path: Path, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.fold.handover._READ_ROWS", 7)
    state = some_state(100)
    found = opened(left(tmp_path, state), shards)
    gathered = []
    for shard in range(shards):
        rows = found.table(shard)
        assert (shards_of(rows["case_id"], shards) == shard).all()
        store = MemoryStore()
        copies = Copies()
        GranuleFold(KERNEL, D, 1000).receive(store, copies, 0, found.element(shard))
        copy = copies.pop(0)
        assert copy is not None
        gathered += copy.state.all().to_pylist()
    assert sorted(gathered, key=repr) == sorted(state.to_pylist(), key=repr)


def test_the_files_are_read_once_and_again_for_a_shard_that_has_lost_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    from transforms.fold import handover  # noqa: PLC0415

    plain = handover._batches

    def counted(path: str) -> Iterator[pa.Table]:
        reads.append(path)
        return plain(path)

    monkeypatch.setattr(handover, "_batches", counted)
    found = opened(left(tmp_path, some_state(50)))
    once = [found.table(shard).to_pylist() for shard in range(4)]
    assert len(reads) == 3
    assert found.table(2).to_pylist() == once[2]
    assert len(reads) == 6


def test_a_state_without_rows(tmp_path: Path) -> None:
    folder = left(tmp_path, some_state(0), parts=0)
    output = state_output(KERNEL)
    pq.write_table(output.schema.empty_table(), folder / STATE / f"{STATE}-00000-of-00001.parquet")
    store = MemoryStore()
    GranuleFold(KERNEL, D, 1000).receive(store, Copies(), 0, opened(folder).element(3))
    assert store.mark is not None
    assert orjson.loads(store.mark)["fired"] == UNTIL


def test_an_output_that_is_written_anew_meanwhile_is_noticed(tmp_path: Path) -> None:
    found = opened(left(tmp_path, some_state(5)))
    manifest = orjson.loads((tmp_path / "_run.json").read_bytes())
    (tmp_path / "_run.json").write_bytes(orjson.dumps({**manifest, "run_id": "another"}))
    with pytest.raises(HandoverError, match="has been written anew since this stream started"):
        found.table(0)


def test_a_part_that_is_missing_is_noticed(tmp_path: Path) -> None:
    found = opened(left(tmp_path, some_state(50)))
    next((tmp_path / STATE).iterdir()).unlink()
    with pytest.raises(HandoverError, match="rows, and its run wrote 50"):
        found.table(0)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"kernel": "rules"}, "has a state of rules, and this is transitions"),
        ({"version": 2}, "of version 2, and this program reads 1"),
        (
            {"disorder_ms": 5000},
            "made with --disorder 5s, where this stream has --disorder 30s$",
        ),
        (
            {"disorder_ms": 86_400_000, "end_states": []},
            r"--disorder 1d, where this stream has --disorder 30s; and with "
            r"--end_states \(none\), where this stream has --end_states done,over$",
        ),
        ({"mask_key_check": "xyz"}, "made with another --mask_key$"),
        ({"until_ms": UNTIL + 5001}, "of the future, 5 s from now"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    tmp_path: Path, changed: dict[str, Any], text: str
) -> None:
    left(tmp_path, some_state(1), **changed)
    with pytest.raises(HandoverError, match=text):
        opened(tmp_path)


def test_an_older_version_is_taken_where_it_can_be_upgraded(tmp_path: Path) -> None:
    left(tmp_path, some_state(1))
    assert opened(tmp_path, version=2, upgradable=(1,)).version == 1
    with pytest.raises(HandoverError, match="of version 1, and this program reads 2"):
        opened(tmp_path, version=2)


def test_no_state_and_no_run(tmp_path: Path) -> None:
    with pytest.raises(HandoverError, match="holds no finished run"):
        opened(tmp_path / "nothing")
    (tmp_path / "_run.json").write_text('{"run_id": "x", ')
    with pytest.raises(HandoverError, match="_run.json can't be read as what a run says of itself"):
        opened(tmp_path)
    (tmp_path / "_run.json").write_text('{"run_id": "x", "tables": {}}')
    with pytest.raises(HandoverError, match="run that backfill with --keep_state"):
        opened(tmp_path)
