"""Imixs JSON: dialects, collections, and JSON that is none."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.dead_letters import MAX_PAYLOAD
from tests.formats.imixs_builder import (
    Generated,
    Items,
    decode,
    errors,
    file_of,
    gzip_file,
    json_mapped,
    json_typed,
    log_line,
    read,
    rows,
    snapshot,
    to_json,
    values,
)
from transforms.formats.base import (
    Context,
    Decoded,
)
from transforms.formats.imixs_input import BATCH_DOCUMENTS
from transforms.formats.imixs_json import FORMAT, without_files
from transforms.formats.json_strict import InvalidJsonError, parse_json

LINE = log_line(0, 1000, 10, 1100, "ann")
GOOD = snapshot(_eventlog=LINE)
ONE = to_json(json_mapped(GOOD))


def cases(decoded: Decoded | list[Decoded]) -> list[str]:
    return [row["case_id"] for row in rows(decoded)]


def collection(n: int, key: str = "data") -> bytes:
    documents = [json_typed(snapshot(_uniqueid=f"case-{i}", _eventlog=LINE)) for i in range(n)]
    return to_json({key: documents})


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (ONE, True),
        (to_json(json_typed(GOOD)), True),
        (collection(2), True),
        (collection(2, "document")[:80], True),
        (b'\xef\xbb\xbf {"item" : [ {"value":[1],"name":"a"}]}', True),
        (to_json({"data": json_typed(GOOD)}), True),
        (to_json({"data": {"document": [json_typed(GOOD)]}}), True),
        (json.dumps(json_typed(GOOD)).encode("utf-16"), True),
        (b'{"item":[]}', False),
        (b'{"item":[{"id":1}]}', False),
        (b'{"data":[{"name":"x"}]}', False),
        (b'{"objectTypes":[]}', False),
        (b'[{"item":[{"name":"a"}]}]', False),
        (b"<document/>", False),
        (b"", False),
    ],
)
def test_detection(head: bytes, found: bool) -> None:
    assert FORMAT.detects(head, "any") is found


@pytest.mark.parametrize(
    "wrap",
    [
        lambda document: {"data": [document, document]},
        lambda document: {"document": [document, document]},
        lambda document: {"data": {"document": [document, document]}},
        lambda document: {"count": 2, "data": [document, document]},
        lambda document: {"data": [document, document], "page": {"next": None}},
    ],
)
def test_collections(wrap: Any) -> None:
    payload = to_json(wrap(json_typed(GOOD)))
    for text in (payload, json.dumps(json.loads(payload), indent=2).encode()):
        decoded = decode(FORMAT, text)
        (batch,) = read(FORMAT, file_of(text))
        assert cases(decoded) == cases(batch)
        assert set(cases(batch)) == {"case-1"}
        assert errors(decoded) == []


def test_the_documents_of_a_file_are_numbered() -> None:
    (batch,) = read(FORMAT, file_of(collection(3), "x.json"))
    assert [(row["source"], row["source_offset"]) for row in rows(batch)] == [
        ("x.json", 0), ("x.json", 1), ("x.json", 2)]  # fmt: skip
    (batch,) = read(FORMAT, file_of(b'{"data":[ ]}', "x.json"))
    assert batch.events.num_rows == 0
    assert len(batch.warnings) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1000, "1000"),
        ([1000], "1000"),
        (12.5, "12.5"),
        (True, "true"),
        ("a", "a"),
        ([], None),
        (None, None),
        ([None], None),
        ({"@type": "xs:int", "$": "7"}, "7"),
        ({"@type": "xs:int", "$": 7}, "7"),
        ({"@type": "xs:string"}, None),
        ([{"$": "a"}, {"$": "b"}], '["a","b"]'),
        ([["a", 1], ["b"]], '["a","1","b"]'),
        ([{"k": ["v"], "l": [1, 2]}], '["v","1","2"]'),
        ({"@type": "xmlItem", "value": [{"$": "x"}]}, "x"),
    ],
)
def test_values(value: Any, text: str | None) -> None:
    document = json_mapped(GOOD)
    document["item"].append({"name": "given", "value": value})
    decoded = decode(FORMAT, to_json(document), context=Context(items=("given",)))
    assert dict(rows(decoded)[0]["attributes"]) == ({} if text is None else {"given": text})


def test_numbers_serve_as_ids() -> None:
    items: Items = {"$uniqueid": "c", "$modified": "2013-10-07T22:18:55.483+0200", "$taskid": 1000}
    (row,) = rows(decode(FORMAT, to_json(json_mapped(items))))
    assert (row["state"], row["task"], row["event"], row["activity"]) == ("1000", 1000, 0, "0")


def test_an_item_alone_need_not_be_in_a_list() -> None:
    document = {"item": {"name": "$uniqueid", "value": "c"}}
    assert errors(decode(FORMAT, to_json(document))) == ["MissingTime"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"{", "InvalidJson"),
        (b"no json", "InvalidJson"),
        (ONE[:-1], "InvalidJson"),
        (ONE + b"}", "InvalidJson"),
        (ONE.replace(b'"value": [', b'"value": [1, ]', 1), "InvalidJson"),
        (ONE.replace(b'"case-1"', b'"case "one""'), "InvalidJson"),
        (ONE.replace(b'"case-1"', b'"case\n1"'), "InvalidJson"),
        (ONE.replace(b'"value"', b'"value": 1, "value"', 1), "InvalidJson"),
        (ONE.replace(b"case-1", b"\xff"), "InvalidJson"),
        (ONE.replace(b'"case-1"', b"NaN"), "InvalidJson"),
        (b'{"item":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "InvalidJson"),
        (b'{"data":[' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"]}", "InvalidJson"),
        (b"[]", "InvalidDocument"),
        (b"1", "InvalidDocument"),
        (b"{}", "InvalidDocument"),
        (b'{"item":[1]}', "InvalidDocument"),
        (b'{"item":[{"value":1}]}', "InvalidDocument"),
        (b'{"data":[{}]}', "InvalidDocument"),
        (b'{"item":[]}', "MissingCaseId"),
    ],
)
def test_other_input_is_dead(text: bytes, error: str) -> None:
    decoded = decode(FORMAT, text, ONE)
    assert errors(decoded) == [error]
    assert cases(decoded) == ["case-1"]
    (batch,) = read(FORMAT, file_of(text), file_of(ONE))
    assert errors(batch) == [error]


keys = st.sampled_from(["a", "b", "value", '":', 'x":y'])
json_values = st.recursive(
    st.one_of(st.none(), st.integers(0, 9), keys),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=12,
)


@settings(deadline=None)
@given(json_values)
def test_json_without_repeated_keys_is_read(value: Any) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, indent=1).encode()) == value


@settings(deadline=None)
@given(st.lists(st.tuples(keys, json_values), min_size=1, max_size=4), json_values)
def test_a_repeated_key_is_invalid(members: list[tuple[str, Any]], around: Any) -> None:
    members = [*members, members[0]]
    written = ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in members)
    text = f'[{json.dumps(around)},{{"in":{{{written}}}}}]'
    with pytest.raises(InvalidJsonError, match="given twice"):
        parse_json(text.encode())


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (collection(3)[:-40], 2),
        (collection(3)[:-1], 3),
        (collection(3)[:-2] + b",]}", 3),
        (collection(3) + b"x", 3),
        (collection(3).replace(b'"case-1"', b'"case "1""'), 1),
        (collection(3)[:-2] + b",7]}", 3),
    ],
)
def test_a_broken_collection_keeps_what_came_before(text: bytes, kept: int) -> None:
    (batch,) = read(FORMAT, file_of(text))
    assert cases(batch) == [f"case-{i}" for i in range(kept)]
    assert errors(batch) == ["InvalidJson"]
    assert errors(decode(FORMAT, text)) == ["InvalidJson"]


def test_a_repeated_key_kills_its_document_alone() -> None:
    text = collection(3).replace(b'"name": "type"', b'"name": "type", "name": "type"', 1)
    (batch,) = read(FORMAT, file_of(text))
    assert cases(batch) == ["case-1", "case-2"]
    assert "'name' is given twice" in batch.failures[0].message


def test_a_truncated_gzip_keeps_what_came_before() -> None:
    packed = gzip.compress(collection(3000), 1)
    part = packed[: len(packed) // 2]
    batches = read(FORMAT, gzip_file(part))
    found = cases(batches)
    assert 1000 < len(found) < 2000
    (failure,) = [failure for batch in batches for failure in batch.failures]
    assert failure.error == "TruncatedFile"


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_chunks_may_end_anywhere(chunk: int) -> None:
    data = collection(4).replace(b"ann", "Änn".encode())
    parts = (data[i : i + chunk] for i in range(0, len(data), chunk))
    (batch,) = read(FORMAT, file_of(data, stream=Generated(parts)))
    assert [row["actor"] for row in rows(batch)] == ["Änn"] * 4


def test_a_collection_larger_than_a_message_streams() -> None:
    documents = [to_json(json_typed(GOOD)) + b"," for _ in range(BATCH_DOCUMENTS + 5)]
    documents[-1] = documents[-1][:-1]
    stream = Generated(iter([b'{"data":[', *documents, b"]}"]))
    context = Context(max_message_bytes=5000)
    batches = read(FORMAT, file_of(b"", size=-1, stream=stream), context=context)
    assert [batch.decoded for batch in batches] == [BATCH_DOCUMENTS, 5]


def test_a_200_mb_document_is_one_dead_letter_and_is_not_read() -> None:
    def parts() -> Iterator[bytes]:
        yield b'{"item":[{"name":"$file","value":"'
        for _ in range(200):
            yield b"x" * (1 << 20)

    for size, at_most in ((200 << 20, 2 << 20), (-1, 66 << 20)):
        stream = Generated(parts())
        (batch,) = read(FORMAT, file_of(b"", size=size, stream=stream), file_of(ONE))
        assert stream.given <= at_most
        (failure,) = batch.failures
        assert failure.error == "TooLarge"
        assert failure.payload == b'{"item":[{"name":"$file"}'
        assert cases(batch) == ["case-1"]


def test_a_large_document_in_a_collection() -> None:
    big = json_typed(snapshot(_uniqueid="big", note="y" * 9000))
    text = to_json({"data": [json_typed(GOOD), big, json_typed(GOOD)]})
    (batch,) = read(FORMAT, file_of(text), context=Context(max_message_bytes=5000))
    assert errors(batch) == ["TooLarge"]
    assert cases(batch) == ["case-1", "case-1"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_unicode_encodings_are_seen(encoding: str) -> None:
    items = snapshot(_eventlog=log_line(0, 1000, 10, 1100, "Jürgen"))
    for value in (json_typed(items), {"data": [json_typed(items)]}):
        text = json.dumps(value, ensure_ascii=False).encode(encoding)
        assert [row["actor"] for row in rows(decode(FORMAT, text))] == ["Jürgen"]


def test_the_encoding_given_counts() -> None:
    items = snapshot(_eventlog=log_line(0, 1000, 10, 1100, "Jürgen"))
    for value in (json_typed(items), {"data": [json_typed(items)]}):
        text = json.dumps(value, ensure_ascii=False).encode("latin-1")
        decoded = decode(FORMAT, text, context=Context(encoding="latin-1"))
        assert [row["actor"] for row in rows(decoded)] == ["Jürgen"]
        assert errors(decode(FORMAT, text)) == ["InvalidJson"]


FILE = {"name": "$file", "value": [{"offer.pdf": ["U0VDUkVU", {"a": "}"}]}]}


@pytest.mark.parametrize(
    "text",
    [
        to_json({"item": [FILE, {"name": "kept", "value": "x"}]}),
        to_json({"item": [dict(reversed(FILE.items())), {"name": "kept", "value": "x"}]}),
        to_json({"item": [{"name": "kept", "value": 'q"{'}, FILE, FILE]})[:-2],
        to_json({"item": [{"name": "kept", "value": 'q"{'}, FILE]})[:-12],
        b'{"item":[{"name":"kept"}}}, {"value":["U0VDUkVU"], "name" : "$FILE", "x": "U0VDUkVU',
    ],
)
def test_file_contents_leave_with_no_dead_letter(text: bytes) -> None:
    cleaned = without_files(text)
    assert b"U0VD" not in cleaned
    assert b"kept" in cleaned


def test_file_contents_of_a_dead_document() -> None:
    document = json_mapped({name: value for name, value in GOOD.items() if name != "$uniqueid"})
    document["item"].insert(0, {"name": "$file", "value": ["U0VDUkVU" * 20_000]})
    (failure,) = decode(FORMAT, to_json(document)).failures
    assert failure.error == "MissingCaseId"
    assert json.loads(failure.payload)["item"][1]["name"] == "$modelversion"
    assert len(failure.payload) < MAX_PAYLOAD


def test_values_of_the_builder() -> None:
    assert values([1]) == values(1) == [1]
