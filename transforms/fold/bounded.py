"""The bounded host of a kernel: one shard's events, all of them there, folded in chunks.

A shard is read, sorted once by integer codes and stepped. If it holds more than
`CHUNK_BYTES` (a hot key, few shards), it is first cut into ranges of order time on disk, and
stepped range by range with the kernel's state carried on: no case needs to fit in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import TIME
from transforms.arrays import conform
from transforms.exchange import Exchange, fetch, size_of, with_schema
from transforms.kernels.base import END, Kernel
from transforms.timeline import arrange, order_times

CHUNK_BYTES = 192 * 1024 * 1024
"""Above this a shard is folded in ranges of time of some `CHUNK_BYTES / 2` each."""


@dataclass(frozen=True)
class BoundedFold:
    """Folds shards with a kernel.

    Attributes:
        kernel: the logic.
        disorder_us: D in µs (see `transforms.timeline`).
        until_ms: events from this order time on are outside; deadlines before it fire. `END`
            takes everything and fires all.
        closes: the input ends for good, so that the last step fires every deadline.
        exchange: where ranges of a large shard may wait.
        chunk_bytes: see `CHUNK_BYTES`.
        keep_state: the last step gives the state, too: it costs what the rows of all keys cost.
    """

    kernel: Kernel
    disorder_us: int
    until_ms: int
    closes: bool
    exchange: Exchange
    chunk_bytes: int = CHUNK_BYTES
    keep_state: bool = False

    def fold(self, packed: Sequence[bytes]) -> Iterator[Folded]:
        """Fold one shard.

        Args:
            packed: its batches, in any order.

        Yields:
            What each step gave, some steps in several parts. Upsert tables come with the last
            step only, one row a key, and so does the state.
        """
        sizes = [size_of(each) for each in packed]
        total = sum(size for _, size in sizes)
        if total <= self.chunk_bytes:
            ranges = iter([(self.until_ms, [fetch(each) for each in packed])])
        else:
            ranges = self._ranges(packed, sizes)
        state = self.kernel.state_schema.empty_table()
        newest: dict[str, list[pa.Table]] = {}
        outside = 0
        for until, tables in ranges:
            events = with_schema(tables, _columns(self.kernel, tables))
            del tables
            last = until >= self.until_ms
            events, left = self._inside(events)
            outside += left
            arranged = arrange(events, self.kernel.key, self.disorder_us, self.kernel.order)
            del events
            kept: pa.Table | None = None
            step = self.kernel.step(state, arranged, (), END if last and self.closes else until)
            del arranged
            outputs = dict(step.outputs)
            for name in step.outputs:
                if self.kernel.outputs[name].mode == "upsert":
                    newest.setdefault(name, []).append(outputs.pop(name))
            counts = Counter(step.counts)
            # Events are counted where they come in, so that the law compares two counts.
            del counts["events"]
            if last:
                outputs |= {
                    name: newest_rows(rows, self.kernel.outputs[name].key)
                    for name, rows in newest.items()
                }
                counts["outside"] += outside
            if self.keep_state or not last:
                state = _next_state(state, step.changed(), step.removed, self.kernel.key)
                kept = state if last else None
            yield Folded(outputs, counts, kept, step.seen)
            for part in step.more:
                yield Folded(part)

    def _inside(self, events: pa.Table) -> tuple[pa.Table, int]:
        if self.until_ms >= END:
            return events, 0
        inside = order_times(events, self.disorder_us) < self.until_ms * 1000
        left = int(len(inside) - inside.sum())
        return (events.filter(pa.array(inside)) if left else events), left

    def _ranges(
        self, packed: Sequence[bytes], sizes: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[int, list[pa.Table]]]:
        """Cut a large shard into ranges of order time, through files, and yield them in order."""
        rows = sum(count for count, _ in sizes)
        parts = 1 + 2 * sum(size for _, size in sizes) // self.chunk_bytes
        # Enough times to place the cuts; which rows these are does not matter to the results.
        stride = max(1, rows // 4_000_000)
        sample = np.concatenate(
            [
                order_times(_times(fetch(each, list(_TIMES))), self.disorder_us)[::stride]
                for each in packed
            ]
        )
        # Whole milliseconds, and never within one: a step's end is one.
        cuts = np.unique(np.quantile(sample, np.arange(1, parts) / parts).astype(np.int64) // 1000)
        cuts = cuts[cuts < self.until_ms]
        waiting: list[list[bytes]] = [[] for _ in range(len(cuts) + 1)]
        for each in packed:
            table = fetch(each)
            times = order_times(_times(table), self.disorder_us)
            place = np.searchsorted(cuts, times // 1000, side="right")
            for part in np.unique(place):
                chosen = table.filter(pa.array(place == part))
                waiting[part] += self.exchange.write([chosen])
        for until, batches in zip([*cuts.tolist(), self.until_ms], waiting, strict=True):
            yield until, [fetch(batch) for batch in batches]


@dataclass(frozen=True)
class Folded:
    """Rows and counts of one step.

    Attributes:
        outputs: table name -> rows.
        counts: as the kernel's, plus `outside` (events at or after `until`).
        state: what the kernel remembers at `until`, of the keys of this shard; None where it
            is not kept, and before the last step.
        seen: as the kernel's.
    """

    outputs: Mapping[str, pa.Table]
    counts: Mapping[str, int] = field(default_factory=dict)
    state: pa.Table | None = None
    seen: Mapping[str, int] = field(default_factory=dict)


_TIMES = ("event_time", "record_time", "order_time")


def _columns(kernel: Kernel, tables: Sequence[pa.Table]) -> pa.Schema:
    """Return the schema of a kernel's events; without order time if none has been stamped."""
    stamped = any("order_time" in table.column_names for table in tables)
    takes = kernel.takes
    return takes if stamped else takes.remove(takes.get_field_index("order_time"))


def _times(table: pa.Table) -> pa.Table:
    """Add what times are made of, where it is missing because it is null."""
    if "order_time" not in table.column_names and "record_time" not in table.column_names:
        return table.append_column("record_time", pa.nulls(table.num_rows, TIME))
    return table


def newest_rows(tables: list[pa.Table], key: tuple[str, ...]) -> pa.Table:
    """Keep, of the rows of one key, the one that was written last."""
    if len(tables) == 1:
        return tables[0]
    rows = pa.concat_tables([t for t in tables if t.num_rows] or tables[:1])
    numbered = rows.select(list(key)).append_column("row", pa.array(np.arange(rows.num_rows)))
    last = numbered.group_by(list(key)).aggregate([("row", "max")])["row_max"]
    return rows.take(last.combine_chunks().sort())


def _next_state(state: pa.Table, changed: pa.Table, removed: pa.Array, key: str) -> pa.Table:
    """Put changed rows in the place of the old ones of their keys, and drop removed keys."""
    keys = pa.concat_arrays([conform(changed[key], pa.string()), removed])
    kept = state.filter(pc.invert(pc.is_in(state[key], value_set=keys)))
    return pa.concat_tables([kept, changed])
