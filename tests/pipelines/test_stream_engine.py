"""The choice of a stream's engine, and Prism's program around a run."""

from __future__ import annotations

import os
import signal
import socket

import pytest
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
    StandardOptions,
)

from pipelines import prism as location_of_prism
from pipelines import stream_engine
from pipelines.exit_codes import RunError
from pipelines.stream_engine import StreamEngine, choose, make_runner
from tests.pipelines import streams


@pytest.mark.parametrize(
    ("runner", "built", "sources", "expected"),
    [
        # One address reads fastest in one process; several need Prism, where it is.
        ("", "/p", 1, "FnApiRunner"),
        ("", "/p", 2, "PrismRunner"),
        ("", None, 2, "FnApiRunner"),
        ("DirectRunner", "/p", 1, "FnApiRunner"),
        ("DirectRunner", "/p", 2, "PrismRunner"),
        ("FnApiRunner", "/p", 2, "FnApiRunner"),
        ("PrismRunner", "/p", 1, "PrismRunner"),
        ("PrismRunner", None, 1, "PrismRunner"),
        ("FlinkRunner", "/p", 2, "FlinkRunner"),
    ],
)
def test_the_engine(
    monkeypatch: pytest.MonkeyPatch, runner: str, built: str | None, sources: int, expected: str
) -> None:
    monkeypatch.setattr(location_of_prism, "location", lambda: built)
    found = choose(PipelineOptions([f"--runner={runner}"] if runner else []), sources)
    assert str(found) == expected
    assert found.local == (expected != "FlinkRunner")
    # Its timers do not wait.
    assert found.by_marks == (expected == "FnApiRunner")
    if expected == "PrismRunner":
        place = f"its binary is {built}" if built else "Beam fetches its binary"
        assert found.reason.startswith(place)


def test_a_place_that_is_given_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location_of_prism, "location", lambda: "/built")
    flags = PipelineOptions(["--prism_location=/given", "--runner=PrismRunner"])
    found = choose(flags, 1)
    assert "its binary is /given" in found.reason
    assert make_runner(found, flags) == "PrismRunner"
    assert flags.view_as(PrismRunnerOptions).prism_location == "/given"


def test_a_stream_on_prism_has_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location_of_prism, "location", lambda: "/built")
    flags = PipelineOptions(["--runner=PrismRunner"])
    make_runner(choose(flags, 1), flags)
    assert flags.view_as(StandardOptions).streaming
    assert flags.view_as(PrismRunnerOptions).prism_location == "/built"
    portable = flags.view_as(PortableOptions)
    assert portable.environment_type == "LOOPBACK"
    # Left alone it is five minutes.
    assert portable.job_server_timeout > 86_400 * 365


def test_the_fn_api_runner_has_one_worker_in_this_process() -> None:
    flags = PipelineOptions([])
    runner = make_runner(StreamEngine("FnApiRunner", "", True, True), flags)
    assert type(runner).__name__ == "FnApiRunner"
    direct = flags.view_as(DirectOptions)
    assert (direct.direct_num_workers, direct.direct_running_mode) == (1, "in_memory")


PRISM = StreamEngine("PrismRunner", "", local=True, by_marks=False)


def test_prism_serves_while_the_block_runs_and_hears_no_interruption(prism: str) -> None:
    flags = PipelineOptions([f"--prism_location={prism}"])
    heard = signal.getsignal(signal.SIGINT)
    # Beam keeps those of other tests until this process ends.
    others = set(_children_named("prism"))
    with stream_engine.serving(PRISM, flags):
        host, port = flags.view_as(PortableOptions).job_endpoint.split(":")
        assert signal.getsignal(signal.SIGINT) is heard
        (child,) = set(_children_named("prism")) - others
        os.kill(child, signal.SIGINT)
        socket.create_connection((host, int(port)), 5).close()
    # Its port is no sign: another test may have it by now. Beam kills it and does not wait.
    streams.within(lambda: set(_children_named("prism")) <= others, 20, 0.01)


def test_prism_that_cannot_be_started_is_one_line() -> None:
    flags = PipelineOptions(["--prism_location=/no/such/prism"])
    with pytest.raises(RunError, match=r"Prism can't be started: .*see --prism_location") as told:
        with stream_engine.serving(PRISM, flags):
            raise AssertionError
    assert told.value.code == 2
    assert "\n" not in told.value.text


def test_a_server_of_the_users_own_is_used() -> None:
    flags = PipelineOptions(["--job_endpoint=there:1"])
    with stream_engine.serving(PRISM, flags):
        assert flags.view_as(PortableOptions).job_endpoint == "there:1"


def _children_named(name: str) -> list[int]:
    """Return the processes of ours whose program has a name (Linux)."""
    found = []
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/stat", encoding="utf-8") as file:
                program, _, rest = file.read().rpartition(")")
        except OSError:
            continue
        # A process that has ended and was not waited for yet is none.
        state, parent = rest.split()[:2]
        if program.endswith(f"({name}") and int(parent) == os.getpid() and state != "Z":
            found.append(int(number))
    return found
