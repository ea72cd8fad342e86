"""Iceberg: a table each in a namespace of a catalog, by PyIceberg (no JVM).

A bundle's rows are one commit a table. Its snapshots say in their summary which elements of a
stream they hold (`imixs.batches`), or which run has replaced the table (`imixs.run`): a repeat is
seen there. Snapshots that have been expired are forgotten with their ids.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import pyarrow as pa
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
    ValidationException,
)
from pyiceberg.expressions import AlwaysTrue, In, Reference
from pyiceberg.table import Table, Transaction
from pyiceberg.transforms import DayTransform

from schemas.events import TIME
from schemas.tables import Output
from transforms.addresses import BrokerFault
from transforms.sinks.lakes.address import IcebergTarget
from transforms.sinks.lakes.columns import (
    DAY,
    check_columns,
    newest_rows,
    plain_rows,
    plain_schema,
    time_column,
)
from transforms.sinks.lakes.store import Batch, Parts, patiently

STEP_BYTES = 256 * 1024 * 1024
"""So much of a replaced table is written at a time."""

BATCHES, RUN = "imixs.batches", "imixs.run"

_CONFLICTS = (CommitFailedException, ValidationException)
"""Another writer has committed first, to the table, or to the very rows that are overwritten."""

_writing = threading.Lock()
"""Threads of one process would only make each other try again."""

_TYPES = {
    pa.string(): "string",
    pa.binary(): "binary",
    pa.bool_(): "boolean",
    pa.int32(): "int",
    pa.int64(): "long",
    pa.float64(): "double",
    TIME: "timestamptz",
}
"""What Iceberg calls the types that our tables have."""

_log = logging.getLogger(__name__)


class IcebergTables:
    """See `transforms.sinks.lakes.store.Database`.

    Args:
        target: catalog and namespace.
    """

    def __init__(self, target: IcebergTarget) -> None:
        self._target = target
        self._known: Catalog | None = None

    def check(self, outputs: Mapping[str, Output], *, replaced: bool) -> list[str]:  # noqa: D102
        notes = []
        for output in outputs.values():
            table = self._load(output.name)
            lacking = [] if table is None else self._lacking(table, output)
            if lacking and not replaced:
                notes.append(f"{self._target.place(output.name)} gains {', '.join(lacking)}")
        return notes

    def replace(  # noqa: D102
        self, outputs: Mapping[str, Output], parts: Parts, run_id: str
    ) -> dict[str, int]:
        counts = {}
        with _writing:
            for name, output in outputs.items():
                self._patiently(name, partial(self._replace, output, parts, run_id))
                snapshot = self._made(output).current_snapshot()
                counts[name] = 0 if snapshot is None else int(_said(snapshot, "total-records") or 0)
        return counts

    def _replace(self, output: Output, parts: Parts, run_id: str) -> None:
        table = self._made(output)
        if _last_run(table) == run_id:
            return
        properties = {RUN: run_id}
        with self._asking(f"{self._target.place(output.name)} did not take rows"):
            change = table.transaction()
            self._extend(change, table, output)
            first = True
            for rows in _larger(parts(output.name)):
                plain = plain_rows(rows, output)
                if first:
                    _overwrite(change, plain, AlwaysTrue(), properties)
                else:
                    change.append(plain, snapshot_properties=properties)
                first = False
            if first:
                empty = plain_schema(output).empty_table()
                _overwrite(change, empty, AlwaysTrue(), properties)
            change.commit_transaction()

    def add(  # noqa: D102
        self, outputs: Mapping[str, Output], batches: Mapping[str, Sequence[Batch]]
    ) -> None:
        with _writing:
            for name, listed in batches.items():
                self._patiently(name, partial(self._add, outputs[name], listed))

    def _patiently(self, name: str, act: Callable[[], None]) -> None:
        """Do it again while others commit first."""
        fail = partial(self._fail, f"{self._target.place(name)} did not take rows")
        patiently(act, _CONFLICTS, fail)

    def _add(self, output: Output, listed: Sequence[Batch]) -> None:
        table = self._made(output)
        known = _batches(table)
        fresh = {batch.id: batch.rows for batch in listed if batch.id not in known}
        if not fresh:
            return
        rows = pa.concat_tables([plain_rows(each, output) for each in fresh.values()])
        properties = {BATCHES: ",".join(fresh)}
        with self._asking(f"{self._target.place(output.name)} did not take rows"):
            change = table.transaction()
            self._extend(change, table, output)
            if output.mode == "append":
                change.append(rows, snapshot_properties=properties)
            else:
                rows = newest_rows(rows, output)
                # A row's id is that of its key, for it is the same over all its rows.
                same = In(Reference("row_id"), set(rows["row_id"].to_pylist()))
                there = table.scan(row_filter=same).to_arrow()
                both = pa.concat_tables([plain_rows(there, output), rows])
                _overwrite(change, newest_rows(both, output), same, properties)
            change.commit_transaction()

    def close(self) -> None:  # noqa: D102
        self._known = None

    @property
    def _catalog(self) -> Catalog:
        if self._known is None:
            given = {"uri": self._target.uri, "warehouse": self._target.warehouse}
            with self._asking(f"catalog {self._target.catalog} can't be reached"):
                self._known = load_catalog(
                    self._target.catalog, **{name: value for name, value in given.items() if value}
                )
        return self._known

    def _load(self, name: str) -> Table | None:
        catalog = self._catalog
        with self._asking(f"catalog {self._target.catalog} can't be reached"):
            try:
                return catalog.load_table(f"{self._target.namespace}.{name}")
            except (NoSuchTableError, NoSuchNamespaceError):
                return None

    def _made(self, output: Output) -> Table:
        """Return a table as it is now; one that is not there is made."""
        table = self._load(output.name)
        if table is not None:
            self._lacking(table, output)
            return table
        catalog = self._catalog
        with self._asking(f"{self._target.place(output.name)} can't be made"):
            try:
                catalog.create_namespace_if_not_exists(self._target.namespace)
            except NamespaceAlreadyExistsError:
                _log.debug("somebody else made %s", self._target.namespace)
            new = catalog.create_table_transaction(
                f"{self._target.namespace}.{output.name}",
                schema=plain_schema(output),
                properties={"comment": output.doc},
            )
            if self._target.partition == "day":
                with new.update_spec() as spec:
                    spec.add_field(time_column(output), DayTransform(), DAY)
            try:
                new.commit_transaction()
            except (TableAlreadyExistsError, CommitFailedException):
                _log.debug("somebody else made %s", output.name)
            # What the transaction gives back is of a table that was not there yet.
            return catalog.load_table(f"{self._target.namespace}.{output.name}")

    def _lacking(self, table: Table, output: Output) -> list[str]:
        """Return the columns that a table lacks."""
        return check_columns(
            self._target.place(output.name),
            {field.name: str(field.field_type) for field in table.schema().fields},
            _types(output),
            "give another namespace, or rename the table",
        )

    def _extend(self, change: Transaction, table: Table, output: Output) -> None:
        """Let a table gain the columns that it lacks, in the transaction of the rows."""
        if self._lacking(table, output):
            with change.update_schema() as schema:
                schema.union_by_name(plain_schema(output))

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except (BrokerFault, *_CONFLICTS):
            raise
        # Catalogs have clients of their own, each with its own errors, and none in common.
        except Exception as error:
            self._fail(what, error)

    def _fail(self, what: str, error: Exception) -> NoReturn:
        lines = str(error).strip().split("\n")
        reason = f"{what}: {lines[0] or type(error).__name__}"
        raise BrokerFault(reason) from error


def _overwrite(change: Transaction, rows: pa.Table, where: Any, properties: dict[str, str]) -> None:
    with warnings.catch_warnings():
        # That there was nothing to delete is no news.
        warnings.simplefilter("ignore")
        change.overwrite(rows, overwrite_filter=where, snapshot_properties=properties)


def _larger(parts: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Put tables together up to `STEP_BYTES`: each that is written makes files of its own."""
    waiting: list[pa.Table] = []
    for rows in parts:
        waiting.append(rows)
        if sum(each.nbytes for each in waiting) >= STEP_BYTES:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _types(output: Output) -> dict[str, str]:
    """Return the types that Iceberg has for a table's columns."""
    return {field.name: _type_text(field.type) for field in plain_schema(output)}


def _type_text(type_: pa.DataType) -> str:
    if pa.types.is_map(type_):
        return f"map<{_type_text(type_.key_type)}, {_type_text(type_.item_type)}>"
    if pa.types.is_list(type_):
        return f"list<{_type_text(type_.value_type)}>"
    return _TYPES[type_]


def _snapshots(table: Table) -> Iterator[Any]:
    """Yield a table's snapshots, the newest first."""
    snapshot = table.current_snapshot()
    while snapshot is not None:
        yield snapshot
        parent = snapshot.parent_snapshot_id
        snapshot = table.snapshot_by_id(parent) if parent is not None else None


def _said(snapshot: Any, name: str) -> str:
    return (snapshot.summary[name] or "") if snapshot.summary is not None else ""


def _last_run(table: Table) -> str:
    """Return the run that has replaced a table last; empty if it was added to since."""
    for snapshot in _snapshots(table):
        return _said(snapshot, RUN)
    return ""


def _batches(table: Table) -> set[str]:
    """Return the ids of the elements that a table holds."""
    found: set[str] = set()
    for snapshot in _snapshots(table):
        if _said(snapshot, RUN):
            # What was before it is gone, and may come again.
            break
        found.update(_said(snapshot, BATCHES).split(","))
    return found
