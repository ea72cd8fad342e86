"""A Beam file system in memory, as object stores are: no folders, an object appears on close."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata, FileSystem

OBJECTS: dict[str, bytes] = {}
READ_ONLY = "memory://read-only/"


class _Upload(io.BytesIO):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def close(self) -> None:
        if not self.closed:
            if self._path.startswith(READ_ONLY):
                # Once: whoever collects it closes it again.
                super().close()
                message = "403 Forbidden\nand more"
                raise BeamIOError(message)
            OBJECTS[self._path] = self.getvalue()
        super().close()


class MemoryFileSystem(FileSystem):
    """Found by Beam through its scheme, `memory://`."""

    @classmethod
    def scheme(cls) -> str:
        return "memory"

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join((basepath, *paths))

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path: str) -> None:
        message = "no folders here"
        raise AssertionError(message)

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for path in sorted(OBJECTS):
            if path.startswith(dir_or_prefix):
                yield FileMetadata(path, len(OBJECTS[path]))

    def create(
        self,
        path: str,
        mime_type: str = "",
        compression_type: str = CompressionTypes.AUTO,
    ) -> BinaryIO:
        return _Upload(path)

    def open(
        self,
        path: str,
        mime_type: str = "",
        compression_type: str = CompressionTypes.AUTO,
    ) -> BinaryIO:
        return io.BytesIO(OBJECTS[path])

    def copy(self, source_file_names: Sequence[str], destination_file_names: Sequence[str]) -> None:
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            OBJECTS[target] = OBJECTS[source]

    def rename(
        self, source_file_names: Sequence[str], destination_file_names: Sequence[str]
    ) -> None:
        self.copy(source_file_names, destination_file_names)
        self.delete(source_file_names)

    def exists(self, path: str) -> bool:
        return path in OBJECTS

    def size(self, path: str) -> int:
        return len(OBJECTS[path])

    def last_updated(self, path: str) -> float:
        return 0.0

    def metadata(self, path: str) -> FileMetadata:
        return FileMetadata(path, len(OBJECTS[path]))

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            if path not in OBJECTS:
                message = "Delete operation failed"
                raise BeamIOError(message, {path: FileNotFoundError(path)})
            del OBJECTS[path]
