"""The same job in DuckDB SQL and in Polars: a business log to `transitions` and `cases` as Parquet.

    python -m bench.peers duckdb bench/work/log-2000000.parquet /tmp/out

Every column of both tables is computed; order within a case is (event_time, place in the file).
Written as someone who knows these engines would: of the forms tried, the fastest that promises
the order is kept. DuckDB has md5 for 128-bit ids; Polars has 64-bit hashes, so it writes two.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

TEXTS = ("activity", "resource", "workflow_group", "model_version")

TRANSITIONS_SQL = """
WITH moves AS (
    SELECT
        *,
        concat_ws('|', case_id, epoch_us(event_time), activity, position) AS identity,
        row_number() OVER timeline - 1 AS sequence,
        lag(activity) OVER timeline AS from_state,
        lag(resource) OVER timeline AS previous_actor,
        (epoch_us(event_time) - epoch_us(lag(event_time) OVER timeline)) / 1e6 AS duration_s,
        (epoch_us(event_time) - epoch_us(first_value(event_time) OVER timeline)) / 1e6
            AS elapsed_s
    FROM ({events})
    WINDOW timeline AS (PARTITION BY case_id ORDER BY event_time, position)
)
SELECT
    md5('transitions|' || identity) AS row_id,
    case_id,
    sequence,
    md5(identity) AS event_id,
    event_time,
    activity,
    from_state,
    activity AS to_state,
    duration_s,
    elapsed_s,
    resource AS actor,
    previous_actor,
    workflow_group,
    model_version,
    NULL::INTEGER AS task,
    NULL::INTEGER AS event,
    NULL::INTEGER AS source_task,
    sequence = 0 AS is_start,
    false AS is_end,
    'unknown' AS verdict,
    false AS gap,
    NULL::MAP(VARCHAR, VARCHAR) AS attributes
FROM moves
"""

CASES_SQL = """
WITH histories AS (
    SELECT
        case_id,
        arg_max(workflow_group, sequence) AS workflow_group,
        arg_max(model_version, sequence) AS model_version,
        min(event_time) AS first_event_time,
        max(event_time) AS last_event_time,
        count(*) AS transitions,
        list(to_state ORDER BY sequence) AS states,
        bool_or(is_end) AS is_complete,
        count(*) FILTER (gap) AS gaps
    FROM {transitions}
    GROUP BY case_id
)
SELECT
    md5('cases|' || case_id) AS row_id,
    case_id,
    workflow_group,
    model_version,
    first_event_time,
    last_event_time,
    transitions,
    states[-1] AS state,
    is_complete,
    CASE WHEN is_complete
        THEN (epoch_us(last_event_time) - epoch_us(first_event_time)) / 1e6 END AS cycle_time_s,
    len(list_distinct(list_filter(
        states, lambda state, place: list_position(states, state) < place))) AS rework,
    gaps,
    md5(array_to_string(states, '|')) AS variant_id,
    last_event_time AS updated_at
