"""The five tables of analytics in DuckDB SQL: hourly windows of a log that holds whole cases.

    python -m bench.analytics_sql bench/work/log-2000000.parquet /tmp/out

Every column is computed, with the meaning that `docs/analytics.md` gives it; of the forms tried,
the fastest is kept. Names are ENUMs, durations whole microseconds. Quantiles are exact ones: in
groups as small as an hour's they are faster than `approx_quantile`. Left out is the row `others`
of `variants`: no hour of these logs has 10,000 variants.
"""

from __future__ import annotations

import argparse
from pathlib import Path

NAMES = ("activity", "resource", "workflow_group", "model_version")

QUANTILES = "quantile_disc({0}, [0.5, 0.9, 0.99])"
"""At the nearest rank, as in our tables."""

MOVES = """
CREATE TEMP TABLE moves AS
SELECT
    case_id,
    epoch_us(event_time) // 3600000000 AS hour,
    epoch_us(event_time) AS time_us,
    activity,
    resource AS actor,
    workflow_group,
    model_version,
    row_number() OVER timeline - 1 AS sequence,
    lag(activity) OVER timeline AS from_state,
    lag(resource) OVER timeline AS previous_actor,
    epoch_us(event_time) - epoch_us(lag(event_time) OVER timeline) AS duration_us
FROM (
    SELECT
        case_id,
        event_time,
        {casts},
        file_row_number AS position
    FROM read_parquet('{log}', file_row_number = true)
)
WINDOW timeline AS (PARTITION BY case_id ORDER BY event_time, position)
"""

CASES = """
CREATE TEMP TABLE cases AS
SELECT
    max(time_us) // 3600000000 AS hour,
    arg_max(workflow_group, sequence) AS workflow_group,
    arg_max(model_version, sequence) AS model_version,
    max(time_us) - min(time_us) AS cycle_us,
    list(activity ORDER BY sequence) AS states,
    count(*) > count(DISTINCT activity) AS rework
FROM moves
GROUP BY case_id
"""

WINDOW = """
    to_timestamp(hour * 3600) AS window_start,
    to_timestamp((hour + 1) * 3600) AS window_end,
    workflow_group"""
PANE = "'final' AS pane, 0::BIGINT AS pane_index"
SECONDS = "{0}[1] / 1e6 AS {1}p50_s, {0}[2] / 1e6 AS {1}p90_s, {0}[3] / 1e6 AS {1}p99_s"

