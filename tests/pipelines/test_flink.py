"""Jobs on a real Flink cluster: streams and backfills, and what goes wrong before they work."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import run
from examples.simulator.stream import Disturbance
from pipelines.live import FLINK_SHARDS
from tests.pipelines import streams
from tests.pipelines.flink_jobs import PATIENCE_S, end_all, on_cluster
from tests.pipelines.test_transitions import transitions
from tests.services.fixtures import on_flink
from tests.services.flink import FlinkCluster, job_server_jar
from tests.services.kafka import KafkaBroker
from tests.services.leash import Leashed
from tests.services.ports import free_ports, listens

pytestmark = on_flink

SECOND = 1_000_000
DISTURBED = Disturbance(disorder=5 * SECOND, duplicates=0.05, repeat_within=15 * SECOND)


@pytest.fixture(autouse=True)
def nothing_left(flink: FlinkCluster) -> Iterator[None]:
    yield
    end_all(flink)


def sent(seed: int, messages: int = 2000) -> streams.Sent:
    start = time.time_ns() // 1000 - 40 * SECOND
    return streams.json_messages(messages, DISTURBED, seed=seed, start=start, garbage=0.01)


def laws_of(ended: streams.Ended) -> dict[str, dict[str, int]]:
    """Return the laws of a run that has given all its rows: only duplicates may wait still."""
    laws = ended.laws()
    laws["events"]["duplicates"] += laws["events"].pop("waiting", 0)
    return laws


def taken(flink: FlinkCluster, name: str, step: str) -> list[int]:
    """Return how many elements each instance of a job's step has taken, the fewest first."""
    job = flink.rest.job(name)
    assert job is not None
    path = f"jobs/{job['jid']}"
    steps = flink.rest.get(path)["vertices"]
    (found,) = [each["id"] for each in steps if step in each["name"]]
    instances = flink.rest.get(f"{path}/vertices/{found}")["subtasks"]
    return sorted(each["metrics"]["read-records"] for each in instances)


def even(elements: list[int]) -> bool:
    """Say whether two instances have taken about the same number, of at least one a shard."""
    fewer, more = elements
    return fewer + more >= FLINK_SHARDS and fewer > 0.8 * more


