"""From the envelope and the data of CloudEvents to event columns.

Names of the mapping that begin with `ce:` are attributes of the envelope, `ce:a+b` two of them
with a blank between (which no URI has); all other names are names or paths in the data.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats.base import Context
from transforms.formats.columns import TIMES, present, to_text, unread_times
from transforms.formats.heads import Mask
from transforms.formats.json_columns import Path
from transforms.formats.json_names import NamePlan, first_of, plan_names
from transforms.formats.line_blocks import Offsets
from transforms.formats.mapping.apply import skipped_rows
from transforms.formats.messages.ce_modes import CONTENT_TYPE, is_json
from transforms.formats.times import parse_times

PREFIX = "ce:"
VERSIONS = ("1.0", "0.3")
REQUIRED = ("id", "source", "type")
"""Attributes that every event must have, beside `specversion`."""

BASE64, ENCODING = "data_base64", "datacontentencoding"
_ALWAYS = ("specversion", *REQUIRED, "time", "subject", CONTENT_TYPE, BASE64, ENCODING)
_CASE = "ce:source+subject"


@dataclass(frozen=True)
class EventPlan:
    """Where event columns are.

    Attributes:
        given: event column -> `ce:` name, of the mapping.
        left: event columns for which the mapping says something.
        names: attributes to read.
        data: columns and items that are in the data.
        envelope_items: business item -> `ce:` name.
        context: settings.
    """

    given: Mapping[str, str]
    left: frozenset[str]
    names: tuple[str, ...]
    data: NamePlan
    envelope_items: Mapping[str, str]
    context: Context

    @property
    def envelope(self) -> dict[str, Path]:
        """Field -> path of each attribute in structured mode."""
        return {PREFIX + name: (name,) for name in self.names}

    @property
    def times(self) -> frozenset[str]:
        """Fields that are times only."""
        return self.data.times

    def columns(
        self, envelopes: Envelopes, arrays: Mapping[str, pa.Array], rows: int
    ) -> dict[str, pa.Array]:
        """Return event column -> a value a row."""
        found = self.data.event_columns(arrays, rows)
        for column, name in self.given.items():
            found[column] = envelopes.joined(name)
        defaults = {
            "event_id": [envelopes.values("id")],
            "case_id": [found.get("case_id"), envelopes.joined(_CASE)],
            "activity": [found.get("activity"), envelopes.values("type")],
        }
        for column, values in defaults.items():
            if column not in self.left:
                found[column] = first_of([each for each in values if each is not None], rows)
        return found

    def times_of(
        self, envelopes: Envelopes, columns: dict[str, pa.Array], rows: int
    ) -> dict[int, str]:
        """Put the times of the envelopes, or where there is none of the data, into the columns.

        Returns:
            Row -> reason, of times that can't be read.
        """
        if "event_time" in self.left:
            return {}
        raw = envelopes.values("time")
        # The envelope's time is as its standard says; a format that is given is that of the data.
        times = parse_times(raw, self.context.timezone)
        unread = unread_times("time", raw, times, None, "; CloudEvents have RFC 3339 there")
        of_data = [columns[name] for name in TIMES if name in columns]
        if of_data and times.null_count:
            form = self.context.time_format
            raw_data = first_of(of_data, rows)
            read = parse_times(raw_data, self.context.timezone, form)
            envelope_has = present(raw)
            for row, reason in unread_times("event_time", raw_data, read, form).items():
                if not envelope_has[row]:
                    unread[row] = reason
            times = pc.if_else(pa.array(envelope_has), times, read)
        columns["event_time"] = times
        return unread

    def skipped(self, envelopes: Envelopes, arrays: Mapping[str, pa.Array], rows: int) -> Mask:
        """Say which events a mapping skips, by their data or by `ce:` names."""
        none = np.zeros(rows, np.bool_)
        if self.context.mapping is None:
            return none
        values = {
            path: first_of([arrays[f] for f in fields], rows)
            for path, fields in self.data.conditions.items()
        }
        for condition in self.context.mapping.skip:
            if condition.path.startswith(PREFIX):
                values[condition.path] = envelopes.joined(condition.path)
        mask = skipped_rows(self.context.mapping, values, rows, to_text)
        return none if mask is None else mask

    def items(
        self, envelopes: Envelopes, arrays: Mapping[str, pa.Array], rows: int
    ) -> dict[str, pa.Array]:
        """Return business item -> a value a row."""
        found = self.data.item_columns(arrays, rows)
        found.update({item: envelopes.joined(name) for item, name in self.envelope_items.items()})
        return found


def plan_events(names: Collection[str], context: Context, below: Path) -> EventPlan:
    """Find where the columns of some events are.

    Args:
        names: keys that they have, and maybe others.
        context: `columns` and `items`.
        below: keys that lead to the data.
    """
    mapping = context.mapping
    named = {**(mapping.paths if mapping is not None else {}), **context.columns}
    given = {c: name for c, name in named.items() if name.startswith(PREFIX)}
    # What the envelope has is not looked for in the data.
    without = {column: "" for column in (*given, "event_id")}
    columns = {**without, **{c: n for c, n in named.items() if c not in given}}
    rules = mapping.items if mapping is not None else {}
    wanted_items = {i: rules[i].path if i in rules else i for i in context.items}
    items = {item: name for item, name in wanted_items.items() if name.startswith(PREFIX)}
    rest = [item for item in context.items if item not in items]
    asked = [c.path for c in mapping.skip if c.path.startswith(PREFIX)] if mapping else []
    if mapping is not None and asked:
        mapping = replace(mapping, skip=tuple(c for c in mapping.skip if c.path not in asked))
    in_data = plan_names(names, columns, rest, below, mapping)
    named_so = (*given.values(), *items.values(), *asked)
    wanted = [part for name in named_so for part in name[len(PREFIX) :].split("+")]
    return EventPlan(
        given,
        frozenset(named),
        tuple(dict.fromkeys((*_ALWAYS, *wanted))),
        replace(in_data, starts=False),
        items,
        context,
    )


@dataclass(frozen=True)
class Envelopes:
    """The attributes of some events: name -> a value a row."""

    arrays: Mapping[str, pa.Array]
    rows: int

    @classmethod
    def of_fields(cls, fields: Mapping[str, pa.Array], rows: int) -> Envelopes:
        """Return the attributes among the fields that were read in structured mode."""
        found = {n[len(PREFIX) :]: to_text(a) for n, a in fields.items() if n.startswith(PREFIX)}
        return cls(found, rows)

    def values(self, name: str) -> pa.Array:
        """Return an attribute; null where an event does not have it."""
        found = self.arrays.get(name, self.arrays.get(name.lower()))
        return pa.nulls(self.rows, pa.string()) if found is None else found

    def joined(self, name: str) -> pa.Array:
        """Return what a `ce:` name stands for; null where one of its parts is."""
        parts = [self.values(each) for each in name[len(PREFIX) :].split("+")]
        return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, " ")

    def take(self, rows: Offsets) -> Envelopes:
        """Return the envelopes of some rows."""
        at = pa.array(rows)
        return Envelopes({name: each.take(at) for name, each in self.arrays.items()}, len(rows))

    def problems(self) -> dict[int, tuple[str, str]]:
        """Return row -> error and message, of what is no event of a version that is read."""
        found: dict[int, tuple[str, str]] = {}
        version = self.values("specversion")
        known = pc.is_in(version, pa.array(VERSIONS)).to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(~known).tolist():
            given = version[row].as_py()
            if given is None:
                found[row] = ("InvalidCloudEvent", "it has no specversion")
            else:
                reason = f"specversion is {given[:100]!r}; {' and '.join(VERSIONS)} are read"
                found[row] = ("UnsupportedSpecVersion", reason)
        for name in REQUIRED:
            empty = pc.equal(pc.binary_length(self.values(name)), 0).fill_null(True)
            if pc.any(empty).as_py():
                for row in np.flatnonzero(empty.to_numpy(zero_copy_only=False)).tolist():
                    found.setdefault(row, ("InvalidCloudEvent", f"it has no {name}"))
        return found

    def types(self, wanted: Callable[[str], bool]) -> Mask:
        """Say which events are of a type that is wanted."""
        return self._where("type", wanted)

    def encoded(self) -> Mask:
        """Say whose data is not there as JSON."""
        there = self.values(BASE64).is_valid().to_numpy(zero_copy_only=False)
        other = self._where(CONTENT_TYPE, lambda media: not is_json(media))
        return there | other | self._where(ENCODING, bool)

    def _where(self, name: str, wanted: Callable[[str], bool]) -> Mask:
        values = self.values(name)
        if values.null_count == self.rows:
            return np.zeros(self.rows, np.bool_)
        coded = values.dictionary_encode()
        yes = [each for each in coded.dictionary.to_pylist() if wanted(each)]
        if not yes:
            return np.zeros(self.rows, np.bool_)
        mask: Mask = pc.is_in(values, pa.array(yes)).to_numpy(zero_copy_only=False)
        return mask
