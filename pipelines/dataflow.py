"""Dataflow: what must not reach it, said before anything is made, and how our code gets there.

Its workers are machines of Google's: they see no file, no address and no program of the one
that launches a job. So each of those is an error that names its option.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

from pipelines.brokers import is_pubsub
from pipelines.exit_codes import ExitCode, RunError

if TYPE_CHECKING:
    from pipelines.settings import Settings

RUNNERS = ("dataflowrunner", "dataflow", "testdataflowrunner")

IMAGE = "/opt/imixs/"
"""Files below here are taken for part of the workers' image."""

_LOOPBACK = re.compile(r"(localhost|127(\.\d+){3}|\[::1\]|0\.0\.0\.0)(:\d+)?", re.IGNORECASE)


def wanted(flags: PipelineOptions) -> bool:
    """Say whether a run is for Dataflow."""
    runner = flags.view_as(StandardOptions).runner or ""
    return runner.rpartition(".")[2].lower() in RUNNERS


def check(
    settings: Settings, flags: PipelineOptions, environment: Mapping[str, str] | None = None
) -> None:
    """Refuse what Dataflow's workers could not use.

    Args:
        settings: of the run.
        flags: Beam's options.
        environment: variables; this process's if not given.

    Raises:
        RunError: with a sentence for the first thing found.
    """
    variables = os.environ if environment is None else environment
    for problem in problems(settings, flags, variables):
        raise RunError(ExitCode.USAGE, problem)


def problems(
    settings: Settings, flags: PipelineOptions, environment: Mapping[str, str]
) -> Iterator[str]:
    """Return what Dataflow's workers could not use, one sentence each."""
    cloud = flags.view_as(GoogleCloudOptions)
    for name in ("project", "region"):
        if not getattr(cloud, name):
            yield f"--{name} is missing: Dataflow runs a job in a project and a region"
    if not cloud.temp_location:
        yield "--temp_location is missing; give a folder in Cloud Storage, such as gs://bucket/temp"
    for name in ("temp_location", "staging_location"):
        place = getattr(cloud, name)
        if place and not place.startswith("gs://"):
            yield f"--{name} '{place}' is no folder in Cloud Storage, such as gs://bucket/temp"
    yield from _package(flags)
    yield from _paths(settings)
    yield from _addresses(settings, environment)


def _package(flags: PipelineOptions) -> Iterator[str]:
    setup, worker = flags.view_as(SetupOptions), flags.view_as(WorkerOptions)
    packages = [*(setup.extra_packages or ())]
    ours = [each for each in packages if "imixs_data_streaming" in each.replace("-", "_")]
    if not (ours or setup.setup_file or worker.sdk_container_image):
        yield (
            "Dataflow's workers lack this program: build it (python -m pip wheel --no-deps -w dist "
            ".) and give --extra_package dist/imixs_data_streaming-....whl, or an image that has "
            "it with --sdk_container_image"
        )
    if flags.view_as(SetupOptions).save_main_session:
        yield "--save_main_session does not fit: no step is defined in run.py; leave it out"
    environment = flags.view_as(PortableOptions).environment_type
    if environment and environment.upper() != "DOCKER":
        yield f"--environment_type {environment} is not for Dataflow, which has workers of its own"


def _paths(settings: Settings) -> Iterator[str]:
    if settings.output and "://" not in settings.output:
        yield f"--output '{settings.output}' is a folder of this machine; give one such as gs://..."
    for pattern in settings.input:
        if "://" not in pattern:
            yield f"--input '{pattern}' is on this machine; give a path such as gs://bucket/..."
    if settings.state_from and "://" not in settings.state_from:
        yield f"--state_from '{settings.state_from}' is a folder of this machine; copy it to gs://"
    for option, addresses in (("input", settings.sources), ("output", settings.targets)):
        for address in addresses:
            config = getattr(address, "config", "")
            # Checks read it here, and workers read it there: the same path must do for both.
            if config and not config.startswith(IMAGE):
                yield (
                    f"--{option} {address}: config={config} is a file of this machine; put it into "
                    f"the workers' image (--sdk_container_image), here and there below {IMAGE}"
                )


def _addresses(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    for option, addresses in (("input", settings.sources), ("output", settings.targets)):
        for address in addresses:
            for server in getattr(address, "servers", ()):
                if _LOOPBACK.fullmatch(server):
                    yield f"--{option} {address}: {server} is this machine, which no worker reaches"
            emulator = environment.get("PUBSUB_EMULATOR_HOST", "")
            if is_pubsub(address) and emulator:
                yield (
                    f"--{option} {address}: PUBSUB_EMULATOR_HOST={emulator} is set, and Dataflow "
                    "reads the service alone; unset it"
                )
