r"""Workflow events become the numbers of windows: process map, times, flow, workload, variants.

python run.py analytics --input 'archive/**/*.xml' --output out --end_states Done
python run.py analytics --input log.xes.gz --output out --complete_log --window global
python run.py analytics --input kafka://localhost:9092/orders --output kafka://localhost:9092/m- \\
    --window fixed:1h --early_firing 10s
"""

from __future__ import annotations

import math

import apache_beam as beam

from pipelines import cases
from pipelines.registry import RunContext, Stream
from pipelines.settings import Settings
from pipelines.stream_io import beam_time
from transforms.decode import DEAD
from transforms.exchange import Exchange
from transforms.fold.bounded import CHUNK_BYTES, BoundedFold
from transforms.fold.granules import GranuleFold
from transforms.fold.made import Setting
from transforms.fold.passing import HANDED, ByColumn, ByFamily, Family, HandOn
from transforms.fold.steps import FoldShards
from transforms.fold.streaming import ROWS, FoldStream
from transforms.kernels.analytics import AnalyticsKernel
from transforms.kernels.base import END
from transforms.kernels.partial_rows import (
    ACTOR,
    EDGE,
    FAMILIES,
    FAMILY_OF_TABLES,
    KINDS,
    PARTIALS_OUTPUT,
)
from transforms.kernels.transitions import TransitionsKernel
from transforms.kernels.window_tables import WindowKernel
from transforms.sinks.commit import Run
from transforms.windows import Windowing

GROUP_SHARDS = 8
"""Parts of a stream's fold of windows: a process is a group, and there are few of them."""

LOCAL_GROUP_SHARDS = 1

WINDOW_SHARDS = 64
"""Parts of a bounded fold of windows at most, of each family of partial rows."""

BUCKETS_AT_ONCE = 16
"""Windows of more buckets are folded in smaller steps: their partial rows are larger."""

OFTEN_MS = 60_000
"""Partial rows are put together at least so often, however long a window is."""

GLOBAL_EARLY_MS = 10_000
"""The one window of `global` never ends in a stream: its numbers come so often."""


def build(root: beam.Pipeline, settings: Settings, run: RunContext) -> None:
    """Add the pipeline's steps to `root`."""
    transitions = TransitionsKernel(cases.rules(settings))
    tables = frozenset(run.tables) & set(transitions.outputs)
    kinds = KINDS
    if run.stream is None:
        kinds = frozenset().union(*(FAMILY_OF_TABLES.get(name, ()) for name in run.tables))
    kernel = AnalyticsKernel(transitions, settings.windowing, tables, kinds)
    if run.stream is not None:
        _stream(root, settings, run, run.stream, kernel)
    else:
        assert run.output is not None
        _backfill(root, settings, run, run.output, kernel)


def _stream(
    root: beam.Pipeline,
    settings: Settings,
    run: RunContext,
    stream: Stream,
    kernel: AnalyticsKernel,
) -> None:
    shards = LOCAL_GROUP_SHARDS if run.local else GROUP_SHARDS
    hands_on = HandOn(PARTIALS_OUTPUT.name, ByColumn("workflow_group", shards))
    window = Setting("window", "--window", str(settings.windowing))
    decoded = cases.decode_stream(root, settings, run, stream)
    fold = cases.case_stream(
        kernel,
        settings,
        run,
        stream,
        made=(window,),
        hands_on=hands_on,
        unit_ms=settings.windowing.unit_ms,
    )
    folded = decoded.events | "Fold" >> fold
    early_ms = early_of(settings)
    since_ms = _since_ms(settings)
    windows = GranuleFold(
        WindowKernel(settings.windowing, early_ms, since_ms=since_ms, tables=run.tables),
        disorder_us=0,
        granule_ms=_granule_ms(settings, early_ms),
        by_marks=stream.by_marks,
        follows=True,
        deadlines_until_now=True,
        beam_time=beam_time(settings, stream),
        made=(window, Setting("early_ms", "--early_firing", early_ms)),
    )
    # (key of a shard of groups, element)
    measured = folded[HANDED] | "Measure" >> FoldStream(
        windows, run.run_id, run.scratch, shards, counts_events=False
    )
    # (table, shard, until, packed rows)
    rows = {"": folded[ROWS], "window ": measured}
    cases.write_stream(rows, decoded[DEAD], settings, run, stream)


def _backfill(
    root: beam.Pipeline,
    settings: Settings,
    run: RunContext,
    output: Run,
    kernel: AnalyticsKernel,
) -> None:
    exchange = Exchange(run.scratch)
    route = route_of(settings.windowing, min(run.plan.shards, WINDOW_SHARDS))
    hands_on = HandOn(PARTIALS_OUTPUT.name, route, exchange)
    decoded = cases.decode_files(root, settings, run, exchange)
    # (shard, packed events)
    # A partial row has a number for each bucket of its window.
    chunk_bytes = CHUNK_BYTES // max(1, settings.windowing.buckets // BUCKETS_AT_ONCE)
    fold = cases.case_files(kernel, settings, run, output, exchange, hands_on, chunk_bytes)
    folded = decoded.events | "Fold" >> fold
    closes = cases.closes(settings)
    last_ms = END if closes else settings.until_ms
    windows = BoundedFold(
        WindowKernel(
            settings.windowing,
            closes=True,
            last_ms=last_ms,
            since_ms=_since_ms(settings),
            tables=run.tables,
        ),
        disorder_us=0,
        until_ms=settings.until_ms,
        closes=closes,
        exchange=exchange,
    )
    # (shard of groups, packed partial rows)
    measured = folded[HANDED] | "Measure" >> FoldShards(windows, output, route.shards)
    # (table, file name, rows)
    cases.commit({"Fold": folded, "Measure": measured}, decoded, settings, run, output, kernel)


def _since_ms(settings: Settings) -> int | None:
    return None if settings.since_us is None else settings.since_us // 1000


def route_of(windowing: Windowing, shards: int) -> ByFamily:
    """Return how partial rows get to a bounded fold of windows.

    No early pane asks there what has come, so that families never meet; and in windows of one
    bucket edges and actors of different buckets neither.

    Args:
        windowing: how time is cut.
        shards: of each family.
    """
    slots = {EDGE, ACTOR} if windowing.buckets == 1 else set()
    columns = ["slot" if slots & set(kinds) else "workflow_group" for kinds in FAMILIES]
    return ByFamily(tuple(map(Family, FAMILIES, columns)), shards)


def early_of(settings: Settings) -> int:
    """Return how often an open window of a stream gives its numbers, in ms; 0 for never."""
    if settings.early_ms or settings.windowing.kind != "global":
        return settings.early_ms
    granule = settings.granule_ms
    return -(-GLOBAL_EARLY_MS // granule) * granule


def _granule_ms(settings: Settings, early_ms: int) -> int:
    """Return how often partial rows are put together: no later than anything is due."""
    unit = math.gcd(settings.windowing.unit_ms, early_ms) or OFTEN_MS
    granule = settings.granule_ms
    fits = [m for m in range(1, max(OFTEN_MS // granule, 1) + 1) if unit % (granule * m) == 0]
    return granule * (fits[-1] if fits else 1)
