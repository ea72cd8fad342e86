"""The columns of output tables as databases have them: plain types, comments, a day, no encodings.

Dictionaries are how we hold a column and no type of theirs. All columns may be null there, so that
a table can gain some later; which of ours never are, `docs/tables.md` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa

from schemas.tables import Output
from transforms.addresses import BrokerFault
from transforms.arrays import conform

DAY = "day"
"""Column that tables of Delta Lake are partitioned by: the date, in UTC, of `time_column`."""


def plain_schema(output: Output, day: bool = False) -> pa.Schema:
    """Return a table's columns with plain types, each described by its field's metadata.

    Args:
        output: the table.
        day: with the column `day` behind them.
    """
    fields = [pa.field(f.name, _plain(f.type), True, f.metadata) for f in output.schema]
    if day:
        doc = f"date of {time_column(output)}, in UTC; files are in folders by it"
        fields.append(pa.field(DAY, pa.date32(), True, {"doc": doc}))
    return pa.schema(fields)


def plain_rows(rows: pa.Table, output: Output, day: bool = False) -> pa.Table:
    """Return rows with `plain_schema`'s columns; columns that they lack are null.

    Args:
        rows: of the table.
        output: the table.
        day: with the column `day`.
    """
    schema = plain_schema(output, day)
    columns = []
    for field in schema:
        if day and field.name == DAY:
            columns.append(rows[time_column(output)].cast(pa.date32()))
        elif field.name in rows.column_names:
            columns.append(conform(rows[field.name], field.type))
        else:
            columns.append(pa.nulls(rows.num_rows, field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def newest_rows(rows: pa.Table, output: Output) -> pa.Table:
    """Keep one row of each key: of an upsert table the newest, of others one by `row_id`.

    Args:
        rows: with the table's key (or `row_id`) and its column `newest`; of two that are equally
            new the last counts.
        output: the table.
    """
    key = output.key if output.mode == "upsert" else ("row_id",)
    if rows.num_rows < 2:
        return rows
    codes = np.zeros(rows.num_rows, np.int64)
    for name in key:
        column = rows[name].combine_chunks().dictionary_encode(null_encoding="encode")
        codes = codes * len(column.dictionary) + np.asarray(column.indices)
    if output.mode == "upsert":
        newness = np.asarray(rows[output.newest].cast(pa.int64()).fill_null(-(2**62)))
        order = np.lexsort((newness, codes))
    else:
        order = np.argsort(codes, kind="stable")
    last = np.append(np.diff(codes[order]) != 0, True)
    if last.all():
        return rows
    return rows.take(pa.array(np.sort(order[last])))


def time_column(output: Output) -> str:
    """Return the column whose day a row belongs to: the first time of the table.

    Of an upsert table it is one that stays, or hardly changes, over the rows of a key.
    """
    return next(f.name for f in output.schema if pa.types.is_timestamp(f.type))


def check_columns(
    place: str, found: Mapping[str, str], ours: Mapping[str, str], fix: str
) -> list[str]:
    """Compare the columns that a table has with those that it should have.

    Args:
        place: the table, for people.
        found: column -> its type, in the words of the database.
        ours: the same, of the columns that will be written.
        fix: what can be done where they differ.

    Returns:
        The columns that it lacks.

    Raises:
        BrokerFault: a column has another type.
    """
    for name, type_ in ours.items():
        if name in found and found[name] != type_:
            reason = f"{place}: column {name} is {found[name]}, and rows have {type_} for it; {fix}"
            raise BrokerFault(reason)
    return [name for name in ours if name not in found]


def docs_of(schema: pa.Schema) -> Iterable[tuple[str, str]]:
    """Return each column's name and what it holds."""
    for field in schema:
        if field.metadata and b"doc" in field.metadata:
            yield field.name, field.metadata[b"doc"].decode()


def _plain(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_
