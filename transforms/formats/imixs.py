"""What the Imixs formats share: from the picked items of a batch of documents to events.

A document is a snapshot of a workitem. Its `$eventlog` gives one event a line; what else the
snapshot says (status, business items, transaction) belongs to the last line only. The formats
pick the wanted items (`Picked`, one row a value); everything after that is columnar here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import TIME
from transforms.formats.assemble import assemble
from transforms.formats.base import Context, Decoded, Message
from transforms.formats.eventlog import (
    NO_NUMBER,
    Integers,
    Mask,
    blank_to_null,
    explain_line,
    identify_lines,
    microseconds,
    order_lines,
    parse_integers,
    parse_lines,
)
from transforms.formats.imixs_input import Batch, Problem
from transforms.formats.times import RANGE, out_of_range, parse_times
from transforms.hashing import hash_strings

LOG = ("$eventlog", "txtworkflowactivitylog")
DEPRECATED_LOG = "$eventlogdeprecated"
UNIQUE_ID, TYPE, CREATED, TRANSACTION = "$uniqueid", "type", "$created", "$transactionid"
GROUP = ("$workflowgroup", "txtworkflowgroup")
MODEL_VERSION = "$modelversion"
EDITOR = ("$editor", "$lasteditor", "namlasteditor")
LAST_TIME = ("$lasteventdate", "$modified")
TASK = ("$taskid", "$processid")
LAST_TASK = "$lasttask"
LAST_EVENT = ("$lastevent", "numlastactivityid", "$activityid")
ITEMS = (
    *LOG, DEPRECATED_LOG, UNIQUE_ID, TYPE, CREATED, TRANSACTION, *GROUP, MODEL_VERSION, *EDITOR,
    *LAST_TIME, *TASK, LAST_TASK, *LAST_EVENT,
)  # fmt: skip
"""Items that events are made of."""

ORIGINS = {
    "event_id": "identity of the line: case, time, tasks, event",
    "case_id": "$uniqueid",
    "event_time": "a line of $eventlog, else $lasteventdate",
    "activity": "event of the line, else $lastevent",
    "state": "target task of the line, else $taskid",
    "source_state": "source task of the line, else $lasttask",
    "actor": "actor of the line, else $editor",
    "workflow_group": "$workflowgroup",
    "model_version": "model version of the line, else $modelversion",
    "transaction_id": "$transactionid",
}
"""Event column -> where it comes from, for people."""

WORKITEMS = ("workitem", "workitemarchive", "snapshot-workitem", "snapshot-workitemarchive")
"""Types of documents that are workflow instances."""

CUT_LINES = 30
"""Lines that an engine of the old log form keeps."""

CREATION_US = 5_000_000
"""A log that begins this soon after `$created`, or before, has its first line."""

_SNAPSHOT_SUFFIX = r"-\d{13}$"


@dataclass(frozen=True)
class Picked:
    """Wanted items of a batch of documents, one row a value, by document and in its order.

    Attributes:
        document: number of the document in the batch, ascending.
        item: index in the wanted names.
        value: its text (string array without nulls).
        problems: documents that could not be read.
    """

    document: Integers
    item: Integers
    value: pa.Array
    problems: Mapping[int, Problem]


def wanted_items(context: Context) -> tuple[str, ...]:
    """Return the names of the items to pick: those of events and those of `--items`."""
    return tuple(dict.fromkeys((*ITEMS, *(name.lower() for name in context.items))))


class _Snapshots:
    """The picked items of a batch by name."""

    def __init__(self, picked: Picked, names: Sequence[str], count: int) -> None:
        self._picked = picked
        self._codes = {name: code for code, name in enumerate(names)}
        self.count = count

    def rows(self, name: str) -> npt.NDArray[np.intp]:
        """Return the rows of `Picked` that hold values of an item."""
        return np.flatnonzero(self._picked.item == self._codes[name])

    def first(self, *names: str) -> pa.Array:
        """Return the first value of each document, of the first of the items that has one."""
        columns = [blank_to_null(self._first(name)) for name in names]
        return columns[0] if len(columns) == 1 else pc.coalesce(*columns)

    def _first(self, name: str) -> pa.Array:
        rows = self.rows(name)
        documents = self._picked.document[rows]
        leading = np.ones(len(rows), np.bool_)
        leading[1:] = documents[1:] != documents[:-1]
        at = np.full(self.count, -1, np.int64)
        at[documents[leading]] = rows[leading]
        return self._picked.value.take(pa.array(at, mask=at < 0))

    def texts(self, name: str, live: Mask) -> tuple[pa.Array, Integers]:
        """Return one text a document that has an item: its value, or a JSON array of several."""
        rows = self.rows(name)
        rows = rows[live[self._picked.document[rows]]]
        documents = self._picked.document[rows]
        leading = np.ones(len(rows), np.bool_)
        leading[1:] = documents[1:] != documents[:-1]
        starts = np.flatnonzero(leading)
        values = self._picked.value.take(pa.array(rows))
        texts = values.take(pa.array(starts))
        counts = np.diff(np.append(starts, len(rows)))
        several = counts > 1
        if several.any():
            joined = [
                orjson.dumps(values[start : start + count].to_pylist()).decode()
                for start, count in zip(starts[several], counts[several], strict=True)
            ]
            texts = pc.replace_with_mask(texts, pa.array(several), pa.array(joined))
        return texts, documents[starts]

    def values(self, name: str, live: Mask) -> tuple[pa.Array, Integers]:
        """Return the values of an item that are not blank, and their documents."""
        rows = self.rows(name)
        rows = rows[live[self._picked.document[rows]]]
        values = self._picked.value.take(pa.array(rows))
        empty = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(values)), 0)
        if pc.any(empty).as_py():
            keep = ~empty.to_numpy(zero_copy_only=False)
            rows, values = rows[keep], values.filter(pa.array(keep))
        return values, self._picked.document[rows]


@dataclass(frozen=True)
class _Rows:
    """Event rows before the snapshots' own columns are added, by document.

    Attributes:
        document: number of the document.
        time: in µs.
        source_task: `NO_NUMBER` if there is none.
        event: the event.
        task: the task it led to.
        model_version: string, null where the line has none.
        actor: string, null where the line has none.
        logged: whether it is a line of a log.
    """

    document: Integers
    time: Integers
    source_task: Integers
    event: Integers
    task: Integers
    model_version: pa.Array
    actor: pa.Array
    logged: Mask

    def __len__(self) -> int:
        return len(self.document)


@dataclass(frozen=True)
class _Logs:
    """What the logs of a batch hold.

    Attributes:
        rows: their readable lines.
        unreadable: (document, line).
        counts: lines of each document, blank ones aside.
        cut: documents whose engine has kept the last lines only.
    """

    rows: _Rows
    unreadable: Sequence[tuple[int, str]]
    counts: Integers
    cut: Mask


def decode_documents(
    batch: Batch,
    picked: Picked,
    context: Context,
    payload_of: Callable[[int], bytes],
) -> Decoded:
    """Make events of a batch of documents.

    Args:
        batch: the documents, and what failed or was skipped before.
        picked: their wanted items (`wanted_items` of the context).
        context: settings.
        payload_of: gives the bytes of a document, for its failure.
    """
    documents = batch.documents
    items = _Snapshots(picked, wanted_items(context), len(documents))
    problems = dict(picked.problems)
    live = np.ones(len(documents), np.bool_)
    live[list(problems)] = False
    kind = items.first(TYPE)
    skip = live & _true(pc.invert(pc.or_(kind.is_null(), pc.is_in(kind, pa.array(WORKITEMS)))))
    live &= ~skip
    case_id = _case_ids(items.first(UNIQUE_ID), kind)
    nameless = live & _true(case_id.is_null())
    for number in np.flatnonzero(nameless).tolist():
        problems[number] = Problem("MissingCaseId", f"the document has no {UNIQUE_ID}")
    live &= ~nameless
    logs = _read_logs(items, live, context.timezone)
    last = _last_rows(items, live & (logs.counts == 0), context.timezone, problems)
    rows = _concatenate(logs.rows, last)
    failures = list(batch.failures)
    for number in sorted(problems):
        failures.append(batch.failure(documents[number], payload_of(number), problems[number]))
    dead = len(failures)
    for number, line in logs.unreadable:
        problem = Problem("BadEventLogLine", explain_line(line, context.timezone))
        bad = batch.failure(documents[number], line.encode(), problem)
        part = {"part": LOG[0], UNIQUE_ID: case_id[number].as_py()}
        failures.append(replace(bad, attributes={**bad.attributes, **part}))
    skipped = int(skip.sum())
    return Decoded(
        events=_events(rows, logs.cut, items, case_id, documents, context),
        failures=failures,
        decoded=len(documents) - len(problems) - skipped,
        skipped=batch.skipped + skipped,
        dead=dead,
        rejected=len(logs.unreadable),
        warnings=list(dict.fromkeys(batch.warnings)),
        messages=len(documents) + len(batch.failures) + batch.skipped,
    )


def _case_ids(unique_id: pa.Array, kind: pa.Array) -> pa.Array:
    """Return the case of each document: a snapshot's is its origin."""
    snapshot = pc.starts_with(kind, "snapshot-").fill_null(False)
    if not pc.any(snapshot).as_py():
        return unique_id
    origin = pc.replace_substring_regex(unique_id, _SNAPSHOT_SUFFIX, "")
    return pc.if_else(snapshot, origin, unique_id)


