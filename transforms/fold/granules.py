"""The streaming host of a kernel as a pure object: a shard's state in, its state and timer out.

docs/streaming-fold.md tells the protocol in words. `Store` is what a runner keeps of a shard
(a mark, two bags, one event-time timer); `Copies` holds what this process has decoded of it.
A copy counts only while its token equals the mark's, so that a bundle that failed, a restart
or another worker costs a read of the bags and nothing else.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
import orjson
import pyarrow as pa

from schemas.coders import pack, unpack
from schemas.events import EVENT_SCHEMA
from transforms.arrays import conform
from transforms.exchange import with_schema, without_nulls
from transforms.fold.bounded import newest_rows
from transforms.fold.keyed import KeyedRows
from transforms.kernels.base import Control, Kernel
from transforms.sources.messages import DRAIN
from transforms.timeline import ORDERED_SCHEMA, arrange, order_column, order_times

VERSION = 1
"""Of the mark and of the bags' elements."""

REWRITE_FROM = 4096
"""A bag is not rewritten for fewer dead rows than this."""

CATCH_UP = 16
"""A backlog is folded in granules of between 1/16 and 1/32 of what it is behind."""

BEHIND = "behind_watermark"
"""Count of events that came when their granule was over: they are folded in the next one."""

_EVENTS, _MARK, _STATE, _CONTROL = b"E", b"M", b"S", b"C"
_EVENTS_HEAD = struct.Struct("<qHH")
_FIRST = -(2**62)
"""Number of the entries of state that come before those of any firing."""
_STATE_HEAD = struct.Struct("<qB")
_CONTROL_HEAD = struct.Struct("<qH")

Bag = Literal["pending", "state"]
Upgrade = Callable[[pa.Table], pa.Table]


class Store(Protocol):
    """What a runner keeps for one shard. Writes hold with the bundle, or not at all."""

    def read_mark(self) -> bytes | None:
        """Return what `write_mark` has left."""

    def write_mark(self, mark: bytes) -> None:
        """Keep a few bytes."""

    def read(self, bag: Bag) -> Iterable[bytes]:
        """Return a bag's elements, in any order."""

    def append(self, bag: Bag, element: bytes) -> None:
        """Add an element to a bag."""

    def clear(self, bag: Bag) -> None:
        """Empty a bag."""

    def set_timer(self, at_ms: int) -> None:
        """Fire when the watermark has passed a time: the one timer, in place of an earlier one."""


def events_element(packed: bytes, split: int = 0, splits: int = 0, complete_ms: int = 0) -> bytes:
    """Make an element of events.

    Args:
        packed: a packed table of events.
        split: number of the reader that they come from.
        splits: how many readers there are; 0 if that is not known.
        complete_ms: order time before which that reader has given everything; `DRAIN` if it has
            ended: then what waits is folded, and no deadline fires.
    """
    return _EVENTS + _EVENTS_HEAD.pack(complete_ms, split, splits) + packed


def mark_element(split: int, splits: int, complete_ms: int) -> bytes:
    """Make an element without events, for shards that a batch has none for."""
    return _MARK + _EVENTS_HEAD.pack(complete_ms, split, splits)


def state_element(rows: pa.Table, until_ms: int, version: int = 1) -> bytes:
    """Make an element of state rows that another run has left, complete up to an order time.

    Args:
        rows: in the kernel's state schema of that version, of keys of one shard.
        until_ms: order time up to which that run has folded.
        version: of the schema.
    """
    return _STATE + _STATE_HEAD.pack(until_ms, version) + _pack(rows)


def control_element(control: Control) -> bytes:
    """Make a control element."""
    kind = control.kind.encode()
    return _CONTROL + _CONTROL_HEAD.pack(control.effective, len(kind)) + kind + control.payload


@dataclass
class Fired:
    """What a firing gave.

    Attributes:
        until_ms: order time up to which it folded (exclusive).
        outputs: table name -> rows; of an upsert table the newest row of each key touched.
        counts: as the kernel's.
    """

    until_ms: int
    outputs: Mapping[str, pa.Table]
    counts: Mapping[str, int]


