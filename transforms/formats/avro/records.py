"""Avro records as JSON objects, one a line: what reads JSON by columns reads them too."""

from __future__ import annotations

import decimal
import re
from typing import Any

import orjson

BAD_DATA = (EOFError, IndexError, KeyError, OverflowError, TypeError, ValueError, MemoryError)
"""What fastavro raises for data that do not fit their schema (also UnicodeDecodeError)."""


_SHORT = re.compile(r"Expected -?[0-9]+ bytes, read [0-9]+")


def why(error: BaseException) -> str:
    """Say in one line what is wrong with data that fastavro could not read."""
    if isinstance(error, IndexError):
        # Where a number chooses among some; fastavro says only that its list has no such place.
        return "it names a branch of a union, or a symbol of an enum, that its schema does not have"
    text = " ".join(str(error).split())
    # A text or bytes whose length goes beyond the end; the rest of it is not told truly.
    return "it ends too early" if not text or _SHORT.match(text) else text


def as_line(record: Any) -> bytes:
    """Return a record as a JSON object.

    Times of logical types are ISO 8601 (local ones without a zone), decimals numbers with all their
    digits, bytes text if they are UTF-8 and else one character a byte; what is not finite is null.

    Raises:
        ValueError: it is no record.
    """
    if not isinstance(record, dict):
        reason = f"a value of type {type(record).__name__}, not a record"
        raise ValueError(reason)
    return orjson.dumps(record, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        return orjson.Fragment(format(value, "f")) if value.is_finite() else None
    if isinstance(value, (bytes, bytearray)):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return bytes(value).decode("latin-1")
    if isinstance(value, int):  # beyond 64 bits
        return orjson.Fragment(str(value))
    return str(value)
