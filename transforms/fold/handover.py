"""From a backfill to a stream: the state that one leaves in its output, and the other begins with.

A backfill with `--keep_state` writes the rows of its kernel's state as parts of a folder
`state`, in the commit of its tables, and says in its manifest what they are. A stream with
`--state_from` refuses them if it would read them in another way; else each shard gets its own
before its first element. What a runner has kept of a shard always goes before them.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

from schemas.tables import Output
from transforms.exchange import shards_of, without_nulls
from transforms.fold.elements import state_element
from transforms.fold.made import Setting, differences
from transforms.kernels.base import Kernel
from transforms.sinks.commit import MANIFEST
from transforms.sinks.manifest import BadManifest, read_manifest

STATE = "state"
"""Name of the folder, and of what the manifest says of it. No table: it is not for readers."""

_READ_ROWS = 65_536


class HandoverError(Exception):
    """A state that this stream can't go on from; one line with the reason and the fix."""


def state_output(kernel: Kernel, rows: pa.Table | None = None) -> Output:
    """Return the schema that state rows are written in: the columns that hold anything.

    Args:
        kernel: whose state it is.
        rows: what is to be written; None for no rows at all.
    """
    names = {kernel.key} if rows is None else set(without_nulls(rows).column_names)
    schema = pa.schema([field for field in kernel.state_schema if field.name in names])
    return Output(STATE, schema, "upsert", (kernel.key,), "What is remembered of a key.")


def describe(
    kernel: Kernel, version: int, until_ms: int, settings: Collection[Setting]
) -> dict[str, Any]:
    """Return what a manifest says of a state.

    Args:
        kernel: whose state it is.
        version: of the kernel's state schema.
        until_ms: order time up to which it has folded.
        settings: what the state depends on.
    """
    return {
        "kernel": kernel.name,
        "version": version,
        "until_ms": until_ms,
        **{each.name: each.value for each in settings},
    }


@dataclass(frozen=True)
class Handover:
    """The state of a run, for the shards of a stream; small, and the same in every process.

    Attributes:
        folder: output of the run.
        run_id: of the run.
        key: the kernel's key column.
        version: of the state schema.
        until_ms: order time up to which the run has folded.
        shards: of the stream.
        rows: how many there are in all.
    """

    folder: str
    run_id: str
    key: str
    version: int
    until_ms: int
    shards: int
    rows: int

    @classmethod
    def open(
        cls,
        folder: str,
        kernel: Kernel,
        settings: Collection[Setting],
        shards: int,
        now_ms: int,
        version: int = 1,
        upgradable: Collection[int] = (),
    ) -> Handover:
        """Find the state that a run has left, and see that a stream can go on from it.

        Args:
            folder: output of the run.
            kernel: of the stream.
            settings: of the stream.
            shards: of the stream.
            now_ms: the time.
            version: of the kernel's state schema.
            upgradable: older versions that can be read.

        Raises:
            HandoverError: it can't.
        """
        manifest = _manifest(folder)
        left = manifest.get(STATE)
        if not isinstance(left, dict):
            reason = f"{folder} has no state of its cases: run that backfill with --keep_state"
            raise HandoverError(reason)
        if left["kernel"] != kernel.name:
            reason = f"{folder} has a state of {left['kernel']}, and this is {kernel.name}"
            raise HandoverError(reason)
        if left["version"] != version and left["version"] not in upgradable:
            reason = (
                f"{folder} has a state of version {left['version']}, and this program reads "
                f"{version}: run that backfill with this program, too"
            )
            raise HandoverError(reason)
        wrong = differences(settings, left)
        if wrong:
            reason = f"{folder} has a state made with {wrong}"
            raise HandoverError(reason)
        if left["until_ms"] > now_ms:
            reason = (
                f"{folder} has a state of the future, {(left['until_ms'] - now_ms) / 1000:,.0f} s "
                "from now: run that backfill with an --until that is over"
            )
            raise HandoverError(reason)
        return cls(
            folder,
            str(manifest["run_id"]),
            kernel.key,
            left["version"],
            left["until_ms"],
            shards,
            left["rows"],
        )

    def element(self, shard: int) -> bytes:
        """Return a shard's first element: its rows, perhaps none, and the time they are of."""
        return state_element(self.table(shard), self.until_ms, self.version)

    def table(self, shard: int) -> pa.Table:
        """Return a shard's rows; columns may be missing.

        The files are read once a process, and rows are kept until they are asked for. Only a
        shard that asks again, as its bundle has failed, costs another reading.

        Raises:
            HandoverError: the run's output is not there any more.
        """
        with _LOCK:
            waiting = _WAITING.get(self)
            if waiting is None:
                # Of another stream nothing will be asked.
                _WAITING.clear()
                waiting = _WAITING[self] = self._read(range(self.shards))
            parts = waiting.pop(shard, None)
        if parts is None:
            parts = self._read([shard])[shard]
        if not parts:
            return pa.schema([(self.key, pa.string())]).empty_table()
        return pa.concat_tables(parts, promote_options="default")

    def _read(self, wanted: Collection[int]) -> dict[int, list[pa.Table]]:
        found: dict[int, list[pa.Table]] = {shard: [] for shard in wanted}
        if _manifest(self.folder).get("run_id") != self.run_id:
            reason = f"{self.folder} has been written anew since this stream started: start again"
            raise HandoverError(reason)
        [matched] = FileSystems.match([f"{self.folder}/{STATE}/*.parquet"])
        rows = 0
        for path in sorted(each.path for each in matched.metadata_list):
            for table in _batches(path):
                rows += table.num_rows
                for shard, part in self._split(table):
                    if shard in found:
                        found[shard].append(part)
        if rows != self.rows:
            reason = f"{self.folder}/{STATE} has {rows:,} rows, and its run wrote {self.rows:,}"
            raise HandoverError(reason)
        return found

    def _split(self, table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
        owners = shards_of(table[self.key], self.shards)
        # Stable: the rows of a key stay next to each other.
        order = np.argsort(owners, kind="stable")
        arranged = table.take(pa.array(order))
        counts = np.bincount(owners, minlength=self.shards)
        ends = np.cumsum(counts)
        for shard in np.flatnonzero(counts).tolist():
            yield shard, arranged.slice(ends[shard] - counts[shard], counts[shard])


_LOCK = threading.Lock()
_WAITING: dict[Handover, dict[int, list[pa.Table]]] = {}
"""Rows that this process has read, and no shard has asked for yet."""


def _batches(path: str) -> Iterator[pa.Table]:
    with FileSystems.open(path) as file:
        parts = pq.ParquetFile(pa.PythonFile(file, mode="r"))
        for batch in parts.iter_batches(_READ_ROWS):
            yield pa.Table.from_batches([batch])


def _manifest(folder: str) -> Mapping[str, Any]:
    try:
        manifest = read_manifest(folder)
    except BadManifest as error:
        raise HandoverError(str(error)) from None
    if manifest is None:
        reason = (
            f"{folder} holds no finished run (no {MANIFEST}): give the --output of a backfill "
            "with --keep_state"
        )
        raise HandoverError(reason)
    return manifest
