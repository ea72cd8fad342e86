"""Running: engines, exit codes, interruption; the output of an earlier run survives a failure."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import run
from pipelines import beam_log, engine
from pipelines.options import parse
from pipelines.registry import PIPELINES
from tests.pipelines.small import small
from transforms import progress

ROOT = Path(__file__).parent.parent.parent
MIB = 2**20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with three files to read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for name in ("a.csv", "b.csv", "c.csv"):
        (tmp_path / "in" / name).write_text("case_id,activity,event_time\nx,y,2024-01-01\n")
    return tmp_path


def launch(monkeypatch: pytest.MonkeyPatch, *arguments: str, **behaviour: Any) -> int:
    monkeypatch.setitem(PIPELINES, "small", small(**behaviour))
    needed = ["--input", "in/*.csv", "--workers", "1"]
    needed += [] if "--output" in arguments else ["--output", "out"]
    return run.main(["small", *needed, *arguments])


def content(output: Path) -> dict[str, bytes]:
    """Return every file of a folder, hidden ones too."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }


def test_a_run_writes_its_tables_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(monkeypatch) == 0
    said = capsys.readouterr()
    assert said.err == "engine: FnApiRunner, 1 thread (one worker)\n"
    lines = said.out.splitlines()
    assert lines[0] == "messages  1 = 1 decoded + 0 skipped + 0 dead  ✓"
    assert lines[1].endswith("1 duplicates + 0 late + 0 rejected  ✓")
    tables = [line.split() for line in lines if "out/" in line]
    assert tables == [
        ["transitions", "0", "1", "out/transitions/*.parquet"],
        ["dead_letters", "0", "1", "out/dead_letters/*.parquet"],
    ]
    manifest = json.loads((folder / "out" / "_run.json").read_bytes())
    assert manifest["engine"] == "FnApiRunner, 1 thread"
    assert {path.name for path in (folder / "out").iterdir()} == {
        *("_run.json", "transitions", "dead_letters")
    }


def test_quiet_says_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(monkeypatch, "--quiet") == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


def test_a_failed_run_is_one_line_and_leaves_the_earlier_output(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(monkeypatch) == 0
    before = content(folder / "out")
    capsys.readouterr()
    assert launch(monkeypatch, fails=True) == 1
    errors = capsys.readouterr().err.splitlines()[1:]
    assert errors == [
        "error: LookupError: the moon is full: wait for another (in step 'Work hard')",
        "run it again with --verbose for the stack trace",
    ]
    assert content(folder / "out") == before


def test_a_failed_run_takes_a_new_folder_away_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert launch(monkeypatch, "--output", "new/deep/out", fails=True) == 1
    assert not (folder / "new").exists()


def test_verbose_shows_the_stack_trace(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(monkeypatch, "--verbose", fails=True) == 1
    error = capsys.readouterr().err
    assert "tests/pipelines/small.py" in error
    assert error.splitlines().count("Traceback (most recent call last):") >= 1


def test_a_broken_law_is_loud(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(monkeypatch, "--quiet", loses=True) == 70
    error = capsys.readouterr().err
    assert error.startswith("error: LAW VIOLATED: events 2 ≠ 0 transitions + 1 duplicates")


def test_the_plan_is_explained_and_nothing_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(folder)
    assert launch(monkeypatch, "--explain_plan", "--shards", "7", "--until", "2024-02-01") == 0
    said = capsys.readouterr().out
    assert "3 files, 129 B" in said
    assert "csv: 3 files" in said
    assert "in/a.csv" in said
    assert "7 shards to fold" in said
    assert "engine    FnApiRunner, 1 thread (one worker)" in said
    assert "time      from the first event until 2024-02-01T00:00:00Z" in said
    assert "output    out, parquet" in said
    assert content(folder) == before
    assert not (folder / "out").exists()


def test_a_plan_needs_no_output(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PIPELINES, "small", small())
    assert run.main(["small", "--input", "in", "--explain_plan"]) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--input", "nope/**"], 0, []),
        (["--output", "in/a.csv"], 5, ["--output", "in/a.csv", "choose another folder"]),
        (["--output", "in/a.csv/out"], 5, ["--output", "choose another folder"]),
        (["--output", "x" * 300], 5, ["--output", "name too long", "choose another folder"]),
        (["--output", "x" * 300 + "/out"], 5, ["--output", "choose another folder"]),
        (
            ["--output", "what://b/out"],
            2,
            ["--output 'what://b/out'", "use a path of this machine"],
        ),
        (["--input", "what://b/in"], 2, ["--input 'what://b/in'", "use a path of this machine"]),
    ],
)
def test_what_cannot_be_read_or_written(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: list[str],
) -> None:
    before = content(folder / "in")
    assert launch(monkeypatch, *arguments) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == bool(code)
    assert [word for word in words if word not in errors[0]] == []
    assert content(folder / "in") == before


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("nope/*.csv", "there is no 'nope'"),
        ("in/*.xes", "there is a folder 'in', but nothing in it matches"),
        ("in/d.csv", "there is no 'in/d.csv'"),
        ("in/deep/*/x.csv", "there is no 'in/deep'"),
        ("x" * 300, f"there is no '{'x' * 300}'"),
        ("x" * 300 + "/*", f"there is no '{'x' * 300}'"),
    ],
)
def test_no_match_says_where_it_ends(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    pattern: str,
    reason: str,
) -> None:
    monkeypatch.setitem(PIPELINES, "small", small())
    assert run.main(["small", "--input", pattern, "--output", "out"]) == 4
    error = capsys.readouterr().err
    assert error == f"error: no file matches --input '{pattern}'; {reason}\n"
    assert not (folder / "out").exists()


def test_another_runs_output_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "out" / "transitions").mkdir(parents=True)
    (folder / "out" / "transitions" / "mine.txt").touch()
    assert launch(monkeypatch) == 5
    assert "mine.txt" in capsys.readouterr().err
    assert (folder / "out" / "transitions" / "mine.txt").exists()


