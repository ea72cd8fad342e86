"""From the columns of a table (CSV, JSON Lines, Parquet) to events.

Owns which input column feeds which event column (given by `--columns`, or recognised by its
name), how values are converted, and which rows are refused and why. Everything is columnar;
Python sees a row only if it is refused.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import ATTRIBUTES, EVENT_SCHEMA, NAME, TIME
from transforms import time_formats
from transforms.arrays import conform, nulls
from transforms.formats.arrow_values import is_bytes, plain_values
from transforms.formats.assemble import assemble, payload_event_ids
from transforms.formats.base import Context, Message, MessageBatch
from transforms.formats.mapping.apply import mapped_columns, skipped_rows
from transforms.formats.mapping.rules import is_path, path_of
from transforms.formats.times import RANGE, out_of_range, parse_times, zone_error

Mask = npt.NDArray[np.bool_]

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_SHORT = re.compile(r"-?[0-9]{1,16}")

REQUIRED = ("case_id", "event_time", "activity")
"""Event columns that every row must have."""

INTEGERS = ("task", "event", "source_task")
"""Event columns of type int32."""

TIMES = ("event_time", "start_time")
"""Event columns that are read as times."""

KNOWN = {
    "event_id": "eventid",
    "case_id": "caseid caseconceptname case processinstanceid processinstancekey processinstance "
    "caseidentifier casenumber $uniqueid uniqueid",
    "event_time": "eventtime timetimestamp completetimestamp completetime completiontime endtime "
    "endtimestamp timestamp eventtimestamp time datetime end enddate date",
    "activity": "activity conceptname activityname activityid taskname eventname task event",
    "state": "state tostate",
    "source_state": "sourcestate fromstate",
    "task": "task taskid $taskid",
    "event": "event $lastevent",
    "source_task": "sourcetask $lasttask",
    "actor": "actor orgresource resource originator performer username user $editor",
    "workflow_group": "workflowgroup $workflowgroup processname process",
    "model_version": "modelversion $modelversion processversion version model",
    "lifecycle": "lifecycletransition lifecycle",
    "transaction_id": "transactionid $transactionid",
    "start_time": "starttime starttimestamp start startdate",
}
"""Event column -> input names that feed it, best first, without case, blanks, `_`, `-`, `:`.

An optional column has only names that can hardly mean anything else: a wrong guess is silent.
"""


NO_COLUMN = "no column for"


class UnknownColumns(ValueError):
    """A file lacks columns that events need, or that `--columns` names.

    Attributes:
        missing: event columns without an input column.
        names: the input's columns.
    """

    def __init__(self, path: str, missing: Sequence[str], names: Sequence[str]) -> None:
        self.missing = tuple(missing)
        self.names = tuple(names)
        shown = ", ".join(self.names[:30]) + (", ..." if len(self.names) > 30 else "")
        shown = shown or "none at all"
        fix = ",".join(f"{column}=..." for column in self.missing)
        super().__init__(
            f"{path}: {NO_COLUMN} {', '.join(self.missing)}; it has: {shown}; use --columns {fix}"
        )


@dataclass(frozen=True)
class ColumnMap:
    """Which input columns feed events.

    Attributes:
        columns: event column -> input column (or JSON path).
        items: attribute -> input column (or JSON path).
        missing: required event columns, and those of `--columns`, that the input does not have.
        names: the input's columns.
        conditions: input columns (or JSON paths) that say which rows are skipped.
    """

    columns: Mapping[str, str]
    items: Mapping[str, str]
    missing: tuple[str, ...]
    names: tuple[str, ...]
    conditions: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The input columns to read, each once."""
        read = [*self.columns.values(), *self.items.values(), *self.conditions]
        return tuple(dict.fromkeys(read))

    def warnings(self, path: str) -> tuple[str, ...]:
        """Say what the file lacks, if anything."""
        return (str(UnknownColumns(path, self.missing, self.names)),) if self.missing else ()


@dataclass(frozen=True)
class Refusal:
    """A row that is no event: its number in the batch, and why."""

    row: int
    error: str
    message: str


