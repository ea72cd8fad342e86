"""What formats see of a batch of messages when they are asked which of them are their own.

A format that can say so of many messages at once has `claims`; it answers with a mask. What it
says of one message must not depend on the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats.base import Message, MessageBatch

Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

_BLANK = np.zeros(256, np.bool_)
_BLANK[[9, 10, 13, 32, 0xEF, 0xBB, 0xBF]] = True


class Heads:
    """First bytes and members of some messages, without reading them.

    Args:
        messages: the messages.

    Attributes:
        left: the messages that no format has claimed yet; of others nothing need be said.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        self._bodies = bodies_of(messages)
        self._found: dict[bytes, Mask] = {}
        ends = np.cumsum(pc.binary_length(self._bodies).to_numpy().astype(np.int64))
        self._ends = ends
        self._starts = np.append(0, ends[:-1]) if len(ends) else ends
        self._data = _data_of(self._bodies)
        self.left: Mask = np.ones(len(self), np.bool_)

    def __len__(self) -> int:
        return len(self._starts)

    def text(self, index: int) -> bytes:
        """Return a message whole."""
        return self._data[self._starts[index] : self._ends[index]]

    def beginning(self, index: int, size: int) -> bytes:
        """Return the first bytes of one message."""
        start = int(self._starts[index])
        return self._data[start : min(start + size, int(self._ends[index]))]

    def beginning_as(self, pattern: re.Pattern[bytes]) -> Mask:
        """Say which messages begin as a pattern, which is matched with their first 16 bytes."""
        openings = self._openings
        fit = [pattern.match(text) is not None for text in openings.dictionary.to_pylist()]
        if not any(fit):
            return np.zeros(len(self), np.bool_)
        return np.array(fit)[openings.indices.to_numpy()]

    def holds(self, text: bytes) -> bool:
        """Say whether some message has a text in it: a quick look."""
        return text in self._data

    @cached_property
    def _openings(self) -> pa.DictionaryArray:
        return pc.binary_slice(self._bodies, 0, 16).dictionary_encode()

    @cached_property
    def first(self) -> npt.NDArray[np.int16]:
        """The first byte of each message that is no blank; -1 of a message without any."""
        raw = np.frombuffer(self._data + b"\0", np.uint8)
        first = np.where(self._starts < self._ends, raw[self._starts].astype(np.int16), -1)
        for index in np.flatnonzero((first >= 0) & _BLANK[first]).tolist():
            text = self.text(index).lstrip(b" \t\r\n\xef\xbb\xbf")
            first[index] = text[0] if text else -1
        return first

    @property
    def lists(self) -> Mask:
        """Which messages begin as a list."""
        return self.first == ord("[")

    def having(self, key: bytes, after: re.Pattern[bytes] | None = None) -> Mask:
        """Say which are JSON objects that have a member at their top.

        Args:
            key: its name, in quotes.
            after: a message that begins so has the member at its top, if at all.
        """
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._search(key, after)
        return found

    def _search(self, key: bytes, after: re.Pattern[bytes] | None) -> Mask:
        data, count = self._data, self._data.count
        mask = self.beginning_as(re.compile(re.escape(b"{" + key)))
        if mask.any() and np.count_nonzero(mask) == count(key):
            return mask
        pieces = np.array([len(piece) for piece in data.split(key)], np.int64)
        if len(pieces) == 1:
            return mask
        at = np.cumsum(pieces[:-1] + len(key)) - len(key)
        row = np.searchsorted(self._starts, at, side="right") - 1
        inside = (at + len(key) <= self._ends[row]) & self.left[row]
        inside &= self.first[row] == ord("{")
        if after is not None:
            mask[row[inside & self.beginning_as(after)[row]]] = True
        # A member is at the top where one brace is open before it. A brace in a string is seen as
        # one; nobody's keys and values are so that it makes a difference.
        unsure = inside & ~mask[row]
        rows, starts = row[unsure], self._starts[row[unsure]].tolist()
        top = [
            count(b"{", start, place) - count(b"}", start, place) == 1
            for start, place in zip(starts, at[unsure].tolist(), strict=True)
        ]
        mask[rows[np.array(top, np.bool_)]] = True
        return mask


def headers_of(messages: Sequence[Message]) -> Sequence[Mapping[str, str]]:
    """Return the headers of each message; empty if none has any."""
    if isinstance(messages, MessageBatch):
        return messages.attributes
    headers = [message.attributes for message in messages]
    return headers if any(headers) else ()


def pick(messages: Sequence[Message], rows: npt.NDArray[np.int64]) -> Sequence[Message]:
    """Return some of the messages; one may be there several times."""
    if len(rows) == len(messages) and bool((rows == np.arange(len(rows))).all()):
        return messages
    if isinstance(messages, MessageBatch):
        return messages.pick(rows.tolist())
    return [messages[row] for row in rows.tolist()]


def bodies_of(messages: Sequence[Message]) -> pa.Array:
    """Return the payloads of messages as one binary array."""
    if isinstance(messages, MessageBatch):
        return messages.bodies
    return pa.array([m.payload for m in messages], pa.binary())


def _data_of(bodies: pa.Array) -> bytes:
    """Return the bytes of a binary array behind one another."""
    if not len(bodies):
        return b""
    _, offsets, data = bodies.buffers()
    at = np.frombuffer(offsets, np.int32, len(bodies) + 1, 4 * bodies.offset)
    return b"" if data is None else data[int(at[0]) : int(at[-1])].to_pybytes()


OPENING = 32
"""Bytes at the beginning of a message that an `opening` is looked for in."""


@runtime_checkable
class Opening(Protocol):
    """A format that many of its messages show by their first bytes.

    Attributes:
        opening: regular expression (RE2) of what a message of no other format begins with.
    """

    opening: str


@runtime_checkable
class Claiming(Protocol):
    """A format that says of many messages at once which are its own."""

    def claims(self, heads: Heads) -> Mask:
        """Say which messages are of this format, by what they hold; headers come before."""
        ...
