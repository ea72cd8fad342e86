"""Output appears whole or not at all, on the local file system and on Beam's."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.tables import CASES, LATE, TABLES, TRANSITIONS, Output
from tests.sinks import memory_files
from tests.sinks.test_tables import example
from transforms.sinks import commit
from transforms.sinks.commit import LocalStore, OutputError, Run, Store, part_name
from transforms.sinks.store import BeamStore, open_store
from transforms.sinks.tables import FileFormat

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = ("transitions", "cases", "late")


@dataclass
class Place:
    """An output folder on one of the file systems."""

    output: str
    store: Store

    def start(self, file_format: FileFormat = "parquet", run_id: str | None = None) -> Run:
        return Run.start(self.output, self.store, NAMES, file_format, run_id)

    def manifest(self) -> Any:
        data = self.store.read(self.store.join(self.output, "_run.json"))
        return None if data is None else orjson.loads(data)

    def entries(self) -> list[str]:
        return self.store.names(self.output)

    def rows(self, table: str) -> int:
        """Count a table's rows, whatever parts it has."""
        folder = self.store.join(self.output, table)
        count = 0
        for name in self.store.names(folder):
            data = self.store.read(self.store.join(folder, name))
            assert data is not None
            count += len(pq.read_table(pa.BufferReader(data)))
        return count

    def put(self, *names: str) -> None:
        with self.store.create(self.store.join(self.output, *names)) as sink:
            sink.write(b"mine\n")


@pytest.fixture(params=["local", "memory", "beam_local"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """The local store, Beam on objects, and Beam on a file system with folders."""
    if request.param == "local":
        yield Place(str(tmp_path / "out"), LocalStore())
    elif request.param == "beam_local":
        yield Place(str(tmp_path / "out"), BeamStore())
    else:
        memory_files.OBJECTS.clear()
        yield Place("memory://bucket/some/out [1]", BeamStore())
        memory_files.OBJECTS.clear()


def write(run: Run, output: Output, rows: Sequence[int]) -> list[str]:
    """Write one part a number of rows."""
    for shard, count in enumerate(rows):
        with run.open_part(output, shard, len(rows)) as writer:
            writer.write(example(output, count))
    return [part_name(output.name, i, len(rows), run.file_format) for i in range(len(rows))]


def whole_run(place: Place, transitions: Sequence[int], cases: Sequence[int], name: str) -> None:
    run = place.start()
    files = {
        "transitions": write(run, TRANSITIONS, transitions),
        "cases": write(run, CASES, cases),
        "late": [],
    }
    run.commit({"run": name}, files)


def test_a_run_appears_whole(place: Place) -> None:
    run = place.start()
    files = {"transitions": write(run, TRANSITIONS, [3, 0, 4]), "late": [], "cases": []}
    # Before the commit there is nothing but the run's own folder.
    assert [name[:5] for name in place.entries()] == [".run-"]
    assert run.parts("transitions") == files["transitions"]
    run.commit({"b": 1, "a": {"rows": 7}}, files)
    assert place.entries() == ["_run.json", "cases", "late", "transitions"]
    assert place.manifest() == {"a": {"rows": 7}, "b": 1}
    assert (place.rows("transitions"), place.rows("late")) == (7, 0)
    store = place.store
    assert store.names(store.join(place.output, "transitions")) == [
        f"transitions-0000{i}-of-00003.parquet" for i in range(3)
    ]
    text = store.read(store.join(place.output, "_run.json"))
    assert text == b'{\n  "a": {\n    "rows": 7\n  },\n  "b": 1\n}\n'
    assert not os.path.exists(run.scratch)


def test_running_again_replaces(place: Place) -> None:
    whole_run(place, [3, 4, 5], [2], "first")
    whole_run(place, [1], [1, 1], "second")
    assert place.manifest() == {"run": "second"}
    assert (place.rows("transitions"), place.rows("cases")) == (1, 2)
    assert place.entries() == ["_run.json", "cases", "late", "transitions"]


@pytest.mark.parametrize(("file_format", "empty"), [("jsonl", 0), ("csv", 1)])
def test_a_table_without_rows_has_one_file(
    place: Place, file_format: FileFormat, empty: int
) -> None:
    run = place.start(file_format)
    run.commit({}, {"late": []})
    name = f"late-00000-of-00001.{file_format}"
    data = place.store.read(place.store.join(place.output, "late", name))
    assert data is not None and data.count(b"\n") == empty
    assert place.store.names(place.store.join(place.output, "late")) == [name]


def test_another_file_format_replaces_too(place: Place) -> None:
    whole_run(place, [3], [2], "first")
    run = place.start("jsonl")
    run.commit({}, {"transitions": write(run, TRANSITIONS, [2])})
    folder = place.store.join(place.output, "transitions")
    assert place.store.names(folder) == ["transitions-00000-of-00001.jsonl"]


def test_what_is_not_ours_stays(place: Place) -> None:
    place.put("notes.txt")
    place.put("reports", "transitions-00000-of-00001.parquet")
    whole_run(place, [3], [2], "first")
    whole_run(place, [3], [2], "second")
    expected = ["_run.json", "cases", "late", "notes.txt", "reports", "transitions"]
    assert place.entries() == expected
    assert place.store.read(place.store.join(place.output, "notes.txt")) == b"mine\n"


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "cases-00000-of-00001.parquet", "transitions-1-of-2.parquet", "day=1/x.parquet"],
)
def test_a_table_folder_with_files_of_others_is_refused(place: Place, name: str) -> None:
    whole_run(place, [3], [2], "first")
    place.put("transitions", *name.split("/"))
    with pytest.raises(OutputError, match=r"transitions holds files of others \(.*move them away"):
        place.start()
    assert place.manifest() == {"run": "first"}
    assert place.entries() == ["_run.json", "cases", "late", "transitions"]


