"""Partial rows: what the fold of cases hands to the fold of windows, and nobody else sees.

Each row is a sum over some events of one bucket. Every number is an integer, and adding up, least
and greatest are all that is done to them: the result does not depend on how events were cut into
steps and shards, nor on the order in which partial rows are put together. Durations are whole
microseconds; their distribution is a DDSketch (Masson, Rim, Lee: DDSketch: A Fast and
Fully-Mergeable Quantile Sketch with Relative-Error Guarantees, VLDB 2019), a histogram with bins
that grow by a constant factor.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.events import NAME, TIME
from schemas.tables import FLOW as FLOW_TABLE
from schemas.tables import PROCESS_MAP, STATE_TIMES, VARIANTS, WORKLOAD, Output

EDGE, ACTOR, FLOW, VARIANT, LEVEL, NAMES = range(6)
"""Kinds of partial rows; see `PARTIALS`."""

KINDS = frozenset(range(6))

FAMILY_OF_TABLES = {
    PROCESS_MAP.name: (EDGE,),
    STATE_TIMES.name: (EDGE,),
    WORKLOAD.name: (ACTOR,),
    FLOW_TABLE.name: (FLOW, LEVEL),
    VARIANTS.name: (VARIANT, NAMES),
}
"""Kinds that each table of windows is made of."""

FAMILIES = tuple(dict.fromkeys(FAMILY_OF_TABLES.values()))
"""Kinds that are to be seen together."""

ERROR = 0.005
"""Relative error of a quantile: a bin's values are so close to its middle."""

_GAMMA_LOG = float(np.log((1 + ERROR) / (1 - ERROR)))

_counts = pa.int64()
_bins = pa.list_(pa.int32())
_tallies = pa.list_(pa.int64())

PARTIALS = pa.schema(
    # A count or sum that is null is 0: a kind of rows has only columns of its own.
    [
        # Bucket and group: the state of a fold of windows is kept by it.
        pa.field("slot", pa.dictionary(pa.int32(), pa.string())),
        # The last moment of the bucket, or of the step if that came before: so the watermark
        # passes it only when the bucket is complete.
        pa.field("order_time", TIME),
        pa.field("bucket", pa.int64()),
        pa.field("kind", pa.int8()),
        pa.field("workflow_group", NAME),
        # Null for ACTOR, VARIANT and NAMES.
        pa.field("model_version", NAME),
        # EDGE: state before (null at a start); ACTOR: who; VARIANT: variant_id; NAMES: a state.
        pa.field("name", NAME),
        # EDGE: the state afterwards.
        pa.field("to_state", NAME),
        # EDGE, ACTOR, FLOW: transitions; VARIANT: completed cases; LEVEL: cases that were opened,
        # less those that were closed; NAMES: 0.
        pa.field("count", _counts),
        # EDGE, ACTOR: item j counts the cases that are new to the window which began j buckets
        # before this one: for them, no earlier event of that window has the same key.
        pa.field("cases", pa.list_(_counts)),
        # EDGE, ACTOR: transitions with a duration; FLOW, VARIANT: cases with a cycle time.
        pa.field("timed", _counts),
        # Of these durations; of an ACTOR or VARIANT the sum only.
        pa.field("sum_us", _counts),
        pa.field("min_us", _counts),
        pa.field("max_us", _counts),
        # EDGE: of durations; FLOW: of cycle times. Bins ascend.
        pa.field("bins", _bins),
        pa.field("tallies", _tallies),
        # FLOW
        pa.field("started", _counts),
        pa.field("completed", _counts),
        pa.field("late", _counts),
        pa.field("rework", _counts),
        pa.field("illegal", _counts),
        # ACTOR
        pa.field("handovers", _counts),
        # VARIANT: hashes of the states of the way, in order; NAMES: of the state.
        pa.field("states", pa.list_(pa.uint64())),
    ]
)

PARTIALS_OUTPUT = Output(
    name="partials",
    schema=PARTIALS,
    mode="append",
    key=("slot",),
    doc="Sums over some events of one bucket and key.",
)


def bin_of(durations_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Return the DDSketch bin of each duration in µs; 0 µs (and less) is in bin -1."""
    bins = np.full(len(durations_us), -1, np.int32)
    positive = durations_us > 0
    logs = np.log(durations_us[positive].astype(np.float64))
    bins[positive] = np.ceil(logs / _GAMMA_LOG).astype(np.int32)
    return bins


def value_of(bins: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Return the duration in µs that stands for a bin."""
    middle = np.exp(bins.astype(np.float64) * _GAMMA_LOG) * (1 - ERROR)
    found: npt.NDArray[np.float64] = np.where(bins < 0, 0.0, middle)
    return found
