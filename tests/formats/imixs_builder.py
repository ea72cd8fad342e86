"""Small Imixs documents for the tests, in XML and JSON."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast
from xml.sax.saxutils import escape

from transforms.formats.base import Context, Decoded, Format, InputFile, Message, Span

NAMESPACES = (
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xmlns:xs="http://www.w3.org/2001/XMLSchema"'
)

Items = dict[str, Any]


def snapshot(**items: Any) -> Items:
    """Return items of a workitem; keywords replace them (`_` for `$`), None removes one."""
    given = {
        "$uniqueid": "case-1",
        "$modelversion": "order-1.0",
        "$workflowgroup": "Order",
        "$lasteditor": "lena",
        "type": "workitem",
    }
    given.update({name.replace("_", "$", 1): value for name, value in items.items()})
    return {name: value for name, value in given.items() if value is not None}


def log_line(minute: int, source: int, event: int, task: int, actor: str = "") -> str:
    """Return a line of the new form."""
    time = f"2024-08-27T{minute // 60:02d}:{minute % 60:02d}:20.469+02:00"
    return f"{time}|order-1.0|{source}|{event}|{task}|{actor}|"


def values(value: Any) -> list[Any]:
    """Return the values of an item."""
    return value if isinstance(value, list) else [value]


def xml_items(items: Items, blank: str = "") -> str:
    """Write items as the engine does."""
    text = ""
    for name in sorted(items):
        inner = "".join(
            f'{blank}<value xsi:type="xs:string">{escape(str(value))}</value>'
            for value in values(items[name])
        )
        text += f'{blank}<item name="{escape(name)}">{inner}{blank}</item>'
    return text


def xml_document(items: Items, blank: str = "") -> bytes:
    """Write a document as the engine does."""
    head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
    return f"{head}<document {NAMESPACES}>{xml_items(items, blank)}{blank}</document>".encode()


def xml_data(documents: Sequence[Items]) -> bytes:
    """Write a collection."""
    inner = "".join(f"\n  <document>{xml_items(items)}</document>" for items in documents)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<data {NAMESPACES}>{inner}\n</data>'.encode()


def json_typed(items: Items) -> dict[str, Any]:
    """Return a document in the typed dialect, single values not in a list."""
    written = []
    for name, value in items.items():
        typed = [{"@type": "xs:string", "$": text} for text in values(value)]
        written.append({"name": name, "value": typed if len(typed) != 1 else typed[0]})
    return {"item": written}


def json_mapped(items: Items) -> dict[str, Any]:
    """Return a document in the mapped dialect."""
    return {"item": [{"name": name, "value": values(value)} for name, value in items.items()]}


def to_json(value: Any) -> bytes:
    """Write JSON."""
    return json.dumps(value).encode()


def decode(format_: Format, *payloads: bytes, context: Context | None = None) -> Decoded:
    """Decode messages of a broker, whose record time is 1 s."""
    messages = [Message(p, "topic/0", i, {}, 1_000_000) for i, p in enumerate(payloads)]
    return format_.decode(messages, context or Context())


def file_of(data: bytes, path: str = "f", size: int | None = None, compressed: bool = False,
            stream: io.RawIOBase | None = None) -> tuple[InputFile, Span]:  # fmt: skip
    """Return a file that lies in memory, or that a stream gives."""
    known = len(data) if size is None else size
    return InputFile(
        path, known, lambda: cast(BinaryIO, stream or io.BytesIO(data)), compressed
    ), Span()


def gzip_file(data: bytes, path: str = "f.gz") -> tuple[InputFile, Span]:
    """Return a compressed file that lies in memory."""
    return InputFile(path, len(data), lambda: cast(BinaryIO, gzip.open(io.BytesIO(data))), True), (
        Span()
    )


def read(
    format_: Format, *files: tuple[InputFile, Span], context: Context | None = None
) -> list[Decoded]:
    """Read files."""
    return list(format_.read(files, context or Context()))


def rows(decoded: Decoded | Sequence[Decoded]) -> list[dict[str, Any]]:
    """Return events as dictionaries."""
    batches = [decoded] if isinstance(decoded, Decoded) else decoded
    return [row for batch in batches for row in batch.events.to_pylist()]


def errors(decoded: Decoded) -> list[str]:
    """Return the errors of the failures."""
    return [failure.error for failure in decoded.failures]


class Generated(io.RawIOBase):
    """A stream whose bytes are made while it is read; it counts them.

    Attributes:
        given: bytes read so far.
    """

    def __init__(self, parts: Iterator[bytes]) -> None:
        super().__init__()
        self._parts = parts
        self._left = b""
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes."""
        if not self._left:
            self._left = next(self._parts, b"")
        part, self._left = self._left[:size], self._left[size:]
        self.given += len(part)
        return part
