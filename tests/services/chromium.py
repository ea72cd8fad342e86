"""Chromium, to look at pages in: the machine's own, Playwright's, or Debian's package.

It is driven by Playwright, which is a package of Python; its own download of a browser is not
asked for, as many networks do not let it through.
"""

from __future__ import annotations

import os
import shutil

from examples.screenshot import flags, installed
from pipelines.prism import cache
from tests.services.provision import Missing, call, locked

__all__ = ["flags", "provision"]

PART = "Chromium"


def provision() -> str:
    """Return the path of a Chromium, installed from Debian's packages if there is none.

    Raises:
        Missing: it can't be had.
    """
    found = _installed()
    if found:
        return found
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Missing(
            PART, "install Debian's package chromium, or run `playwright install chromium`"
        )
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".chromium.lock"):
        if not _installed():
            quiet = {"DEBIAN_FRONTEND": "noninteractive"}
            call(PART, ["apt-get", "update", "-q"], quiet)
            install = ["apt-get", "install", "-yq", "--no-install-recommends", "chromium"]
            call(PART, install, quiet)
    found = _installed()
    if not found:
        raise Missing(PART, "apt-get has installed chromium, and there is none on PATH")
    return found


def _installed() -> str:
    try:
        return installed()
    except ImportError:
        raise Missing(PART, "Playwright drives it: pip install playwright") from None