def _read_logs(items: _Snapshots, live: Mask, timezone: str) -> _Logs:
    """Read the logs of documents; the deprecated twin counts where there is no log."""
    lines, document = items.values(LOG[0], live)
    counts = np.bincount(document, minlength=items.count)
    without = live & (counts == 0)
    twin, twin_document = items.values(LOG[1], without)
    if len(twin):
        document = np.concatenate([document, twin_document])
        order = np.argsort(document, kind="stable")
        lines = pa.concat_arrays([lines, twin]).take(pa.array(order))
        document = document[order]
        counts = np.bincount(document, minlength=items.count)
    parsed = parse_lines(lines, timezone)
    good = parsed.readable
    _, migrated = items.values(DEPRECATED_LOG, live)
    # An unreadable line among old ones was old.
    kept = np.bincount(document[parsed.old | ~good], minlength=items.count) == CUT_LINES
    kept &= np.bincount(document[parsed.old & good], minlength=items.count) > 0
    kept |= np.bincount(migrated, minlength=items.count) == CUT_LINES
    rows = _Rows(
        document,
        microseconds(parsed.time),
        parsed.source_task,
        parsed.event,
        parsed.task,
        parsed.model_version,
        parsed.actor,
        np.ones(len(document), np.bool_),
    )
    unreadable: list[tuple[int, str]] = []
    if not good.all():
        bad = np.flatnonzero(~good)
        texts = lines.take(pa.array(bad)).to_pylist()
        unreadable = list(zip(document[bad].tolist(), texts, strict=True))
        rows = _select(rows, np.flatnonzero(good))
    return _Logs(rows, unreadable, counts, kept)