def map_columns(
    names: Sequence[str],
    context: Context,
    sample: Mapping[str, Sequence[Any]],
    paths: bool = False,
) -> ColumnMap:
    """Find the input column of each event column and item.

    Args:
        names: the input's columns.
        context: `columns` (an empty input name leaves the event column out), `items`, `mapping`.
        sample: input column -> values of the first rows, to tell numeric from other columns.
        paths: names of `context` that are not in `names` are JSON paths, and kept.
    """
    mapping = context.mapping
    given = {**mapping.paths, **context.columns} if mapping is not None else context.columns
    # What a mapping knows without the input is not looked for there.
    known = set(given) | set(mapping.constants if mapping is not None else ())
    optional: set[str] = set()
    if mapping is not None:
        optional = {c for c, rule in mapping.columns.items() if rule.default is not None}
        known |= set() if mapping.recognise else set(KNOWN)
    exact = set(names)
    by_key: dict[str, str] = {}
    for name in names:
        by_key.setdefault(key_of(name), name)

    def find(name: str) -> str | None:
        if name in exact or paths:
            return name
        if is_path(name) and len(steps := path_of(name)) == 1:
            name = str(steps[0])
            if name in exact:
                return name
        return by_key.get(key_of(name))

    columns: dict[str, str] = {}
    missing: list[str] = []
    for column, name in given.items():
        if not name:
            continue
        found = find(name)
        if found is not None:
            columns[column] = found
        elif column not in optional:
            missing.append(column)
    used = set(columns.values())
    # The event id comes last: whether it is one is seen from case, time and activity.
    for column in (*(c for c in KNOWN if c != "event_id"), "event_id"):
        if column in known:
            continue
        for key in KNOWN[column].split():
            name = by_key.get(key, "")
            if not name or name in used or not _plausible(column, name, columns, sample):
                continue
            columns[column] = name
            used.add(name)
            break
    # A log that only has the start of each activity is ordered by it.
    if "event_time" not in columns and "event_time" not in known and "start_time" in columns:
        columns["event_time"] = columns.pop("start_time")
    sure = optional | set(mapping.constants if mapping is not None else ())
    missing += [c for c in REQUIRED if c not in columns and c not in missing and c not in sure]
    rules = mapping.items if mapping is not None else {}
    wanted = {item: rules[item].path if item in rules else item for item in context.items}
    items = {i: found for i, n in wanted.items() if n and (found := find(n)) is not None}
    order = [c for c in KNOWN if c in columns]
    conditions = [find(c.path) for c in mapping.skip] if mapping is not None else []
    return ColumnMap(
        {c: columns[c] for c in order},
        items,
        tuple(missing),
        tuple(names),
        tuple(dict.fromkeys(c for c in conditions if c is not None)),
    )


def key_of(name: str) -> str:
    """Return a name without case, blanks, `_`, `-` and `:`, as `KNOWN` has it."""
    return re.sub(r"[\s_:-]", "", name).casefold()


def _plausible(
    column: str, name: str, columns: Mapping[str, str], sample: Mapping[str, Sequence[Any]]
) -> bool:
    """Say whether a column recognised by its name holds what the name says."""
    values = sample.get(name, ())
    if column in INTEGERS:
        present = [str(v) for v in values if v is not None and v != ""]
        return bool(present) and all(re.fullmatch(r"-?\d{1,9}", v) for v in present)
    if column == "event_id":
        # A type of event ("10") is called so too; as an id it would make events duplicates.
        case, *others = (sample.get(columns.get(c, ""), ()) for c in REQUIRED)
        seen: dict[tuple[str, str], tuple[Any, ...]] = {}
        for row in zip(case, values, *others, strict=False):
            if row[1] and seen.setdefault((str(row[0]), str(row[1])), row) != row:
                return False
    return True


