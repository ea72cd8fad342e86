"""The streaming host as a Beam step: a stateful DoFn around `transforms.fold.granules`.

Two bags, one value and one event-time timer a shard: what every runner has. The timer holds
the output watermark at its time, so that no row is late for whatever comes behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import (
    BagStateSpec,
    ReadModifyWriteStateSpec,
    TimerSpec,
    on_timer,
)
from apache_beam.transforms.window import TimestampedValue
from apache_beam.typehints import Tuple
from apache_beam.utils.timestamp import Timestamp

from schemas.coders import pack
from transforms.counts import counted
from transforms.fold.elements import mark_element
from transforms.fold.granules import Fired, GranuleFold
from transforms.fold.shard import Bag, Copies
from transforms.fold.spread import keys_of_shards, shards_of_keys
from transforms.progress import tally
from transforms.receipts import account_of

Rows = tuple[str, int, int, bytes]
"""Rows of a firing: table, shard, order time in ms that they are complete to, packed rows."""

_COPIES = Copies()
"""Of every fold in this process: Beam makes many instances of a DoFn."""


@dataclass(frozen=True)
class Standing:
    """Where the folds of this process stand.

    Attributes:
        complete_ms: order time up to which the furthest shard has folded; None before the first.
        waiting: events that wait for their granule to be over.
        granules: how many granules they are in, roughly.
        open: keys that have state.
    """

    complete_ms: int | None
    waiting: int
    granules: int
    open: int


def standing() -> Standing:
    """Return where the folds of this process stand."""
    found = _COPIES.stands()
    return Standing(
        max((s.fired for s in found if s.fired is not None), default=None),
        sum(s.waiting for s in found),
        max((s.granules for s in found), default=0),
        sum(s.live for s in found),
    )


@dataclass(eq=False)
class FoldStream(beam.PTransform):
    """Folds a stream: (key of a shard, element) -> `Rows`, at the time they are complete to.

    Attributes:
        fold: the host with its kernel.
        run_id: names the run, so that two of one process do not share copies.
        scratch: where counts are reported; empty for nowhere.
        shards: how many there are, for the numbers of those whose keys come.
        initial: gives the element that a shard of which nothing is known begins with; with it
            every shard begins even if no element ever comes for it. None: they begin with none.
    """

    fold: GranuleFold
    run_id: str
    scratch: str = ""
    shards: int = 0
    initial: Callable[[int], bytes] | None = None

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        """Wire the step."""
        # By marks every shard gets elements anyhow, and there must be no Flatten.
        if self.initial is not None and not self.fold.by_marks:
            pokes = [(key, mark_element(0, 0, 0)) for key in keys_of_shards(self.shards)]
            poked = (
                elements.pipeline
                | "Poke shards" >> beam.Create(pokes, reshuffle=False)
                | "Type pokes" >> beam.Map(_same).with_output_types(Tuple[int, bytes])
            )
            elements = (elements, poked) | "Gather elements" >> beam.Flatten()
        return elements | "Fold shards" >> beam.ParDo(_Host(self)).with_output_types(
            Tuple[str, int, int, bytes]
        )


def _same(element: tuple[int, bytes]) -> tuple[int, bytes]:
    return element


@dataclass
class _BeamStore:
    """A shard's state as Beam keeps it."""

    mark: Any
    pending: Any
    state: Any
    due: Any

    def read_mark(self) -> bytes | None:
        found: bytes | None = self.mark.read()
        return found

    def write_mark(self, mark: bytes) -> None:
        self.mark.write(mark)

    def read(self, bag: Bag) -> Iterable[bytes]:
        found: Iterable[bytes] = getattr(self, bag).read()
        return found

    def append(self, bag: Bag, element: bytes) -> None:
        getattr(self, bag).add(element)

    def clear(self, bag: Bag) -> None:
        getattr(self, bag).clear()

    def set_timer(self, at_ms: int) -> None:
        self.due.set(Timestamp(micros=at_ms * 1000))


_DUE = TimerSpec("due", TimeDomain.WATERMARK)
_MARK_PARAM = beam.DoFn.StateParam(ReadModifyWriteStateSpec("mark", BytesCoder()))
_PENDING_PARAM = beam.DoFn.StateParam(BagStateSpec("pending", BytesCoder()))
_STATE_PARAM = beam.DoFn.StateParam(BagStateSpec("state", BytesCoder()))
_DUE_PARAM = beam.DoFn.TimerParam(_DUE)


class _Host(beam.DoFn):
    # Beam looks for the specs of timers in the class.
    DUE = _DUE

    def __init__(self, step: FoldStream) -> None:
        self._step = step

    def process(
        self,
        element: tuple[int, bytes],
        mark: Any = _MARK_PARAM,
        pending: Any = _PENDING_PARAM,
        state: Any = _STATE_PARAM,
        due: Any = _DUE_PARAM,
    ) -> Iterator[TimestampedValue]:
        step = self._step
        key, content = element
        shard = self._shard(key)
        store = _BeamStore(mark, pending, state, due)
        if step.initial is not None and store.read_mark() is None:
            step.fold.receive(store, _COPIES, self._key(shard), step.initial(shard))
        counts, found = step.fold.receive(store, _COPIES, self._key(shard), content)
        account = account_of(step.scratch)
        if account is not None:
            newest = _COPIES.stand(self._key(shard)).newest
            account.received(shard, key, content, newest)
        tally(step.scratch, dict(counted(FoldStream, counts)))
        yield from self._give(shard, found)

    @on_timer(_DUE)
    def fire(
        self,
        key: int = beam.DoFn.KeyParam,
        fired: Timestamp = beam.DoFn.TimestampParam,
        mark: Any = _MARK_PARAM,
        pending: Any = _PENDING_PARAM,
        state: Any = _STATE_PARAM,
        due: Any = _DUE_PARAM,
    ) -> Iterator[TimestampedValue]:
        """Fold the granules that are over."""
        step = self._step
        shard = self._shard(key)
        store = _BeamStore(mark, pending, state, due)
        found = step.fold.fire(store, _COPIES, self._key(shard), int(fired.micros) // 1000)
        yield from self._give(shard, found)

    def _give(self, shard: int, fired: Fired | None) -> Iterator[TimestampedValue]:
        if fired is None:
            return
        tally(self._step.scratch, dict(counted(FoldStream, fired.counts)))
        at = Timestamp(micros=self._step.fold.beam_time.of_order(fired.until_ms - 1) * 1000)
        outputs = {name: rows for name, rows in fired.outputs.items() if rows.num_rows}
        account = account_of(self._step.scratch)
        if account is not None:
            elements = [(name, shard, fired.until_ms) for name in outputs]
            account.fired(shard, fired.until_ms * 1000, elements)
        for name, rows in outputs.items():
            batch = rows.combine_chunks().to_batches()[0]
            yield TimestampedValue((name, shard, fired.until_ms, pack(batch)), at)

    def _shard(self, key: int) -> int:
        return shards_of_keys(self._step.shards)[key] if self._step.shards else key

    def _key(self, shard: int) -> tuple[str, str, int]:
        return self._step.run_id, self._step.fold.kernel.name, shard
