"""Looks into output tables: their first rows, readable at 100 columns, and their dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from pipelines.exit_codes import ExitCode, RunError
from pipelines.laws import laws, show_laws
from pipelines.registry import PIPELINES
from pipelines.screen import PLAIN_WIDTH, Screen, counted
from pipelines.table_files import files_of, read_file, unreadable
from schemas.tables import CASES, DEAD_LETTERS, TABLES, VARIANTS
from transforms.sinks.commit import MANIFEST
from transforms.sinks.manifest import BadManifest, read_manifest

WIDEST = 24
_WIDTHS = {"case_id": 12, "message": 46, "source": 30}
_FIRST = {"dead_letters": ("error", "message", "source")}
_TAILS = ("source",)
"""Columns whose end says more than their beginning."""

MOST_DEAD_LETTERS = 100_000

_LAST = ("row_id", "event_id", "attributes", "payload")


def first_rows(output: str, table: str, rows: int) -> pa.Table | None:
    """Return the first rows of a table, in the order of its files; None if it has no files."""
    parts = []
    missing = rows
    files = files_of(output, table)
    for path in files:
        try:
            part = read_file(path).slice(0, missing)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(path, table, error) from None
        parts.append(part)
        missing -= part.num_rows
        if missing <= 0:
            break
    if not files:
        return None
    return pa.concat_tables(parts, promote_options="permissive")


def show(screen: Screen, output: str, tables: list[str], rows: int) -> None:
    """Print the laws of a run and the first rows of its tables.

    Args:
        screen: where.
        output: folder of a finished run.
        tables: which of them; all, if empty.
        rows: how many rows of each.

    Raises:
        RunError: the folder holds no finished run, what it says of itself is broken, or there is
            no such table.
    """
    try:
        manifest = read_manifest(output)
        checked = [] if manifest is None else laws(manifest)
    except BadManifest as error:
        raise RunError(ExitCode.FAILED, str(error)) from None
    except (KeyError, TypeError) as error:
        text = f"{output}/{MANIFEST} lacks what a run of ours says of itself ({error!r})"
        raise RunError(ExitCode.FAILED, text) from None
    if manifest is None:
        text = f"'{output}' holds no finished run (no {MANIFEST}); give the folder of --output"
        raise RunError(ExitCode.NO_INPUT, text)
    for table in tables:
        if table not in manifest["tables"]:
            known = ", ".join(manifest["tables"])
            raise RunError(ExitCode.USAGE, f"--table '{table}' is not there; use one of {known}")
    show_laws(screen, checked)
    for name in tables or table_names(manifest):
        count = manifest["tables"][name]["rows"]
        why = ""
        if name == VARIANTS.name and not count and manifest["events"]["transitions"]:
            why = " (no case came to an end: --end_states names where they do)"
        screen.say(f"{name}: {counted(count, 'row')}{why}")
        found = first_rows(output, name, rows) if count else None
        if found is not None:
            rendered, left_out = render(found, name, PLAIN_WIDTH)
            screen.table(rendered)
            if left_out:
                screen.say(f"and {len(left_out)} columns: {', '.join(left_out)}", wrap=True)
        screen.say()


def table_names(manifest: Mapping[str, Any]) -> list[str]:
    """Return the tables of a run in the order of its pipeline (a manifest's keys are sorted)."""
    pipeline = PIPELINES.get(str(manifest.get("pipeline")))
    known = pipeline.tables if pipeline else ()
    first = [name for name in known if name in manifest["tables"]]
    return first + [name for name in manifest["tables"] if name not in first]


def render(table: pa.Table, name: str, width: int) -> tuple[Table, list[str]]:
    """Make a table that fits a width.

    Columns come in the table's order, ids and payloads last; those without a value in
    these rows, and those that don't fit, are left out.

    Returns:
        The table, and the names of the columns left out.
    """
    known = TABLES[name].schema.names if name in TABLES else table.schema.names
    known = [column for column in known if column in table.schema.names]
    first = _FIRST.get(name, ())
    order = [*first, *(c for c in known if c not in _LAST and c not in first)]
    order += [c for c in known if c in _LAST]
    shown = Table(box=None, pad_edge=False, header_style="dim")
    left_out: list[str] = []
    columns: list[list[str]] = []
    used = 0
    for column in order:
        widest = _WIDTHS.get(column, WIDEST)
        cells = [_text(value) for value in table[column].to_pylist()]
        cells = [_cut(cell, widest, column in _TAILS) for cell in cells]
        needed = max(len(column), *(len(cell) for cell in cells), 1) + 1
        if not any(cells) or used + needed > width:
            left_out.append(column)
            continue
        used += needed
        right = pa.types.is_integer(table[column].type) or pa.types.is_floating(table[column].type)
        shown.add_column(column, justify="right" if right else "left", no_wrap=True)
        columns.append(cells)
    for row in zip(*columns, strict=True):
        shown.add_row(*row)
    shown.padding = (0, 1, 0, 0)
    return shown, left_out


def _cut(text: str, width: int, tail: bool) -> str:
    if len(text) <= width:
        return text
    return f"…{text[1 - width :]}" if tail else f"{text[: width - 1]}…"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, (list, dict)):
        value = ", ".join("=".join(map(str, pair)) for pair in _pairs(value))
    return " ".join(str(value).split())


def _pairs(value: list[Any] | dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    for entry in value.items() if isinstance(value, dict) else value:
        yield entry if isinstance(entry, tuple) else (entry,)


def states_of_cases(output: str, file_format: str) -> list[tuple[str, int]]:
    """Return the states that cases are in, the most frequent first, with how many are."""
    counts: Counter[str] = Counter()
    for path in files_of(output, CASES.name, (file_format,)):
        column = read_file(path, ["state"])["state"].cast(pa.string()).drop_null()
        for found in pc.value_counts(column).to_pylist():
            counts[found["values"]] += found["counts"]
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


@dataclass(frozen=True)
class Kind:
    """The dead letters of one class of error.

    Attributes:
        error: the class.
        count: how many there are.
        message: of the first.
        source: of the first.
    """

    error: str
    count: int
    message: str
    source: str


def dead_letter_kinds(output: str, file_format: str) -> list[Kind]:
    """Count dead letters by class of error, the most frequent first, with an example each.

    At most `MOST_DEAD_LETTERS` are looked at, and a few files more.
    """
    counts: dict[str, int] = {}
    examples: dict[str, tuple[str, str]] = {}
    seen = 0
    for path in files_of(output, DEAD_LETTERS.name, (file_format,)):
        table = read_file(path, ["error", "message", "source"])
        errors, messages, sources = (
            table[name].to_pylist() for name in ("error", "message", "source")
        )
        for error, message, source in zip(errors, messages, sources, strict=True):
            counts[error] = counts.get(error, 0) + 1
            examples.setdefault(error, (_text(message), _text(source)))
        seen += table.num_rows
        if seen >= MOST_DEAD_LETTERS:
            break
    ordered = sorted(counts, key=lambda error: (-counts[error], error))
    return [Kind(error, counts[error], *examples[error]) for error in ordered]
