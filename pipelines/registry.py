"""The pipelines that `run.py` offers: their names, help texts and how they are built.

A pipeline's module is imported when it is built and not before, so that `--help` and
wrong options answer at once. A new pipeline is one module and one entry here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import apache_beam as beam

    from pipelines.settings import Settings
    from transforms.sinks.commit import Run


@dataclass(frozen=True)
class Stream:
    """What a run that never ends knows besides.

    Attributes:
        shards: parts of the fold.
        by_marks: the fold goes by the marks in its elements, not by timers.
        stop: a file that ends the readers once it exists; empty if nothing can.
        splits: readers of each address; None: the runner decides.
        rests: the runner tells the time only between bundles, and needs a rest between them.
        plans: topic -> how it is decoded (`transforms.topics.TopicPlan`).
        account: names the run's account of what is delivered (`transforms.receipts`); empty where
            the engine keeps its state.
        native: the engine reads and writes Pub/Sub by itself.
    """

    shards: int
    by_marks: bool
    stop: str
    splits: int | None
    rests: bool = False
    plans: Mapping[str, Any] = field(default_factory=dict)
    account: str = ""
    native: bool = False


@dataclass(frozen=True)
class RunContext:
    """What one run knows besides its settings: handed to a pipeline's `build`.

    Attributes:
        run_id: names this run: in the manifest, in the names of its files.
        engine: the engine in words, for the manifest.
        local: every worker runs on this machine, so `scratch` may carry data between steps.
        scratch: local folder of this run alone, removed when it ends; empty if not `local`.
        plan: `transforms.sources.files.Plan` of the input.
        output: the run's place in its output, started; to be committed by the last step.
        tables: names of the tables it writes.
        version: of this program.
        stream: what a stream needs; None for a backfill, which has a plan and an output.
    """

    run_id: str
    engine: str
    local: bool
    scratch: str
    plan: Any
    output: Run | None
    tables: tuple[str, ...]
    version: str
    stream: Stream | None = None


@dataclass(frozen=True)
class Example:
    """A command that runs, for `--help`.

    Attributes:
        title: what it shows.
        command: the arguments after the program's name, one line each.
    """

    title: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Pipeline:
    """One pipeline.

    Attributes:
        name: as on the command line; also the name of its module here.
        title: one line on what it does.
        tables: the output tables it can write.
        examples: commands for `--help`.
        default: those that it writes if it is not told; empty for all.
    """

    name: str
    title: str
    tables: tuple[str, ...]
    examples: tuple[Example, ...]
    default: tuple[str, ...] = ()

    def build(self, root: beam.Pipeline, settings: Settings, run: RunContext) -> None:
        """Add the pipeline's steps to `root`."""
        module = importlib.import_module(f"pipelines.{self.name}")
        module.build(root, settings, run)


TRANSITIONS = Pipeline(
    name="transitions",
    title="workflow events, archived or from topics, become transitions, cases and dead letters",
    tables=("transitions", "cases", "late", "retracted", "dead_letters"),
    examples=(
        Example(
            "An archive of Imixs documents, one XML file each",
            ("transitions --input 'archive/**/*.xml' --output out",),
        ),
        Example(
            "An XES log whose cases are all over, as CSV",
            (
                "transitions --input log.xes.gz --output out",
                "    --complete_log --output_format csv",
            ),
        ),
        Example(
            "A CSV file with columns and times of its own",
            (
                "transitions --input orders.csv --output out",
                "    --columns case_id=Order,activity=Step,event_time=Done,actor=Clerk",
                "    --time_format '%d.%m.%Y %H:%M' --timezone Europe/Berlin",
            ),
        ),
        Example(
            "Parquet in, JSON Lines out, the events of January, two business items kept",
            (
                "transitions --input 'events/*.parquet' --output out",
                "    --since 2024-01-01 --until 2024-02-01 --items amount,region",
                "    --output_format jsonl",
            ),
        ),
        Example(
            "An archive into a DuckDB file; also Delta Lake, Iceberg, BigQuery (docs/sinks.md)",
            ("transitions --input 'archive/**/*.xml' --output out.duckdb",),
        ),
        Example(
            "JSON of one's own by a mapping file; inspect shows first what will become of it",
            (
                "transitions --input examples/mapping/orders.jsonl --output out",
                "    --mapping examples/mapping/orders.yaml",
            ),
        ),
        Example(
            "An object-centric log, whose orders are the cases",
            (
                "transitions --input log.jsonocel --output out",
                "    --object_type 'Purchase Order' --items po_quantity:long",
            ),
        ),
        Example(
            "Avro messages, whose schemas are in a registry",
            (
                "transitions --input kafka://localhost:9092/orders",
                "    --output kafka://localhost:9092/out- --schema_registry http://localhost:8081",
            ),
        ),
        Example(
            "The dead letters of an earlier run once more, with the right time zone",
            (
                "transitions --input 'out/dead_letters/*' --format dead_letters",
                "    --output again --timezone Europe/Berlin",
            ),
        ),
        Example(
            "A stream from topics to topics, one of them found by a pattern, until Ctrl-C",
            (
                "transitions --input 'kafka://localhost:9092/orders,imixs-*?start=earliest'",
                "    --output kafka://localhost:9092/out-",
            ),
        ),
        Example(
            "A stream between Pub/Sub topics, which are made if they are not there",
            (
                "transitions --input pubsub://my-project/orders",
                "    --output 'pubsub://my-project/out-?create=yes'",
            ),
        ),
        Example(
            "A backfill, and the stream that goes on where it ended",
            (
                "transitions --input 'archive/**' --output out --keep_state",
                "transitions --input kafka://localhost:9092/orders --output kafka://localhost:9092/out-",
                "    --state_from out",
            ),
        ),
        Example(
            "On a Flink cluster, from and to an object store",
            (
                "transitions --input 's3://bucket/archive/**' --output s3://bucket/out",
                "    --runner FlinkRunner --flink_master localhost:8081",
                "    --environment_type EXTERNAL --environment_config localhost:50000",
            ),
        ),
    ),
)

_MEASURED = ("process_map", "state_times", "flow", "workload", "variants")

ANALYTICS = Pipeline(
    name="analytics",
    title="workflow events become the numbers of windows: process map, times, flow, workload",
    tables=(*TRANSITIONS.tables, *_MEASURED),
    default=("cases", "late", "retracted", "dead_letters", *_MEASURED),
    examples=(
        Example(
            "Hour by hour, from an archive",
            ("analytics --input 'archive/**/*.xml' --output out --end_states Done,Rejected",),
        ),
        Example(
            "One process map of a whole XES log, whose cases are all over",
            ("analytics --input log.xes.gz --output out --complete_log --window global",),
        ),
        Example(
            "The last seven days, each day of a time zone, with the transitions themselves",
            (
                "analytics --input 'events/*.parquet' --output out",
                "    --window sliding:7d/1d@Europe/Berlin",
                "    --tables process_map,flow,transitions",
            ),
        ),
        Example(
            "A stream, whose open windows tell their numbers every ten seconds",
            (
                "analytics --input kafka://localhost:9092/orders",
                "    --output kafka://localhost:9092/m- --window fixed:1h --early_firing 10s",
            ),
        ),
    ),
)

PIPELINES: dict[str, Pipeline] = {p.name: p for p in (TRANSITIONS, ANALYTICS)}