def test_files_of_others_that_come_meanwhile_are_refused(place: Place) -> None:
    whole_run(place, [3], [2], "first")
    run = place.start()
    files = {"transitions": write(run, TRANSITIONS, [1])}
    place.put("transitions", "notes.txt")
    with pytest.raises(OutputError, match="files of others"):
        run.commit({}, files)
    run.abort()
    assert place.manifest() == {"run": "first"}


def test_a_listed_part_that_is_missing_is_refused(place: Place) -> None:
    whole_run(place, [3], [2], "first")
    run = place.start()
    files = write(run, TRANSITIONS, [1])
    lost = part_name("transitions", 7, 8, "parquet")
    with pytest.raises(OutputError, match=r"transitions: parts \['transitions-00007-of-00008"):
        run.commit({}, {"transitions": [*files, lost]})
    run.abort()
    assert place.manifest() == {"run": "first"}
    assert place.rows("transitions") == 3


def test_parts_that_are_not_listed_are_thrown_away(place: Place) -> None:
    run = place.start()
    files = write(run, TRANSITIONS, [1, 2])
    run.commit({}, {"transitions": files[1:]})
    folder = place.store.join(place.output, "transitions")
    assert place.store.names(folder) == files[1:]


def test_a_repeated_bundle_overwrites_itself(place: Place) -> None:
    run = place.start()
    for count in (5, 3):
        with run.open_part(TRANSITIONS, 0, 1) as writer:
            writer.write(example(TRANSITIONS, count))
    run.commit({}, {"transitions": run.parts("transitions")})
    assert place.rows("transitions") == 3


def test_a_part_whose_bundle_fails_does_not_appear(place: Place) -> None:
    run = place.start()
    with run.open_part(TRANSITIONS, 1, 2) as writer:
        writer.write(example(TRANSITIONS, 3))
    for shard in (0, 1):
        with pytest.raises(ZeroDivisionError), run.open_part(TRANSITIONS, shard, 2) as writer:
            writer.write(example(TRANSITIONS, 2))
            raise ZeroDivisionError
    # Nor does it harm what an earlier attempt has finished.
    assert place.store.names(run.staging("transitions")) == ["transitions-00001-of-00002.parquet"]
    run.commit({}, {"transitions": run.parts("transitions")})
    assert place.rows("transitions") == 3