def test_a_stream_gives_the_truth_and_its_laws_hold(
    flink: FlinkCluster, kafka: KafkaBroker, tmp_path: Path
) -> None:
    """Two task managers, whose workers have the same names, from one pool."""
    name = streams.new_name("on-flink")
    kafka.create_topic(name, 4)
    drawn = sent(1)
    streams.send(kafka, drawn.records, lambda _: name)
    with streams.running(
        tmp_path,
        *("--input", f"kafka://{kafka.address}/{name}?start=earliest&group={name}"),
        *("--output", f"kafka://{kafka.address}/{name}-out-", "--disorder", "5s"),
        *("--end_states", ",".join(drawn.truth.end_states), *on_cluster(flink, name)),
    ) as job:
        job.wait_for("it works after", PATIENCE_S)
        made = [f"{name}-out-transitions"]
        job.wait_until(lambda: streams.counts(kafka, made) == drawn.truth.transitions, PATIENCE_S)
        # Each instance reads two of the four partitions, and folds half of the shards.
        job.wait_until(lambda: taken(flink, name, "Decode") == [2, 2], PATIENCE_S)
        job.wait_until(lambda: even(taken(flink, name, "Fold")), PATIENCE_S)
        ended = job.stop()
    assert (ended.code, laws_of(ended)) == (0, streams.law_of(drawn.truth)), ended
    assert streams.differences(kafka, f"{name}-out-", drawn.truth, tmp_path / "tables") == []


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Give a small file system; the test is skipped where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no file system of its own: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_full_disk_at_the_checkpoints_is_waited_for_and_told(
    flink: FlinkCluster, kafka: KafkaBroker, tmp_path: Path
) -> None:
    name = streams.new_name("full-disk")
    kafka.create_topic(name, 2)
    truths = []

    def send(seed: int) -> None:
        start = time.time_ns() // 1000 - 10 * SECOND
        drawn = streams.json_messages(900, DISTURBED, seed=seed, start=start, garbage=0.01)
        streams.send(kafka, drawn.records, lambda _: name, own_times=False)
        truths.append(drawn.truth)

    send(6)
    made = [f"{name}-out-transitions"]
    with (
        small_disk(tmp_path / "disk") as disk,
        streams.running(
            tmp_path,
            *("--input", f"kafka://{kafka.address}/{name}?start=earliest&group={name}"),
            *("--output", f"kafka://{kafka.address}/{name}-out-", "--disorder", "15s"),
            *("--end_states", ",".join(truths[0].end_states), *on_cluster(flink, name)),
            *("--state_backend", "filesystem", "--state_backend_storage_path", f"file://{disk}"),
        ) as job,
    ):
        job.wait_for("it works after", PATIENCE_S)
        job.wait_until(lambda: list(disk.glob("*/chk-*/_metadata")), PATIENCE_S)
        filler = disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        # Which of the parts meets it first decides in which words Flink tells.
        job.wait_for("checkpoints fail: ", PATIENCE_S)
        assert "is there room where they are kept?" in job.said
        send(7)
        truth = streams.together(*truths)
        job.wait_until(lambda: streams.counts(kafka, made) == truth.transitions, PATIENCE_S)
        filler.unlink()
        job.wait_for("checkpoints are whole again", PATIENCE_S)
        ended = job.stop()
    assert (ended.code, laws_of(ended)) == (0, streams.law_of(truth)), ended
    assert "it failed" not in ended.err
    assert streams.differences(kafka, f"{name}-out-", truth, tmp_path / "tables") == []


def test_a_backfill_is_what_it_is_here(flink: FlinkCluster, tmp_path: Path) -> None:
    lines = tmp_path / "events.jsonl"
    lines.write_bytes(b"".join(record.payload + b"\n" for record in sent(2).records))
    here, there = tmp_path / "here", tmp_path / "there"
    manifest = transitions(lines, here, "--complete_log")
    elsewhere = transitions(lines, there, "--complete_log", *on_cluster(flink, "a-backfill"))
    assert elsewhere["messages"] == manifest["messages"]
    assert elsewhere["events"] == manifest["events"]
    for table in ("transitions", "cases", "late", "retracted", "dead_letters"):
        rows = {row["row_id"]: row for row in pq.read_table(here / table).to_pylist()}
        found = pq.read_table(there / table).to_pylist()
        assert {row["row_id"]: row for row in found} == rows, table
        assert len(found) == len(rows)


