"""Which formats there are, by name and by content.

A format of ours is one line here; another package brings its own as an entry point of the
group `imixs_streams.formats` that names an object with the attributes of `base.Format`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from functools import cache, lru_cache
from typing import cast

from transforms.formats.base import Format

ENTRY_POINTS = "imixs_streams.formats"

HEAD_BYTES = 64 * 1024
"""Bytes of a (decompressed) file that detection looks at."""

# Name -> module, each with a `FORMAT`; in the order of detection: the most particular first.
_MODULES = {
    "xes": "transforms.formats.xes",
    "imixs_xml": "transforms.formats.imixs_xml",
    "dead_letters": "transforms.formats.dead_letters",
    "parquet": "transforms.formats.parquet_rows",
    "avro": "transforms.formats.avro.format",
    "ocel": "transforms.formats.ocel.format",
    "imixs_json": "transforms.formats.imixs_json",
    "kogito": "transforms.formats.messages.kogito",
    "cloudevents": "transforms.formats.messages.cloudevents",
    "zeebe": "transforms.formats.messages.zeebe",
    "imixs_outbox": "transforms.formats.messages.imixs_outbox",
    "json_lines": "transforms.formats.json_lines",
    "json": "transforms.formats.messages.plain",
    "csv": "transforms.formats.csv_rows",
}


class UnknownFormat(ValueError):
    """No format has that name."""


def names() -> tuple[str, ...]:
    """Return the names of all formats, in the order of detection."""
    return (*(n for n in _installed() if n not in _MODULES), *_MODULES)


@cache
def get(name: str) -> Format:
    """Return a format by its name.

    Raises:
        UnknownFormat: there is none of that name.
    """
    if name in _MODULES:
        return cast(Format, importlib.import_module(_MODULES[name]).FORMAT)
    if name in _installed():
        return cast(Format, _installed()[name].load())
    reason = f"unknown format {name!r}; known are {', '.join(names())}"
    raise UnknownFormat(reason)


def is_foreign(name: str) -> bool:
    """Say whether a format is of another package."""
    return name not in _MODULES


def detect(head: bytes, name: str) -> Format | None:
    """Return the format of a file, or None if it is none of ours.

    Args:
        head: its first bytes, decompressed, up to `HEAD_BYTES`.
        name: its path; content decides, the name only where that is not enough.
    """
    return next((f for f in map(get, names()) if f.detects(head, name)), None)


@lru_cache(maxsize=1)
def _installed() -> dict[str, importlib.metadata.EntryPoint]:
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {entry.name: entry for entry in sorted(found, key=lambda e: e.name)}