def test_abort_leaves_what_was_there(place: Place) -> None:
    whole_run(place, [3], [2], "first")
    run = place.start()
    write(run, TRANSITIONS, [1])
    assert os.path.isdir(run.scratch)
    run.abort()
    run.abort()
    assert not os.path.exists(run.scratch)
    assert place.entries() == ["_run.json", "cases", "late", "transitions"]
    assert place.manifest() == {"run": "first"}
    assert place.rows("transitions") == 3


def test_abort_after_a_commit_changes_nothing(place: Place) -> None:
    run = place.start()
    run.commit({"run": 1}, {"cases": write(run, CASES, [2])})
    run.abort()
    assert place.manifest() == {"run": 1}
    assert place.rows("cases") == 2


def test_a_commit_may_be_repeated(place: Place) -> None:
    run = place.start()
    files = {"cases": write(run, CASES, [2])}
    for _ in range(2):
        run.commit({"run": 1, "at": [1.5]}, files)
    assert (place.manifest(), place.rows("cases")) == ({"run": 1, "at": [1.5]}, 2)
    # But not in the place of another one.
    with pytest.raises(OutputError, match="are missing from"):
        run.commit({"run": 2}, files)


def test_workers_get_the_run_by_pickle(place: Place) -> None:
    run = place.start()
    copy = pickle.loads(pickle.dumps(run))
    assert copy == run and len(pickle.dumps(run)) < 1000
    files = write(copy, TRANSITIONS, [2])
    run.commit({}, {"transitions": files})
    assert place.rows("transitions") == 2


def test_two_runs_in_one_output_are_refused(place: Place) -> None:
    first = place.start(run_id="first")
    with pytest.raises(OutputError, match=rf"another run is writing to .* \(pid {os.getpid()}\)"):
        place.start()
    first.commit({}, {"cases": write(first, CASES, [1])})
    place.start().abort()