def said(error: str) -> list[str]:
    """Return the lines of stderr but Beam's first: the small pipeline imports it too early."""
    return [line for line in error.splitlines() if "apitools" not in line]


@contextmanager
def running(folder: Path, behaviour: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start the small pipeline as a user would, and wait until it is busy."""
    command = [sys.executable, "-m", "tests.pipelines.small", behaviour]
    command += ["--input", f"{folder}/in/*.csv", "--output", f"{folder}/out", "--workers", "2"]
    # On a busy machine the start takes so long that there would be a line of progress.
    command += ["--progress", "off"]
    process = subprocess.Popen(
        [*command, *arguments], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        until = time.monotonic() + 60
        while not (folder / "in" / "busy").exists() and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("kind", "mode", "number", "code", "word"),
    [
        ("threads", "multi_threading", signal.SIGINT, 130, "interrupted"),
        ("processes", "multi_processing", signal.SIGTERM, 143, "terminated"),
    ],
)
def test_interruption_leaves_nothing_behind(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    mode: str,
    number: int,
    code: int,
    word: str,
) -> None:
    assert launch(monkeypatch) == 0
    before = content(folder / "out")
    with running(folder, "waits", "--direct_running_mode", mode) as process:
        workers = list((folder / "out").glob(".run-*/scratch/workers/*"))
        assert bool(workers) == (mode == "multi_processing")
        os.kill(process.pid, number)
        _, error = process.communicate(timeout=20)
    assert process.returncode == code
    assert said(error) == [
        f"engine: FnApiRunner, 2 {kind} (--direct_running_mode)",
        f"error: {word}; the tables of an earlier run are as they were",
    ]
    assert content(folder / "out") == before
    until = time.monotonic() + 5
    while any(alive(worker.name) for worker in workers):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_worker_that_dies_fails_the_run(folder: Path) -> None:
    with running(folder, "waits", "--direct_running_mode", "multi_processing") as process:
        workers = list((folder / "out").glob(".run-*/scratch/workers/*"))
        os.kill(int(workers[0].name), signal.SIGKILL)
        _, error = process.communicate(timeout=20)
    assert process.returncode == 1
    assert said(error)[1].startswith(f"error: worker process {workers[0].name} has died")
    assert not (folder / "out").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is full")
@pytest.mark.parametrize("mode", ["in_memory", "multi_processing"])
def test_a_full_disk_is_the_outputs_fault(folder: Path, mode: str) -> None:
    with running(folder, "full", "--direct_running_mode", mode) as process:
        _, error = process.communicate(timeout=30)
    assert process.returncode == 5
    assert said(error)[1:] == [
        "error: OSError: [Errno 28] No space left on device (in step 'Work hard'); "
        "make room on that disk, or give an --output on a larger one",
        "run it again with --verbose for the stack trace",
    ]
    assert not (folder / "out").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_fills_before_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def full(_: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(progress, "prepare", full)
    assert launch(monkeypatch) == 5
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert f"error: --output: [Errno {number}] {os.strerror(number)}; " in errors[0]
    assert not (folder / "out").exists()


def test_an_interruption_before_the_start_is_one_line() -> None:
    program = (
        "import sys, run\n"
        "def stop(): raise Stop\n"
        "from pipelines.exit_codes import Terminated\n"
        "Stop = {'INT': KeyboardInterrupt, 'TERM': Terminated}[sys.argv[1]]\n"
        "run.shadowed = stop\n"
        "sys.exit(run.command())"
    )
    for name, code, word in [("INT", 130, "interrupted"), ("TERM", 143, "terminated")]:
        done = subprocess.run(
            [sys.executable, "-c", program, name],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (code, f"error: {word}\n")


def test_worker_processes_import_our_modules_from_anywhere(folder: Path) -> None:
    # A package of the user's that has the name of ours, in the folder that is worked in.
    (folder / "transforms").mkdir()
    (folder / "transforms" / "__init__.py").write_text("raise ImportError('not this one')")
    program = (
        f"import sys; sys.path[0] = {str(ROOT)!r}; import run\n"
        "from pipelines.registry import PIPELINES; from tests.pipelines.small import small\n"
        "PIPELINES['small'] = small(); sys.exit(run.main(sys.argv[1:]))"
    )
    arguments = ["small", "--input", "in", "--output", "out", "--workers", "2"]
    # On a busy machine there would be a line of progress.
    arguments += ["--progress", "off"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--direct_running_mode=multi_processing"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said(done.stderr) == ["engine: FnApiRunner, 2 processes (--direct_running_mode)"]
    assert done.returncode == 0
    assert (folder / "out" / "_run.json").exists()


def alive(number: str) -> bool:
    """Say whether a process runs; one that nobody has waited for yet does not."""
    done = subprocess.run(
        ["ps", "-o", "stat=", "-p", number], capture_output=True, text=True, check=False
    )
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")


LOCKED = frozenset({"imixs_xml", "xes"})


@pytest.mark.parametrize(
    ("arguments", "sizes", "shown", "local"),
    [
        ([], {"parquet": 9000 * MIB}, "FnApiRunner, 2 threads", True),
        ([], {"imixs_xml": 127 * MIB}, "FnApiRunner, 2 threads", True),
        ([], {"imixs_xml": 128 * MIB}, "FnApiRunner, 2 processes", True),
        ([], {"imixs_xml": 256 * MIB, "xes": 256 * MIB}, "FnApiRunner, 2 processes", True),
        ([], {"imixs_xml": 128 * MIB, "csv": 129 * MIB}, "FnApiRunner, 2 threads", True),
        (["--workers=1"], {"imixs_xml": 128 * MIB}, "FnApiRunner, 1 thread", True),
        (["--runner", "direct"], {}, "FnApiRunner, 2 threads", True),
        (["--runner=FnApiRunner"], {}, "FnApiRunner, 2 threads", True),
        (["--direct_num_workers", "3"], {}, "FnApiRunner, 3 threads", True),
        (["--direct_running_mode", "in_memory"], {}, "FnApiRunner, 1 thread", True),
        (["--direct_running_mode=multi_processing"], {}, "FnApiRunner, 2 processes", True),
        (["--runner", "PrismRunner"], {}, "PrismRunner", True),
        (["--runner", "PrismRunner", "--environment_type=DOCKER"], {}, "PrismRunner", False),
        (["--runner", "FlinkRunner"], {}, "FlinkRunner", False),
        (["--runner", "FlinkRunner", "--environment_type=LOOPBACK"], {}, "FlinkRunner", True),
        (["--runner", "DataflowRunner"], {}, "DataflowRunner", False),
    ],
)
def test_the_engine_follows_the_input_and_the_users_choice(
    arguments: list[str], sizes: dict[str, int], shown: str, local: bool
) -> None:
    settings, flags = parse(["--input", "in", "--output", "out", *arguments])
    workers = settings.workers if "--workers=1" in arguments else 2
    chosen = engine.choose(flags, settings.arguments, workers, sizes, LOCKED)
    assert (str(chosen), chosen.local) == (shown, local)


FIRST = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n'


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (ValueError(), "ValueError"),
        (OSError("a\nb [while running 'Read units']"), "OSError: a b (in step 'Read units')"),
        (RuntimeError(f"{FIRST}my.own.Error: too\nlong"), "Error: too long"),
        (RuntimeError(f"{FIRST}KeyboardInterrupt"), "KeyboardInterrupt"),
        (
            RuntimeError(
                f"{FIRST}KeyError: 'x'\n\nDuring handling of the above exception, another one "
                f"occurred:\n\n{FIRST}KeyError: \"'x' [while running 'A/B-ptransform-12']\""
            ),
            "KeyError: \"'x'\" (in step 'A/B')",
        ),
        (
            # Beam could not make a second OSError with its words added.
            RuntimeError(
                f"{FIRST}RuntimeError: PermissionError: [Errno 13] Permission denied: 'x' "
                "[while running 'Write']"
            ),
            "PermissionError: [Errno 13] Permission denied: 'x' (in step 'Write')",
        ),
    ],
)
def test_the_original_error_is_found(error: Exception, shown: str) -> None:
    assert str(beam_log.original_error(error)) == shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("transitions", "--help"),
        ("inspect", "--input", "in/*.csv", "--json"),
        ("transitions", "--input", "in/*.csv", "--output", "out"),
    ],
    ids=" ".join,
)
def test_who_reads_what_is_said_may_leave(folder: Path, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait() == 0, said
    assert "Traceback" not in said
    assert "Broken pipe" not in said
    if "--output" in arguments:
        assert (folder / "out" / "transitions").exists()
