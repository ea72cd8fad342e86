"""Imixs XML: cutting, picking, encodings, broken and hostile input."""

from __future__ import annotations

import encodings.aliases
import gzip
import io
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from schemas.dead_letters import MAX_PAYLOAD
from tests.formats.imixs_builder import (
    NAMESPACES,
    Generated,
    decode,
    errors,
    file_of,
    gzip_file,
    log_line,
    read,
    rows,
    snapshot,
    xml_data,
    xml_document,
    xml_items,
)
from transforms.formats import registry
from transforms.formats.base import (
    Context,
    Decoded,
    Message,
)
from transforms.formats.imixs_input import BATCH_DOCUMENTS, Unread
from transforms.formats.imixs_xml import FORMAT, pick
from transforms.formats.imixs_xml_cut import cut_collection, read_head, without_files

LINE = log_line(0, 1000, 10, 1100, "ann")
GOOD = snapshot(_eventlog=LINE)
SMALL = Context(max_message_bytes=10_000)


def cases(decoded: Decoded | list[Decoded]) -> list[str]:
    return [row["case_id"] for row in rows(decoded)]


def totals(batches: list[Decoded]) -> tuple[int, int, int]:
    return (
        sum(b.decoded for b in batches),
        sum(b.skipped for b in batches),
        sum(b.dead for b in batches),
    )


def numbered(n: int) -> list[dict[str, Any]]:
    return [snapshot(_uniqueid=f"case-{i}", _eventlog=LINE) for i in range(n)]


# ---- detection


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (xml_document(GOOD), True),
        (xml_data([GOOD]), True),
        (b"\xef\xbb\xbf" + xml_document(GOOD), True),
        (b"<!-- <log> --><?x y?>\n<document><item name='a'/></document>", True),
        (b'<i:data xmlns:i="u"><i:document><i:item name="a"/></i:document></i:data>', True),
        (
            '<?xml version="1.0" encoding="UTF-16"?><document><item name="a"/>'.encode("utf-16"),
            True,
        ),
        (b"<document><title/></document>", False),
        (b"<data/>", False),
        (b"<log><trace/></log>", False),
        (b"<!-- <document><item> --><log/>", False),
        (b"<documents><item/></documents>", False),
        (b'{"item":[]}', False),
        (b"", False),
        (b"\x00\x01\xff", False),
        (b"<?xml version='1.0' encoding='nonsense'?><document><item/>", False),
    ],
)
def test_detection(head: bytes, found: bool) -> None:
    assert FORMAT.detects(head, "any.txt") is found


# ---- collections


def test_a_collection_is_many_messages() -> None:
    data = xml_data([GOOD, snapshot(_uniqueid="b", _eventlog=LINE), snapshot(type="config")])
    decoded = decode(FORMAT, data, xml_document(GOOD))
    assert (decoded.decoded, decoded.skipped, decoded.dead) == (3, 1, 0)
    assert cases(decoded) == ["case-1", "b", "case-1"]
    (of_file,) = read(FORMAT, file_of(data, "x.xml"))
    assert [(row["source"], row["source_offset"]) for row in rows(of_file)] == [
        ("x.xml", 0), ("x.xml", 1)]  # fmt: skip


@pytest.mark.parametrize(
    "between",
    [
        "<!-- </document> -->",
        "<?x </document> ?>",
        "<i:note/>",
        "",
    ],
)
def test_what_looks_like_a_boundary_is_none(between: str) -> None:
    document = f"<document>{xml_items(GOOD)}{between}</document>"
    cdata = (
        "<document><item name='x'><value><![CDATA[</document></data>]]></value></item></document>"
    )
    data = f"<!-- a --><data {NAMESPACES}><!-- <document> -->{document}{cdata}{document} </data> "
    batches = read(FORMAT, file_of(data.encode()))
    assert totals(batches) == (2, 0, 1)
    assert errors(batches[0]) == ["MissingCaseId"]


