"""The streaming host of a kernel as a pure object: a shard's state in, its state and timer out.

docs/streaming-fold.md tells the protocol in words. `shard.Store` is what a runner keeps of a
shard (a mark, two bags, one event-time timer); `shard.Copies` holds what this process has decoded
of it. A copy counts only while its token equals the mark's, so that a bundle that failed, a
restart or another worker costs a read of the bags and nothing else.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import orjson
import pyarrow as pa

from schemas.coders import pack
from schemas.events import EVENT_SCHEMA
from transforms.arrays import conform, integers
from transforms.exchange import with_schema
from transforms.fold.bounded import newest_rows
from transforms.fold.elements import (
    CONTROL,
    EVENTS,
    FIRST,
    MARK,
    STATE,
    control_element,
    events_element,
    read_control,
    read_entry,
    read_events,
    read_state,
    said,
    state_entry,
    with_events,
    without_events,
)
from transforms.fold.keyed import KeyedRows
from transforms.fold.made import Setting, StateMisfit, differences, text_of
from transforms.fold.shard import Copies, Copy, Mark, Stand, Store, Waiting
from transforms.kernels.base import Kernel
from transforms.sources.messages import DRAIN
from transforms.timeline import BeamTime, arrange, order_column, order_times

REWRITE_FROM = 4096
"""A bag is not rewritten for fewer dead rows than this."""

CATCH_UP = 16
"""A backlog is folded in granules of between 1/16 and 1/32 of what it is behind."""

AHEAD_MS = 60_000
"""How far a watermark may be ahead of this machine's clock."""

BEHIND = "behind_watermark"
"""Count of events that came when their granule was over: they are folded in the next one."""

WAITING = "waiting"
"""Count of events that wait for their granule to be over: less those that were waited for."""

Upgrade = Callable[[pa.Table], pa.Table]


@dataclass
class Fired:
    """What a firing gave.

    Attributes:
        until_ms: order time up to which it folded (exclusive).
        outputs: table name -> rows; of an upsert table the newest row of each key touched.
        counts: as the kernel's.
        drained: nothing comes any more; told only by a fold that `tells`.
    """

    until_ms: int
    outputs: Mapping[str, pa.Table]
    counts: Mapping[str, int]
    drained: bool = False