TABLES = {
    "process_map": """
SELECT
    md5(concat_ws('|', 'process_map', hour, workflow_group, model_version,
        coalesce(from_state::VARCHAR, ''), activity)) AS row_id,
    {window},
    model_version,
    from_state,
    activity AS to_state,
    times AS count,
    cases,
    mean_us / 1e6 AS mean_s,
    min_us / 1e6 AS min_s,
    {seconds},
    max_us / 1e6 AS max_s,
    {pane}
FROM (
    SELECT
        hour,
        workflow_group,
        model_version,
        from_state,
        activity,
        count(*) AS times,
        count(DISTINCT case_id) AS cases,
        avg(duration_us) AS mean_us,
        min(duration_us) AS min_us,
        max(duration_us) AS max_us,
        {quantiles} AS q
    FROM moves
    GROUP BY ALL
)
""",
    "state_times": """
SELECT
    md5(concat_ws('|', 'state_times', hour, workflow_group, from_state)) AS row_id,
    {window},
    from_state AS state,
    visits,
    mean_us / 1e6 AS mean_s,
    {seconds},
    max_us / 1e6 AS max_s,
    {pane}
FROM (
    SELECT
        hour,
        workflow_group,
        from_state,
        count(*) AS visits,
        avg(duration_us) AS mean_us,
        max(duration_us) AS max_us,
        {quantiles} AS q
    FROM moves
    WHERE from_state IS NOT NULL
    GROUP BY ALL
)
""",
    "flow": """
WITH came AS (
    SELECT
        hour,
        workflow_group,
        model_version,
        count(*) FILTER (sequence = 0) AS started,
        count(*) AS transitions
    FROM moves
    GROUP BY ALL
),
went AS (
    SELECT
        hour,
        workflow_group,
        model_version,
        count(*) AS completed,
        count(*) FILTER (rework) AS rework,
        {cycles} AS q
    FROM cases
    GROUP BY ALL
),
calendar AS (
    SELECT workflow_group, model_version, unnest(range(min(hour), max(hour) + 1)) AS hour
    FROM came
    GROUP BY workflow_group, model_version
),
levels AS (
    SELECT
        *,
        sum(coalesce(started, 0) - coalesce(completed, 0)) OVER (
            PARTITION BY workflow_group, model_version ORDER BY hour
        )::BIGINT AS active_cases
    FROM calendar
    LEFT JOIN came USING (hour, workflow_group, model_version)
    LEFT JOIN went USING (hour, workflow_group, model_version)
)
SELECT
    md5(concat_ws('|', 'flow', hour, workflow_group, model_version)) AS row_id,
    {window},
    model_version,
    coalesce(started, 0) AS started,
    coalesce(completed, 0) AS completed,
    coalesce(transitions, 0) AS transitions,
    active_cases,
    0::BIGINT AS late,
    coalesce(completed, 0)::DOUBLE AS throughput_per_h,
    {cycle_seconds},
    rework / completed AS rework_rate,
    0::BIGINT AS illegal,
    {pane}
FROM levels
WHERE transitions IS NOT NULL OR active_cases > 0
""",
    "workload": """
SELECT
    md5(concat_ws('|', 'workload', hour, workflow_group, actor)) AS row_id,
    {window},
    actor,
    count(*) AS transitions,
    count(DISTINCT case_id) AS cases,
    count(*) FILTER (previous_actor <> actor) AS handovers,
    avg(duration_us) / 1e6 AS mean_s,
    {pane}
FROM moves
GROUP BY hour, workflow_group, actor
""",
    "variants": """
SELECT
    md5(concat_ws('|', 'variants', hour, workflow_group, variant_id)) AS row_id,
    {window},
    variant_id,
    states::VARCHAR[] AS states,
    cases,
    cases / sum(cases) OVER (PARTITION BY hour, workflow_group) AS share,
    mean_us / 1e6 AS mean_cycle_s,
    {pane}
FROM (
    SELECT
        hour,
        workflow_group,
        md5(array_to_string(states, '|')) AS variant_id,
        any_value(states) AS states,
        count(*) AS cases,
        avg(cycle_us) AS mean_us
    FROM cases
    GROUP BY hour, workflow_group, variant_id
)
QUALIFY row_number() OVER (
    PARTITION BY hour, workflow_group ORDER BY cases DESC, variant_id
) <= 10000
""",
}


def write_tables(log: Path, output: Path, threads: int = 2) -> None:
    """Write the five tables, a Parquet file each.

    Args:
        log: a `.parquet` file from `bench.data`.
        output: an existing folder.
        threads: worker threads.
    """
    import duckdb  # noqa: PLC0415 - only for who runs it

    con = duckdb.connect()
    con.execute(f"SET threads = {threads}")
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET preserve_insertion_order = false")
    for name in NAMES:
        distinct = f"SELECT DISTINCT {name} FROM read_parquet('{log}')"
        con.execute(f"CREATE TYPE {name}_name AS ENUM ({distinct})")
    casts = ", ".join(f"{name}::{name}_name AS {name}" for name in NAMES)
    con.execute(MOVES.format(log=log, casts=casts))
    con.execute(CASES)
    for table, query in TABLES.items():
        made = query.format(
            window=WINDOW,
            pane=PANE,
            quantiles=QUANTILES.format("duration_us"),
            cycles=QUANTILES.format("cycle_us"),
            seconds=SECONDS.format("q", ""),
            cycle_seconds=SECONDS.format("q", "cycle_"),
        )
        path = output / f"{table}.parquet"
        con.execute(f"COPY ({made}) TO '{path}' (FORMAT parquet, COMPRESSION snappy)")
    con.close()


def main() -> None:
    """Run it on one log (see the module)."""
    parser = argparse.ArgumentParser(prog="python -m bench.analytics_sql", description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    write_tables(args.log, args.output, args.threads)


if __name__ == "__main__":
    main()
