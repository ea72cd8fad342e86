"""The page as a file: one, whole, and with nothing in it that data could start."""

from __future__ import annotations

import base64
import hashlib
import re

import orjson

from pipelines.report.data import Contents, Look, document, packed
from pipelines.report.page import ASSETS, SCRIPTS, escaped, page
from tests.report.tables import cases, tables

HOSTILE = (
    '</script><script>alert(1)</script><!--\u2028\u2029<img src=x onerror="alert(2)">&amp;{{DATA}}'
)


def hostile_page() -> str:
    moves = cases(4, ((HOSTILE, "done"),), groups=(HOSTILE,), actors=(HOSTILE,))
    made = document(Contents(tables(moves)), Look(HOSTILE))
    return page(HOSTILE, packed(made)).decode()


def test_data_cannot_leave_its_script() -> None:
    text = hostile_page()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert data is not None
    assert not set("<>&\u2028\u2029") & set(data[1])
    assert HOSTILE in orjson.loads(data[1])["states"]["names"]
    assert text.count("<script") == 2


def test_escaped_json_reads_as_before() -> None:
    assert orjson.loads(escaped(orjson.dumps([HOSTILE]))) == [HOSTILE]


def test_the_page_needs_nothing_else() -> None:
    text = page("A", b"{}").decode()
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", text)
    assert "sourceMappingURL" not in text
    assert "connect-src 'none'" in text
    # Its licence goes where dagre goes.
    assert "Chris Pettitt" in text


def test_the_policy_names_script_and_style_by_their_hashes() -> None:
    text = page("A", b"{}")
    for kind in (rb"style", rb"script"):
        content = re.findall(rb"<%s>(.*?)</%s>" % (kind, kind), text, re.S)
        digest = base64.b64encode(hashlib.sha256(content[0]).digest()).decode()
        assert len(content) == 1
        assert f"{kind.decode()}-src 'sha256-{digest}'".encode() in text


def test_data_is_never_markup() -> None:
    for name in SCRIPTS:
        code = (ASSETS / f"{name}.js").read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", code
        )