def _last_rows(items: _Snapshots, live: Mask, timezone: str, problems: dict[int, Problem]) -> _Rows:
    """Make a row of the last event of each document without a log, or a problem of it."""
    numbers = np.flatnonzero(live)
    at = pa.array(numbers)
    when = items.first(*LAST_TIME).take(at)
    time = parse_times(when, timezone)
    task = items.first(*TASK).take(at)
    tasks, task_ok = parse_integers(task)
    good = task_ok & _true(time.is_valid())
    for row in np.flatnonzero(~good).tolist():
        problems[int(numbers[row])] = _last_problem(
            when[row].as_py(), time[row].is_valid, task[row].as_py()
        )
    source_task, source_ok = parse_integers(items.first(LAST_TASK).take(at))
    event, event_ok = parse_integers(items.first(*LAST_EVENT).take(at))
    rows = _Rows(
        document=numbers,
        time=microseconds(time),
        source_task=np.where(source_ok, source_task, NO_NUMBER),
        # The engine reads a missing number as 0.
        event=np.where(event_ok, event, 0),
        task=tasks,
        model_version=pa.nulls(len(numbers), pa.string()),
        actor=pa.nulls(len(numbers), pa.string()),
        logged=np.zeros(len(numbers), np.bool_),
    )
    return rows if good.all() else _select(rows, np.flatnonzero(good))


def _last_problem(when: str | None, readable: bool, task: str | None) -> Problem:
    """Say why a document without a log gives no event."""
    if when is None:
        return Problem("MissingTime", f"no {LOG[0]}, and no {' or '.join(LAST_TIME)} either")
    if not readable:
        wrong = (
            f"is out of range (a time is from {RANGE})"
            if out_of_range(pa.array([when]))[0]
            else "cannot be read"
        )
        return Problem("BadTime", f"{' or '.join(LAST_TIME)} {wrong}: {when!r}")
    if task is None:
        return Problem("MissingTask", f"no {LOG[0]}, and no {' or '.join(TASK)} either")
    return Problem("BadTask", f"{' or '.join(TASK)} is not a number: {task!r}")


def _concatenate(logged: _Rows, last: _Rows) -> _Rows:
    """Put the rows of logs and of documents without a log together, by document."""
    if not len(last):
        return logged
    both = _Rows(
        *(
            pa.concat_arrays([ours, theirs])
            if isinstance(ours, pa.Array)
            else np.concatenate([ours, theirs])
            for ours, theirs in zip(_columns(logged), _columns(last), strict=True)
        )
    )
    return _select(both, np.argsort(both.document, kind="stable"))


def _select(rows: _Rows, at: npt.NDArray[np.intp]) -> _Rows:
    arrow = pa.array(at)
    return _Rows(*(c.take(arrow) if isinstance(c, pa.Array) else c[at] for c in _columns(rows)))


def _columns(rows: _Rows) -> list[Any]:
    return [getattr(rows, column.name) for column in fields(rows)]


