"""Jobs for Dataflow, as far as no job is made: what is refused, and the graph of each pipeline.

Dataflow's own runner builds and checks the job, and does not send it (`--dry_run`). What the
service makes of it is not tested here.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import getpass
import re
import socket
import sysconfig
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.portability.common_urns import deprecated_primitives

import run
from pipelines import dataflow, live, stream_engine
from pipelines.options import parse
from pipelines.registry import PIPELINES, RunContext
from tests.services.provision import missing_part
from transforms.fold.granules import GranuleFold
from transforms.fold.streaming import FoldStream
from transforms.sinks.commit import Run
from transforms.sinks.store import BeamStore
from transforms.sources import files
from transforms.sources.kafka import ReadKafka
from transforms.sources.messages import unpack_messages
from transforms.sources.pubsub.native import _Gather

ROOT = Path(__file__).parent.parent.parent
D = 30_000

PUBSUB = ("pubsub://shop-project/orders,others", "pubsub://shop-project/out-")
KAFKA = ("kafka://broker.example:9092/orders", "kafka://broker.example:9092/out-")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of our name: it is staged, and not looked into.

    Its path is as it was given, for Beam pickles its options with what it writes.
    """
    try:
        import apache_beam.runners.dataflow.internal.apiclient  # noqa: F401, PLC0415
    except ImportError as error:
        missing_part("Dataflow's runner", f"{error}; pip install 'apache-beam[gcp]'")
    monkeypatch.chdir(tmp_path)
    path = Path("imixs_data_streaming-0.1.0.tar.gz")
    path.write_bytes(b"")
    return str(path)


def for_dataflow(package: str) -> list[str]:
    return [
        *("--runner", "DataflowRunner", "--project", "shop-project", "--region", "europe-west1"),
        *("--temp_location", "gs://bucket/temp", "--extra_package", package),
    ]


def graph(pipeline: str, *arguments: str) -> tuple[beam.Pipeline, Any]:
    """Build a stream's job with Dataflow's runner: the pipeline, and what would be sent."""
    settings, flags = parse([*arguments, "--dry_run", "True"], pipeline)
    dataflow.check(settings, flags, {})
    chosen = stream_engine.choose(flags, len(settings.sources))
    assert (chosen.native, chosen.local, chosen.by_marks) == (True, False, False)
    context = live._context(PIPELINES[pipeline], settings, chosen, "", None, {})
    root = beam.Pipeline(runner=stream_engine.make_runner(chosen, flags), options=flags)
    PIPELINES[pipeline].build(root, settings, context)
    result: Any = root.run()
    return root, result.job.proto_pipeline


def steps(proto: Any) -> Mapping[str, Any]:
    """Return the steps that do something, by name; a composite may be of nothing."""
    return {
        each.unique_name: each
        for each in proto.components.transforms.values()
        if not each.subtransforms
        and not set(each.outputs.values()) <= set(each.inputs.values())
        or each.spec.urn.startswith("beam:transform:pubsub")
    }


def texts(proto: Any) -> Iterator[bytes]:
    """Return a job as it is sent, and what is pickled in it, without what is staged with it."""
    job = beam_runner_api_pb2.Pipeline()
    job.CopyFrom(proto)
    for environment in job.components.environments.values():
        del environment.dependencies[:]
    sent = job.SerializeToString()
    yield sent
    for packed in re.findall(rb"[A-Za-z0-9+/]{200,}={0,2}", sent):
        for open_ in (bz2.decompress, zlib.decompress):
            try:
                yield open_(base64.b64decode(packed))
            except (OSError, ValueError, zlib.error, binascii.Error):
                continue


