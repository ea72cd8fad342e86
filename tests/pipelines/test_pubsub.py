"""Streams between Pub/Sub topics, on both local engines: the truth, kills, mixtures, refusals."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import run
from examples.simulator.stream import Disturbance
from tests.pipelines import streams
from tests.pipelines.pubsub_streams import Outputs, send, unfinished
from tests.services.kafka import KafkaBroker
from tests.services.ports import free_ports
from tests.services.pubsub import EMULATOR, PROJECT, PubSubService

SECOND = 1_000_000
LEASE_S = 10
DISTURBED = Disturbance(disorder=2 * SECOND, duplicates=0.05)
ENGINES = ["FnApiRunner", "PrismRunner"]


@pytest.fixture(autouse=True)
def found(pubsub: PubSubService, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(EMULATOR, pubsub.address)
    yield


def engine(name: str, request: pytest.FixtureRequest) -> list[str]:
    """Return the options that choose an engine."""
    if name == "FnApiRunner":
        return ["--runner", name]
    return ["--runner", name, "--prism_location", request.getfixturevalue("prism")]


def sent(seed: int, messages: int = 1000, garbage: float = 0.0, seconds: int = 15) -> streams.Sent:
    """Draw messages whose last events are of now: the publish times are the service's own."""
    start = time.time_ns() // 1000 - seconds * SECOND
    return streams.json_messages(messages, DISTURBED, seed=seed, start=start, garbage=garbage)


