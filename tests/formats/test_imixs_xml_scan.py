"""The scan of Imixs XML: what it takes it reads as a parser does, and it takes nothing broken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.imixs_builder import NAMESPACES, log_line, snapshot, xml_document
from transforms.formats.imixs_xml import pick
from transforms.formats.imixs_xml_scan import MANY, MAX_BYTES, scan

NAMES = ("$uniqueid", "$eventlog", "type", "größe", "$file")
DECLARATION = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
SCHEMA = "http://www.w3.org/2001/XMLSchema"
FILE = (
    '<item name="$file"><value xsi:type="xmlItemArray">\n<item name="offer.pdf">'
    '<value xsi:type="xs:string">application/pdf</value>'
    '<value xsi:type="xs:base64Binary">UERG</value></item> <item name="type"/></value></item>'
)
HISTORY = (
    '<item name="history"><value xsi:type="xmlItem"><value xsi:type="xs:string">a</value>'
    '<value xsi:nil="true" /></value></item>'
)
ITEM = '<item name="type"><value xsi:type="xs:string">workitem</value></item>'

Values = list[tuple[str, str]]


def wrap(items: str) -> str:
    return f"<document {NAMESPACES}>{items}</document>"


def scanned(documents: Sequence[bytes]) -> tuple[list[Values], list[int]]:
    """Return the values that a scan finds in each document, and what it leaves."""
    found = scan(documents, NAMES)
    assert (np.diff(found.document) >= 0).all()
    assert not found.value.null_count
    found.value.validate(full=True)
    values: list[Values] = [[] for _ in documents]
    for number, item, value in zip(
        found.document.tolist(), found.item.tolist(), found.value.to_pylist(), strict=True
    ):
        values[number].append((NAMES[item], value))
    return values, found.left


def parsed(document: bytes) -> Values | None:
    """Return the values that the parser finds, None if it refuses the document."""
    picked = pick([document], NAMES)
    if picked.problems:
        return None
    items = [NAMES[item] for item in picked.item.tolist()]
    return list(zip(items, picked.value.to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (wrap(ITEM), [("type", "workitem")]),
        (DECLARATION + wrap(ITEM), [("type", "workitem")]),
        ("<?xml version='1.0' ?>\n" + wrap(ITEM) + "\n", [("type", "workitem")]),
        ("\ufeff" + DECLARATION + wrap(ITEM), [("type", "workitem")]),
        (f"<document>{ITEM}</document>", [("type", "workitem")]),
        (f'<document xmlns="urn:x" version="2">{ITEM}</document >', [("type", "workitem")]),
        (wrap(""), []),
        (wrap('<item name="type"/><item name="type"></item>'), []),
        (wrap('<item name="other"><value>a</value></item>' + ITEM), [("type", "workitem")]),
        (wrap('<item name="TYPE"><value>a</value><value></value></item>'),
         [("type", "a"), ("type", "")]),
        (wrap('<item name="GRÖSSE"><value>1</value></item><item name="GRÖßE"><value>2</value>'
              "</item>"), [("größe", "2")]),
        (wrap('<item name="type"><value>&lt;&amp;lt;&gt; "é"\'&quot;&apos;\U0001f600</value>'
              "</item>"),
         [("type", "<&lt;> \"é\"'\"'\U0001f600")]),
        (wrap('\n<item name="type">\n\t<value  xsi:type="xs:int"\n>\t1\n </value >\n</item >\n'),
         [("type", "\t1\n ")]),
        (wrap('<item name="type"><value xsi:nil="true"/><value>a</value></item>'), [("type", "a")]),
        (wrap(f'<item name="type"><value xmlns:xs="{SCHEMA}" xmlns:xsi="{SCHEMA}-instance" '
              f'xsi:type="xs:int">1</value><value xsi:type="xs:int" xmlns:xs="{SCHEMA}">2</value>'
              '<value type="xs:int">3</value></item>'),
         [("type", "1"), ("type", "2"), ("type", "3")]),
        (wrap('<item name="x"><value>a&#13;b&#xA;\r\n</value></item>' + ITEM),
         [("type", "workitem")]),
        (wrap(HISTORY + ITEM), [("type", "workitem")]),
        (wrap(FILE + ITEM),
         [("$file", "application/pdf"), ("$file", "UERG"), ("type", "workitem")]),
    ],
)  # fmt: skip
def test_what_the_engine_writes_is_taken(document: str, expected: Values) -> None:
    values, left = scanned([document.encode()] * MANY)
    assert left == []
    assert values == [expected] * MANY
    assert parsed(document.encode()) == expected


@pytest.mark.parametrize(
    "document",
    [
        wrap(ITEM + "<!-- x -->"),
        wrap(ITEM + "<?x y?>"),
        wrap(ITEM).replace("workitem", "<![CDATA[workitem]]>"),
        wrap(ITEM).replace("workitem", "<b>workitem</b>"),
        wrap(ITEM).replace("workitem", "a>b"),
        wrap(ITEM).replace("workitem", "a\r"),
        wrap(ITEM).replace("workitem", "&#13;"),
        wrap(ITEM).replace("<item ", "<i:item ").replace("</item", "</i:item"),
        wrap(ITEM).replace('"type"', '"&#116;ype"'),
        wrap(ITEM).replace('"type"', "'type'"),
        wrap(ITEM).replace('"type"', '"type" more="1"'),
        wrap(ITEM).replace(' xsi:type="xs:string"', ' xsi:nil="false"'),
        wrap('<item name="type"><value/></item>'),
        DECLARATION.replace("UTF-8", "iso-8859-1") + wrap(ITEM),
        "<!DOCTYPE document>" + wrap(ITEM),
        "<log/>",
        # not well-formed
        wrap(ITEM)[:-1],
        wrap(ITEM) + "x",
        wrap(ITEM) * 2,
        wrap(ITEM + "</item>"),
        wrap(ITEM).replace("workitem", "&nbsp;"),
        wrap(ITEM).replace("workitem", "a & b"),
        wrap(ITEM).replace("workitem", "\x08"),
        wrap(ITEM).replace("workitem", "\uffff"),
        wrap(ITEM).replace("workitem", "]]>"),
        wrap(ITEM).replace("xs:string", "<"),
        wrap(ITEM).replace(' xsi:type="xs:string"', ' xsi:type="a" xsi:type="b"'),
        wrap(ITEM).replace('"type"', '"\ufffe"'),
        f'<document a="1" a="2">{ITEM}</document>',
        f'<document a:b:="1">{ITEM}</document>',
        f' {DECLARATION}<document>{ITEM}</document>',
        f"<document>{HISTORY[:-7]}</document>",
        f"<document>{FILE.replace('</item> ', '')}</document>",
        "",
    ],
)  # fmt: skip
def test_the_rest_is_left(document: str) -> None:
    good = wrap(ITEM).encode()
    values, left = scanned([good, *[document.encode()] * MANY, good])
    assert left == list(range(1, MANY + 1))
    assert values == [[("type", "workitem")], *[[]] * MANY, [("type", "workitem")]]


@pytest.mark.parametrize(
    "text", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"]
)
def test_what_is_not_utf8_is_left(text: bytes) -> None:
    good = wrap(ITEM).encode()
    # The halves of one character, in two documents that follow each other, are none.
    documents = [good, good.replace(b"workitem", text), good + b"\xc3", b"\xa9" + good, good]
    values, left = scanned(documents)
    assert left == [1, 2, 3]
    assert values == [[("type", "workitem")], [], [], [], [("type", "workitem")]]


def test_a_large_document_is_left() -> None:
    good = wrap(ITEM).encode()
    large = good.replace(b"workitem", b"x" * (MAX_BYTES + 1 - len(good) + len("workitem")))
    assert len(large) == MAX_BYTES + 1
    values, left = scanned([good, large, large.replace(b"xx", b"x", 1), good])
    assert left == [1]
    assert [len(each) for each in values] == [1, 0, 1, 1]


def test_no_document_and_no_wanted_item() -> None:
    assert scanned([]) == ([], [])
    assert scanned([wrap("").encode()]) == ([[]], [])
    found = scan([wrap(ITEM).encode()] * 2, ())
    assert (len(found.value), found.left) == (0, [])


def test_few_nested_documents_are_left_and_many_are_not() -> None:
    nested = wrap(FILE).encode()
    assert scanned([nested] * (MANY - 1))[1] == list(range(MANY - 1))
    assert scanned([nested] * MANY)[1] == []


def test_values_of_values_end_somewhere() -> None:
    deep = wrap('<item name="x">' + "<value>" * 4 + "</value>" * 4 + "</item>").encode()
    assert len(scanned([deep] * MANY)[1]) == MANY


def test_documents_of_the_engine_itself() -> None:
    folder = Path(__file__).parents[3] / "shared" / "data" / "imixs" / "documents"
    texts = [path.read_bytes() for path in sorted(folder.glob("*.xml"))]
    if not texts:
        pytest.skip("the sample documents are not here")
    real = [each for text in texts for each in re.findall(rb"<document>.*?</document>", text, re.S)]
    values, left = scanned(real * MANY)
    assert left == []
    assert values[: len(real)] == [parsed(document) for document in real]


# ---- whatever happens to a good document: the scan leaves it, or reads what the parser reads

LINES = [log_line(minute, 1000, 10, 1100, "ann") for minute in range(2)]
ITEMS = snapshot(_eventlog=LINES, note='a & b < "c" – é', größe="")
GOOD = [
    xml_document(ITEMS),
    xml_document(ITEMS, "\n\t"),
    wrap(FILE + HISTORY + ITEM).encode(),
    f"<document>{ITEM}</document>".encode(),
]
SNIPPETS = [
    *(bytes([byte]) for byte in b"<>&\"'/= \n\r\t\0\x01\x1f\x7f\xc3\xa9\xff:;!?x."),
    b"\xef\xbf\xbe", b"\xef\xbf\xbf", b"\xef\xbf\xbd", b"\xef\xbb\xbf", b"\xed\xa0\x80",
    b"&amp;", b"&#13;", b"&#0;", b"&#xD;", b"&#xFFFE;", b"&nbsp;", b"&lt", b"]]>", b"text", b"<a/>",
    b"<!-- x -->", b"<![CDATA[</value>]]>", b"<?pi x?>", b"<!DOCTYPE d>", b'<?xml version="1.0"?>',
    b"<value/>", b'<value xsi:nil="true"/>', b"<value>", b"</value>", b'<item name="type"/>',
    b'<item name="type">', b"</item>", b"<document>", b"</document>", b' xsi:type="xs:int"',
    b' xmlns:xsi="u"', b' name="type"', b' xsi:nil="true"', b' xsi:nil="false"',
    f' xmlns:xs="{SCHEMA}"'.encode(),
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    document = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(document)))
        if draw(st.booleans()):  # near a tag, where it matters
            marks = [i for i, byte in enumerate(document) if byte in b'<>"=']
            at = draw(st.sampled_from(marks)) + draw(st.integers(0, 1))
        end = at + draw(st.integers(1, 60))
        kind = draw(st.sampled_from(["insert", "insert", "flip", "delete", "double"]))
        if kind == "insert":
            document[at:at] = draw(st.sampled_from(SNIPPETS))
        elif kind == "flip":
            document[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "delete":
            del document[at : draw(st.sampled_from([at + 1, end]))]
        else:
            document[at:at] = document[at:end]
    return bytes(document)


@settings(max_examples=150, deadline=None)
@given(st.lists(damaged(), min_size=1, max_size=6))
def test_a_damaged_document_is_left_or_read_as_by_the_parser(documents: list[bytes]) -> None:
    values, left = scanned(documents * MANY)
    expected = [parsed(document) for document in documents] * MANY
    for number, (found, wanted) in enumerate(zip(values, expected, strict=True)):
        assert found == ([] if number in left else wanted)
    picked = pick(documents * MANY, NAMES)
    assert set(picked.problems) == {n for n, wanted in enumerate(expected) if wanted is None}
    assert len(picked.value) == sum(len(wanted or []) for wanted in expected)
