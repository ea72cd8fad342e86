"""Taking the wanted items out of Imixs XML as the engine writes it, a whole batch at once.

One regular expression describes such a document from its first byte to its last. A document
that it matches is well-formed and holds nothing but items, values and text, so that no parser
is needed: `<` only begins a tag, `>` only ends one, and what is between them is found by
arithmetic on their positions. RE2 matches in one pass and linear time, whatever the input.
A document that it does not match may still be good: the caller asks a parser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from lxml import etree

from transforms.formats.eventlog import Integers, Mask

MAX_BYTES = 4 * 1024 * 1024
"""Larger documents are left to the parser, which has limits of its own."""

# The expression is one of bytes, which makes it small; that they are UTF-8 is seen before.
# Of what UTF-8 can write, XML forbids control characters, U+FFFE (EF BF BE) and U+FFFF.
_CONTROL = r"\x00-\x08\x0b\x0c\x0e-\x1f"
_EF = r"\xEF[^\xBF]|\xEF\xBF[^\xBE\xBF]"
_BLANK = r"[ \t\r\n]*"
_BLANKS = r"[ \t\r\n]+"
_REFERENCE = r"&(?:lt|gt|amp|quot|apos|#(?:9|10|13|34|38|39|60|62|x9|x[aAdD]));"
_TEXT = rf"(?:[^<>&\xEF{_CONTROL}]|{_EF}|{_REFERENCE})*"
# Blanks in an attribute but the space are read as spaces: none are allowed.
_NAME = rf'(?:[^<>&"\xEF\x00-\x1f]|{_EF})*'
_TYPE = rf'{_BLANKS}(?:xsi:)?type="[\w:.-]*"'
_URI = r"http://www\.w3\.org/2001/XMLSchema"
_XS, _XSI = rf'{_BLANKS}xmlns:xs="{_URI}"', rf'{_BLANKS}xmlns:xsi="{_URI}-instance"'
_ATTRIBUTES = rf"(?:(?:{_XS})?(?:{_XSI})?(?:{_TYPE})?|{_TYPE}(?:{_XS})?(?:{_XSI})?)"
_NIL = rf'{_BLANKS}xsi:nil="true"'
# What its attributes say is checked apart: the documents of one origin share them.
_HEAD = (
    r"(?:\xEF\xBB\xBF)?"
    r"""(?:<\?xml version=["']1\.0["'](?: encoding=["'](?:UTF|utf)-8["'])?"""
    r"""(?: standalone=["'](?:yes|no)["'])? ?\?>)?"""
    rf'{_BLANK}<document(?:{_BLANKS}[\w:.-]+="{_NAME}")*{_BLANK}>'
)


def _value(levels: int) -> str:
    inner = ""
    if levels:
        inner = rf"|{_BLANK}(?:(?:{_value(levels - 1)}|{_item(levels - 1)}){_BLANK})+"
    full = rf"{_BLANK}>(?:{_TEXT}{inner})</value{_BLANK}>"
    return rf"<value{_ATTRIBUTES}(?:{full}|{_NIL}{_BLANK}/>)"


def _item(levels: int) -> str:
    values = rf"{_BLANK}(?:{_value(levels)}{_BLANK})*"
    return rf'<item name="{_NAME}"(?:/>|>{values}</item{_BLANK}>)'


def _document(levels: int) -> str:
    """Describe a document whose values have values or items in them down to so many levels."""
    items = rf"(?:{_item(levels)}{_BLANK})*"
    return rf"^{_HEAD}{_BLANK}{items}</document{_BLANK}>{_BLANK}$"


_FLAT = _document(0)
_NESTED = _document(2)
"""Values of attached files lie two levels down. Arrow compiles an expression whenever it is
used, and a large one takes long: this one is for the documents that need it, if they are many.
"""
MANY = 16
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&amp;", "&"))
_PIECE = 64 * 1024
_NAME_AT = len('<item name="')
_D, _I, _V, _SLASH, _QUESTION, _GREATER = b"div/?>"


@dataclass(frozen=True)
class Scanned:
    """Wanted values of a batch, one row a value, by document and in its order.

    Attributes:
        document: number of the document in the batch, ascending.
        item: index in the wanted names.
        value: its text (string array without nulls).
        left: documents that were not read, ascending.
    """

    document: Integers
    item: Integers
    value: pa.Array
    left: list[int]


def scan(payloads: Sequence[bytes], names: Sequence[str]) -> Scanned:
    """Take the wanted items out of the documents that are as the engine writes them.

    Args:
        payloads: one XML document each; together less than 2 GiB.
        names: names of the wanted items, in lower case.
    """
    text, number = _texts(payloads)
    plain = _matches(text, _FLAT)
    if np.count_nonzero(~plain) >= MANY:
        plain[~plain] = _matches(text.filter(pa.array(~plain)), _NESTED)
    if not plain.all():
        text, number = text.filter(pa.array(plain)), number[plain]
    document, item, value, odd = _read(text, names)
    if odd.any():
        keep = ~odd[document]
        document, item, value = document[keep], item[keep], value.filter(pa.array(keep))
    read = np.zeros(len(payloads), np.bool_)
    read[number[~odd]] = True
    return Scanned(number[document], item, value, np.flatnonzero(~read).tolist())


def _texts(payloads: Sequence[bytes]) -> tuple[pa.Array, Integers]:
    """Return the documents that are UTF-8 and not too large as a string array; their numbers."""
    sizes = np.fromiter(map(len, payloads), np.int64, len(payloads))
    number = np.flatnonzero(sizes <= MAX_BYTES)
    if len(number) < len(payloads):
        payloads, sizes = [payloads[i] for i in number.tolist()], sizes[number]
    text = _strings(payloads, sizes)
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        good = [i for i, payload in enumerate(payloads) if _is_utf8(payload)]
        return _strings([payloads[i] for i in good], sizes[good]), number[good]
    return text, number


def _matches(text: pa.Array, expression: str) -> Mask:
    return _mask(pc.match_substring_regex(text.view(pa.binary()), expression)).copy()


def _strings(payloads: Sequence[bytes], sizes: Integers) -> pa.Array:
    offsets = np.zeros(len(payloads) + 1, np.int32)
    np.cumsum(sizes, out=offsets[1:])
    return pa.StringArray.from_buffers(
        len(payloads), pa.py_buffer(offsets), pa.py_buffer(b"".join(payloads))
    )


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read(text: pa.Array, names: Sequence[str]) -> tuple[Integers, Integers, pa.Array, Mask]:
    """Return document, item and value of the wanted values, and the documents not to be read.

    Args:
        text: documents that match `_FLAT` or `_NESTED`, in an array that is no slice.
        names: names of the wanted items.
    """
    odd = np.zeros(len(text), np.bool_)
    if not len(text):
        none = np.empty(0, np.int64)
        return none, none, pa.array([], pa.string()), odd
    _, offsets, data = text.buffers()
    starts = np.frombuffer(offsets, np.int32, len(text) + 1)
    characters = np.frombuffer(data, np.uint8, starts[-1])
    # A tag begins at each <, and ends at the > that follows.
    marks = _marks(characters)
    begin, end = marks[0::2], marks[1::2]
    kind = characters[begin + 1]
    is_root = kind == _D
    root_end = end[is_root]
    odd |= ~_sound_heads(_slices(data, starts[:-1], root_end + 1))
    is_item, is_value = kind == _I, np.flatnonzero(kind == _V)
    # An empty value is nil, by the expression.
    full = is_value[characters[end[is_value] - 1] != _SLASH]
    leaf = full[kind[full + 1] == _SLASH]
    if len(leaf) < len(full):
        is_item &= _depths(kind, characters[end - 1] == _SLASH) == 1
    item = np.flatnonzero(is_item)
    close = end[item]
    close = close - (characters[close - 1] == _SLASH) - 1
    code = _codes(_slices(data, begin[item] + _NAME_AT, close), names)
    owner = np.cumsum(is_item)[leaf] - 1
    code = code[owner]
    wanted = code >= 0
    leaf, code = leaf[wanted], code[wanted]
    document = np.cumsum(is_root)[leaf] - 1
    value = _slices(data, end[leaf] + 1, begin[leaf + 1])
    odd[document[_holding(value, b"\r")]] = True
    coded = _holding(value, b"&")
    if len(coded):
        some = value.take(pa.array(coded))
        odd[document[coded[_mask(pc.match_substring(some, "&#"))]]] = True
        for entity, character in _ENTITIES:
            some = pc.replace_substring(some, entity, character)
        rows = np.arange(len(value))
        rows[coded] = len(value) + np.arange(len(coded))
        value = pa.concat_arrays([value, some]).take(pa.array(rows))
    return document, code, value, odd


def _marks(characters: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """Return where each < and > is: they differ in the bit of 2."""
    # By pieces: fresh memory for masks of all takes several times as long as the search.
    return np.concatenate(
        [
            np.flatnonzero((characters[at : at + _PIECE] | 2) == _GREATER) + at
            for at in range(0, len(characters), _PIECE)
        ]
    )


def _depths(kind: npt.NDArray[np.uint8], is_empty: Mask) -> Integers:
    """Return in how many elements each tag lies."""
    step = np.where(kind == _SLASH, -1, 1)
    step[is_empty | (kind == _QUESTION)] = 0
    return np.cumsum(step) - step


def _slices(data: pa.Buffer, starts: npt.NDArray[np.integer[Any]], ends: Integers) -> pa.Array:
    """Copy slices of UTF-8, ascending and apart, to a string array."""
    bounds = np.empty(2 * len(starts), np.int32)
    bounds[0::2], bounds[1::2] = starts, ends
    both = pa.StringArray.from_buffers(max(0, len(bounds) - 1), pa.py_buffer(bounds), data)
    return both.take(pa.array(np.arange(0, len(both), 2)))


def _codes(found: pa.Array, names: Sequence[str]) -> Integers:
    """Return the index of each name in the wanted ones, -1 of others."""
    codes = {name: code for code, name in enumerate(names)}
    distinct = found.dictionary_encode()
    known = [codes.get(name.lower(), -1) for name in distinct.dictionary.to_pylist()]
    return np.array(known, np.int64)[distinct.indices.to_numpy()]


def _sound_heads(heads: pa.Array) -> Mask:
    """Say which documents have a root that a parser takes."""
    distinct = heads.dictionary_encode()
    sound = [_is_sound_head(head) for head in distinct.dictionary.to_pylist()]
    mask: Mask = np.array(sound, np.bool_)[distinct.indices.to_numpy()]
    return mask


@lru_cache(maxsize=64)
def _is_sound_head(head: str) -> bool:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        etree.fromstring(f"{head}</document>".encode(), parser)
    except etree.XMLSyntaxError:
        return False
    return True


def _holding(column: pa.Array, character: bytes) -> Integers:
    """Return the rows of an array without nulls, and that is no slice, that have a character."""
    _, offsets, data = column.buffers()
    if not len(column):
        return np.empty(0, np.int64)
    bounds = np.frombuffer(offsets, np.int32, len(column) + 1)
    found = np.flatnonzero(np.frombuffer(data or b"", np.uint8, bounds[-1]) == ord(character))
    return np.unique(np.searchsorted(bounds, found, "right") - 1)


def _mask(condition: pa.Array) -> Mask:
    mask: Mask = condition.to_numpy(zero_copy_only=False)
    return mask
