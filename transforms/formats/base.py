"""What a format is: how its files are cut, and how its bytes become events and failures.

A format module offers one object with the attributes of `Format` and adds one line to
`transforms.formats.registry`. Two ways in: `read` for files, `decode` for single messages
(a broker's, or the payloads of dead letters).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, Protocol, overload, runtime_checkable

import pyarrow as pa

from schemas.dead_letters import MAX_PAYLOAD
from schemas.events import EVENT_SCHEMA
from transforms.arrays import texts_of

if TYPE_CHECKING:
    from transforms.formats.avro.settings import AvroSettings
    from transforms.formats.columns import ColumnMap
    from transforms.formats.mapping.rules import EventMapping

BATCH_BYTES = 16 * 1024 * 1024
"""About how much raw input becomes one `Decoded`."""


@dataclass(frozen=True)
class Context:
    """Settings that decoding depends on (validated by `pipelines.options`).

    Attributes:
        columns: event column -> the input's column name or JSON path, from `--columns`.
        items: business items to keep as `attributes`, from `--items`.
        timezone: IANA zone of times that have none, from `--timezone`.
        time_format: `strptime` format, or `s`/`ms`/`us`/`ns` for epochs; None: ISO 8601 or epoch,
            seen from the values.
        delimiter: CSV separator; None: found from the first lines.
        quote: CSV quote character.
        encoding: text encoding of CSV and JSON files.
        max_message_bytes: larger single documents are dead letters.
        item_types: item -> its declared type (`items.TYPES`); an item without one is text.
        mapping: what `--mapping` says of columns and items; None for nothing.
        object_type: type of the objects that are the cases of an object-centric log.
        avro: where schemas of Avro messages come from.
        own_names: columns that are not given are recognised in each JSON object by its own names
            (`json_names`), not in all by what some of them hold.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    items: tuple[str, ...] = ()
    timezone: str = "UTC"
    time_format: str | None = None
    delimiter: str | None = None
    quote: str = '"'
    encoding: str = "utf-8"
    max_message_bytes: int = 64 * 1024 * 1024
    item_types: Mapping[str, str] = field(default_factory=dict)
    mapping: EventMapping | None = None
    object_type: str | None = None
    avro: AvroSettings | None = None
    own_names: bool = False


@dataclass(frozen=True)
class InputFile:
    """One file of the input.

    Attributes:
        path: as matched by Beam's file systems.
        size: bytes as stored, -1 if unknown.
        opener: opens the decompressed bytes; seekable if the file is not compressed.
        compressed: whether `size` and offsets are those of a compressed file.
        raw: opens the bytes as stored.
        whole: the bytes themselves, of a small file that is not compressed.
    """

    path: str
    size: int
    opener: Callable[[], BinaryIO]
    compressed: bool = False
    raw: Callable[[], BinaryIO] | None = None
    whole: bytes | None = None


@dataclass(frozen=True)
class Span:
    """A part of a file that can be read on its own: bytes [start, end) or rows; None is the end."""

    start: int = 0
    end: int | None = None


@dataclass(frozen=True)
class Failure:
    """Input that could not be decoded: becomes one row of `dead_letters`.

    Attributes:
        payload: original bytes, `$file` removed (whoever writes it cuts it to `MAX_PAYLOAD`).
        source: `path:offset` or `topic/partition/offset`.
        error: class of the error, such as `InvalidXml`, `MissingCaseId`, `BadTime`.
        message: one line that names the bad value.
        attributes: `format` and whatever a replay needs.
        size: size of the original, what was removed left aside.
        time: the broker's time in µs since the epoch, where it is not that of the message which
            it came in: of a replay.
    """

    payload: bytes
    source: str
    error: str
    message: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    time: int | None = None


