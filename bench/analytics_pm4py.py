"""The performance directly-follows graph of a log, by pm4py; run by the environment that has it.

    python bench/analytics_pm4py.py bench/work/log-2000000.parquet /tmp/out

It needs nothing of this project.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """Read a log, discover its graph, and write how many edges that has."""
    import pandas as pd  # noqa: PLC0415 - not in the project's environment
    import pm4py  # noqa: PLC0415

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--read_only", action="store_true", help="stop before the discovery")
    args = parser.parse_args()
    log = pm4py.format_dataframe(
        pd.read_parquet(args.log, columns=["case_id", "activity", "event_time"]),
        case_id="case_id",
        activity_key="activity",
        timestamp_key="event_time",
    )
    if not args.read_only:
        edges, _, _ = pm4py.discover_performance_dfg(log)
        (args.output / "edges.txt").write_text(str(len(edges)))


if __name__ == "__main__":
    main()
