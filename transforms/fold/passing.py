"""Handing on: one output of a fold is not written, but is what the next fold takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.exchange import Exchange, shards_of
from transforms.fold.elements import events_element, mark_element
from transforms.spread import keys_of_shards

HANDED = "handed on"
"""Tag of what the next fold takes."""


class Route(Protocol):
    """Which shard of the next fold takes a row.

    Attributes:
        shards: of the next fold; at most 65,536.
    """

    @property
    def shards(self) -> int: ...  # noqa: D102

    def parts(self, rows: pa.Table) -> Iterator[tuple[pa.Table, npt.NDArray[np.uint16]]]:
        """Yield the rows in parts, and the shard of each row."""
        ...


@dataclass(frozen=True)
class ByColumn:
    """Rows that share a value go to one shard.

    Attributes:
        column: of strings.
        shards: see `Route`.
    """

    column: str
    shards: int

    def parts(self, rows: pa.Table) -> Iterator[tuple[pa.Table, npt.NDArray[np.uint16]]]:
        """Yield the rows, and the shard of each (see `Route`)."""
        yield rows, shards_of(rows[self.column], self.shards)


@dataclass(frozen=True)
class Family:
    """Kinds of rows that the next fold needs to see together.

    Attributes:
        kinds: values of the column `kind`.
        column: rows of the family that share its value go to one shard.
    """

    kinds: tuple[int, ...]
    column: str


@dataclass(frozen=True)
class ByFamily:
    """Each family of kinds has shards of its own: its rows carry no columns of the others.

    Attributes:
        families: every kind is in one of them.
        each: shards of a family.
    """

    families: tuple[Family, ...]
    each: int

    @property
    def shards(self) -> int:
        """How many shards there are (see `Route`)."""
        return self.each * len(self.families)

    def parts(self, rows: pa.Table) -> Iterator[tuple[pa.Table, npt.NDArray[np.uint16]]]:
        """Yield the rows family by family, and the shard of each (see `Route`)."""
        kind = rows.schema.get_field_index("kind")
        parts: list[list[pa.Table]] = [[] for _ in self.families]
        # A chunk is mostly of one kind.
        for batch in rows.to_batches():
            kinds = batch.column(kind).to_numpy()
            chunk = pa.Table.from_batches([batch])
            for part, family in zip(parts, self.families, strict=True):
                flags = np.isin(kinds, family.kinds)
                if flags.all():
                    part.append(chunk)
                elif flags.any():
                    part.append(chunk.filter(pa.array(flags)))
        for number, (chunks, family) in enumerate(zip(parts, self.families, strict=True)):
            if chunks:
                part = pa.concat_tables(chunks)
                shards = shards_of(part[family.column], self.each)
                yield part, shards + np.uint16(number * self.each)


@dataclass(frozen=True)
class HandOn:
    """What a fold hands on.

    Attributes:
        output: name of the output.
        route: which shard of the next fold takes it.
        exchange: how a bounded fold passes it.
    """

    output: str
    route: Route
    exchange: Exchange = Exchange("")

    def packed(self, rows: pa.Table) -> Iterator[tuple[int, bytes]]:
        """Yield (shard, packed rows) for a bounded fold."""
        for part, shards in self.route.parts(rows):
            yield from self.exchange.scatter(part, shards)

    def elements(
        self, rows: pa.Table | None, said: tuple[int, int, int] | tuple[()]
    ) -> Iterator[tuple[int, bytes]]:
        """Yield (key of a shard, element) for a stream's fold, whose route makes no parts.

        Args:
            rows: of a firing; None for none.
            said: as `mark_element` takes it, for a fold that goes by marks: then every shard
                gets an element. Empty for one that goes by timers.
        """
        keys = keys_of_shards(self.route.shards)
        silent = set(range(self.route.shards)) if said else set()
        if rows is not None and rows.num_rows:
            for shard, packed in self.packed(rows):
                silent.discard(shard)
                yield keys[shard], events_element(packed, *said)
        for shard in sorted(silent):
            yield keys[shard], mark_element(*said)
