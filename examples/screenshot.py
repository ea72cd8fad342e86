"""Takes a picture of a report, as it is in the README.

    python -m examples.screenshot demo/report.html docs/report.png
    python -m examples.screenshot demo/report.html docs/report-dark.png --dark --height 1100

Needs Playwright (`pip install playwright`) and a Chromium: one that is installed, or
Playwright's own (`playwright install chromium`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic"),
)
WIDTH = 1280


def installed() -> str:
    """Return the path of a Chromium; empty if there is none.

    Raises:
        ImportError: Playwright is not installed.
    """
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (it may be missing)

    for name in NAMES:
        path = shutil.which(name)
        if path:
            return path
    with sync_playwright() as driver:
        own = driver.chromium.executable_path
    return own if Path(own).exists() else ""


def flags() -> list[str]:
    """Return what it is started with: nothing of its own over the network; root has no sandbox."""
    return [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]


def take(report: Path, picture: Path, browser: str, dark: bool, height: int) -> None:
    """Write a picture of a page (PNG, twice as fine as a screen), from its top."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (as above)

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=flags())
        page = chromium.new_page(
            viewport={"width": WIDTH, "height": height},
            device_scale_factor=2,
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        page.goto(report.resolve().as_uri())
        page.wait_for_selector("#map svg")
        picture.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=picture)
        chromium.close()


def main(argv: Sequence[str]) -> int:
    """Take the picture that the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m examples.screenshot")
    parser.add_argument("report", type=Path, help="a page that run.py report has made")
    parser.add_argument("picture", type=Path, help="the PNG to write")
    parser.add_argument("--dark", action="store_true", help="as on a dark screen")
    parser.add_argument("--height", type=int, default=1000, help="pixels (default: 1000)")
    given = parser.parse_args(argv)
    if not given.report.is_file():
        print(f"error: there is no {given.report}; make it with run.py report", file=sys.stderr)
        return 4
    try:
        browser = installed()
    except ImportError:
        print("error: it needs Playwright: pip install playwright", file=sys.stderr)
        return 2
    if not browser:
        print(
            "error: there is no Chromium; install Debian's package chromium, or run "
            "playwright install chromium",
            file=sys.stderr,
        )
        return 2
    take(given.report, given.picture, browser, given.dark, given.height)
    print(given.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
