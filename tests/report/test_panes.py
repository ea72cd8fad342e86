"""Early rows of windows that are over do not count."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pyarrow as pa

from pipelines.report.panes import last_panes
from schemas.tables import VARIANTS

START = datetime(2024, 3, 4, 8, tzinfo=timezone.utc)


def row(id_: str, hour: int, pane: str, group: str | None = "g") -> dict[str, Any]:
    begin = START + timedelta(hours=hour)
    return {
        **{"row_id": id_, "window_start": begin, "window_end": begin + timedelta(hours=1)},
        **{"workflow_group": group, "variant_id": id_, "states": [id_], "cases": 1, "share": 0.5},
        **{"mean_cycle_s": 1.0, "pane": pane, "pane_index": 0},
    }


def test_early_rows_of_a_window_that_is_over_are_left_out() -> None:
    rows = [
        *(row("a", 0, "final"), row("gone", 0, "early"), row("other group", 0, "early", "h")),
        *(row("open", 1, "early"), row("none", 0, "early", None)),
    ]
    table = pa.Table.from_pylist(rows, schema=VARIANTS.schema)
    found = last_panes({"variants": table}, ("variants", "flow"))["variants"]
    assert found["row_id"].to_pylist() == ["a", "other group", "open", "none"]


def test_of_global_there_is_one_window() -> None:
    rows = [{**row(n, 0, "early"), "window_start": None, "window_end": None} for n in "ab"]
    table = pa.Table.from_pylist(rows, schema=VARIANTS.schema)
    assert last_panes({"variants": table}, ("variants",))["variants"].num_rows == 2
