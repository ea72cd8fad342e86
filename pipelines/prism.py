"""Where the Prism runner is on this machine.

Prism is a program of its own: a Go binary that `make services` builds once and keeps. What
looks for it (the choice of the engine) and what builds it (the services of the tests) agree here.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

VERSION = "2.77.0"
"""Of Beam, and so of Prism: the two speak one protocol."""


def cache() -> Path:
    """Return the folder that keeps what is fetched or built once for all checkouts of a user."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "imixs-data-streaming"


def built() -> Path:
    """Return where `make services` puts the binary; it may not be there yet."""
    return cache() / f"prism-{VERSION}" / "prism"


def location() -> str | None:
    """Return the path of the binary: `prism` on PATH, else the built one; None without either."""
    found = shutil.which("prism")
    if found is not None:
        return found
    return shutil.which(str(built()))
