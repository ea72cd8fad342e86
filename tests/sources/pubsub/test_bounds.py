"""The watermark of a subscription: a bound that a message is never before, unless it is counted."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transforms.sources.pubsub.bounds import Bound

S = 1_000_000
IDLE = 10 * S
BEGUN = 1000 * S


def bound(floor: int | None = None) -> Bound:
    return Bound(IDLE, floor, BEGUN)


def test_a_start_is_only_looked_at() -> None:
    found = bound()
    found.received(BEGUN - 50 * S, BEGUN + S)
    assert found.promise(BEGUN + 2 * S, None) is None
    found.received(BEGUN - 90 * S, BEGUN + 3 * S)
    assert found.promise(BEGUN + IDLE, None) == BEGUN - 90 * S, "the backlog's age"
    assert bound(BEGUN - 7 * S).promise(BEGUN, None) == BEGUN - 7 * S, "what was promised before"


def test_the_oldest_of_what_came_lately_holds_it() -> None:
    found = bound()
    now = BEGUN + 20 * S
    found.received(now - 3 * S, now)
    found.received(now - S, now + S)
    assert found.promise(now + 2 * S, None) == now - 3 * S
    assert found.promise(now + 10 * S + 1, None) == now - S, "the older one came too long ago"


def test_what_is_here_or_awaited_holds_it() -> None:
    found = bound()
    now = BEGUN + 20 * S
    found.received(now - 3 * S, now)
    assert found.promise(now + 60 * S, now - 3 * S) == now - 3 * S
    found.found_nothing(now + 61 * S)
    assert found.promise(now + 61 * S, now - 3 * S) == now - 3 * S
    assert found.promise(now + 62 * S, None) == now + 51 * S


def test_an_idle_one_follows_the_clock_only_when_a_pull_has_found_nothing() -> None:
    found = bound()
    now = BEGUN + 60 * S
    assert found.promise(now, None) is None, "nobody has answered"
    found.found_nothing(now)
    assert found.promise(now + S, None) == now - IDLE
    assert found.promise(now + 50 * S, None) == now - IDLE, "since when nobody has answered"
    found.received(now + 49 * S, now + 50 * S)
    found.found_nothing(now + 51 * S)
    assert found.promise(now + 51 * S, None) == now + 49 * S, "it is not idle"


def test_a_message_behind_it_is_raised_and_counted() -> None:
    found = bound()
    found.found_nothing(BEGUN + 60 * S)
    floor = found.promise(BEGUN + 60 * S, None)
    assert floor is not None
    times, behind = found.raised(np.array([floor - 5, floor + 7, floor - 1]))
    assert (times.tolist(), behind) == ([floor, floor + 7, floor], 2)
    times, behind = found.raised(np.array([floor + 9, floor + 1]))
    assert (times.tolist(), behind) == ([floor + 9, floor + 1], 0), "not the running maximum"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["came", "nothing", "look"]), st.integers(0, 5), st.integers(0, 60)
        ),
        max_size=30,
    )
)
def test_it_never_goes_back_and_what_comes_is_never_before_it(
    steps: list[tuple[str, int, int]],
) -> None:
    found, now, before = bound(), BEGUN, -1
    for kind, later, age in steps:
        now += later * S
        if kind == "came":
            found.received(now - age * S, now)
            times, behind = found.raised(np.array([now - age * S]))
            assert int(times[0]) == max(now - age * S, before)
            assert behind == (now - age * S < before)
        elif kind == "nothing":
            found.found_nothing(now)
        else:
            promised = found.promise(now, None)
            if promised is not None:
                assert promised >= before
                assert promised <= now
                before = promised
