"""Chromium, to look at pages in: the machine's own, Playwright's, or Debian's package.

It is driven by Playwright, which is a package of Python; its own download of a browser is not
asked for, as many networks do not let it through.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pipelines.prism import cache
from tests.services.provision import Missing, call, locked

PART = "Chromium"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic"),
)


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
    for name in NAMES:
        path = shutil.which(name)
        if path:
            return path
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415
    except ImportError:
        raise Missing(PART, "Playwright drives it: pip install playwright") from None
    with sync_playwright() as driver:
        own = driver.chromium.executable_path
    return own if Path(own).exists() else ""


def flags() -> list[str]:
    """Return what it is started with: nothing of its own over the network; root has no sandbox."""
    return [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