def build_events(
    found: Mapping[str, Any],
    rows: int,
    context: Context,
    fixed: Mapping[str, Any],
    attributes: pa.Array | None = None,
    payloads: pa.Array | None = None,
    named: bool = True,
) -> tuple[pa.Table, list[Refusal]]:
    """Convert the columns of a batch to events.

    Args:
        found: event column -> array of `rows` values of any type.
        rows: number of rows.
        context: `timezone`, `time_format` and `mapping`.
        fixed: event columns that the format itself knows (position, source, ...).
        attributes: map<string,string> of business items.
        payloads: binary; where not null, a missing event id is hashed from it (broker messages).
        named: `--columns` and `--mapping` may say where columns are; not in formats that know it.

    Returns:
        The event table of the rows that are events, and the other rows, in order.
    """
    columns: dict[str, Any] = dict(fixed)
    refused: dict[int, Refusal] = {}

    def refuse(mask: Mask, error: str, message: str, values: pa.Array | None = None) -> None:
        new = [row for row in np.flatnonzero(mask).tolist() if row not in refused]
        if values is None:
            shown: list[Any] = [""] * len(new)
        else:
            shown = plain_values(conform(values, values.type).take(pa.array(new, pa.int64())))
        for row, value in zip(new, shown, strict=True):
            refused[row] = Refusal(row, error, message.format(str(value)[:100]))

    rules = context.mapping.columns if context.mapping is not None and named else {}
    if rules:
        found = mapped_columns(found, rules, rows, to_text)
    cases, no_case = _required_text(found.get("case_id"), rows)
    refuse(no_case, "MissingCaseId", "no case id" + _said("case_id", named))
    columns["case_id"] = cases
    for column in TIMES:
        raw = found.get(column)
        if raw is None and column == "start_time":
            continue
        raw = pa.nulls(rows) if raw is None else conform(raw, raw.type)
        own = rules[column].time_format if column in rules else None
        form = own or context.time_format
        times = parse_times(raw, context.timezone, form)
        columns[column] = times
        if times.null_count:
            if column == "event_time":
                lost = _mask(times.is_null()) & _absent(raw)
                refuse(lost, "MissingTime", "no event time" + _said(column, named))
            hint = _FORMAT_HINT if named else ""
            for row, reason in unread_times(column, raw, times, form, hint).items():
                refused.setdefault(row, Refusal(row, "BadTime", reason))
    activities, no_activity = _required_text(found.get("activity"), rows)
    refuse(no_activity, "MissingActivity", "no activity" + _said("activity", named))
    columns["activity"] = activities
    for column in INTEGERS:
        if column in found:
            columns[column], bad = to_integers(found[column])
            refuse(bad, "BadValue", f"{column} '{{}}' is not a number of 32 bits", found[column])
    for column, raw in found.items():
        if column not in columns:
            columns[column] = to_text(raw)
    columns["attributes"] = attributes
    if refused:
        keep = np.ones(rows, np.bool_)
        keep[list(refused)] = False
        kept = pa.array(np.flatnonzero(keep))
        columns = {
            c: v if v is None else conform(v, EVENT_SCHEMA.field(c).type).take(kept)
            for c, v in columns.items()
        }
        payloads = None if payloads is None else payloads.take(kept)
        rows = len(kept)
    columns["activity"] = conform(columns["activity"], NAME)
    if columns.get("state") is not None:
        columns["state"] = _filled(conform(columns["state"], NAME), columns["activity"])
    given = columns.get("event_id")
    lacks = given is None or conform(given, pa.string()).null_count > 0
    if lacks and payloads is not None and payloads.null_count < rows:
        hashed = payload_event_ids(
            {c: conform(columns[c], EVENT_SCHEMA.field(c).type) for c in REQUIRED}, payloads
        )
        hashed = pc.if_else(payloads.is_valid(), hashed, pa.scalar(None, pa.string()))
        columns["event_id"] = hashed if given is None else pc.coalesce(given, hashed)
    return assemble(columns, rows), [refused[row] for row in sorted(refused)]


_FORMAT_HINT = "; --time_format says how it is written"


def _said(column: str, named: bool) -> str:
    return f"; --columns {column}=NAME says where it is" if named else ""


def unread_times(
    column: str,
    raw: pa.Array,
    times: pa.Array,
    form: str | None,
    hint: str = _FORMAT_HINT,
) -> dict[int, str]:
    """Return row -> reason, of the values that are no times.

    Args:
        column: what they are.
        raw: the values; null and "" are none.
        times: what was read of them; null where nothing could be.
        form: that was given for them; None if none was.
        hint: what to do, said where none was.
    """
    rows = np.flatnonzero(_mask(times.is_null()) & present(raw))
    if not len(rows):
        return {}
    values = raw.take(pa.array(rows))
    shown = f" in the form {form}" if form else ""
    far = out_of_range(values, form).tolist()
    texts = [number_text(value)[:100] for value in plain_values(conform(values, values.type))]
    return {
        row: f"{column} '{text}' is out of range{shown}; a time is from {RANGE}"
        if beyond
        else f"{column} '{text}' is not a time{shown or hint}"
        for row, text, beyond in zip(rows.tolist(), texts, far, strict=True)
    }


def number_text(value: Any) -> str:
    """Return a value as text, a number in one notation whatever type it was read as.

    Numbers of times are read as doubles, integers or texts, as those beside them are; the reason of
    a dead letter, which its id is made of, must not tell.
    """
    text = str(value)
    # Integers of 16 digits are written so by all.
    if isinstance(value, float) or (_NUMBER.fullmatch(text) and not _SHORT.fullmatch(text)):
        return repr(float(text)).removesuffix(".0")
    return text


