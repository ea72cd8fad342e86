"""The databases of the tests, each in a folder of its own, and what they hold, read by others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from schemas.tables import Output
from transforms.sinks.lakes.address import (
    DeltaTarget,
    DuckDBTarget,
    IcebergTarget,
    TableTarget,
    parse_tables,
)
from transforms.sinks.lakes.store import Database, open_database

KINDS = ("duckdb", "delta", "iceberg")


@dataclass(frozen=True)
class Place:
    """A database, and how to look into it."""

    target: TableTarget

    def open(self) -> Database:
        return open_database(self.target)

    def read(self, name: str) -> pa.Table:
        """Read a table with the database's own library."""
        if isinstance(self.target, DuckDBTarget):
            import duckdb  # noqa: PLC0415

            with duckdb.connect(self.target.path, read_only=True) as connection:
                return connection.sql(f'SELECT * FROM "{name}"').to_arrow_table()
        if isinstance(self.target, DeltaTarget):
            from deltalake import DeltaTable  # noqa: PLC0415

            return pa.table(DeltaTable(self.target.place(name)).scan())
        assert isinstance(self.target, IcebergTarget)
        return self.iceberg(name).scan().to_arrow()

    def iceberg(self, name: str) -> Any:
        from pyiceberg.catalog import load_catalog  # noqa: PLC0415

        assert isinstance(self.target, IcebergTarget)
        catalog = load_catalog(
            self.target.catalog, uri=self.target.uri, warehouse=self.target.warehouse
        )
        return catalog.load_table(f"{self.target.namespace}.{name}")

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return a table's rows, by id; without the column that only Delta Lake has."""
        table = self.read(name)
        found = table.drop_columns([n for n in ("day",) if n in table.column_names]).to_pylist()
        return sorted(found, key=lambda row: row["row_id"])

    def ids(self, name: str) -> list[str]:
        return [row["row_id"] for row in self.rows(name)]


def place(kind: str, folder: Path) -> Place:
    if kind == "duckdb":
        return Place(parse_tables(str(folder / "tables.duckdb")))
    if kind == "delta":
        return Place(parse_tables(f"delta://{folder}/lake"))
    warehouse = folder / "warehouse"
    warehouse.mkdir(exist_ok=True)
    uri = f"sqlite:///{folder}/catalog.db"
    return Place(parse_tables(f"iceberg://local/events?uri={uri}&warehouse={warehouse}"))


def one_part(**tables: pa.Table) -> Callable[[str], Iterator[pa.Table]]:
    """Return what `Database.replace` asks for rows."""
    return lambda name: iter([tables[name]] if name in tables else [])


def filled(output: Output, *rows: dict[str, Any]) -> pa.Table:
    """Make rows of a table; columns that may not be null have some value."""
    return pa.Table.from_pylist(
        [{**_some(output), **row} for row in rows], plain(output.schema)
    ).cast(output.schema)


def plain(schema: pa.Schema) -> pa.Schema:
    return pa.schema(
        [
            pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type)
            for f in schema
        ]
    )


def _some(output: Output) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in output.schema:
        if field.nullable:
            continue
        if pa.types.is_boolean(field.type):
            found[field.name] = False
        elif pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            found[field.name] = 1
        elif pa.types.is_timestamp(field.type):
            found[field.name] = 1_700_000_000_000_000
        elif pa.types.is_binary(field.type):
            found[field.name] = b"x"
        else:
            found[field.name] = "x"
    return found