@pytest.mark.parametrize("name", ENGINES)
def test_a_stream_gives_the_truth_and_its_laws_hold(
    pubsub: PubSubService, request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    """Several subscriptions; all that was read is acknowledged when it ends, and not before."""
    one, two = streams.new_name("one"), streams.new_name("two")
    for each in (one, two):
        pubsub.create_topic(each, [each], ack_deadline_seconds=LEASE_S)
    drawn = sent(1, garbage=0.01)
    with (
        Outputs(pubsub, f"{one}-out-") as outputs,
        streams.running(
            tmp_path,
            *("--input", f"pubsub://{PROJECT}/{one},{two}?idle=1s&lease={LEASE_S}s"),
            *("--output", outputs.address, "--disorder", "20s", *engine(name, request)),
            *("--end_states", ",".join(drawn.truth.end_states)),
        ) as job,
    ):
        # By case: the two halves have no order among each other.
        halves = [[r for r in drawn.records if (hash(r.key) % 2) == half] for half in (0, 1)]
        for topic, half in zip((one, two), halves, strict=True):
            send(pubsub, topic, [record.payload for record in half])
        dead = drawn.truth.dead
        job.wait_until(lambda: len(outputs.rows("dead_letters")) == dead)
        # All was read, long ago for who would lose it; nothing that waits was acknowledged.
        job.wait_until(lambda: len(outputs.rows("transitions")) >= drawn.truth.transitions)
        time.sleep(1)
        ended = job.stop()
        assert (ended.code, ended.laws()) == (0, streams.law_of(drawn.truth)), ended
        assert outputs.differences(drawn.truth, tmp_path / "tables") == []
    assert outputs.rows("late") == []
    for each in (one, two):
        assert unfinished(pubsub, each, 1) == []


@pytest.mark.parametrize("name", ENGINES)
def test_nothing_is_acknowledged_before_an_output_has_it(
    pubsub: PubSubService, request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    """Killed while everything that was read waits for its granule: all of it comes again."""
    topic = streams.new_name("held")
    pubsub.create_topic(topic, [topic], ack_deadline_seconds=LEASE_S)
    drawn = sent(2, 300)
    arguments = [
        *("--input", f"pubsub://{PROJECT}/{topic}?idle=1s&lease={LEASE_S}s"),
        *("--disorder", "1h", *engine(name, request)),
    ]
    send(pubsub, topic, [record.payload for record in drawn.records])
    with Outputs(pubsub, f"{topic}-out-") as outputs:
        with streams.running(tmp_path, *arguments, "--output", outputs.address) as job:
            job.wait_for("engine: ")
            # Half of a minute's worth of leases: the stream has them all, and prolongs them.
            time.sleep(LEASE_S + 5)
            assert pubsub.take(topic) == []
            job.kill()
        assert outputs.rows("transitions") == []
    left = unfinished(pubsub, topic, LEASE_S + 2)
    assert sorted(each.data for each in left) == sorted(r.payload for r in drawn.records)


@pytest.mark.parametrize("name", ENGINES)
def test_a_job_that_is_killed_loses_nothing(
    pubsub: PubSubService, request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    """`kill -9` in the midst of reading and writing; another one goes on with what is left."""
    topic = streams.new_name("killed")
    pubsub.create_topic(topic, [topic], ack_deadline_seconds=LEASE_S)
    drawn = sent(3, 1500, seconds=15)
    half = len(drawn.records) // 2
    payloads = [record.payload for record in drawn.records]
    # The second one waits longer than a lease: what the first one had comes again by then.
    arguments = ["--disorder", "3s", "--end_states", ",".join(drawn.truth.end_states)]
    arguments += engine(name, request)
    source = f"pubsub://{PROJECT}/{topic}?lease={LEASE_S}s"
    with Outputs(pubsub, f"{topic}-out-") as outputs:
        arguments += ["--output", outputs.address]
        with streams.running(tmp_path, "--input", f"{source}&idle=1s", *arguments) as job:
            send(pubsub, topic, payloads[:half], 4)
            job.wait_until(lambda: len(outputs.rows("transitions")) > 50)
            send(pubsub, topic, payloads[half : half + 200])
            job.kill()
        outputs.take()
        before = streams.seen(outputs.rows("transitions") + outputs.rows("late"))
        assert before < streams.expected(drawn.truth)
        send(pubsub, topic, payloads[half + 200 :])
        query = f"&idle={LEASE_S + 2}s"
        with streams.running(tmp_path, "--input", source + query, *arguments) as job:

            def everything() -> bool:
                rows = outputs.rows("transitions") + outputs.rows("late")
                return streams.seen(rows) == streams.expected(drawn.truth)

            job.wait_until(everything, 90)
            ended = job.stop()
        ended.laws()
        assert ended.code == 0
    assert unfinished(pubsub, topic, LEASE_S + 1) == []


def test_ids_are_those_of_before_when_messages_are_out_on_lease_at_a_restart(
    pubsub: PubSubService, tmp_path: Path
) -> None:
    """What can be seen of a topic then is nothing; that `event_id` is an id was seen before."""
    topic = streams.new_name("leased")
    pubsub.create_topic(topic, [topic], ack_deadline_seconds=LEASE_S)
    begin = time.time_ns() // 1000 - 100 * SECOND
    payloads = [
        b'{"case_id": "c%d", "activity": "a", "event_time": %d, "event_id": "E%d"}'
        % (i % 7, (begin + i * SECOND) // SECOND, i)
        for i in range(50)
    ]
    send(pubsub, topic, payloads)
    folder = tmp_path / "out"
    source = f"pubsub://{PROJECT}/{topic}?lease={LEASE_S}s&idle={LEASE_S + 2}s"
    arguments = ["--input", source, "--output", str(folder), "--granule", "1s"]
    with streams.running(tmp_path, *arguments, "--disorder", "1h") as job:
        # Nobody else looks whether they are out: who takes a message to look at it has it.
        job.wait_for(f" {len(payloads)} events ")
        job.kill()
    with streams.running(tmp_path, *arguments, "--disorder", "1s") as job:
        job.wait_for("as in earlier runs")

        def ids() -> set[str]:
            if not list(folder.glob("transitions/*.parquet")):
                return set()
            rows = pq.read_table(folder / "transitions", columns=["event_id"]).to_pylist()
            return {row["event_id"] for row in rows}

        job.wait_until(lambda: len(ids()) == len(payloads))
        assert job.stop().code == 0
    assert ids() == {f"E{i}" for i in range(50)}


def test_a_mixture_of_brokers(
    pubsub: PubSubService, kafka: KafkaBroker, prism: str, tmp_path: Path
) -> None:
    """Kafka and Pub/Sub in, both and a folder out: each output has everything."""
    topic = streams.new_name("mixed")
    pubsub.create_topic(topic, [topic], ack_deadline_seconds=LEASE_S)
    kafka.create_topic(topic, 2)
    first, second = sent(4, 400), sent(5, 400)
    truth = streams.together(first.truth, second.truth)
    folder = tmp_path / "out"
    with (
        Outputs(pubsub, f"{topic}-out-") as outputs,
        streams.running(
            tmp_path,
            *("--input", f"pubsub://{PROJECT}/{topic}?idle=1s"),
            f"kafka://{kafka.address}/{topic}?start=earliest",
            *("--output", outputs.address, f"kafka://{kafka.address}/{topic}-out-", str(folder)),
            *("--runner", "PrismRunner", "--prism_location", prism, "--disorder", "20s"),
            *("--end_states", ",".join(truth.end_states), "--granule", "5s"),
        ) as job,
    ):
        send(pubsub, topic, [record.payload for record in first.records])
        streams.send(kafka, second.records, lambda _: topic, own_times=False)
        job.wait_until(lambda: len(outputs.rows("transitions")) >= truth.transitions, 90)
        ended = job.stop()
        assert (ended.code, ended.laws()) == (0, streams.law_of(truth)), ended
        assert outputs.differences(truth, tmp_path / "pubsub") == []
    assert streams.differences(kafka, f"{topic}-out-", truth, tmp_path / "kafka") == []
    rows = pq.read_table(folder / "transitions").to_pylist()
    assert {row["row_id"] for row in rows} == {row["row_id"] for row in outputs.rows("transitions")}
    assert unfinished(pubsub, topic, 1) == []


def test_a_stream_equals_a_backfill_over_the_same_messages(
    pubsub: PubSubService, tmp_path: Path
) -> None:
    topic = streams.new_name("orderly")
    pubsub.create_topic(topic, [topic], ack_deadline_seconds=LEASE_S)
    start = time.time_ns() // 1000 - 5 * SECOND
    drawn = streams.json_messages(400, Disturbance(), seed=6, start=start)
    payloads = [record.payload for record in drawn.records]
    options = ["--end_states", ",".join(drawn.truth.end_states), "--quiet"]
    with (
        Outputs(pubsub, f"{topic}-out-") as outputs,
        streams.running(
            tmp_path,
            *("--input", f"pubsub://{PROJECT}/{topic}?idle=1s", "--disorder", "10s", *options),
            *("--output", outputs.address),
        ) as job,
    ):
        send(pubsub, topic, payloads)
        job.wait_until(lambda: len(outputs.rows("transitions")) == drawn.truth.transitions)
        assert job.stop(signal.SIGTERM) == streams.Ended(0, "", "")
        outputs.take()
        written = {table: outputs.rows(table) for table in ("transitions", "cases", "late")}
    lines = tmp_path / "lines.jsonl"
    lines.write_bytes(b"".join(payload + b"\n" for payload in payloads))
    back = tmp_path / "back"
    arguments = ["transitions", "--input", str(lines), "--output", str(back), *options]
    assert run.main(arguments) == 0
    assert written["late"] == []
    expected = streams.as_json(pq.read_table(back / "transitions"))
    # An event without an id of its own is known by its place in the input, too.
    own = ("event_id",)
    assert streams.keyed(written["transitions"], own) == streams.keyed(expected, own)


# What is refused


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run the command line, which must fail with one line, before anything is made."""
    code = run.main(["transitions", *arguments])
    said = capsys.readouterr()
    assert said.out == ""
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said.err
    assert "Traceback" not in said.err
    return code, errors[0]


def test_what_can_not_be_is_one_line(
    pubsub: PubSubService, capsys: pytest.CaptureFixture[str]
) -> None:
    name = streams.new_name("there")
    pubsub.create_topic(name, [name])
    source, output = f"pubsub://{PROJECT}/{name}", f"pubsub://{PROJECT}/{name}-"
    wrong = [
        (f"{source}x", f"{output}?create=yes", 4, f"subscriptions/{name}x does not exist"),
        (source, output, 5, f"topics/{name}-transitions does not exist"),
        (f"{source}?lease=1s", output, 2, "lease=1s is not 10s to 600s"),
        (source, "pubsub://Bad/x", 2, "'Bad' is no id of a project"),
    ]
    for given, to, code, said in wrong:
        found, line = failing(capsys, "--input", given, "--output", to)
        assert (found, said in line) == (code, True), line
    made = [each.name for each in pubsub.publisher().list_topics(project=f"projects/{PROJECT}")]
    assert not [each for each in made if f"{name}-" in each]


def test_no_service_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv(EMULATOR, address)
    source, output = "pubsub://my-project/orders", "pubsub://my-project/out-"
    code, line = failing(capsys, "--input", source, "--output", output)
    assert code == 4
    assert f"no Pub/Sub emulator answers at {address} (PUBSUB_EMULATOR_HOST)" in line


def test_topics_are_created_when_asked_and_a_plan_makes_nothing(
    pubsub: PubSubService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = streams.new_name("made")
    pubsub.create_topic(name, [name])
    source, output = f"pubsub://{PROJECT}/{name}", f"pubsub://{PROJECT}/{name}-?create=yes"
    arguments = ["--input", source, "--output", output]
    assert run.main(["transitions", *arguments, "--explain_plan"]) == 0
    said = capsys.readouterr().out
    assert f"input     {source}?idle=10s&lease=1m" in said
    assert f"output    {output}" in said

    def topics() -> list[str]:
        listed = pubsub.publisher().list_topics(project=f"projects/{PROJECT}")
        return sorted(each.name for each in listed if f"/{name}-" in each.name)

    assert topics() == []
    with streams.running(tmp_path, *arguments) as job:
        job.wait_for(f"created topic {name}-cases; until it has a subscription")
        job.wait_for("engine: ")
        assert job.stop().code == 0
    assert len(topics()) == 5


def test_flink_without_checkpoints_would_acknowledge_nothing(
    pubsub: PubSubService, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import live  # noqa: PLC0415
    from pipelines.exit_codes import RunError  # noqa: PLC0415
    from pipelines.options import parse  # noqa: PLC0415

    arguments = ["--input", "pubsub://my-project/orders", "--output", "pubsub://my-project/out-"]
    arguments += ["--runner", "FlinkRunner", "--checkpointing_interval"]
    settings, flags = parse([*arguments, "-1"])
    with pytest.raises(RunError, match="--checkpointing_interval turns them off"):
        live._check_finalized(settings, flags)
    settings, flags = parse([*arguments, "5000"])
    live._check_finalized(settings, flags)
