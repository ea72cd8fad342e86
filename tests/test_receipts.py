"""When a batch counts as delivered: never before all of it is."""

from __future__ import annotations

from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from transforms.receipts import Receipts, account_of, acknowledge, close_account, open_account


class Told:
    """Notes which batches were delivered."""

    def __init__(self, account: Receipts, *batches: int) -> None:
        self.batches: list[int] = []
        for batch in batches:
            account.when_delivered(batch, partial(self.batches.append, batch))


def test_a_batch_is_delivered_when_every_output_has_all_of_it() -> None:
    account = Receipts(2)
    account.begin(1)
    account.dead(1, ("dead_letters", 0, 5))
    account.part(1, 10, b"a")
    account.part(1, 20, b"a")
    account.end(1)
    told = Told(account, 1)
    account.received(0, 10, b"a", 1000)
    account.received(1, 20, b"a", 2000)
    # A shard that has folded up to the very time of its last event has not folded that.
    account.fired(0, 1000, [])
    account.fired(0, 1001, [("transitions", 0, 1)])
    account.fired(1, 3000, [])
    rows = [("transitions", 0, 1), ("dead_letters", 0, 5)]
    account.delivered(rows)
    assert told.batches == []
    account.delivered(rows[:1])
    assert told.batches == []
    account.delivered(rows[1:])
    assert told.batches == [1]


def test_a_later_firing_waits_for_the_one_before() -> None:
    account = Receipts(1)
    account.begin(1)
    account.part(1, 0, b"x")
    account.end(1)
    told = Told(account, 1)
    account.received(0, 0, b"x", 500)
    account.fired(0, 100, [("cases", 0, 100)])
    account.fired(0, 1000, [("cases", 0, 1000)])
    account.delivered([("cases", 0, 1000)])
    assert told.batches == [], "what was folded first is not out yet"
    account.delivered([("cases", 0, 100)])
    assert told.batches == [1]


def test_a_batch_of_nothing_is_delivered_at_once_and_asked_for_later() -> None:
    account = Receipts(3)
    account.begin(7)
    account.end(7)
    told = Told(account, 7)
    assert told.batches == [7]
    # What nobody awaits is nobody's.
    account.delivered([("late", 1, 2)])
    account.received(0, 1, b"unknown", 3)


def test_equal_parts_count_one_by_one() -> None:
    account = Receipts(1)
    for batch in (1, 2):
        account.begin(batch)
        account.part(batch, 0, b"same")
        account.end(batch)
    told = Told(account, 1, 2)
    account.received(0, 0, b"same", 10)
    account.fired(0, 20, [])
    assert told.batches == [1]
    account.received(0, 0, b"same", 30)
    account.fired(0, 40, [])
    assert told.batches == [1, 2]


def test_a_run_without_an_account() -> None:
    acknowledge("", [("cases", 0, 0)])
    assert account_of("") is None
    open_account("/a/run", 1)
    assert account_of("/a/run") is not None
    close_account("/a/run")
    assert account_of("/a/run") is None


@given(st.data())
def test_no_order_claims_too_much(data: st.DataObject) -> None:
    """Random batches, shards and deliveries: told exactly when a plain recount says so."""
    outputs = data.draw(st.integers(1, 3))
    account = Receipts(outputs)
    batches = range(data.draw(st.integers(1, 5)))
    last: dict[tuple[int, int], int] = {}
    for batch in batches:
        account.begin(batch)
        for shard in data.draw(st.sets(st.integers(0, 2))):
            last[batch, shard] = data.draw(st.integers(0, 50))
            account.part(batch, shard, b"%d" % batch)
        account.end(batch)
    told = Told(account, *batches)
    for (batch, shard), time in last.items():
        account.received(shard, shard, b"%d" % batch, time)
    fired: dict[int, list[tuple[int, list[tuple[str, int, int]]]]] = {0: [], 1: [], 2: []}
    owed: list[tuple[str, int, int]] = []
    until = 0
    for _ in range(data.draw(st.integers(0, 6))):
        shard = data.draw(st.integers(0, 2))
        until += data.draw(st.integers(1, 20))
        elements = [("transitions", shard, until)] * data.draw(st.integers(0, 1))
        account.fired(shard, until, elements)
        fired[shard].append((until, elements))
        owed += elements * outputs
    taken: list[tuple[str, int, int]] = []
    for element in data.draw(st.permutations(owed)):
        account.delivered([element])
        taken.append(element)
        complete = dict.fromkeys(range(3), -1)
        for shard, firings in fired.items():
            for at, elements in firings:
                if any(taken.count(each) < outputs for each in elements):
                    break
                complete[shard] = at
        whole = {
            batch
            for batch in batches
            if all(time < complete[s] for (b, s), time in last.items() if b == batch)
        }
        assert set(told.batches) == whole
