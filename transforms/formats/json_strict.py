"""JSON read strictly, without a key twice in an object; and lists, cut in little memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

import orjson

from schemas.dead_letters import MAX_PAYLOAD
from transforms.formats.imixs_input import Part, Unread, too_large

_BLANK = re.compile(r"[ \t\r\n]*")
_KEY = re.compile(rb'"\s*:')


class InvalidJsonError(ValueError):
    """The text is no JSON, or has a key twice in one object."""


def parse_json(payload: bytes) -> Any:
    """Parse JSON in UTF-8.

    Raises:
        InvalidJsonError: it is no JSON, or has a key twice in one object.
    """
    try:
        value = orjson.loads(payload)
        # Each key is followed by a colon, and so may be a quote within a string. So equal counts
        # say that no key was lost to a second one of its name.
        if len(_KEY.findall(payload)) == _count_keys(value):
            return value
        return json.loads(payload, object_pairs_hook=_distinct)
    except RecursionError:
        reason = "it is nested too deeply"
        raise InvalidJsonError(reason) from None
    except ValueError as error:  # of orjson, of json, and a key given twice
        raise InvalidJsonError(str(error)) from None


def given_twice(pairs: list[tuple[str, Any]]) -> str:
    """Return the first key of an object's members that is there again, as one must be."""
    keys = [key for key, _ in pairs]
    return next(key for key in keys if keys.count(key) > 1)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members.

    Raises:
        InvalidJsonError: a key is given twice.
    """
    members = dict(pairs)
    if len(members) < len(pairs):
        reason = f"the key {given_twice(pairs)!r} is given twice in one object"
        raise InvalidJsonError(reason)
    return members


def _count_keys(value: Any) -> int:
    count = 0
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            count += len(value)
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return count


class Collection:
    """Cuts a text that begins with a list of objects, in memory of one of them.

    Args:
        chunks: its bytes.
        start: matches what is before the first object.
        encoding: of the text.
        limit: bytes of the largest object.
        tail: what makes JSON of all that follows the last object, written before it.
    """

    def __init__(
        self,
        chunks: Iterator[bytes],
        start: re.Pattern[str],
        encoding: str,
        limit: int,
        tail: bytes,
    ) -> None:
        self._chunks = chunks
        self._start = start
        self._tail = tail
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._limit = limit
        self._text = ""
        self._at = 0
        self._ended = False

    def rest(self) -> bytes:
        """Return what has not been cut, up to the size of a payload."""
        return self._text[self._at : self._at + MAX_PAYLOAD].encode()

    def left(self) -> int:
        """Read to the end, and return how many bytes have not been cut."""
        return len(self._text[self._at :].encode()) + sum(len(chunk) for chunk in self._chunks)

    def objects(self) -> Iterator[Part]:
        """Yield each object.

        Raises:
            InvalidJsonError: what follows cannot be read.
        """
        self._fill()
        start = self._start.match(self._text)
        self._at = start.end() if start else 0
        follows = self._next()
        while follows != "]":
            yield self._object()
            follows = self._next()
            if follows == ",":
                self._at += 1
                follows = self._next()
                if follows != "]":
                    continue
                reason = "a comma before the end of the list"
                raise InvalidJsonError(reason)
            if follows != "]":
                reason = f"{follows or 'the end'!r} where a comma or the end of the list must be"
                raise InvalidJsonError(reason)
        while not self._ended and len(self._text) - self._at <= self._limit:
            self._fill()
        # Other members may follow the list of a document.
        parse_json(self._tail + self._text[self._at :].encode())

    def _object(self) -> Part:
        decoder = json.JSONDecoder()
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self._at)
                break
            except RecursionError:
                reason = "it is nested too deeply"
                raise InvalidJsonError(reason) from None
            except json.JSONDecodeError as error:
                # It may be whole with the next chunk.
                if self._ended or len(self._text) - self._at > self._limit:
                    raise InvalidJsonError(error.msg) from None
                self._fill()
            except ValueError as error:  # an integer of thousands of digits
                raise InvalidJsonError(str(error)) from None
        if not isinstance(value, dict):
            reason = "a member of a collection is no object"
            raise InvalidJsonError(reason)
        text = self._text[self._at : end].encode()
        self._at = end
        if len(text) > self._limit:
            problem = too_large(len(text), self._limit)
            return Unread(text[:MAX_PAYLOAD], problem, len(text))
        return text

    def _next(self) -> str:
        """Move behind blanks and return the character there, nothing at the end."""
        while True:
            found = _BLANK.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._fill()

    def _fill(self) -> None:
        """Drop what has been cut and double what is left."""
        parts = [self._text[self._at :]]
        self._at, size, wanted = 0, 0, len(parts[0]) + 1
        try:
            while size < wanted and not self._ended:
                chunk = next(self._chunks, b"")
                self._ended = not chunk
                parts.append(self._decoder.decode(chunk, final=self._ended))
                size += len(parts[-1])
        except UnicodeError as error:
            self._ended = True
            raise InvalidJsonError(str(error)) from None
        finally:
            self._text = "".join(parts)
