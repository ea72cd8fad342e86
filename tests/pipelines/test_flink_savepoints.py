"""A stream on Flink that is stopped with a savepoint and goes on: as if it had not been stopped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from examples.simulator.json_stream import EventWitness, json_events
from examples.simulator.processes import END_STATES
from examples.simulator.stream import Disturbance, arrivals
from examples.simulator.truth import Truth
from tests.pipelines import newer, streams
from tests.pipelines.flink_jobs import PATIENCE_S, end_all, on_cluster, savepoint_of
from tests.services.fixtures import on_flink
from tests.services.flink import FlinkCluster
from tests.services.kafka import KafkaBroker

pytestmark = on_flink

SECOND = 1_000_000
FIRST, PART, RATE = 100, 2000, 100.0
"""Events that are there at the start, those of a part, and how many a second happened."""

DISTURBED = Disturbance(disorder=5 * SECOND, duplicates=0.05, repeat_within=15 * SECOND)


@pytest.fixture(autouse=True)
def nothing_left(flink: FlinkCluster) -> Iterator[None]:
    yield
    end_all(flink)


class Topics:
    """Messages that are sent part by part, and the options of the jobs that read them.

    The cases go on from part to part. A part's events happened just before it is sent, however
    long the jobs between two parts take, so that none of them is late; and in such a time that
    some of them still wait for `disorder` when the first rows come.
    """

    def __init__(self, kafka: KafkaBroker, seed: int) -> None:
        self.kafka = kafka
        self.name = streams.new_name("saved")
        kafka.create_topic(self.name, 4)
        self.disorder = "25s"
        self._seed = seed
        self._witness = EventWitness()
        self._sent = 0

    @property
    def truth(self) -> Truth:
        """What has been sent so far."""
        return self._witness.truth()

    def send(self, count: int = PART) -> None:
        """Send the next part; its messages have the broker's time, or would be behind it."""
        before, self._sent = self._sent, self._sent + count
        start = time.time_ns() // 1000 - int(self._sent / RATE * SECOND)
        drawn = json_events(self._seed, 40, start=start, rate=RATE, garbage=0.01)
        part = islice(drawn, before, self._sent)
        records = arrivals(part, DISTURBED, seed=self._seed, observe=self._witness.observe)
        streams.send(self.kafka, records, lambda _: self.name, own_times=False)

    def rows(self) -> int:
        """Return how many rows of transitions there are."""
        return streams.counts(self.kafka, [f"{self.name}-out-transitions"])

    def options(
        self, flink: FlinkCluster, parallelism: int = 2, group: str | None = None
    ) -> list[str]:
        """Return the options of a job."""
        address = f"kafka://{self.kafka.address}/{self.name}"
        return [
            *("--input", f"{address}?start=earliest&group={group or self.name}"),
            *("--output", f"kafka://{self.kafka.address}/{self.name}-out-"),
            *("--disorder", self.disorder, *self.ends()),
            *on_cluster(flink, self.name, parallelism),
        ]

    def ends(self) -> tuple[str, str]:
        """Return the option of the end states."""
        return "--end_states", ",".join(sorted(END_STATES))

    def differences(self, folder: Path) -> list[str]:
        """Say in what the output differs from the truth."""
        return streams.differences(self.kafka, f"{self.name}-out-", self.truth, folder)


def first_part(
    topics: Topics, flink: FlinkCluster, folder: Path, parallelism: int = 2
) -> streams.Ended:
    """Run over the first part, some of which is folded while the rest waits, and stop."""
    topics.send(FIRST)
    with streams.running(folder, *topics.options(flink, parallelism)) as job:
        job.wait_for("it works after", PATIENCE_S)
        topics.send()
        job.wait_until(lambda: topics.rows() > FIRST, PATIENCE_S)
        ended = job.stop()
    assert topics.rows() < topics.truth.transitions, "what is newer than D waits"
    assert ended.laws()["events"]["waiting"] > 0
    return ended


def total(*ended: streams.Ended) -> dict[str, dict[str, int]]:
    """Add up the laws of runs: what the first leaves waiting, the last has not got left."""
    found: dict[str, Counter[str]] = {name: Counter() for name in streams.LAWS}
    for each in ended:
        for name, counts in each.laws().items():
            for part, number in counts.items():
                found[name][part] += number
    assert found["events"].pop("waiting") == 0
    return {name: dict(counts) for name, counts in found.items()}


