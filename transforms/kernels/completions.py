"""Cases that came to an end in a step, each with its way and its time: one row a completing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import NAME
from transforms.arrays import conform, integers
from transforms.hashing import Lane, combine, mix
from transforms.kernels.case_rows import rework, variant_terms
from transforms.kernels.grouping import Codes, keys_of
from transforms.kernels.segments import (
    Flags,
    Integers,
    first_of_group,
    list_lengths,
    rank_in_group,
)
from transforms.kernels.transitions import Folded

MOST_STATES = 1000
"""Of a way, as far as it is written down."""

_VISITS = pa.list_(pa.uint64())


@dataclass(frozen=True)
class Completions:
    """Completed cases.

    Attributes:
        order_us, event_us: of the transition that ended it.
        cycle_us: from the case's first transition to it.
        workflow_group, model_version: of that transition.
        ways: hashes of states entered, of some cases.
        way: which of them is the case's.
        visited: how many of these states were entered by then.
    """

    order_us: Integers
    event_us: Integers
    cycle_us: Integers
    workflow_group: pa.DictionaryArray
    model_version: pa.DictionaryArray
    ways: pa.ListArray
    way: Integers
    visited: Integers

    @classmethod
    def of(cls, folded: Folded) -> Completions:
        """Find them: transitions into end states; in a complete log, all cases at its end."""
        if folded.rules.complete_log:
            return _at_the_end(folded)
        return _by_end_states(folded)

    def rows(self, rows: Integers) -> Completions:
        """Return some rows, with the ways that these have."""
        take = pa.array(rows)
        used, way = np.unique(self.way[rows], return_inverse=True)
        return Completions(
            self.order_us[rows],
            self.event_us[rows],
            self.cycle_us[rows],
            self.workflow_group.take(take),
            self.model_version.take(take),
            self.ways.take(pa.array(used)),
            way.reshape(-1),
            self.visited[rows],
        )

    def variants(self, seed: int) -> Lane:
        """Return a lane of the id of each case's variant (as in the table `cases`)."""
        flat, lengths = self._flat()
        terms = variant_terms(seed, flat, lengths)
        total = np.concatenate((np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)))
        first = (np.cumsum(lengths) - lengths)[self.way]
        return combine(seed, total[first + self.visited] - total[first], self.visited)

    def reworked(self) -> Flags:
        """Flag the cases that had entered some state more than once."""
        flat, lengths = self._flat()
        whole = self.visited == lengths[self.way]
        again = (rework(flat, lengths) > 0)[self.way]
        if whole.all():
            return again
        return np.where(whole, again, _first_repeats(flat, lengths)[self.way] < self.visited)

    def states(self) -> pa.ListArray:
        """Return the ways, at most `MOST_STATES` of each."""
        flat, lengths = self._flat()
        starts = (np.cumsum(lengths) - lengths)[self.way]
        taken = np.minimum(self.visited, MOST_STATES)
        offsets = np.zeros(len(taken) + 1, np.int32)
        offsets[1:] = np.cumsum(taken)
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], taken)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat[places]))

    def _flat(self) -> tuple[Lane, Integers]:
        return self.ways.flatten().to_numpy(zero_copy_only=False), list_lengths(self.ways)


def _first_repeats(flat: Lane, lengths: Integers) -> Integers:
    """Return, per list, the place of the first value that was there before; else its length."""
    starts = np.cumsum(lengths) - lengths
    of_list = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((mix(flat), of_list))
    again = order[1:][
        (flat[order[1:]] == flat[order[:-1]]) & (of_list[order[1:]] == of_list[order[:-1]])
    ]
    found = lengths.copy()
    np.minimum.at(found, of_list[again], again - starts[of_list[again]])
    return found


def _by_end_states(folded: Folded) -> Completions:
    moves, singles = folded.moves, folded.singles
    names = ["workflow_group", "model_version"]
    ends = np.flatnonzero(moves.is_end)
    ended = [row for row in singles.rows if row["to_state"] in folded.rules.end_states]
    groups = moves.groups[ends]
    first = first_of_group(groups)
    place = np.empty(len(folded.batch.case_ids), np.int64)
    place[integers(conform(folded.after["group"], pa.int64()))] = np.arange(folded.after.num_rows)
    visits = conform(folded.after["visits"], _VISITS).take(pa.array(place[groups[first]]))
    rank = rank_in_group(first_of_group(moves.groups))[ends]
    visited = folded.batch.list_length("visits")[groups] + rank + 1
    way = np.cumsum(first) - 1
    table = moves.table(names).take(pa.array(ends))
    order_us, event_us = moves.order_us[ends], moves.event_us[ends]
    cycle_us = moves.elapsed_us[ends]
    if ended:
        ways: dict[int, int] = {}
        lists = []
        for row in ended:
            if id(row["way"]) not in ways:
                ways[id(row["way"])] = len(ways)
                lists.append(row["way"])
        way = np.append(way, [len(visits) + ways[id(row["way"])] for row in ended])
        visits = pa.concat_arrays([visits, pa.array(lists, _VISITS)])
        visited = np.append(visited, [row["visited"] for row in ended])
        order_us = np.append(order_us, [row["order_us"] for row in ended])
        event_us = np.append(event_us, [row["event_time"] for row in ended])
        cycle_us = np.append(cycle_us, [row["elapsed_us"] for row in ended])
        flags = singles.transitions["is_end"]
        table = pa.concat_tables([table, singles.transitions.select(names).filter(flags)])
    return Completions(
        order_us,
        event_us,
        cycle_us,
        conform(table["workflow_group"], NAME),
        conform(table["model_version"], NAME),
        visits,
        way.astype(np.int64),
        visited.astype(np.int64),
    )


def _at_the_end(folded: Folded) -> Completions:
    after = folded.after.filter(pc.is_valid(folded.after["last_time"]))
    if not folded.over:
        after = after.slice(0, 0)
    first, last, updated = (
        integers(conform(after[name], pa.int64()))
        for name in ("first_time", "last_time", "updated")
    )
    visits = conform(after["visits"], _VISITS)
    return Completions(
        updated,
        last,
        last - first,
        conform(after["workflow_group"], NAME),
        conform(after["model_version"], NAME),
        visits,
        np.arange(len(visits)),
        list_lengths(visits),
    )


def variant_codes(lane: Lane) -> Codes:
    """Number the variants (64 of the 128 bits of their ids tell them apart well enough)."""
    return keys_of(Codes(lane.view(np.int64), 2**63)).codes
