"""What a database must be able to do to take a run's tables, and which one an address is of.

Two ways in. A bounded run **replaces**: each table is exchanged whole. A stream **adds**: elements
of a bundle are appended, or merged into upsert tables, in one transaction a table, together with
the ids of these elements; an element whose id is known is left out. So a repeat writes nothing
twice, and what fails leaves nothing half.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Protocol

import pyarrow as pa

from schemas.tables import Output
from transforms.addresses import BrokerFault
from transforms.sinks.lakes.address import (
    DeltaTarget,
    DuckDBTarget,
    IcebergTarget,
)

if TYPE_CHECKING:
    from transforms.sinks.lakes.address import TableTarget

Parts = Callable[[str], Iterator[pa.Table]]
"""Table -> its rows, some at a time, with plain columns; may be called again."""


@dataclass(frozen=True)
class Batch:
    """One element of a stream: rows of one table, shard and firing.

    Attributes:
        id: names them: the same rows have the same one, others another.
        rows: with the table's columns.
    """

    id: str
    rows: pa.Table


ATTEMPTS = 20
"""Other writers may commit first: so often a commit is tried."""


def patiently(
    act: Callable[[], None],
    conflicts: type[Exception] | tuple[type[Exception], ...],
    fail: Callable[[Exception], NoReturn],
) -> None:
    """Do something again while others commit first.

    Args:
        act: what is done.
        conflicts: what it raises then.
        fail: raises what is to be told in the end.
    """
    for attempt in range(ATTEMPTS):
        try:
            return act()
        except conflicts as error:
            if attempt == ATTEMPTS - 1:
                fail(error)
            time.sleep(min(5.0, 0.05 * 2**attempt))
    return None


class Database(Protocol):
    """A place that keeps tables. Not shared between threads; opened where it is used."""

    def check(self, outputs: Mapping[str, Output], *, replaced: bool) -> list[str]:
        """Prove that tables can be written, and change nothing.

        Args:
            outputs: table name -> table.
            replaced: they will be replaced, not added to.

        Returns:
            What the user should hear about, such as a column that a table will gain.

        Raises:
            BrokerFault: it cannot be reached or written, or a column is of another type.
        """
        ...

    def replace(self, outputs: Mapping[str, Output], parts: Parts, run_id: str) -> dict[str, int]:
        """Put a run's tables in the place of those of an earlier one.

        Repeated with the same `run_id`, it does what is left to do.

        Returns:
            Table -> rows that it has now.

        Raises:
            BrokerFault: it is not possible; a table that was not reached is as it was.
        """
        ...

    def add(self, outputs: Mapping[str, Output], batches: Mapping[str, Sequence[Batch]]) -> None:
        """Add rows to tables, each batch once however often it comes.

        Raises:
            BrokerFault: it is not possible; nothing of a table that was not reached is there.
        """
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def open_database(target: TableTarget) -> Database:
    """Return the database of an address.

    Raises:
        BrokerFault: it has none that is written from here.
    """
    if isinstance(target, DuckDBTarget):
        from transforms.sinks.lakes.duckdb_file import DuckDBFile  # noqa: PLC0415 (optional)

        return DuckDBFile(target)
    if isinstance(target, DeltaTarget):
        from transforms.sinks.lakes.delta import DeltaTables  # noqa: PLC0415 (optional)

        return DeltaTables(target)
    if isinstance(target, IcebergTarget):
        from transforms.sinks.lakes.iceberg import IcebergTables  # noqa: PLC0415 (optional)

        return IcebergTables(target)
    reason = f"{target}: it is written by Beam's own step"
    raise BrokerFault(reason)
