"""Kills what a scenario names, with `kill -9`, and starts again what nobody else would."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from bench.measure import cpu_seconds
from tests.kills.scenario import Kill
from tests.services.flink import FlinkCluster
from tests.services.kafka import KafkaBroker

T = TypeVar("T")

_MEASURE_S = 1.0


def kill(kill_: Kill, cluster: FlinkCluster, broker: KafkaBroker) -> Callable[[], None]:
    """Kill a victim; return what starts it again."""
    if kill_.victim == "broker":
        broker.kill()
        return broker.start
    if kill_.victim == "harness":
        assert cluster.pool is not None
        in_use = busiest(harnesses(cluster.pool.pid), len(cluster.task_managers))
        os.kill(_chosen(in_use, kill_.choice), signal.SIGKILL)
        return _nothing
    if kill_.victim == "task manager":
        part = _chosen(cluster.task_managers, kill_.choice)
    else:
        found = cluster.pool if kill_.victim == "worker pool" else cluster.job_manager
        assert found is not None
        part = found
    part.kill()
    return part.start


def harnesses(pool: int | None) -> list[int]:
    """Return the ids of the processes that work for a pool, the oldest first.

    The one that waits for work drops what it prints; those that work keep it in a file.
    """
    assert pool is not None, "the pool is away"
    tasks = Path(f"/proc/{pool}/task")
    children = [
        int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()
    ]
    return sorted(child for child in children if _works(child))


def busiest(processes: Sequence[int], count: int) -> list[int]:
    """Return the ids of those that compute most in the next second, the oldest first.

    A task manager keeps a worker that it has asked for in vain, when a start was called off.
    """
    before = {each: cpu_seconds(each) for each in processes}
    time.sleep(_MEASURE_S)
    spent = {each: cpu_seconds(each) - before[each] for each in processes}
    return sorted(sorted(processes, key=lambda each: -spent[each])[:count])


def _works(process: int) -> bool:
    try:
        return os.readlink(f"/proc/{process}/fd/2") != os.devnull
    except OSError:
        # It has ended meanwhile.
        return False


def _chosen(several: Sequence[T], choice: float) -> T:
    assert several, "there is nothing to kill"
    return several[int(choice * len(several))]


def _nothing() -> None:
    """Start nothing: the cluster does."""
