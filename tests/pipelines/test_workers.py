"""Worker processes that wait for their orders: none is left behind, and a dead one is noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import run
from pipelines import engine
from pipelines.registry import PIPELINES
from pipelines.workers import Workers
from tests.pipelines.small import small
from transforms.sources import files

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (
    '<document><item name="$uniqueid"><value xsi:type="xs:string">{}</value></item></document>'
)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The worker processes, as they are started."""
    processes: list[subprocess.Popen[bytes]] = []
    start = Workers._start

    def note(crew: Workers) -> subprocess.Popen[bytes]:
        processes.append(start(crew))
        return processes[-1]

    monkeypatch.setattr(Workers, "_start", note)
    return processes


def hire(
    crew: Workers, monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> Callable[[Mapping[str, str]], subprocess.Popen[bytes]]:
    """Return what Beam's side calls for each worker."""
    from pipelines import harness  # noqa: PLC0415

    monkeypatch.setattr(harness, "environment", lambda _, call: call)
    call: Callable[[Mapping[str, str]], subprocess.Popen[bytes]] = crew.environment(str(scratch))
    return call


def wait(condition: Callable[[], object], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_what_waits_at_the_end_is_ended(started: list[subprocess.Popen[bytes]]) -> None:
    with pytest.raises(KeyboardInterrupt), Workers() as crew:
        crew.start(2)
        crew.start(2)
        assert [each.poll() for each in started] == [None, None]
        raise KeyboardInterrupt
    assert [each.returncode for each in started] == [-signal.SIGKILL] * 2


def test_one_that_died_while_it_waited_is_replaced(
    started: list[subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Workers() as crew:
        crew.start(2)
        call = hire(crew, monkeypatch, tmp_path)
        started[0].kill()
        started[0].wait()
        assert call({}) is started[1]
        assert call({}) is started[2]
        assert len(started) == 3


def test_the_last_words_of_one_that_died_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Workers() as crew:
        crew.start(1)
        # Without an address Beam's worker fails.
        process = hire(crew, monkeypatch, tmp_path)({"PIPELINE_OPTIONS": "{}"})
        process.wait(60)
        said = crew.dead()
    assert said is not None
    assert said.startswith(f"worker process {process.pid} has died: ")
    assert "CONTROL_API_SERVICE_DESCRIPTOR" in said


def test_one_that_is_killed_before_it_has_its_orders_is_told(
    started: list[subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Workers() as crew:
        crew.start(1)
        os.kill(started[0].pid, signal.SIGSTOP)
        process = hire(crew, monkeypatch, tmp_path)({})
        assert crew.dead() is None
        process.kill()
        wait(crew.dead)
        assert "killed, as it happens when memory runs out" in str(crew.dead())


def test_without_a_parent_it_ends(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from pipelines.workers import Workers\n"
        "crew = Workers(); crew.start(1)\n"
        "print(crew._waiting[0].pid, flush=True)\n"
        "os._exit(9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    number = int(done.stdout)

    def gone() -> bool:
        stat = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(number)], capture_output=True, text=True, check=False
        ).stdout
        return not stat.strip() or stat.startswith("Z")

    wait(gone)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with documents to read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PIPELINES, "small", small())
    (tmp_path / "in").mkdir()
    for number in range(8):
        (tmp_path / "in" / f"{number}.xml").write_text(DOCUMENT.format(number))
    return tmp_path


COMMAND = ["small", "--input", "in", "--output", "out", "--workers", "2", "--progress", "off"]


@pytest.mark.parametrize("arguments", [[], ["--direct_running_mode=multi_processing"]])
def test_they_start_while_the_input_is_looked_through(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    started: list[subprocess.Popen[bytes]],
    arguments: list[str],
) -> None:
    planned: list[int] = []
    look = files._look

    def note(*given: Any) -> Any:
        planned.append(len(started))
        return look(*given)

    monkeypatch.setattr(files, "_look", note)
    monkeypatch.setattr(engine, "PROCESSES_FROM", 100)
    assert run.main([*COMMAND, *arguments]) == 0
    assert "engine: FnApiRunner, 2 processes" in capsys.readouterr().err
    assert planned == [2]
    # They do the work, and no others.
    assert len(started) == 2
    assert [each.returncode for each in started] == [0, 0]


@pytest.mark.parametrize(
    "arguments",
    [["--explain_plan"], ["--workers=1"], ["--direct_running_mode=in_memory"]],
)
def test_none_starts_where_none_can_be_needed(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: list[subprocess.Popen[bytes]],
    arguments: list[str],
) -> None:
    monkeypatch.setattr(engine, "PROCESSES_FROM", 100)
    assert run.main([*COMMAND, *arguments]) == 0
    assert started == []


def test_those_that_are_not_needed_after_all_are_ended(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    started: list[subprocess.Popen[bytes]],
) -> None:
    (folder / "in" / "z").mkdir()
    (folder / "in" / "z" / "large.csv").write_text(
        "case_id,activity,event_time\n" + "x,y,2024-01-01\n" * 200
    )
    monkeypatch.setattr(engine, "PROCESSES_FROM", 100)
    assert run.main(COMMAND) == 0
    assert "engine: FnApiRunner, 2 threads" in capsys.readouterr().err
    assert [each.returncode for each in started] == [-signal.SIGKILL] * 2
