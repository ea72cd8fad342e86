"""A run's output appears whole or not at all: staging folder, commit, manifest.

A run writes parts below `OUTPUT/.run-<pid>-<start>-<host>-<id>/staging/<table>/`. Its commit
removes `OUTPUT/_run.json`, puts the new folder of each table in the place of the old one, and
writes `OUTPUT/_run.json` last: whoever sees that file sees one whole run. From the moment that
the commit's journal is written it can only be completed, by the run itself or, if that died,
by the next one on this host. File systems are behind `Store`; Beam's are in `store.py`.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Protocol

import orjson

from schemas.tables import TABLES, Output
from transforms.sinks.tables import FileFormat, TableWriter, open_table, write_table

MANIFEST = "_run.json"
"""Name of the manifest: there if, and only if, the tables beside it are those of one whole run."""

JOURNAL = "commit.json"
"""In a run's own folder from when its commit begins until it is done."""

_OWNER = "owner"
_PART = re.compile(r"(?P<table>.+)-\d{5,}-of-\d{5,}\.(parquet|jsonl|csv)")
_RUN = re.compile(r"\.run-(?P<pid>\d+)-(?P<started>\d+)-(?P<host>[^-]+)-(?P<id>.+)")


class OutputError(Exception):
    """The output cannot be written; the message is one line with the reason and the fix."""


