"""`run.py report`: the tables of a folder become one page.

python run.py report --input out --output report.html --timezone Europe/Berlin
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress

from pipelines.exit_codes import ExitCode, RunError
from pipelines.report.arguments import Report
from pipelines.report.data import Look, document, packed
from pipelines.report.folder import read_folder
from pipelines.report.page import page
from pipelines.screen import Screen
from pipelines.values import size_text
from transforms.sinks.commit import MANIFEST


def write(screen: Screen, wanted: Report) -> ExitCode:
    """Make the page.

    Args:
        screen: where it is said.
        wanted: of what, and where.

    Raises:
        RunError: there is nothing to report, or the page can't be written.
    """
    _check_place(wanted)
    contents = read_folder(wanted.folder)
    look = Look(wanted.title, wanted.zone, time.time_ns() // 1_000_000)
    made = document(contents, look)
    content = page(wanted.title, packed(made))
    _save(wanted.output, content)
    for sentence in made["cut"]:
        screen.note(sentence)
    screen.say(f"{wanted.output}: {size_text(len(content))}")
    return ExitCode.OK


def _check_place(wanted: Report) -> None:
    """Refuse to write over what a run has written.

    Raises:
        RunError: the page would lie among the tables.
    """
    if "://" in wanted.folder:
        return
    folder, page_ = os.path.realpath(wanted.folder), os.path.realpath(wanted.output)
    inside = os.path.relpath(page_, folder)
    if inside == MANIFEST or os.sep in inside and not inside.startswith(os.pardir):
        text = (
            f"--output '{wanted.output}' is a file of the run in '{wanted.folder}'; give another, "
            "such as report.html"
        )
        raise RunError(ExitCode.USAGE, text)


def _save(path: str, content: bytes) -> None:
    """Write a file that is seen whole or not at all.

    Raises:
        RunError: it can't be written.
    """
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=folder, prefix=".report-", suffix=".html")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(aside, 0o666 & ~umask)
            os.replace(aside, path)
        except OSError:
            with suppress(OSError):
                os.remove(aside)
            raise
    except OSError as error:
        text = f"--output '{path}' can't be written: {error.strerror}; give another place"
        raise RunError(ExitCode.OUTPUT, text) from None
