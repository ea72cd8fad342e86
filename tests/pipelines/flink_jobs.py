"""Jobs on a cluster of the tests: the options that bring them there, and the end of one."""

from __future__ import annotations

from contextlib import suppress

from pipelines.flink_rest import ENDED, FlinkUnreachable
from tests.pipelines import streams
from tests.services.flink import FlinkCluster

PATIENCE_S = 120.0
"""A machine of tests may be slow."""

SAVEPOINT = "savepoint "


def on_cluster(cluster: FlinkCluster, name: str, parallelism: int = 2) -> list[str]:
    """Return options for a job of a name; its workers are those of the cluster's pool."""
    return [
        *("--runner", "FlinkRunner", "--flink_master", cluster.master, "--job_name", name),
        *("--job_endpoint", cluster.job_endpoint, "--start_patience", f"{PATIENCE_S:.0f}s"),
        *("--environment_type", "EXTERNAL", "--environment_config", cluster.workers),
        *("--parallelism", str(parallelism), "--checkpointing_interval", "2000"),
    ]


def savepoint_of(ended: streams.Ended) -> str:
    """Return where a job that was stopped has left its savepoint."""
    assert ended.code == 0, ended.err
    return next(
        line[len(SAVEPOINT) :] for line in ended.out.splitlines() if line.startswith(SAVEPOINT)
    )


def end_all(cluster: FlinkCluster) -> None:
    """Cancel what a failed test has left, and wait until its slots are free."""
    with suppress(FlinkUnreachable):
        for job in cluster.rest.jobs():
            if job["state"] not in ENDED:
                cluster.rest.cancel(job["jid"])
        streams.within(
            lambda: all(job["state"] in ENDED for job in cluster.rest.jobs()), PATIENCE_S
        )