class Store(Protocol):
    """The few operations on a file system that a run needs. Picklable, without state."""

    @property
    def local(self) -> bool:
        """Whether its paths are those of this machine's file system."""
        ...

    def resolve(self, path: str) -> str:
        """Return the path in the form that is the same in every process."""
        ...

    def join(self, folder: str, *names: str) -> str:
        """Return the path of an entry."""
        ...

    def prepare(self, folder: str) -> None:
        """Create the folder and its parents where missing, and prove that it can be written.

        Raises:
            OutputError: it cannot.
        """
        ...

    def create(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open a new file; it appears whole, or replaces the old one, when the block ends well."""
        ...

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, None if there is no such file."""
        ...

    def names(self, folder: str, prefix: str = "") -> list[str]:
        """Return the names in a folder that begin so, sorted; none if there is no folder.

        Raises:
            NotADirectoryError: it is a file.
        """
        ...

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with everything in it, if it is there."""
        ...

    def replace(self, staged: str, target: str, aside: str, names: Sequence[str]) -> None:
        """Make the folder `target` hold exactly `names`, taken from the folder `staged`.

        May be repeated after it stopped half-way. `aside` is a path for the old folder, where
        folders can be renamed.
        """
        ...


@dataclass(frozen=True)
class LocalStore:
    """Files of this machine: folders are swapped by rename.

    What `create`, `remove` and `replace` have done is on the disk when they return. So a machine
    that loses its power never comes back with a manifest beside tables that are not whole.
    """

    @property
    def local(self) -> bool:  # noqa: D102
        return True

    def resolve(self, path: str) -> str:  # noqa: D102
        return os.path.abspath(path)

    def join(self, folder: str, *names: str) -> str:  # noqa: D102
        return os.path.join(folder, *names)

    def prepare(self, folder: str) -> None:  # noqa: D102
        try:
            os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except (FileExistsError, NotADirectoryError):
            reason = f"cannot write to {folder}: it, or a parent, is a file; choose another folder"
            raise OutputError(reason) from None
        except OSError as e:
            reason = f"cannot write to {folder}: {e.strerror}; fix that or choose another folder"
            raise OutputError(reason) from None

    @contextmanager
    def create(self, path: str) -> Iterator[BinaryIO]:  # noqa: D102
        os.makedirs(os.path.dirname(path), exist_ok=True)
        unfinished = f"{path}.{uuid.uuid4().hex}"
        try:
            with open(unfinished, "xb", buffering=1 << 20) as sink:
                yield sink
                # Its name must not come to the disk before its bytes do.
                sink.flush()
                os.fsync(sink.fileno())
            os.replace(unfinished, path)
            sync_folder(os.path.dirname(path))
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(unfinished)
            raise

    def read(self, path: str) -> bytes | None:  # noqa: D102
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def names(self, folder: str, prefix: str = "") -> list[str]:  # noqa: D102
        try:
            return sorted(name for name in os.listdir(folder) if name.startswith(prefix))
        except FileNotFoundError:
            return []

    def remove(self, path: str) -> None:  # noqa: D102
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            with suppress(FileNotFoundError):
                os.unlink(path)
                sync_folder(os.path.dirname(path))

    def replace(self, staged: str, target: str, aside: str, names: Sequence[str]) -> None:  # noqa: D102
        if not os.path.isdir(staged):
            # Already in place: an earlier attempt got past this table, if perhaps no further.
            sync_folder(os.path.dirname(target))
            return
        for name in set(os.listdir(staged)).difference(names):
            self.remove(os.path.join(staged, name))
        if os.path.lexists(target):
            self.remove(aside)
            os.makedirs(os.path.dirname(aside), exist_ok=True)
            os.rename(target, aside)
        os.rename(staged, target)
        sync_folder(os.path.dirname(target))


def sync_folder(folder: str) -> None:
    """Bring the names in a folder to the disk."""
    if os.name != "posix":
        return  # Elsewhere a folder cannot be opened.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as e:
        # Some network file systems know it for files only.
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def part_name(table: str, shard: int, shards: int, file_format: FileFormat) -> str:
    """Name a part: `transitions-00003-of-00040.parquet`; a repeated bundle overwrites its own."""
    return f"{table}-{shard:05d}-of-{shards:05d}.{file_format}"


@dataclass(frozen=True)
class Run:
    """One run's place in its output; small, and the same in every process that writes parts.

    Attributes:
        output: the output folder.
        folder: this run's own folder in it.
        scratch: a local folder for temporary files, gone after commit and abort.
        file_format: of every part.
        store: the file system of the output.
        notes: what the user should hear about, such as leftovers of runs on other hosts.
    """

    output: str
    folder: str
    scratch: str
    file_format: FileFormat
    store: Store
    notes: tuple[str, ...] = ()

    def elsewhere(self) -> Run:
        """Return what workers of other machines get: a folder of this one is not theirs."""
        return replace(self, scratch="")

    @classmethod
    def start(
        cls,
        output: str,
        store: Store,
        tables: Iterable[str],
        file_format: FileFormat = "parquet",
        run_id: str | None = None,
    ) -> Run:
        """Take hold of the output for one run.

        A commit that a dead run of this host left half-done is completed first, and the dead
        run's folder removed.

        Args:
            output: the output folder; created where missing.
            store: its file system.
            tables: the tables that will be written.
            file_format: `parquet`, `jsonl` or `csv`.
            run_id: part of the folder's name; random by default.

        Raises:
            OutputError: the output cannot be written, another run is writing to it, or a
                table's folder holds files that no run has written.
        """
        run_id = run_id or uuid.uuid4().hex[:12]
        if not re.fullmatch(r"[A-Za-z0-9._-]+", run_id):
            reason = f"run id {run_id!r} has characters that a file name should not have"
            raise ValueError(reason)
        output = store.resolve(output)
        store.prepare(output)
        try:
            return cls._start(output, store, tables, file_format, run_id)
        except OSError as e:
            reason = f"cannot write to {output}: {_reason(e)}; fix that or choose another output"
            raise OutputError(reason) from e

    @classmethod
    def _start(
        cls,
        output: str,
        store: Store,
        tables: Iterable[str],
        file_format: FileFormat,
        run_id: str,
    ) -> Run:
        for table in tables:
            _refuse_foreign(store, output, table)
        notes = _clear_leftovers(store, output)
        pid = os.getpid()
        host = _host()
        name = f".run-{pid}-{_start_of(pid)}-{host}-{run_id}"
        folder = store.join(output, name)
        try:
            # Object stores have no empty folders: this file is what other runs see.
            with store.create(store.join(folder, _OWNER)) as sink:
                sink.write(f"pid {pid} on {host}\n".encode())
            # Two runs may have started at once: each looks again after it can be seen.
            _refuse_live(store, output, besides=name)
            if store.local:
                scratch = store.join(folder, "scratch")
                os.makedirs(scratch)
            else:
                scratch = tempfile.mkdtemp(prefix="imixs-run-")
        except (OutputError, OSError):
            with suppress(OSError):
                store.remove(folder)
            raise
        return cls(output, folder, scratch, file_format, store, notes)

    def staging(self, table: str) -> str:
        """Return the folder that a table's parts are written to."""
        return self.store.join(self.folder, "staging", table)

    def part(self, table: str, shard: int, shards: int) -> str:
        """Return the path of one part."""
        name = part_name(table, shard, shards, self.file_format)
        return self.store.join(self.staging(table), name)

    @contextmanager
    def open_part(self, output: Output, shard: int, shards: int) -> Iterator[TableWriter]:
        """Write one part in steps; it appears when the block ends well."""
        path = self.part(output.name, shard, shards)
        with open_table(output, path, self.file_format, self.store.create) as writer:
            yield writer

    def parts(self, table: str) -> list[str]:
        """List the names of a table's finished parts."""
        found = self.store.names(self.staging(table))
        return [name for name in found if _is_part(name, table)]

    def commit(
        self,
        manifest: Mapping[str, Any],
        files: Mapping[str, Sequence[str]],
        outputs: Mapping[str, Output] = TABLES,
        gone: Sequence[str] = (),
    ) -> None:
        """Make this run's parts the output, in place of those of earlier runs.

        A table without parts gets one without rows. Parts in staging that are not listed are
        thrown away. May be repeated, after it failed and after it succeeded, as bundles are.

        Args:
            manifest: written to `_run.json`, keys sorted.
            files: table -> names of its parts (in `staging(table)`), for all tables of the run.
            outputs: table -> its schema, for tables without parts.
            gone: what an earlier run may have left and this one does not have; removed where
                nothing but parts is in its folder.

        Raises:
            OutputError: a listed part is missing, or a table's folder has come to hold files
                that no run has written: nothing has been changed then. Or the file system
                refused: a commit that has begun is completed by the next attempt, or run.
        """
        try:
            self._commit(manifest, files, outputs, gone)
        except OSError as e:
            reason = f"cannot commit to {self.output}: {_reason(e)}; fix that, then run it again"
            raise OutputError(reason) from e

    def _commit(
        self,
        manifest: Mapping[str, Any],
        files: Mapping[str, Sequence[str]],
        outputs: Mapping[str, Output],
        gone: Sequence[str],
    ) -> None:
        if self._is_committed(manifest):
            return
        stale = [table for table in gone if _only_parts(self.store, self.output, table)]
        journal: dict[str, Any] = {"manifest": manifest, "files": {}, "gone": stale}
        for table, listed in files.items():
            _refuse_foreign(self.store, self.output, table)
            names = list(listed)
            if not names:
                path = self.part(table, 0, 1)
                empty = outputs[table].schema.empty_table()
                write_table(empty, outputs[table], path, self.file_format, self.store.create)
                names = [part_name(table, 0, 1, self.file_format)]
            missing = set(names).difference(self.parts(table))
            if missing:
                reason = f"{table}: parts {sorted(missing)} are missing from {self.staging(table)}"
                raise OutputError(reason)
            journal["files"][table] = names
        _write_json(self.store, self.store.join(self.folder, JOURNAL), journal)
        _complete(self.store, self.output, self.folder, journal)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _is_committed(self, manifest: Mapping[str, Any]) -> bool:
        """Complete the commit if it has begun; say whether this run's output is in place."""
        if self.store.read(self.store.join(self.folder, _OWNER)) is None:
            there = self.store.read(self.store.join(self.output, MANIFEST))
            return there == _json(manifest)
        begun = _journal(self.store, self.folder) is not None
        if begun:
            _settle(self.store, self.output, self.folder)
        return begun

    def abort(self) -> None:
        """Remove what this run has written; but a commit that has begun is completed.

        After a commit it only removes the scratch folder of this machine.
        """
        _settle(self.store, self.output, self.folder)
        shutil.rmtree(self.scratch, ignore_errors=True)


def _complete(store: Store, output: str, folder: str, journal: Mapping[str, Any]) -> None:
    """Carry out a commit, from wherever it stopped before."""
    manifest = store.join(output, MANIFEST)
    store.remove(manifest)
    for table, names in journal["files"].items():
        store.replace(
            store.join(folder, "staging", table),
            store.join(output, table),
            store.join(folder, "replaced", table),
            names,
        )
    for table in journal.get("gone", ()):
        store.remove(store.join(output, table))
    _write_json(store, manifest, journal["manifest"])
    # The journal goes first: without it what is left of the folder is only rubbish.
    store.remove(store.join(folder, JOURNAL))
    store.remove(folder)


def _settle(store: Store, output: str, folder: str) -> None:
    """Complete the commit of a run that will not go on, or remove its parts."""
    journal = _journal(store, folder)
    if journal is None:
        store.remove(folder)
    else:
        _complete(store, output, folder, journal)


def _journal(store: Store, folder: str) -> Mapping[str, Any] | None:
    """Return the journal of a commit that has begun.

    It is on the disk, whole, before the first table is moved: one that cannot be understood, as
    an interrupted machine may leave it, belongs to a commit that has changed nothing.
    """
    written = store.read(store.join(folder, JOURNAL))
    if written is None:
        return None
    try:
        journal = orjson.loads(written)
    except orjson.JSONDecodeError:
        return None
    whole = isinstance(journal, dict) and isinstance(journal.get("files"), dict)
    return journal if whole and "manifest" in journal else None


def _write_json(store: Store, path: str, value: Mapping[str, Any]) -> None:
    with store.create(path) as sink:
        sink.write(_json(value))


def _reason(error: OSError) -> str:
    """Say what a file system refused, and where, on one line."""
    place = f" ({error.filename})" if error.filename else ""
    return " ".join(f"{error.strerror or error}{place}".split())


def _json(value: Mapping[str, Any]) -> bytes:
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(value, option=options)


def _is_part(name: str, table: str) -> bool:
    match = _PART.fullmatch(name)
    return match is not None and match["table"] == table


def _refuse_foreign(store: Store, output: str, table: str) -> None:
    folder = store.join(output, table)
    try:
        foreign = [name for name in store.names(folder) if not _is_part(name, table)]
    except NotADirectoryError:
        reason = f"{folder} is a file: move it away or choose another output folder"
        raise OutputError(reason) from None
    if foreign:
        some = ", ".join(foreign[:3]) + (" ..." if len(foreign) > 3 else "")
        reason = f"{folder} holds files of others ({some}): move them away or choose another output"
        raise OutputError(reason)


def _only_parts(store: Store, output: str, table: str) -> bool:
    try:
        names = store.names(store.join(output, table))
    except NotADirectoryError:
        return False
    return bool(names) and all(_is_part(name, table) for name in names)


def _clear_leftovers(store: Store, output: str) -> tuple[str, ...]:
    """Settle the dead runs of this host; tell of those that cannot be judged from here."""
    _refuse_live(store, output)
    notes = []
    for name in store.names(output, ".run-"):
        match = _RUN.fullmatch(name)
        folder = store.join(output, name)
        if match and match["host"] == _host():
            if _is_running(int(match["pid"]), match["started"]):
                continue  # It has come since; this run is refused when it can be seen itself.
            try:
                _settle(store, output, folder)
            except OSError as e:
                reason = (
                    f"{folder} is left by an earlier run and cannot be cleared: {_reason(e)}; "
                    "fix that or choose another output"
                )
                raise OutputError(reason) from e
        else:
            notes.append(f"{folder} is left by a run elsewhere: delete it if that run is over")
    return tuple(notes)


def _refuse_live(store: Store, output: str, besides: str = "") -> None:
    for name in store.names(output, ".run-"):
        match = _RUN.fullmatch(name)
        if match is None or name == besides or match["host"] != _host():
            continue
        if _is_running(int(match["pid"]), match["started"]):
            reason = (
                f"another run is writing to {output} (pid {match['pid']}): wait for it, "
                "or choose another output"
            )
            raise OutputError(reason)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname()) or "unknown"


def _start_of(pid: int) -> str:
    """Return when a process began, in ticks: a later process may have the same id; 0 if unknown."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except OSError:
        return "0"


def _is_running(pid: int, started: str) -> bool:
    if os.name != "posix":
        return True  # Elsewhere the question itself would end the process.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return started in ("0", _start_of(pid))
