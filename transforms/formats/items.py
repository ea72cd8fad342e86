"""Declared types of business items: `--items amount:double,due:timestamp,name`.

An item is text in `attributes`, whatever format it came in. A declared type checks and normalises
that text, so that equal values are equal texts, and rules and features can read them back. A
value that does not fit is left out and counted; its event stays: without it its case would have
a gap, and durations that are wrong, for the sake of something beside the matter.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import ATTRIBUTES, EVENT_SCHEMA
from transforms.arrays import conform
from transforms.formats.base import Context, Decoded
from transforms.formats.columns import to_text
from transforms.formats.times import parse_times

TYPES = {
    "string": "text as it is",
    "long": "a whole number of 64 bits",
    "double": "a number of 64 bits, written as short as it can be",
    "boolean": "true or false; also 1, 0, yes, no",
    "timestamp": "ISO 8601, an epoch or --time_format; written as RFC 3339 in UTC",
}
"""Type -> what its values are."""

ALIASES = {
    "int": "long",
    "integer": "long",
    "float": "double",
    "number": "double",
    "bool": "boolean",
    "datetime": "timestamp",
    "text": "string",
}

_LONG = r"^\s*\+?(-?)0*([0-9]{1,19})(?:\.0*)?\s*$"
_DOUBLE = r"^\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*$"
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


class UnknownType(ValueError):
    """An item is declared with a type that is none; the text is the rest of a sentence."""


def split_type(text: str) -> tuple[str, str | None]:
    """Split `amount:double` into item and type; None if no type is declared.

    What follows the last colon is part of the name if it is no type (`org:resource`).

    Raises:
        UnknownType: it looks like a type that is misspelt.
    """
    name, colon, type_ = text.rpartition(":")
    if not colon or not name:
        return text, None
    found = known_type(type_)
    if found is not None:
        return name, found
    near = difflib.get_close_matches(type_.lower(), [*TYPES, *ALIASES], 1, 0.75)
    if near:
        reason = f"gives '{name}' the type '{type_}'; did you mean '{name}:{near[0]}'?"
        raise UnknownType(reason)
    return text, None


def known_type(text: str) -> str | None:
    """Return the type of that name, None if there is none."""
    lower = text.strip().lower()
    lower = ALIASES.get(lower, lower)
    return lower if lower in TYPES else None


def with_types(decoded: Decoded, context: Context) -> Decoded:
    """Return a batch whose items are of their declared types, what does not fit left out."""
    wanted = {n.lower(): t for n, t in context.item_types.items() if t != "string"}
    column = decoded.events["attributes"]
    if not wanted or column.null_count == len(column):
        return decoded
    attributes, unfit = typed_attributes(conform(column, ATTRIBUTES), wanted, context)
    at = EVENT_SCHEMA.get_field_index("attributes")
    events = decoded.events.set_column(at, EVENT_SCHEMA.field(at), attributes)
    return replace(decoded, events=events, unfit=unfit)


def typed_attributes(
    maps: pa.MapArray, types: Mapping[str, str], context: Context
) -> tuple[pa.Array, dict[str, int]]:
    """Normalise the items of some rows.

    Args:
        maps: map<string,string>.
        types: item, in lower case -> type.
        context: `timezone` and `time_format`.

    Returns:
        The maps, without the entries that do not fit; and item -> how many of those there were.
    """
    # Offsets of a slice do not begin at 0.
    bounds = maps.offsets.to_numpy()
    keys = maps.keys.slice(bounds[0], bounds[-1] - bounds[0])
    values = maps.items.slice(bounds[0], bounds[-1] - bounds[0])
    bounds = bounds - bounds[0]
    unfit: dict[str, int] = {}
    lost = np.zeros(len(keys), np.bool_)
    for key in keys.unique().to_pylist():
        type_ = types.get(key.lower())
        if type_ is None:
            continue
        chosen = pc.equal(keys, key)
        given = values.filter(chosen)
        made = normalise(given, type_, context)
        bad = pc.and_(made.is_null(), given.is_valid()).to_numpy(zero_copy_only=False)
        if bad.any():
            unfit[key] = int(bad.sum())
            lost[np.flatnonzero(chosen.to_numpy(zero_copy_only=False))[bad]] = True
        values = pc.replace_with_mask(values, chosen, made)
    if lost.any():
        kept = np.append(0, np.cumsum(~lost))
        bounds = kept[bounds]
        keys, values = keys.filter(pa.array(~lost)), values.filter(pa.array(~lost))
    made_maps = pa.MapArray.from_arrays(
        pa.array(bounds.astype(np.int32)), keys, values, type=ATTRIBUTES, mask=maps.is_null()
    )
    return made_maps, unfit


def normalise(texts: pa.Array, type_: str, context: Context) -> pa.Array:
    """Return texts as a type writes them; null where a text is none of it."""
    none = pa.scalar(None, pa.string())
    if type_ == "long":
        return _longs(texts)
    if type_ == "double":
        fits = pc.match_substring_regex(texts, _DOUBLE)
        numbers = pc.utf8_ltrim(pc.utf8_trim_whitespace(pc.if_else(fits, texts, none)), "+")
        return to_text(numbers.cast(pa.float64()))
    if type_ == "boolean":
        lower = pc.utf8_lower(pc.utf8_trim_whitespace(texts))
        true, false = (pc.is_in(lower, pa.array(words)) for words in (_TRUE, _FALSE))
        return pc.if_else(true, "true", pc.if_else(false, "false", none))
    if type_ == "timestamp":
        times = parse_times(texts, context.timezone)
        if context.time_format is not None:
            times = pc.coalesce(parse_times(texts, context.timezone, context.time_format), times)
        written = pc.strftime(times, "%Y-%m-%dT%H:%M:%SZ")
        written = pc.replace_substring_regex(written, r"\.0+Z$", "Z")
        return pc.replace_substring_regex(written, r"(\.[0-9]*[1-9])0+Z$", r"\1Z")
    return texts


def _longs(texts: pa.Array) -> pa.Array:
    fits = pc.match_substring_regex(texts, _LONG)
    digits = pc.replace_substring_regex(
        pc.if_else(fits, texts, pa.scalar(None, pa.string())), _LONG, r"\1\2"
    )
    try:
        return digits.cast(pa.int64()).cast(pa.string())
    except pa.ArrowInvalid:  # beyond 64 bits somewhere
        whole = [None if text is None else int(text) for text in digits.to_pylist()]
        return pa.array(
            [str(n) if n is not None and -(2**63) <= n < 2**63 else None for n in whole],
            pa.string(),
        )