def test_prefixes_and_spaces_in_tags() -> None:
    items = xml_items(GOOD).replace("<item", "<i:item").replace("</item", "</i:item")
    items = items.replace("<value", "<i:value").replace("</value", "</i:value")
    document = f"<i:document\n>{items}</i:document >"
    data = f'<i:data xmlns:i="urn:x" {NAMESPACES}>{document}<i:document/>{document}</i:data>'
    batches = read(FORMAT, file_of(data.encode()))
    assert totals(batches) == (2, 0, 1)


def test_an_undeclared_prefix_does_not_matter() -> None:
    bare = f"<document>{xml_items(GOOD)}</document>".encode()
    assert cases(decode(FORMAT, bare, bare.replace(b"</item>", b"</item><!-- -->"))) == [
        "case-1"] * 2  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_chunks_may_end_anywhere(chunk: int) -> None:
    documents = [xml_items(items) for items in numbered(4)]
    inner = "".join(f"<document>{text}<!-- - </document> --></document>\n" for text in documents)
    data = f"<?xml version='1.0'?><!--x--><data {NAMESPACES}>{inner}<document/></data>".encode()
    parts = (data[i : i + chunk] for i in range(0, len(data), chunk))
    batches = read(FORMAT, file_of(data, stream=Generated(parts)))
    assert cases(batches) == [f"case-{i}" for i in range(4)]
    assert totals(batches) == (4, 0, 1)


def test_many_documents_fill_several_batches() -> None:
    n = BATCH_DOCUMENTS + 10
    batches = read(FORMAT, file_of(xml_data(numbered(n))))
    assert [batch.decoded for batch in batches] == [BATCH_DOCUMENTS, 10]
    assert cases(batches) == [f"case-{i}" for i in range(n)]


def test_small_files_share_a_batch() -> None:
    files = [file_of(xml_document(items), f"{i}") for i, items in enumerate(numbered(20))]
    (batch,) = read(FORMAT, *files)
    assert batch.decoded == 20


@pytest.mark.parametrize(
    ("data", "expected", "error"),
    [
        # a break within a document
        (xml_data(numbered(3)).replace(b"case-1</value>", b"case-1</valu>"), ["case-0", "case-2"],
         "InvalidXml"),
        # a break between documents: the rest is one dead message
        (xml_data(numbered(3)).replace(b"</document>", b"</document> text", 1), ["case-0"],
         "InvalidXml"),
        (xml_data(numbered(3)).replace(b"</data>", b""), [f"case-{i}" for i in range(3)],
         "InvalidXml"),
        (xml_data(numbered(3))[:-40], ["case-0", "case-1"], "InvalidXml"),
        (xml_data(numbered(2)) + b"<data/>", ["case-0", "case-1"], "InvalidXml"),
        (b"<data a=><document/></data>", [], "InvalidXml"),
        (b"<data><!-- ", [], "InvalidXml"),
        (b"<data><document><!-- </document></data>", [], "InvalidXml"),
    ],
)  # fmt: skip
def test_a_broken_collection(data: bytes, expected: list[str], error: str) -> None:
    batches = read(FORMAT, file_of(data))
    assert cases(batches) == expected
    assert [error] == [failure.error for batch in batches for failure in batch.failures]
    message = decode(FORMAT, data)
    assert (cases(message), errors(message)) == (expected, [error])


def test_an_empty_collection_is_warned_of() -> None:
    for data in (b"<data/>", b"<data>\n</data>"):
        (batch,) = read(FORMAT, file_of(data, "none.xml"))
        assert batch.events.num_rows == 0
        assert len(batch.warnings) == 1


# ---- truncated and large files


class Damaged(io.RawIOBase):
    """A stream that fails after some bytes."""

    def __init__(self, data: bytes, error: Exception) -> None:
        super().__init__()
        self._data: bytes | None = data
        self._error = error

    def read(self, size: int = -1) -> bytes:
        """Return everything once, then fail."""
        if self._data is None:
            raise self._error
        data, self._data = self._data, None
        return data


