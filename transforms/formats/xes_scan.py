"""XES at columnar speed: fragments of plain layout are read by NumPy and Arrow, no tag by tag.

A fragment is a run of whole traces and events. Most tools write `<string key="K" value="V"/>`
and nothing else; such a fragment is checked byte for byte (every tag one of a few known ones,
quotes, nesting, references, characters, only white space between tags), so it is known to be
well-formed, and its values are gathered by columns with the interpreter lock released. Anything
else is not wrong but not plain: `scan` says None and an XML parser reads the fragment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats.xes_rows import Wanted

Integers = npt.NDArray[Any]


@dataclass(frozen=True)
class Scan:
    """The events of one plain fragment.

    Attributes:
        event: a string array for each wanted event key, a value for each event.
        trace: a string array for each wanted trace key, a value for each trace (see `traces`).
        traces: for each event the trace it is in; 0 is the one open at the start of the fragment.
        started: number of traces that start in the fragment.
        open: a trace is open at the end of the fragment.
        starts: offset of each `<event>`.
        ends: offset behind each `</event>`.
        lines: ends of lines in the fragment.
        belated: a wanted trace attribute stands behind the first event of its trace.
    """

    event: list[pa.Array]
    trace: list[pa.Array]
    traces: Integers
    started: int
    open: bool
    starts: Integers
    ends: Integers
    lines: int
    belated: bool


def _word(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text, "little"))


_STRING, _DATE, _INT, _FLOAT, _BOOLEAN, _ID, _LIST, _EVENT, _TRACE, _VALUES = range(1, 11)
_CLOSE = 32

# First eight bytes of a tag -> what it is. The common ones are looked for in all tags, the
# rare ones in what is left.
_COMMON = (
    (b"<string ", _STRING),
    (b"<date ke", _DATE),
    (b"<event>", _EVENT),
    (b"</event>", _EVENT + _CLOSE),
)
_RARE = (
    (b"<int key", _INT),
    (b"<float k", _FLOAT),
    (b"<boolean", _BOOLEAN),
    (b"<id key=", _ID),
    (b"<trace>", _TRACE),
    (b"</trace>", _TRACE + _CLOSE),
    (b"<list ke", _LIST),
    (b"<values>", _VALUES),
    (b"</string", _STRING + _CLOSE),
    (b"</date>", _DATE + _CLOSE),
    (b"</int>", _INT + _CLOSE),
    (b"</float>", _FLOAT + _CLOSE),
    (b"</boolea", _BOOLEAN + _CLOSE),
    (b"</id>", _ID + _CLOSE),
    (b"</list>", _LIST + _CLOSE),
    (b"</values", _VALUES + _CLOSE),
)
# By kind: bytes from `<` to the first quote, quotes in the tag, bytes from `<` to `>` if fixed.
_FIRST_QUOTE = np.array([0, 12, 10, 9, 11, 13, 8, 10, 0, 0, 0] + [0] * 32, np.int64)
_QUOTES = np.array([0, 4, 4, 4, 4, 4, 4, 2, 0, 0, 0] + [0] * 32, np.int64)
_LENGTH = np.zeros(43, np.int64)
for _name, _kind in {
    "string": _STRING,
    "date": _DATE,
    "int": _INT,
    "float": _FLOAT,
    "boolean": _BOOLEAN,
    "id": _ID,
    "list": _LIST,
    "event": _EVENT,
    "trace": _TRACE,
    "values": _VALUES,
}.items():
    _LENGTH[_kind + _CLOSE] = len(_name) + 2
    if _kind in (_EVENT, _TRACE, _VALUES):
        _LENGTH[_kind] = len(_name) + 1

_KEY = _word(b' key="')
_VALUE = _word(b'" value=')
_BITS = np.uint64(0x0101010101010101)
_TAIL = np.array([(1 << (8 * n)) - 1 for n in range(8)] + [2**64 - 1], np.uint64)

_REFERENCE = re.compile(rb"&(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});")
_REFERENCE_TEXT = re.compile(_REFERENCE.pattern.decode())
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}


def scan(fragment: bytes, in_trace: bool, wanted: Wanted, limit: int) -> Scan | None:
    """Read a fragment of plain layout.

    Args:
        fragment: UTF-8 bytes that end with `</event>` or `</trace>`.
        in_trace: the fragment starts inside a trace, behind one of its events.
        wanted: attributes to collect; the last one of a key counts, empty ones are none.
        limit: a fragment with a larger event is not plain.

    Returns:
        The events, or None if the fragment isn't of plain layout (it may still be XES).
    """
    if b'"' not in fragment:
        fragment = fragment.replace(b"'", b'"')
    size = len(fragment)
    padded = fragment + b"\0" * 8  # so that a word may be read at every offset
    raw = np.frombuffer(padded, np.uint8, size)
    words = np.ndarray(shape=(size + 1,), dtype="<u8", buffer=padded, strides=(1,))
    left, right = np.flatnonzero(raw == ord("<")), np.flatnonzero(raw == ord(">"))
    quotes = np.flatnonzero(raw == ord('"'))
    n = len(left)
    if n == 0 or len(right) != n or not (left < right).all() or not (right[:-1] < left[1:]).all():
        return None
    kind = _kinds(words[left], right - left)
    if kind is None or not _white(raw, words, left, right):
        return None
    count = _QUOTES[kind]
    first = np.cumsum(count)
    if first[-1] != len(quotes):
        return None
    first -= count
    attributes = np.flatnonzero(count)
    delta = _shape(raw, words, kind, left, right, quotes, first, attributes)
    if delta is None:
        return None
    after = np.cumsum(delta, dtype=np.int32) + np.int32(2 if in_trace else 1)
    before = after - delta
    opened = _nesting(kind, delta, before, after, in_trace)
    if opened is None or (wanted.nested and (kind[opened] <= _LIST).any()):
        return None
    references = _references(fragment)
    if references is None or not _characters(fragment, padded, size):
        return None

    events = kind == _EVENT
    starts, ends = left[events], right[kind == _EVENT + _CLOSE] + 1
    if len(starts) and int((ends - starts).max()) > limit:
        return None
    row = np.cumsum(events, dtype=np.int32)
    row -= 1
    trace = np.cumsum(kind == _TRACE, dtype=np.int32)

    texts = _between_quotes(quotes, padded)
    keys = (*wanted.event, *(k for k in wanted.trace if k not in wanted.event))
    valued = attributes[kind[attributes] != _LIST]
    names = texts.take(pa.array(first[valued]))
    if references and pc.any(pc.match_substring(names, "&")).as_py():
        return None
    code = pc.index_in(names, pa.array(keys, pa.string())).fill_null(-1).to_numpy()
    # Only attributes of a wanted key that have a value go on.
    live = np.flatnonzero(code >= 0)
    code, token = code[live], valued[live]
    value = first[token] + 2
    live = np.flatnonzero(quotes[value + 1] > quotes[value] + 1)
    code, token, value = code[live], token[live], value[live]
    depth = before[token]

    # A trace's attributes stand before its events; the trace open at the start has had some.
    event_at_start = np.append(np.int32(-2), row[kind == _TRACE])
    in_head = row[token] == event_at_start[trace[token]]
    of_trace = np.flatnonzero((depth == 2) & in_head)
    belated = np.isin(code[(depth == 2) & ~in_head], [keys.index(k) for k in wanted.trace]).any()
    of_event = np.flatnonzero(depth == 3)
    second = opened[before[opened] == 2]
    if not (kind[second] == _EVENT).all():  # some are attributes of a trace, with children
        owner = np.searchsorted(second, token[of_event]) - 1
        of_event = of_event[kind[second[owner]] == _EVENT]

    def collect(
        chosen: Integers, group: Integers, groups: int, keys_: Sequence[str]
    ) -> list[pa.Array]:
        found = []
        for key in keys_:
            hits = chosen[code[chosen] == keys.index(key)]
            at = np.full(groups, -1, np.int64)
            at[group[token[hits]]] = value[hits]
            column = texts.take(pa.array(at, mask=at < 0))
            found.append(_unescape(column, references) if references else column)
        return found

    started = int(trace[-1])
    return Scan(
        event=collect(of_event, row, len(starts), wanted.event),
        trace=collect(of_trace, trace, started + 1, wanted.trace),
        traces=trace[events],
        started=started,
        open=int(after[-1]) == 2,
        starts=starts,
        ends=ends,
        lines=count_lines(fragment),
        belated=bool(belated),
    )


def count_lines(data: bytes) -> int:
    """Count ends of lines as XML does: CR LF, or either alone."""
    raw = np.frombuffer(data, np.uint8)
    lines = int(np.count_nonzero(raw == ord("\n")))
    returns = int(np.count_nonzero(raw == ord("\r")))
    return lines + returns - data.count(b"\r\n") if returns else lines


def _kinds(words: Integers, length: Integers) -> Integers | None:
    """Name each tag by its first eight bytes; None if one is not known."""
    kind = np.zeros(len(words), np.int8)
    for text, code in _COMMON:
        kind[(words & _TAIL[len(text)]) == _word(text)] = code
    rest = np.flatnonzero(kind == 0)
    if len(rest):
        words = words[rest]
        found = np.zeros(len(rest), np.int8)
        for text, code in _RARE:
            found[(words & _TAIL[len(text)]) == _word(text)] = code
        if not found.all():
            return None
        kind[rest] = found
    fixed = _LENGTH[kind]
    if not ((fixed == 0) | (fixed == length)).all():
        return None
    return kind


def _white(raw: Integers, words: Integers, left: Integers, right: Integers) -> bool:
    """Say whether all between tags is white space, and no control character is elsewhere."""
    starts = np.empty_like(left)
    starts[0], starts[1:] = 0, right[:-1] + 1
    gap = left - starts
    longest, blanks, total = int(gap.max()), 0, int(gap.sum())
    for at in range(0, longest, 8):
        if at:
            live = np.flatnonzero(gap > at)
            starts, gap = starts[live], gap[live]
        word = words[starts + at] & _TAIL[np.minimum(gap - at, 8)]
        blank = (word >> np.uint64(5)) & _BITS  # 1 in each byte from 0x20 to 0x3f
        # Eight bits above 0x3f or behind a 0x20: not white space.
        if (word & (_BITS * np.uint64(0xC0) | blank * np.uint64(0x1F))).any():
            return False
        blanks += int(((blank * _BITS) >> np.uint64(56)).sum())
    controls = int(np.count_nonzero(raw < 32))
    lines = sum(int(np.count_nonzero(raw == ord(c))) for c in "\n\t\r")
    return controls == lines == total - blanks


def _shape(
    raw: Integers,
    words: Integers,
    kind: Integers,
    left: Integers,
    right: Integers,
    quotes: Integers,
    first: Integers,
    attributes: Integers,
) -> Integers | None:
    """Check `key="..." value="..."` in each attribute; give what each tag adds to the depth."""
    delta = np.zeros(len(kind), np.int8)
    delta[(kind >= _EVENT) & (kind < _CLOSE)] = 1
    delta[kind > _CLOSE] = -1
    own = kind[attributes]
    at = first[attributes]
    key = quotes[at]
    if not ((key - left[attributes]) == _FIRST_QUOTE[own]).all():
        return None
    if not ((words[key - 5] & _TAIL[6]) == _KEY).all():
        return None
    valued = at[own != _LIST] if (own == _LIST).any() else at
    ends = quotes[valued + 1]
    if not ((words[ends] == _VALUE) & (quotes[valued + 2] == ends + 8)).all():
        return None
    last = quotes[at + _QUOTES[own] - 1]
    end = right[attributes]
    rest = end - last  # `">`, `"/>` or `" />`
    opens = rest == 1
    closed = raw[end - 1] == ord("/")
    spaced = (rest == 3) & (raw[last + 1] == ord(" "))
    if not (opens | (closed & ((rest == 2) | spaced))).all():
        return None
    delta[attributes[opens]] = 1
    return delta


def _nesting(
    kind: Integers, delta: Integers, before: Integers, after: Integers, in_trace: bool
) -> Integers | None:
    """Check that each tag is closed by its own; give the opening ones, None if they don't fit."""
    if int(after.min()) < 1 or int(after[-1]) > 2:
        return None
    tags = np.flatnonzero(delta)
    opened = tags[delta[tags] > 0]
    own, level = kind[opened], before[opened]
    if not (((own == _TRACE) == (level == 1)) & ((own != _EVENT) | (level == 2))).all():
        return None
    names = kind[tags] & (_CLOSE - 1)
    levels = np.minimum(before[tags], after[tags])
    if in_trace:
        names, levels = np.append(np.int8(_TRACE), names), np.append(np.int32(1), levels)
    if int(after[-1]) == 2:
        names, levels = np.append(names, np.int8(_TRACE)), np.append(levels, np.int32(1))
    # On each level opening and closing tags alternate.
    names = names[np.argsort(levels, kind="stable")]
    return opened if (names[0::2] == names[1::2]).all() else None


