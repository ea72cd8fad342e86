"""The bounded fold as a Beam step: a shard's batches go in, the parts of its tables are written.

A shard is folded and written in one go, so that its rows never wait in memory; parts are
named by table and shard, so that a repeated bundle overwrites its own. The state, where it is
kept, is one more part of each shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa

from transforms.counts import COUNTS, counted
from transforms.fold.bounded import BoundedFold
from transforms.fold.handover import STATE, state_output
from transforms.fold.passing import HANDED, HandOn
from transforms.progress import report
from transforms.sinks.commit import Run, part_name
from transforms.sinks.steps import Part
from transforms.sinks.tables import TableWriter


@dataclass(eq=False)
class FoldShards(beam.PTransform):
    """Folds: (shard, packed events) -> parts (table, file name, rows); `COUNTS` of (name, number).

    Attributes:
        fold: the host with its kernel.
        run: where parts are written.
        shards: number of shards.
        scratch: where progress is reported; empty for nowhere.
        hands_on: an output that the next fold takes: the tag `passing.HANDED` of (shard, packed
            rows); None for none.
    """

    fold: BoundedFold
    run: Run
    shards: int
    scratch: str = ""
    hands_on: HandOn | None = None

    def expand(self, events: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """Wire the step."""
        return (
            events
            # (shard, packed events)
            | "Group by shard" >> beam.GroupByKey()
            # (shard, [packed events])
            | "Fold and write shards"
            >> beam.ParDo(_FoldShard(self)).with_outputs(COUNTS, HANDED, main="parts")
        )


class _FoldShard(beam.DoFn):
    def __init__(self, step: FoldShards) -> None:
        self._step = step

    def process(
        self, element: tuple[int, Iterable[bytes]]
    ) -> Iterator[Part | beam.pvalue.TaggedOutput]:
        step = self._step
        shard, packed = element
        outputs = step.fold.kernel.outputs
        counts: Counter[str] = Counter()
        writers: dict[str, TableWriter] = {}
        remembered: pa.Table | None = None
        with ExitStack() as files:
            for folded in step.fold.fold(list(packed)):
                counts.update(folded.counts)
                counts.update(folded.seen)
                if folded.state is not None:
                    remembered = folded.state
                for name, rows in folded.outputs.items():
                    if not rows.num_rows:
                        continue
                    if step.hands_on is not None and name == step.hands_on.output:
                        for handed in step.hands_on.packed(rows):
                            yield beam.pvalue.TaggedOutput(HANDED, handed)
                        continue
                    if name not in writers:
                        opened = step.run.open_part(outputs[name], shard, step.shards)
                        writers[name] = files.enter_context(opened)
                    writers[name].write(rows)
                    report(step.scratch, rows=rows.num_rows)
        if remembered is not None and remembered.num_rows:
            output = state_output(step.fold.kernel, remembered)
            with step.run.open_part(output, shard, step.shards) as writer:
                writer.write(remembered.select(output.schema.names))
            writers[STATE] = writer
        report(step.scratch, shards=1, flush=True)
        for name, writer in writers.items():
            file_name = part_name(name, shard, step.shards, step.run.file_format)
            yield name, file_name, writer.rows
        for count in counted(FoldShards, counts):
            yield beam.pvalue.TaggedOutput(COUNTS, count)
