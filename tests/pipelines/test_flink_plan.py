"""What is found out before a job starts on Flink, and what is set for it."""

from __future__ import annotations

import json
import re
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from pipelines import flink, flink_options
from pipelines.beam_flags import parse
from pipelines.exit_codes import ExitCode, RunError, UsageError
from pipelines.flink_options import FlinkJobOptions
from tests.pipelines.job_manager import JobManager, job_manager
from tests.services.ports import free_ports

HERE = ["--runner", "FlinkRunner", "--job_server_java_launcher", "sh"]
"""The options of a job whose job server `java` would be there for."""


def flags_of(*arguments: str) -> PipelineOptions:
    return parse([*HERE, *arguments], [], workers=False)


def planned(flags: PipelineOptions, **given: Any) -> flink.FlinkPlan:
    wanted: dict[str, Any] = {"streaming": True, "detached": False, "useful": 64, **given}
    return flink.plan(flags, name="transitions", **wanted)


def settings(plan: flink.FlinkPlan) -> dict[str, tuple[str, str]]:
    return {each.name: (each.value, each.reason) for each in plan.settings}


@pytest.fixture
def cluster() -> Any:
    with job_manager() as manager:
        manager.cluster()
        yield manager


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--checkpointing_intervall", "5"], ["did you mean '--checkpointing_interval'?"]),
        (["--checkpointing_interval", "10s"], ["--checkpointing_interval", "'10s'"]),
        (["--object_reuse", "maybe"], ["--object_reuse", "'maybe'"]),
        (["--savepoint-path", "x"], ["did you mean '--savepoint_path'?"]),
        (["--paralelism", "2"], ["did you mean '--parallelism'?"]),
    ],
)
def test_a_slip_in_an_option_of_flink_is_an_error(arguments: list[str], names: list[str]) -> None:
    with pytest.raises(UsageError) as raised:
        flags_of(*arguments)
    assert all(name in str(raised.value) for name in names), str(raised.value)


def test_an_option_of_flink_needs_flink() -> None:
    with pytest.raises(UsageError, match="--max_bundle_size is an option of Flink"):
        parse(["--runner", "PrismRunner", "--max_bundle_size", "5"], [], workers=False)


def test_what_is_given_reaches_the_job_server_as_it_is() -> None:
    flags = flags_of("--object_reuse", "--attached_mode", "false", "--max_bundle_size", "7")
    wanted = {"object_reuse": True, "attached_mode": False, "max_bundle_size": 7}
    assert flink_options.given(flags) == wanted
    everything = flags.get_all_options()
    assert {name: everything[name] for name in wanted} == wanted
    assert everything["checkpointing_interval"] is None


def test_a_stream_gets_what_suits_it(cluster: JobManager) -> None:
    flags = flags_of("--flink_master", cluster.address)
    plan = planned(flags, useful=3)
    assert (plan.master, plan.own_pool, plan.parallelism) == (cluster.address, True, 3)
    assert plan.job_name == flags.view_as(GoogleCloudOptions).job_name
    assert re.fullmatch(r"imixs-streams-transitions-[0-9a-f]{6}", plan.job_name)
    assert settings(plan) == {
        "parallelism": ("3", "4 free slots, 3 are of use"),
        "checkpointing_interval": ("10000", "ms; a restart goes on from the last one"),
        "fail_on_checkpointing_errors": ("false", "a full disk is waited for"),
        "max_bundle_size": ("10000", "batches of messages"),
        "max_bundle_time_mills": ("200", "rows leave when a bundle ends"),
        "finish_bundle_before_checkpointing": ("true", "nothing is held back by a checkpoint"),
        "externalized_checkpoints_enabled": ("true", "kept if the job fails"),
        "environment_type": ("EXTERNAL", "processes of this launcher"),
        "sdk_worker_parallelism": ("2", "worker processes a task manager: one a slot"),
    }
    options = flags.view_as(FlinkJobOptions)
    assert (options.checkpointing_interval, options.fail_on_checkpointing_errors) == (10_000, False)
    assert flags.view_as(FlinkRunnerOptions).flink_version == "1.19"
    assert flags.view_as(StandardOptions).streaming
    assert flags.view_as(PortableOptions).job_server_timeout > 365 * 86_400