@dataclass(frozen=True)
class Decoded:
    """A batch of decoded messages: `messages in = decoded + skipped + dead`.

    Attributes:
        events: rows of `EVENT_SCHEMA`, every `event_id` filled.
        failures: one per dead message or rejected event.
        decoded: messages that gave events (or that a part of the events was read from).
        skipped: messages that are no workflow events (a document of another type, a blank line).
        dead: messages that could not be decoded.
        rejected: events found in decoded messages that violate the schema
            (`len(failures) == dead + rejected`).
        warnings: sentences for the run's summary, each once.
        messages: how many were cut from the input, where they are counted apart from what became
            of them: so the law compares two counts. None: the sum.
        unfit: item -> values that are not of its declared type, and were left out.
    """

    events: pa.Table
    failures: Sequence[Failure] = ()
    decoded: int = 0
    skipped: int = 0
    dead: int = 0
    rejected: int = 0
    warnings: Sequence[str] = ()
    messages: int | None = None
    unfit: Mapping[str, int] = field(default_factory=dict)

    @property
    def received(self) -> int:
        """Messages that came in."""
        if self.messages is None:
            return self.decoded + self.skipped + self.dead
        return self.messages

    def __post_init__(self) -> None:
        if len(self.failures) != self.dead + self.rejected:
            reason = (
                f"{len(self.failures)} failures for {self.dead} dead + {self.rejected} rejected"
            )
            raise ValueError(reason)
        if self.events.schema != EVENT_SCHEMA:
            reason = f"events have schema {self.events.schema}"
            raise ValueError(reason)


def decoded_rows(
    events: pa.Table,
    failures: Sequence[Failure],
    messages: int,
    skipped: int = 0,
    warnings: Sequence[str] = (),
) -> Decoded:
    """Return a batch whose messages are one event each, or dead, or skipped.

    Args:
        events: of the good messages.
        failures: one per dead message.
        messages: how many were cut from the input.
        skipped: those among them that are blank.
        warnings: sentences for the run's summary.
    """
    return Decoded(
        events=events,
        failures=failures,
        decoded=len(events),
        skipped=skipped,
        dead=len(failures),
        warnings=warnings,
        messages=messages,
    )


def dead_row(
    payload: bytes, source: str, error: str, message: str, attributes: Mapping[str, str]
) -> Failure:
    """Return the failure of one message that is there whole; its payload is cut to the maximum."""
    return Failure(payload[:MAX_PAYLOAD], source, error, message, attributes, len(payload))


@dataclass(frozen=True)
class Message:
    """One message from a broker or a dead letter.

    Attributes:
        payload: its bytes.
        source: `topic/partition` or a path.
        offset: its offset or row.
        attributes: headers.
        record_time: the broker's time in µs since the epoch; None for files.
    """

    payload: bytes
    source: str
    offset: int
    attributes: Mapping[str, str] = field(default_factory=dict)
    record_time: int | None = None

    @property
    def place(self) -> str:
        """Where it is: `topic/partition/offset` or `path:offset`."""
        return f"{self.source}{':' if self.record_time is None else '/'}{self.offset}"