def leaks(proto: Any) -> list[str]:
    """Return what a job holds that only this machine knows.

    Beam's own functions go by value, with the file that they are from: no place of ours.
    """
    libraries = sysconfig.get_path("purelib").encode()
    local = [str(ROOT), tempfile.gettempdir() + "/", str(Path.home()) + "/", "localhost"]
    local += ["127.0.0.1", "LOOPBACK", f"/{getpass.getuser()}/"]
    if len(socket.gethostname()) > 5:  # a shorter name is in every text
        local.append(socket.gethostname())
    found = []
    for text in (each.replace(libraries, b"") for each in texts(proto)):
        for each in local:
            at = text.find(each.encode())
            if at >= 0:
                found.append(f"{each}: {text[max(0, at - 60) : at + 60]!r}")
    return found


def supported(proto: Any) -> None:
    """Check a job against what Dataflow can do with Python (the table in docs/dataflow.md)."""
    known = {
        "beam:transform:impulse:v1",
        "beam:transform:pardo:v1",
        "beam:transform:flatten:v1",
        "beam:transform:group_by_key:v1",
        "beam:transform:reshuffle:v1",
        "beam:transform:combine_per_key:v1",
        deprecated_primitives.READ.urn,
        "beam:transform:pubsub_read:v1",
        "beam:transform:pubsub_write:v2",
        "beam:transform:pubsub_write:v1",
    }
    for name, step in steps(proto).items():
        assert step.spec.urn in known, (name, step.spec.urn)
        if step.spec.urn != "beam:transform:pardo:v1":
            continue
        payload = beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload)
        for state in payload.state_specs.values():
            assert state.WhichOneof("spec") in {"read_modify_write_spec", "bag_spec"}, name
        for timer in payload.timer_family_specs.values():
            assert timer.time_domain == beam_runner_api_pb2.TimeDomain.EVENT_TIME, name
        assert not payload.requires_time_sorted_input, name
        assert not payload.requires_stable_input, name
        if payload.state_specs:
            # Keys that one worker encodes and another reads.
            (main,) = step.inputs.values() if len(step.inputs) == 1 else [step.inputs["0"]]
            coder = proto.components.coders[proto.components.pcollections[main].coder_id]
            while coder.spec.urn != "beam:coder:kv:v1":
                coder = proto.components.coders[coder.component_coder_ids[0]]
            key = proto.components.coders[coder.component_coder_ids[0]]
            assert key.spec.urn == "beam:coder:varint:v1", name
    for strategy in proto.components.windowing_strategies.values():
        assert strategy.window_fn.urn.startswith("beam:window_fn:"), strategy
    for environment in proto.components.environments.values():
        assert environment.urn == "beam:env:docker:v1"
    names = list(steps(proto))
    assert len(set(names)) == len(names)
    # Labels are the contract with running jobs: none has a line number of ours. (Beam's own
    # Create has one, of the Beam that is pinned.)
    assert not [name for name in names if ".py" in name and "at core.py:" not in name]


def test_pubsub_is_read_and_written_by_the_service(package: str) -> None:
    arguments = ["--input", PUBSUB[0], "--output", PUBSUB[1], *for_dataflow(package)]
    root, proto = graph("transitions", *arguments)
    supported(proto)
    assert leaks(proto) == []
    found = steps(proto)
    urns = [each.spec.urn for each in found.values()]
    assert urns.count("beam:transform:pubsub_read:v1") == 2
    written = [name for name, each in found.items() if "pubsub_write" in each.spec.urn]
    assert len(written) == len(PIPELINES["transitions"].tables), sorted(found)
    assert not [name for name in found if "ReadUnbounded" in name or "Publish rows" in name]
    (fold,) = folds(root)
    assert fold.beam_time.ahead_ms == fold.disorder_us // 1000 == D


def test_kafka_is_read_by_our_own_source(package: str) -> None:
    arguments = ["--input", KAFKA[0], "--output", KAFKA[1], *for_dataflow(package)]
    root, proto = graph("transitions", *arguments)
    supported(proto)
    assert leaks(proto) == []
    found = steps(proto)
    assert [name for name in found if "Read topics/ReadUnbounded" in name]
    assert not [each for each in found.values() if "pubsub" in each.spec.urn]
    (fold,) = folds(root)
    # Our own source holds the watermark back.
    assert fold.beam_time.ahead_ms == 0
    assert [each.source.disorder_ms for each in applied(root, ReadKafka)] == [D]


