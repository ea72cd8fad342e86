"""Jobs killed on Prism, which keeps nothing: what to begin with so that nothing is lost."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone
from pathlib import Path

from examples.simulator.stream import Disturbance
from tests.pipelines import streams
from tests.pipelines.test_handover import APPENDED, D, archive, json_events, table
from tests.pipelines.test_transitions import transitions
from tests.services.kafka import KafkaBroker

SECOND = 1_000_000


def on_prism(prism: str, *options: str) -> list[str]:
    return ["--runner", "PrismRunner", "--prism_location", prism, *options]


def test_from_the_beginning_a_killed_job_gives_every_transition_once(
    kafka: KafkaBroker, prism: str, tmp_path: Path
) -> None:
    """Killed while messages come; rows that came before and after have the same ids."""
    name = streams.new_name("killed")
    prefix = f"{name}-out-"
    kafka.create_topic(name, 2)
    disturbed = Disturbance(disorder=2 * SECOND, duplicates=0.05)
    start = time.time_ns() // 1000 - 40 * SECOND
    sent = streams.json_messages(2000, disturbed, seed=6, start=start)
    half = len(sent.records) // 2
    options = on_prism(prism, "--disorder", "2s", "--end_states", ",".join(sent.truth.end_states))
    source, made = f"kafka://{kafka.address}/{name}", [f"{prefix}transitions"]
    options += ["--output", f"kafka://{kafka.address}/{prefix}"]
    streams.send(kafka, sent.records[:half], lambda _: name)
    # What is sent late here has old record times: a partition taken for idle would raise them.
    query = f"?group={name}&idle=1h"
    with streams.running(tmp_path, "--input", source + query, *options) as job:
        job.wait_until(lambda: streams.counts(kafka, made) > 0)
        paced = threading.Thread(
            target=streams.send, args=(kafka, sent.records[half:], lambda _: name)
        )
        paced.start()
        time.sleep(0.3)
        job.kill()
        paced.join()
    before = streams.seen(streams.rows(kafka, made[0]))
    assert before < streams.expected(sent.truth)
    query = f"?group={name}&start=earliest"
    with streams.running(tmp_path, "--input", source + query, *options) as job:
        job.wait_until(lambda: streams.counts(kafka, made) > sent.truth.transitions)
        job.wait_until(lambda: streams.committed(kafka, name, [name]))
        ended = job.stop()
    assert (ended.code, ended.laws()) == (0, streams.law_of(sent.truth))
    assert streams.differences(kafka, prefix, sent.truth, tmp_path / "tables") == []
    twice = streams.rows(kafka, made[0])
    assert len(twice) > len(streams.once(twice)) == sent.truth.transitions


def test_offsets_on_prism_are_ahead_of_what_is_delivered(
    kafka: KafkaBroker, prism: str, tmp_path: Path
) -> None:
    """Why a job that was killed must not go on from them: what it had taken is in no output."""
    name = streams.new_name("ahead")
    kafka.create_topic(name, 2)
    start = time.time_ns() // 1000 - 4 * SECOND
    sent = streams.json_messages(400, Disturbance(), seed=7, start=start)
    streams.send(kafka, sent.records, lambda _: name, own_times=False)
    output = ["--output", f"kafka://{kafka.address}/{name}-", *on_prism(prism)]
    made = [f"{name}-transitions"]

    def arguments(query: str, disorder: str) -> list[str]:
        address = f"kafka://{kafka.address}/{name}?group={name}{query}"
        return ["--input", address, "--disorder", disorder, *output]

    with streams.running(tmp_path, *arguments("", "1h")) as job:
        job.wait_until(lambda: streams.committed(kafka, name, [name]))
        job.kill()
    assert streams.counts(kafka, made) == 0
    with streams.running(tmp_path, *arguments("", "0s")) as job:
        job.wait_for("engine: PrismRunner")
        time.sleep(3)
        assert job.stop().laws()["messages"]["in"] == 0
    assert streams.counts(kafka, made) == 0
    with streams.running(tmp_path, *arguments("&start=earliest", "0s")) as job:
        job.wait_until(lambda: streams.counts(kafka, made) == sent.truth.transitions)
        assert job.stop().laws() == streams.law_of(sent.truth)


def test_with_the_state_of_a_backfill_a_killed_job_gives_every_transition_once(
    kafka: KafkaBroker, prism: str, tmp_path: Path
) -> None:
    """The same hand-over twice: each begins at the archive's end, with the archive's cases."""
    # What is sent late here has record times of before: as in the test above, it must not be so
    # late that a partition is taken for idle.
    sent = json_events(time.time_ns() // 1000 - 60 * SECOND)
    records = sent.records
    cut = records[len(records) * 2 // 5].arrival
    until = (cut - D) // 1000 * 1000
    early = [record for record in records if record.arrival < cut]
    options = ["--columns", "event_id=event_id", "--disorder", "10s"]
    options += ["--end_states", ",".join(sent.truth.end_states)]
    one, out = tmp_path / "one", tmp_path / "out"
    transitions(archive(tmp_path / "everything", records), one, *options)
    text = f"{datetime.fromtimestamp(until / SECOND, timezone.utc):%Y-%m-%dT%H:%M:%S.%fZ}"
    transitions(
        archive(tmp_path / "archive", early), out, *options, "--until", text, "--keep_state"
    )

    name = streams.new_name("handed")
    prefix = f"{name}-out-"
    kafka.create_topic(name, 3)
    made = [f"{prefix}transitions"]
    arguments = on_prism(prism, *options, "--state_from", str(out))
    arguments += ["--output", f"kafka://{kafka.address}/{prefix}"]
    address = f"kafka://{kafka.address}/{name}?group={name}&start={text}"
    half = len(records) * 7 // 10
    streams.send(kafka, records[:half], lambda _: name)
    with streams.running(tmp_path, "--input", f"{address}&idle=1h", *arguments) as job:
        job.wait_until(lambda: streams.counts(kafka, made) > 50)
        job.kill()
    streams.send(kafka, records[half:], lambda _: name)
    wanted = {each: streams.keyed(table(one, each)) for each in APPENDED}
    before = {each: streams.keyed(table(out, each)) for each in APPENDED}
    left = len(wanted["transitions"]) - len(before["transitions"])
    assert left > 100
    repeated = streams.counts(kafka, made)
    with streams.running(tmp_path, "--input", address, *arguments) as job:
        job.wait_until(lambda: streams.counts(kafka, made) >= repeated + left)
        ended = job.stop()
    assert ended.code == 0, ended.err
    ended.laws()
    for each in APPENDED:
        assert before[each] | streams.keyed(streams.rows(kafka, prefix + each)) == wanted[each]
    assert len(streams.rows(kafka, made[0])) > left
    cases = streams.keyed(table(out, "cases")) | streams.keyed(
        streams.rows(kafka, f"{prefix}cases")
    )
    newest = {row["case_id"]: row for row in cases.values()}
    assert set(newest) == {row["case_id"] for row in table(one, "cases")}