def test_the_launcher_serves_workers_and_a_job_server_itself(
    flink: FlinkCluster, kafka: KafkaBroker, tmp_path: Path
) -> None:
    """As a user has it whose cluster is on this machine: no pool, no job server."""
    name = streams.new_name("served")
    kafka.create_topic(name, 2)
    drawn = sent(3, 500)
    streams.send(kafka, drawn.records, lambda _: name)
    arguments = [
        *("--input", f"kafka://{kafka.address}/{name}?start=earliest&group={name}"),
        *("--output", f"kafka://{kafka.address}/{name}-out-", "--disorder", "5s"),
        *("--runner", "FlinkRunner", "--flink_master", flink.master, "--job_name", name),
        *("--flink_job_server_jar", str(job_server_jar())),
        *("--start_patience", f"{PATIENCE_S:.0f}s"),
    ]
    plan = subprocess.run(
        [sys.executable, "run.py", "transitions", *arguments, "--explain_plan"],
        cwd=streams.ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "--checkpointing_interval 10000" in plan
    assert "--environment_type EXTERNAL (processes of this launcher)" in plan
    assert "--parallelism 2 (4 free slots, 2 are of use)" in plan
    with streams.running(tmp_path, *arguments) as job:
        made = [f"{name}-out-transitions"]
        job.wait_until(lambda: streams.counts(kafka, made) == drawn.truth.transitions, PATIENCE_S)
        ended = job.stop()
    assert (ended.code, laws_of(ended)) == (0, streams.law_of(drawn.truth)), ended


# What goes wrong


def refused(
    flink: FlinkCluster, tmp_path: Path, capfd: pytest.CaptureFixture[str], *options: str
) -> str:
    """Run a backfill that can't start; return what is said."""
    lines = tmp_path / "events.jsonl"
    lines.write_bytes(sent(4, 5).records[0].payload + b"\n")
    arguments = [
        *("transitions", "--input", str(lines), "--output", str(tmp_path / "out")),
        *("--runner", "FlinkRunner", "--flink_master", flink.master),
        *("--job_endpoint", flink.job_endpoint, *options),
    ]
    begun = time.monotonic()
    assert run.main(arguments) == 1
    print(f"refused after {time.monotonic() - begun:.0f} s")
    assert not (tmp_path / "out").exists()
    return capfd.readouterr().err


def test_no_slots(flink: FlinkCluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--parallelism", "9", "--start_patience", "5s"]
    options += ["--environment_type", "EXTERNAL", "--environment_config", flink.workers]
    said = refused(flink, tmp_path, capfd, *options)
    assert "not enough slots after 5 s: the cluster has 2 task managers and 4 slots" in said
    assert "the job wants 9" in said


def test_a_pool_that_is_down(
    flink: FlinkCluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    options = ["--environment_type", "EXTERNAL", "--environment_config", address]
    said = refused(flink, tmp_path, capfd, *options, "--start_patience", "40s")
    assert f"no Python workers from EXTERNAL {address}" in said
    assert "workers --port" in said


ANOTHER_PYTHON = """
import platform
platform.python_version_tuple = lambda: ("3", "9", "1")
"""
NO_PACKAGE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "confluent_kafka":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""
POOL = "import sys, run; sys.exit(run.main(['workers', '--port', sys.argv[1]]))"


@contextmanager
def pool_that(first: str, folder: Path, then: str = POOL) -> Iterator[str]:
    """Run a pool of workers of an interpreter that is not as it should be."""
    port = free_ports(1)[0]
    process = Leashed([sys.executable, "-c", first + then, str(port)], folder / "pool.log")
    try:
        streams.within(lambda: listens(f"127.0.0.1:{port}"))
        yield f"127.0.0.1:{port}"
    finally:
        process.end()


@pytest.mark.parametrize(
    ("first", "names"),
    [
        (ANOTHER_PYTHON, ["has Python 3.9", "start the pool from the same installation"]),
        (NO_PACKAGE, ["lacks confluent_kafka", "install it there"]),
    ],
)
def test_workers_that_do_not_fit(
    flink: FlinkCluster,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    first: str,
    names: list[str],
) -> None:
    with pool_that(first, tmp_path) as address:
        options = ["--environment_type", "EXTERNAL", "--environment_config", address]
        said = refused(flink, tmp_path, capfd, *options, "--start_patience", "60s")
    assert all(name in said for name in names), said


NOT_OURS = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pipelines", "transforms", "schemas"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""
BEAMS_POOL = """
import threading
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
kept = BeamFnExternalWorkerPoolServicer.start(port=int(sys.argv[1]))
threading.Event().wait()
"""


def test_workers_of_beams_own_pool_that_lack_our_program(
    flink: FlinkCluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nobody asks them what they have: their failure tells."""
    with pool_that(NOT_OURS, tmp_path, BEAMS_POOL) as address:
        options = ["--environment_type", "EXTERNAL", "--environment_config", address]
        said = refused(flink, tmp_path, capfd, *options, "--start_patience", "60s")
    assert "ModuleNotFoundError: No module named" in said