def skipped_by(mapped: ColumnMap, arrays: Mapping[str, Any], rows: int, context: Context) -> Mask:
    """Say which rows the mapping skips.

    Args:
        mapped: of the input.
        arrays: input column or path -> values.
        rows: number of rows.
        context: `mapping`.
    """
    if context.mapping is None or not context.mapping.skip:
        return np.zeros(rows, np.bool_)
    by_key = {key_of(str(path_of(name)[-1])): name for name in mapped.conditions}
    found = {}
    for condition in context.mapping.skip:
        path = condition.path
        name = path if path in arrays else by_key.get(key_of(str(path_of(path)[-1])), "")
        if name in arrays:
            found[path] = arrays[name]
    skipped = skipped_rows(context.mapping, found, rows, to_text)
    return np.zeros(rows, np.bool_) if skipped is None else skipped


def kept_rows(values: Any, kept: Mask) -> Any:
    """Return the values of the rows that are kept, of an array or a sequence; None stays None."""
    if values is None or isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values if values is None else values.filter(pa.array(kept))
    return [value for value, keep in zip(values, kept.tolist(), strict=True) if keep]


def _filled(names: pa.Array, others: pa.Array) -> pa.Array:
    """Replace nulls of a dictionary column by the values of another."""
    if not names.null_count:
        return names
    texts = pc.coalesce(names.cast(pa.string()), others.cast(pa.string()))
    return texts.dictionary_encode()


def _required_text(raw: Any, rows: int) -> tuple[pa.Array, Mask]:
    if raw is None:
        return pa.nulls(rows, pa.string()), np.ones(rows, np.bool_)
    text = to_text(raw)
    return text, _absent(text)


def present(array: pa.Array) -> Mask:
    """Say which values are neither null nor the empty string."""
    return ~_absent(array)