def test_what_the_user_gives_stands(cluster: JobManager) -> None:
    given = ["--checkpointing_interval", "500", "--max_bundle_size", "9", "--parallelism", "1"]
    given += ["--environment_type", "EXTERNAL", "--environment_config", "pool:7"]
    given += ["--sdk_worker_parallelism", "5", "--job_name", "mine"]
    flags = flags_of("--flink_master", cluster.address, *given)
    plan = planned(flags)
    found = settings(plan)
    assert [found[name] for name in ("checkpointing_interval", "max_bundle_size")] == [
        ("500", "given"),
        ("9", "given"),
    ]
    assert (found["parallelism"], plan.parallelism) == (("1", "given"), 1)
    assert found["sdk_worker_parallelism"] == ("5", "given")
    assert (plan.own_pool, plan.job_name, plan.workers) == (False, "mine", "EXTERNAL pool:7")
    # A pool of ours is told what the job needs.
    config = json.loads(flags.view_as(PortableOptions).environment_config)
    assert config["url"] == "pool:7"
    assert {"python", "beam", "imixs_data_streaming", "modules"} == set(config["params"])


def test_a_backfill_has_no_checkpoints(cluster: JobManager) -> None:
    flags = flags_of("--flink_master", cluster.address)
    found = settings(planned(flags, streaming=False, useful=1))
    assert set(found) == {"parallelism", "environment_type", "sdk_worker_parallelism"}
    assert found["sdk_worker_parallelism"][0] == "1"
    assert not flags.view_as(StandardOptions).streaming


def test_a_cluster_inside_the_job_server_needs_nothing_else() -> None:
    plan = planned(flags_of(), useful=1)
    assert (plan.master, plan.rest(), plan.own_pool) == ("", None, True)
    assert settings(plan)["parallelism"] == ("1", "as many as cores here")


def refused(flags: PipelineOptions, **given: Any) -> str:
    with pytest.raises(RunError) as raised:
        planned(flags, **given)
    assert raised.value.code == ExitCode.USAGE
    return raised.value.text


def test_no_cluster_at_the_address() -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    text = refused(flags_of("--flink_master", address))
    assert f"--flink_master {address}" in text
    assert "nobody answers" in text
    assert "REST" in text


@pytest.mark.parametrize("said", ["hello", {"status": "fine"}, None])
def test_something_else_at_the_address(cluster: JobManager, said: Any) -> None:
    cluster.answers["overview"] = said
    text = refused(flags_of("--flink_master", cluster.address))
    assert "is no job manager" in text or "answers 404" in text


def test_workers_of_another_machine_must_be_named() -> None:
    with job_manager("127.0.0.2") as manager:
        manager.cluster()
        text = refused(flags_of("--flink_master", manager.address))
    assert "workers --port 50000" in text
    assert "--environment_type EXTERNAL" in text


def test_who_does_not_wait_can_serve_no_workers(cluster: JobManager) -> None:
    text = refused(flags_of("--flink_master", cluster.address), detached=True)
    assert "--no_wait_until_finish" in text


def test_a_flink_that_beam_has_no_job_server_for(cluster: JobManager) -> None:
    cluster.answers["overview"]["flink-version"] = "1.17.2"
    text = refused(flags_of("--flink_master", cluster.address))
    assert "is Flink 1.17" in text
    assert "--flink_job_server_jar" in text
    jar = Path(__file__)
    planned(flags_of("--flink_master", cluster.address, "--flink_job_server_jar", str(jar)))


def test_no_java_and_no_jar(cluster: JobManager) -> None:
    at = ["--runner", "FlinkRunner", "--flink_master", cluster.address]
    flags = parse([*at, "--job_server_java_launcher", "/no/java"], [], workers=False)
    assert "needs Java" in refused(flags)
    text = refused(flags_of("--flink_master", cluster.address, "--flink_job_server_jar", "/no/jar"))
    assert "/no/jar: no such file" in text


class _Jobs(beam_job_api_pb2_grpc.JobServiceServicer):
    def DescribePipelineOptions(self, request: Any, context: Any) -> Any:  # noqa: N802
        return beam_job_api_pb2.DescribePipelineOptionsResponse()


def test_the_job_server_is_asked_who_it_is(cluster: JobManager) -> None:
    port = free_ports(1)[0]
    at = ["--flink_master", cluster.address, "--job_endpoint"]
    assert f"localhost:{port}: nobody answers" in refused(flags_of(*at, f"localhost:{port}"))
    assert "--job_endpoint" in refused(flags_of(*at, cluster.address))
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        assert "no job server of Beam answers" in refused(flags_of(*at, f"127.0.0.1:{port}"))
    finally:
        server.stop(None).wait()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(_Jobs(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        planned(flags_of(*at, f"127.0.0.1:{port}"))
    finally:
        server.stop(None).wait()
