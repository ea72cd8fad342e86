"""What formats see of a batch of messages when they are asked which of them are their own.

A format that can say so of many messages at once has `claims`; it answers with a mask. What it
says of one message must not depend on the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats.base import Message, MessageBatch
from transforms.formats.messages.texts import Mask, bodies_of

Integers = npt.NDArray[np.int64]

_BLANK = np.zeros(256, np.bool_)
_BLANK[[9, 10, 13, 32, 0xEF, 0xBB, 0xBF]] = True


class Heads:
    """First bytes, members and headers of some messages, without reading them.

    Args:
        messages: the messages.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages
        bodies = bodies_of(messages)
        self._found: dict[bytes, Mask] = {}
        ends = np.cumsum(pc.binary_length(bodies).to_numpy().astype(np.int64))
        self._ends = ends
        self._starts = np.append(0, ends[:-1]) if len(ends) else ends
        self._data = _data_of(bodies)

    def __len__(self) -> int:
        return len(self._starts)

    def beginning(self, index: int, size: int = 64) -> bytes:
        """Return the first bytes of one message."""
        start = int(self._starts[index])
        return self._data[start : min(start + size, int(self._ends[index]))]

    def text(self, index: int) -> bytes:
        """Return a message whole."""
        return self._data[self._starts[index] : self._ends[index]]

    def holds(self, text: bytes) -> bool:
        """Say whether some message has a text in it: a quick look."""
        return text in self._data

    @cached_property
    def first(self) -> npt.NDArray[np.uint8]:
        """The first byte of each message that is no blank; 0 for a blank message."""
        raw = np.frombuffer(self._data + b"\0", np.uint8)
        first = np.where(self._starts < self._ends, raw[self._starts], 0)
        for index in np.flatnonzero(_BLANK[first]).tolist():
            text = self._data[self._starts[index] : self._ends[index]].lstrip(
                b" \t\r\n\xef\xbb\xbf"
            )
            first[index] = text[0] if text else 0
        return first

    @property
    def lists(self) -> Mask:
        """Which messages begin as a list."""
        return self.first == ord("[")

    def having(self, key: bytes) -> Mask:
        """Say which are JSON objects that have a member at their top.

        Args:
            key: its name, in quotes.
        """
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._search(key) & (self.first == ord("{"))
        return found

    @cached_property
    def headers(self) -> Sequence[Mapping[str, str]]:
        """The headers of each message; empty if none has any."""
        if isinstance(self._messages, MessageBatch):
            return self._messages.attributes
        if not any(message.attributes for message in self._messages):
            return ()
        return [message.attributes for message in self._messages]

    def _search(self, key: bytes) -> Mask:
        data = self._data
        if key not in data:
            return np.zeros(len(self), np.bool_)
        # A member is at the top where one brace is open before it. A brace in a string is seen as
        # one; nobody's keys and values are so that it makes a difference.
        return np.array(
            [
                (at := data.find(key, start, end)) >= 0
                and data.count(b"{", start, at) - data.count(b"}", start, at) == 1
                for start, end in zip(self._starts.tolist(), self._ends.tolist(), strict=True)
            ],
            np.bool_,
        )


def _data_of(bodies: pa.Array) -> bytes:
    """Return the bytes of a binary array behind one another."""
    if not len(bodies):
        return b""
    _, offsets, data = bodies.buffers()
    at = np.frombuffer(offsets, np.int32, len(bodies) + 1, 4 * bodies.offset)
    return b"" if data is None else data[int(at[0]) : int(at[-1])].to_pybytes()


@runtime_checkable
class Claiming(Protocol):
    """A format that says of many messages at once which are its own."""

    def claims(self, heads: Heads) -> Mask:
        """Say which messages are of this format, by their headers and beginnings."""
        ...
