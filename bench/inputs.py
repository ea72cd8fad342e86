"""Documents and XES logs of the simulator, kept under `bench/work` and not made again."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.data import WORK
from examples.simulator.benchmark import write_documents, write_xes


def read_through(log: Path) -> Path:
    """Read a file once, so that whoever comes first does not wait for the disk alone."""
    with log.open("rb") as file:
        while file.read(2**24):
            pass
    return log


def documents_folder(documents: int, collections: bool) -> Path:
    """Return a folder of Imixs documents, a file each or in collections."""
    folder = WORK / f"documents-{documents}-{'collections' if collections else 'files'}"
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        write_documents(partial, documents, collections=collections)
        partial.replace(folder)
    return folder


def xes_logs(events: int, files: int) -> Path:
    """Return a folder of so many XES logs, each of so many events."""
    folder = WORK / f"xes-{files}x{events}"
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for number in range(files):
            write_xes(partial / f"log-{number}.xes", number + 1, events)
        partial.replace(folder)
    return folder