@dataclass
class _Mark:
    """The small part of a shard's state, read and written with every element.

    Attributes:
        token: names this state, to tell whether a decoded copy is of it.
        fired: order time in ms up to which everything has been folded.
        wake: the kernel's earliest deadline in ms.
        due: order time in ms up to which the next firing folds; the timer is set for it.
        complete: split -> order time in ms before which it has given everything.
        splits: number of splits, 0 if unknown.
        pending: rows and controls in the pending bag, those folded included.
        state: rows in the state bag, those replaced included.
        handed: order time in ms up to which another run has folded, whose state this began with.
        overlaps: how many elements have had events before that.
    """

    token: str = ""
    fired: int | None = None
    wake: int | None = None
    due: int | None = None
    complete: dict[str, int] = field(default_factory=dict)
    splits: int = 0
    pending: int = 0
    state: int = 0
    handed: int | None = None
    overlaps: int = 0

    @classmethod
    def of(cls, data: bytes | None) -> _Mark:
        if data is None:
            return cls()
        values = orjson.loads(data)
        version = values.pop("version")
        if version > VERSION:
            reason = (
                f"the stream's state is of version {version}, and this program knows {VERSION}: "
                "start the newer program again"
            )
            raise ValueError(reason)
        return cls(**values)

    def to_bytes(self) -> bytes:
        return orjson.dumps({"version": VERSION, **vars(self)})


@dataclass
class _Waiting:
    """Events of an element that have not been folded, and their first and last order time in µs."""

    table: pa.Table
    first: int
    last: int


