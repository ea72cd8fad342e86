"""Plain JSON: files, and messages, that are a list of objects or one object on many lines.

What an object means is the affair of `json_lines`; only how it is cut out differs. The columns of
a file are recognised by its first objects.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np

from transforms.formats import json_lines
from transforms.formats.base import Context, Decoded, InputFile, Span
from transforms.formats.columns import ColumnMap
from transforms.formats.heads import Heads, Mask
from transforms.formats.imixs_input import Chunks, take
from transforms.formats.json_lines import HEAD_BYTES, MERGE_MESSAGES, SAMPLE_LINES
from transforms.formats.line_blocks import merge
from transforms.formats.messages.files import first_object, has_lines, read_messages
from transforms.formats.messages.form import JsonForm
from transforms.formats.messages.texts import Texts

_SPACE = " \t\r\n,"


class PlainJson(JsonForm):
    """The `json` format (see `transforms.formats.base.Format`)."""

    name = "json"
    title = "JSON: a list of objects, or one object a file"
    expansion = 1.0
    python_bound = True

    def detects(self, head: bytes, name: str) -> bool:
        """Say whether it begins with an object, of its own or in a list."""
        return first_object(head) is not None

    def claims(self, heads: Heads) -> Mask:
        """Say which messages are lists of objects (see `Claiming`)."""
        mine = heads.lists
        for row in np.flatnonzero(mine & heads.left).tolist():
            mine[row] = first_object(heads.text(row)) is not None
        return mine

    def read(self, work: Sequence[tuple[InputFile, Span]], context: Context) -> Iterator[Decoded]:
        """Read files; those of lines as `json_lines` does."""
        return merge(self._parts(work, context), MERGE_MESSAGES)

    def _parts(self, work: Sequence[tuple[InputFile, Span]], context: Context) -> Iterator[Decoded]:
        for file, span in work:
            if span.start > 0 or span.end is not None or has_lines(file):
                yield from json_lines.FORMAT.read([(file, span)], context)
                continue
            fixed, _ = self.recognise([_head(file)], context)
            yield from read_messages([(file, span)], fixed, self.name, self.decode_texts)

    def decode_texts(self, texts: Texts, context: Context) -> Decoded:
        """Make events of single objects."""
        return json_lines.FORMAT.decode(texts.messages or (), context)

    def recognise(
        self, payloads: Sequence[bytes], context: Context
    ) -> tuple[Context, tuple[str, ...]]:
        """Fix the columns of a topic (see `Recognising`)."""
        objects = [each for payload in payloads for each in _objects(payload)]
        return json_lines.FORMAT.recognise(objects, context)

    def mapping_of(self, sample: InputFile | Sequence[bytes], context: Context) -> ColumnMap:
        """Return which keys feed events, as the first objects have them."""
        payloads = [_head(sample)] if isinstance(sample, InputFile) else sample
        objects = [each for payload in payloads for each in _objects(payload)]
        return json_lines.FORMAT.mapping_of(objects, context)


FORMAT = PlainJson()


def _head(file: InputFile) -> bytes:
    return take(iter(Chunks(file)), HEAD_BYTES)


def _objects(text: bytes) -> list[bytes]:
    """Return the first objects of a text, as far as they are whole."""
    found: list[bytes] = []
    decoder = json.JSONDecoder()
    words = text.decode("utf-8-sig", errors="replace").lstrip(_SPACE).removeprefix("[")
    at = 0
    while len(found) < SAMPLE_LINES:
        while at < len(words) and words[at] in _SPACE:
            at += 1
        try:
            _, end = decoder.raw_decode(words, at)
        except (ValueError, RecursionError):
            break
        found.append(words[at:end].encode())
        at = end
    return found
