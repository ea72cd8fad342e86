"""Paths and globs of the command line, of this machine and of Beam's file systems."""

from __future__ import annotations

import glob
import importlib.util
import os
import re
from collections.abc import Sequence

CLIENTS = {
    "gs": ("google.cloud.storage", "gcp"),
    "s3": ("boto3", "aws"),
    "azfs": ("azure.storage.blob", "azure"),
    "hdfs": ("hdfs", "hadoop"),
}
"""Scheme -> the client library that Beam's file system for it needs, and Beam's extra with it."""


def patterns_of(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the globs of `--input`: split at commas, folders as everything below them."""
    patterns: list[str] = []
    for text in texts:
        # A comma separates, unless there is a file of that very name.
        parts = [text] if os.path.exists(text) else text.split(",")
        patterns.extend(_pattern(local_path(part.strip())) for part in parts if part.strip())
    return tuple(patterns)


def _pattern(path: str) -> str:
    """Return a path as Beam's file systems match it."""
    if "://" in path:
        return path
    if os.path.isdir(path):
        path = f"{glob.escape(path.rstrip('/') or '/')}/**"
    elif os.path.exists(path):
        # A name with a bracket is no glob if there is such a file.
        path = glob.escape(path)
    # Beam finds nothing below a relative glob without a folder, or with two slashes.
    path = re.sub("//+", "/", path)
    return path if "/" in path or not glob.has_magic(path) else f"./{path}"


def with_top_level(patterns: Sequence[str]) -> list[str]:
    """Let `a/**/*.xml` match `a/b.xml` too, as it does in a shell; for Beam it does not."""
    both = [*patterns, *(p.replace("/**/", "/") for p in patterns if "/**/" in p)]
    return list(dict.fromkeys(both))


def missing_client(path: str) -> str | None:
    """Say what to install for a path's file system, if its client library is not there."""
    scheme, separator, _ = path.partition("://")
    if not separator or scheme not in CLIENTS:
        return None
    module, extra = CLIENTS[scheme]
    try:
        if importlib.util.find_spec(module) is not None:
            return None
    except ModuleNotFoundError:
        # Not even the package that it is in.
        pass
    return f"needs a client for {scheme}://; pip install 'apache-beam[{extra}]'"


def local_path(text: str) -> str:
    """Return a path of this machine without `file://` and `~`; others as they are."""
    if text.startswith("file://"):
        text = text[len("file://") :]
    return os.path.expanduser(text)


def matches(pattern: str, path: str) -> bool:
    """Say whether a glob, with `**` over any number of folders, matches a path.

    On this machine also where one of them goes through a symbolic link.
    """
    if "://" in pattern or "://" in path:
        return _matches(pattern, path)
    pattern, path = os.path.abspath(pattern), os.path.abspath(path)
    return _matches(pattern, path) or _matches(_real_pattern(pattern), os.path.realpath(path))


def _matches(pattern: str, path: str) -> bool:
    try:
        return re.fullmatch(_expression(pattern), path, re.DOTALL) is not None
    except re.error:
        return False  # Such as [z-a], which no file matches.


def _real_pattern(pattern: str) -> str:
    """Follow the links in the part of a pattern that comes before its first wildcard."""
    names = pattern.split("/")
    fixed = []
    for name in names:
        # As glob.escape wrote it.
        literal = re.sub(r"\[([*?[])\]", r"\1", name)
        if glob.has_magic(name) and glob.escape(literal) != name:
            break
        fixed.append(literal)
    real = os.path.realpath("/".join(fixed) or "/")
    return "/".join([glob.escape(real).rstrip("/"), *names[len(fixed) :]])


_TOKEN = re.compile(r"/\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_WILD = {"/**/": "/(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _expression(pattern: str) -> str:
    """Return a glob as a regular expression."""
    return "".join(_WILD.get(token) or _one(token) for token in _TOKEN.findall(pattern))


def _one(token: str) -> str:
    """Return a character, or a set of characters such as `[a-z]` or `[!?*]`."""
    if len(token) == 1:
        return re.escape(token)
    inner = token[1:-1]
    negated, inner = ("^", inner[1:]) if inner.startswith("!") else ("", inner)
    # All that has a meaning within a set but the dash of a range, which globs have too.
    inner = re.sub(r"--|[\\\[\]^&~|]", lambda found: re.escape(found[0]), inner)
    return f"[{negated}{inner}]"
