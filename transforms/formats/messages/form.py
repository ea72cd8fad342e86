"""What the formats of this folder share: one object a message, files of them, and lists."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from transforms.formats.base import Context, Decoded, InputFile, Message, Span
from transforms.formats.line_blocks import join_decoded
from transforms.formats.messages.files import flatten, message_spans, read_messages
from transforms.formats.messages.texts import Texts


class JsonForm(ABC):
    """Reading and decoding of a format (see `transforms.formats.base.Format`), given its texts.

    Attributes:
        name: of the format.
        origins: event column -> where it comes from, for people.
        fixed: whether `--columns` says nothing of them.
    """

    name: str
    origins: ClassVar[Mapping[str, str]] = {}
    fixed: ClassVar[bool] = False

    @abstractmethod
    def decode_texts(self, texts: Texts, context: Context) -> Decoded:
        """Make events of texts, whether they came as messages or as lines of a file."""

    def spans(self, file: InputFile, context: Context) -> list[Span]:
        """Cut a file of lines every 64 MiB."""
        return message_spans(file, context)

    def read(self, work: Sequence[tuple[InputFile, Span]], context: Context) -> Iterator[Decoded]:
        """Read files of messages: a line each, or a list."""
        return read_messages(work, context, self.name, self.decode_texts)

    def decode(self, messages: Sequence[Message], context: Context) -> Decoded:
        """Decode messages of one object each; one of several counts as many as it has."""
        single, rest = flatten(messages, self.name, context)
        decoded = self.decode_texts(Texts.of(single), context)
        return decoded if rest is None else join_decoded([decoded, rest])