def _absent(array: pa.Array) -> Mask:
    """Say which values are null or the empty string."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        values = np.append(_absent(array.dictionary), True)
        codes = array.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
        return values[codes]
    absent = _mask(array.is_null())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        absent = absent | (pc.binary_length(array).fill_null(0).to_numpy() == 0)
    return absent


def _mask(array: pa.Array) -> Mask:
    mask: Mask = array.to_numpy(zero_copy_only=False)
    return mask


def to_text(raw: Any) -> pa.Array:
    """Return any column as strings (a dictionary stays one); whole numbers have no fraction."""
    array = conform(raw, raw.type)
    kind = array.type
    if pa.types.is_string(kind):
        return array
    if pa.types.is_dictionary(kind):
        texts = to_text(array.dictionary)
        if texts.null_count:
            return texts.take(array.indices)
        return conform(pa.DictionaryArray.from_arrays(array.indices, texts), NAME)
    if pa.types.is_null(kind):
        return pa.nulls(len(array), pa.string())
    if pa.types.is_floating(kind):
        return _float_text(array)
    if pa.types.is_nested(kind):
        values = (None if v is None else _json(v) for v in plain_values(array))
        return pa.array(values, pa.string())
    if is_bytes(kind):
        try:
            return array.cast(pa.string())
        except pa.ArrowInvalid:  # not UTF-8 somewhere
            return pa.array(plain_values(array), pa.string())
    return array.cast(pa.string())


def _float_text(array: pa.Array) -> pa.Array:
    """Write doubles; a whole number (an id that had nulls beside it) as an integer.

    What is not finite is null: it is how other tools write that there is no value.
    """
    text = pc.if_else(pc.is_finite(array), array.cast(pa.string()), pa.scalar(None, pa.string()))
    values = array.fill_null(np.nan).to_numpy(zero_copy_only=False).astype(np.float64)
    with np.errstate(invalid="ignore"):
        whole = (np.abs(values) < 2.0**53) & (values == np.floor(values))
    if not whole.any():
        return text
    integers = pa.array(np.where(whole, values, 0).astype(np.int64)).cast(pa.string())
    return pc.if_else(pa.array(whole), integers, text)


def _json(value: Any) -> str:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def to_integers(raw: Any) -> tuple[pa.Array, Mask]:
    """Return a column as int32, and which values are not one (null and "" are null)."""
    array = conform(raw, raw.type)
    if pa.types.is_dictionary(array.type):
        values, bad = to_integers(array.dictionary)
        codes = array.indices.fill_null(0).to_numpy(zero_copy_only=False)
        bad = (bad[codes] if len(bad) else np.zeros(len(array), np.bool_)) & _mask(array.is_valid())
        return values.take(array.indices), bad
    try:
        return array.cast(pa.int32()), np.zeros(len(array), np.bool_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    text = to_text(array)
    fits = pc.match_substring_regex(text, r"^\s*[+-]?\d{1,10}(\.0*)?\s*$").fill_null(False)
    digits = pc.replace_substring_regex(text, r"^\s*\+?(-?\d+).*$", r"\1")
    numbers = pc.if_else(fits, digits, pa.scalar(None, pa.string())).cast(pa.int64())
    fits = pc.equal(numbers, numbers.cast(pa.int32(), safe=False)).fill_null(False)
    values = pc.if_else(fits, numbers, pa.scalar(None, pa.int64())).cast(pa.int32())
    return values, ~_mask(fits) & ~_absent(text)


def to_attributes(
    items: Mapping[str, Any], rows: int, context: Context | None = None
) -> pa.Array | None:
    """Make map<string,string> of item columns; a null value has no entry; None without items.

    Args:
        items: item -> values.
        rows: number of rows.
        context: whose `mapping` may translate values, or add constants.
    """
    if context is not None and context.mapping is not None:
        items = mapped_columns(items, context.mapping.items, rows, to_text)
    if not items:
        return None
    texts = [conform(to_text(raw), pa.string()) for raw in items.values()]
    present = np.stack([_mask(text.is_valid()) for text in texts], axis=1)
    row, item = np.nonzero(present)
    values = pa.concat_arrays(texts).take(pa.array(item * rows + row))
    keys = pa.array(list(items), pa.string()).take(pa.array(item))
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum(present.sum(axis=1), out=offsets[1:])
    return pa.MapArray.from_arrays(pa.array(offsets), keys, values).cast(ATTRIBUTES)


def name_column(value: str, rows: int) -> pa.Array:
    """Return `rows` times one name, as a dictionary column."""
    if not rows:
        return nulls(NAME, 0)
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))


LARGEST_KEPT = 4096
"""Characters of a mapping that a dead letter keeps; the replay of one with a larger mapping needs
`--mapping` again."""


def replay_attributes(name: str, context: Context) -> dict[str, str]:
    """Return what a replay needs: the format, and the settings that were given."""
    attributes = {"format": name}
    if context.columns:
        attributes["columns"] = ",".join(f"{k}={v}" for k, v in context.columns.items())
    if context.mapping is not None and len(context.mapping.text) <= LARGEST_KEPT:
        attributes["mapping"] = context.mapping.text
    for setting in REPLAYED:
        value = getattr(context, setting)
        if value is not None and value != getattr(_DEFAULTS, setting):
            attributes[setting] = value
    return attributes


def replay_context(attributes: Mapping[str, str], context: Context) -> Context:
    """Return the context with the settings that a dead letter was read with.

    What the options say now counts more: it may be what mends the dead letter. Attributes may
    also be a broker's headers, so a value that is no such setting is left aside.
    """
    stored = attributes.get("columns", "")
    pairs = dict(pair.split("=", 1) for pair in stored.split(",") if "=" in pair)
    settings: dict[str, Any] = {}
    for setting, usable in REPLAYED.items():
        value = attributes.get(setting)
        unset = getattr(context, setting) == getattr(_DEFAULTS, setting)
        if value is not None and unset and usable(value):
            settings[setting] = value
    if pairs:
        settings["columns"] = {**pairs, **context.columns}
    context = replace(context, **settings) if settings else context
    if context.mapping is None and "mapping" in attributes:
        from transforms.formats.mapping.context import stored_mapping  # noqa: PLC0415 (imports us)

        return stored_mapping(attributes["mapping"], context)
    return context


def _is_encoding(name: str) -> bool:
    try:
        bytes(range(256)).decode(name, "replace")
    except (LookupError, ValueError):  # unknown, or none of text
        return False
    # From Python 3.13 on that of host names reads anything, to no use.
    return codecs.lookup(name).name != "punycode"


REPLAYED: Mapping[str, Callable[[str], bool]] = {
    "timezone": lambda name: zone_error(name) is None,
    "time_format": lambda text: time_formats.problem(text) is None,
    "encoding": _is_encoding,
    "object_type": bool,
}
"""Settings that a dead letter keeps, and whether a value can be one."""

_DEFAULTS = Context()


def message_columns(messages: Sequence[Message]) -> dict[str, pa.Array]:
    """Return what messages themselves know: record_time, source, source_offset, position.

    A message without a record time is a file's (a replay): its offset is its position there.
    """
    if isinstance(messages, MessageBatch):
        return {
            "record_time": messages.record_times.cast(TIME),
            "position": pa.nulls(len(messages), pa.int64()),
            "source": messages.sources,
            "source_offset": messages.offsets,
        }
    times = pa.array([m.record_time for m in messages], pa.int64())
    offsets = pa.array([m.offset for m in messages], pa.int64())
    return {
        "record_time": times.cast(TIME),
        "position": pc.if_else(times.is_null(), offsets, pa.scalar(None, pa.int64())),
        "source": conform([m.source for m in messages], NAME),
        "source_offset": offsets,
    }
