"""What a stream should have written: the bounded run over the very messages of its topic.

They go through the dead-letter format, which carries what a broker knows of a message: its
place and its record time. A stream makes record times monotone within a partition, and so is it
done here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.events import TIME
from schemas.tables import TABLES
from tests.pipelines import streams

APPENDED = tuple(name for name, table in TABLES.items() if table.mode == "append")
REPLACED = tuple(name for name, table in TABLES.items() if table.mode == "upsert")

Rows = Mapping[str, streams.Row]
"""A table: row id -> row; of an upsert table the newest of each key."""

_SHOWN = 3


class Wrong(AssertionError):
    """A run that does not end as it should; holds what is known of it."""


def bounded(
    messages: Sequence[Any], format_: str, folder: Path, options: Sequence[str]
) -> dict[str, Rows]:
    """Run a backfill over the messages of a topic.

    Args:
        messages: all of them, a partition after the other, in its order.
        format_: of the messages.
        folder: for what is written.
        options: more of them.

    Raises:
        Wrong: the backfill fails.
    """
    dump, out = folder / "messages.parquet", folder / "bounded"
    pq.write_table(_letters(messages, format_), dump)
    command = [sys.executable, "run.py", "transitions", "--input", str(dump)]
    command += ["--format", "dead_letters", "--output", str(out), *options]
    done = subprocess.run(command, cwd=streams.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = f"the bounded run ends with {done.returncode}: {done.stdout}{done.stderr}"
        raise Wrong(reason)
    manifest = json.loads((out / "_run.json").read_text("utf-8"))
    if manifest["messages"]["in"] != len(messages):
        reason = f"the bounded run has read {manifest['messages']} of {len(messages)} messages"
        raise Wrong(reason)
    return {name: _table(out / name) for name in TABLES}


def _letters(messages: Sequence[Any], format_: str) -> pa.Table:
    """Return messages as dead letters."""
    newest: dict[int, int] = defaultdict(int)
    times = []
    for message in messages:
        newest[message.partition()] = max(newest[message.partition()], message.timestamp()[1])
        times.append(newest[message.partition()] * 1000)
    payloads = [message.value() for message in messages]
    return pa.table(
        {
            "payload": pa.array(payloads, pa.binary()),
            "payload_size": pa.array(map(len, payloads), pa.int64()),
            "attributes": pa.array(
                [[("format", format_)]] * len(messages), pa.map_(pa.string(), pa.string())
            ),
            "source": [f"{m.topic()}/{m.partition()}/{m.offset()}" for m in messages],
            "time": pa.array(times, pa.int64()).cast(TIME),
        }
    )


def _table(folder: Path) -> Rows:
    found: dict[str, streams.Row] = {}
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path)
        for row in streams.as_json(table) if table.num_rows else ():
            found[row["row_id"]] = row
    return found


def written(table: str, values: Iterable[bytes]) -> tuple[Rows, list[str]]:
    """Return the rows of a topic, each once, and in what rows of one id differ.

    Args:
        table: its name.
        values: the topic's, in the order of each partition; a row's key keeps it in one.
    """
    found: dict[str, streams.Row] = {}
    wrong = []
    for value in values:
        row = orjson.loads(value)
        known = found.get(row["row_id"])
        if table in APPENDED and known is not None and known != row:
            wrong.append(f"{table}: two rows of one id differ: {_unlike(known, row)}")
        found[row["row_id"]] = row
    return found, wrong


def differences(table: str, found: Rows, wanted: Rows) -> list[str]:
    """Say in what a table differs from what it should be, by row id; empty if in nothing."""
    wrong = []
    lost = wanted.keys() - found.keys()
    alien = found.keys() - wanted.keys()
    unlike = [
        f"{_unlike(found[id_], wanted[id_])}"
        for id_ in found.keys() & wanted.keys()
        if _settled(table, found[id_]) != _settled(table, wanted[id_])
    ]
    for what, ids, rows in (("lost", lost, wanted), ("not wanted", alien, found)):
        if ids:
            shown = ", ".join(str(rows[id_]) for id_ in sorted(ids)[:_SHOWN])
            wrong.append(f"{table}: {len(ids)} {what}, such as {shown}")
    if unlike:
        wrong.append(f"{table}: {len(unlike)} differ, such as {'; '.join(unlike[:_SHOWN])}")
    return wrong


def _settled(table: str, row: streams.Row) -> streams.Row:
    """Return a row without what only a stream knows: how it has recognised its columns."""
    if table != "dead_letters":
        return row
    return {**row, "attributes": None}


def _unlike(one: streams.Row, other: streams.Row) -> str:
    return f"{one['row_id']}: " + ", ".join(
        f"{name} {one[name]!r}, not {other.get(name)!r}"
        for name in one
        if one[name] != other.get(name)
    )
