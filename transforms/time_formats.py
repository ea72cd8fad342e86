"""How times are written: `strptime` formats, and the units of epochs."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from functools import lru_cache

UNITS = ("s", "ms", "us", "ns")
"""Units of epochs."""

# Every part of it differs from the others, and from what stands for a part that is not there.
_SAMPLE = datetime(2024, 11, 30, 22, 58, 59, tzinfo=timezone.utc)


@lru_cache(maxsize=256)
def problem(text: str) -> str | None:
    """Say what is wrong with a format of times, or None if nothing is.

    Returns:
        The rest of a sentence that begins with the format.
    """
    if text in UNITS:
        return None
    if "%" not in text:
        return "is neither a strptime format like '%d.%m.%Y %H:%M' nor one of s, ms, us, ns"
    try:
        read = datetime.strptime(_SAMPLE.strftime(text), text)  # noqa: DTZ007 (only its date)
    except (ValueError, re.error) as error:
        return f"is not a strptime format: {error}"
    if (read.year, read.month, read.day) != (_SAMPLE.year, _SAMPLE.month, _SAMPLE.day):
        return "holds no full date; it needs a year, a month and a day (%Y-%m-%d)"
    return None