def test_a_truncated_gzip_keeps_what_came_before() -> None:
    data = xml_data(numbered(3000))
    packed = gzip.compress(data, 1)
    part = packed[: len(packed) // 2]
    batches = read(FORMAT, gzip_file(part))
    found = cases(batches)
    assert 1000 < len(found) < 2000
    assert found == [f"case-{i}" for i in range(len(found))]
    (failure,) = [failure for batch in batches for failure in batch.failures]
    assert failure.error == "TruncatedFile"
    assert failure.payload.startswith(b"<document>")


@pytest.mark.parametrize("error", [EOFError("end"), OSError("gone"), gzip.BadGzipFile("crc")])
def test_a_document_whose_file_cannot_be_read_to_its_end(error: Exception) -> None:
    whole = xml_document(GOOD)
    damaged = file_of(b"", size=-1, stream=Damaged(whole[:200], error))
    (batch,) = read(FORMAT, damaged, file_of(whole))
    assert errors(batch) == ["TruncatedFile"]
    assert batch.failures[0].payload == whole[:200]
    assert batch.decoded == 1


def test_a_file_that_cannot_be_read_at_all() -> None:
    fails = Damaged(b"", OSError("disk"))
    fails.read()
    (batch,) = read(FORMAT, file_of(b"", size=5, stream=fails))
    assert errors(batch) == ["TruncatedFile"]
    assert "disk" in batch.failures[0].message


def huge(before: bytes, after: bytes, blocks: int = 200) -> Iterator[bytes]:
    yield before
    for _ in range(blocks):
        yield b"x" * (1 << 20)
    yield after


def test_a_200_mb_document_is_one_dead_letter_and_is_not_read() -> None:
    head = f'<document {NAMESPACES}><item name="$file"><value>'.encode()
    for size, at_most in ((200 << 20, 2 << 20), (-1, 66 << 20)):
        stream = Generated(huge(head, b"</value></item></document>"))
        (batch,) = read(FORMAT, file_of(b"", size=size, stream=stream), file_of(xml_document(GOOD)))
        assert stream.given <= at_most
        (failure,) = batch.failures
        assert failure.error == "TooLarge"
        assert failure.payload == head.removesuffix(b"<value>")
        assert cases(batch) == ["case-1"]


def test_a_200_mb_document_in_a_collection_hides_no_other() -> None:
    first = xml_data(numbered(1)).removesuffix(b"\n</data>") + b'<document><item name="a"><value>'
    last = b"</value></item></document>" + xml_document(GOOD).partition(b"?>")[2] + b"</data>"
    batches = read(FORMAT, file_of(b"", size=-1, stream=Generated(huge(first, last))))
    assert cases(batches) == ["case-0", "case-1"]
    (failure,) = [failure for batch in batches for failure in batch.failures]
    assert failure.error == "TooLarge"
    assert failure.size is not None
    assert abs(failure.size - (200 << 20)) < 100
    assert len(failure.payload) == MAX_PAYLOAD


def test_the_largest_document_is_read() -> None:
    document = xml_document(GOOD)
    for limit, expected in ((len(document), []), (len(document) - 1, ["TooLarge"])):
        context = Context(max_message_bytes=limit)
        assert errors(decode(FORMAT, document, context=context)) == expected
        for compressed in (False, True):
            file = file_of(document, compressed=compressed)
            (batch,) = read(FORMAT, file, context=context)
            assert errors(batch) == expected


# ---- encodings


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16", "ISO-8859-1", "windows-1252", "UTF-32"])
@pytest.mark.parametrize("collection", [False, True])
def test_declared_encodings(encoding: str, collection: bool) -> None:
    line = log_line(0, 1000, 10, 1100, "Jürgen")
    inner = f"<document {NAMESPACES}>{xml_items(snapshot(_eventlog=line))}</document>"
    inner = f"<data>{inner}{inner}</data>" if collection else inner
    data = f'<?xml version="1.0" encoding="{encoding}"?>\n{inner}'.encode(encoding)
    (batch,) = read(FORMAT, file_of(data))
    assert [row["actor"] for row in rows(batch)] == ["Jürgen"] * (1 + collection)
    assert errors(batch) == []
    assert cases(decode(FORMAT, data)) == ["case-1"] * (1 + collection)


def test_wrong_encodings() -> None:
    document = xml_document(snapshot(_eventlog=log_line(0, 1, 2, 3, "Jürgen")))
    latin = document.decode().encode("latin-1")
    unknown = document.replace(b"UTF-8", b"x-none")
    decoded = decode(FORMAT, latin, unknown, xml_document(GOOD))
    assert errors(decoded) == ["InvalidXml", "InvalidXml"]
    assert cases(decoded) == ["case-1"]
    data = xml_data(numbered(2)).replace(b"UTF-8", b"UTF-16").decode().encode("utf-16")
    assert errors(decode(FORMAT, data[:-1])) == ["InvalidXml"]


ENCODINGS = sorted(
    {*encodings.aliases.aliases.values(), "idna", "punycode", "undefined", "unicode_escape"}
)


@pytest.mark.parametrize("collection", [False, True])
def test_no_encoding_that_python_knows_ends_a_run(collection: bool) -> None:
    """Some are none of text, some refuse to leave anything out, some need a mark."""
    good = xml_data(numbered(2)) if collection else xml_document(GOOD)
    strange = good.replace(b"</document>", b"\xe9</document>")
    for name in ENCODINGS:
        data = strange.replace(b"UTF-8", name.encode())
        assert read_head(data).root in (None, "data", "document")
        decoded = decode(FORMAT, data, xml_document(GOOD))
        assert decoded.received == decoded.decoded + decoded.dead + decoded.skipped
        assert cases(decoded)[-1] == "case-1"
        registry.detect(data, "")


def test_a_dead_document_keeps_what_a_replay_needs() -> None:
    no_zone = xml_document(snapshot(_uniqueid=None, _lasteventdate="2024-08-27T10:00:00"))
    context = Context(timezone="Europe/Berlin", encoding="latin-1", time_format="s")
    wanted = {"format": "imixs_xml", "timezone": "Europe/Berlin"}
    message = Message(no_zone, "t/0", 7, {"a": "b", "format": "csv"}, 5)
    (failure,) = FORMAT.decode([message], context).failures
    assert failure.attributes == {"a": "b", **wanted}
    (batch,) = read(FORMAT, file_of(no_zone), file_of(no_zone[:50]), context=context)
    assert [each.attributes for each in batch.failures] == [wanted] * 2
    long = xml_document(snapshot(_eventlog=None, _lasteventdate="x" * 10_000))
    (failure,) = decode(FORMAT, long).failures
    assert len(failure.message) == 500


# ---- hostile input

LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE document [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
    + "]><document><item name='$uniqueid'><value>&j;</value></item></document>"
).encode()


@pytest.mark.parametrize(
    "document",
    [
        LAUGHS,
        b'<!DOCTYPE document [<!ENTITY x SYSTEM "file:///etc/hostname">]><document>&x;</document>',
        b'<!DOCTYPE document SYSTEM "http://localhost:1/x.dtd"><document/>',
        b"<!DOCTYPE document><document/>",
        b'<!DOCTYPE data [<!ENTITY x "y">]><data><document>&x;</document></data>',
    ],
)
def test_a_document_type_is_refused(document: bytes) -> None:
    (batch,) = read(FORMAT, file_of(document), file_of(xml_document(GOOD)))
    assert errors(batch) == ["ForbiddenDtd"]
    assert cases(batch) == ["case-1"]
    assert errors(decode(FORMAT, document)) == ["ForbiddenDtd"]


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (b"<document>&undefined;</document>", "InvalidXml"),
        (b"<document>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</document>", "InvalidXml"),
        (b"<document><item name='a'>", "InvalidXml"),
        (b"<document/><document/>", "InvalidXml"),
        (b"<document>\x01</document>", "InvalidXml"),
        (b"no markup", "InvalidXml"),
        (b"<log/>", "InvalidDocument"),
        (b"<document/>", "MissingCaseId"),
    ],
)
def test_other_input_is_dead(document: bytes, error: str) -> None:
    decoded = decode(FORMAT, document, xml_document(GOOD))
    assert errors(decoded) == [error]
    assert "\n" not in decoded.failures[0].message
    assert cases(decoded) == ["case-1"]


