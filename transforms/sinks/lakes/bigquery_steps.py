"""BigQuery as Beam steps: file loads for bounded runs, Storage Write or inserts for streams.

What is guaranteed of streams: **at least once, with deterministic row ids**. In upsert tables too
all rows of a key stay, and a query takes the newest (`docs/sinks.md` has it). On clusters Beam's
`WriteToBigQuery` does the work. It groups rows, which no engine of one process does with a stream:
there the client inserts them, a bundle at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.gcp.bigquery import BigQueryDisposition, WriteToBigQuery
from apache_beam.io.gcp.bigquery_tools import RetryStrategy
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from schemas.tables import Output
from transforms.addresses import BrokerFault
from transforms.exchange import fetch, with_schema
from transforms.sinks.delivery import Bundle
from transforms.sinks.granules import content_of
from transforms.sinks.lakes.address import BigQueryTarget
from transforms.sinks.lakes.bigquery import (
    TIMEOUT_S,
    asking,
    beam_rows,
    client_of,
    create_tables,
    json_rows,
    layout,
    table_schema,
)
from transforms.sinks.lakes.write import batch_id

REQUEST_ROWS = 500
"""Rows of an insert: what BigQuery recommends."""

_READ_ROWS = 10_000


@dataclass(eq=False)
class WriteBigQuery(beam.PTransform):
    """Writes a stream's tables by `WriteToBigQuery`: `fold.streaming.Rows` -> nothing.

    A row that BigQuery refuses fails the job with the reason: none is dropped.

    Attributes:
        target: the dataset; its tables are there.
        outputs: table name -> table.
        expansion_service: makes Beam's Java step; None for Beam's own.
    """

    target: BigQueryTarget
    outputs: Mapping[str, Output]
    expansion_service: Any = None

    def expand(self, tables: beam.PCollection) -> list[beam.PCollection]:
        """Wire the steps."""
        target = self.target
        storage = target.method == "storage_write_api"
        parts = tables | "Write as rows" >> beam.ParDo(
            _Rows(dict(self.outputs), storage)
        ).with_outputs(*self.outputs)
        found = []
        for name, output in self.outputs.items():
            step = WriteToBigQuery(
                target.place(name),
                schema=table_schema(output),
                create_disposition=BigQueryDisposition.CREATE_NEVER,
                write_disposition=BigQueryDisposition.WRITE_APPEND,
                method=(
                    WriteToBigQuery.Method.STORAGE_WRITE_API
                    if storage
                    else WriteToBigQuery.Method.STREAMING_INSERTS
                ),
                insert_retry_strategy=RetryStrategy.RETRY_ON_TRANSIENT_ERROR,
                use_at_least_once=storage,
                expansion_service=self.expansion_service,
            )
            result = parts[name] | f"Write {name}" >> step
            refused = result.failed_rows_with_errors
            found.append(refused | f"Refuse to lose {name}" >> beam.Map(_refuse, target, name))
        return found


class _Rows(beam.DoFn):
    """Makes dicts of rows, each to the output of its table."""

    def __init__(self, outputs: Mapping[str, Output], typed: bool) -> None:
        self._outputs, self._typed = outputs, typed

    def process(self, element: tuple[str, int, int, bytes]) -> Iterator[beam.pvalue.TaggedOutput]:
        name, _, _, packed = element
        output = self._outputs[name]
        rows = with_schema([fetch(packed)], output.schema)
        for row in beam_rows(rows, output) if self._typed else json_rows(rows, output):
            yield beam.pvalue.TaggedOutput(name, row)


def _refuse(failed: Any, target: BigQueryTarget, name: str) -> None:
    reason = f"{target.place(name)} did not take a row: {failed}"[:2000]
    raise BrokerFault(reason)


@dataclass(eq=False)
class InsertBigQuery(beam.PTransform):
    """Writes a stream's tables by the client's inserts: `fold.streaming.Rows` -> nothing.

    Each row has an insert id by which BigQuery drops a repeat, as long as it remembers: a minute
    or so.

    Attributes:
        target: the dataset; its tables are there.
        outputs: table name -> table.
        number: of the target among those of the run, for what is counted.
        scratch: where delivered rows are counted; empty for nowhere.
    """

    target: BigQueryTarget
    outputs: Mapping[str, Output]
    number: int = 0
    scratch: str = ""

    def expand(self, tables: beam.PCollection) -> beam.PCollection:
        """Wire the step."""
        return tables | "Insert rows" >> beam.ParDo(_Insert(self))


class _Insert(beam.DoFn):
    """Inserts rows as they come; a bundle is done when BigQuery has taken them all."""

    def __init__(self, step: InsertBigQuery) -> None:
        self._target = step.target
        self._outputs = dict(step.outputs)
        self._client: Any = None
        self._bundle = Bundle(InsertBigQuery, step.number, step.scratch)

    def start_bundle(self) -> None:
        self._bundle.begin()
        if self._client is None:
            self._client = client_of(self._target)

    def process(self, element: tuple[str, int, int, bytes]) -> Iterator[None]:
        name, place, until_ms, packed = element
        output = self._outputs[name]
        rows = with_schema([fetch(packed)], output.schema)
        batch = batch_id(until_ms, place, content_of(rows))
        for start in range(0, rows.num_rows, REQUEST_ROWS):
            part = json_rows(rows.slice(start, REQUEST_ROWS), output)
            ids = [f"{batch}-{start + n}" for n in range(len(part))]
            self._insert(name, part, ids)
        self._bundle.hold(element, rows.num_rows)
        return iter(())

    def finish_bundle(self) -> None:
        self._bundle.close()

    def teardown(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _insert(self, name: str, rows: list[dict[str, Any]], ids: list[str]) -> None:
        target = self._target
        table = f"{target.project}.{target.dataset}.{target.prefix}{name}"
        with asking(target):
            refused = self._client.insert_rows_json(table, rows, row_ids=ids, timeout=TIMEOUT_S)
        if refused:
            first = refused[0]
            said = "; ".join(e.get("message", "") for e in first.get("errors", ()))
            row = rows[first["index"]]["row_id"]
            reason = f"{target.place(name)} did not take row {row}: {said}"
            raise BrokerFault(reason)


def load(
    target: BigQueryTarget,
    outputs: Mapping[str, Output],
    paths: Mapping[str, list[str]],
    flags: PipelineOptions,
) -> dict[str, int]:
    """Replace the rows of tables by those of a run's Parquet parts, in load jobs.

    Args:
        target: the dataset.
        outputs: table name -> table.
        paths: table name -> its parts.
        flags: Beam's options: the runner and the place of temporary files.

    Returns:
        Table -> rows that it has now.

    Raises:
        BrokerFault: BigQuery did not take them.
    """
    create_tables(target, outputs)
    local = flags.view_as(StandardOptions).runner is None
    try:
        with beam.Pipeline(runner=FnApiRunner() if local else None, options=flags) as root:
            build_load(root, target, outputs, paths)
    except Exception as error:
        # Each runner has errors of its own, and none in common.
        first = str(error).strip().split("\n")[0] or type(error).__name__
        reason = f"{target}: its load failed: {first}"
        raise BrokerFault(reason) from error
    client = client_of(target)
    counts = {}
    with asking(target):
        for name in outputs:
            table = f"{target.project}.{target.dataset}.{target.prefix}{name}"
            if not any(map(_rows_of, paths[name])):
                # Without rows Beam loads nothing, not even over those of an earlier run.
                truncate = f"TRUNCATE TABLE `{table}`"
                client.query(truncate, timeout=TIMEOUT_S).result(timeout=TIMEOUT_S)
            counts[name] = int(client.get_table(table, timeout=TIMEOUT_S).num_rows or 0)
    return counts


def build_load(
    root: beam.Pipeline,
    target: BigQueryTarget,
    outputs: Mapping[str, Output],
    paths: Mapping[str, list[str]],
) -> None:
    """Add the steps that load Parquet parts to `root`."""
    for name, output in outputs.items():
        (
            root
            | f"Name parts of {name}" >> beam.Create(paths[name])
            | f"Spread parts of {name}" >> beam.Reshuffle()
            # path
            | f"Read {name}" >> beam.FlatMap(_read, output)
            # row as a dict
            | f"Load {name}"
            >> WriteToBigQuery(
                target.place(name),
                schema=table_schema(output),
                create_disposition=BigQueryDisposition.CREATE_IF_NEEDED,
                write_disposition=BigQueryDisposition.WRITE_TRUNCATE,
                method=WriteToBigQuery.Method.FILE_LOADS,
                additional_bq_parameters=layout(target, output),
            )
        )


def _read(path: str, output: Output) -> Iterator[dict[str, Any]]:
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        for batch in pq.ParquetFile(file).iter_batches(_READ_ROWS):
            yield from json_rows(pa.Table.from_batches([batch]), output)


def _rows_of(path: str) -> int:
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return int(pq.ParquetFile(file).metadata.num_rows)
