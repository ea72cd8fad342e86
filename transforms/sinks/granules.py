"""A stream's tables as files: what a firing gives is one file, whole from the moment it is seen.

What is guaranteed: **at least once, with deterministic row ids**, as with topics. Files are
written in the run's own hidden folder (`.run-...`, see `commit.py`) and renamed to their tables
when their bundle ends, so a table never shows half a file. A name says until when, of which
shard and, by a hash, which rows: a repeat of the same rows overwrites itself, and other rows of
the same granule, as a restart may bring, never do. Names sort behind those of a backfill's parts.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import orjson
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from schemas.tables import DEAD_LETTERS, Output
from transforms.arrays import conform, integers
from transforms.counts import counted
from transforms.exchange import fetch, with_schema
from transforms.hashing import Lane, combine, hash_strings
from transforms.progress import tally
from transforms.receipts import Delivered, acknowledge
from transforms.sinks.commit import MANIFEST, OutputError, Run, Store, sync_folder
from transforms.sinks.tables import FILE_FORMATS, TableWriter, open_table

DEAD_BYTES = 32 * 1024 * 1024
"""So much of dead letters is collected at most before a file is made of it."""

_SEED = 0x4752414E554C4501
_ROWS, _FILES = "rows_", "files_"
_ADDED = ("messages", "events", "quality")


@dataclass(eq=False)
class WriteGranules(beam.PTransform):
    """Writes tables to a folder: `fold.streaming.Rows` -> nothing.

    The rows of one table, shard and firing are a file; the dead letters of a bundle, which come
    batch by batch, are one together. All are made while the bundle runs and shown at its end. A
    bundle that fails before that leaves nothing; one that fails after it, or is repeated for
    another reason, writes the same rows under the same names. If a repeat brings other rows,
    both files stay, and whoever reads drops what it has seen by `row_id`; of an upsert table
    the newest row counts anyhow.

    Attributes:
        run: the stream's hold of its folder; started without tables, for it replaces none.
        outputs: table name -> table.
        scratch: where written rows and files are counted; empty for nowhere.
    """

    run: Run
    outputs: Mapping[str, Output]
    scratch: str = ""

    def expand(self, tables: beam.PCollection) -> beam.PCollection:
        """Wire the step."""
        return tables | "Write granules" >> beam.ParDo(_Write(self))


@dataclass(frozen=True)
class _Made:
    """A file that is written and not shown yet."""

    table: str
    name: str
    staged: str
    rows: int


class _Write(beam.DoFn):
    """Writes files aside, and gives them their names at the end of the bundle."""

    def __init__(self, step: WriteGranules) -> None:
        self._run = step.run
        self._outputs = dict(step.outputs)
        self._scratch = step.scratch
        self._made: list[_Made] = []
        self._dead: list[tuple[int, int, bytes]] = []
        self._dead_bytes = 0
        self._elements: list[Delivered] = []

    def start_bundle(self) -> None:
        # Of a bundle that failed.
        for made in self._made:
            self._run.store.remove(made.staged)
        self._made = []
        self._dead, self._dead_bytes = [], 0
        self._elements = []

    def process(self, element: tuple[str, int, int, bytes]) -> Iterator[None]:
        name, place, until_ms, packed = element
        self._elements.append(element[:3])
        if name == DEAD_LETTERS.name:
            self._dead.append((until_ms, place, packed))
            self._dead_bytes += len(packed)
            if self._dead_bytes >= DEAD_BYTES:
                self._write_dead()
        else:
            self._write(name, place, until_ms, [packed])
        return iter(())

    def finish_bundle(self) -> None:
        self._write_dead()
        if self._made:
            self._show()
        acknowledge(self._scratch, self._elements)
        self._elements = []

    def _show(self) -> None:
        _show(self._run, self._made)
        counts: Counter[str] = Counter()
        for made in self._made:
            counts.update({_ROWS + made.table: made.rows, _FILES + made.table: 1})
        self._made = []
        tally(self._scratch, dict(counted(WriteGranules, counts)))

    def _write_dead(self) -> None:
        if self._dead:
            # Batches come in any order.
            listed = sorted(self._dead, key=lambda each: each[:2])
            until_ms, place, _ = listed[0]
            self._write(DEAD_LETTERS.name, place, until_ms, [packed for _, _, packed in listed])
        self._dead, self._dead_bytes = [], 0

    def _write(self, table: str, shard: int, until_ms: int, packed: Sequence[bytes]) -> None:
        run, output = self._run, self._outputs[table]
        rows = with_schema([fetch(each) for each in packed], output.schema)
        if not rows.num_rows:
            return
        name = granule_name(table, until_ms, shard, content_of(rows), run.file_format)
        staged = run.store.join(run.staging(table), name)
        writer: TableWriter
        with open_table(output, staged, run.file_format, run.store.create) as writer:
            writer.write(rows)
        self._made.append(_Made(table, name, staged, rows.num_rows))


def granule_name(table: str, until_ms: int, shard: int, content: int, file_format: str) -> str:
    """Name a file: `transitions-stream-1724753060000-00003-5f0c28d1a9b3e764.parquet`.

    Args:
        table: name of the table.
        until_ms: order time up to which its rows are complete; of dead letters, their batch's.
        shard: that it is of; of dead letters, the offset of the batch's first message.
        content: what `content_of` says of its rows.
        file_format: its extension.
    """
    return f"{table}-stream-{until_ms:013d}-{shard:05d}-{content:016x}.{file_format}"


def content_of(rows: pa.Table) -> int:
    """Return a hash of which rows these are, in whatever order: of their ids, times and numbers.

    Ids alone would not do: that of an upsert table is its key's.
    """
    lanes: list[Lane] = [hash_strings(rows["row_id"])]
    for field in rows.schema:
        if pa.types.is_timestamp(field.type) or pa.types.is_integer(field.type):
            column = conform(rows[field.name], field.type).cast(pa.int64())
            lanes.append(integers(column.fill_null(-1)).view(np.uint64))
    return int(np.add.reduce(combine(_SEED, *lanes), dtype=np.uint64))


def _show(run: Run, made: Iterable[_Made]) -> None:
    """Give files their names, over what has the same ones."""
    store = run.store
    targets = {each.staged: store.join(run.output, each.table, each.name) for each in made}
    if not store.local:
        # Not every file system renames over a file.
        FileSystems.delete([path for path in targets.values() if FileSystems.exists(path)])
        FileSystems.rename(list(targets), list(targets.values()))
        return
    for staged, target in targets.items():
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.replace(staged, target)
    # The broker is told that a bundle is done only when its files are on the disk.
    for folder in {os.path.dirname(target) for target in targets.values()}:
        sync_folder(folder)


def check_tables(run: Run, tables: Iterable[str]) -> None:
    """Prove that a stream can add files to its tables, and make their folders.

    What earlier runs have written stays, if it can be read together with what will come.

    Args:
        run: started without tables, for it replaces none.
        tables: their names.

    Raises:
        OutputError: a folder can't be written, or holds files of another format.
    """
    others = tuple(f".{each}" for each in FILE_FORMATS if each != run.file_format)
    for table in tables:
        folder = run.store.join(run.output, table)
        run.store.prepare(folder)
        mixed = [name for name in run.store.names(folder) if name.endswith(others)]
        if mixed:
            found = mixed[0].rpartition(".")[2]
            reason = (
                f"{folder} holds {found} files, such as {mixed[0]}, and would hold "
                f"{run.file_format} files besides: give --output_format {found}, or another output"
            )
            raise OutputError(reason)


def written(counts: Mapping[str, int], tables: Iterable[str]) -> dict[str, dict[str, int]]:
    """Return what a run has written, as the manifest has it: table -> its rows and files."""
    return {
        name: {"rows": counts.get(_ROWS + name, 0), "files": counts.get(_FILES + name, 0)}
        for name in tables
    }


def write_manifest(run: Run, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a stream that has ended, beside the tables that it has added to.

    Where there is one already, of a backfill or of an earlier stream, the numbers of both are
    added up, as their rows are: the laws hold for the folder as a whole. What it says besides
    stays, unless the stream says it anew.

    Args:
        run: the stream's hold of its folder.
        manifest: of this run alone.

    Raises:
        OutputError: the file system refused.
    """
    path = run.store.join(run.output, MANIFEST)
    try:
        whole = _added(_read_manifest(run.store, path), manifest)
        options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
        with run.store.create(path) as sink:
            sink.write(orjson.dumps(whole, option=options))
    except OSError as error:
        reason = f"cannot write {path}: {' '.join(str(error).split())}; its tables are whole"
        raise OutputError(reason) from error


def _read_manifest(store: Store, path: str) -> dict[str, Any]:
    """Return an earlier manifest; nothing if there is none that can be understood."""
    found = store.read(path)
    try:
        before = orjson.loads(found or b"{}")
    except orjson.JSONDecodeError:
        return {}
    return before if isinstance(before, dict) else {}


def _added(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    whole = {**before, **now}
    for name in _ADDED:
        whole[name] = _sum(before.get(name, {}), now.get(name, {}))
    tables = {**before.get("tables", {}), **now["tables"]}
    whole["tables"] = {
        name: _sum(before.get("tables", {}).get(name, {}), now["tables"].get(name, {}))
        for name in tables
    }
    whole["retracted"] = before.get("retracted", 0) + now.get("retracted", 0)
    said = [*before.get("warnings", ()), *now.get("warnings", ())]
    whole["warnings"] = list(dict.fromkeys(said))
    return whole


def _sum(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return {
        name: first.get(name, 0) + second.get(name, 0) for name in dict.fromkeys([*first, *second])
    }