def test_what_waits_goes_on_by_its_timers_with_higher_parallelism(
    flink: FlinkCluster, kafka: KafkaBroker, tmp_path: Path
) -> None:
    """Nothing is sent after the savepoint at first: only timers that were kept can fold that."""
    topics = Topics(kafka, 1)
    first = first_part(topics, flink, tmp_path)
    waited = topics.rows()
    resumed = ["--savepoint_path", savepoint_of(first)]
    with streams.running(tmp_path, *topics.options(flink, 4), *resumed) as job:
        job.wait_for("it works after", PATIENCE_S)
        job.wait_until(lambda: topics.rows() == topics.truth.transitions, PATIENCE_S)
        assert topics.rows() > waited
        topics.send()
        job.wait_until(lambda: topics.rows() == topics.truth.transitions, PATIENCE_S)
        second = job.stop()
    savepoint_of(second)
    assert total(first, second) == streams.law_of(topics.truth)
    assert topics.differences(tmp_path / "tables") == []


def test_a_newer_version_upgrades_the_state(
    flink: FlinkCluster, kafka: KafkaBroker, tmp_path: Path
) -> None:
    """One more column, in state and table, and one more output, so that steps are numbered anew.

    What was known before has the upgrade's value. The parallelism goes from 1, where Flink names
    steps by how it chains them, to 2.
    """
    topics = Topics(kafka, 2)
    first = first_part(topics, flink, tmp_path, 1)
    before = topics.rows()
    known = {row["case_id"] for row in streams.rows(kafka, f"{topics.name}-out-cases")}
    topics.send()
    resumed = ["--savepoint_path", savepoint_of(first)]
    more = ["--output", f"kafka://{kafka.address}/{topics.name}-more-"]
    # Another address, too: the state has the one of the job before.
    options = [*topics.options(flink, group=f"{topics.name}-more"), *more]
    with streams.running(tmp_path, *options, *resumed, program=newer.PROGRAM) as job:
        job.wait_until(lambda: topics.rows() == topics.truth.transitions, PATIENCE_S)
        second = job.stop()
    assert streams.committed(kafka, f"{topics.name}-more", [topics.name])
    there = [f"{topics.name}-more-transitions"]
    assert streams.counts(kafka, there) == topics.truth.transitions - before
    assert total(first, second) == streams.law_of(topics.truth)
    assert topics.differences(tmp_path / "tables") == []
    seen: dict[str, set[bool]] = {"known": set(), "new": set()}
    for row in streams.rows(kafka, f"{topics.name}-out-cases"):
        if newer.COLUMN in row:
            kind = "known" if row["case_id"] in known else "new"
            seen[kind].add(row[newer.COLUMN] > 1000)
    assert seen == {"known": {True}, "new": {False}}
    # The older program must not read what the newer one has left.
    back = ["--savepoint_path", savepoint_of(second)]
    topics.send()
    said = refused(topics, flink, tmp_path, *back)
    assert "is of version 2, and this program reads up to 1" in said


def refused(
    topics: Topics,
    flink: FlinkCluster,
    folder: Path,
    *options: str,
    program: tuple[str, ...] = streams.PROGRAM,
) -> str:
    """Run a job that can't go on; return what it says."""
    with streams.running(folder, *topics.options(flink), *options, program=program) as job:
        ended = job.ended(PATIENCE_S)
    assert ended.code == 1, ended
    return ended.err.splitlines()[-1] if ended.err else ""


def test_what_can_not_go_on_is_refused(
    flink: FlinkCluster, kafka: KafkaBroker, tmp_path: Path
) -> None:
    """Settings that the state depends on, another pipeline's state, and no savepoint at all."""
    topics = Topics(kafka, 3)
    first = first_part(topics, flink, tmp_path)
    topics.send()
    before = topics.rows()
    resumed = ["--savepoint_path", savepoint_of(first)]
    said = refused(topics, flink, tmp_path, *resumed, "--shards", "32")
    assert "--shards 16, where this stream has --shards 32" in said
    topics.disorder = "7s"
    said = refused(topics, flink, tmp_path, *resumed)
    assert "--disorder 25s, where this stream has --disorder 7s" in said
    topics.disorder = "25s"
    said = refused(topics, flink, tmp_path, *resumed, program=newer.OTHER_STEPS)
    assert "the savepoint is not of this job" in said
    said = refused(topics, flink, tmp_path, "--savepoint_path", "file:/no/such/savepoint")
    assert "/no/such/savepoint" in said
    assert topics.rows() == before, "nobody has gone on"
