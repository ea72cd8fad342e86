"""JSON Lines: one JSON object a line, in files, messages and dead letters.

Owns how files are cut and how lines become events; `json_columns` reads the fields of the
lines, `columns` makes events of them.
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, BinaryIO

import orjson
import pyarrow as pa

from schemas.events import empty_events
from transforms.arrays import texts_of
from transforms.formats.base import (
    BATCH_BYTES,
    Context,
    Decoded,
    InputFile,
    Message,
    MessageBatch,
    Span,
    dead_row,
    decoded_rows,
)
from transforms.formats.columns import (
    INTEGERS,
    KNOWN,
    REQUIRED,
    TIMES,
    ColumnMap,
    build_events,
    map_columns,
    message_columns,
    name_column,
    replay_attributes,
    skipped_by,
    to_attributes,
)
from transforms.formats.heads import Heads, Mask
from transforms.formats.json_columns import LineColumns, Path, read_lines, read_value, value_at
from transforms.formats.json_names import (
    THAT_IS_UNIQUE,
    Lines,
    NamePlan,
    plan_names,
    read_by_names,
    without_skipped,
)
from transforms.formats.line_blocks import (
    Block,
    Offsets,
    Rest,
    Utf8Stream,
    as_lines,
    line_bounds,
    merge,
    read_blocks,
)
from transforms.formats.mapping.rules import EventMapping, is_path, path_of

SPAN_BYTES = 64 * 1024 * 1024
"""Length of the parts that an uncompressed file is cut into."""

HEAD_BYTES = 256 * 1024
"""First bytes of a file from which its columns are recognised."""

SAMPLE_LINES = 200
"""Lines from which columns and types are seen."""

MERGE_MESSAGES = 8_192
"""Small files are joined to batches of about so many messages."""

_SHAPES = (
    "its objects name their columns differently, so each one's own names count, and an event_id "
    f"{THAT_IS_UNIQUE}"
)
_BOM = b"\xef\xbb\xbf"
_AMBIGUOUS = re.compile(r"[.\[]")
_WIDE = re.compile(r"utf[-_]?(16|32)", re.IGNORECASE)


_Columns = dict[str, pa.Array]


@dataclass(frozen=True)
class LinePlan:
    """What to read of each line.

    Attributes:
        map: which input columns feed events.
        paths: input column -> its path.
        times: input columns that are times only.
        encoding: of the lines.
        own: the settings by which each object's own names count (`json_names`), where objects
            of several shapes have required columns under different names; else None.
    """

    map: ColumnMap
    paths: Mapping[str, Path]
    times: frozenset[str]
    encoding: str
    own: Context | None = None

    def warnings(self, of: str) -> tuple[str, ...]:
        """Say what is amiss with the columns of `of`, a file or the like."""
        return self.map.warnings(of) if self.own is None else (f"{of}: {_SHAPES}",)


class JsonLines:
    """The `json_lines` format (see `transforms.formats.base.Format`)."""

    name = "json_lines"
    title = "JSON Lines: one object a line"
    expansion = 1.2
    python_bound = False

    def detects(self, head: bytes, name: str) -> bool:
        """Say whether the first line is a JSON object of its own."""
        line = head.removeprefix(_BOM).lstrip().split(b"\n", 1)[0].strip()
        named = re.search(r"\.(jsonl|ndjson|jsonlines)(\.|$)", name, re.IGNORECASE) is not None
        if head and not line:
            return named  # blank lines only
        if not line.startswith(b"{"):
            return False
        try:
            return isinstance(orjson.loads(line), dict)
        except orjson.JSONDecodeError:
            # A first line longer than the head; or a broken one, which the name must vouch for.
            return named

    def spans(self, file: InputFile, context: Context) -> list[Span]:
        """Cut an uncompressed file every 64 MiB; a line belongs to the part in which it starts."""
        if file.compressed or file.size <= SPAN_BYTES or _WIDE.search(context.encoding):
            return [Span()]
        starts = range(0, file.size, SPAN_BYTES)
        return [Span(at, at + SPAN_BYTES if at + SPAN_BYTES < file.size else None) for at in starts]

    def read(self, work: Sequence[tuple[InputFile, Span]], context: Context) -> Iterator[Decoded]:
        """Read spans; `position` and `source_offset` are the byte offset of the line."""
        return merge(self._parts(work, context), MERGE_MESSAGES)

    def _parts(self, work: Sequence[tuple[InputFile, Span]], context: Context) -> Iterator[Decoded]:
        plans: dict[str, LinePlan] = {}
        for file, span in work:
            yield from _read_span(file, span, plans, context)

    def recognise(
        self, payloads: Sequence[bytes], context: Context
    ) -> tuple[Context, tuple[str, ...]]:
        """Fix the columns; whether one is an id or a number is never guessed again."""
        plan = plan_lines(payloads, context)
        if plan.own is not None:
            return plan.own, plan.warnings("the topic")
        found = plan.map
        # A column that none of them has may come later, under its own name.
        taken = {"event_id", *INTEGERS, *found.columns.values()}
        if context.mapping is not None:
            taken |= set(context.mapping.columns)
            taken |= set() if context.mapping.recognise else set(KNOWN)
        later = {c: "" if c in taken else c for c in KNOWN if c not in REQUIRED}
        columns = {**later, **found.columns, **context.columns}
        fixed = replace(context, columns=columns, own_names=True)
        return fixed, found.warnings("the topic")

    def claims(self, heads: Heads) -> Mask:
        """Say which messages are JSON objects, of whatever kind (see `Claiming`)."""
        return heads.first == ord("{")

    def mapping_of(self, sample: InputFile | Sequence[bytes], context: Context) -> ColumnMap:
        """Return which keys feed events, as the first lines have them."""
        if isinstance(sample, InputFile):
            sample = _head_lines(_read_head(sample, context))
        return plan_lines(sample, context).map

    def decode(self, messages: Sequence[Message], context: Context) -> Decoded:
        """Decode messages of one JSON object each."""
        batch = messages if isinstance(messages, MessageBatch) else None
        bodies = batch.bodies if batch else pa.array([m.payload for m in messages], pa.binary())
        data, starts, ends, several = as_lines(bodies)
        lines_of = (data, starts, ends)
        plan = _fixed_plan(context)
        warnings: tuple[str, ...] = ()
        if plan is None and context.own_names:
            columns, items, found = _read_by_names(lines_of, context, several)
        else:
            plan = plan or plan_lines(texts_of(bodies), context)
            columns, items, found = _read(*lines_of, plan, context, several)
            warnings = plan.warnings("messages") if messages else ()
        lines = found.lines.tolist()
        taken: Sequence[Message]
        if batch is not None:
            taken = kept = batch.pick(lines)
            bodies = kept.bodies
        else:
            taken = [messages[i] for i in lines]
            bodies = pa.array(
                [None if m.record_time is None else m.payload for m in taken], pa.binary()
            )
        events, refusals = build_events(
            columns,
            len(taken),
            context,
            message_columns(taken),
            to_attributes(items, len(taken), context),
            bodies,
        )
        refused = [(int(found.lines[r.row]), r.error, r.message) for r in refusals]
        failures = []
        for line, error, message in sorted(found.failures + refused):
            dead = messages[line]
            attributes = {**dead.attributes, **replay_attributes(self.name, context)}
            failures.append(dead_row(dead.payload, dead.place, error, message, attributes))
        return decoded_rows(events, failures, len(messages), found.blank, warnings)


FORMAT = JsonLines()


def _read_span(
    file: InputFile, span: Span, plans: dict[str, LinePlan], context: Context
) -> Iterator[Decoded]:
    """Decode the lines that start in the span."""
    attributes = replay_attributes(FORMAT.name, context)
    with file.opener() as stream:
        blocks = read_blocks(
            utf8_stream(stream, context.encoding),
            BATCH_BYTES,
            context.max_message_bytes,
            span.start,
            span.end,
        )
        first = next(blocks, None)
        if first is None:
            if span.start == 0:
                yield Decoded(empty_events(), warnings=(f"{file.path} is empty",))
            return
        second = None
        blank = False
        if file.path not in plans:
            plans.clear()
            head = b""
            if span.start == 0 and isinstance(first, Block):
                # The first block is as good as the file's head if it holds all of that.
                if len(first.data) < HEAD_BYTES:
                    second = next(blocks, None)
                head = b"" if isinstance(second, Block) else first.data
            head = head or _read_head(file, context)
            blank = bool(head) and not head.strip()
            plans[file.path] = plan_lines(_head_lines(head), context)
        plan = plans[file.path]
        warnings = (f"{file.path} is empty",) if blank else plan.warnings(file.path)
        for block in itertools.chain([first], [] if second is None else [second], blocks):
            if isinstance(block, Rest):
                yield Decoded(
                    empty_events(), [block.failure(file.path, attributes, file.size)], dead=1
                )
                continue
            yield _decode_block(block, file.path, plan, context, attributes, warnings)
            warnings = ()


def _read_head(file: InputFile, context: Context) -> bytes:
    """Return the first lines of a file, one at least, without those that are too large."""
    with file.opener() as stream:
        # What cannot be read is reported when the span itself is.
        blocks = read_blocks(
            utf8_stream(stream, context.encoding), HEAD_BYTES, context.max_message_bytes
        )
        return next((each.data for each in blocks if isinstance(each, Block)), b"")


def _head_lines(head: bytes) -> list[bytes]:
    """Return the first lines; one at least is whole."""
    head = head.removeprefix(_BOM).lstrip()
    first = head.find(b"\n")
    head = head[: max(HEAD_BYTES, len(head) if first < 0 else first)]
    return head.split(b"\n", SAMPLE_LINES)[:SAMPLE_LINES]


def utf8_stream(stream: BinaryIO, encoding: str) -> Any:
    """Return a file whose encoding has no lines of bytes (UTF-16, UTF-32) as UTF-8."""
    return Utf8Stream(stream, encoding) if _WIDE.search(encoding) else stream


def _fixed_plan(context: Context) -> LinePlan | None:
    """Return the plan of a context that names every column, as `recognise` makes them."""
    if any(column not in context.columns for column in KNOWN):
        return None
    names = tuple(context.columns.items())
    mapping = context.mapping
    rules = mapping.items if mapping is not None else {}
    others = [rules[item].path if item in rules else item for item in context.items]
    others += [condition.path for condition in mapping.skip] if mapping is not None else []
    # Whether a dot is part of a name or of a path, only the lines can tell.
    if any(_AMBIGUOUS.search(name) and not is_path(name) for _, name in names):
        return None
    if any(_AMBIGUOUS.search(name) and not is_path(name) for name in others):
        return None
    return _plan_of(names, context.items, context.encoding, mapping)


@lru_cache(maxsize=64)
def _plan_of(
    names: tuple[tuple[str, str], ...],
    items: tuple[str, ...],
    encoding: str,
    mapping: EventMapping | None,
) -> LinePlan:
    context = Context(columns=dict(names), items=items, encoding=encoding, mapping=mapping)
    return plan_lines((), context)


def _encoding_of(context: Context) -> str:
    """Return the encoding that lines are in when they have been cut."""
    encoding = codecs.lookup(context.encoding).name
    if encoding in ("ascii", "utf-8-sig") or _WIDE.search(encoding):
        return "utf-8"
    return encoding


def plan_lines(lines: Sequence[bytes], context: Context) -> LinePlan:
    """Recognise columns by the keys of some lines."""
    encoding = _encoding_of(context)
    step = -(-len(lines) // SAMPLE_LINES) or 1
    rows = []
    for line in lines[::step]:
        with contextlib.suppress(
            UnicodeDecodeError, json.JSONDecodeError, orjson.JSONEncodeError, RecursionError
        ):
            row = read_value(line, encoding)[0]
            if isinstance(row, dict):
                rows.append(row)
    names = list(dict.fromkeys(key for row in rows for key in row))
    sample = {
        n: [v if isinstance(v, (str, int, float)) else None for v in (r.get(n) for r in rows)]
        for n in names
    }
    mapped = map_columns(names, context, sample, paths=True)
    known = set(names)
    paths = {n: (n,) if n in known else path_of(n) for n in mapped.inputs}
    mapped = replace(mapped, missing=(*mapped.missing, *_nowhere(rows, mapped, paths, context)))
    others = {n for c, n in mapped.columns.items() if c not in TIMES} | set(mapped.items.values())
    others |= set(mapped.conditions)
    own = None
    if _differ(rows, mapped, context):
        numbers = {c: mapped.columns.get(c, "") for c in INTEGERS}
        own = replace(context, columns={**numbers, **context.columns}, own_names=True)
    return LinePlan(mapped, paths, frozenset(set(mapped.inputs) - others), encoding, own)


def _nowhere(
    rows: Sequence[Mapping[str, Any]],
    mapped: ColumnMap,
    paths: Mapping[str, Path],
    context: Context,
) -> list[str]:
    """Return the required columns that are given, and that no object has where they should be."""
    given = set(context.columns)
    mapping = context.mapping
    if mapping is not None:
        if mapping.skip:
            return []  # all of these may be such as are skipped
        given |= {c for c in mapping.paths if mapping.columns[c].default is None}
    return [
        column
        for column in REQUIRED
        if rows
        and column in given
        and column in mapped.columns
        and all(value_at(row, paths[mapped.columns[column]]) is None for row in rows)
    ]


def _differ(rows: Sequence[Mapping[str, Any]], mapped: ColumnMap, context: Context) -> bool:
    """Say whether an object is no event by the columns of all, but may be one by its own names."""
    sought = [c for c in REQUIRED if c in mapped.columns and c not in context.columns]
    if context.mapping is not None:
        sought = [c for c in sought if c not in context.mapping.columns]
    for row in rows:
        lacking = [c for c in sought if row.get(mapped.columns[c]) in (None, "")]
        if not lacking:
            continue
        # As a value that is no time or number counts too: only names are compared.
        plan = plan_names(row, context.columns, (), (), context.mapping)
        if all(any(row.get(name) not in (None, "") for name in _own(plan, c)) for c in lacking):
            return True
    return False


def _own(plan: NamePlan, column: str) -> tuple[str, ...]:
    """Return the names that an object has for a column; of a start alone, where it counts."""
    found = plan.columns.get(column, ())
    return (*found, *plan.columns.get("start_time", ())) if column == "event_time" else found


def _decode_block(
    block: Block,
    path: str,
    plan: LinePlan,
    context: Context,
    attributes: Mapping[str, str],
    warnings: Sequence[str],
) -> Decoded:
    starts, ends = line_bounds(block.data)
    places = starts + block.offset
    return decode_lines(block.data, starts, ends, places, path, plan, context, attributes, warnings)


def decode_lines(
    data: bytes,
    starts: Offsets,
    ends: Offsets,
    places: Offsets,
    path: str,
    plan: LinePlan,
    context: Context,
    attributes: Mapping[str, str],
    warnings: Sequence[str] = (),
) -> Decoded:
    """Decode JSON objects of a file.

    Args:
        data: their bytes.
        starts: first byte of each.
        ends: end of each.
        places: of each in the file: its `position` and `source_offset`.
        path: of the file.
        plan: what to read of each.
        context: settings.
        attributes: what a replay of one of them needs.
        warnings: sentences for the run's summary.
    """
    columns, values, found = _read(data, starts, ends, plan, context)
    rows = len(found.lines)
    offsets = pa.array(places[found.lines])
    fixed = {"position": offsets, "source": name_column(path, rows), "source_offset": offsets}
    items = to_attributes(values, rows, context)
    events, refusals = build_events(columns, rows, context, fixed, items)
    refused = [(int(found.lines[r.row]), r.error, r.message) for r in refusals]
    failures = [
        dead_row(
            data[starts[line] : ends[line]],
            f"{path}:{int(places[line])}",
            error,
            message,
            attributes,
        )
        for line, error, message in sorted(found.failures + refused)
    ]
    return decoded_rows(events, failures, len(starts), found.blank, warnings)


def _read(
    data: bytes,
    starts: Offsets,
    ends: Offsets,
    plan: LinePlan,
    context: Context,
    apart: Sequence[int] = (),
) -> tuple[_Columns, _Columns, LineColumns]:
    """Read lines; those that the mapping skips are counted as blank ones are.

    Returns:
        Event column -> values, item -> values, and what was read.
    """
    if plan.own is not None:
        return _read_by_names((data, starts, ends), plan.own, apart)
    limit = context.max_message_bytes
    found = read_lines(data, starts, ends, plan.paths, plan.times, plan.encoding, limit, apart)
    skipped = skipped_by(plan.map, found.arrays, len(found.lines), context)
    if skipped.any():
        kept = pa.array(~skipped)
        found.arrays = {name: array.filter(kept) for name, array in found.arrays.items()}
        found.lines = found.lines[~skipped]
        found.blank += int(skipped.sum())
    columns = {column: found.arrays[name] for column, name in plan.map.columns.items()}
    return columns, {i: found.arrays[name] for i, name in plan.map.items.items()}, found


def _read_by_names(
    lines: Lines, context: Context, apart: Sequence[int]
) -> tuple[_Columns, _Columns, LineColumns]:
    """Read lines, each by its own names; returns what `_read` does."""
    encoding, limit = _encoding_of(context), context.max_message_bytes

    def read(plan: NamePlan, layouts: list[int]) -> LineColumns:
        return read_lines(*lines, plan.paths, plan.times, encoding, limit, apart, layouts)

    plan, found = read_by_names(
        lines,
        lambda names: plan_names(names, context.columns, context.items, (), context.mapping),
        read,
    )
    found = without_skipped(plan, found, context.mapping)
    rows = len(found.lines)
    return plan.event_columns(found.arrays, rows), plan.item_columns(found.arrays, rows), found