@pytest.mark.parametrize("tail", [b"</data>", b" " * 10_000 + b"</data>"])
def test_a_document_may_end_in_a_last_chunk_that_is_shorter_than_its_start(tail: bytes) -> None:
    document = b"<document>" + b"<!-- x -->" * 15_000 + b"</document>"
    data = b"<data>" + document + tail
    chunks = iter([data[100_000:]])
    assert list(cut_collection(data[:100_000], chunks, read_head(data), 10**6)) == [document]


# ---- cutting: the quick way cuts what the careful one does

PIECES = [
    b"<document>a</document>", b"<document>a</document>\n", b"<document>?</document> ",
    b"<document>a document!</document>", b"<document/>", b"<document a='1'>b</document>",
    b"<document><document>a</document></document>", b"<document>a</document >",
    b"<document><!-- </document> --></document>", b"<document><![CDATA[</document>]]></document>",
    b"<document><?x </document> ?></document>", b"<i:document>a</i:document>",
    b"<document>" + b"y" * 90 + b"</document>", b"<!-- <document> -->", b"<?pi?>", b"text",
    b"<document></documents></document>", b"<document>", b"</document>", b"</data>", b"<other/>",
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 2 * len(PIECES)), max_size=9),
    st.sampled_from([b"</data>", b"</data>\n", b"", b"</data>x"]),
    st.sampled_from([1, 5, 64, 10_000]),
)
def test_the_quick_cut_is_the_careful_one(numbers: list[int], tail: bytes, chunk: int) -> None:
    # The first piece, which both cut alike, comes most often.
    data = b"<data>" + b"".join(PIECES[n % len(PIECES) if n < 30 else 0] for n in numbers) + tail

    def cut() -> list[Any]:
        chunks = (data[i : i + chunk] for i in range(chunk, len(data), chunk))
        parts = cut_collection(data[:chunk], chunks, read_head(data), 80)
        # How much of what is too large was in sight depends on the chunks.
        return [(part.problem, part.size) if isinstance(part, Unread) else part for part in parts]

    quick = cut()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transforms.formats.imixs_xml_cut._PLAIN_START", b"no such tag")
        assert cut() == quick


