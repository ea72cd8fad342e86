"""Handing on: one output of a fold is not written, but is what the next fold takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from transforms.exchange import Exchange
from transforms.fold.elements import events_element, mark_element
from transforms.fold.spread import keys_of_shards

HANDED = "handed on"
"""Tag of what the next fold takes."""


@dataclass(frozen=True)
class HandOn:
    """What a fold hands on.

    Attributes:
        output: name of the output.
        key: its column that the next fold is sharded by.
        shards: of the next fold.
        exchange: how a bounded fold passes it.
    """

    output: str
    key: str
    shards: int
    exchange: Exchange = Exchange("")

    def packed(self, rows: pa.Table) -> Iterator[tuple[int, bytes]]:
        """Yield (shard, packed rows) for a bounded fold."""
        return self.exchange.split(rows, self.key, self.shards)

    def elements(
        self, rows: pa.Table | None, said: tuple[int, int, int] | tuple[()]
    ) -> Iterator[tuple[int, bytes]]:
        """Yield (key of a shard, element) for a stream's fold.

        Args:
            rows: of a firing; None for none.
            said: as `mark_element` takes it, for a fold that goes by marks: then every shard
                gets an element. Empty for one that goes by timers.
        """
        keys = keys_of_shards(self.shards)
        silent = set(range(self.shards)) if said else set()
        if rows is not None and rows.num_rows:
            for shard, packed in Exchange("").split(rows, self.key, self.shards):
                silent.discard(shard)
                yield keys[shard], events_element(packed, *said)
        for shard in sorted(silent):
            yield keys[shard], mark_element(*said)