def test_runs_that_start_at_once_see_each_other(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one appears between this one's look and its own folder."""
    clear = commit._clear_leftovers

    def then_another(store: Store, output: str) -> tuple[str, ...]:
        notes = clear(store, output)
        monkeypatch.setattr(commit, "_clear_leftovers", clear)
        place.start(run_id="other")
        return notes

    monkeypatch.setattr(commit, "_clear_leftovers", then_another)
    with pytest.raises(OutputError, match="another run is writing"):
        place.start(run_id="this")
    assert [name.rpartition("-")[2] for name in place.entries()] == ["other"]


def test_a_run_that_starts_while_leftovers_are_cleared_is_none_of_them(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It appears after the look for live runs, and before the list of what they left."""
    refuse = commit._refuse_live

    def then_another(store: Store, output: str, besides: str = "") -> None:
        refuse(store, output, besides)
        if not besides:
            monkeypatch.setattr(commit, "_refuse_live", refuse)
            other.append(place.start(run_id="other"))

    other: list[Run] = []
    monkeypatch.setattr(commit, "_refuse_live", then_another)
    with pytest.raises(OutputError, match="another run is writing"):
        place.start(run_id="this")
    assert [name.rpartition("-")[2] for name in place.entries()] == ["other"]
    other[0].commit({"run": "other"}, {"cases": write(other[0], CASES, [3])})
    assert place.rows("cases") == 3


def test_a_leftover_from_elsewhere_is_told_and_left(place: Place) -> None:
    place.put(".run-1-0-elsewhere-abc", "staging", "x")
    run = place.start()
    assert len(run.notes) == 1
    assert ".run-1-0-elsewhere-abc is left by a run elsewhere: delete it" in run.notes[0]
    run.commit({}, {"late": []})
    assert ".run-1-0-elsewhere-abc" in place.entries()


def test_run_ids_are_file_names(place: Place) -> None:
    with pytest.raises(ValueError, match="run id 'a/b'"):
        place.start(run_id="a/b")


class Died(BaseException):
    """The process ends here: nothing after it runs."""


@dataclass
class Countdown:
    """Lets a number of changes to the file system through, then dies at each further one."""

    left: int
    died: bool = field(default=False)

    def guard(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self.left == 0:
                self.died = True
                raise Died
            self.left -= 1
            return change(*args, **kwargs)

        return guarded


@pytest.fixture(scope="module")
def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_death_at_any_change_of_the_commit_is_repaired(
    place: Place, dead_pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it dies: a manifest means a whole run, and the next start leaves one."""
    outcomes = set()
    deaths = 0
    for changes in range(200):
        for name in place.entries():
            place.store.remove(place.store.join(place.output, name))
        whole_run(place, [3, 1], [2], "first")
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: dead_pid)
            run = place.start()
            files = {"transitions": write(run, TRANSITIONS, [5]), "cases": write(run, CASES, [6])}
            countdown = Countdown(changes)
            for module, name in [
                (os, "rename"), (os, "replace"), (os, "unlink"), (os, "rmdir"), (os, "remove"),
                (memory_files.MemoryFileSystem, "copy"), (memory_files.MemoryFileSystem, "delete"),
            ]:  # fmt: skip
                patch.setattr(module, name, countdown.guard(getattr(module, name)))
            with contextlib.suppress(Died):
                run.commit({"run": "second"}, files)
        check_whole(place)
        place.start().abort()
        outcomes.add(check_whole(place))
        assert [name for name in place.entries() if name.startswith(".run-")] == []
        deaths += countdown.died
        if not countdown.died:
            break
    assert outcomes == {"first", "second"}
    assert deaths >= 5


def check_whole(place: Place) -> str | None:
    """A manifest stands beside all the rows of its run, and of no other."""
    manifest = place.manifest()
    if manifest is None:
        return None
    seen = (place.rows("transitions"), place.rows("cases"))
    assert seen == {"first": (4, 2), "second": (5, 6)}[manifest["run"]]
    return str(manifest["run"])


@dataclass(frozen=True)
class _Failing(LocalStore):
    """A store that refuses to replace one table."""

    table: str = "cases"

    def replace(self, staged: str, target: str, aside: str, names: Sequence[str]) -> None:
        if os.path.basename(target) == self.table:
            raise OSError(28, "No space left on device")
        super().replace(staged, target, aside, names)


@pytest.mark.parametrize("repeat", [True, False])
def test_a_commit_that_has_begun_is_completed(tmp_path: Path, repeat: bool) -> None:
    place = Place(str(tmp_path), LocalStore())
    whole_run(place, [3, 1], [2], "first")
    run = Run.start(place.output, _Failing(), NAMES)
    files = {"transitions": write(run, TRANSITIONS, [5]), "cases": write(run, CASES, [6])}
    with pytest.raises(OutputError, match=r"cannot commit to .*: No space left .*; fix that"):
        run.commit({"run": "second"}, files)
    assert place.manifest() is None
    again = Run(run.output, run.folder, run.scratch, run.file_format, LocalStore())
    if repeat:
        again.commit({"run": "second"}, files)
    else:
        again.abort()
    assert check_whole(place) == "second"
    assert place.entries() == ["_run.json", "cases", "late", "transitions"]


@pytest.mark.parametrize("written", [b"", b"{", b"null", b"[]", b'{"files": {}}'])
def test_a_journal_that_cannot_be_understood_is_none(
    place: Place, dead_pid: int, written: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a machine that lost its power may leave it: nothing has been moved yet."""
    whole_run(place, [3, 1], [2], "first")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: dead_pid)
        run = place.start()
    write(run, TRANSITIONS, [5])
    with place.store.create(place.store.join(run.folder, "commit.json")) as sink:
        sink.write(written)
    place.start().abort()
    assert check_whole(place) == "first"
    assert place.entries() == ["_run.json", "cases", "late", "transitions"]


def test_everything_is_on_the_disk_before_the_next_step_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a power cut would find it: what is not synced may be lost, in any order."""
    place = Place(str(tmp_path), LocalStore())
    whole_run(place, [1], [], "first")
    steps: list[tuple[str, str]] = []
    names = {os.stat(tmp_path).st_ino: "output"}

    def name_of(path: str) -> str:
        name = os.path.basename(path)
        if os.path.basename(os.path.dirname(path)) == "staging":
            name = f"staged {name}"
        return re.sub(r"\.run-.*", "run", re.sub(r"\.[0-9a-f]{32}$", "", name))

    for operation in ("replace", "rename", "unlink", "fsync"):
        original = getattr(os, operation)

        def noted(
            path: Any, *args: Any, _operation: str = operation, _original: Any = original, **kw: Any
        ) -> None:
            _original(path, *args, **kw)
            if _operation == "fsync":
                found = os.fstat(path).st_ino
                for folder, folders, files in os.walk(tmp_path):
                    for name in (*folders, *files):
                        entry = os.path.join(folder, name)
                        names[os.stat(entry).st_ino] = name_of(entry)
                steps.append((_operation, names[found]))
            elif "dir_fd" not in kw:  # not what removing a folder does
                steps.append((_operation, name_of(path)))

        monkeypatch.setattr(os, operation, noted)
    run = place.start()
    part = part_name("transitions", 0, 1, "parquet")
    unlisted = part_name("transitions", 1, 2, "parquet")
    write(run, TRANSITIONS, [5])
    with run.open_part(TRANSITIONS, 1, 2):
        pass
    steps.clear()
    write(run, TRANSITIONS, [5])
    assert steps == [("fsync", part), ("replace", part), ("fsync", "staged transitions")]
    steps.clear()
    run.commit({"run": "second"}, {"transitions": [part]})
    assert steps[:-1] == [
        *(("fsync", "commit.json"), ("replace", "commit.json"), ("fsync", "run")),
        *(("unlink", "_run.json"), ("fsync", "output")),
        *(("unlink", unlisted), ("fsync", "staged transitions")),
        *(("rename", "transitions"), ("rename", "staged transitions"), ("fsync", "output")),
        *(("fsync", "_run.json"), ("replace", "_run.json"), ("fsync", "output")),
        ("unlink", "commit.json"),
    ]


@pytest.mark.parametrize(("number", "passes"), [(22, True), (5, False)])
def test_a_folder_that_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, passes: bool
) -> None:
    """Some file systems have no such thing (EINVAL); an error of the disk is one."""
    original = os.fsync

    def refuse(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        original(handle)

    place = Place(str(tmp_path), LocalStore())
    monkeypatch.setattr(os, "fsync", refuse)
    if passes:
        whole_run(place, [3], [2], "first")
        assert place.manifest() == {"run": "first"}
    else:
        with pytest.raises(OutputError, match="Input/output error"):
            place.start()
        assert place.entries() == []


@dataclass(frozen=True)
class _Stubborn(LocalStore):
    """A store whose leftovers cannot be removed."""

    def remove(self, path: str) -> None:
        if ".run-" in path:
            raise PermissionError(13, "Permission denied", path)
        super().remove(path)


@pytest.mark.parametrize(
    ("store", "begun", "reason"),
    [
        (_Stubborn(), False, "Permission denied"),
        (_Stubborn(), True, "Permission denied"),
        (_Failing(), True, "No space left on device"),
    ],
)
def test_a_leftover_that_cannot_be_cleared_is_one_line(
    tmp_path: Path,
    dead_pid: int,
    monkeypatch: pytest.MonkeyPatch,
    store: LocalStore,
    begun: bool,
    reason: str,
) -> None:
    place = Place(str(tmp_path), LocalStore())
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: dead_pid)
        run = Run.start(place.output, _Failing(), NAMES)
        if begun:
            with pytest.raises(OutputError):
                run.commit({"run": "first"}, {"cases": write(run, CASES, [2])})
    for _ in range(2):
        with pytest.raises(OutputError) as refused:
            Run.start(place.output, store, NAMES)
        assert f"{run.folder} is left by an earlier run and cannot be cleared" in str(refused.value)
        assert reason in str(refused.value)
        assert "fix that or choose another output" in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_start_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=r"cannot write to .*: No space left on device; fix that"):
        Run.start(str(tmp_path), LocalStore(), NAMES)
    assert os.listdir(tmp_path) == []


