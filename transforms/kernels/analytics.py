"""The analytics kernel: transitions, and the sums that tables of windows are made of.

It folds cases with the transitions kernel, and gives beside the tables wanted partial rows
(`partial_rows.PARTIALS`), which another fold puts together by bucket and group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import ORDERED_SCHEMA
from schemas.tables import Output
from transforms.arrays import conform, integers
from transforms.kernels.base import Control, Order, Step
from transforms.kernels.case_state import STATE_SCHEMA
from transforms.kernels.partial_rows import KINDS, PARTIALS_OUTPUT
from transforms.kernels.partials import partials_of
from transforms.kernels.segments import list_lengths
from transforms.kernels.takes import Seen
from transforms.kernels.transitions import Folded, TransitionsKernel
from transforms.windows import Windowing

ANALYTICS_STATE_SCHEMA = (
    STATE_SCHEMA
    # What the case had, in the buckets of a window up to its newest: hashes of (group, version,
    # from, to) and of (group, actor); and the bucket in which it last had each.
    .append(pa.field("seen", pa.list_(pa.uint64()))).append(
        pa.field("seen_at", pa.list_(pa.int64()))
    )
)


@dataclass(frozen=True)
class AnalyticsKernel:
    """Kernel that writes `partials`, and tables of the transitions kernel.

    Counts of a step are those of the transitions kernel, and `partials`.

    Attributes:
        transitions: the fold of cases, with its rules.
        windowing: how order time is cut; the sums are by its buckets.
        tables: which tables of `transitions` are written; making the others costs nothing.
        kinds: of the partial rows wanted. A stream that may go on with others makes all.
    """

    transitions: TransitionsKernel = field(default_factory=TransitionsKernel)
    windowing: Windowing = field(default_factory=Windowing)
    tables: frozenset[str] = frozenset({"late", "retracted"})
    kinds: frozenset[int] = KINDS
    name: str = "analytics"
    key: str = "case_id"
    order: Order = "key"
    takes: pa.Schema = ORDERED_SCHEMA

    def __post_init__(self) -> None:
        """Check the tables.

        Raises:
            ValueError: the transitions kernel has no such table.
        """
        unknown = sorted(self.tables - set(self.transitions.outputs))
        if unknown:
            msg = f"no table '{unknown[0]}'; there are {', '.join(self.transitions.outputs)}"
            raise ValueError(msg)

    @property
    def state_schema(self) -> pa.Schema:
        """One row a case: `ANALYTICS_STATE_SCHEMA`."""
        return ANALYTICS_STATE_SCHEMA

    @property
    def outputs(self) -> Mapping[str, Output]:
        """Tables written, by name."""
        kept = {k: table for k, table in self.transitions.outputs.items() if k in self.tables}
        return {**kept, PARTIALS_OUTPUT.name: PARTIALS_OUTPUT}

    def step(
        self, state: pa.Table, events: pa.Table, control: Sequence[Control], until: int
    ) -> Step:
        """Fold the next events (see `Kernel.step`); `control` means nothing to analytics."""
        del control
        folded = self.transitions.fold(state, events, until)
        step = folded.step(self.tables)
        partials = partials_of(folded, self.windowing, _seen(folded, state), self.kinds)

        def changed() -> pa.Table:
            rows = step.changed()
            keys, at = partials.seen()
            for name, column in (("seen", keys), ("seen_at", at)):
                rows = rows.append_column(ANALYTICS_STATE_SCHEMA.field(name), column)
            return rows

        return Step(
            outputs={**step.outputs, PARTIALS_OUTPUT.name: partials.rows},
            changed=changed,
            removed=step.removed,
            wake_at=step.wake_at,
            counts={**step.counts, "partials": partials.rows.num_rows},
            seen=step.seen,
        )


def _seen(folded: Folded, state: pa.Table) -> Seen:
    """Return what the cases of a step remember."""
    if not state.num_rows:
        none = np.empty(0, np.int64)
        return Seen(none, none.view(np.uint64), none)
    at = pc.index_in(
        conform(state["case_id"], pa.string()),
        value_set=conform(folded.batch.case_ids, pa.string()),
    )
    keys = conform(state["seen"], pa.list_(pa.uint64()))
    buckets = conform(state["seen_at"], pa.list_(pa.int64()))
    groups = np.repeat(integers(at.cast(pa.int64())), list_lengths(keys))
    return Seen(
        groups,
        keys.flatten().to_numpy(zero_copy_only=False),
        integers(buckets.flatten()),
    )
