"""The kernel protocol: what the fold, bounded or streaming, asks of the logic that it hosts.

**The fold law.** Folding an ordered stream in any number of steps gives the same append
outputs (as a multiset), the same newest row per key of upsert outputs and the same final
state as one step over the whole. A kernel that keeps it gives equal results in batch and
stream, with any shard count, granule or restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import pyarrow as pa

from schemas.tables import Output

Order = Literal["key", "time", "any"]

END = 9 * 10**15
"""`until` in ms that lies behind every time: the input is over and every deadline fires."""


@dataclass(frozen=True)
class Control:
    """A change of rules, models or an erasure that takes effect at a time.

    Attributes:
        effective: order time in ms from which it holds.
        kind: what changes, such as `model` or `erase`.
        payload: its content, as the kernel of that kind reads it.
    """

    effective: int
    kind: str
    payload: bytes


@dataclass
class Step:
    """What one step of a kernel gives back.

    Attributes:
        outputs: table name -> rows in that table's schema.
        changed: makes the new state rows of the keys touched; called only if a state follows.
        removed: keys that have no state any more.
        wake_at: the earliest open deadline of the keys touched, in ms of order time.
        counts: what happened, by name (`events`, `transitions`, `duplicates`, `late` ...).
        seen: what a step happened to see, by name: numbers that depend on how steps are cut.
        more: further rows of `outputs`, made one after another, where all of them together may
            not fit into memory. To be taken once. In a bounded fold no later row replaces them.
    """

    outputs: Mapping[str, pa.Table]
    changed: Callable[[], pa.Table]
    removed: pa.Array
    wake_at: int | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    seen: Mapping[str, int] = field(default_factory=dict)
    more: Iterator[Mapping[str, pa.Table]] = field(default_factory=lambda: iter(()))

    def whole(self) -> Mapping[str, pa.Table]:
        """Return `outputs` with all rows of `more`."""
        parts = [self.outputs, *self.more]
        if len(parts) == 1:
            return self.outputs
        return {
            name: pa.concat_tables([part[name] for part in parts if name in part])
            for name in self.outputs
        }


class Kernel(Protocol):
    """Stateful logic over the ordered events of some keys.

    Attributes:
        name: stable name, part of the state's identity.
        key: the event column that the fold is sharded by.
        order: `key` if a step wants its events grouped by key (and ordered within a key by
            order_time, event_time, position, event_id), `time` if in that order throughout, `any`
            if it takes them as they come.
        takes: what events are, `order_time` included; `schemas.events.ORDERED_SCHEMA` for
            those of workflows.
        state_schema: first column is the key; one or more rows a key.
        outputs: the tables it writes.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def key(self) -> str: ...  # noqa: D102

    @property
    def order(self) -> Order: ...  # noqa: D102

    @property
    def takes(self) -> pa.Schema: ...  # noqa: D102

    @property
    def state_schema(self) -> pa.Schema: ...  # noqa: D102

    @property
    def outputs(self) -> Mapping[str, Output]: ...  # noqa: D102

    def step(
        self, state: pa.Table, events: pa.Table, control: Sequence[Control], until: int
    ) -> Step:
        """Fold the next events.

        Args:
            state: rows of the keys that this step may touch (`state_schema`).
            events: the next events (`takes`), all of an `order_time` before `until`; the key
                column may be a dictionary.
            control: changes that take effect before `until`, by time.
            until: order time in ms up to which the input is complete (exclusive), or `END`.

        Within a step deadlines and events interleave by time: at time t first the deadlines
        of t, then the events of t.
        """
        ...