@dataclass(frozen=True)
class GranuleFold:
    """Folds a shard's stream with a kernel, granule by granule of order time.

    Attributes:
        kernel: the logic.
        disorder_us: D in µs (see `transforms.timeline`).
        granule_ms: length of a granule in ms.
        by_marks: fold when the elements themselves say that a granule is over, without timers:
            for runners whose timers do not wait for the watermark.
        catch_up: a backlog is folded in longer granules, aligned as the short ones: results are
            the same, and they come in fewer steps.
        unit_ms: no granule goes over a multiple of it; 0 for no limit. For a fold whose output
            another takes, which must not hear of a time when it has folded what comes after.
        tells: by marks, say how far the shard is complete even if there was nothing to fold: for
            a fold behind this one.
        follows: it takes what another fold hands on. The elements of that are stamped with the last
            millisecond of what it has folded, and its timers hold the watermark there until all
            its shards have given theirs: so the timers of this one are a millisecond later.
        deadlines_until_now: a deadline in the future of the clock does not fire: where the
            watermark runs to the end of time because the readers have stopped, it would.
        state_version: of the kernel's state schema.
        made: the settings that the state depends on; a state made with others is refused.
        upgrades: version -> what turns rows of that version into those of the next.
        beam_time: how a runner's event time differs from order time.
        clock: seconds since the epoch; how far a backlog is behind decides how it is cut, and
            nothing else.
    """

    kernel: Kernel
    disorder_us: int
    granule_ms: int
    by_marks: bool = False
    catch_up: bool = True
    unit_ms: int = 0
    tells: bool = False
    follows: bool = False
    deadlines_until_now: bool = False
    state_version: int = 1
    made: tuple[Setting, ...] = ()
    upgrades: Mapping[int, Upgrade] = field(default_factory=dict)
    beam_time: BeamTime = BeamTime()
    clock: Callable[[], float] = time.time

    def receive(
        self, store: Store, copies: Copies, key: object, element: bytes
    ) -> tuple[Counter[str], Fired | None]:
        """Take an element: it waits for its granule to be over.

        Args:
            store: the shard's.
            copies: this process's.
            key: names the shard in `copies`.
            element: made by one of this module's `..._element`.

        Returns:
            Counts, and what was folded (only `by_marks`).
        """
        mark, copy = self._open(store, copies, key)
        counts: Counter[str] = Counter()
        kind = element[:1]
        early: Fired | None = None
        if kind == EVENTS:
            if mark.handed is not None and mark.fired == mark.handed:
                element, early, counts[BEHIND] = self._fold_overlap(store, mark, copy, element)
            if element[:1] == EVENTS:
                waiting, behind = self._wait(store, mark, copy, element)
                counts.update({WAITING: waiting, BEHIND: behind})
            else:
                assert mark.handed is not None
                copy.newest = mark.handed * 1000 - 1
                mark.note(said(element))
        elif kind == MARK:
            mark.note(said(element))
        elif kind == STATE:
            until, version, rows = read_state(element)
            rows = self._upgrade(rows, version)
            copy.state.apply(rows, pa.array([], pa.string()))
            store.append("state", state_entry(rows, self.state_version))
            mark.state += rows.num_rows
            mark.fired = until if mark.fired is None else max(mark.fired, until)
            mark.handed = until
            # The kernel has not seen these rows: it says at once when it wants to wake.
            mark.wake = until if mark.wake is None else min(mark.wake, until)
        elif kind == CONTROL:
            control = read_control(element)
            if mark.fired is not None and control.effective < mark.fired:
                control = replace(control, effective=mark.fired)
            copy.controls.append(control)
            store.append("pending", control_element(control))
            mark.pending += 1
        else:
            reason = f"no element of a fold: {element[:16]!r}"
            raise ValueError(reason)
        fired = None
        if self.by_marks:
            due, complete = self._due(mark, copy), self._complete(mark, copy)
            if due is not None and due <= complete:
                fired = self._fold(store, mark, copy, complete if self.catch_up else due)
            elif self.tells and complete > (-DRAIN if mark.fired is None else mark.fired):
                mark.fired = complete
                fired = Fired(complete, {}, {})
            if self.tells and mark.drained():
                until = 0 if mark.fired is None else mark.fired
                fired = replace(fired or Fired(until, {}, {}), drained=True)
        self._close(store, copies, key, mark, copy)
        return counts, self._joined(early, fired)

    def fire(
        self, store: Store, copies: Copies, key: object, fired_ms: int | None = None
    ) -> Fired | None:
        """Fold what is due.

        Args:
            store: the shard's.
            copies: this process's.
            key: names the shard in `copies`.
            fired_ms: what the timer was set for, in event time, as the runner tells it; a firing
                for a time that is not due yet only sets the timer again.
        """
        mark, copy = self._open(store, copies, key)
        # Known from the state, never from the time that was fired: runners cut that.
        due = mark.due
        fired = None
        if self.deadlines_until_now and due is not None and not copy.waiting:
            if due > self.clock() * 1000 + AHEAD_MS:
                copies.put(key, copy)
                return None
        if due is not None and (fired_ms is None or fired_ms >= self.stamp_ms(due)):
            fired = self._fold(store, mark, copy, due)
        self._close(store, copies, key, mark, copy)
        return fired

    def stamp_ms(self, until: int) -> int:
        """Return the event time of a firing, and of its rows, that folds up to an order time."""
        return self.beam_time.of_order(until - 1 + self.follows)

    def _fold(self, store: Store, mark: Mark, copy: Copy, until: int) -> Fired:
        """Step the kernel up to an order time in ms."""
        events = with_schema(copy.take_due(until), self.kernel.takes)
        controls = sorted(
            (c for c in copy.controls if c.effective < until),
            key=lambda c: (c.effective, c.kind, c.payload),
        )
        copy.controls = [c for c in copy.controls if c.effective >= until]
        wakes = mark.wake is not None and mark.wake < until
        arranged = arrange(events, self.kernel.key, self.disorder_us, self.kernel.order)
        if wakes or controls:
            state = copy.state.all()
        else:
            state = copy.state.rows_of(arranged[self.kernel.key].chunk(0).dictionary)
        step = self.kernel.step(state, arranged, controls, until)
        changed = step.changed()
        mark.fired = until
        copy.state.apply(changed, step.removed)
        self._keep_state(store, mark, copy, changed, step.removed, until)
        # Of the keys not touched now, the earlier deadline still holds.
        times = [step.wake_at, None if wakes else mark.wake]
        mark.wake = min((t for t in times if t is not None), default=None)
        self._keep_pending(store, mark, copy)
        counts = {name: n for name, n in step.counts.items() if name != "events"}
        counts[WAITING] = -events.num_rows
        return Fired(until, step.whole(), counts)

    def _fold_overlap(
        self, store: Store, mark: Mark, copy: Copy, element: bytes
    ) -> tuple[bytes, Fired | None, int]:
        """Fold events that come before the end of what another run has folded.

        At once: most are known, and there may be more of them than should wait for the
        watermark to get there. For the fold they are of the last moment before that end.

        Returns:
            The element without them, what they gave, and how many that run did not know.
        """
        assert mark.handed is not None
        end = mark.handed * 1000
        waiting, _ = self._read_events(element, None)
        if waiting.first >= end:
            return element, None, 0
        rest = without_events(element)
        if waiting.last >= end:
            waiting, ahead = waiting.split(end)
            rest = with_events(element, ahead.table)
        times = np.full(waiting.table.num_rows, end - 1)
        table = _with(waiting.table, "order_time", order_column(times))
        if "log" in table.column_names:
            table = table.drop_columns(["log"])
        events = with_schema([table], self.kernel.takes)
        arranged = arrange(events, self.kernel.key, self.disorder_us, self.kernel.order)
        state = copy.state.rows_of(arranged[self.kernel.key].chunk(0).dictionary)
        step = self.kernel.step(state, arranged, (), mark.handed)
        changed = step.changed()
        copy.state.apply(changed, step.removed)
        mark.overlaps += 1
        # Entries are read in this order, and these come before those of any firing.
        self._keep_state(store, mark, copy, changed, step.removed, FIRST + mark.overlaps)
        times_to_wake = [step.wake_at, mark.wake]
        mark.wake = min((t for t in times_to_wake if t is not None), default=None)
        counts = {name: n for name, n in step.counts.items() if name != "events"}
        behind = events.num_rows - counts.get("duplicates", 0)
        return rest, Fired(mark.handed, step.whole(), counts), behind

    def _joined(self, early: Fired | None, fired: Fired | None) -> Fired | None:
        """Make one firing of two of the same call."""
        if early is None:
            return fired
        counts = Counter(early.counts)
        outputs = dict(early.outputs)
        if fired is not None:
            counts.update(fired.counts)
            for name, rows in fired.outputs.items():
                both = [outputs[name], rows] if name in outputs else [rows]
                output = self.kernel.outputs[name]
                upsert = output.mode == "upsert"
                outputs[name] = newest_rows(both, output.key) if upsert else _stacked(both)
        until_ms = early.until_ms if fired is None else fired.until_ms
        return Fired(until_ms, outputs, counts, fired is not None and fired.drained)

    def _wait(self, store: Store, mark: Mark, copy: Copy, element: bytes) -> tuple[int, int]:
        mark.note(said(element))
        waiting, behind = self._read_events(element, mark.fired)
        copy.waiting.append(waiting)
        copy.newest = waiting.last
        mark.pending += waiting.table.num_rows
        if behind:
            # Stamped anew: what is read from the bag later must have the same times.
            element = with_events(element, waiting.table)
        store.append("pending", element)
        return waiting.table.num_rows, behind

    def _read_events(self, element: bytes, fired_ms: int | None) -> tuple[Waiting, int]:
        """Decode events, and stamp those whose granule is over with the end of what is."""
        table = read_events(element)
        if "order_time" in table.column_names:
            times = integers(table["order_time"].combine_chunks())
        else:
            full = with_schema([table], EVENT_SCHEMA)
            times = order_times(full, self.disorder_us)
            table = table.append_column("order_time", order_column(times))
        behind = 0
        if fired_ms is not None and int(times.min()) < fired_ms * 1000:
            late = times < fired_ms * 1000
            behind = int(late.sum())
            times = np.maximum(times, fired_ms * 1000)
            table = _with(table, "order_time", order_column(times))
            if "log" in table.column_names:
                # What a snapshot did not know then, it can't deny now.
                log = conform(table["log"], EVENT_SCHEMA.field("log").type)
                known = pa.array(np.arange(len(times)), mask=late)
                table = _with(table, "log", log.take(known))
        return Waiting(table, int(times.min()), int(times.max())), behind

    def _due(self, mark: Mark, copy: Copy) -> int | None:
        """Return the end in ms of the earliest granule with work in it, None if there is none.

        Waiting longer never changes a row. So where the watermark has hours to make up, a
        granule lasts as long as it will take to pass it: a step costs milliseconds however
        few events it has.
        """
        times = [copy.earliest(), mark.wake]
        earliest = min((t for t in times if t is not None), default=None)
        if earliest is None:
            return None
        if mark.fired is not None:
            earliest = max(earliest, mark.fired)
        if not self.catch_up or self.by_marks:
            return self._end(earliest)
        behind = int(self.clock() * 1000) - earliest - self.disorder_us // 1000
        length = self.granule_ms << max(0, (behind // CATCH_UP // self.granule_ms).bit_length() - 1)
        end = (earliest // length + 1) * length
        return min(end, (earliest // self.unit_ms + 1) * self.unit_ms) if self.unit_ms else end

    def _end(self, time_ms: int) -> int:
        return (time_ms // self.granule_ms + 1) * self.granule_ms

    def _complete(self, mark: Mark, copy: Copy) -> int:
        """Return the order time in ms before which every reader has given everything."""
        complete = mark.least()
        if complete >= DRAIN:
            latest = max((w.last for w in copy.waiting), default=None)
            return -DRAIN if latest is None else self._end(latest // 1000)
        return complete // self.granule_ms * self.granule_ms

    def _open(self, store: Store, copies: Copies, key: object) -> tuple[Mark, Copy]:
        mark = Mark.of(store.read_mark())
        self._check_made(mark)
        copy = copies.pop(key)
        if copy is None or copy.token != mark.token or not mark.token:
            copy = self._read(store, mark)
        return mark, copy

    @cached_property
    def _made(self) -> str:
        return text_of(self.made) if self.made else ""

    def _check_made(self, mark: Mark) -> None:
        """Refuse a state that this fold would read in another way.

        Raises:
            StateMisfit: it was made with other settings.
        """
        if mark.made != self._made:
            wrong = differences(self.made, orjson.loads(mark.made)) if mark.made else ""
            if wrong:
                reason = (
                    f"the stream goes on from a state made with {wrong}: give what it was made "
                    "with, or begin anew without that state"
                )
                raise StateMisfit(reason)
            mark.made = self._made

    def _read(self, store: Store, mark: Mark) -> Copy:
        """Decode the bags."""
        copy = Copy(mark.token, KeyedRows(self.kernel.state_schema))
        if not mark.token:
            return copy
        for entry in sorted(map(read_entry, store.read("state")), key=lambda each: each.number):
            copy.state.apply(self._upgrade(entry.rows, entry.version), entry.removed)
        for element in store.read("pending"):
            if element[:1] == CONTROL:
                control = read_control(element)
                if mark.fired is None or control.effective >= mark.fired:
                    copy.controls.append(control)
                continue
            waiting, _ = self._read_events(element, None)
            if mark.fired is None or waiting.first >= mark.fired * 1000:
                copy.waiting.append(waiting)
            elif waiting.last >= mark.fired * 1000:
                copy.waiting.append(waiting.split(mark.fired * 1000)[1])
        return copy

    def _close(self, store: Store, copies: Copies, key: object, mark: Mark, copy: Copy) -> None:
        """Write the mark, set the timer, keep the copy."""
        mark.due = None if self.by_marks else self._due(mark, copy)
        if mark.due is not None:
            # With every element, in case the runner has lost the timer (over a savepoint).
            store.set_timer(self.stamp_ms(mark.due))
        mark.token = copy.token = os.urandom(8).hex()
        store.write_mark(mark.to_bytes())
        copies.put(key, copy)
        first = min((w.first for w in copy.waiting), default=0)
        last = max((w.last for w in copy.waiting), default=-1)
        granules = (last - first) // (1000 * self.granule_ms) + 1
        copies.note(key, Stand(mark.fired, copy.rows(), granules, copy.state.live, copy.newest))

    def _keep_state(
        self,
        store: Store,
        mark: Mark,
        copy: Copy,
        changed: pa.Table,
        removed: pa.Array,
        number: int,
    ) -> None:
        written = changed.num_rows + len(removed)
        if not written:
            return
        mark.state += written
        if mark.state > 2 * copy.state.live + REWRITE_FROM:
            store.clear("state")
            rows = copy.state.all()
            mark.state = rows.num_rows
            if rows.num_rows:
                store.append("state", state_entry(rows, self.state_version))
            return
        store.append("state", state_entry(changed, self.state_version, number, removed))

    def _keep_pending(self, store: Store, mark: Mark, copy: Copy) -> None:
        """Drop the folded rows from the bag when they are most of it."""
        left = copy.rows() + len(copy.controls)
        if mark.pending and (not left or mark.pending > 2 * left + REWRITE_FROM):
            store.clear("pending")
            for waiting in copy.waiting:
                batch = waiting.table.combine_chunks().to_batches()[0]
                store.append("pending", events_element(pack(batch)))
            for control in copy.controls:
                store.append("pending", control_element(control))
            mark.pending = left

    def _upgrade(self, rows: pa.Table, version: int) -> pa.Table:
        """Turn rows of an older version into the kernel's schema.

        Raises:
            StateMisfit: they are of a newer version, or of one that is not known any more.
        """
        while version < self.state_version and version in self.upgrades:
            rows = self.upgrades[version](rows)
            version += 1
        if version != self.state_version:
            reason = (
                f"the state of {self.kernel.name} is of version {version}, and this program "
                f"reads up to {self.state_version}: start the program that wrote it"
            )
            raise StateMisfit(reason)
        return with_schema([rows], self.kernel.state_schema)


def _stacked(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).unify_dictionaries()


def _with(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)
