"""How a checkpoint mark is written: JSON with a version, equal marks as equal bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

VERSION = 1


def write_versioned(values: Mapping[str, Any]) -> bytes:
    """Write the values of a mark."""
    return orjson.dumps({"version": VERSION, **values}, option=orjson.OPT_SORT_KEYS)


def read_versioned(encoded: bytes) -> dict[str, Any]:
    """Read the values of a mark.

    Raises:
        ValueError: it is of a newer version.
    """
    found: dict[str, Any] = orjson.loads(encoded)
    if found["version"] != VERSION:
        reason = f"checkpoint mark of version {found['version']}; this release reads {VERSION}"
        raise ValueError(reason)
    return found
