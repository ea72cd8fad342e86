"""The version of this program: of the checkout it runs from, or of what is installed."""

from __future__ import annotations

import re
from importlib.metadata import version as installed
from pathlib import Path

_VERSION = re.compile(r'^version = "([^"]+)"', re.MULTILINE)


def version() -> str:
    """Return the version, such as `0.1.0`."""
    project = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if project.is_file():
        found = _VERSION.search(project.read_text(encoding="utf-8"))
        if found:
            return found[1]
    return installed("imixs-data-streaming")


def beam_version() -> str:
    """Return the version of Apache Beam."""
    return installed("apache-beam")