FROM histories
"""


def duckdb_transitions(log: Path, output: Path, threads: int = 2, lines: bool = False) -> None:
    """Write the tables `transitions` and `cases` with DuckDB; its memory limit is its own.

    Args:
        log: a `.parquet` or `.jsonl` file from `bench.data`.
        output: an existing folder.
        threads: worker threads.
        lines: write JSON Lines, not Parquet.
    """
    import duckdb  # noqa: PLC0415 - only for who runs it

    con = duckdb.connect()
    con.execute(f"SET threads = {threads}")
    con.execute("SET TimeZone = 'UTC'")
    if log.suffix == ".parquet":
        events = (
            "SELECT *, file_row_number AS position "
            f"FROM read_parquet('{log}', file_row_number = true)"
        )
    else:
        # row_number() over the scan itself would read the file on one thread; a table's rowid
        # is the file's order too, and loading it uses both.
        columns = {"case_id": "VARCHAR", "event_time": "TIMESTAMPTZ"} | dict.fromkeys(
            TEXTS, "VARCHAR"
        )
        con.execute(
            "CREATE TEMP TABLE log AS SELECT * "
            f"FROM read_json('{log}', format = 'newline_delimited', columns = {columns})"
        )
        events = "SELECT *, rowid AS position FROM log"
    query = TRANSITIONS_SQL.format(events=events)
    if lines:
        con.execute(f"CREATE TEMP TABLE made AS {query}")
        con.execute(f"COPY made TO '{output / 'transitions.jsonl'}' (FORMAT json)")
        query = CASES_SQL.format(transitions="made")
        con.execute(f"COPY ({query}) TO '{output / 'cases.jsonl'}' (FORMAT json)")
    else:
        written = output / "transitions.parquet"
        con.execute(f"COPY ({query}) TO '{written}' (FORMAT parquet, COMPRESSION snappy)")
        # Read back from the file: less memory than a table held in between, and no slower.
        query = CASES_SQL.format(transitions=f"read_parquet('{written}')")
        cases = output / "cases.parquet"
        con.execute(f"COPY ({query}) TO '{cases}' (FORMAT parquet, COMPRESSION snappy)")
    con.close()


def polars_transitions(log: Path, output: Path, threads: int = 2) -> None:
    """Write `transitions.parquet` and `cases.parquet` with Polars' streaming engine.

    Arguments as for `duckdb_transitions`; `threads` counts only if Polars is not loaded yet.
    """
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    import polars as pl  # noqa: PLC0415 - reads the variable above

    def identity(seed: int, *columns: str) -> pl.Expr:
        key = pl.struct(*columns)
        return pl.format("{}{}", key.hash(seed), key.hash(seed + 1))

    if log.suffix == ".parquet":
        events = pl.scan_parquet(log, row_index_name="position")
    else:
        events = pl.scan_ndjson(
            log,
            schema=dict.fromkeys(("case_id", "event_time", *TEXTS), pl.String),
            row_index_name="position",
        ).with_columns(
            pl.col("event_time")
            .str.to_datetime("%Y-%m-%dT%H:%M:%S%.3fZ", time_unit="us")
            .dt.replace_time_zone("UTC")
        )
    start = pl.col("is_start")
    time = pl.col("event_time")
    event = ("case_id", "event_time", "activity", "position")
    moves = (
        events.sort("case_id", "event_time", "position")
        # Comparing neighbours of the sorted rows is faster than `.over("case_id")`.
        .with_columns(
            is_start=pl.col("case_id").ne_missing(pl.col("case_id").shift()),
            row=pl.int_range(pl.len(), dtype=pl.Int64),
        )
        .with_columns(
            sequence=pl.col("row") - pl.when(start).then("row").forward_fill(),
            from_state=pl.when(~start).then(pl.col("activity").shift()),
            previous_actor=pl.when(~start).then(pl.col("resource").shift()),
            duration_s=pl.when(~start).then(time.diff()).dt.total_microseconds() / 1e6,
            elapsed_s=(time - pl.when(start).then(time).forward_fill()).dt.total_microseconds()
            / 1e6,
        )
    )
    transitions = moves.select(
        row_id=identity(2, *event),
        case_id="case_id",
        sequence="sequence",
        event_id=identity(0, *event),
        event_time="event_time",
        activity="activity",
        from_state="from_state",
        to_state="activity",
        duration_s="duration_s",
        elapsed_s="elapsed_s",
        actor="resource",
        previous_actor="previous_actor",
        workflow_group="workflow_group",
        model_version="model_version",
        task=pl.lit(None, pl.Int32),
        event=pl.lit(None, pl.Int32),
        source_task=pl.lit(None, pl.Int32),
        is_start="is_start",
        is_end=pl.lit(False),
        verdict=pl.lit("unknown"),
        gap=pl.lit(False),
        # Polars has no maps; a list of pairs is what a map is in Parquet.
        attributes=pl.lit(None, pl.List(pl.Struct({"key": pl.String, "value": pl.String}))),
    )
    path = output / "transitions.parquet"
    transitions.sink_parquet(path, compression="snappy", engine="streaming")

    written = pl.scan_parquet(path)
    # Polars keeps the order of rows within a group.
    histories = written.group_by("case_id").agg(
        workflow_group=pl.col("workflow_group").last(),
        model_version=pl.col("model_version").last(),
        first_event_time=pl.col("event_time").first(),
        last_event_time=pl.col("event_time").last(),
        transitions=pl.len().cast(pl.Int64),
        state=pl.col("to_state").last(),
        is_complete=pl.col("is_end").any(),
        gaps=pl.col("gap").sum().cast(pl.Int64),
        states=pl.col("to_state"),
    )
    visits = written.group_by("case_id", "to_state").agg(visits=pl.len())
    rework = visits.group_by("case_id").agg(rework=(pl.col("visits") > 1).sum().cast(pl.Int64))
    span = pl.col("last_event_time") - pl.col("first_event_time")
    cases = (
        histories.join(rework, on="case_id")
        .with_columns(variant=pl.col("states").list.join("|"))
        .select(
            row_id=identity(4, "case_id"),
            case_id="case_id",
            workflow_group="workflow_group",
            model_version="model_version",
            first_event_time="first_event_time",
            last_event_time="last_event_time",
            transitions="transitions",
            state="state",
            is_complete="is_complete",
            cycle_time_s=pl.when("is_complete").then(span).dt.total_microseconds() / 1e6,
            rework="rework",
            gaps="gaps",
            variant_id=identity(6, "variant"),
            updated_at="last_event_time",
        )
    )
    cases.sink_parquet(output / "cases.parquet", compression="snappy", engine="streaming")


def main() -> None:
    """Run one peer on one log (see the module)."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("peer", choices=("duckdb", "polars"))
    parser.add_argument("log", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lines", action="store_true", help="write JSON Lines (DuckDB only)")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    if args.peer == "polars":
        polars_transitions(args.log, args.output, args.threads)
    else:
        duckdb_transitions(args.log, args.output, args.threads, args.lines)


if __name__ == "__main__":
    main()
