"""Databases that runs write tables to, by their addresses: what is checked, and how rows get there.

A stream writes to them step by step (`stream_io.writing`). A bounded run first makes its tables as
Parquet, whole or not at all, in its folder or in a temporary one; then they are delivered from
there, in one transaction a table, with the run's id: a run that is delivered twice is there once.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipelines.brokers import is_database
from pipelines.exit_codes import ExitCode, RunError
from pipelines.registry import Pipeline
from schemas.tables import TABLES, Output
from transforms.addresses import BrokerFault
from transforms.sinks.lakes.address import BigQueryTarget, DuckDBTarget
from transforms.sinks.lakes.columns import plain_rows, time_column
from transforms.sinks.lakes.store import Parts, open_database

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from pipelines.screen import Screen
    from pipelines.settings import Settings
    from transforms.sinks.lakes.address import TableTarget

MANY_DAYS, FEW_ROWS = 1_000, 1_000
"""So many partitions, of so few rows each on average, are warned of."""

_STAGED, _HELD = "imixs-staged-", ".held"

ROWS = 131_072
"""So many rows of a part are read at a time."""


def databases_of(settings: Settings) -> list[TableTarget]:
    """Return the databases among the outputs of a run."""
    return [target for target in settings.targets if is_database(target)]  # type: ignore[misc]


def check_databases(
    pipeline: Pipeline,
    settings: Settings,
    screen: Screen,
    flags: PipelineOptions,
    *,
    local: bool,
    streaming: bool,
) -> None:
    """Prove that the databases of a run take its tables, before anything is started.

    Args:
        pipeline: whose tables.
        settings: of the run; with `explain_plan` no service is asked.
        screen: where notes go.
        flags: Beam's options.
        local: whether all work is done in this process, or others of this machine.
        streaming: whether tables are added to.

    Raises:
        RunError: one does not.
    """
    outputs = {name: TABLES[name] for name in pipeline.tables}
    for target in databases_of(settings):
        if isinstance(target, BigQueryTarget):
            from transforms.sinks.lakes import bigquery  # noqa: PLC0415 (its client may be missing)

            with _told():
                bigquery.validate(target, outputs)
                if settings.explain_plan:
                    continue
                if not streaming:
                    bigquery.check_temp(target, flags)
                elif not local:
                    bigquery.check_java(target)
                for note in bigquery.check(target, outputs):
                    screen.note(note)
            continue
        if streaming and not local and (target.folder or isinstance(target, DuckDBTarget)):
            text = (
                f"--output {target} is on this machine, and the workers may be on others; give "
                "one that all of them reach, such as delta+s3://bucket/prefix"
            )
            raise RunError(ExitCode.USAGE, text)
        with _told():
            database = open_database(target)
            for note in database.check(outputs, replaced=not streaming):
                screen.note(note)
            database.close()


def prepare_databases(pipeline: Pipeline, settings: Settings, screen: Screen) -> None:
    """Make the tables of a stream that are missing: whoever reads finds them, empty as they are.

    Raises:
        RunError: they can't be made.
    """
    outputs = {name: TABLES[name] for name in pipeline.tables}
    for target in databases_of(settings):
        if not isinstance(target, BigQueryTarget):
            with _told():
                database = open_database(target)
                database.add(outputs, {name: () for name in outputs})
                database.close()
        else:
            from transforms.sinks.lakes import bigquery  # noqa: PLC0415 (its client may be missing)

            with _told():
                for name in bigquery.create_tables(target, outputs):
                    screen.note(f"created table {name}")


@contextmanager
def staged(settings: Settings) -> Iterator[Settings]:
    """Give a bounded run a folder: its own, or a temporary one where it writes to a database."""
    if settings.output or not databases_of(settings):
        yield settings
        return
    _remove_left()
    folder = tempfile.mkdtemp(prefix=_STAGED)
    try:
        with open(os.path.join(folder, f"{_HELD}.new"), "wb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            # Whoever sees it sees that it is held.
            os.rename(held.name, os.path.join(folder, _HELD))
            yield replace(settings, output=folder, staged=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left() -> None:
    """Remove the folders of runs that were killed: nobody holds them any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_STAGED}*"):
        try:
            with open(folder / _HELD, "rb") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            # Of a run that lives, of somebody else, or just being made.
            continue


def deliver(
    screen: Screen, settings: Settings, manifest: Mapping[str, Any], flags: PipelineOptions
) -> dict[str, dict[str, int]]:
    """Bring the tables of a bounded run from its folder into its databases.

    Args:
        screen: where notes go.
        settings: of the run, with its folder.
        manifest: that it has left there.
        flags: Beam's options, for what Beam delivers.

    Returns:
        Database -> table -> rows that it has now.

    Raises:
        RunError: a database did not take them; the folder has them all.
    """
    outputs = {name: TABLES[name] for name in manifest["tables"]}
    found: dict[str, dict[str, int]] = {}
    for target in databases_of(settings):
        with _told():
            if isinstance(target, BigQueryTarget):
                from transforms.sinks.lakes.bigquery_steps import load  # noqa: PLC0415

                paths = {name: paths_of(settings.output, name) for name in outputs}
                found[str(target)] = load(target, outputs, paths, flags)
                continue
            _note_small_files(screen, settings, target, outputs)
            database = open_database(target)
            counts = database.replace(outputs, parts_of(settings.output), manifest["run_id"])
            found[str(target)] = counts
            database.close()
    return found


def _note_small_files(
    screen: Screen, settings: Settings, target: TableTarget, outputs: Mapping[str, Output]
) -> None:
    """Say so if tables that are partitioned by days become many files of few rows."""
    if getattr(target, "partition", "none") != "day":
        return
    rows = days = 0
    for name, output in outputs.items():
        column = time_column(output)
        distinct: set[Any] = set()
        for path in paths_of(settings.output, name):
            with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
                dates = pq.ParquetFile(file).read([column])[column].cast(pa.date32())
            rows += len(dates)
            distinct.update(dates.unique().to_pylist())
        days += len(distinct)
    if days > MANY_DAYS and rows < FEW_ROWS * days:
        screen.warn(
            f"{target}: {rows:,} rows become {days:,} files, as tables are partitioned by days; "
            "?partition=none makes few"
        )


def parts_of(folder: str) -> Parts:
    """Return what reads the Parquet parts of a run's tables, some rows at a time."""

    def read(name: str) -> Iterator[pa.Table]:
        for path in paths_of(folder, name):
            with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
                for batch in pq.ParquetFile(file).iter_batches(ROWS):
                    yield plain_rows(pa.Table.from_batches([batch]), TABLES[name])

    return read


def paths_of(folder: str, name: str) -> list[str]:
    """Return the paths of a table's parts."""
    from transforms.sinks.store import open_store  # noqa: PLC0415

    store = open_store(folder)
    names = store.names(store.join(folder, name))
    return [store.join(folder, name, each) for each in names if each.endswith(".parquet")]


def show_database(screen: Screen, target: TableTarget, pipeline: Pipeline) -> None:
    """Print what a run would write to a database; of BigQuery also the schemas."""
    screen.say(f"output    {target}")
    if isinstance(target, BigQueryTarget):
        from transforms.sinks.lakes import bigquery  # noqa: PLC0415 (its client may be missing)

        for name in pipeline.tables:
            screen.say(f"          {target.place(name)}")
            for line in bigquery.columns_of(TABLES[name]):
                screen.say(f"            {line}")


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BrokerFault as error:
        raise RunError(ExitCode.OUTPUT, f"--output: {error}") from None
