"""An unbounded source that says what it is told: batches of messages and a watermark each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from apache_beam.coders import BytesCoder, Coder
from apache_beam.io.unbounded_source import CheckpointMark, UnboundedReader, UnboundedSource
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP, Timestamp


@dataclass(frozen=True)
class Said:
    """One element: its content, its time, and the watermark behind it, in ms."""

    content: bytes
    time_ms: int
    watermark_ms: int


@dataclass(frozen=True)
class Place(CheckpointMark):
    """How many elements have been read."""

    number: int


class _PlaceCoder(Coder):
    def encode(self, value: Place) -> bytes:
        return str(value.number).encode()

    def decode(self, encoded: bytes) -> Place:
        return Place(int(encoded))

    def is_deterministic(self) -> bool:
        return True


@dataclass(frozen=True)
class Scripted(UnboundedSource):
    """Gives elements in their order, then ends."""

    script: tuple[Said, ...]

    def split(self, desired_num_splits: int, options: Any = None) -> list[Scripted]:
        return [self]

    def create_reader(self, options: Any, checkpoint_mark: CheckpointMark | None) -> _Reader:
        start = checkpoint_mark.number if isinstance(checkpoint_mark, Place) else 0
        return _Reader(self.script, start)

    def get_checkpoint_mark_coder(self) -> Coder:
        return _PlaceCoder()

    def default_output_coder(self) -> Coder:
        return BytesCoder()


class _Reader(UnboundedReader):
    def __init__(self, script: tuple[Said, ...], start: int) -> None:
        self._script = script
        self._next = start

    def start(self) -> bool:
        return self.advance()

    def advance(self) -> bool:
        if self._next >= len(self._script):
            self._next = len(self._script) + 1
            return False
        self._next += 1
        return True

    def get_current(self) -> bytes:
        return self._script[self._next - 1].content

    def get_current_timestamp(self) -> Timestamp:
        return Timestamp(micros=self._script[self._next - 1].time_ms * 1000)

    def get_watermark(self) -> Timestamp:
        if self._next > len(self._script):
            return MAX_TIMESTAMP
        if self._next == 0:
            return MIN_TIMESTAMP
        return Timestamp(micros=self._script[self._next - 1].watermark_ms * 1000)

    def get_checkpoint_mark(self) -> Place:
        return Place(min(self._next, len(self._script)))
