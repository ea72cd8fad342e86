"""A DuckDB file: each table is one of its main schema; all tables of a bundle or run in one commit.

DuckDB lets one process at a time write to a file, and none read meanwhile. So the file is open only
while something is written, and readers have it in between; whoever has it open is waited for.
`_batches` says which elements of streams are in, `_runs` which runs have replaced tables.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import duckdb
import pyarrow as pa

from schemas.tables import Output
from transforms.addresses import BrokerFault
from transforms.sinks.lakes.address import DuckDBTarget
from transforms.sinks.lakes.columns import (
    check_columns,
    docs_of,
    newest_rows,
    plain_rows,
    plain_schema,
)
from transforms.sinks.lakes.store import Batch, Parts

WAIT_S = 60.0
"""For so long another process may have the file open before a bundle fails."""

KEPT = "30 days"
"""For so long ids of elements are remembered."""

CHECK_S = 5.0
"""For so long before a run is refused: readers come and go."""

_RETRY_S = 0.2
_BATCHES = "CREATE TABLE IF NOT EXISTS _batches (tbl VARCHAR, batch VARCHAR, added TIMESTAMPTZ)"
_RUNS = "CREATE TABLE IF NOT EXISTS _runs (run_id VARCHAR, tbl VARCHAR, replaced TIMESTAMPTZ)"

_writing = threading.Lock()
"""Threads of one process share its database: their commits would be conflicts."""


class DuckDBFile:
    """See `transforms.sinks.lakes.store.Database`.

    Args:
        target: which file.
        wait_s: how long to wait for another process that has it open.
    """

    def __init__(self, target: DuckDBTarget, wait_s: float = WAIT_S) -> None:
        self._path = target.path
        self._wait_s = wait_s

    def check(self, outputs: Mapping[str, Output], *, replaced: bool) -> list[str]:  # noqa: D102
        folder = os.path.dirname(self._path)
        if os.path.isdir(self._path):
            reason = f"{self._path} is a folder; give a file, such as {self._path}/tables.duckdb"
            raise BrokerFault(reason)
        if not os.path.isdir(folder):
            reason = f"there is no folder {folder} for {os.path.basename(self._path)}; make it"
            raise BrokerFault(reason)
        new = not os.path.exists(self._path)
        notes: list[str] = []
        with self._open(wait_s=min(self._wait_s, CHECK_S)) as connection:
            for output in outputs.values():
                lacking = self._lacking(connection, output)
                if lacking and not replaced:
                    columns = ", ".join(lacking)
                    notes.append(f"{self._path}: table {output.name} gains {columns}")
        if new:
            with suppress(OSError):
                os.unlink(self._path)
        return notes

    def replace(  # noqa: D102
        self, outputs: Mapping[str, Output], parts: Parts, run_id: str
    ) -> dict[str, int]:
        counts: dict[str, int] = {}
        with self._open() as connection, _transaction(connection):
            connection.execute(_RUNS)
            connection.execute(_BATCHES)
            known = {
                tbl
                for (tbl,) in connection.execute(
                    "SELECT tbl FROM _runs WHERE run_id = ?", [run_id]
                ).fetchall()
            }
            for name, output in outputs.items():
                if name not in known:
                    self._lacking(connection, output)
                    connection.execute(f"DROP TABLE IF EXISTS {_quoted(name)}")
                    _create(connection, output)
                    for rows in parts(name):
                        _insert(connection, name, rows)
                    # What was in it is gone: its batches may come again.
                    connection.execute("DELETE FROM _batches WHERE tbl = ?", [name])
                    connection.execute("DELETE FROM _runs WHERE tbl = ?", [name])
                    connection.execute("INSERT INTO _runs VALUES (?, ?, now())", [run_id, name])
                counts[name] = _count(connection, name)
        return counts

    def add(  # noqa: D102
        self, outputs: Mapping[str, Output], batches: Mapping[str, Sequence[Batch]]
    ) -> None:
        with self._open() as connection, _transaction(connection):
            connection.execute(_BATCHES)
            connection.execute(f"DELETE FROM _batches WHERE added < now() - INTERVAL {KEPT}")
            for name, listed in batches.items():
                self._add(connection, outputs[name], listed)

    def _add(self, connection: Any, output: Output, listed: Sequence[Batch]) -> None:
        name = output.name
        ids = list(dict.fromkeys(batch.id for batch in listed))
        found = connection.execute(
            "SELECT batch FROM _batches WHERE tbl = ? AND batch IN (SELECT unnest(?))", [name, ids]
        ).fetchall()
        known = {batch for (batch,) in found}
        fresh = {batch.id: batch.rows for batch in listed if batch.id not in known}
        _create(connection, output)
        for column in self._lacking(connection, output):
            type_ = _types(connection, plain_schema(output))[column]
            connection.execute(f"ALTER TABLE {_quoted(name)} ADD COLUMN {_quoted(column)} {type_}")
        if not fresh:
            return
        rows = pa.concat_tables([plain_rows(each, output) for each in fresh.values()])
        if output.mode == "upsert":
            _merge(connection, output, newest_rows(rows, output))
        else:
            _insert(connection, name, rows)
        connection.execute("INSERT INTO _batches SELECT ?, unnest(?), now()", [name, list(fresh)])

    def close(self) -> None:  # noqa: D102
        pass

    def _lacking(self, connection: Any, output: Output) -> list[str]:
        """Return the columns that a table lacks; none if it is not there."""
        found = _columns(connection, output.name)
        if not found:
            return []
        return check_columns(
            f"{self._path}, table {output.name}",
            found,
            _types(connection, plain_schema(output)),
            "alter the column, drop the table, or give another file",
        )

    @contextmanager
    def _open(self, wait_s: float | None = None) -> Iterator[Any]:
        with _writing:
            connection = self._connect(self._wait_s if wait_s is None else wait_s)
            try:
                # What it shows of its own progress would be in the midst of ours.
                connection.execute("SET enable_progress_bar = false")
                connection.execute("SET TimeZone = 'UTC'")
                yield connection
            except duckdb.Error as error:
                reason = f"{self._path} did not take rows: {_first_line(error)}"
                raise BrokerFault(reason) from error
            finally:
                connection.close()

    def _connect(self, wait_s: float) -> Any:
        until = time.monotonic() + wait_s
        while True:
            try:
                return duckdb.connect(self._path)
            except duckdb.Error as error:
                text = _first_line(error)
                if "lock" in text.lower():
                    if time.monotonic() < until:
                        time.sleep(_RETRY_S)
                        continue
                    reason = (
                        f"{self._path} is open in another process, and DuckDB lets one at a time "
                        f"write: close it there, or give another file ({text})"
                    )
                    raise BrokerFault(reason) from None
                reason = f"{self._path} can't be opened: {text}"
                raise BrokerFault(reason) from None


@contextmanager
def _transaction(connection: Any) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    except BaseException:
        with suppress(duckdb.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _create(connection: Any, output: Output) -> None:
    if _columns(connection, output.name):
        return
    schema = plain_schema(output)
    columns = ", ".join(
        f"{_quoted(name)} {type_}" for name, type_ in _types(connection, schema).items()
    )
    connection.execute(f"CREATE TABLE {_quoted(output.name)} ({columns})")
    connection.execute(f"COMMENT ON TABLE {_quoted(output.name)} IS {_text(output.doc)}")
    for name, doc in docs_of(schema):
        place = f"{_quoted(output.name)}.{_quoted(name)}"
        connection.execute(f"COMMENT ON COLUMN {place} IS {_text(doc)}")


def _insert(connection: Any, name: str, rows: pa.Table) -> None:
    connection.register("__rows", rows)
    connection.execute(f"INSERT INTO {_quoted(name)} BY NAME SELECT * FROM __rows")
    connection.unregister("__rows")


def _merge(connection: Any, output: Output, rows: pa.Table) -> None:
    """Put rows in the place of those with their keys, where those are not newer."""
    table, newest = _quoted(output.name), _quoted(output.newest)
    same = " AND ".join(f"t.{_quoted(k)} IS NOT DISTINCT FROM n.{_quoted(k)}" for k in output.key)
    connection.register("__rows", rows)
    connection.execute(
        f"DELETE FROM {table} AS t USING __rows AS n WHERE {same} AND t.{newest} <= n.{newest}"
    )
    connection.execute(
        f"INSERT INTO {table} BY NAME SELECT * FROM __rows AS n "
        f"WHERE NOT EXISTS (SELECT 1 FROM {table} AS t WHERE {same})"
    )
    connection.unregister("__rows")


def _count(connection: Any, name: str) -> int:
    found = connection.execute(f"SELECT count(*) FROM {_quoted(name)}").fetchone()
    return int(found[0])


def _columns(connection: Any, name: str) -> dict[str, str]:
    """Return column -> type of a table; empty if it is not there."""
    found = connection.execute(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = "
        "current_database() AND schema_name = current_schema() AND table_name = ?",
        [name],
    ).fetchall()
    return dict(found)


def _types(connection: Any, schema: pa.Schema) -> dict[str, str]:
    """Return the types that DuckDB has for columns."""
    connection.register("__types", schema.empty_table())
    found = connection.execute("DESCRIBE SELECT * FROM __types").fetchall()
    connection.unregister("__types")
    return {row[0]: row[1] for row in found}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _first_line(error: Exception) -> str:
    # What it says behind that is for people at its own command line.
    return str(error).strip().split("\n")[0].partition(". However")[0]