class MessageBatch(Sequence[Message]):
    """A broker's messages as columns; each becomes a `Message` only when it is asked for.

    Args:
        bodies: their bytes (binary array without nulls).
        sources: `topic/partition` of each (dictionary array).
        offsets: int64 array.
        record_times: int64 array, µs since the epoch.
        attributes: headers of each; empty if none has any.
    """

    def __init__(
        self,
        bodies: pa.Array,
        sources: pa.DictionaryArray,
        offsets: pa.Array,
        record_times: pa.Array,
        attributes: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self.bodies = bodies
        self.sources = sources
        self.offsets = offsets
        self.record_times = record_times
        self._attributes = attributes

    @property
    def attributes(self) -> Sequence[Mapping[str, str]]:
        """Headers of each message; empty if none has any."""
        return self._attributes

    @cached_property
    def payloads(self) -> list[bytes]:
        """Their bytes, for formats that look at each message by itself."""
        return texts_of(self.bodies)

    def __len__(self) -> int:
        return len(self.bodies)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> MessageBatch: ...
    def __getitem__(self, index: int | slice) -> Message | MessageBatch:
        """Return one message, or a batch of some."""
        if isinstance(index, slice):
            return self.pick(range(*index.indices(len(self))))
        return Message(
            self.bodies[index].as_py(),
            self.sources[index].as_py(),
            self.offsets[index].as_py(),
            self._attributes[index] if self._attributes else {},
            self.record_times[index].as_py(),
        )

    def __iter__(self) -> Iterator[Message]:
        names = self.sources.dictionary.to_pylist()
        return map(
            Message,
            self.payloads,
            (names[code] for code in self.sources.indices.to_pylist()),
            self.offsets.to_pylist(),
            self._attributes or itertools.repeat({}),
            self.record_times.to_pylist(),
        )

    def record_times_by_place(self) -> dict[str, int]:
        """Return the record time of each `Message.place`, without making the messages."""
        names = self.sources.dictionary.to_pylist()
        rows = zip(
            self.sources.indices.to_pylist(),
            self.offsets.to_pylist(),
            self.record_times.to_pylist(),
            strict=True,
        )
        return {f"{names[code]}/{offset}": time for code, offset, time in rows}

    def with_bodies(self, bodies: pa.Array) -> MessageBatch:
        """Return the same messages with other bytes."""
        return MessageBatch(bodies, self.sources, self.offsets, self.record_times, self._attributes)

    def pick(self, rows: Sequence[int]) -> MessageBatch:
        """Return a batch of some rows."""
        if len(rows) == len(self) and list(rows) == list(range(len(self))):
            return self
        taken = pa.array(rows, pa.int64())
        return MessageBatch(
            self.bodies.take(taken),
            self.sources.take(taken),
            self.offsets.take(taken),
            self.record_times.take(taken),
            [self._attributes[row] for row in rows] if self._attributes else (),
        )


class Format(Protocol):
    """A wire format.

    Attributes:
        name: as in `--format`.
        title: a few words for `--help`.
        expansion: Arrow bytes of events per stored byte of input, roughly (sizes the shards).
        python_bound: decoding holds the interpreter lock, so more processes make it faster.
    """

    name: str
    title: str
    expansion: float
    python_bound: bool

    def detects(self, head: bytes, name: str) -> bool:
        """Say whether a file that begins so (decompressed, up to 64 KiB) is of this format."""
        ...

    def spans(self, file: InputFile, context: Context) -> list[Span]:
        """Cut a large file into parts that can be read at once; [Span()] if it can't be."""
        ...

    def read(self, work: Sequence[tuple[InputFile, Span]], context: Context) -> Iterator[Decoded]:
        """Read parts of files in batches of `BATCH_BYTES`, in memory that does not grow with them.

        Many small files share a batch. An unreadable rest of a file (broken XML, a truncated
        gz) is one dead message; what came before it counts.
        """
        ...

    def decode(self, messages: Sequence[Message], context: Context) -> Decoded:
        """Decode single messages (one JSON object, one XML document, one CSV row ...)."""
        ...


@runtime_checkable
class Counting(Protocol):
    """A format whose files say how many rows they hold."""

    def rows(self, file: InputFile) -> int | None:
        """Return the number of rows, None if the file cannot be read."""
        ...


@runtime_checkable
class Recognising(Protocol):
    """A format whose messages do not say which of their columns are which."""

    def recognise(
        self, payloads: Sequence[bytes], context: Context
    ) -> tuple[Context, tuple[str, ...]]:
        """Fix the columns of a stream by its first messages.

        What is fixed does not depend any more on which messages happen to be decoded together.

        Returns:
            The context with the columns named, and warnings.
        """
        ...


@runtime_checkable
class Demanding(Protocol):
    """A format that some files of cannot be read without a certain option."""

    def demands(self, file: InputFile, context: Context) -> str | None:
        """Return what is wrong with the options for a file, and the fix; None if nothing."""
        ...


@runtime_checkable
class Mapped(Protocol):
    """A format whose events are made of named columns."""

    def mapping_of(self, sample: InputFile | Sequence[bytes], context: Context) -> ColumnMap | None:
        """Return which columns of a file, or of messages, feed events; None if it can't be seen."""
        ...


@runtime_checkable
class Tracing(Protocol):
    """A format whose dead letters do not hold a message as it came."""

    def original(self, message: Message, context: Context) -> Message:
        """Return what a dead letter of one of a message's events holds.

        Returns:
            The message that `source` and `source_offset` of its events name, as it may be kept,
            with the attributes that a replay needs.
        """
        ...
