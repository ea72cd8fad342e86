"""The output's file system: the local one, or any of Beam's (gs://, s3://, hdfs:// ...).

Objects cannot be renamed as folders: a table is replaced file by file. Whoever reads meanwhile
finds no manifest, which is removed first and written last.
"""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from transforms.sinks.commit import LocalStore, OutputError, Store

# What the clients of object stores raise besides OSError; each is there only with its extra.
_CLIENT_ERRORS = (
    ("google.api_core.exceptions", "GoogleAPIError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("azure.core.exceptions", "AzureError"),
)


def open_store(path: str) -> Store:
    """Return the file system of a path: local if it has no scheme, else Beam's."""
    return LocalStore() if FileSystems.get_scheme(path) is None else BeamStore()


@dataclass(frozen=True)
class BeamStore:
    """Files on a file system that Beam knows by the path's scheme."""

    @property
    def local(self) -> bool:  # noqa: D102
        return False

    def resolve(self, path: str) -> str:  # noqa: D102
        return path.rstrip("/")

    def join(self, folder: str, *names: str) -> str:  # noqa: D102
        return "/".join((folder, *names))

    def prepare(self, folder: str) -> None:  # noqa: D102
        probe = f"{folder}/.probe-{uuid.uuid4().hex}"
        errors: tuple[type[Exception], ...] = (OSError, ValueError, *client_errors())
        try:
            with FileSystems.create(probe, compression_type=CompressionTypes.UNCOMPRESSED) as sink:
                sink.write(b"probe\n")
            FileSystems.delete([probe])
        except errors as e:
            first = str(e).strip().split("\n")[0]
            reason = f"cannot write to {folder}: {first}; fix that or choose another output"
            raise OutputError(reason) from e

    @contextmanager
    def create(self, path: str) -> Iterator[BinaryIO]:  # noqa: D102
        # Some file systems show what is half-written, and closing a failed upload ends it well:
        # so it gets its name afterwards.
        unfinished = f"{path}.{uuid.uuid4().hex}"
        try:
            with FileSystems.create(
                unfinished, compression_type=CompressionTypes.UNCOMPRESSED
            ) as sink:
                yield sink
            _move([unfinished], [path])
        except BaseException:
            if FileSystems.exists(unfinished):
                FileSystems.delete([unfinished])
            raise

    def read(self, path: str) -> bytes | None:  # noqa: D102
        if not FileSystems.exists(path):
            return None
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            return bytes(file.read())

    def names(self, folder: str, prefix: str = "") -> list[str]:  # noqa: D102
        files = _files(f"{folder}/{prefix}")
        return sorted({path[len(folder) + 1 :].partition("/")[0] for path in files})

    def remove(self, path: str) -> None:  # noqa: D102
        found = _files(f"{path}/")
        if FileSystems.exists(path):
            found.append(path)
        FileSystems.delete(found)

    def replace(self, staged: str, target: str, aside: str, names: Sequence[str]) -> None:  # noqa: D102
        # The old parts go as they are: there is nothing that a rename could keep aside.
        stale = set(self.names(target)).difference(names)
        FileSystems.delete([f"{target}/{name}" for name in sorted(stale)])
        moved = sorted(set(self.names(staged)).intersection(names))
        _move([f"{staged}/{name}" for name in moved], [f"{target}/{name}" for name in moved])


def _files(prefix: str) -> list[str]:
    """List all files whose path begins so."""
    # Patterns cannot be quoted: any character will do for a special one, and is judged here.
    pattern = "".join("?" if c in "[*?" else c for c in prefix) + "**"
    try:
        found = [metadata.path for metadata in FileSystems.match([pattern])[0].metadata_list]
        return [path for path in found if path.startswith(prefix)]
    except BeamIOError:
        # File systems with folders cannot list one that is not there.
        if FileSystems.exists(prefix.rpartition("/")[0]):
            raise
        return []


def _move(sources: Sequence[str], targets: Sequence[str]) -> None:
    """Rename files into one folder, over what is there."""
    if not sources:
        return
    folder = targets[0].rpartition("/")[0]
    if FileSystems.get_filesystem(folder).has_dirs() and not FileSystems.exists(folder):
        FileSystems.mkdirs(folder)
    # Not every file system renames over a file.
    FileSystems.delete([target for target in targets if FileSystems.exists(target)])
    FileSystems.rename(list(sources), list(targets))


def client_errors() -> tuple[type[Exception], ...]:
    """Return what the clients of object stores that are installed raise besides OSError."""
    errors = []
    for module, name in _CLIENT_ERRORS:
        try:
            errors.append(getattr(importlib.import_module(module), name))
        except ModuleNotFoundError:
            continue
    return tuple(errors)