WRITER = """
import sys, time
from transforms.sinks.commit import LocalStore, Run
run = Run.start(sys.argv[1], LocalStore(), ["cases"])
print(run.folder, flush=True)
time.sleep(60)
"""


def test_a_killed_process_is_told_from_a_live_one(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "out"), LocalStore())
    command = [sys.executable, "-c", WRITER, place.output]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout is not None
        folder = other.stdout.readline().strip()
        with pytest.raises(OutputError, match=rf"another run is writing .*\(pid {other.pid}\)"):
            place.start()
        assert os.path.isdir(folder)
        other.send_signal(signal.SIGKILL)
        other.wait()
        # Its scratch is cleared with it.
        place.start().abort()
        assert place.entries() == []


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs the start of a process")
def test_a_later_process_with_the_same_id_is_not_the_run(place: Place) -> None:
    place.put(f".run-{os.getpid()}-1-{commit._host()}-old", "owner")
    place.start().abort()
    assert place.entries() == []


def test_importing_the_commit_needs_no_beam() -> None:
    code = "import sys, transforms.sinks.commit; sys.exit('apache_beam' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_store_is_chosen_by_scheme() -> None:
    assert open_store("out/x") == open_store("/out") == LocalStore()
    assert open_store("gs://bucket/out") == open_store("s3://b/o") == BeamStore()


