"""Pub/Sub on a real Flink cluster: acknowledged with checkpoints; a kill loses nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.simulator.stream import Disturbance
from tests.kills.victims import harnesses
from tests.pipelines import streams
from tests.pipelines.flink_jobs import PATIENCE_S, end_all, on_cluster
from tests.pipelines.pubsub_streams import Outputs, send, unfinished
from tests.services.fixtures import on_flink
from tests.services.flink import FlinkCluster
from tests.services.pubsub import EMULATOR, PROJECT, PubSubService

pytestmark = on_flink

SECOND = 1_000_000
LEASE_S = 10
DISTURBED = Disturbance(disorder=2 * SECOND, duplicates=0.05)


@pytest.fixture
def cluster(
    pubsub: PubSubService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FlinkCluster]:
    """A cluster whose workers find the service: they have the variables of who started them."""
    monkeypatch.setenv(EMULATOR, pubsub.address)
    with FlinkCluster(tmp_path / "flink") as found:
        yield found
        end_all(found)


def test_messages_are_acknowledged_with_checkpoints_and_a_kill_loses_nothing(
    cluster: FlinkCluster, pubsub: PubSubService, tmp_path: Path
) -> None:
    topic = streams.new_name("on-flink")
    pubsub.create_topic(topic, [topic], ack_deadline_seconds=LEASE_S)
    start = time.time_ns() // 1000 - 15 * SECOND
    drawn = streams.json_messages(2000, DISTURBED, seed=1, start=start)
    payloads = [record.payload for record in drawn.records]
    with (
        Outputs(pubsub, f"{topic}-out-") as outputs,
        streams.running(
            tmp_path,
            *("--input", f"pubsub://{PROJECT}/{topic}?idle=2s&lease={LEASE_S}s"),
            *("--output", outputs.address, "--disorder", "90s", "--granule", "5s"),
            *("--end_states", ",".join(drawn.truth.end_states), *on_cluster(cluster, topic)),
        ) as job,
    ):
        job.wait_for("it works after", PATIENCE_S)
        send(pubsub, topic, payloads[:1000], 5)
        # The workers' processes: what they had read and not finalized comes again.
        assert cluster.pool is not None
        for pid in harnesses(cluster.pool.pid):
            os.kill(pid, signal.SIGKILL)
        send(pubsub, topic, payloads[1000:], 5)

        def everything() -> bool:
            rows = outputs.rows("transitions") + outputs.rows("late")
            return streams.seen(rows) == streams.expected(drawn.truth)

        job.wait_until(everything, 3 * PATIENCE_S)
        assert job.stop().code == 0
    assert unfinished(pubsub, topic, LEASE_S + 2) == []