@dataclass
class _Copy:
    """A shard's bags, decoded."""

    token: str
    state: KeyedRows
    waiting: list[_Waiting] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)

    def earliest(self) -> int | None:
        """Return the earliest order time in ms that waits."""
        times = [w.first // 1000 for w in self.waiting] + [c.effective for c in self.controls]
        return min(times, default=None)

    def rows(self) -> int:
        return sum(w.table.num_rows for w in self.waiting)


@dataclass(frozen=True)
class Stand:
    """Where a shard stands, for whoever watches.

    Attributes:
        fired: order time in ms up to which it has folded.
        waiting: events that wait.
        granules: granules from the first that waits to the last.
        live: state rows.
    """

    fired: int | None
    waiting: int
    granules: int
    live: int


class Copies:
    """The decoded copies of this process, by shard; safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: dict[object, _Copy] = {}
        self._stands: dict[object, Stand] = {}

    def note(self, key: object, stand: Stand) -> None:
        """Note where a shard stands."""
        with self._lock:
            self._stands[key] = stand

    def stands(self) -> list[Stand]:
        """Return where the shards stand."""
        with self._lock:
            return list(self._stands.values())

    def pop(self, key: object) -> _Copy | None:
        """Take a copy out: if the work with it fails, it is gone."""
        with self._lock:
            return self._copies.pop(key, None)

    def put(self, key: object, copy: _Copy) -> None:
        """Keep a copy."""
        with self._lock:
            self._copies[key] = copy

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._copies.clear()


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
            the same, and they come in fewer steps. Not for a fold whose output another takes.
        state_version: of the kernel's state schema.
        upgrades: version -> what turns rows of that version into those of the next.
        clock: seconds since the epoch; how far a backlog is behind decides how it is cut, and
            nothing else.
    """

    kernel: Kernel
    disorder_us: int
    granule_ms: int
    by_marks: bool = False
    catch_up: bool = True
    state_version: int = 1
    upgrades: Mapping[int, Upgrade] = field(default_factory=dict)
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
        if kind == _EVENTS:
            if mark.handed is not None and mark.fired == mark.handed:
                element, early, counts[BEHIND] = self._fold_overlap(store, mark, copy, element)
            if element[:1] == _EVENTS:
                counts[BEHIND] += self._wait(store, mark, copy, element)
            else:
                _note_complete(mark, element)
        elif kind == _MARK:
            _note_complete(mark, element)
        elif kind == _STATE:
            until, version = _STATE_HEAD.unpack_from(element, 1)
            rows = self._upgrade(_unpack(element[1 + _STATE_HEAD.size :]), version)
            copy.state.apply(rows, pa.array([], pa.string()))
            store.append("state", self._state_entry(rows))
            mark.state += rows.num_rows
            mark.fired = until if mark.fired is None else max(mark.fired, until)
            mark.handed = until
            # The kernel has not seen these rows: it says at once when it wants to wake.
            mark.wake = until if mark.wake is None else min(mark.wake, until)
        elif kind == _CONTROL:
            control = _control(element)
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
            fired_ms: what the timer was set for, as the runner tells it; a firing for a time
                that is not due yet only sets the timer again.
        """
        mark, copy = self._open(store, copies, key)
        # Known from the state, never from the time that was fired: runners cut that.
        due = mark.due
        fired = None
        if due is not None and (fired_ms is None or fired_ms >= due - 1):
            fired = self._fold(store, mark, copy, due)
        self._close(store, copies, key, mark, copy)
        return fired

    def _fold(self, store: Store, mark: _Mark, copy: _Copy, until: int) -> Fired:
        """Step the kernel up to an order time in ms."""
        events = _due_events(copy, until)
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
        return Fired(until, step.outputs, counts)

    def _fold_overlap(
        self, store: Store, mark: _Mark, copy: _Copy, element: bytes
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
        head = element[1 : 1 + _EVENTS_HEAD.size]
        rest = _MARK + head
        if waiting.last >= end:
            waiting, ahead = _split(waiting, end)
            rest = _EVENTS + head + pack(ahead.table.combine_chunks().to_batches()[0])
        times = np.full(waiting.table.num_rows, end - 1)
        table = _with(waiting.table, "order_time", order_column(times))
        if "log" in table.column_names:
            table = table.drop_columns(["log"])
        events = with_schema([table], ORDERED_SCHEMA)
        arranged = arrange(events, self.kernel.key, self.disorder_us, self.kernel.order)
        state = copy.state.rows_of(arranged[self.kernel.key].chunk(0).dictionary)
        step = self.kernel.step(state, arranged, (), mark.handed)
        changed = step.changed()
        copy.state.apply(changed, step.removed)
        mark.overlaps += 1
        # Entries are read in this order, and these come before those of any firing.
        self._keep_state(store, mark, copy, changed, step.removed, _FIRST + mark.overlaps)
        times_to_wake = [step.wake_at, mark.wake]
        mark.wake = min((t for t in times_to_wake if t is not None), default=None)
        counts = {name: n for name, n in step.counts.items() if name != "events"}
        behind = events.num_rows - counts.get("duplicates", 0)
        return rest, Fired(mark.handed, step.outputs, counts), behind

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
        return Fired(early.until_ms if fired is None else fired.until_ms, outputs, counts)

    def _wait(self, store: Store, mark: _Mark, copy: _Copy, element: bytes) -> int:
        _note_complete(mark, element)
        waiting, behind = self._read_events(element, mark.fired)
        copy.waiting.append(waiting)
        mark.pending += waiting.table.num_rows
        if behind:
            # Stamped anew: what is read from the bag later must have the same times.
            head = element[: 1 + _EVENTS_HEAD.size]
            element = head + pack(waiting.table.combine_chunks().to_batches()[0])
        store.append("pending", element)
        return behind

    def _read_events(self, element: bytes, fired_ms: int | None) -> tuple[_Waiting, int]:
        """Decode events, and stamp those whose granule is over with the end of what is."""
        table = _unpack(element[1 + _EVENTS_HEAD.size :])
        if "order_time" in table.column_names:
            times = table["order_time"].combine_chunks().view(pa.int64()).to_numpy()
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
        return _Waiting(table, int(times.min()), int(times.max())), behind

    def _due(self, mark: _Mark, copy: _Copy) -> int | None:
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
        return (earliest // length + 1) * length

    def _end(self, time_ms: int) -> int:
        return (time_ms // self.granule_ms + 1) * self.granule_ms

    def _complete(self, mark: _Mark, copy: _Copy) -> int:
        """Return the order time in ms before which every reader has given everything."""
        if not mark.splits or len(mark.complete) < mark.splits:
            return -DRAIN
        complete = min(mark.complete.values())
        if complete >= DRAIN:
            latest = max((w.last for w in copy.waiting), default=None)
            return -DRAIN if latest is None else self._end(latest // 1000)
        return complete // self.granule_ms * self.granule_ms

    def _open(self, store: Store, copies: Copies, key: object) -> tuple[_Mark, _Copy]:
        mark = _Mark.of(store.read_mark())
        copy = copies.pop(key)
        if copy is None or copy.token != mark.token or not mark.token:
            copy = self._read(store, mark)
        return mark, copy

    def _read(self, store: Store, mark: _Mark) -> _Copy:
        """Decode the bags."""
        copy = _Copy(mark.token, KeyedRows(self.kernel.state_schema))
        if not mark.token:
            return copy
        for number, removed, rows in sorted(
            map(self._state_of, store.read("state")), key=lambda entry: entry[0]
        ):
            del number
            copy.state.apply(rows, removed)
        for element in store.read("pending"):
            if element[:1] == _CONTROL:
                control = _control(element)
                if mark.fired is None or control.effective >= mark.fired:
                    copy.controls.append(control)
                continue
            waiting, _ = self._read_events(element, None)
            if mark.fired is None or waiting.first >= mark.fired * 1000:
                copy.waiting.append(waiting)
            elif waiting.last >= mark.fired * 1000:
                copy.waiting.append(_split(waiting, mark.fired * 1000)[1])
        return copy

    def _close(self, store: Store, copies: Copies, key: object, mark: _Mark, copy: _Copy) -> None:
        """Write the mark, set the timer, keep the copy."""
        mark.due = None if self.by_marks else self._due(mark, copy)
        if mark.due is not None:
            # With every element, in case the runner has lost the timer (over a savepoint).
            store.set_timer(mark.due - 1)
        mark.token = copy.token = os.urandom(8).hex()
        store.write_mark(mark.to_bytes())
        copies.put(key, copy)
        first = min((w.first for w in copy.waiting), default=0)
        last = max((w.last for w in copy.waiting), default=-1)
        granules = (last - first) // (1000 * self.granule_ms) + 1
        copies.note(key, Stand(mark.fired, copy.rows(), granules, copy.state.live))

    def _keep_state(
        self,
        store: Store,
        mark: _Mark,
        copy: _Copy,
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
                store.append("state", self._state_entry(rows))
            return
        store.append("state", self._state_entry(changed, removed, number))

    def _keep_pending(self, store: Store, mark: _Mark, copy: _Copy) -> None:
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

    def _state_entry(
        self, rows: pa.Table, removed: pa.Array | None = None, number: int | None = None
    ) -> bytes:
        """Encode changed rows and removed keys; entries are applied in the order of `number`."""
        gone = b"" if removed is None or not len(removed) else _pack(pa.table({"key": removed}))
        number = _FIRST if number is None else number
        head = struct.pack("<BHqI", VERSION, self.state_version, number, len(gone))
        return head + gone + _pack(rows)

    def _state_of(self, entry: bytes) -> tuple[int, pa.Array, pa.Table]:
        size = struct.calcsize("<BHqI")
        _, version, number, gone = struct.unpack_from("<BHqI", entry)
        removed = pa.array([], pa.string())
        if gone:
            removed = _unpack(entry[size : size + gone])["key"].combine_chunks()
        return number, removed, self._upgrade(_unpack(entry[size + gone :]), version)

    def _upgrade(self, rows: pa.Table, version: int) -> pa.Table:
        """Turn rows of an older version into the kernel's schema.

        Raises:
            ValueError: they are of a newer version, or of one that is not known any more.
        """
        while version < self.state_version and version in self.upgrades:
            rows = self.upgrades[version](rows)
            version += 1
        if version != self.state_version:
            reason = (
                f"the state of {self.kernel.name} is of version {version}, and this program "
                f"reads up to {self.state_version}: start the program that wrote it"
            )
            raise ValueError(reason)
        return with_schema([rows], self.kernel.state_schema)


def _note_complete(mark: _Mark, element: bytes) -> None:
    """Note what a reader says of itself."""
    complete, split, splits = _EVENTS_HEAD.unpack_from(element, 1)
    if splits:
        mark.splits = splits
        mark.complete[str(split)] = max(complete, mark.complete.get(str(split), complete))


def _due_events(copy: _Copy, until_ms: int) -> pa.Table:
    """Take the events before `until` out of what waits."""
    until = until_ms * 1000
    due, left = [], []
    for waiting in copy.waiting:
        if waiting.last < until:
            due.append(waiting.table)
        elif waiting.first >= until:
            left.append(waiting)
        else:
            now, later = _split(waiting, until)
            due.append(now.table)
            left.append(later)
    copy.waiting = left
    return with_schema(due, ORDERED_SCHEMA)


def _split(waiting: _Waiting, until: int) -> tuple[_Waiting, _Waiting]:
    times = waiting.table["order_time"].combine_chunks().view(pa.int64()).to_numpy()
    early = times < until
    parts = []
    for chosen in (early, ~early):
        part = times[chosen]
        parts.append(
            _Waiting(waiting.table.filter(pa.array(chosen)), int(part.min()), int(part.max()))
        )
    return parts[0], parts[1]


def _stacked(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).unify_dictionaries()


def _with(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def _control(element: bytes) -> Control:
    effective, length = _CONTROL_HEAD.unpack_from(element, 1)
    begin = 1 + _CONTROL_HEAD.size
    return Control(
        effective, element[begin : begin + length].decode(), bytes(element[begin + length :])
    )


def _pack(rows: pa.Table) -> bytes:
    return pack(without_nulls(rows).combine_chunks().to_batches()[0] if rows.num_rows else rows)


def _unpack(packed: bytes) -> pa.Table:
    found = unpack(packed)
    if not isinstance(found, pa.Table):
        reason = "a stream's batches are passed by value"
        raise ValueError(reason)  # noqa: TRY004
    return found