def test_a_start_makes_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.start(str(tmp_path / "a" / "b"), LocalStore(), [])
    assert os.listdir(tmp_path / "a" / "b") == [os.path.basename(run.folder)]
    run.abort()
    assert os.listdir(tmp_path / "a" / "b") == []
    monkeypatch.chdir(tmp_path)
    assert Run.start("here", LocalStore(), []).output == str(tmp_path / "here")


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in ("file", "file/out"):
        with pytest.raises(OutputError, match=r"cannot write to .*is a file; choose another"):
            Run.start(str(tmp_path / path), LocalStore(), NAMES)
    place = Place(str(tmp_path), LocalStore())
    (tmp_path / "cases").write_text("x")
    with pytest.raises(OutputError, match="cases is a file: move it away"):
        place.start()


def test_an_output_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shut").mkdir(mode=0o555)
    if os.geteuid() == 0:  # Permissions do not hold root back: let the system say no by hand.
        monkeypatch.setattr(tempfile, "TemporaryFile", _denied)
    with pytest.raises(OutputError, match=r"cannot write to .*shut: Permission denied; fix that"):
        Run.start(str(tmp_path / "shut"), LocalStore(), NAMES)


def _denied(*args: Any, **kwargs: Any) -> BinaryIO:
    raise PermissionError(13, "Permission denied")


def test_an_object_store_that_refuses_is_named() -> None:
    with pytest.raises(OutputError, match=r"memory://read-only/out: 403 Forbidden.*; fix that"):
        Run.start(f"{memory_files.READ_ONLY}out", BeamStore(), NAMES)
    with pytest.raises(OutputError) as refused:
        Run.start("nowhere://bucket/out", BeamStore(), NAMES)
    assert "\n" not in str(refused.value)
    assert "Unable to get filesystem" in str(refused.value)


def test_every_table_can_be_empty(tmp_path: Path) -> None:
    place = Place(str(tmp_path), LocalStore())
    run = Run.start(place.output, place.store, TABLES)
    run.commit({}, {name: [] for name in TABLES})
    assert place.entries() == sorted(["_run.json", *TABLES])
    assert place.rows(LATE.name) == 0
    shutil.rmtree(tmp_path)
