"""XES element by element: a streaming parser that may stand anywhere in a log.

It reads every layout that XML allows and decides what is broken, so it is the authority that
`xes_scan` must agree with. It holds one event at a time, whatever the size of the log. Document
types (and with them entities of one's own) are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.parsers import expat

import numpy as np
import pyarrow as pa

from schemas.dead_letters import MAX_PAYLOAD
from transforms.formats.xes_rows import Cursor, Header, Oversize, Rows, Unreadable, Wanted

TYPES = frozenset(("string", "date", "int", "float", "boolean", "id"))
"""Elements that are attributes with a value."""

_NONE: frozenset[str] = frozenset()


def classifier_keys(text: str) -> tuple[str, ...]:
    """Split the keys of a classifier at blanks; a key with blanks stands in `'...'`."""
    keys: list[str] = []
    for index, part in enumerate(text.split("'")):
        keys.extend([part] if index % 2 else part.split())
    return tuple(keys)


class Walker:
    """A streaming parser over a log or a stretch of it. Names count without their prefix.

    Attributes:
        alone: the root is an event.
    """

    def __init__(
        self,
        header: Header,
        cursor: Cursor,
        limit: int,
        *,
        inside: bool = False,
        part: bool = False,
    ) -> None:
        """Start a parser.

        Args:
            header: is filled by the log's first elements.
            cursor: is moved on; says which elements are open where parsing starts `inside`.
            limit: bytes of the largest event, and of the largest single tag.
            inside: parsing starts behind the header.
            part: the root may be a single trace or event.
        """
        self._header = header
        self._cursor = cursor
        self._limit = limit
        self._part = part
        self.alone = False
        # Number of open elements, and the one at which the attributes of the innermost open
        # log (1), trace (2) or event (3, or 2 outside of traces) start.
        self._level = self._holder = 0
        self._in_event = False
        self._in_plain_event = False  # no paths to keep
        self._event_start = 0
        # Where attributes go, which ones, and the keys of the open attributes for nested ones.
        self._values: dict[str, str] = {}
        self._keys: frozenset[str] = _NONE
        self._all_keys = False
        self._path: list[str | None] = []
        self._nested = False
        # The bytes that may be wanted again, and the offset of the first one.
        self._window = b""
        self._window_start = 0
        self._lines = cursor.lines
        self._clear()
        self._parser = parser = expat.ParserCreate("utf-8")
        if hasattr(parser, "SetReparseDeferralEnabled"):  # what is complete is wanted at once
            parser.SetReparseDeferralEnabled(False)
        opening = b""
        if inside:
            opening = f"<{cursor.root}>".encode()
            self._level = self._holder = 1
            if cursor.trace is not None:
                opening += f"<{cursor.tag}>".encode()
                self._level = 2
                self._hold_trace(cursor.trace)
            parser.Parse(opening)
        self._base = -len(opening)
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.StartDoctypeDeclHandler = self._doctype

    @property
    def in_event(self) -> bool:
        """Say whether an event is open."""
        return self._in_event

    @property
    def event_size(self) -> int:
        """Return the bytes fed since the open event's start."""
        return self._window_start + len(self._window) - self._event_start

    @property
    def between(self) -> bool:
        """Say whether nothing is open but the log and at most a trace."""
        return not self._in_event and self._level == self._holder > 0

    def feed(self, data: bytes, final: bool = False) -> None:
        """Parse the next bytes; what is found waits for `take`.

        Raises:
            Unreadable: this is not XML, not XES, or one element is too large.
        """
        self._window += data
        try:
            self._parser.Parse(data, final)
        except expat.ExpatError as error:
            reason = f"line {self._lines + error.lineno}: {expat.ErrorString(error.code)}"
            raise Unreadable(reason, "InvalidXml", self._rest()) from None
        if final:
            return
        end = self._window_start + len(self._window)
        # The parser holds back what isn't complete, a single tag as a rule.
        start = self._event_start if self._in_event else min(self._here(), end)
        self._forget(max(start, self._window_start))
        if end - start > self._limit:
            what = "an event" if self._in_event else "an element"
            reason = f"{what} is larger than {self._limit} bytes"
            raise Unreadable(reason, "TooLarge", self._rest())

    def closes(self) -> bool:
        """Say whether the open elements can be closed here; nothing can be fed afterwards."""
        cursor = self._cursor
        tags = [cursor.root] if cursor.trace is None else [cursor.tag, cursor.root]
        try:
            self._parser.Parse("".join(f"</{tag}>" for tag in tags).encode(), True)
        except expat.ExpatError:
            return False
        return True

    @property
    def found(self) -> bool:
        """Say whether there is something to take."""
        return bool(self._ordinals or self._oversize)

    def take(self) -> Rows:
        """Give the events found since the last time."""
        wanted = self._header.wanted if self._ordinals else Wanted((), ())
        rows = Rows(
            ordinals=np.array(self._ordinals, np.int64),
            traces=np.array(self._numbers, np.int64),
            event=_columns(self._event_rows, len(wanted.event)),
            trace=_columns(self._trace_rows, len(wanted.trace)),
            payload=self._payloads.__getitem__,
            oversize=self._oversize,
        )
        self._clear()
        return rows

    def _clear(self) -> None:
        self._ordinals: list[int] = []
        self._numbers: list[int] = []
        self._event_rows: list[list[str | None]] = []
        self._trace_rows: list[list[str | None]] = []
        self._payloads: list[bytes] = []
        self._oversize: list[Oversize] = []

    def _here(self) -> int:
        """Offset of the tag that is being handled, from the first byte fed."""
        return self._parser.CurrentByteIndex + self._base

    def _forget(self, offset: int) -> None:
        self._window = self._window[offset - self._window_start :]
        self._window_start = offset

    def _rest(self) -> bytes:
        start = self._event_start if self._in_event else self._here()
        return self._window[max(start - self._window_start, 0) :][:MAX_PAYLOAD]

    def _doctype(self, *_: Any) -> None:
        reason = "a document type is not accepted"
        raise Unreadable(reason, "ForbiddenDtd", self._window)

    def _start(self, name: str, given: dict[str, str]) -> None:
        level = self._level
        self._level = level + 1
        if self._in_plain_event and level == self._holder and name in TYPES:
            key = given.get("key")
            if key is not None and key in self._keys and (value := given.get("value")):
                self._values[key] = value
            return
        local = name.rpartition(":")[2] if ":" in name else name
        if level == self._holder:
            if level == 0:
                self._start_root(name, local)
                return
            key = given.get("key")
            if self._nested:
                self._path = [key]
            if local in TYPES:
                if key is not None and (self._all_keys or key in self._keys):
                    self._attribute(key, given.get("value"))
            elif self._in_event:
                return
            elif local == "event":
                self._start_event()
            elif level == 1 and local == "trace":
                self._start_trace(name)
            elif level == 1 and local == "classifier":
                self._classifier(given)
        elif self._nested:
            key = given.get("key")
            self._path[level - self._holder :] = [key]
            if local in TYPES and key is not None:
                path = "/".join([part for part in self._path if part is not None])
                if path in self._keys:
                    self._attribute(path, given.get("value"))

    def _attribute(self, key: str, value: str | None) -> None:
        if not value:
            return
        if self._values is self._cursor.trace and self._cursor.begun:
            self._cursor.belated = True
            return
        self._values[key] = value

    def _start_root(self, name: str, local: str) -> None:
        if local == "log":
            self._cursor.root = name
            self._holder = 1
            self._all_keys = True
            self._values = self._header.attributes
            self._cursor.trace = None
        elif self._part and local == "trace":
            self._level = 2
            self._start_trace(name)
        elif self._part and local == "event":
            self._level = 2 if self._cursor.trace is None else 3
            self.alone = True
            self._start_event()
        else:
            reason = f"the root element is <{name}>, not <log>"
            raise Unreadable(reason, "InvalidXml", self._window)

    def _classifier(self, given: Mapping[str, str]) -> None:
        header = self._header
        if header.complete or header.classifier or given.get("scope", "event") != "event":
            return
        header.classifier = classifier_keys(given.get("keys", ""))

    def _start_trace(self, name: str) -> None:
        cursor = self._cursor
        cursor.tag = name
        cursor.trace = {}
        cursor.begun = False
        cursor.traces += 1
        self._hold_trace(cursor.trace)

    def _hold_trace(self, values: dict[str, str]) -> None:
        wanted = self._header.wanted
        self._holder = 2
        self._values = values
        self._keys = frozenset(wanted.trace)
        self._all_keys = False
        self._nested = wanted.nested

    def _hold_log(self) -> None:
        """Stand in the log again."""
        # Behind its first trace a log has no attributes any more.
        self._holder = 1
        self._keys = _NONE
        self._all_keys = self._nested = False

    def _start_event(self) -> None:
        wanted = self._header.wanted
        self._in_event = True
        self._event_start = self._here()
        self._cursor.begun = True
        self._holder = self._level
        self._values = {}
        self._keys = frozenset(wanted.event)
        self._all_keys = False
        self._nested = wanted.nested
        self._in_plain_event = not wanted.nested

    def _end(self, name: str) -> None:
        level = self._level = self._level - 1
        if level >= self._holder:
            return
        if self._in_event:
            self._end_event(name)
            if self._cursor.trace is None:
                self._hold_log()
            else:
                self._hold_trace(self._cursor.trace)
        elif self._holder == 2:
            self._cursor.trace = None
            self._hold_log()

    def _end_event(self, name: str) -> None:
        cursor, trace, window = self._cursor, self._cursor.trace, self._window
        self._in_event = self._in_plain_event = False
        start = self._event_start - self._window_start
        end = self._here() - self._window_start
        # At `</event>` the parser stands before it, at `<event/>` behind it.
        if window.startswith(f"</{name}".encode(), end):
            end = window.index(b">", end) + 1
        ordinal, number = cursor.events, -1 if trace is None else cursor.traces - 1
        cursor.events += 1
        if end - start > self._limit:
            head = window[start : min(end, start + MAX_PAYLOAD)]
            self._oversize.append(Oversize(ordinal, number, dict(trace or {}), head, end - start))
            return
        wanted = self._header.wanted
        self._ordinals.append(ordinal)
        self._numbers.append(number)
        self._event_rows.append([self._values.get(key) for key in wanted.event])
        self._trace_rows.append([trace.get(key) if trace else None for key in wanted.trace])
        self._payloads.append(window[start:end])


def _columns(rows: Sequence[Sequence[str | None]], width: int) -> list[pa.Array]:
    if not rows:
        return [pa.array([], pa.string())] * width
    return [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