def _characters(fragment: bytes, padded: bytes, size: int) -> bool:
    """Say whether all is UTF-8 and made of the characters that XML allows."""
    if fragment.isascii():
        return True
    if b"\xef\xbf\xbe" in fragment or b"\xef\xbf\xbf" in fragment:  # U+FFFE, U+FFFF
        return False
    offsets = pa.py_buffer(np.array([0, size], np.int32))
    try:
        pa.Array.from_buffers(pa.binary(), 1, [None, offsets, pa.py_buffer(padded)]).cast(
            pa.string()
        )
    except pa.ArrowInvalid:
        return False
    return True


def _references(fragment: bytes) -> Mapping[str, str] | None:
    """Give what each `&...;` stands for; None if one is not known or a bare `&` is there."""
    total = fragment.count(b"&")
    if total == 0:
        return {}
    found = _REFERENCE.findall(fragment)
    if len(found) != total:
        return None
    meanings = {}
    for text in {reference.decode() for reference in set(found)}:
        name = text[1:-1]
        if name[0] != "#":
            meanings[text] = _NAMED[name]
            continue
        number = int(name[2:], 16) if name[1] == "x" else int(name[1:])
        if not (
            number in (9, 10, 13)
            or 0x20 <= number < 0xD800
            or 0xE000 <= number < 0xFFFE
            or 0x10000 <= number < 0x110000
        ):
            return None
        meanings[text] = chr(number)
    return meanings


def _between_quotes(quotes: Integers, padded: bytes) -> pa.Array:
    """Make an array, without a copy, whose item i (even) is the text behind quote i."""
    offsets = quotes.astype(np.int32)
    offsets[0::2] += 1
    return pa.StringArray.from_buffers(
        max(len(quotes) - 1, 0), pa.py_buffer(offsets), pa.py_buffer(padded)
    )


def _unescape(column: pa.Array, references: Mapping[str, str]) -> pa.Array:
    """Replace references in the values that have some."""
    touched = pc.fill_null(pc.match_substring(column, "&"), False)
    texts = column.filter(touched).to_pylist()
    if not texts:
        return column
    plain = [_REFERENCE_TEXT.sub(lambda m: references[m[0]], text) for text in texts]
    return pc.replace_with_mask(column, touched, pa.array(plain, pa.string()))
