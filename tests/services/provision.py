"""Fetch or build a part once, however many processes ask for it at the same time."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from pipelines.prism import cache

TIMEOUT = 900.0
"""Seconds that Maven or Go may take: a slow registry, a cold cache."""


class Missing(Exception):
    """A part cannot be had on this machine.

    Attributes:
        name: the part.
        why: what is missing, and what to do.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name
        self.why = why


def missing_part(name: str, why: str) -> NoReturn:
    """Skip the test that needs a part; fail it where CI is set, which must have all of them."""
    message = f"needs {name}: {why}"
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"{message} (CI is set, so this is no reason to skip)", pytrace=False)
    pytest.skip(message)


def provide(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder of a part, made now if it is not in the cache.

    The folder appears by a rename when it is complete, so a process that was killed leaves no
    half of it. A lock lets one process make it while the others wait.

    Args:
        name: of its folder in the cache, with the version.
        make: fills an empty folder.

    Raises:
        Missing: raised by `make`.
    """
    folder = cache() / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / f".{name}.lock"):
        if folder.is_dir():
            return folder
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
        try:
            content = scratch / "content"
            content.mkdir()
            make(content)
            content.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time run the block."""
    # The kernel lets go of the lock when its holder dies; the file stays, and harms nobody.
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def program(part: str, name: str, package: str) -> str:
    """Return the path of a program.

    Raises:
        Missing: it is not on PATH.
    """
    found = shutil.which(name)
    if found is None:
        raise Missing(part, f"{name} is not on PATH; install {package}")
    return found


def call(
    part: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None
) -> None:
    """Run a command to its end.

    Raises:
        Missing: it fails or takes too long; the reason holds the last lines it printed.
    """
    shown = " ".join(map(str, command[:3]))
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Missing(part, f"`{shown} ...` took more than {TIMEOUT:.0f} s") from None
    if done.returncode:
        printed = done.stdout.strip().splitlines()
        # Where Java was says nothing; what it says comes before.
        lines = "\n".join([line for line in printed if not line.startswith("\tat ")][-8:])
        raise Missing(part, f"`{shown} ...` failed with exit code {done.returncode}:\n{lines}")