def test_both_at_once_have_one_time(package: str) -> None:
    arguments = ["--input", PUBSUB[0], KAFKA[0], "--output", PUBSUB[1], KAFKA[1]]
    root, proto = graph("transitions", *arguments, *for_dataflow(package))
    supported(proto)
    assert leaks(proto) == []
    (fold,) = folds(root)
    assert fold.beam_time.ahead_ms == D
    assert [each.source.disorder_ms for each in applied(root, ReadKafka)] == [0]


def applied(root: beam.Pipeline, kind: type) -> list[Any]:
    """Return the transforms of a kind that a pipeline has."""
    found: list[Any] = []

    class Visitor(beam.pipeline.PipelineVisitor):
        def enter_composite_transform(self, node: Any) -> None:
            if isinstance(node.transform, kind):
                found.append(node.transform)

    root.visit(Visitor())
    return found


def folds(root: beam.Pipeline) -> list[GranuleFold]:
    return [each.fold for each in applied(root, FoldStream)]


def test_a_backfill_reads_and_writes_cloud_storage(package: str, tmp_path: Path) -> None:
    line = '{"case_id":"a","activity":"b","event_time":"2024-01-01"}'
    (tmp_path / "events.jsonl").write_text(line)
    arguments = ["--input", "gs://bucket/in/*.jsonl", "--output", "gs://bucket/out"]
    arguments += [*for_dataflow(package), "--dry_run", "True"]
    settings, flags = parse(arguments)
    dataflow.check(settings, flags, {})
    local = files.plan([f"{tmp_path}/*.jsonl"], "auto", settings.context())
    units = tuple(replace(unit, parts=tuple(map(in_cloud, unit.parts))) for unit in local.units)
    output = Run("gs://bucket/out", "gs://bucket/out/.run-1", "/tmp/run", "parquet", BeamStore())
    files_ = tuple(each._replace(path="gs://bucket/in/events.jsonl") for each in local.files)
    context = RunContext(
        "1",
        "DataflowRunner",
        False,
        "",
        replace(local, units=units, files=files_),
        output.elsewhere(),
        PIPELINES["transitions"].tables,
        "0.1.0",
    )
    root = beam.Pipeline(runner="DataflowRunner", options=flags)
    PIPELINES["transitions"].build(root, settings, context)
    result: Any = root.run()
    supported(result.job.proto_pipeline)
    assert leaks(result.job.proto_pipeline) == []


def in_cloud(part: Any) -> Any:
    return ("gs://bucket/in/events.jsonl", *part[1:])


class Message:
    """What Beam's own reading gives."""

    def __init__(self, number: int, size: int = 10) -> None:
        self.data = b"%d" % number + bytes(size)
        self.message_id = str(10_000 + number)
        self.attributes = {"a": "b"}
        self.ordering_key = ""


def test_messages_of_a_bundle_become_one_element() -> None:
    gather = _Gather("shop-project/orders", 3)
    gather.start_bundle()
    times = [5_000_000, 3_000_000, 4_000_000, 9_000_000]
    given = [
        each
        for number, time in enumerate(times)
        for each in gather.process(Message(number), beam.utils.timestamp.Timestamp(micros=time))
    ]
    (left,) = gather.finish_bundle()
    assert [each.timestamp.micros for each in (*given, left)] == [3_000_000, 9_000_000]
    messages = [*unpack_messages(given[0].value), *unpack_messages(left.value)]
    assert [each.record_time for each in messages] == times, "the service's own, of each"
    assert {each.place for each in messages} == {
        f"shop-project/orders/message/{10_000 + number}" for number in range(4)
    }
    assert [dict(each.attributes) for each in messages] == [{"a": "b"}] * 4
    assert list(gather.finish_bundle()) == []


