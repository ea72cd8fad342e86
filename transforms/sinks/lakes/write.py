"""A stream's tables into a database: what a bundle holds is one transaction a table.

What is guaranteed: **at least once, with deterministic row ids; and a repeated bundle writes
nothing twice**. With its rows a transaction keeps the ids of the elements that they came in. A
stream that begins anew, and cuts the same rows otherwise, writes them again with the ids that they
had: whoever reads drops what it has seen by `row_id`, and upsert tables need not even that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import apache_beam as beam

from schemas.tables import Output
from transforms.exchange import fetch, with_schema
from transforms.sinks.delivery import Bundle
from transforms.sinks.granules import content_of
from transforms.sinks.lakes.store import Batch, Database, open_database

if TYPE_CHECKING:
    from transforms.sinks.lakes.address import TableTarget

WAITING_BYTES = 128 * 1024 * 1024
"""So much of a bundle is kept at most before it is written."""


@dataclass(eq=False)
class WriteTables(beam.PTransform):
    """Writes tables to a database: `fold.streaming.Rows` -> nothing.

    Attributes:
        target: which database.
        outputs: table name -> table.
        number: of the target among those of the run, for what is counted.
        scratch: where delivered rows are counted; empty for nowhere.
    """

    target: TableTarget
    outputs: Mapping[str, Output]
    number: int = 0
    scratch: str = ""

    def expand(self, tables: beam.PCollection) -> beam.PCollection:
        """Wire the step."""
        return tables | "Write tables" >> beam.ParDo(_Write(self))


class _Write(beam.DoFn):
    """Keeps a bundle's rows, and writes them at its end."""

    def __init__(self, step: WriteTables) -> None:
        self._target = step.target
        self._outputs = dict(step.outputs)
        self._database: Database | None = None
        self._batches: defaultdict[str, list[Batch]] = defaultdict(list)
        self._bytes = 0
        self._bundle = Bundle(WriteTables, step.number, step.scratch)

    def start_bundle(self) -> None:
        self._batches.clear()
        self._bytes = 0
        self._bundle.begin()
        if self._database is None:
            self._database = open_database(self._target)

    def process(self, element: tuple[str, int, int, bytes]) -> Iterator[None]:
        name, place, until_ms, packed = element
        rows = with_schema([fetch(packed)], self._outputs[name].schema)
        if rows.num_rows:
            self._batches[name].append(Batch(batch_id(until_ms, place, content_of(rows)), rows))
            self._bytes += rows.nbytes
        self._bundle.hold(element, rows.num_rows)
        if self._bytes >= WAITING_BYTES:
            self._write()
        return iter(())

    def finish_bundle(self) -> None:
        self._write()
        self._bundle.close()

    def teardown(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _write(self) -> None:
        if self._batches:
            assert self._database is not None
            self._database.add(self._outputs, self._batches)
        self._batches.clear()
        self._bytes = 0


def batch_id(until_ms: int, place: int, content: int) -> str:
    """Name an element of a table, as `granules.granule_name` names its file.

    Args:
        until_ms: order time up to which its rows are complete; of dead letters, their batch's.
        place: its shard; of dead letters, the offset of the batch's first message.
        content: what `granules.content_of` says of its rows.
    """
    return f"{until_ms:013d}-{place:05d}-{content:016x}"
