"""Writes messages as an archive: single documents, exports and pages, plain and compressed.

`OUT/YYYY/MM/<$uniqueid>-<n>.xml` holds one document, `export-*.xml` a `<data>` collection,
`export-*.json` a page in the typed JSON dialect; a part of each is compressed. The month is the
message's, in UTC. Broken and empty messages are files of their own, so what they spoil is known.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from examples.simulator.delivery import Message
from examples.simulator.documents import (
    items,
    json_collection,
    json_document,
    json_object,
    xml_collection,
    xml_element,
)
from examples.simulator.worktime import DAY, day_text


@dataclass(frozen=True)
class Layout:
    """How an archive is laid out; what is left of the shares are single XML files.

    Attributes:
        exports: share of the messages that are written to `<data>` collections.
        pages: share that is written to JSON pages.
        json: share that becomes single JSON files.
        compressed: share of the single files and of the exports that is compressed.
        export_documents: documents in a collection or page.
        numbered: names are `<$uniqueid>-<n>`; else `<$uniqueid>`, for archives with one document
            a case.
    """

    exports: float = 0.25
    pages: float = 0.06
    json: float = 0.04
    compressed: float = 0.1
    export_documents: int = 200
    numbered: bool = True

    def __post_init__(self) -> None:
        shares = [getattr(self, name) for name in ("exports", "pages", "json", "compressed")]
        if min(shares) < 0 or self.compressed > 1 or sum(shares[:3]) > 1:
            reason = f"shares must be between 0 and 1 together: {self}"
            raise ValueError(reason)
        if self.export_documents < 1:
            reason = f"export_documents must be positive, not {self.export_documents}"
            raise ValueError(reason)


@dataclass
class Written:
    """What was written.

    Attributes:
        documents: messages of any kind.
        files: files.
        bytes: as stored.
        kinds: files by kind: `single`, `export`, `page`, `json`, `broken`, `empty`.
        compressed: files that are compressed.
    """

    documents: int = 0
    files: int = 0
    bytes: int = 0
    compressed: int = 0
    kinds: dict[str, int] = field(default_factory=dict)


def write_archive(
    folder: Path, messages: Iterable[Message], *, seed: int, layout: Layout | None = None
) -> Written:
    """Write messages as the files of an archive.

    Args:
        folder: is made if it is not there; files of the same name are replaced.
        messages: in the order of time.
        seed: of the layout: which message goes where.
        layout: `Layout()` by default.
    """
    writer = _Writer(folder, Random(f"layout {seed}"), layout or Layout())
    for message in messages:
        writer.add(message)
    writer.close()
    return writer.written


class _Writer:
    def __init__(self, folder: Path, random: Random, layout: Layout) -> None:
        self.folder = folder
        self.random = random
        self.layout = layout
        self.written = Written()
        self._months: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._exports: dict[str, list[str]] = {}
        self._pages: dict[str, list[dict[str, Any]]] = {}
        self._collections = 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, message: Message) -> None:
        layout = self.layout
        month = day_text(message.time // DAY)[:7].replace("-", "/")
        self.written.documents += 1
        name = message.id
        if layout.numbered:
            number = self._numbers[name] = self._numbers.get(name, 0) + 1
            name = f"{name}-{number}"
        place, zipped = self.random.random(), self.random.random() < layout.compressed
        if message.snapshot is None or message.kind != "snapshot":
            kind = {"profile": "single", "empty": "empty"}.get(message.kind, "broken")
            self._write(month, f"{name}.xml", message.payload(), kind, zipped=False)
            return
        if place < layout.exports:
            export = self._exports.setdefault(month, [])
            export.append(xml_element(items(message.snapshot)))
            if len(export) == layout.export_documents:
                self._close_export(month)
        elif place < layout.exports + layout.pages:
            page = self._pages.setdefault(month, [])
            page.append(json_object(items(message.snapshot)))
            if len(page) == layout.export_documents:
                self._close_page(month)
        elif place < layout.exports + layout.pages + layout.json:
            self._write(
                month, f"{name}.json", json_document(items(message.snapshot)), "json", zipped
            )
        else:
            self._write(month, f"{name}.xml", message.payload(), "single", zipped)

    def close(self) -> None:
        for month in list(self._exports):
            self._close_export(month)
        for month in list(self._pages):
            self._close_page(month)

    def _close_export(self, month: str) -> None:
        content = xml_collection(self._exports.pop(month))
        zipped = self.random.random() < self.layout.compressed
        self._write(month, f"{self._collection_name()}.xml", content, "export", zipped)

    def _close_page(self, month: str) -> None:
        content = json_collection(self._pages.pop(month))
        self._write(month, f"{self._collection_name()}.json", content, "page", zipped=False)

    def _collection_name(self) -> str:
        self._collections += 1
        return f"export-{self._collections:05d}"

    def _write(self, month: str, name: str, content: bytes, kind: str, zipped: bool) -> None:
        if month not in self._months:
            (self.folder / month).mkdir(parents=True, exist_ok=True)
            self._months.add(month)
        if zipped:
            name += ".gz"
            content = gzip.compress(content, compresslevel=5, mtime=0)
        (self.folder / month / name).write_bytes(content)
        written = self.written
        written.files += 1
        written.bytes += len(content)
        written.compressed += zipped
        written.kinds[kind] = written.kinds.get(kind, 0) + 1
