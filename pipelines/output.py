"""The folder a run writes to: taken hold of before, left as it was if the run fails, read after."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from pipelines.exit_codes import ExitCode, RunError
from pipelines.registry import Pipeline
from pipelines.settings import Settings
from transforms.sinks.commit import MANIFEST, OutputError, Run
from transforms.sinks.manifest import BadManifest
from transforms.sinks.manifest import read_manifest as manifest_of
from transforms.sinks.store import open_store
from transforms.sinks.tables import FileFormat

NO_ROOM = {
    errno.ENOSPC: "; make room on that disk, or give an --output on a larger one",
    errno.EDQUOT: "; make room in your quota, or give an --output on another disk",
    errno.EROFS: "; give an --output on a disk that can be written",
}
"""What the disk of the output says when nothing more can be written, and how to put it right."""

ABORTS = 5

_log = logging.getLogger(__name__)


@contextmanager
def hold_output(pipeline: Pipeline, settings: Settings, run_id: str) -> Iterator[Run]:
    """Take hold of the output; if the block fails, leave it as it was.

    Raises:
        RunError: it can't be written, or another run is writing to it.
    """
    made = [] if "://" in settings.output else _missing_folders(Path(settings.output))
    try:
        store = open_store(settings.output)
        sink = Run.start(
            settings.output,
            store,
            (*pipeline.tables, *(["state"] if settings.keep_state else [])),
            cast(FileFormat, settings.output_format),
            run_id,
        )
    except OutputError as error:
        _remove_empty(made)
        raise RunError(ExitCode.OUTPUT, f"--output: {one_line(error)}") from None
    try:
        yield sink
    except BaseException as error:
        _abort(sink)
        _remove_empty(made)
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            text = f"--output: {one_line(error)}{NO_ROOM[error.errno]}"
            raise RunError(ExitCode.OUTPUT, text) from error
        raise


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _abort(sink: Run) -> None:
    """Remove what a run has written; what its last workers write meanwhile, the next run does."""
    for _ in range(ABORTS):
        try:
            sink.abort()
        except OSError as error:
            _log.info("can't remove %s yet: %s", sink.folder, error)
        else:
            return


def _missing_folders(folder: Path) -> list[Path]:
    """Return the folders that have to be made, the deepest first."""
    missing = []
    # Path.exists raises an error for a name that is too long.
    while not os.path.exists(folder) and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    return missing


def read_manifest(output: str, run_id: str) -> dict[str, Any]:
    """Read what a run says of itself.

    Raises:
        RunError: there is none, or it is another run's.
    """
    path = f"{output}/{MANIFEST}"
    try:
        manifest = manifest_of(output)
    except BadManifest as error:
        raise RunError(ExitCode.FAILED, f"the run has ended, but {error}") from None
    if manifest is None:
        text = f"the run has ended without its manifest {path}"
        raise RunError(ExitCode.FAILED, text)
    if manifest.get("run_id") != run_id:
        text = f"the run has ended, but {path} is another run's: did two runs write there?"
        raise RunError(ExitCode.FAILED, text)
    return manifest


def one_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
