"""Delta Lake: a table each below one prefix, by delta-rs (library deltalake; no JVM).

Each commit is one of Delta's own transactions. Idempotence is Delta's too: a commit carries an
application transaction (`txn`) for every element of the stream that it holds, and for the run that
replaced the table last; ids of elements are valid until the table is replaced again.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    Schema,
    Transaction,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError

from schemas.tables import Output
from transforms.addresses import BrokerFault
from transforms.sinks.lakes.address import DeltaTarget
from transforms.sinks.lakes.columns import (
    DAY,
    check_columns,
    newest_rows,
    plain_rows,
    plain_schema,
)
from transforms.sinks.lakes.store import Batch, Parts, patiently

KEPT = "interval 30 days"
"""For so long ids of elements are remembered."""

_REPLACED = "imixs-replaced"
_PROPERTIES = {"delta.setTransactionRetentionDuration": KEPT}

_writing = threading.Lock()
"""Threads of one process would only make each other try again."""


class DeltaTables:
    """See `transforms.sinks.lakes.store.Database`.

    Args:
        target: the prefix of the tables.
    """

    def __init__(self, target: DeltaTarget) -> None:
        self._target = target
        self._by_day = target.partition == "day"

    def check(self, outputs: Mapping[str, Output], *, replaced: bool) -> list[str]:  # noqa: D102
        if self._target.folder:
            _check_folder(self._target.folder)
        notes = []
        for output in outputs.values():
            table = self._open(output.name)
            lacking = [] if table is None else self._lacking(table, output)
            if lacking and not replaced:
                notes.append(f"{self._target.place(output.name)} gains {', '.join(lacking)}")
        return notes

    def replace(  # noqa: D102
        self, outputs: Mapping[str, Output], parts: Parts, run_id: str
    ) -> dict[str, int]:
        number = _number(run_id)
        counts = {}
        for name, output in outputs.items():
            self._patiently(name, partial(self._replace, output, parts, number))
            table = self._open(name)
            assert table is not None
            counts[name] = int(table.count())
        return counts

    def _replace(self, output: Output, parts: Parts, number: int) -> None:
        table = self._open(output.name)
        if table is not None:
            self._lacking(table, output)
            if _version(table, _REPLACED) == number:
                return
        rows = self._reader(output, parts)
        self._commit(output, rows, "overwrite", [Transaction(_REPLACED, number)])

    def add(  # noqa: D102
        self, outputs: Mapping[str, Output], batches: Mapping[str, Sequence[Batch]]
    ) -> None:
        with _writing:
            for name, listed in batches.items():
                self._patiently(name, partial(self._add, outputs[name], listed))

    def _patiently(self, name: str, act: Callable[[], None]) -> None:
        """Do it again while others commit first."""
        patiently(act, CommitFailedError, partial(self._fail, name))

    def _add(self, output: Output, listed: Sequence[Batch]) -> None:
        table = self._open(output.name)
        since = 0
        if table is None:
            # An empty one first: then every batch is added in the same way.
            empty = plain_schema(output, self._by_day).empty_table()
            self._commit(output, empty, "append", [])
            table = self._open(output.name)
            assert table is not None
        else:
            self._lacking(table, output)
            since = _version(table, _REPLACED) or 0
        fresh = {
            f"imixs-{since}-{batch.id}": batch.rows
            for batch in listed
            if _version(table, f"imixs-{since}-{batch.id}") is None
        }
        if not fresh:
            return
        rows = pa.concat_tables([plain_rows(r, output, self._by_day) for r in fresh.values()])
        marks = [Transaction(name, 1) for name in fresh]
        if output.mode == "append":
            self._commit(output, rows, "append", marks)
            return
        same = " AND ".join(f"t.{name} = n.{name}" for name in output.key)
        try:
            (
                table.merge(
                    newest_rows(rows, output),
                    same,
                    source_alias="n",
                    target_alias="t",
                    merge_schema=True,
                    commit_properties=CommitProperties(app_transactions=marks),
                )
                .when_matched_update_all(f"n.{output.newest} >= t.{output.newest}")
                .when_not_matched_insert_all()
                .execute()
            )
        except CommitFailedError:
            raise
        except (DeltaError, OSError) as error:
            self._fail(output.name, error)

    def close(self) -> None:  # noqa: D102
        pass

    def _open(self, name: str) -> DeltaTable | None:
        place = self._target.place(name)
        try:
            return DeltaTable(place) if DeltaTable.is_deltatable(place) else None
        except (DeltaError, OSError, ValueError) as error:
            reason = f"{place} can't be read: {_first_line(error)}"
            raise BrokerFault(reason) from error

    def _lacking(self, table: DeltaTable, output: Output) -> list[str]:
        """Return the columns that a table lacks."""
        place = self._target.place(output.name)
        wanted = [DAY] if self._by_day else []
        found = list(table.metadata().partition_columns)
        if found != wanted:
            fix = "none" if not found else "day"
            by = ", ".join(found) or "nothing"
            hint = f"give ?partition={fix}" if found in ([], [DAY]) else "give another place"
            reason = f"{place} is partitioned by {by}, not by {', '.join(wanted) or 'nothing'}; "
            raise BrokerFault(reason + hint)
        there = _types(table.schema())
        fix = "give another place, or move the table away"
        ours = _types(Schema.from_arrow(plain_schema(output, self._by_day)))
        lacking = check_columns(place, there, ours, fix)
        # Delta Lake tells names that differ in case only from one another no better than SQL.
        named = {name.lower(): name for name in there}
        for name in lacking:
            if name in named:
                reason = f"{place}: column {named[name]} is there, and rows have {name}; {fix}"
                raise BrokerFault(reason)
        return lacking

    def _reader(self, output: Output, parts: Parts) -> pa.RecordBatchReader:
        def batches() -> Iterator[pa.RecordBatch]:
            for rows in parts(output.name):
                yield from plain_rows(rows, output, self._by_day).to_batches()

        return pa.RecordBatchReader.from_batches(plain_schema(output, self._by_day), batches())

    def _commit(self, output: Output, rows: Any, mode: Any, marks: list[Transaction]) -> None:
        place = self._target.place(output.name)
        if self._target.folder:
            os.makedirs(place, exist_ok=True)
        try:
            write_deltalake(
                place,
                rows,
                partition_by=[DAY] if self._by_day else None,
                mode=mode,
                name=output.name,
                description=output.doc,
                configuration=_PROPERTIES,
                schema_mode="merge",
                commit_properties=CommitProperties(app_transactions=marks),
            )
        except CommitFailedError:
            raise
        except (DeltaError, OSError) as error:
            self._fail(output.name, error)

    def _fail(self, name: str, error: Exception) -> NoReturn:
        reason = f"{self._target.place(name)} did not take rows: {_first_line(error)}"
        raise BrokerFault(reason) from error


def _check_folder(folder: str) -> None:
    """Prove that a folder can be made or written, and make none."""
    there = folder
    while not os.path.exists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        reason = f"{there} is a file: move it away or give another folder"
        raise BrokerFault(reason)
    if not os.access(there, os.W_OK | os.X_OK):
        reason = f"cannot write to {there}: permission denied; fix that or give another folder"
        raise BrokerFault(reason)


def _version(table: DeltaTable, name: str) -> int | None:
    return table.transaction_version(name)


def _number(run_id: str) -> int:
    """Return a number for a run: transactions have numbers."""
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:7], "big") or 1


def _types(schema: Schema) -> dict[str, str]:
    return {field.name: _type_text(field.type) for field in schema.fields}


def _type_text(type_: Any) -> str:
    kind = getattr(type_, "type", "")
    if kind == "map":
        return f"map of {_type_text(type_.key_type)} to {_type_text(type_.value_type)}"
    if kind == "array":
        return f"array of {_type_text(type_.element_type)}"
    return str(kind or type_)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
