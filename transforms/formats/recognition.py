"""Which format each of a batch of messages is of, by their headers and what they hold.

Headers come first; then formats of other packages are asked, then beginnings count that only one
of our formats has (`opening`), then our formats are asked, that of any JSON object (`json_lines`)
last. Formats with `claims` are asked for all messages at once. What nobody claims is looked
at message by message. The answer for a message does not depend on the messages around it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats import registry
from transforms.formats.base import Message
from transforms.formats.heads import (
    OPENING,
    Claiming,
    Heads,
    Opening,
    bodies_of,
    headers_of,
    pick,
)
from transforms.formats.line_blocks import Offsets
from transforms.formats.messages.ce_modes import Mode, mode_of

Take = Callable[[str, Offsets], None]

BLANK = ""
"""Stands for the format of messages without content."""

_LAST = "json_lines"
_NEVER = ("csv",)
"""A single line of text is taken for CSV by nobody who writes to a broker."""


CLAIMING_HEADERS = "cloudevents"
"""The format that headers speak of; `claimed_by_headers` says of which messages they do."""


def claimed_by_headers(headers: Mapping[str, str]) -> bool:
    """Say whether a message's headers say what it is."""
    return mode_of(headers) != Mode.UNSAID


def recognise(messages: Sequence[Message]) -> dict[str | None, Offsets]:
    """Sort messages by their format.

    Returns:
        Name of a format -> which messages are of it, ascending; `BLANK` for messages without
        content, None for those of no known format. In the order in which the formats first occur.
    """
    names: list[str | None] = [None, BLANK]
    codes = np.zeros(len(messages), np.int64)

    def take(name: str, rows: Offsets) -> None:
        if len(rows):
            if name not in names:
                names.append(name)
            codes[rows] = names.index(name)

    headers = headers_of(messages)
    if headers:
        take(CLAIMING_HEADERS, np.flatnonzero([claimed_by_headers(each) for each in headers]))
    others = [name for name in registry.names() if registry.is_foreign(name)]
    if others:
        _ask(messages, codes, others, take)
    _open(messages, codes, take)
    _ask(messages, codes, _ours(), take)
    if len(codes) and (codes == codes[0]).all():
        return {names[int(codes[0])]: np.arange(len(codes))}
    present, first = np.unique(codes, return_index=True)
    return {
        names[code]: np.flatnonzero(codes == code) for code in present[np.argsort(first)].tolist()
    }


def _ours() -> list[str]:
    ours = [name for name in registry.names() if not registry.is_foreign(name)]
    return [*(name for name in ours if name not in (_LAST, *_NEVER)), _LAST]


def _open(messages: Sequence[Message], codes: Offsets, take: Take) -> None:
    """Take the messages that begin as only one format does."""
    left = np.flatnonzero(codes == 0)
    beginnings = pc.binary_slice(bodies_of(messages), 0, OPENING)
    for name in _ours():
        format_ = registry.get(name)
        if isinstance(format_, Opening) and len(left):
            some = beginnings if len(left) == len(codes) else beginnings.take(pa.array(left))
            fit = pc.match_substring_regex(some, format_.opening)
            take(name, left[fit.to_numpy(zero_copy_only=False)])
            left = np.flatnonzero(codes == 0)


def _ask(messages: Sequence[Message], codes: Offsets, names: Sequence[str], take: Take) -> None:
    """Ask formats which of the messages that are left are theirs."""
    rows = np.flatnonzero(codes == 0)
    if not len(rows):
        return
    heads = Heads(pick(messages, rows))
    for name in names:
        heads.left = codes[rows] == 0
        if not heads.left.any():
            return
        format_ = registry.get(name)
        if isinstance(format_, Claiming):
            take(name, rows[heads.left & format_.claims(heads)])
        elif registry.is_foreign(name):
            mine = [
                int(rows[i])
                for i in np.flatnonzero(heads.left).tolist()
                if (head := heads.text(i)[: registry.HEAD_BYTES])
                and format_.detects(head, messages[int(rows[i])].source)
            ]
            take(name, np.array(mine, np.int64))
    if _LAST not in names:
        return
    heads.left = codes[rows] == 0
    blank = heads.left & (heads.first < 0)
    codes[rows[blank]] = 1
    for i in np.flatnonzero(heads.left & ~blank).tolist():
        row = int(rows[i])
        found = _look(heads.text(i)[: registry.HEAD_BYTES], messages[row].source)
        if found is not None:
            take(found, rows[i : i + 1])


def _look(head: bytes, source: str) -> str | None:
    """Look at one message that no format has claimed; one that may claim has said no."""
    for name in registry.names():
        format_ = registry.get(name)
        unasked = not isinstance(format_, Claiming) and name not in _NEVER
        if unasked and not registry.is_foreign(name) and format_.detects(head, source):
            return name
    return None


def votes(found: Mapping[str | None, Offsets]) -> list[str]:
    """Return the known formats among messages, that of most of them first."""
    known = [name for name in found if name]
    return sorted((str(name) for name in known), key=lambda name: -len(found[name]))
