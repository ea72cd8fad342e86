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

_WINDOW = 1 << 15
"""Bytes that a pattern may look at: it keeps a note of about 100 bytes of each field it repeats."""

_OPEN = -1
_BAD = -2


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
        limit: a record of several lines that is longer is taken for a quote that never closes.
    """

    def __init__(self, delimiter: bytes, quote: bytes, limit: int) -> None:
        self.records = Records(np.empty(0, np.int64), np.empty(0, np.int64), (), 0)
        self._quote = ord(quote)
        self._delimiter = delimiter[0]
        self._before = np.zeros(256, np.bool_)
        self._before[[delimiter[0], 10, quote[0]]] = True
        self._after = self._before.copy()
        self._after[13] = True
        self._limit = limit
        q, d = re.escape(quote), re.escape(delimiter)
        field = b"(?:%s[^%s]*(?:%s%s[^%s]*)*%s|(?!%s)[^%s\n]*)" % (q, q, q, q, q, q, q, d)
        self._record = re.compile(b"%s(?:%s%s)*\r?\n" % (field, d, field))
        self._fields = re.compile(b"(?:%s%s)*" % (field, d))
        self._run = re.compile(b"%s+" % q)
        self._stop = re.compile(b"[%s\n]" % d)

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
            if len(breaks) and np.diff(breaks, prepend=-1).max() > self._limit + 2:
                return self._scan(data, complete)
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
            newline = data.find(b"\n", at)
            if newline >= 0 and data.find(self._quote, at, newline) < 0:
                end = newline
            elif found := self._record.match(data, at, at + _WINDOW):
                end = found.end() - 1
            else:
                end = self._walk(data, at)
            within = (len(data) if end < 0 else end) - at <= self._limit
            if not complete and (end == len(data) or (end == _OPEN and within)):
                break  # the record goes on behind the data
            if end < 0 or not within:
                if newline < 0 and not complete:
                    break
                line_end = len(data) if newline < 0 else newline
                if end != line_end:  # not just a long line
                    bad.append(len(breaks))
                end = line_end
            breaks.append(end)
            at = end + 1
        return self._keep(np.frombuffer(data, np.uint8), np.array(breaks, np.int64), tuple(bad))

    def _walk(self, data: bytes, at: int) -> int:
        """Return the end of a record: its newline or the end of the data; `_OPEN`; `_BAD`.

        Fields in windows, so a record of any size and any quotes takes little memory.
        """
        while True:
            found = self._fields.match(data, at, at + _WINDOW)
            at = found.end() if found else at
            if at < len(data) and data[at] == self._quote:
                # Quotes in pairs are characters; an odd one closes.
                runs = self._run.finditer(data, at + 1)
                at = next((run.end() for run in runs if (run.end() - run.start()) % 2), -1)
                if at < 0:
                    return _OPEN
                behind = data[at : at + 2]
                if behind in (b"", b"\r"):
                    return len(data)
                if behind[:1] == b"\n" or behind == b"\r\n":
                    return at + behind.index(b"\n")
                if behind[0] != self._delimiter:
                    return _BAD
                at += 1
            else:
                stop = self._stop.search(data, at)
                if stop is None:
                    return len(data)
                if data[stop.start()] == 10:
                    return stop.start()
                at = stop.end()
