"""How workers report: totals add up, files are whole, nothing fails without a folder."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from transforms import progress
from transforms.progress import FOLDER, INTERVAL_S, Reporter, Totals, read_progress, report


@pytest.fixture
def scratch(tmp_path: Path) -> str:
    progress.prepare(str(tmp_path))
    return str(tmp_path)


def test_reports_of_one_worker_add_up(scratch: str) -> None:
    report(scratch, bytes=10, messages=1)
    report(scratch, bytes=5, events=7, rows=3, shards=1, flush=True)
    assert read_progress(scratch) == Totals(bytes=15, messages=1, events=7, shards=1, rows=3)


def test_each_thread_has_a_file_of_its_own(scratch: str) -> None:
    def work() -> None:
        for _ in range(100):
            report(scratch, events=1)
        report(scratch, flush=True)

    # One after the other, too: the number of a thread that has ended may come again.
    for _ in range(3):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert read_progress(scratch).events == 1200
    assert len(list(Path(scratch, FOLDER).glob("*.json"))) == 12


def test_threads_that_begin_at_once_are_all_counted(tmp_path: Path) -> None:
    def work(scratch: str, together: threading.Barrier) -> None:
        together.wait()
        # The second is not written before the end.
        progress.tally(scratch, {"a": 1})
        progress.tally(scratch, {"a": 1})

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(30):
            scratch = str(tmp_path / str(number))
            progress.prepare(scratch)
            together = threading.Barrier(16)
            threads = [threading.Thread(target=work, args=(scratch, together)) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            progress.flush_all()
            assert progress.read_counts(scratch) == {"a": 32}
    finally:
        sys.setswitchinterval(interval)


def test_processes_add_up(scratch: str) -> None:
    program = f"from transforms.progress import report; report({scratch!r}, rows=2, flush=True)"
    root = Path(__file__).parent.parent
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], check=True, cwd=root)
    assert read_progress(scratch).rows == 4


def test_a_file_is_written_five_times_a_second_at_most(tmp_path: Path) -> None:
    now = [0.0]
    path = tmp_path / "worker.json"
    worker = Reporter(str(path), clock=lambda: now[0])
    worker.add(events=1)
    assert json.loads(path.read_text())["events"] == 1
    now[0] = INTERVAL_S * 0.9
    worker.add(events=1)
    assert json.loads(path.read_text())["events"] == 1
    now[0] = INTERVAL_S
    worker.add(events=1)
    assert json.loads(path.read_text())["events"] == 3
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", '{"events": 1', "[1]", '{"events": "x", "other": 3}'])
def test_what_cannot_be_read_counts_as_nothing(scratch: str, text: str) -> None:
    report(scratch, events=2, flush=True)
    Path(scratch, FOLDER, "1-1-1.json").write_text(text)
    Path(scratch, FOLDER, "1-1-2.json.half").write_text('{"events": 5}')
    assert read_progress(scratch) == Totals(events=2)


def test_without_a_folder_nothing_is_written_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / FOLDER).mkdir()
    report("", events=1, flush=True)
    report(str(tmp_path / "removed"), events=1, flush=True)
    assert read_progress("") == read_progress(str(tmp_path / "removed")) == Totals()
    assert list((tmp_path / FOLDER).iterdir()) == []
