"""Avro schemas that can be read safely: parsed, and checked before any data is.

A schema comes with the data, or from a registry. Some that are valid would take a few bytes for
gigabytes of values, or a reader written in C deeper than its stack: those are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fastavro
import orjson
from fastavro.schema import SchemaParseException, UnknownType

MAX_DEPTH = 64
"""Levels of a schema."""

MAX_VALUES = 100_000
"""Values of one record, lists and maps counted as one each."""

_BYTES = {"null": 0, "float": 4, "double": 8}
"""Least bytes of a value of a primitive type, where that is not 1."""


class BadSchema(ValueError):
    """A schema cannot be used; one line says why."""


def parse_schema(text: str | bytes, named: dict[str, Any] | None = None) -> Any:
    """Parse a schema.

    Args:
        text: JSON.
        named: full name -> parsed type, of those that it refers to; its own are added.

    Raises:
        BadSchema: it is none, or one that is refused.
    """
    try:
        loaded = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        reason = f"the schema is not JSON: {error}"
        raise BadSchema(reason) from None
    _check_depth(loaded)
    types = {} if named is None else named
    try:
        parsed = fastavro.parse_schema(loaded, named_schemas=types)
    except (SchemaParseException, UnknownType, ValueError, TypeError, KeyError) as error:
        what = f"unknown type {error}" if isinstance(error, UnknownType) else str(error)
        reason = f"not an Avro schema: {what}"[:500]
        raise BadSchema(reason) from None
    least_bytes(parsed, types)
    return parsed


def _check_depth(schema: Any) -> None:
    waiting = [(schema, 0)]
    while waiting:
        value, depth = waiting.pop()
        # A field is a level of JSON, and its list another.
        if depth > 3 * MAX_DEPTH:
            reason = f"the schema has more than {MAX_DEPTH} levels"
            raise BadSchema(reason)
        if isinstance(value, dict):
            waiting += [(each, depth + 1) for each in value.values()]
        elif isinstance(value, list):
            waiting += [(each, depth + 1) for each in value]


def least_bytes(schema: Any, named: Mapping[str, Any]) -> int:
    """Return the least bytes of a value of a parsed schema; refuse one of which little is much.

    Raises:
        BadSchema: a type holds itself, a list has values without bytes, a record has too many.
    """
    known: dict[str, tuple[int, int] | None] = {}

    def extent(kind: Any) -> tuple[int, int]:
        """Return the number of values, and the least bytes, of a type."""
        if isinstance(kind, list):
            return 1 + max((extent(each)[0] for each in kind), default=0), 1
        if isinstance(kind, str):
            if kind in named:
                return extent_of(kind, named[kind])
            return 1, _BYTES.get(kind, 1)
        type_ = kind.get("type")
        if type_ in ("record", "error"):
            return extent_of(kind["name"], kind)
        if type_ == "array":
            values, least = extent(kind["items"])
            if not least:
                reason = "a list of values that take no bytes is refused"
                raise BadSchema(reason)
            return 1 + values, 1
        if type_ == "map":
            return 1 + extent(kind["values"])[0], 1
        if type_ == "fixed":
            return 1, kind["size"]
        return extent(type_) if isinstance(type_, (dict, list)) else (1, _BYTES.get(type_, 1))

    def extent_of(name: str, kind: Any) -> tuple[int, int]:
        if name in known:
            found = known[name]
            if found is None:
                reason = f"the type {name} holds itself, which is refused"
                raise BadSchema(reason)
            return found
        if kind.get("type") not in ("record", "error"):
            return 1, kind.get("size", 1)
        known[name] = None
        parts = [extent(field["type"]) for field in kind["fields"]]
        made = 1 + sum(values for values, _ in parts), sum(least for _, least in parts)
        if made[0] > MAX_VALUES:
            reason = f"a record of {name} would have more than {MAX_VALUES:,} values"
            raise BadSchema(reason)
        known[name] = made
        return made

    return extent(schema)[1]
