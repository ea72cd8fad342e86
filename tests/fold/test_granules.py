"""The streaming host: equal to the bounded one, whatever comes when, and through restarts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.coders import pack
from schemas.events import EVENT_SCHEMA, ORDERED_SCHEMA
from tests.fold.memory_store import MemoryStore
from tests.fold.test_bounded import fold as fold_bounded
from tests.kernels.messages import SECOND, START, messages, table
from transforms.exchange import Exchange, fetch, with_schema
from transforms.fold.elements import control_element, events_element, mark_element, state_element
from transforms.fold.granules import BEHIND, Fired, GranuleFold
from transforms.fold.made import Setting
from transforms.fold.shard import Copies
from transforms.kernels.base import END, Control, Kernel, Step
from transforms.kernels.case_state import STATE_SCHEMA, Rules
from transforms.kernels.transitions import TransitionsKernel
from transforms.sources.messages import DRAIN
from transforms.timeline import BeamTime, arrange, order_times

D = 5 * SECOND
RULES = Rules(end_states=frozenset({"end", "1"}))
FOR_EVER = Rules(frozenset({"end", "1"}), case_retention=2**60, idle_retention=2**60)
"""What is read again may be known only while its case is remembered."""
EXCHANGE = Exchange("")
relaxed = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Stream:
    """A runner of one fold: delivers elements, moves the watermark, fires, fails, forgets."""

    def __init__(self, host: GranuleFold, shards: int, draw: Any) -> None:
        self.host = host
        self.stores = [MemoryStore() for _ in range(shards)]
        self.copies = Copies()
        self.append: dict[str, list[str]] = {}
        self.newest: dict[tuple[Any, ...], str] = {}
        self.counts: Counter[str] = Counter()
        self.chance = draw

    def deliver(self, shard: int, element: bytes) -> None:
        counts, fired = self._bundle(
            shard, lambda s: self.host.receive(s, self.copies, (self, shard), element)
        )
        self.counts.update(counts)
        self._take(fired)

    def advance(self, watermark_ms: int) -> None:
        """Fire every timer that the watermark has passed."""
        for shard in range(len(self.stores)):
            while (timer := self.stores[shard].timer) is not None and timer < watermark_ms:
                self._fire(shard, timer)

    def _fire(self, shard: int, timer: int) -> None:
        self.stores[shard].timer = None
        fired = self._bundle(shard, lambda s: self.host.fire(s, self.copies, (self, shard), timer))
        self._take(fired)

    def _take(self, fired: Fired | None) -> None:
        if fired is None:
            return
        self.counts.update(fired.counts)
        for name, rows in fired.outputs.items():
            output = self.host.kernel.outputs[name]
            for row in rows.to_pylist():
                if output.mode == "append":
                    self.append.setdefault(name, []).append(repr(row))
                else:
                    key = (name, *(row[k] for k in output.key))
                    self.newest[key] = repr(row)

    def _bundle(self, shard: int, work: Any) -> Any:
        """Do the work in a bundle that may fail after it is done, and on workers that forget."""
        what = self.chance()
        if what == "fail":
            before = self.stores[shard].save()
            work(self.stores[shard])
            self.stores[shard] = before
        elif what == "forget":
            self.copies.clear()
        return work(self.stores[shard])

    def tables(self) -> dict[str, list[str]]:
        found = {name: sorted(rows) for name, rows in self.append.items() if rows}
        for (name, *_), row in sorted(self.newest.items(), key=repr):
            found.setdefault(name, []).append(row)
        return {name: sorted(rows) for name, rows in found.items()}


def run(
    rows: list[dict[str, Any]],
    host: GranuleFold,
    shards: int,
    batch: int,
    chance: Any,
    say_complete: bool,
) -> Stream:
    """Stream rows in batches; the watermark is the earliest order time still to come."""
    stream = Stream(host, shards, chance)
    times = [order_times(table([row]), D)[0] // 1000 for row in rows]
    for start in range(0, len(rows), batch):
        ahead = min(times[start + batch :], default=END)
        for shard, packed in EXCHANGE.split(table(rows[start : start + batch]), "case_id", shards):
            said = (0, 1, int(ahead)) if say_complete else ()
            stream.deliver(shard, events_element(packed, *said))
        if host.by_marks:
            for shard in range(shards):
                stream.deliver(shard, mark_element(0, 1, int(ahead)))
        stream.advance(min(int(ahead), (START + 10**9 * SECOND) // 1000))
    if host.by_marks:
        for shard in range(shards):
            stream.deliver(shard, mark_element(0, 1, DRAIN))
    stream.advance(END)
    return stream


@pytest.mark.parametrize("rules", [Rules(), RULES, Rules(since=START + 5 * SECOND)])
@relaxed
@given(
    data=st.data(),
    rows=messages(),
    granule_ms=st.sampled_from([1, 200, 1_000, 60_000, 86_400_000]),
    shards=st.integers(1, 4),
    batch=st.integers(1, 12),
    by_marks=st.booleans(),
    catch_up=st.booleans(),
    say_complete=st.booleans(),
)
def test_the_stream_equals_the_backfill(
    rules: Rules,
    data: Any,
    rows: list[dict[str, Any]],
    granule_ms: int,
    shards: int,
    batch: int,
    by_marks: bool,
    catch_up: bool,
    say_complete: bool,
) -> None:
    random = data.draw(st.randoms(use_true_random=False))
    behind = data.draw(st.sampled_from([0, 10, 10_000, 86_400 * 500]))
    host = GranuleFold(
        TransitionsKernel(rules),
        D,
        granule_ms,
        by_marks,
        catch_up or by_marks,
        clock=lambda: START // SECOND + behind * random.random(),
    )
    random.shuffle(rows)
    stream = run(
        rows,
        host,
        shards,
        batch,
        lambda: random.choice(["work", "work", "fail", "forget"]),
        say_complete,
    )
    whole, counts = fold_bounded(rows, "", rules)
    assert stream.tables() == whole
    assert +stream.counts == counts
    kept = ("transitions", "duplicates", "late", "outside")
    assert sum(stream.counts[name] for name in kept) == len(rows)


@relaxed
@given(rows=messages(), batch=st.integers(1, 12))
def test_bags_are_not_read_while_the_copy_holds(rows: list[dict[str, Any]], batch: int) -> None:
    stream = run(rows, GranuleFold(TransitionsKernel(RULES), D, 1000), 1, batch, str, True)
    assert stream.stores[0].reads == 0
    assert stream.stores[0].bags["pending"] == []


@relaxed
@given(
    rows=messages(),
    cut=st.integers(0, 25),
    shards=st.integers(1, 3),
    overlap=st.integers(0, 5),
)
def test_state_handed_over_goes_on(
    rows: list[dict[str, Any]], cut: int, shards: int, overlap: int
) -> None:
    """What a backfill has folded, a stream goes on from, though it reads some of it again."""
    found: list[int] = (order_times(table(rows), D) // 1000).tolist() if rows else []
    rows = [rows[i] for i in sorted(range(len(rows)), key=lambda i: found[i])]
    times = sorted(found)
    until = int(times[min(cut, len(rows) - 1)]) if rows else START // 1000
    early = [row for row, time in zip(rows, times, strict=True) if time < until]
    late = [row for row, time in zip(rows, times, strict=True) if time >= until]
    stream = Stream(GranuleFold(TransitionsKernel(FOR_EVER), D, 1000), shards, str)
    kernel = TransitionsKernel(FOR_EVER)
    before, counts = fold_bounded(early, "", FOR_EVER, until_ms=until)
    for shard, packed in EXCHANGE.split(table(early), "case_id", shards) if early else ():
        events = with_schema([fetch(packed)], EVENT_SCHEMA)
        step = kernel.step(STATE_SCHEMA.empty_table(), arrange(events, "case_id", D), (), until)
        stream.deliver(shard, state_element(step.changed(), until))
    again = early[len(early) - overlap :] if overlap else []
    for shard, packed in EXCHANGE.split(table(again + late), "case_id", shards) if rows else ():
        stream.deliver(shard, events_element(packed))
    stream.advance(END)
    whole, whole_counts = fold_bounded(rows, "", FOR_EVER)
    cases = {row.split("'")[3]: row for row in before.pop("cases", [])}
    cases |= {row.split("'")[3]: row for row in stream.tables().get("cases", [])}
    append = {
        name: sorted(before.get(name, []) + stream.append.get(name, []))
        for name in ("transitions", "late", "retracted")
    }
    assert {name: found for name, found in append.items() if found} == {
        name: found for name, found in whole.items() if name != "cases"
    }
    assert sorted(cases.values()) == whole.get("cases", [])
    assert counts["transitions"] + stream.counts["transitions"] == whole_counts["transitions"]


def test_an_event_behind_the_watermark_is_folded_and_counted() -> None:
    rows = [
        {"event_id": str(i), "case_id": "a", "event_time": START + i * SECOND, "activity": "go"}
        for i in range(4)
    ]
    stream = Stream(GranuleFold(TransitionsKernel(RULES), D, 1000, catch_up=False), 1, str)
    for i in (0, 1, 3, 2):
        [(shard, packed)] = EXCHANGE.split(table([rows[i]]), "case_id", 1)
        stream.deliver(shard, events_element(packed))
        stream.advance((START + (i + 1) * SECOND) // 1000 + 1000)
    stream.advance(END)
    assert stream.counts[BEHIND] == 1
    assert stream.counts["transitions"] == 3
    assert stream.counts["late"] == 1


def test_a_timer_that_is_early_only_sets_itself_again() -> None:
    stream = Stream(GranuleFold(TransitionsKernel(RULES), D, 1000, catch_up=False), 1, str)
    [(_, packed)] = EXCHANGE.split(
        table([{"event_id": "1", "case_id": "a", "event_time": START, "activity": "go"}]),
        "case_id",
        1,
    )
    stream.deliver(0, events_element(packed))
    store = stream.stores[0]
    timer = store.timer
    assert timer == START // 1000 + 999
    assert stream.host.fire(store, stream.copies, (stream, 0), timer - 1) is None
    assert store.timer == timer
    assert stream.host.fire(store, stream.copies, (stream, 0), timer) is not None


def test_a_newer_state_is_refused_and_an_older_one_upgraded() -> None:
    store, copies = MemoryStore(), Copies()
    old = STATE_SCHEMA.remove(STATE_SCHEMA.get_field_index("lates"))
    rows = pa.Table.from_pylist([{"case_id": "a", "next_sequence": 2}], schema=old)

    def add_lates(table: pa.Table) -> pa.Table:
        return table.append_column("lates", pa.array([0] * table.num_rows, pa.int64()))

    host = GranuleFold(TransitionsKernel(RULES), D, 1000, state_version=2, upgrades={1: add_lates})
    host.receive(store, copies, 0, state_element(rows, START // 1000, version=1))
    copy = copies.pop(0)
    assert copy is not None
    upgraded = copy.state.all().to_pylist()
    assert [(row["case_id"], row["lates"]) for row in upgraded] == [("a", 0)]
    older = GranuleFold(TransitionsKernel(RULES), D, 1000, catch_up=False)
    with pytest.raises(ValueError, match="of version 2, and this program reads up to 1"):
        older.fire(store, Copies(), 0)


class Echo:
    """A kernel that keeps the newest control of each key and writes what it is told."""

    name = "echo"
    key = "case_id"
    order = "time"
    takes = ORDERED_SCHEMA
    state_schema = pa.schema([("case_id", pa.string()), ("seen", pa.int64())])
    outputs: dict[str, Any] = {}

    def __init__(self) -> None:
        self.controls: list[tuple[int, str, int]] = []
        self.untils: list[int] = []

    def step(self, state: pa.Table, events: pa.Table, control: Any, until: int) -> Step:
        self.controls += [(c.effective, c.kind, until) for c in control]
        self.untils.append(until)
        keys = pc.unique(events["case_id"].cast(pa.string()))
        changed = pa.table([keys, pa.array([until] * len(keys), pa.int64())], self.state_schema)
        return Step({}, lambda: changed, pa.array([], pa.string()))


def test_control_takes_effect_at_its_time() -> None:
    kernel = Echo()
    typed: Kernel = kernel  # type: ignore[assignment]
    stream = Stream(GranuleFold(typed, D, 1000, catch_up=False), 1, lambda: "forget")
    at = START // 1000
    stream.deliver(0, control_element(Control(at + 2500, "model", b"x")))
    stream.deliver(0, control_element(Control(at + 500, "erase", b"y")))
    [(_, packed)] = EXCHANGE.split(
        table([{"event_id": "1", "case_id": "a", "event_time": START, "activity": "go"}]),
        "case_id",
        1,
    )
    stream.deliver(0, events_element(packed))
    stream.advance(at + 1000)
    assert kernel.controls == [(at + 500, "erase", at + 1000)]
    stream.deliver(0, control_element(Control(at, "late", b"z")))
    stream.advance(END)
    assert kernel.controls[1:] == [(at + 1000, "late", at + 2000), (at + 2500, "model", at + 3000)]


def test_bags_are_rewritten_when_most_of_them_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.fold.granules.REWRITE_FROM", 10)
    stream = Stream(GranuleFold(TransitionsKernel(RULES), D, 1000, catch_up=False), 1, str)
    for i in range(100):
        row = {"event_id": str(i), "case_id": str(i % 3), "event_time": START + i * SECOND}
        far = {"event_id": f"far{i}", "case_id": "far", "event_time": START + (i + 50) * SECOND}
        packed = pack(table([{**row, "activity": "go"}, {**far, "activity": "go"}]))
        stream.deliver(0, events_element(packed))
        stream.advance((START + (i + 1) * SECOND) // 1000)
        assert len(stream.stores[0].bags["state"]) <= 2 * 4 + 10 + 1
        assert len(stream.stores[0].bags["pending"]) <= 3 * 50 + 10
    stream.copies.clear()
    stream.advance(END)
    assert stream.counts["transitions"] == 200


def test_a_state_made_with_other_settings_is_refused() -> None:
    """Other shards, another D: rows would be other ones, and nobody would know."""

    def host(*made: Setting) -> GranuleFold:
        return GranuleFold(TransitionsKernel(RULES), D, 1000, made=made)

    shards, disorder = Setting("shards", "--shards", 64), Setting("disorder_ms", "--disorder", 5000)
    store, copies = MemoryStore(), Copies()
    event = {"event_id": "1", "case_id": "a", "event_time": START, "activity": "go"}
    [(_, packed)] = EXCHANGE.split(table([event]), "case_id", 1)
    # Of a state that an earlier version has left nothing is known.
    host().receive(store, copies, 0, events_element(packed))
    host(shards, disorder).receive(store, copies, 0, mark_element(0, 0, 0))
    host(shards, disorder).fire(store, copies, 0)
    other = host(replace(shards, value=32), replace(disorder, value=7000))
    reason = (
        "--shards 64, where this stream has --shards 32; "
        "and with --disorder 5s, where this stream has --disorder 7s"
    )
    with pytest.raises(ValueError, match=reason):
        other.receive(store, copies, 0, mark_element(0, 0, 0))
    with pytest.raises(ValueError, match=reason):
        other.fire(store, copies, 0)
    secret = Setting("mask_key_check", "--mask_key", "x", secret=True)
    with pytest.raises(ValueError, match="another --mask_key: give what it was made with"):
        host(shards, disorder, secret).fire(store, copies, 0)


def test_event_time_may_be_ahead_of_order_time() -> None:
    """As where a service holds the watermark: timers are set later, and rows are the same."""
    plain = GranuleFold(TransitionsKernel(RULES), D, 1000, clock=lambda: 0.0)
    ahead = replace(plain, beam_time=BeamTime(D // 1000))
    row = {"event_id": "1", "case_id": "a", "event_time": START, "activity": "x", "source": "s"}
    ((_, packed),) = EXCHANGE.split(table([row]), "case_id", 1)
    found = []
    for host in (plain, ahead):
        store, copies = MemoryStore(), Copies()
        host.receive(store, copies, "a", events_element(packed))
        timer = store.timer
        assert timer is not None
        assert host.fire(store, copies, "a", timer - 1) is None, "it is not due yet"
        fired = host.fire(store, copies, "a", timer)
        assert fired is not None
        found.append((timer, fired.until_ms, fired.outputs["transitions"].to_pylist()))
    (timer, *rows), (later, *same) = found
    assert later == timer + D // 1000
    assert rows == same


def packed_events(*seconds: int) -> bytes:
    """Pack an event at each of some seconds after the start."""
    rows = [
        {
            **{"event_id": str(at), "case_id": "a", "activity": "go"},
            "event_time": START + at * SECOND,
        }
        for at in seconds
    ]
    [(_, packed)] = EXCHANGE.split(table(rows), "case_id", 1)
    return packed


def test_a_backlog_is_cut_where_what_follows_needs_it() -> None:
    """A fold of buckets behind this one must not hear of a bucket when the next has begun."""

    def first_due(unit_ms: int) -> int:
        kernel: Kernel = Echo()  # type: ignore[assignment]
        fold = GranuleFold(kernel, 0, 1000, unit_ms=unit_ms, clock=lambda: START / SECOND + 10**6)
        store, copies = MemoryStore(), Copies()
        fold.receive(store, copies, 0, events_element(packed_events(5)))
        fired = fold.fire(store, copies, 0)
        assert fired is not None
        return fired.until_ms

    bucket = 60_000
    assert first_due(0) - START // 1000 > bucket
    assert first_due(bucket) == (START // 1000 + 5000) // bucket * bucket + bucket


def test_a_fold_behind_another_fires_a_millisecond_later() -> None:
    kernel: Kernel = Echo()  # type: ignore[assignment]
    for follows in (False, True):
        fold = GranuleFold(kernel, 0, 1000, catch_up=False, follows=follows)
        store, copies = MemoryStore(), Copies()
        fold.receive(store, copies, 0, events_element(packed_events(0)))
        due = START // 1000 + 1000
        assert store.timer == due - 1 + follows
        assert fold.fire(store, copies, 0, due - 2 + follows) is None
        assert fold.fire(store, copies, 0, due - 1 + follows) is not None


def test_by_marks_a_shard_tells_how_far_it_is_and_when_nothing_comes() -> None:
    kernel: Kernel = Echo()  # type: ignore[assignment]
    fold = GranuleFold(kernel, 0, 1000, by_marks=True, tells=True)
    store, copies = MemoryStore(), Copies()
    at = START // 1000
    _, fired = fold.receive(store, copies, 0, mark_element(0, 2, at + 3000))
    assert fired is None, "the other reader may have something earlier"
    _, fired = fold.receive(store, copies, 0, mark_element(1, 2, at + 2500))
    assert fired is not None
    assert (fired.until_ms, fired.outputs, fired.drained) == (at + 2000, {}, False)
    fold.receive(store, copies, 0, events_element(packed_events(4), 0, 2, DRAIN))
    _, fired = fold.receive(store, copies, 0, mark_element(1, 2, DRAIN))
    assert fired is not None
    assert (fired.until_ms, fired.drained) == (at + 5000, True)


class Waking(Echo):
    """Wants to be woken long after every step."""

    def step(self, state: pa.Table, events: pa.Table, control: Any, until: int) -> Step:
        found = super().step(state, events, control, until)
        return replace(found, wake_at=until + 10**9)


def test_no_deadline_ahead_of_the_clock_fires_where_the_watermark_runs_away() -> None:
    kernel: Kernel = Waking()  # type: ignore[assignment]
    now = START / SECOND + 10
    for held in (False, True):
        fold = GranuleFold(
            kernel, 0, 1000, catch_up=False, deadlines_until_now=held, clock=lambda: now
        )
        store, copies = MemoryStore(), Copies()
        fold.receive(store, copies, 0, events_element(packed_events(0)))
        assert fold.fire(store, copies, 0) is not None
        store.timer = None
        assert (fold.fire(store, copies, 0) is None) == held
        assert (store.timer is None) == held
        # What comes later is folded all the same.
        fold.receive(store, copies, 0, events_element(packed_events(2_000_000)))
        assert store.timer is not None
        assert fold.fire(store, copies, 0) is not None
