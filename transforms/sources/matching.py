"""Which files patterns match, and how large they are: what most archives are named by in one walk.

Beam matches everything else. An archive may have a million files: what is done for each of
them here is all that happens before its work begins.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from apache_beam.io.filesystems import FileSystems

Tell = Callable[[str, int], None]
"""Takes the path of the last file that was found, and the bytes found so far."""


class Matched(NamedTuple):
    """A file of the input.

    Attributes:
        path: as the file system gives it.
        size: bytes as stored.
    """

    path: str
    size: int


class _Watch:
    """Tells once, when much has been found.

    Attributes:
        seen: bytes found so far.
        due: when it is to tell.
    """

    def __init__(self, much: int, tell: Tell | None) -> None:
        self.seen = 0
        self.due: float = math.inf if tell is None else much
        self._tell = tell

    def tell(self, path: str) -> None:
        """Tell of what has been found."""
        self.due = math.inf
        if self._tell is not None:
            self._tell(path, self.seen)


def match(
    patterns: Sequence[str], much: int = 0, tell: Tell | None = None
) -> tuple[list[Matched], list[str]]:
    """Return the files that match, each once, by path, and sentences on folders left out.

    Args:
        patterns: paths and globs of any Beam file system.
        much: bytes from which `tell` is called.
        tell: called once, if so much is found, while the rest is looked for.

    Raises:
        ValueError: no file system for a pattern's scheme.
        BeamIOError, OSError: a pattern cannot be matched.
    """
    sizes: dict[str, int] = {}
    unseen: list[str] = []
    others = []
    watch = _Watch(much, tell)
    for pattern in patterns:
        every = _EVERYTHING.fullmatch(pattern)
        if every is not None and os.path.isdir(every["root"]):
            root, end = every["root"], every["end"] or every["flat"] or ""
            all_below = {f"{root}/**", f"{root}/**/*", f"{root}/**/*{end}"}
            if every["deep"]:
                _measure(root, end, True, sizes, unseen, watch)
            elif all_below.isdisjoint(patterns):
                _measure(root, end, False, sizes, unseen, watch)
            continue
        others.append(pattern)
        root, below, _ = pattern.partition("**")
        if below and "://" not in pattern and not any(c in root for c in "*?["):
            for _ in _walk(root or ".", unseen):
                pass  # Beam finds the files; it does not say what it leaves out.
    for result in FileSystems.match(others) if others else ():
        for found in result.metadata_list:
            if "://" in found.path or os.path.isfile(found.path):
                sizes[found.path] = found.size_in_bytes
                watch.seen += found.size_in_bytes
                if watch.seen >= watch.due:
                    watch.tell(found.path)
    return list(itertools.starmap(Matched, sorted(sizes.items()))), unseen


# What most archives are named by; Beam takes many times as long for each file, and walks
# through all folders below for a pattern of one.
_EVERYTHING = re.compile(
    r"(?P<root>(?!\w+://)[^*?\[\\]*[^*?\[\\/])/"
    r"(?:(?P<deep>\*\*)(?:/\*(?P<end>\.[^*?\[\\/]+)?)?|\*(?P<flat>\.[^*?\[\\/]+)?)"
)


def _measure(
    folder: str,
    end: str,
    deep: bool,
    sizes: dict[str, int],
    unseen: list[str],
    watch: _Watch,
) -> None:
    """Take the sizes of the files in a folder, and below it, whose names end so."""
    for entry in _walk(folder, unseen, deep):
        if entry.name.endswith(end) and _is_file(entry):
            path, size = entry.path, entry.stat().st_size
            sizes[path] = size
            watch.seen += size
            if watch.seen >= watch.due:
                watch.tell(path)


def _walk(folder: str, unseen: list[str], deep: bool = True) -> Iterator[os.DirEntry[str]]:
    """Yield what is below a folder but folders; say which of them are links or unreadable."""
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            entries = os.scandir(here)
        except OSError as error:
            unseen.append(f"{shown(here)} can't be read: {error.strerror}")
            continue
        with entries:
            for entry in entries:
                # The most there are.
                if entry.is_file(follow_symlinks=False):
                    yield entry
                elif entry.is_dir(follow_symlinks=False):
                    if deep:
                        waiting.append(entry.path)
                elif entry.is_symlink() and os.path.isdir(entry.path):
                    if deep:
                        path = shown(entry.path)
                        why = "is a link to a folder, not followed; name it by --input"
                        unseen.append(f"{path} {why}")
                else:
                    yield entry


def _is_file(entry: os.DirEntry[str]) -> bool:
    # The entry knows without asking the disk; but it fails on a link in a circle.
    return entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path)


def shown(path: str) -> str:
    """Return a path as text: a file's name may hold bytes that are none."""
    if path.isascii():
        return path
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
