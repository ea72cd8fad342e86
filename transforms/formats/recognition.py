"""Which format each of a batch of messages is of, by their headers and beginnings.

Formats with `claims` are asked for all messages at once, formats of other packages first, those
of any JSON object (`json_lines`) last. What nobody claims is looked at message by message. The
answer for a message does not depend on the messages around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from transforms.formats import registry
from transforms.formats.base import Message
from transforms.formats.heads import Claiming, Heads
from transforms.formats.line_blocks import Offsets
from transforms.formats.messages.ce_modes import Mode, mode_of

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
    heads = Heads(messages)
    names: list[str | None] = [None, BLANK]
    codes = np.zeros(len(messages), np.int64)
    for name in _in_order():
        left = heads.left = codes == 0
        if not left.any():
            break
        format_ = registry.get(name)
        if isinstance(format_, Claiming):
            mine = left & format_.claims(heads)
        elif registry.is_foreign(name):
            mine = np.zeros(len(messages), np.bool_)
            for row in np.flatnonzero(left).tolist():
                head = heads.text(row)[: registry.HEAD_BYTES]
                mine[row] = bool(head) and format_.detects(head, messages[row].source)
        else:
            continue
        if mine.any():
            codes[mine] = len(names)
            names.append(name)
    codes[(codes == 0) & (heads.first < 0)] = 1
    for row in np.flatnonzero(codes == 0).tolist():
        found = _look(heads.text(row)[: registry.HEAD_BYTES], messages[row].source)
        if found is not None:
            if found not in names:
                names.append(found)
            codes[row] = names.index(found)
    if len(codes) and (codes == codes[0]).all():
        return {names[int(codes[0])]: np.arange(len(codes))}
    present, first = np.unique(codes, return_index=True)
    return {
        names[code]: np.flatnonzero(codes == code) for code in present[np.argsort(first)].tolist()
    }


def _in_order() -> list[str]:
    names = registry.names()
    return [*(n for n in names if n not in (_LAST, *_NEVER)), _LAST]


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
