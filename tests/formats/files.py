"""Files in memory, and what a format makes of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import pyarrow as pa

from transforms.formats.base import Context, Decoded, Format, InputFile, Span
from transforms.formats.line_blocks import join_decoded


def memory_file(
    data: bytes,
    path: str = "memory/log",
    compressed: bool = False,
    opener: Callable[[], BinaryIO] | None = None,
) -> InputFile:
    """Return a file that holds the bytes."""
    return InputFile(path, len(data), opener or (lambda: io.BytesIO(data)), compressed)


def read_all(
    format_: Format,
    data: bytes | InputFile,
    context: Context | None = None,
    spans: Sequence[Span] | None = None,
) -> Decoded:
    """Read a file, all its spans, as one batch."""
    file = data if isinstance(data, InputFile) else memory_file(data)
    context = context or Context()
    work = [(file, span) for span in spans or format_.spans(file, context)]
    return join_decoded(list(format_.read(work, context)))


def rows(events: pa.Table, *columns: str) -> list[tuple[Any, ...]]:
    """Return some columns as rows."""
    return list(zip(*(events.column(c).to_pylist() for c in columns), strict=True))
