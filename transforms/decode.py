"""Decoding as a Beam step: units of files become batches of events, split by shard.

What cannot be decoded leaves as a dead letter with its original bytes; nothing is dropped
in silence: `messages in = decoded + skipped + dead`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa

from schemas.dead_letters import DeadLetter, to_rows
from schemas.events import ATTRIBUTES
from transforms.arrays import conform
from transforms.counts import COUNTS, ITEM, UNFIT, WARNING, counted
from transforms.exchange import Exchange, take
from transforms.formats.base import Context, Decoded, Failure
from transforms.hashing import identify
from transforms.mask import Masking, mask_events, mask_failure
from transforms.progress import report
from transforms.sources.files import Unit, read_unit

BATCH_BYTES = 48 * 1024 * 1024
"""Events wait for each other until they take this much memory, so that shards get large pieces."""

WITHHELD = "warnings are withheld because of --mask; run without it to see them"

DEAD = "dead_letters"


@dataclass(eq=False)
class DecodeFiles(beam.PTransform):
    """Reads units of files: (shard, packed events), dead letters and counts.

    Input: bytes of a `Unit`, left in the exchange.
    Outputs: the main one of (shard, packed batch of `EVENT_SCHEMA`); `DEAD` of (unit number,
    packed batch of `DEAD_LETTERS`); `COUNTS` of (name, number).

    Attributes:
        context: settings for decoding.
        key: event column that the fold is sharded by.
        shards: number of shards.
        exchange: by value or by reference.
        masking: what is hidden before anything is written; None for nothing.
        scratch: where progress is reported; empty for nowhere.
    """

    context: Context
    key: str
    shards: int
    exchange: Exchange
    masking: Masking | None = None
    scratch: str = ""

    def expand(self, units: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """Wire the step."""
        return units | "Read and decode units" >> beam.ParDo(_DecodeUnit(self)).with_outputs(
            DEAD, COUNTS, main="events"
        )


class _DecodeUnit(beam.DoFn):
    def __init__(self, step: DecodeFiles) -> None:
        self._step = step

    def process(self, element: bytes) -> Iterator[tuple[int, bytes] | beam.pvalue.TaggedOutput]:
        step = self._step
        unit = Unit.from_bytes(take(element))
        share = sum(part[1] for part in unit.parts)
        counts: Counter[str] = Counter()
        seen: set[str] = set()
        waiting: list[pa.Table] = []
        size = reported = 0
        for decoded in read_unit(unit, step.context):
            counts.update(counts_of(decoded, step.masking is not None))
            if decoded.failures:
                yield beam.pvalue.TaggedOutput(DEAD, self._dead(unit.number, decoded.failures))
            if decoded.events.num_rows:
                seen.update(items_in(decoded.events) if step.context.items else ())
                waiting.append(decoded.events)
                size += decoded.events.nbytes
            # Bytes are reported as a share of the unit: where a reader stands, only it knows.
            step_bytes = min(share - reported, decoded.events.nbytes // 2)
            reported += step_bytes
            report(
                step.scratch,
                bytes=step_bytes,
                messages=decoded.received,
                events=decoded.events.num_rows,
            )
            if size > BATCH_BYTES:
                yield from self._split(waiting)
                waiting, size = [], 0
        if waiting:
            yield from self._split(waiting)
        report(step.scratch, bytes=share - reported, flush=True)
        counts.update({ITEM + name: 1 for name in seen})
        for count in counted(DecodeFiles, counts):
            yield beam.pvalue.TaggedOutput(COUNTS, count)

    def _split(self, tables: list[pa.Table]) -> Iterator[tuple[int, bytes]]:
        step = self._step
        events = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
        if step.masking is not None:
            events = mask_events(events, step.masking)
        yield from step.exchange.split(events, step.key, step.shards)

    def _dead(self, unit: int, failures: Iterable[Failure]) -> tuple[int, bytes]:
        step = self._step
        if step.masking is not None:
            failures = [mask_failure(each, step.masking) for each in failures]
        return unit, step.exchange.write([dead_letters(failures, "decode")])[0]


def items_in(events: pa.Table) -> list[str]:
    """Return the names of the business items that some event has."""
    maps = conform(events["attributes"], ATTRIBUTES)
    names: list[str] = maps.keys.unique().to_pylist() if len(maps) > maps.null_count else []
    return names


def dead_letters(
    failures: Iterable[Failure], step: str, times: Mapping[str, int] | None = None
) -> pa.Table:
    """Make rows of `dead_letters` of failures.

    Args:
        failures: what could not be used.
        step: the step that refused it.
        times: source -> the broker's time in µs, of those that have one.
    """
    times = times or {}
    letters = [
        DeadLetter(
            f.payload,
            f.source,
            step,
            f.error,
            f.message,
            f.attributes,
            f.size,
            times.get(f.source) if f.time is None else f.time,
        )
        for f in failures
    ]
    texts = [
        pa.array([each.payload for each in letters], pa.binary()),
        pa.array([each.source for each in letters], pa.string()),
        pa.array([each.error for each in letters], pa.string()),
        pa.array([each.message for each in letters], pa.string()),
    ]
    return to_rows(letters, identify(texts, []))


def counts_of(decoded: Decoded, masked: bool) -> dict[str, int]:
    """Return what a batch of decoded messages adds to a run's counts."""
    # A warning may hold what is to be hidden: a case in a file's name, a row taken for a header.
    warnings = {WITHHELD} if masked and decoded.warnings else set(decoded.warnings)
    return {
        "messages": decoded.received,
        "decoded": decoded.decoded,
        "skipped": decoded.skipped,
        "dead": decoded.dead,
        "rejected": decoded.rejected,
        "events": decoded.events.num_rows + decoded.rejected,
        **{WARNING + sentence: 1 for sentence in warnings},
        **{UNFIT + item: count for item, count in decoded.unfit.items()},
    }