# ---- file contents

NESTED = (
    '<item name="$file"><value xsi:type="xmlItemArray"><item name="offer.pdf">'
    '<value xsi:type="xs:base64Binary">U0VDUkVU</value></item></value></item>'
)


@pytest.mark.parametrize(
    "text",
    [
        "<document>{0}<item name='z'><value>kept</value></item></document>",
        "<document>{0}<item name='z'><value>kept</value></item>{0}",
        "<document><item name='z'><value>kept</value></item>" + NESTED[:-20],
        "<document><item name='z'><value>kept</value></item><item a='b' name = '$FILE' ><value>"
        "SECRET U0VDUkVU",
        "<x:document><x:item name='&#36;file'><x:value>U0VDUkVU</x:value></x:item>kept",
        "<document><item name='$file'/>kept",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le"])
def test_file_contents_leave_with_no_dead_letter(text: str, encoding: str) -> None:
    if encoding == "utf-16-le":
        text = '<?xml version="1.0"?>' + text
    kept = without_files(text.format(NESTED).encode(encoding)).decode(encoding)
    assert "U0VDUkVU" not in kept
    assert "kept" in kept


def test_file_contents_of_a_dead_document() -> None:
    document = xml_document(snapshot(_uniqueid=None))
    items = NESTED.encode().replace(b"U0VDUkVU", b"U0VDUkVU" * 20_000)
    document = document.replace(b"</document>", items + b"</document>")
    (failure,) = decode(FORMAT, document).failures
    assert b"U0VD" not in failure.payload
    assert failure.payload.endswith(b"</document>")
    # Of what is kept: a payload that is smaller was cut, and is not replayed.
    assert failure.size == len(failure.payload)


def test_a_payload_is_cut() -> None:
    document = xml_document(snapshot(_uniqueid=None, text="y" * 200_000))
    (failure,) = decode(FORMAT, document).failures
    assert len(failure.payload) == MAX_PAYLOAD


# ---- picking: both ways give what a tree gives

NAMES = ("$uniqueid", "$eventlog", "type", "größe")
OTHER = ("x", "$file", "TYPE", "$EventLog", "a&b")
special = st.sampled_from(
    ["&", "<", ">", '"', "'", "]]>", "</value>", "\r", "\n", "\t", " ", "&#36;", "é", "|", "$", "a"]
)
text_values = st.lists(special, max_size=5).map("".join)
plain_values = text_values.map(
    lambda text: text.replace("&", "&amp;").replace("<", "&lt;").replace("]]>", "]]&gt;")
)
attributes = st.sampled_from(
    ["", ' xsi:type="xs:string"', ' xsi:nil="true"', ' xsi:nil="false"', " xsi:type='xs:int'",
     ' xmlns:xs="u" xsi:type="xs:int"', ' note="a>b"', ' note="/>"']
)  # fmt: skip


@st.composite
def value_markup(draw: st.DrawFn, depth: int = 0) -> str:
    blank = draw(st.sampled_from(["", "", "\n  "]))
    kind = draw(st.sampled_from(["text"] * 8 + ["cdata", "comment", "list", "map", "empty", "ref"]))
    attribute = draw(attributes)
    inner = draw(plain_values)
    if kind == "cdata":
        inner = f"<![CDATA[{draw(st.sampled_from(['</item>', '<item name=', 'a']))}]]>{inner}"
    elif kind == "comment":
        inner = f'a<!-- </item><item name="type"> -->{inner}'
    elif kind == "ref":
        inner = f"&#65;{inner}&#x24;"
    elif kind == "empty":
        return f"{blank}<value{attribute}/>"
    elif kind == "list" and depth < 2:
        inner = "".join(draw(st.lists(value_markup(depth + 1), max_size=2)))
    elif kind == "map" and depth < 2:
        inner = draw(item_markup(depth + 1))
    return f"{blank}<value{attribute}>{inner}</value{draw(st.sampled_from(['', '', ' ']))}>"


@st.composite
def item_markup(draw: st.DrawFn, depth: int = 0) -> str:
    blank = draw(st.sampled_from(["", "", "\n "]))
    name = draw(st.sampled_from(NAMES + OTHER)).replace("&", "&amp;")
    if draw(st.integers(0, 12)) == 0:
        name = name.replace("$", "&#36;")
    if draw(st.integers(0, 12)) == 0:
        return f'{blank}<item name="{name}"/>'
    quote = draw(st.sampled_from(['"'] * 8 + ["'"]))
    extra = draw(st.sampled_from([""] * 8 + [' more="1"', " "]))
    inner = "".join(draw(st.lists(value_markup(depth), max_size=3)))
    inner += draw(st.sampled_from([""] * 8 + ["text", "<b/>", "<?pi </item> ?>"]))
    return f"{blank}<item name={quote}{name}{quote}{extra}>{inner}{blank}</item>"


@st.composite
def document_markup(draw: st.DrawFn) -> bytes:
    inner = "".join(draw(st.lists(item_markup(), max_size=4)))
    inner += draw(st.sampled_from(["", "", "\n", "<!-- c -->", "text", "<other/>"]))
    tag = draw(st.sampled_from(["document"] * 6 + ["i:document"]))
    if tag != "document":
        inner = inner.replace("<item", "<i:item").replace("</item", "</i:item")
    return f'<{tag} xmlns:i="u" {NAMESPACES}>{inner}</{tag}>'.encode()


def local(element: Any) -> str:
    name = element.tag if isinstance(element.tag, str) else ""
    return str(etree.QName(name).localname) if name else ""


def leaves(element: Any) -> Iterator[str]:
    """Yield the values of an element as the format defines them, from a tree."""
    for child in element:
        elements = [inner for inner in child if isinstance(inner.tag, str)]
        nil = "{http://www.w3.org/2001/XMLSchema-instance}nil"
        if not isinstance(child.tag, str):
            continue
        if elements:
            yield from leaves(child)
        elif local(child) == "value" and child.get(nil) != "true":
            yield (child.text or "") + "".join(inner.tail or "" for inner in child)


def picked_from_tree(document: bytes) -> list[tuple[str, str]]:
    return [
        (item.get("name", "").lower(), value)
        for item in etree.fromstring(document)
        if local(item) == "item" and item.get("name", "").lower() in NAMES
        for value in leaves(item)
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(document_markup(), min_size=1, max_size=4))
def test_picking_is_what_a_tree_gives(documents: list[bytes]) -> None:
    expected = [picked_from_tree(document) for document in documents]
    # Few documents are parsed; of many, those of plain form are not.
    for times in (1, 20):
        assert picked_values(documents * times) == expected * times


def picked_values(documents: list[bytes]) -> list[list[tuple[str, str]]]:
    picked = pick(documents, NAMES)
    assert not picked.problems
    assert (np.diff(picked.document) >= 0).all()
    found: list[list[tuple[str, str]]] = [[] for _ in documents]
    for number, item, value in zip(
        picked.document, picked.item, picked.value.to_pylist(), strict=True
    ):
        found[number].append((NAMES[item], value))
    return found


@pytest.mark.parametrize(
    "items",
    [
        '<item name="x"/><item name="type"><value>a</value></item>',
        '<item name="x" y="1"/><item name="type"><value>a</value></item>',
        '<item name="x"><value><item name="type"><value>b</value></item></value></item>'
        '<item name="type"><value>a</value></item>',
        '<item name="&#116;ype"><value>a</value></item>',
        "<item name='x'><value>name=\"type\"</value></item>"
        '<item name="type"><value>a</value></item>',
        '<item name="type"><value note="&gt;>">a</value></item>',
        '<item name="type"><value xsi:nil="true">b</value><value>a</value></item>',
        '<item name="type"><value/><value>a</value></item>',
        '<other name="type"><value>b</value></other><item name="type"><value>a</value></item>',
        '<item name="type"><value>a</value>b</item>',
        '<item name="type"><value>\r\n&#65;</value></item>',
    ],
)
def test_odd_documents_are_picked_from_as_from_a_tree(items: str) -> None:
    document = f"<document {NAMESPACES}>{items}</document>".encode()
    expected = picked_from_tree(document)
    assert expected
    for times in (1, 20):
        assert picked_values([document] * times) == [expected] * times


def test_the_engines_own_documents_are_not_left_to_the_slow_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("a plain document was left to the parser's events")

    monkeypatch.setattr("transforms.formats.imixs_xml._parse", refuse)
    items = snapshot(_eventlog=[LINE, LINE], note='a & b < c > "d"', empty="")
    documents = [xml_document(items), xml_document(items, "\n\t"), xml_document({})]
    assert len(pick(documents * 2, NAMES).value) == 4 * (1 + 2 + 1)


def test_threads_may_share_the_format() -> None:
    documents = [xml_document(items) for items in numbered(300)]
    expected = decode(FORMAT, *documents).events
    results: list[bool] = []

    def run() -> None:
        results.extend(decode(FORMAT, *documents).events.equals(expected) for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 20
