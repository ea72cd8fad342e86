"""The tables of a folder: read once, or again and again as a stream adds files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from pipelines.exit_codes import ExitCode, RunError
from pipelines.output import one_line
from pipelines.report.data import COLUMNS, PANES, Contents
from pipelines.table_files import files_of, read_rows, unreadable
from schemas.tables import TABLES
from transforms.sinks.lakes.columns import newest_rows
from transforms.sinks.manifest import BadManifest, read_manifest
from transforms.sinks.store import client_errors

_READERS = 8
_LOOKS = 3


class Folder:
    """A folder of tables, and what has been read of it.

    Files are known by their name: a run's appear by rename and never change, and a file that is
    gone (another run has replaced its tables) makes its table be read anew.

    Args:
        path: `--output` of a run.

    Attributes:
        problem: why it can't be told what the run says of itself; empty where it can.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.problem = ""
        self._read: dict[str, set[str]] = {}
        self._rows: dict[str, pa.Table] = {}
        self._found: dict[str, int] = {}
        self._stamp: Any = None

    def refresh(self) -> bool:
        """Read what is new; say whether anything is.

        Raises:
            RunError: a file is not what its name says.
        """
        manifest = self.manifest()
        stamp = self.problem if manifest is None else manifest.get("run_id")
        changed = stamp != self._stamp
        if changed:
            # Another run's files may have the names of those before.
            self._read, self._rows = {}, {}
        self._stamp = stamp
        for name in COLUMNS:
            changed |= self._refresh(name)
        return changed

    def _refresh(self, name: str) -> bool:
        there = set(files_of(self.path, name))
        known = self._read.get(name, set())
        if known - there:
            known = set()
            self._rows.pop(name, None)
        new = sorted(there - known)
        if not new:
            return False
        with ThreadPoolExecutor(_READERS) as readers:
            found = [each for each in readers.map(lambda path: self._rows_of(path, name), new)]
        before = [self._rows[name]] if name in self._rows else []
        rows = pa.concat_tables([*before, *(each for each in found if each is not None)])
        fresh = sum(each.num_rows for each in found if each is not None)
        self._found[name] = fresh + (self._found.get(name, 0) if before else 0)
        self._rows[name] = newest_rows(rows.combine_chunks(), TABLES[name])
        self._read[name] = there
        return True

    def _rows_of(self, path: str, name: str) -> pa.Table | None:
        try:
            return read_rows(path, TABLES[name], COLUMNS[name])
        except FileNotFoundError:
            # Another run has just replaced the table; the next look sees it.
            return None
        except (pa.ArrowException, BeamIOError, OSError, ValueError) as error:
            raise unreadable(path, name, error) from None

    def contents(self) -> Contents:
        """Return what has been read."""
        manifest = self.manifest()
        written = {} if manifest is None else manifest.get("tables") or {}
        # What a run before has left has nothing to do with this one.
        rows = {n: table for n, table in self._rows.items() if not written or n in written}
        return Contents(rows, manifest, self.path, self._misfits(written), self.problem)

    def _misfits(self, written: Mapping[str, Any]) -> tuple[str, ...]:
        """Tell which tables do not have the rows that the run has written."""
        notes = []
        for name in COLUMNS:
            here = self._found.get(name, 0)
            if written and name not in written and name in self._rows:
                notes.append(f"{name} is of another run, and left out")
            elif name in written and here != written[name]["rows"]:
                notes.append(
                    f"{name} has {here:,} rows, and the run wrote {written[name]['rows']:,}: these "
                    "are not its numbers"
                )
        return tuple(notes)

    def files(self) -> Mapping[str, set[str]]:
        """Return the files read of each table."""
        return self._read

    def manifest(self) -> dict[str, Any] | None:
        """Return what the run says of itself; None while it runs, and with a `problem`."""
        self.problem = ""
        try:
            return read_manifest(self.path)
        except BadManifest as error:
            self.problem = str(error)
            return None


def read_folder(path: str) -> Contents:
    """Read the tables of a folder.

    Raises:
        RunError: there is no such folder, it has no table of analytics, or what the run says of
            itself is broken.
    """
    folder = Folder(path)
    try:
        # Until it stands still: a run may replace its tables, or a stream add to them.
        for _ in range(_LOOKS):
            if not folder.refresh():
                break
    except (BeamIOError, OSError, ValueError, *client_errors()) as error:
        raise RunError(ExitCode.NO_INPUT, f"--input '{path}': {one_line(error)}") from None
    contents = folder.contents()
    if contents.problem:
        raise RunError(ExitCode.FAILED, f"--input '{path}': {contents.problem}")
    if not any(name in contents.tables for name in PANES):
        raise RunError(ExitCode.NO_INPUT, _without(path, contents))
    return contents


def _without(path: str, contents: Contents) -> str:
    make = (
        "make them with: run.py analytics --input 'archive/**' --output OUT --window fixed:1h, "
        "and give OUT"
    )
    if contents.tables or contents.manifest is not None:
        found = ", ".join(contents.tables) or "no table of ours"
        return f"--input '{path}' has no tables of analytics (it has {found}); {make}"
    if "://" not in path and os.path.isfile(path):
        return f"--input '{path}' is a file, and a report is of a folder; {make}"
    matched = FileSystems.match([f"{path}/**"])
    if any(result.metadata_list for result in matched):
        return f"--input '{path}' has no tables of analytics; {make}"
    return f"--input '{path}': there is no such folder, or it is empty; {make}"
