"""Where the records of CSV bytes begin and end, quoted newlines considered.

Owns the splitting only: a record that the splitter calls good has balanced quotes, so a reader
of the fields cannot run over its end. A quote counts where a field begins with it (RFC 4180);
a line whose quote never closes, or closes in the middle of a field, is bad by itself and does
not swallow the lines behind it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from transforms.formats.line_blocks import Offsets, positions_of

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Records:
    """Bounds of records.

    Attributes:
        starts: first byte of each.
        ends: end of each, its line break not included.
        bad: numbers of those with a quote out of place.
        size: bytes of all of them, line breaks included.
    """

    starts: Offsets
    ends: Offsets
    bad: tuple[int, ...]
    size: int


class RecordSplitter:
    """Cuts CSV bytes at the ends of records; remembers those of the last cut.

    Args:
        delimiter: one byte between fields.
        quote: one byte around fields.
        limit: a quoted field that is longer is taken for a quote that never closes.
    """

    def __init__(self, delimiter: bytes, quote: bytes, limit: int) -> None:
        self.records = Records(np.empty(0, np.int64), np.empty(0, np.int64), (), 0)
        self._quote = ord(quote)
        self._before = np.zeros(256, np.bool_)
        self._before[[delimiter[0], 10, quote[0]]] = True
        self._after = self._before.copy()
        self._after[13] = True
        self._limit = limit
        q, d = re.escape(quote), re.escape(delimiter)
        quoted = b"%s(?:[^%s]|%s%s)*" % (q, q, q, q)
        field = b"(?:%s%s|(?!%s)[^%s\n]*)" % (quoted, q, q, d)
        self._record = re.compile(b"%s(?:%s%s)*\r?(?:\n|\\Z)" % (field, d, field))
        self._open = re.compile(b"(?:%s%s)*%s\\Z" % (field, d, quoted))

    def cut(self, data: bytes, complete: bool) -> int:
        """Find the records of the data; return how many bytes they are.

        Args:
            data: bytes from the start of a record.
            complete: nothing follows the data, so a last record needs no line break.
        """
        raw = np.frombuffer(data, np.uint8)
        breaks = positions_of(raw, 10)
        quotes = positions_of(raw, self._quote)
        if len(quotes):
            tidy = self._tidy(raw, quotes)
            if not tidy or (len(quotes) % 2 and (complete or len(data) > self._limit)):
                return self._scan(data, complete)
            breaks = breaks[np.searchsorted(quotes, breaks) % 2 == 0]
        if complete and len(raw) and (not len(breaks) or breaks[-1] != len(raw) - 1):
            breaks = np.append(breaks, len(raw))
        return self._keep(raw, breaks, ())

    def _keep(self, raw: Bytes, breaks: Offsets, bad: tuple[int, ...]) -> int:
        starts = np.empty_like(breaks)
        starts[:1] = 0
        starts[1:] = breaks[:-1] + 1
        ends = breaks
        if len(breaks):
            ends = breaks - ((breaks > starts) & (raw[np.maximum(breaks, 1) - 1] == 13))
        size = min(int(breaks[-1]) + 1, len(raw)) if len(breaks) else 0
        self.records = Records(starts, ends, bad, size)
        return size

    def _tidy(self, raw: Bytes, quotes: Offsets) -> bool:
        """Say whether quotes simply alternate: opened before a field, closed behind it."""
        opening, closing = quotes[0::2], quotes[1::2]
        before = self._before[raw[np.maximum(opening, 1) - 1]] | (opening == 0)
        after = self._after[raw[np.minimum(closing, len(raw) - 2) + 1]] | (closing == len(raw) - 1)
        # A quote behind a quote is half of a pair; only then is one behind a closing one right.
        return bool(before.all() and after.all())

    def _scan(self, data: bytes, complete: bool) -> int:
        """Find records one by one: a line with a quote out of place is a bad record."""
        breaks: list[int] = []
        bad: list[int] = []
        at = 0
        while at < len(data):
            found = self._record.match(data, at)
            end = -1
            if found and found.end() > at and data[found.end() - 1] == 10:
                end = found.end() - 1
            elif found and complete:
                end = found.end()
            elif found or (
                not complete and len(data) - at <= self._limit and self._open.match(data, at)
            ):
                break  # the record goes on behind the data
            if end < 0:
                newline = data.find(b"\n", at)
                if newline < 0 and not complete:
                    break
                end = len(data) if newline < 0 else newline
                bad.append(len(breaks))
            breaks.append(end)
            at = end + 1
        return self._keep(np.frombuffer(data, np.uint8), np.array(breaks, np.int64), tuple(bad))