# What is refused


WRONG = [
    # Arguments instead of, or besides, right ones; environment; what is said.
    (["--project="], {}, "--project is missing"),
    (["--region="], {}, "--region is missing"),
    (["--temp_location=/tmp/x"], {}, "--temp_location '/tmp/x' is no folder in Cloud Storage"),
    (["--temp_location="], {}, "--temp_location is missing"),
    (["--staging_location=/tmp/x"], {}, "--staging_location '/tmp/x' is no folder"),
    (["--output", "here"], {}, "--output 'here' is a folder of this machine"),
    (["--input", "kafka://localhost/t"], {}, "localhost:9092 is this machine"),
    (["--input", "kafka://127.0.0.1:1/t"], {}, "127.0.0.1:1 is this machine"),
    (["--output", "kafka://[::1]:1/t"], {}, "[::1]:1 is this machine"),
    (["--input", "kafka://h/t?config=/etc/x"], {}, "config=/etc/x is a file of this machine"),
    ([], {"PUBSUB_EMULATOR_HOST": "h:1"}, "PUBSUB_EMULATOR_HOST=h:1 is set"),
    (["--state_from", "out"], {}, "--state_from 'out' is a folder of this machine"),
    (["--environment_type", "LOOPBACK"], {}, "--environment_type LOOPBACK is not for Dataflow"),
    (["--save_main_session"], {}, "--save_main_session does not fit"),
]


@pytest.mark.parametrize(("more", "environment", "said"), WRONG)
def test_what_workers_could_not_use_is_refused(
    more: list[str], environment: dict[str, str], said: str
) -> None:
    arguments = ["--input", PUBSUB[0], "--output", PUBSUB[1], *for_dataflow("imixs_data_streaming")]
    for each in more:
        name = each.partition("=")[0]
        if name in arguments and "=" in each:
            arguments[arguments.index(name) + 1] = each.partition("=")[2]
    added = [each for each in more if "=" not in each or not each.startswith("--")]
    added += [each for each in more if each.startswith("--staging")]
    settings, flags = parse([*arguments, *added])
    problems = list(dataflow.problems(settings, flags, environment))
    assert len(problems) == 1 + bool(environment), problems
    assert said in problems[0]


def test_workers_need_our_program() -> None:
    arguments = ["--input", PUBSUB[0], "--output", PUBSUB[1], *for_dataflow("other.tar.gz")]
    settings, flags = parse(arguments)
    (problem,) = dataflow.problems(settings, flags, {})
    assert "workers lack this program" in problem
    assert "--extra_package" in problem
    for given in (["--sdk_container_image", "image"], ["--setup_file", "./setup.py"]):
        settings, flags = parse([*arguments, *given])
        assert list(dataflow.problems(settings, flags, {})) == []


def test_nothing_wrong_is_no_problem() -> None:
    arguments = ["--input", KAFKA[0], "--output", KAFKA[1]]
    settings, flags = parse([*arguments, *for_dataflow("imixs-data-streaming-1.tar.gz")])
    assert list(dataflow.problems(settings, flags, {})) == []


@pytest.mark.parametrize("files_", [False, True])
def test_a_run_that_can_not_be_is_one_line(
    files_: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("case_id,activity,event_time\nx,y,2024-01-01\n")
    source = f"{tmp_path}/a.csv" if files_ else PUBSUB[0]
    output = str(tmp_path / "out") if files_ else PUBSUB[1]
    arguments = ["--input", source, "--output", output, *for_dataflow("imixs_data_streaming")]
    arguments[arguments.index("gs://bucket/temp")] = "/tmp/x"
    assert run.main(["transitions", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.splitlines() == [
        "error: --temp_location '/tmp/x' is no folder in Cloud Storage, such as gs://bucket/temp"
    ]