def _events(
    rows: _Rows,
    cut: Mask,
    items: _Snapshots,
    case_id: pa.Array,
    documents: Sequence[Message],
    context: Context,
) -> pa.Table:
    """Build the event table: a line's columns on its row, the snapshot's on its last row."""
    n = len(rows)
    order = order_lines(rows.document, rows.time, rows.source_task, rows.event, rows.task)
    at = pa.array(rows.document)
    # As a dictionary, a case id is hashed once a document.
    case = pa.DictionaryArray.from_arrays(at.cast(pa.int32()), case_id.fill_null(""))
    event_id = identify_lines(
        case, rows.time, rows.source_task, rows.event, rows.task, order.repeat
    )
    is_last = np.zeros(n, np.bool_)
    is_last[order.last] = True
    last_document = pa.array(rows.document, mask=~is_last)
    columns = {
        "event_id": event_id,
        "case_id": case,
        "event_time": pa.array(rows.time).view(TIME),
        "activity": _number_names(rows.event),
        "state": _number_names(rows.task),
        "source_state": _number_names(rows.source_task),
        "task": _int32(rows.task),
        "event": _int32(rows.event),
        "source_task": _int32(rows.source_task),
        "actor": pc.coalesce(rows.actor, items.first(*EDITOR).take(last_document)),
        "workflow_group": items.first(*GROUP).dictionary_encode().take(at),
        "model_version": pc.coalesce(rows.model_version, items.first(MODEL_VERSION).take(at)),
        "position": order.position,
        "transaction_id": items.first(TRANSACTION).take(last_document),
        "attributes": _attributes(items, context, rows.document[order.last], order.last, n),
        "record_time": pa.array([m.record_time for m in documents], TIME).take(at),
        "log": _log_hashes(event_id, rows, order.last),
        "truncated": _truncated(rows, cut, items, order.first, context.timezone),
        "source": pa.array([m.source for m in documents], pa.string()).dictionary_encode().take(at),
        "source_offset": pa.array([m.offset for m in documents], pa.int64()).take(at),
    }
    return assemble(columns, n)


def _truncated(
    rows: _Rows, cut: Mask, items: _Snapshots, first: npt.NDArray[np.intp], timezone: str
) -> pa.Array:
    """Mark the first line of a log that was cut, unless the case was created just then."""
    first = first[cut[rows.document[first]]]
    document = rows.document[first]
    created = microseconds(parse_times(items.first(CREATED).take(pa.array(document)), timezone))
    first = first[rows.time[first] > created + CREATION_US]
    marked = np.zeros(len(rows), np.bool_)
    marked[first] = True
    return pa.array(marked, mask=~marked)


def _log_hashes(event_id: pa.Array, rows: _Rows, last: npt.NDArray[np.intp]) -> pa.Array:
    """Put the hashes of all lines of a log, in its order, on its last line."""
    last = last[rows.logged[last]]
    hashes = hash_strings(event_id)[rows.logged]
    counts = np.bincount(rows.document)[rows.document[last]]
    return pa.ListArray.from_arrays(_list_offsets(last, counts, len(rows)), pa.array(hashes))


def _attributes(
    items: _Snapshots, context: Context, document: Integers, last: npt.NDArray[np.intp], n: int
) -> pa.Array | None:
    """Put the picked business items of a document on its last row; several values as JSON."""
    names = list(dict.fromkeys(name.lower() for name in context.items))
    if not names:
        return None
    live = np.zeros(items.count, np.bool_)
    live[document] = True
    keys, documents, texts = [], [], []
    for code, name in enumerate(names):
        values, of = items.texts(name, live)
        keys.append(np.full(len(of), code))
        documents.append(of)
        texts.append(values)
    of = np.concatenate(documents)
    order = np.lexsort((np.concatenate(keys), of))
    counts = np.bincount(of, minlength=items.count)[document]
    key = pa.array(names).take(pa.array(np.concatenate(keys)[order]))
    text = pa.concat_arrays(texts).take(pa.array(order))
    return pa.MapArray.from_arrays(_list_offsets(last, counts, n), key, text)


def _list_offsets(rows: npt.NDArray[np.intp], counts: Integers, n: int) -> pa.Array:
    """Return offsets of lists on some rows (ascending), with their lengths; other rows are null."""
    lengths = np.zeros(n + 1, np.int64)
    lengths[rows + 1] = counts
    null = np.ones(n + 1, np.bool_)
    null[rows] = False
    null[n] = False
    return pa.array(np.cumsum(lengths), pa.int32(), mask=null)


def _int32(numbers: Integers) -> pa.Array:
    return pa.array(numbers, mask=numbers == NO_NUMBER).cast(pa.int32())


def _number_names(numbers: Integers) -> pa.Array:
    """Return numbers as text, a dictionary of the distinct ones."""
    codes = _int32(numbers).dictionary_encode()
    return pa.DictionaryArray.from_arrays(codes.indices, codes.dictionary.cast(pa.string()))


def _true(condition: pa.Array) -> Mask:
    mask: Mask = condition.fill_null(False).to_numpy(zero_copy_only=False)
    return mask
