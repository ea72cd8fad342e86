"""The simulated engine: order, calendar, rates, and its logs' forms."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from examples.simulator import (
    PROCESSES,
    START,
    Faults,
    Message,
    Scenario,
    Snapshot,
    deliver,
    simulate,
)
from examples.simulator.worktime import (
    DAY,
    HOUR,
    SECOND,
    after_work,
    berlin_offset,
    iso_offset,
    to_local,
    to_utc,
    wall_clock,
    weekday,
    work_clock,
)

BERLIN = ZoneInfo("Europe/Berlin")
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def clean() -> list[Snapshot]:
    return list(simulate(21, 1500, faults=Faults.none()))


def by_case(snapshots: list[Snapshot]) -> dict[str, list[Snapshot]]:
    found: dict[str, list[Snapshot]] = {}
    for snapshot in snapshots:
        found.setdefault(snapshot.case.id, []).append(snapshot)
    return found


def test_offsets_are_those_of_the_zone() -> None:
    start = int(datetime(2019, 1, 1, tzinfo=timezone.utc).timestamp()) * SECOND
    for day in range(start, start + 8 * 365 * DAY, DAY):
        for time in (day, day + HOUR - 1, day + HOUR, day + 12 * HOUR):
            local = (EPOCH + timedelta(microseconds=time)).astimezone(BERLIN)
            assert berlin_offset(time) == (local.utcoffset() or timedelta()) // MICROSECOND, local


@pytest.mark.parametrize(
    ("time", "written"),
    [
        ("2024-08-27T10:04:20.469000", "2024-08-27T12:04:20.469+02:00"),
        ("2024-12-24T22:59:59.000001", "2024-12-24T23:59:59.000001+01:00"),
        ("2024-10-27T00:30:00.100000", "2024-10-27T02:30:00.1+02:00"),
        ("2024-10-27T01:30:00.000000", "2024-10-27T02:30:00+01:00"),
    ],
)
def test_log_times_are_java_times(time: str, written: str) -> None:
    at = datetime.fromisoformat(time + "+00:00") - EPOCH
    assert iso_offset(at // MICROSECOND, "Europe/Berlin") == written


def test_work_clock_stands_still_at_night_and_on_weekends() -> None:
    friday = int(datetime(2024, 10, 4, 15, 0, tzinfo=timezone.utc).timestamp()) * SECOND
    assert to_local(friday) % DAY == 17 * HOUR
    monday = after_work(friday, 2 * HOUR)
    assert monday - friday == 3 * DAY - 8 * HOUR
    assert weekday(to_local(monday)) == 0
    for hours in range(0, 24 * 14):
        local = to_local(friday) + hours * HOUR + 7
        assert work_clock(wall_clock(work_clock(local))) == work_clock(local)
        assert wall_clock(work_clock(local)) >= local - 15 * HOUR
        assert to_utc(to_local(friday + hours * HOUR)) == friday + hours * HOUR


def test_snapshots_come_in_the_order_of_time(clean: list[Snapshot]) -> None:
    times = [snapshot.time for snapshot in clean]
    assert times == sorted(times)
    end = int(START.timestamp()) * SECOND + 60 * DAY
    assert int(START.timestamp()) * SECOND <= times[0] < times[-1] <= end
    for snapshot in clean:
        lines = [line.transition.time for line in snapshot.log]
        assert lines == sorted(lines)
        assert lines[-1] < snapshot.time


def test_logs_grow_by_a_call_at_a_time(clean: list[Snapshot]) -> None:
    for snapshots in by_case(clean).values():
        log: tuple[object, ...] = ()
        for snapshot in snapshots:
            assert snapshot.log[: len(log)] == log
            assert len(snapshot.log) == len(log) + snapshot.fresh
            log = snapshot.log


def test_cases_follow_their_process(clean: list[Snapshot]) -> None:
    allowed = {
        (process.version, task, move.events, move.target)
        for process in PROCESSES
        for task, moves in process.moves.items()
        for move in moves
    }
    seen = set()
    for snapshot in clean:
        process = snapshot.case.process
        fresh = [line.transition for line in snapshot.log[-snapshot.fresh :]]
        events = tuple(transition.event for transition in fresh)
        seen.add((process.version, fresh[0].source, events, fresh[-1].target))
        assert {transition.source for transition in fresh} == {fresh[0].source}
        assert all(transition.target == fresh[0].source for transition in fresh[:-1])
        before = snapshot.log[: -snapshot.fresh]
        assert fresh[0].source == (before[-1].transition.target if before else process.start)
    assert seen == allowed


def test_cases_rest_rework_and_overlap(clean: list[Snapshot]) -> None:
    cases = by_case(clean)
    assert len(cases) == 1500
    last = [snapshots[-1] for snapshots in cases.values()]
    done = sum(each.case.process.tasks[each.last.target].end for each in last)
    assert 0.7 < done / len(cases) < 0.95
    end = int(START.timestamp()) * SECOND + 60 * DAY
    assert sum(each.time < end - 30 * DAY for each in last) - done < 0
    reworked = 0
    for each in last:
        targets = [line.transition.target for line in each.log if line.transition.event != 1]
        moved = [target for i, target in enumerate(targets) if targets[i - 1 : i] != [target]]
        reworked += len(set(moved)) < len(moved)
    assert 0.1 < reworked / len(cases) < 0.5
    middle = int(START.timestamp()) * SECOND + 30 * DAY
    open_cases = sum(s[0].time < middle < s[-1].time for s in cases.values())
    assert open_cases > 100
    groups = Counter(snapshots[0].case.process.version for snapshots in cases.values())
    assert set(groups) == {"invoice-1.0.0", "invoice-1.1.0", "ticket-1.0.0"}
    change = int(START.timestamp()) * SECOND + 24 * DAY
    for snapshots in cases.values():
        version = snapshots[0].case.process.version
        if version.startswith("invoice"):
            assert (version == "invoice-1.1.0") == (snapshots[0].log[0].transition.time >= change)


def test_work_is_done_in_working_hours(clean: list[Snapshot]) -> None:
    local = [to_local(snapshot.time) for snapshot in clean]
    weekend = sum(weekday(time) >= 5 for time in local) / len(local)
    assert 0 < weekend < 0.04
    working = sum(weekday(time) < 5 and 8 * HOUR <= time % DAY < 18 * HOUR for time in local)
    assert working / len(local) > 0.85
    # Nothing happens when the clocks change: a wall clock of old logs means one time.
    assert all(time % DAY >= 6 * HOUR for time in local)
    assert {berlin_offset(snapshot.time) for snapshot in clean} == {HOUR, 2 * HOUR}


def messages(faults: Faults) -> list[Message]:
    return list(deliver(simulate(31, 2000, faults=faults), seed=31, faults=faults))


def test_messages_come_in_the_order_of_time() -> None:
    times = [message.time for message in messages(Faults(duplicate=0.3, broken=0.1, profile=0.1))]
    assert times == sorted(times)


@pytest.mark.parametrize("rate", [0.03, 0.2])
def test_delivery_keeps_to_its_rates(clean: list[Snapshot], rate: float) -> None:
    none = Faults.none()
    calls = len(clean)

    def share(faults: Faults, *kinds: str) -> float:
        return sum(each.kind in kinds for each in deliver(clean, seed=1, faults=faults)) / calls

    near = pytest.approx(rate, rel=0.2)
    assert share(replace(none, broken=rate), "truncated", "no_xml", "no_id", "latin1") == near
    assert share(replace(none, empty=rate), "empty") == near
    assert share(replace(none, profile=rate), "profile") == near
    assert 1 - share(replace(none, missing=rate), "snapshot") == near
    assert share(replace(none, duplicate=rate), "snapshot") - 1 == near


def test_duplicates_are_the_same_bytes_later(clean: list[Snapshot]) -> None:
    faults = replace(Faults.none(), duplicate=0.5)
    seen: dict[int, Message] = {}
    repeated = 0
    for message in deliver(clean[:400], seed=2, faults=faults):
        if message.repeated:
            first = seen.pop(id(message.snapshot))
            assert message.payload() == first.payload()
            assert 0 <= message.time - first.time <= 30 * SECOND
            repeated += 1
        else:
            seen[id(message.snapshot)] = message
    assert repeated > 100


def test_delivery_leaves_the_cases_as_they_are() -> None:
    quiet = simulate(8, 100, faults=Faults(duplicate=0.0, broken=0.0))
    noisy = simulate(8, 100, faults=Faults(duplicate=0.9, broken=0.9))
    for one, other in zip(quiet, noisy, strict=True):
        assert (one.time, one.lines, one.case.id) == (other.time, other.lines, other.case.id)


def test_phantoms_are_never_confirmed() -> None:
    snapshots = list(simulate(9, 800, faults=replace(Faults.none(), phantom=0.05)))
    phantoms = [snapshot for snapshot in snapshots if snapshot.phantom]
    assert len(phantoms) / len(snapshots) == pytest.approx(0.04, rel=0.3)
    cases = by_case(snapshots)
    for phantom in phantoms:
        lines = set(phantom.log[-phantom.fresh :])
        others = [each for each in cases[phantom.case.id] if each is not phantom]
        assert others[0].time < phantom.time
        assert not any(lines & set(each.log) for each in others)
        following = [each for each in others if each.time > phantom.time]
        for each in following[:1]:
            kept = phantom.log[: -phantom.fresh]
            assert each.log[: len(kept)] == kept
            assert each.log[len(kept)].transition.time > phantom.time


def test_old_engines_write_the_old_form_and_migrate() -> None:
    faults = replace(Faults.none(), old_log=1.0)
    scenario = Scenario(chatty=0.2)
    cut = migrated = mixed = 0
    for snapshots in by_case(list(simulate(10, 400, scenario=scenario, faults=faults))).values():
        new_engine = False
        for snapshot in snapshots:
            forms = {"." in line.split("|")[2] for line in snapshot.lines}
            fresh = {"." in line.split("|")[2] for line in snapshot.lines[-snapshot.fresh :]}
            assert len(fresh) == 1
            assert not (new_engine and fresh == {True}), "an engine is never downgraded"
            new_engine = fresh == {False}
            if not new_engine:
                assert forms == {True}
                assert len(snapshot.log) <= 30
                assert not snapshot.migrated
            elif snapshot.migrated:
                assert forms == {False}
                rewritten = snapshot.lines[: len(snapshot.migrated)]
                assert all(line.split("|")[5] == "" for line in rewritten)
                assert all(line.split("|")[0].endswith("Z") for line in rewritten)
            else:
                assert "|" in snapshot.lines[0].split("|", 4)[4]
        cut += any(len(each.log) == 30 and "." in each.lines[0].split("|")[2] for each in snapshots)
        migrated += bool(snapshots[-1].migrated)
        mixed += new_engine and not snapshots[-1].migrated
    assert cut > 3
    assert migrated > 40
    assert mixed > 0


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="phantom is a rate"):
        Faults(phantom=1.5)
    with pytest.raises(ValueError, match="days must be positive"):
        Scenario(days=0)
    with pytest.raises(ValueError, match="time zone"):
        simulate(1, 1, datetime(2024, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="negative"):
        simulate(1, -1)
