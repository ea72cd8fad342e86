"""The streaming host as a Beam step: a stateful DoFn around `transforms.fold.granules`.

Two bags, one value and one event-time timer a shard: what every runner has. The timer holds
the output watermark at its time, so that no row is late for whatever comes behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
from transforms.fold.granules import BEHIND, WAITING, Fired, GranuleFold
from transforms.fold.passing import HANDED, HandOn
from transforms.fold.shard import Bag, Copies
from transforms.progress import tally
from transforms.receipts import Receipts, account_of
from transforms.sources.messages import DRAIN
from transforms.spread import keys_of_shards, shards_of_keys

Rows = tuple[str, int, int, bytes]
"""Rows of a firing: table, shard, order time in ms that they are complete to, packed rows."""

ROWS = "rows"
"""Tag of the rows of a fold that hands on."""

_COPIES = Copies()
"""Of every fold of events in this process: Beam makes many instances of a DoFn."""

_OTHERS = Copies()
"""Of the folds behind them."""

_OF_EVENTS = frozenset({WAITING, BEHIND})


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
        hands_on: an output that the next fold takes: the tag `passing.HANDED`; None for none.
        counts_events: it takes the run's events; otherwise what another fold hands on, which the
            laws and the run's account know nothing of.
    """

    fold: GranuleFold
    run_id: str
    scratch: str = ""
    shards: int = 0
    initial: Callable[[int], bytes] | None = None
    hands_on: HandOn | None = None
    counts_events: bool = True

    def expand(self, elements: beam.PCollection) -> beam.PCollection | beam.pvalue.DoOutputsTuple:
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
        fold = beam.ParDo(_Host(self))
        if self.hands_on is None:
            return elements | "Fold shards" >> fold.with_output_types(Tuple[str, int, int, bytes])
        folded = elements | "Fold shards" >> fold.with_outputs(HANDED, main=ROWS)
        folded[ROWS].element_type = Tuple[str, int, int, bytes]
        folded[HANDED].element_type = Tuple[int, bytes]
        return folded


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

    @property
    def _copies(self) -> Copies:
        # Not an attribute: a DoFn is pickled.
        return _COPIES if self._step.counts_events else _OTHERS

    def process(
        self,
        element: tuple[int, bytes],
        mark: Any = _MARK_PARAM,
        pending: Any = _PENDING_PARAM,
        state: Any = _STATE_PARAM,
        due: Any = _DUE_PARAM,
    ) -> Iterator[TimestampedValue | beam.pvalue.TaggedOutput]:
        step = self._step
        key, content = element
        shard = self._shard(key)
        store = _BeamStore(mark, pending, state, due)
        if step.initial is not None and store.read_mark() is None:
            step.fold.receive(store, self._copies, self._key(shard), step.initial(shard))
        counts, found = step.fold.receive(store, self._copies, self._key(shard), content)
        account = self._account()
        if account is not None:
            newest = self._copies.stand(self._key(shard)).newest
            account.received(shard, key, content, newest)
        self._tally(counts)
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
    ) -> Iterator[TimestampedValue | beam.pvalue.TaggedOutput]:
        """Fold the granules that are over."""
        step = self._step
        shard = self._shard(key)
        store = _BeamStore(mark, pending, state, due)
        found = step.fold.fire(store, self._copies, self._key(shard), int(fired.micros) // 1000)
        yield from self._give(shard, found)

    def _give(
        self, shard: int, fired: Fired | None
    ) -> Iterator[TimestampedValue | beam.pvalue.TaggedOutput]:
        if fired is None:
            return
        self._tally(fired.counts)
        at = Timestamp(micros=self._step.fold.stamp_ms(fired.until_ms) * 1000)
        handed = self._step.hands_on
        outputs = {
            name: rows
            for name, rows in fired.outputs.items()
            if rows.num_rows and (handed is None or name != handed.output)
        }
        account = self._account()
        if account is not None:
            elements = [(name, shard, fired.until_ms) for name in outputs]
            account.fired(shard, fired.until_ms * 1000, elements)
        for name, rows in outputs.items():
            batch = rows.combine_chunks().to_batches()[0]
            yield TimestampedValue((name, shard, fired.until_ms, pack(batch)), at)
        if handed is not None:
            for element in handed.elements(
                fired.outputs.get(handed.output), self._say(fired, shard)
            ):
                yield beam.pvalue.TaggedOutput(HANDED, TimestampedValue(element, at))

    def _say(self, fired: Fired, shard: int) -> tuple[int, int, int] | tuple[()]:
        """Return what the next fold is told of this shard, if it goes by marks."""
        if not self._step.fold.by_marks:
            return ()
        return shard, self._step.shards, DRAIN if fired.drained else fired.until_ms

    def _tally(self, counts: Mapping[str, int]) -> None:
        if not self._step.counts_events:
            counts = {name: n for name, n in counts.items() if name not in _OF_EVENTS}
        tally(self._step.scratch, dict(counted(FoldStream, counts)))

    def _account(self) -> Receipts | None:
        return account_of(self._step.scratch) if self._step.counts_events else None

    def _shard(self, key: int) -> int:
        return shards_of_keys(self._step.shards)[key] if self._step.shards else key

    def _key(self, shard: int) -> tuple[str, str, int]:
        return self._step.run_id, self._step.fold.kernel.name, shard
