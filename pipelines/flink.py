"""The way onto Flink: what is found out before a job starts, and the options that suit it.

A user gives `--runner FlinkRunner` and where the cluster is. What else matters is set here
(`plan`), unless it is given, and `--explain_plan` prints it. A cluster that is not there, a job
server that does not answer, workers that nobody has named: one line, before anything starts.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import grpc  # type: ignore[import-untyped]
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

from pipelines import job_server
from pipelines.exit_codes import ExitCode, RunError
from pipelines.flink_options import FlinkJobOptions, given
from pipelines.flink_rest import FlinkRest, FlinkUnreachable
from pipelines.worker_pool import WorkerPool, needs

CHECKPOINT_MS = 10_000
BUNDLE_ELEMENTS = 10_000
BUNDLE_MS = 200
ANSWER_S = 10.0
"""So long a job server may take to say that it is one."""

FOR_EVER_S = 10 * 365 * 86_400
"""Beam gives up a job that runs for so long: five minutes, if left alone."""

HERE = ("localhost", "127.0.0.1", "[::1]")
MAGIC = ("[local]", "[auto]")


@dataclass(frozen=True)
class Setting:
    """An option as the job gets it.

    Attributes:
        name: without the dashes.
        value: as text.
        reason: why it is this one.
    """

    name: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"--{self.name} {self.value} ({self.reason})"


@dataclass(frozen=True)
class FlinkPlan:
    """How a job gets onto Flink.

    Attributes:
        master: `host:port` of the job manager; empty if it is not known, or a cluster inside the
            job server.
        settings: what was set, or given.
        job_name: of the job.
        own_pool: whether the launcher serves the workers itself.
        workers: where the workers are, in words.
        parallelism: 0 if the cluster decides.
    """

    master: str
    settings: tuple[Setting, ...]
    job_name: str
    own_pool: bool
    workers: str
    parallelism: int

    def rest(self) -> FlinkRest | None:
        """Return the job manager, if it is known where it is."""
        return FlinkRest(self.master) if self.master else None


def plan(
    flags: PipelineOptions, *, streaming: bool, detached: bool, name: str, useful: int
) -> FlinkPlan:
    """Find out what there is, and set Beam's options to suit it.

    Args:
        flags: Beam's options; changed.
        streaming: whether the job never ends by itself.
        detached: whether the launcher ends before the job does.
        name: of the pipeline.
        useful: more parallelism than this is of no use.

    Raises:
        RunError: there is no cluster, no job server, or nobody to do the work.
    """
    found = _Found(flags)
    overview = found.overview()
    found.check_job_server(overview)
    settings: list[Setting] = []
    parallelism = _parallelism(flags, overview, useful, settings)
    _runner_options(flags, streaming, parallelism, settings)
    named = _named_workers(flags)
    own_pool = _environment(flags, found.master, detached, settings)
    _workers(flags, overview, parallelism, settings)
    cloud = flags.view_as(GoogleCloudOptions)
    # The job is found by its name: two launched at once must not be taken for each other.
    cloud.job_name = cloud.job_name or f"imixs-streams-{name}-{secrets.token_hex(3)}"
    flags.view_as(StandardOptions).streaming = streaming
    flags.view_as(SetupOptions).save_main_session = False
    flags.view_as(PortableOptions).job_server_timeout = FOR_EVER_S
    workers = flags.view_as(WorkerOptions)
    # The job server knows the levels of Java; Python takes this one, too.
    if workers.default_sdk_harness_log_level in (None, "WARNING"):
        workers.default_sdk_harness_log_level = "WARN"
    return FlinkPlan(found.master, tuple(settings), cloud.job_name, own_pool, named, parallelism)


class _Found:
    """The cluster and the job server that the options name."""

    def __init__(self, flags: PipelineOptions) -> None:
        self._flink = flags.view_as(FlinkRunnerOptions)
        self._portable = flags.view_as(PortableOptions)
        self._java = flags.view_as(JobServerOptions).job_server_java_launcher
        master = self._flink.flink_master.strip()
        self.master = "" if master in MAGIC else master.rstrip("/")

    def overview(self) -> dict[str, Any]:
        """Return what the job manager says of the cluster; nothing if it is not known.

        Raises:
            RunError: it does not answer.
        """
        if not self.master:
            return {}
        try:
            return FlinkRest(self.master).overview()
        except FlinkUnreachable as error:
            text = (
                f"--flink_master {self.master}: {error}; give host:port of the job manager's REST "
                "interface, as its web page has it"
            )
            raise RunError(ExitCode.USAGE, text) from None

    def check_job_server(self, overview: dict[str, Any]) -> None:
        """See that there is a job server, or that one can be started.

        Raises:
            RunError: there is none, and none can be.
        """
        if self._portable.job_endpoint:
            self._ask(self._portable.job_endpoint)
            return
        if shutil.which(self._java) is None:
            text = (
                "Beam's job server for Flink needs Java, and there is none on PATH; install Java "
                "17, or give the --job_endpoint of a server that runs elsewhere"
            )
            raise RunError(ExitCode.USAGE, text)
        jar = self._flink.flink_job_server_jar
        if jar:
            if "://" not in jar and not os.path.exists(jar):
                raise RunError(ExitCode.USAGE, f"--flink_job_server_jar {jar}: no such file")
            return
        version = ".".join(str(overview.get("flink-version", "")).split(".")[:2])
        published = FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
        if not version or self._flink.flink_version != published[-1]:
            return
        if version not in published:
            text = (
                f"the cluster at {self.master} is Flink {version}, and Beam has job servers for "
                f"{', '.join(published)}; give a --flink_job_server_jar made for {version}"
            )
            raise RunError(ExitCode.USAGE, text)
        self._flink.flink_version = version

    def _ask(self, address: str) -> None:
        # gRPC and Beam's services are heavy, and not needed for a cluster's own job server.
        from apache_beam.portability.api import (  # noqa: PLC0415
            beam_job_api_pb2,
            beam_job_api_pb2_grpc,
        )

        with grpc.insecure_channel(address) as channel:
            stub = beam_job_api_pb2_grpc.JobServiceStub(channel)
            try:
                stub.DescribePipelineOptions(
                    beam_job_api_pb2.DescribePipelineOptionsRequest(),
                    timeout=ANSWER_S,
                    wait_for_ready=False,
                )
            except grpc.RpcError as error:
                why = "nobody answers"
                if error.code() not in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                ):
                    why = f"no job server of Beam answers ({error.code().name})"
                text = (
                    f"--job_endpoint {address}: {why}; give host:port of Beam's job server for "
                    "Flink, or leave it out and one is started"
                )
                raise RunError(ExitCode.USAGE, text) from None


def _parallelism(
    flags: PipelineOptions, overview: dict[str, Any], useful: int, settings: list[Setting]
) -> int:
    flink = flags.view_as(FlinkRunnerOptions)
    if flink.parallelism > 0:
        settings.append(Setting("parallelism", str(flink.parallelism), "given"))
        return int(flink.parallelism)
    free = overview.get("slots-available", 0)
    if free:
        flink.parallelism = max(1, min(free, useful))
        reason = f"{free} free slots" + (f", {useful} are of use" if useful < free else "")
        settings.append(Setting("parallelism", str(flink.parallelism), reason))
        return int(flink.parallelism)
    if not overview:
        flink.parallelism = max(1, min(os.cpu_count() or 1, useful))
        settings.append(Setting("parallelism", str(flink.parallelism), "as many as cores here"))
        return int(flink.parallelism)
    flink.parallelism = 1
    settings.append(Setting("parallelism", "1", "no slot is free now"))
    return 1


def _runner_options(
    flags: PipelineOptions, streaming: bool, parallelism: int, settings: list[Setting]
) -> None:
    options = flags.view_as(FlinkJobOptions)
    already = given(flags)
    defaults: dict[str, tuple[Any, str]] = {}
    if streaming:
        defaults = {
            "checkpointing_interval": (CHECKPOINT_MS, "ms; a restart goes on from the last one"),
            "fail_on_checkpointing_errors": (False, "a full disk is waited for"),
            "max_bundle_size": (BUNDLE_ELEMENTS, "batches of messages"),
            "max_bundle_time_mills": (BUNDLE_MS, "rows leave when a bundle ends"),
            # Else what a bundle gives while a checkpoint is made is kept until the step's next
            # bundle, and the step that cuts a source has only one.
            "finish_bundle_before_checkpointing": (True, "nothing is held back by a checkpoint"),
            "externalized_checkpoints_enabled": (True, "kept if the job fails"),
        }
    if streaming and parallelism == 1:
        # Flink names a source without a name by what it is chained to, and it is chained only if
        # all has one parallelism: with 2 it would not find its state.
        reason = "a savepoint fits a higher parallelism, too"
        defaults["operator_chaining"] = (False, reason)
    for name, value in already.items():
        settings.append(Setting(name, _text(value), "given"))
    for name, (value, reason) in defaults.items():
        if name not in already:
            setattr(options, name, value)
            settings.append(Setting(name, _text(value), reason))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _environment(
    flags: PipelineOptions, master: str, detached: bool, settings: list[Setting]
) -> bool:
    """Choose where the Python workers are; True if it is here.

    Raises:
        RunError: nobody knows where they are.
    """
    portable = flags.view_as(PortableOptions)
    if portable.environment_type:
        kind = portable.environment_type.upper()
        value = f"{kind} {portable.environment_config or ''}".strip()
        settings.append(Setting("environment_type", value, "given"))
        if kind == "EXTERNAL":
            _tell_needs(portable)
        return False
    host = master.rpartition("://")[2].rpartition(":")[0]
    if master and host not in HERE:
        text = (
            f"the task managers of {master} need Python workers; start a pool beside each: "
            "`imixs-streams workers --port 50000`, and give --environment_type EXTERNAL "
            "--environment_config localhost:50000; or --environment_type DOCKER with "
            "--environment_config and an image that has this program"
        )
        raise RunError(ExitCode.USAGE, text)
    if detached:
        text = (
            "--no_wait_until_finish ends this process, which would serve the workers; start a pool "
            "of them: `imixs-streams workers --port 50000`, and give --environment_type EXTERNAL "
            "--environment_config localhost:50000"
        )
        raise RunError(ExitCode.USAGE, text)
    settings.append(Setting("environment_type", "EXTERNAL", "processes of this launcher"))
    return True


def _named_workers(flags: PipelineOptions) -> str:
    """Say in words where the user wants the workers."""
    portable = flags.view_as(PortableOptions)
    where = portable.environment_config or "; ".join(portable.environment_options or ())
    kind = portable.environment_type
    return f"{kind} {where}".strip() if kind else "this process"


def _tell_needs(portable: PortableOptions) -> None:
    """Let a pool of workers know what the job needs, so that one that does not fit says so."""
    config = portable.environment_config
    url = config or portable.lookup_environment_option("external_service_address")
    if not url or url.lstrip().startswith("{"):
        return
    portable.environment_options = None
    portable.environment_config = json.dumps({"url": url, "params": needs(("confluent_kafka",))})


def _workers(
    flags: PipelineOptions, overview: dict[str, Any], parallelism: int, settings: list[Setting]
) -> None:
    portable = flags.view_as(PortableOptions)
    if str(portable.sdk_worker_parallelism) != "1":
        value = str(portable.sdk_worker_parallelism)
        settings.append(Setting("sdk_worker_parallelism", value, "given"))
        return
    managers = max(1, overview.get("taskmanagers", 1))
    each = -(-parallelism // managers)
    portable.sdk_worker_parallelism = each
    reason = "worker processes a task manager: one a slot"
    settings.append(Setting("sdk_worker_parallelism", str(each), reason))


@contextmanager
def serving(flink: FlinkPlan, flags: PipelineOptions, modules: tuple[str, ...]) -> Iterator[None]:
    """Serve what the job needs of this process while the block runs: workers, a job server.

    Args:
        flink: the plan.
        flags: the pipeline's options, a copy of Beam's; they learn the addresses.
        modules: what the workers import ahead.

    Raises:
        RunError: a job server can't be started.
    """
    portable = flags.view_as(PortableOptions)
    if not flink.own_pool:
        with _job_server(flags):
            yield
        return
    with WorkerPool(modules) as pool:
        port = pool.serve("127.0.0.1", 0)
        portable.environment_type = "EXTERNAL"
        portable.environment_config = f"127.0.0.1:{port}"
        _tell_needs(portable)
        with _job_server(flags):
            yield


def _job_server(flags: PipelineOptions) -> AbstractContextManager[None]:
    """Run Beam's job server while the block runs, if no address of one is given."""
    if flags.view_as(PortableOptions).job_endpoint:
        return nullcontext()
    from apache_beam.runners.portability.flink_runner import (  # noqa: PLC0415
        FlinkJarJobServer,
        FlinkRunner,
    )

    flink = flags.view_as(FlinkRunnerOptions)
    flink.flink_master = FlinkRunner.add_http_scheme(flink.flink_master)
    server = FlinkJarJobServer(flags)

    def address() -> str:
        command, endpoint = server.subprocess_cmd_and_endpoint()
        server.subprocess_cmd_and_endpoint = lambda: (command, endpoint)
        return str(endpoint)

    return job_server.serving(
        flags,
        server,
        address,
        "Beam's job server for Flink can't be started",
        "give the jar with --flink_job_server_jar, or --job_endpoint of one that runs",
    )
