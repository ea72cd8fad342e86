"""Where each event column comes from, in words: what `inspect` shows of the mapping in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.settings import Settings
from schemas.events import EVENT_SCHEMA
from transforms.arrays import conform
from transforms.formats.assemble import file_event_ids
from transforms.formats.base import Context, Format, InputFile, Mapped
from transforms.formats.columns import KNOWN, REQUIRED, ColumnMap
from transforms.formats.mapping.rules import Rule


@dataclass(frozen=True)
class Origin:
    """Where the values of a column come from.

    Attributes:
        column: of events, or `attributes.NAME` of an item.
        source: the input's name or path, or a value in quotes; empty for nothing.
        how: who says so.
    """

    column: str
    source: str
    how: str


def origins_of(
    form: Format, sample: InputFile | Sequence[bytes], settings: Settings, context: Context
) -> list[Origin]:
    """Return where event columns and items come from.

    Args:
        form: the input's format.
        sample: a file, or the first messages.
        settings: of the run: what the options say.
        context: of the run: with the mapping of `--mapping`.

    Returns:
        Origins; of a format that `is_silent` those that options name, and `filled` says more.
    """
    mapped = form.mapping_of(sample, context) if isinstance(form, Mapped) else None
    if mapped is not None:
        return _mapped(mapped, settings, context)
    if isinstance(form, Mapped):
        return []  # nothing could be read: its reason is shown
    known: Mapping[str, str] = getattr(form, "origins", {})
    given = {} if getattr(form, "fixed", False) else dict(settings.columns)
    found = [
        Origin(column, given[column], "--columns")
        if column in given
        else Origin(column, known[column], f"the format, {form.name}")
        for column in EVENT_SCHEMA.names
        if column in known or column in given
    ]
    types = context.item_types
    found += [
        Origin(f"attributes.{item}", item, f"--items{_type(types.get(item))}")
        for item in context.items
    ]
    return found


def is_silent(form: Format) -> bool:
    """Say whether a format does not tell what its columns are made of."""
    return not isinstance(form, Mapped) and not getattr(form, "origins", {})


def filled(form: Format, events: pa.Table, settings: Settings, context: Context) -> list[Origin]:
    """Return which event columns have values: what can be told of a format that `is_silent`.

    Args:
        form: the format.
        events: rows of `EVENT_SCHEMA` that it has made of some messages.
        settings: of the run: what the options say.
        context: of the run: with its items.
    """
    given = dict(settings.columns)
    total = events.num_rows
    if not total:
        how = f"the format, {form.name}, alone knows, and no event was decoded"
        return [Origin("all columns", "", how)]
    found = []
    for column in [name for name in EVENT_SCHEMA.names if name in KNOWN]:
        how = _filling(total - events[column].null_count, total)
        how = f"{'--columns' if column in given else f'the format, {form.name}'}: {how}"
        # These two always have a value, whether a message holds one or not.
        if column == "event_id" and _are_hashes(events):
            how = "none: the hash of case, time, activity and place"
        elif column == "event_id" and events["record_time"].null_count < total:
            how += ", by a hash where a message has none"
        elif column == "state" and _text(events[column]).equals(_text(events["activity"])):
            how = "none: the activity"
        found.append(Origin(column, given.get(column, ""), how))
    for item in context.items:
        values = pc.map_lookup(events["attributes"], item, "first")
        how = _filling(total - values.null_count, total)
        kind = _type(context.item_types.get(item))
        found.append(Origin(f"attributes.{item}", item, f"--items{kind}: {how}"))
    return found


def _filling(some: int, total: int) -> str:
    if total == 1:
        return "filled in the one event" if some else "never filled in the one event"
    if not some:
        return f"never filled in these {total:,} events"
    return f"filled in {'all' if some == total else f'{some:,} of'} {total:,} events"


def _are_hashes(events: pa.Table) -> bool:
    """Say whether ids are those that events of a file have which come without one."""
    names = ("case_id", "event_time", "activity", "position")
    arrays = {name: conform(events[name], EVENT_SCHEMA.field(name).type) for name in names}
    return bool(conform(events["event_id"], pa.string()).equals(file_event_ids(arrays)))


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())


def _mapped(mapped: ColumnMap, settings: Settings, context: Context) -> list[Origin]:
    options = dict(settings.columns)
    rules = context.mapping.columns if context.mapping is not None else {}
    found: list[Origin] = []
    for column in [name for name in EVENT_SCHEMA.names if name in KNOWN]:
        rule = rules.get(column)
        if rule is not None and rule.constant:
            found.append(Origin(column, f"'{rule.constant}'", "--mapping, a constant"))
        elif column in mapped.columns:
            source = mapped.columns[column]
            how = "recognised by its name"
            if column in options:
                how = "--columns"
            elif rule is not None:
                how = f"--mapping{_details(rule)}"
            found.append(Origin(column, source, how))
        elif rule is not None and rule.default is not None:
            found.append(Origin(column, f"'{rule.default}'", "--mapping, the default"))
        elif column in mapped.missing or column in REQUIRED:
            how = f"not found: --columns {column}=NAME or --mapping"
            found.append(Origin(column, options.get(column, ""), how))
        elif column == "event_id":
            how = "none: the hash of case, time, activity and place or content"
            found.append(Origin(column, "", how))
        elif column == "state":
            found.append(Origin(column, "", "none: the activity"))
    return found + _items(mapped, context)


def _items(mapped: ColumnMap, context: Context) -> list[Origin]:
    rules = context.mapping.items if context.mapping is not None else {}
    found = []
    for item in context.items:
        rule = rules.get(item)
        said = "--items" if rule is None else f"--mapping{_details(rule)}"
        how = f"{said}{_type(context.item_types.get(item))}"
        if rule is not None and rule.constant:
            found.append(Origin(f"attributes.{item}", f"'{rule.constant}'", how))
        elif item in mapped.items:
            found.append(Origin(f"attributes.{item}", mapped.items[item], how))
        else:
            found.append(Origin(f"attributes.{item}", "", f"{said}: not found"))
    return found


def _type(type_: str | None) -> str:
    return f", {type_}" if type_ not in (None, "string") else ""


def _details(rule: Rule) -> str:
    parts: list[Any] = []
    if rule.values:
        parts.append(f"{len(rule.values)} values translated")
    if rule.default is not None:
        parts.append(f"default '{rule.default}'")
    if rule.time_format:
        parts.append(f"as {rule.time_format}")
    return "".join(f", {part}" for part in parts)
