"""The page: a template, its style and its scripts in one file that needs nothing else.

Data stands in a script of type `application/json`, which is read and never run, and everything
that it names is put on the page as text. A content security policy names the page's own
scripts by their hashes, so nothing else would run on it, were it there.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from functools import lru_cache
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"

SCRIPTS = (
    *("format", "dom", "model", "filters", "layout", "map", "axes", "charts"),
    *("people", "lists", "app"),
)
"""Our own, in order; each adds to one object, `report`."""

_SELF, _NONE = "'self'", "'none'"

_ESCAPED = re.compile(rb"[<>&]|\xe2\x80[\xa8\xa9]")
_CODES = {
    b"<": b"\\u003c",
    b">": b"\\u003e",
    b"&": b"\\u0026",
    b"\xe2\x80\xa8": b"\\u2028",
    b"\xe2\x80\xa9": b"\\u2029",
}


def page(title: str, data: bytes, live: bool = False) -> bytes:
    """Return the page.

    Args:
        title: of the window.
        data: JSON, as `data.packed` writes it.
        live: whether it asks the server that it came from for newer data.
    """
    values = {
        "POLICY": policy(live).encode(),
        "TITLE": html.escape(title).encode(),
        "STYLE": _text("style.css"),
        "SCRIPT": _script(),
        "DATA": escaped(data),
    }
    # In one pass: a value that looks like a place is none.
    return re.sub(rb"\{\{([A-Z]+)\}\}", lambda m: values[m[1].decode()], _text("page.html"))


def policy(live: bool) -> str:
    """Return the page's content security policy: its own script and style, and no network."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_hash(_script())}'",
            f"style-src '{_hash(_text('style.css'))}'",
            "img-src data:",
            f"connect-src {_SELF if live else _NONE}",
            f"base-uri {_NONE}",
            f"form-action {_NONE}",
        ]
    )


def escaped(data: bytes) -> bytes:
    """Escape JSON so that no text in it ends the script that it stands in."""
    return _ESCAPED.sub(lambda match: _CODES[match[0]], data)


@lru_cache(maxsize=1)
def _script() -> bytes:
    licence = _text("dagre.LICENSE.txt").replace(b"@license", b"dagre (MIT License)")
    ours = b"\n".join(_text(f"{name}.js") for name in SCRIPTS)
    # dagre is `var dagre = ...`: within the function, so that the page has no globals.
    return (
        b'(() => {\n"use strict";\n' + licence + _text("dagre.min.js") + b"\n" + ours + b"\n})();\n"
    )


def _text(name: str) -> bytes:
    return (ASSETS / name).read_bytes()


def _hash(content: bytes) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}"
