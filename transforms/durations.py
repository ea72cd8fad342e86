"""Durations as people write them: `500ms`, `30s`, `5m`, `2h`, `30d`."""

from __future__ import annotations

import re

UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
"""Unit -> milliseconds, the longest first."""

_DURATION = re.compile(rf"(\d+(?:\.\d+)?)\s*({'|'.join(UNITS_MS)})")


def parse_ms(text: str) -> int:
    """Read a duration as milliseconds.

    Raises:
        ValueError: it is none; the text is the rest of a sentence that begins with the value.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        hint = f"; add its unit, such as {text.strip()}s" if text.strip().isdigit() else ""
        reason = f"is not a duration like 500ms, 30s, 5m, 2h or 30d{hint}"
        raise ValueError(reason)
    value = float(match[1]) * UNITS_MS[match[2]]
    if value != int(value):
        reason = "is not a whole number of milliseconds"
        raise ValueError(reason)
    return int(value)


def show_ms(value: int) -> str:
    """Write milliseconds in the longest unit that fits without a rest: `parse_ms` reads it."""
    for unit, length in UNITS_MS.items():
        if value and value % length == 0:
            return f"{value // length}{unit}"
    return f"{value}ms"
