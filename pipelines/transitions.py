"""Archived workflow events become transitions, cases and dead letters.

python run.py transitions --input 'archive/**/*.xml' --output out
python run.py transitions --input log.xes.gz --output out --complete_log
python run.py transitions --input events.csv --columns case_id=Order --output out
"""

from __future__ import annotations

import apache_beam as beam

from pipelines import cases
from pipelines.registry import RunContext, Stream
from pipelines.settings import Settings
from transforms.decode import DEAD
from transforms.exchange import Exchange
from transforms.kernels.transitions import TransitionsKernel
from transforms.sinks.commit import Run


def build(root: beam.Pipeline, settings: Settings, run: RunContext) -> None:
    """Add the pipeline's steps to `root`."""
    kernel = TransitionsKernel(cases.rules(settings))
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
    kernel: TransitionsKernel,
) -> None:
    begins = cases.handover(settings, kernel, stream.shards)
    decoded = cases.decode_stream(root, settings, run, stream)
    # (key of a shard, element)
    fold = cases.case_stream(kernel, settings, run, stream, begins=begins)
    folded = decoded.events | "Fold" >> fold
    # (table, shard, until, packed rows)
    cases.write_stream({"": folded}, decoded[DEAD], settings, run, stream)


def _backfill(
    root: beam.Pipeline,
    settings: Settings,
    run: RunContext,
    output: Run,
    kernel: TransitionsKernel,
) -> None:
    exchange = Exchange(run.scratch)
    decoded = cases.decode_files(root, settings, run, exchange)
    # (shard, packed events)
    folded = decoded.events | "Fold" >> cases.case_files(kernel, settings, run, output, exchange)
    # (table, file name, rows)
    cases.commit({"Fold": folded}, decoded, settings, run, output, kernel)
