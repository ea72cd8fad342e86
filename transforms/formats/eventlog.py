"""Lines of an Imixs `$eventlog`: reading their three forms, their order, and what identifies them.

Engines have written `time|model|source|event|target|actor|comment` since 2024, before that
`time|model|source.event|target|comment` without a zone, and long ago
`dd.MM.yyyy HH:mm:ss|source.event:=target`. A new engine rewrites old lines when it first
touches them, so all forms are read to one, and the identity of a line is taken from that one.
Everything works on the lines of a whole batch of logs at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import TIME
from transforms.formats.times import RANGE, out_of_range, parse_times
from transforms.hashing import identify

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NO_NUMBER = int(np.iinfo(np.int64).min)
"""Stands for a missing number in identities."""

_LARGEST = 2**31 - 1
_GERMAN_TIME = r"^\s*(\d\d)\.(\d\d)\.(\d{4})\s+(\d\d:\d\d(?::\d\d)?)\s*$"
_OLD_STEP = r"(?P<source>[^.]*)\.(?P<event>.*)"
_OLDEST_STEP = r"(?P<source>[^.]*)\.(?P<event>[^:]*):=(?P<task>.*)"


@dataclass(frozen=True)
class Lines:
    """Log lines in one form; every array has a row for each line given.

    Attributes:
        readable: whether the line could be read; elsewhere the other columns mean nothing.
        old: whether it is in one of the forms that an engine cuts at 30 lines.
        time: timestamp[us, UTC].
        model_version: string, null if empty.
        source_task: the task it came from.
        event: the event.
        task: the task it led to.
        actor: string, null if empty or not in this form.
    """

    readable: Mask
    old: Mask
    time: pa.Array
    model_version: pa.Array
    source_task: Integers
    event: Integers
    task: Integers
    actor: pa.Array


@dataclass(frozen=True)
class Order:
    """Where each line stands in its log; logs are numbered from 0 and have at least one line.

    Attributes:
        position: rank among the lines of its log that have its time, in log order.
        repeat: how many lines before it in its log have the same time, tasks and event.
        first: for each log present, the row of its earliest line.
        last: for each log present, the row of its latest line.
    """

    position: Integers
    repeat: Integers
    first: npt.NDArray[np.intp]
    last: npt.NDArray[np.intp]


def parse_lines(lines: pa.Array, timezone: str) -> Lines:
    """Read log lines of any form.

    Args:
        lines: string array without nulls.
        timezone: IANA zone of the times that have none (the old forms).
    """
    n = len(lines)
    split = pc.split_pattern(lines, "|", max_splits=6)
    starts = split.offsets.to_numpy()[:-1].astype(np.int64)
    counts = np.diff(split.offsets.to_numpy())

    def part(k: int) -> pa.Array:
        """Return the k-th part of each line; null where it has none."""
        if n and int(counts.min()) > k:
            return split.values.take(pa.array(starts + k))
        return split.values.take(pa.array(starts + k, mask=counts <= k))

    times, models, sources, actors = part(0), part(1), part(2), part(5)
    events, tasks = part(3), part(4)
    oldest = _true(pc.match_substring(models, ":="))
    old = ~oldest & (counts >= 4) & _true(pc.match_substring(sources, "."))
    if old.any():
        step = _extract(sources, old, _OLD_STEP)
        tasks = _replace(tasks, old, events.filter(pa.array(old)))
        sources, events = _replace(sources, old, step[0]), _replace(events, old, step[1])
        actors = _clear(actors, old)
    if oldest.any():
        step = _extract(models, oldest, _OLDEST_STEP)
        sources, events = _replace(sources, oldest, step[0]), _replace(events, oldest, step[1])
        tasks = _replace(tasks, oldest, step[2])
        models, actors = _clear(models, oldest), _clear(actors, oldest)
        german = times.filter(pa.array(oldest))
        iso = pc.replace_substring_regex(german, _GERMAN_TIME, r"\3-\2-\1T\4")
        times = _replace(times, oldest, iso)
    # A bare number would be taken for an epoch, which no engine writes here.
    dated = pc.greater(pc.find_substring(times, "-"), 0)
    if not pc.all(dated).as_py():
        times = pc.if_else(dated, times, pa.scalar(None, pa.string()))
    when = parse_times(times, timezone)
    source, source_ok = parse_integers(sources)
    event, event_ok = parse_integers(events)
    task, task_ok = parse_integers(tasks)
    return Lines(
        readable=_true(when.is_valid()) & source_ok & event_ok & task_ok,
        old=old | oldest,
        time=when,
        model_version=blank_to_null(models),
        source_task=source,
        event=event,
        task=task,
        actor=blank_to_null(actors),
    )


def explain_line(line: str, timezone: str) -> str:
    """Say in one sentence what is wrong with a line that `parse_lines` could not read."""
    parts = line.split("|", 6)
    time = parts[0]
    oldest = re.fullmatch(_OLDEST_STEP, parts[1], re.DOTALL) if len(parts) > 1 else None
    old = re.fullmatch(_OLD_STEP, parts[2], re.DOTALL) if len(parts) > 3 else None
    if oldest:
        numbers = list(oldest.groups())
        time = re.sub(_GERMAN_TIME, r"\3-\2-\1T\4", time)
    elif old:
        numbers = [*old.groups(), parts[3]]
    elif len(parts) >= 5:
        numbers = parts[2:5]
    else:
        return f"a log line has 5 to 7 parts (4 or 5 in its old form), not {len(parts)}: {line!r}"
    for name, number in zip(("source task", "event", "target task"), numbers, strict=True):
        if not parse_integers(pa.array([number]))[1][0]:
            return f"the {name} of a log line is not a number: {number!r}"
    if "-" not in time[1:] or parse_times(pa.array([time]), timezone)[0].as_py() is None:
        if "-" in time[1:] and out_of_range(pa.array([time]))[0]:
            return f"the time of a log line is out of range (from {RANGE}): {time!r}"
        return f"the time of a log line cannot be read: {time!r}"
    return f"a log line cannot be read: {line!r}"


def parse_integers(column: pa.Array) -> tuple[Integers, Mask]:
    """Read ids (decimal digits up to 2^31 - 1): their values, and which rows hold one."""
    valid = _true(pc.ascii_is_decimal(column)) & _true(pc.less_equal(pc.binary_length(column), 10))
    if not valid.all():
        column = pc.if_else(pa.array(valid), column, "0")
    values = column.cast(pa.int64()).to_numpy()
    return values, valid & (values <= _LARGEST)


def blank_to_null(column: pa.Array) -> pa.Array:
    """Replace empty strings by nulls."""
    empty = pc.equal(pc.binary_length(column), 0)
    if not pc.any(empty).as_py():
        return column
    return pc.if_else(empty, pa.scalar(None, pa.string()), column)


def order_lines(
    log: Integers, time: Integers, source_task: Integers, event: Integers, task: Integers
) -> Order:
    """Rank the lines of each log by time; of one time, the order in the log counts.

    Args:
        log: number of each line's log, ascending; the lines of a log are in its order.
        time: in µs.
        source_task: the task it came from.
        event: the event.
        task: the task it led to.
    """
    n = len(log)
    rows = np.arange(n)
    position = np.zeros(n, np.int64)
    repeat = np.zeros(n, np.int64)
    same_log = log[1:] == log[:-1]
    order = rows
    if bool((same_log & (time[1:] < time[:-1])).any()):
        order = np.lexsort((time, log))
    sorted_time = time[order]  # the log numbers are sorted already
    new_log = np.ones(n, np.bool_)
    new_log[1:] = ~same_log
    new_time = new_log.copy()
    new_time[1:] |= sorted_time[1:] != sorted_time[:-1]
    starts = np.flatnonzero(new_log)
    if not new_time.all():
        position[order] = _running(new_time)
        # Only lines that share their time with another one can repeat it.
        alone = new_time & np.append(new_time[1:], True)
        shared = np.sort(order[~alone])
        keys = [log, time, source_task, event, task]
        by_all = shared[np.lexsort([key[shared] for key in reversed(keys)])]
        new_line = np.ones(len(by_all), np.bool_)
        new_line[1:] = np.any([key[by_all][1:] != key[by_all][:-1] for key in keys], axis=0)
        repeat[by_all] = _running(new_line)
    ends = np.append(starts[1:], n) - 1 if n else starts
    return Order(position, repeat, order[starts], order[ends])


def identify_lines(
    case_id: pa.Array,
    time: Integers,
    source_task: Integers,
    event: Integers,
    task: Integers,
    repeat: Integers,
) -> pa.Array:
    """Return the event id of each line: 32 hexadecimal digits, the same in every snapshot."""
    return identify([case_id], [time, source_task, event, task, repeat])


def microseconds(times: pa.Array) -> Integers:
    """Return timestamps as µs since the epoch; null is `NO_NUMBER`."""
    values: Integers = times.cast(TIME).view(pa.int64()).fill_null(NO_NUMBER).to_numpy()
    return values


def _running(new: Mask) -> Integers:
    """Number the rows from 0 within each run that a True begins."""
    rows = np.arange(len(new))
    return rows - np.maximum.accumulate(np.where(new, rows, 0))


def _true(condition: pa.Array) -> Mask:
    """Return an Arrow condition as a mask; null is False."""
    mask: Mask = condition.fill_null(False).to_numpy(zero_copy_only=False)
    return mask


def _extract(column: pa.Array, rows: Mask, pattern: str) -> list[pa.Array]:
    """Return the groups of a pattern for the rows of a mask, null where it does not match."""
    found = pc.extract_regex(column.filter(pa.array(rows)), f"(?s)^{pattern}$")
    return found.flatten()


def _replace(column: pa.Array, rows: Mask, values: pa.Array) -> pa.Array:
    """Return the column with other values, one for each row of the mask."""
    return pc.replace_with_mask(column, pa.array(rows), values)


def _clear(column: pa.Array, rows: Mask) -> pa.Array:
    return pc.if_else(pa.array(rows), pa.scalar(None, pa.string()), column)
