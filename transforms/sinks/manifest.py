"""What a run has said of itself, read back.

It is written aside and gets its name when it is whole (`Store.create`): a reader finds none, or
the whole of it. One that can't be understood was damaged later, or is no run's. There is none
while a run's tables are put in the place of others: what lies there then is of two runs.
"""

from __future__ import annotations

from typing import Any

import orjson
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from transforms.sinks.commit import JOURNAL, MANIFEST
from transforms.sinks.store import client_errors, open_store


class BadManifest(Exception):
    """A manifest can't be read, or is none; the message names the file, why, and the fix."""


def read_manifest(folder: str) -> dict[str, Any] | None:
    """Return what the run whose output a folder is says of itself; None if nothing is there.

    Raises:
        BadManifest: something is, and it is not what a run writes; or nothing is, and the tables
            are half those of one run and half those of another.
    """
    path = f"{folder}/{MANIFEST}"
    try:
        content = _content(path)
        half = content is None and _half(folder)
    except (BeamIOError, OSError, ValueError, *client_errors()) as error:
        reason = f"{path} can't be read: {' '.join(str(error).split())}"
        raise BadManifest(reason) from None
    if half:
        reason = (
            f"the tables in {folder} are being replaced by those of another run, or that was "
            "killed while it did so: look again in a moment, and if this stays, run it again, "
            "which completes it"
        )
        raise BadManifest(reason)
    if content is None:
        return None
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise _bad(path, str(error) if content else "it is empty") from None
    tables = found.get("tables") if isinstance(found, dict) else None
    if not isinstance(tables, dict) or not all(map(_counted, tables.values())):
        raise _bad(path, "it does not say which rows the run has written")
    return found


def _content(path: str) -> bytes | None:
    if not FileSystems.exists(path):
        return None
    try:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            return bytes(file.read())
    except FileNotFoundError:
        # Another run has just begun to replace the tables.
        return None


def _half(folder: str) -> bool:
    """Say whether a commit has begun that is not done."""
    store = open_store(folder)
    place = store.resolve(folder)
    try:
        runs = store.names(place, ".run-")
    except NotADirectoryError:
        return False
    return any(store.read(store.join(place, run, JOURNAL)) is not None for run in runs)


def _counted(table: object) -> bool:
    return isinstance(table, dict) and isinstance(table.get("rows"), int)


def _bad(path: str, reason: str) -> BadManifest:
    return BadManifest(
        f"{path} can't be read as what a run says of itself ({reason}): run it again, or put the "
        "file back from a copy; without the file the tables beside it are those of a run that has "
        "not ended"
    )
