"""Schemas that are valid but would make much of little are refused before any data is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from transforms.formats.avro.schemas import BadSchema, parse_schema


def record(*fields: Any, name: str = "R") -> dict[str, Any]:
    return {
        "type": "record",
        "name": name,
        "fields": [{"name": f"f{i}", "type": each} for i, each in enumerate(fields)],
    }


def wide() -> Any:
    """Return a record of a hundred records of a hundred records of a hundred nothings."""
    inner: Any = "null"
    for level in range(3):
        first = record(inner, name=f"L{level}")
        inner = {**first, "fields": [{"name": "g0", "type": first["fields"][0]["type"]}]}
        inner["fields"] += [
            {"name": f"g{i}", "type": "null" if level == 0 else f"L{level - 1}"}
            for i in range(1, 100)
        ]
    return inner


def deep() -> Any:
    kind: Any = "string"
    for _ in range(200):
        kind = {"type": "array", "items": kind}
    return record(kind)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (record("string", ["null", "R"]), "R holds itself"),
        (record({"type": "array", "items": "null"}), "no bytes"),
        (record({"type": "array", "items": record("null", name="E")}), "no bytes"),
        (record({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}), "no bytes"),
        (wide(), "more than 100,000 values"),
        (deep(), "levels"),
        (record("Elsewhere"), "unknown type"),
        ({"type": "record"}, "not an Avro schema"),
        (17, "not an Avro schema"),
        ({"type": "record", "name": "R", "fields": 3}, "not an Avro schema"),
    ],
)
def test_refused(schema: Any, reason: str) -> None:
    with pytest.raises(BadSchema, match=reason):
        parse_schema(json.dumps(schema))


def test_not_json() -> None:
    with pytest.raises(BadSchema, match="not JSON"):
        parse_schema("{")


@pytest.mark.parametrize(
    "schema",
    [
        record("string", ["null", "long"], {"type": "map", "values": "double"}),
        record({"type": "array", "items": record("null", "int", name="E")}),
        record({"type": "enum", "name": "K", "symbols": ["A"]}, "K"),
        record({"type": "fixed", "name": "F", "size": 4}, {"type": "array", "items": "F"}),
    ],
)
def test_taken(schema: Any) -> None:
    assert parse_schema(json.dumps(schema))["name"] == "R"
