"""Writes `docs/tables.md`, the reference of the output tables, from `schemas.tables`.

python -m schemas            # writes it
python -m schemas --check    # fails if it is not current
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from schemas.tables import TABLES, Output

DOCS = Path(__file__).resolve().parent.parent / "docs" / "tables.md"

_INTRODUCTION = """\
# Output tables

<!-- Written by `python -m schemas` from schemas/tables.py: change it there. -->

A run writes each table to its own folder: `OUTPUT/<table>/<table>-00003-of-00040.parquet`, or
`.jsonl`, `.csv` (`--output_format`). A row of an *append* table is final; of the rows with one key
of an *upsert* table, the newest counts: by `updated_at` or, of windows, `pane_index`.

Where something was read is written as `path:place`; the place is the row of a CSV or Parquet file
(from 0, header not counted), the byte of a JSON Lines file, the event of an XES file, the document
of an Imixs file.

`OUTPUT/_run.json` is there if, and only if, the tables beside it are those of one whole run (of a
stream, which adds to its folder: of its last run that came to its end).

| written as | Parquet | JSON Lines | CSV |
|---|---|---|---|
| text | string, with a dictionary where values repeat | string | quoted |
| time | timestamp, microseconds, UTC | `"2024-08-27T10:04:20.469000Z"` | the same |
| map, list | map, list | object, array | JSON text |
| bytes | binary | base64 | base64 |
| null | null | `null` | empty (an empty text is `""`) |
"""


def document(tables: Iterable[Output] = TABLES.values()) -> str:
    """Write the reference of some tables (Markdown)."""
    return "\n".join([_INTRODUCTION, *(_section(table) for table in tables)])


def type_name(type_: pa.DataType) -> str:
    """Name an Arrow type in a reader's words.

    Raises:
        TypeError: no output table has had such a type so far; name it here.
    """
    if pa.types.is_dictionary(type_):
        return f"{type_name(type_.value_type)}, few distinct"
    if pa.types.is_map(type_):
        return f"map of {type_name(type_.key_type)} to {type_name(type_.item_type)}"
    if pa.types.is_list(type_):
        return f"list of {type_name(type_.value_type)}"
    if pa.types.is_timestamp(type_):
        return "time"
    if pa.types.is_integer(type_):
        return f"integer, {type_.bit_width} bit"
    if pa.types.is_float64(type_):
        return "number"
    if pa.types.is_boolean(type_):
        return "true or false"
    if pa.types.is_string(type_):
        return "text"
    if pa.types.is_binary(type_):
        return "bytes"
    reason = f"no words for the type {type_}"
    raise TypeError(reason)


def _section(table: Output) -> str:
    key = ", ".join(f"`{name}`" for name in table.key)
    lines = [
        f"## {table.name}",
        "",
        table.doc,
        "",
        f"Mode: {table.mode}. Key: {key}.",
        "",
        "| column | type | null | meaning |",
        "|---|---|---|---|",
    ]
    for field in table.schema:
        doc = field.metadata[b"doc"].decode().replace("|", "\\|")
        null = "yes" if field.nullable else "no"
        lines.append(f"| `{field.name}` | {type_name(field.type)} | {null} | {doc} |")
    return "\n".join([*lines, ""])


def main(argv: Sequence[str] | None = None) -> int:
    """Write the reference, or check that it is current; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m schemas", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if not current")
    text = document()
    current = DOCS.exists() and DOCS.read_text(encoding="utf-8") == text
    if parser.parse_args(argv).check:
        if not current:
            print(f"{DOCS} is not current: run `python -m schemas`", file=sys.stderr)
        return 0 if current else 1
    DOCS.parent.mkdir(exist_ok=True)
    DOCS.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
