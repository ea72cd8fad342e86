"""The ledger of a reader: times are monotone, and the watermark keeps what it promises."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.sources.kafka.partitions import Key, Partitions, restore

D, IDLE = 30, 10


@dataclass
class Broker:
    """Partitions as the broker has them, and a reader that may be rebuilt from its mark."""

    clock: int = 1000
    logs: dict[Key, list[int]] = field(default_factory=dict)


# What may happen: (what, partition, number)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append", "read", "end", "confirm", "tick", "new", "restart", "drop"]),
        st.integers(0, 2),
        st.integers(1, 60),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(STEPS)
def test_no_message_is_behind_the_watermark(steps: list[tuple[str, int, int]]) -> None:
    broker = Broker(logs={("t", 0): []})
    ledger = Partitions(D, IDLE)
    ledger.add(("t", 0), 0)
    newest: dict[Key, int] = {}
    watermark: int | None = None
    for what, partition, number in steps:
        key = ("t", partition)
        if what == "tick":
            broker.clock += number
        elif what == "append" and key in broker.logs:
            # The producer's clock may lag by up to 60.
            broker.logs[key].append(broker.clock - number)
        elif what == "new" and key not in broker.logs:
            broker.logs[key] = []
            ledger.add(key, 0)
        elif what == "drop" and len(broker.logs) > 1 and key in broker.logs:
            ledger.remove(key)
            broker.logs.pop(key)
            newest.pop(key, None)
        elif what == "restart":
            mark = ledger.positions(), ledger.floor
            ledger = Partitions(D, IDLE, mark[1])
            for each, (offset, bound) in restore(mark[0]).items():
                ledger.add(each, offset, bound)
        elif key not in ledger:
            continue
        elif what == "read":
            start = ledger.next(key)
            raw = broker.logs[key][start : start + number]
            if not raw:
                continue
            times, behind = ledger.take(key, start + len(raw) - 1, np.array(raw, np.int64))
            assert ledger.next(key) == start + len(raw)
            assert (np.diff(times) >= 0).all()
            assert times[0] >= newest.get(key, times[0])
            assert (times >= raw).all()
            assert watermark is None or times[0] - D >= watermark
            assert behind <= len(raw)
            newest[key] = int(times[-1])
        elif what == "end" and ledger.next(key) == len(broker.logs[key]):
            ledger.reach(key, len(broker.logs[key]))
        elif what == "confirm":
            ledger.confirm(key, len(broker.logs[key]), broker.clock)
        told = ledger.watermark()
        assert watermark is None or (told is not None and told >= watermark)
        watermark = told


@given(st.lists(st.lists(st.integers(0, 100), min_size=1, max_size=5), min_size=1))
def test_batches_and_restarts_do_not_matter(batches: list[list[int]]) -> None:
    whole = [time for batch in batches for time in batch]
    expected = np.maximum.accumulate(np.array(whole)).tolist()
    ledger = Partitions(D, IDLE)
    ledger.add(("t", 0), 0)
    got: list[int] = []
    for number, batch in enumerate(batches):
        if number % 2:
            positions = restore(ledger.positions())
            ledger = Partitions(D, IDLE, ledger.floor)
            for key, place in positions.items():
                ledger.add(key, *place)
        times, behind = ledger.take(("t", 0), len(got) + len(batch) - 1, np.array(batch))
        got += times.tolist()
        assert behind == 0 or number % 2
    assert got == expected
    assert ledger.watermark() == expected[-1] - D


def ledger_with(*partitions: int) -> Partitions:
    ledger = Partitions(D, IDLE)
    for number in partitions:
        ledger.add(("t", number), 0)
    return ledger


def test_the_watermark_is_of_the_slowest_partition() -> None:
    ledger = ledger_with(0, 1)
    assert ledger.watermark() is None
    ledger.take(("t", 0), 0, np.array([500]))
    assert ledger.watermark() is None, "the other one may begin with anything"
    ledger.take(("t", 1), 0, np.array([400]))
    assert ledger.watermark() == 400 - D


def test_an_idle_partition_goes_with_the_clock() -> None:
    ledger = ledger_with(0, 1)
    ledger.take(("t", 0), 0, np.array([500]))
    ledger.confirm(("t", 1), 0, 600)
    assert ledger.watermark() is None, "its end has not been met"
    ledger.reach(("t", 1), 0)
    ledger.confirm(("t", 1), 1, 600)
    assert ledger.watermark() is None, "the broker has more than we saw"
    ledger.confirm(("t", 1), 0, 600)
    assert ledger.watermark() == 500 - D
    ledger.reach(("t", 0), 1)
    ledger.confirm(("t", 0), 1, 700)
    assert ledger.watermark() == 600 - IDLE - D


def test_a_message_behind_an_idle_bound_is_raised_and_counted() -> None:
    ledger = ledger_with(0)
    ledger.reach(("t", 0), 0)
    ledger.confirm(("t", 0), 0, 1000)
    assert ledger.watermark() == 1000 - IDLE - D
    times, behind = ledger.take(("t", 0), 3, np.array([980, 989, 990, 995]))
    assert times.tolist() == [990, 990, 990, 995]
    assert behind == 2


def test_a_partition_found_later_starts_at_the_watermark() -> None:
    ledger = ledger_with(0)
    ledger.take(("t", 0), 0, np.array([500]))
    ledger.watermark()
    ledger.add(("new", 0), 0)
    assert ledger.watermark() == 500 - D
    times, behind = ledger.take(("new", 0), 1, np.array([450, 510]))
    assert (times.tolist(), behind) == ([500, 510], 1)


def test_without_partitions_the_clock_decides() -> None:
    ledger = Partitions(D, IDLE)
    assert ledger.watermark() is None
    ledger.confirm_none(1000)
    assert ledger.watermark() == 1000 - IDLE - D
    ledger.add(("t", 0), 0)
    ledger.confirm_none(2000)
    assert ledger.watermark() == 1000 - IDLE - D


def test_an_old_end_is_no_end() -> None:
    ledger = ledger_with(0)
    ledger.take(("t", 0), 4, np.array([1, 2, 3, 4, 5]))
    ledger.reach(("t", 0), 3)
    assert not ledger.at_end(("t", 0))
    ledger.reach(("t", 0), 6)  # offset 5 is a transaction's marker
    assert ledger.at_end(("t", 0))
    assert ledger.next(("t", 0)) == 6


def test_positions_are_plain() -> None:
    ledger = ledger_with(0, 1)
    ledger.take(("t", 1), 7, np.array([5]))
    expected: dict[str, Any] = {"t": {0: (0, None), 1: (8, 5)}}
    assert ledger.positions() == expected
