"""JSON lines of one layout, read by NumPy at several times the speed of a parser.

The lines of a log mostly have the same keys in the same order. The first line gives a template:
constant runs of bytes (braces, keys, colons) with values between them. A line that has the
same runs, strings without quotes, backslashes or control characters between them, and plain
numbers, is valid JSON of the same structure, and its values lie between the runs. All other
lines are left to a parser; so this changes nothing but the speed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats.line_blocks import Offsets, positions_of

Mask = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]
Path = tuple[str, ...]

_TEMPLATES = 6
"""Layouts that are tried in a block."""

_LINES = 16_384
"""Lines that are read at once: they and the vectors stay in the processor's cache."""

_SCALAR = re.compile(rb"(?P<before>:\s*)(?P<scalar>-?[0-9.]+|true|false|null)")
# Neither an exponent (it may be too large for a double) nor minus zero: a parser knows better.
_PLAIN = r"^(?:0|-?[1-9][0-9]{0,17}|(?:0|-?(?:0|[1-9][0-9]{0,9}))\.[0-9]{1,9}|true|false|null)$"
_TAIL = np.array([(1 << (8 * n)) - 1 for n in range(8)] + [2**64 - 1], np.uint64)


@dataclass(frozen=True)
class _Value:
    """A value of the layout: a string, or the scalar in the gap behind a key.

    Attributes:
        quote: string: number of its opening quote; scalar: of the quote before the gap.
        before: scalar: bytes of the gap before it; -1 for a string.
        after: scalar: bytes of the gap behind it.
    """

    quote: int
    before: int = -1
    after: int = 0


@dataclass(frozen=True)
class _Template:
    """A layout: runs[0] values[0] runs[1] values[1] ... runs[-1].

    Attributes:
        quotes: number of quotes on a line.
        runs: constant bytes.
        values: what stands between them.
        fields: field -> number of its value; None where the layout does not have it.
    """

    quotes: int
    runs: tuple[bytes, ...]
    values: tuple[_Value, ...]
    fields: Mapping[str, int | None]


def read_uniform(
    data: bytes, starts: Offsets, ends: Offsets, numbers: Offsets, paths: Mapping[str, Path]
) -> tuple[list[tuple[Offsets, dict[str, pa.Array]]], Offsets]:
    """Read fields of lines that share one of a few layouts.

    Args:
        data: valid UTF-8, less than 2 GiB.
        starts: first byte of each line.
        ends: end of each line.
        numbers: the lines to read.
        paths: field -> keys that lead to it.

    Returns:
        (lines, field -> text of its value) of what was read, and the lines that were not.
    """
    raw = np.frombuffer(data, np.uint8)
    numbers = _without_escapes(data, raw, starts, numbers)
    skipped: list[Offsets] = []
    pieces: list[tuple[Offsets, dict[str, pa.Array]]] = []
    padded = np.zeros(len(raw) + 8, np.uint8)
    padded[: len(raw)] = raw
    words: Words = np.ndarray((len(raw) + 1,), "<u8", padded, strides=(1,))
    templates: list[_Template] = []
    for first in range(0, len(numbers), _LINES):
        left = numbers[first : first + _LINES]
        begin, end = int(starts[left[0]]), int(ends[left[-1]])
        quotes = positions_of(raw[begin:end], ord('"')) + begin
        at = np.searchsorted(quotes, starts[left])
        counts = np.searchsorted(quotes, ends[left]) - at
        tried = 0
        while len(left):
            if tried == len(templates):
                line = int(left[0])
                template = None
                if len(templates) < _TEMPLATES:
                    template = _template_of(data[starts[line] : ends[line]], paths)
                if template is None:
                    break
                templates.append(template)
            template = templates[tried]
            tried += 1
            alike = np.flatnonzero(counts == template.quotes)
            if not len(alike):
                continue
            whole = len(alike) == len(left)
            lines = left if whole else left[alike]
            grid = quotes[(at if whole else at[alike])[:, None] + np.arange(template.quotes)].T
            good, texts = _values(words, starts[lines], ends[lines], np.ascontiguousarray(grid), template, data)
            if good.all():
                pieces.append((lines, texts))
            elif good.any():
                pieces.append((lines[good], {k: v.filter(pa.array(good)) for k, v in texts.items()}))
            rest = np.ones(len(left), np.bool_)
            rest[alike[good]] = False
            left, at, counts = left[rest], at[rest], counts[rest]
        skipped.append(left)
    taken = np.concatenate([piece[0] for piece in pieces]) if pieces else np.empty(0, np.int64)
    return pieces, taken


def _without_escapes(data: bytes, raw: Any, starts: Offsets, numbers: Offsets) -> Offsets:
    """Leave out lines with a backslash or a control character."""
    odd = [positions_of(raw, ord("\\"))] if b"\\" in data else []
    control = np.count_nonzero(raw < 32)
    breaks = np.count_nonzero(raw == 10)
    if control != breaks:
        places = np.flatnonzero((raw < 32) & (raw != 10) & (raw != 13))
        odd.append(places)
    if not odd or not sum(map(len, odd)):
        return numbers
    lines = np.unique(np.searchsorted(starts, np.concatenate(odd), side="right") - 1)
    return np.setdiff1d(numbers, lines, assume_unique=True)
