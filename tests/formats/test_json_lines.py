"""JSON Lines: every good line comes out, every bad one is one dead letter, however it is cut."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
from typing import Any, BinaryIO, cast
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.files import memory_file, read_all, rows
from transforms.formats import json_columns, json_lines
from transforms.formats.base import Context, Message, Span
from transforms.formats.json_lines import FORMAT

GOOD = {"case_id": "c1", "activity": "send", "event_time": "2024-08-27T12:04:20Z"}


def line(**values: Any) -> bytes:
    return json.dumps({**GOOD, **values}).encode()


def error_of(data: bytes, context: Context | None = None) -> list[tuple[bytes, str]]:
    return [(f.payload, f.error) for f in read_all(FORMAT, data, context).failures]


def test_a_line_is_an_event_with_its_byte_offset() -> None:
    first, second = line(resource="kim"), line(activity="pay", state="paid")
    found = read_all(FORMAT, first + b"\n\n" + second + b"\n")
    assert rows(found.events, "case_id", "activity", "state", "actor", "position") == [
        ("c1", "send", "send", "kim", 0),
        ("c1", "pay", "paid", None, len(first) + 2),
    ]
    assert found.events.column("source").to_pylist() == ["memory/log"] * 2
    assert found.events.column("source_offset").to_pylist() == [0, len(first) + 2]
    assert (found.decoded, found.skipped, found.dead) == (2, 1, 0)
    assert len(set(found.events.column("event_id").to_pylist())) == 2


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (b"nonsense", "InvalidJson"),
        (b'{"case_id": "c1"', "InvalidJson"),
        (b"[1, 2]", "InvalidJson"),
        (b"null", "InvalidJson"),
        (b"17", "InvalidJson"),
        (line() + line(), "InvalidJson"),
        (line() + b" null " + line(), "InvalidJson"),
        (line()[:-1] + b",}", "InvalidJson"),
        (line() + b"\x00", "InvalidJson"),
        (b'{"case_id": "\xff", "activity": "a", "event_time": "2024-08-27"}', "InvalidEncoding"),
        (b'{"case_id": "\\ud800", "activity": "a", "event_time": "2024-08-27"}', "InvalidJson"),
        (line(unused="\xe4").decode().encode("utf-16"), "InvalidEncoding"),
        (line(case_id=None), "MissingCaseId"),
        (line(case_id=""), "MissingCaseId"),
        (line(event_time=None), "MissingTime"),
        (line(event_time=""), "MissingTime"),
        (line(event_time="yesterday"), "BadTime"),
        (line(event_time=True), "BadTime"),
        (line(start_time="x"), "BadTime"),
        (line(activity=None), "MissingActivity"),
        (line(task="many"), "BadValue"),
        (line(task=2**40), "BadValue"),
    ],
)
def test_a_bad_line_is_a_dead_letter(bad: bytes, error: str) -> None:
    good = [line(case_id=f"c{i}", start_time=GOOD["event_time"], task=1) for i in range(300)]
    bad = bad.replace(b"\n", b"")
    data = b"\n".join([*good[:150], bad, *good[150:]])
    found = read_all(FORMAT, data, Context(columns={"task": "task"}))
    assert [(f.payload, f.error) for f in found.failures] == [(bad, error)]
    assert found.failures[0].source == f"memory/log:{sum(len(g) + 1 for g in good[:150])}"
    assert found.failures[0].attributes == {"format": "json_lines", "columns": "task=task"}
    assert found.events.column("case_id").to_pylist() == [f"c{i}" for i in range(300)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"5", "5"),
        (b"123456789012345678901234567890", "123456789012345678901234567890"),
        (b"-3", "-3"),
        (b"1.50", "1.50"),
        (b"true", "true"),
        (b'"x \\"y\\" \\u00e4"', 'x "y" ä'),
        (b'[1, 2.50, {"a": null}]', '[1,2.50,{"a":null}]'),
        (b"NaN", None),
        (b"null", None),
    ],
)
@pytest.mark.parametrize("others", [0, 300])
def test_values_keep_their_text(value: bytes, text: str | None, others: int) -> None:
    good = line()[:-1] + b', "amount": ' + value + b"}"
    data = b"\n".join([good] * (others + 1))
    found = read_all(FORMAT, data, Context(items=("amount", "nothing")))
    expected = [] if text is None else [("amount", text)]
    assert not found.failures
    assert found.events.column("attributes").to_pylist() == [expected] * (others + 1)


def test_case_ids_may_be_numbers_of_any_size() -> None:
    big = 2**90
    data = b"\n".join(line(case_id=i) for i in (1, 2**63 - 1, big))
    found = read_all(FORMAT, data)
    assert found.events.column("case_id").to_pylist() == ["1", str(2**63 - 1), str(big)]


def test_of_two_values_of_a_key_the_last_counts() -> None:
    twice = line()[:-1] + b', "activity": "last"}'
    found = read_all(FORMAT, b"\n".join([line()] * 200 + [twice]))
    assert found.events.column("activity").to_pylist() == ["send"] * 200 + ["last"]


def test_byte_order_mark_crlf_and_no_last_newline() -> None:
    data = b"\xef\xbb\xbf" + line() + b"\r\n" + line(case_id="c2")
    found = read_all(FORMAT, data)
    assert rows(found.events, "case_id", "position") == [("c1", 0), ("c2", len(line()) + 5)]


def test_columns_by_path_and_epoch_times() -> None:
    context = Context(
        columns={"case_id": "payload.case.id", "event_time": "payload.at", "activity": "what"},
        items=("payload.case.kind",),
    )
    one = {"what": "a", "payload": {"at": 1724760260469, "case": {"id": 7, "kind": "x"}}}
    no_case = {"what": "a", "payload": {"at": 1724760260469, "case": None}}
    text = {"what": "a", "payload": "text"}
    lines = [json.dumps(v).encode() for v in [one] * 200 + [no_case, text]]
    found = read_all(FORMAT, b"\n".join(lines), context)
    assert rows(found.events.slice(0, 1), "case_id", "attributes") == [
        ("7", [("payload.case.kind", "x")])
    ]
    assert found.events.column("event_time")[0].as_py().isoformat() == (
        "2024-08-27T12:04:20.469000+00:00"
    )
    assert [(f.payload, f.error) for f in found.failures] == [
        (lines[-2], "MissingCaseId"),
        (lines[-1], "MissingCaseId"),
    ]
    assert found.failures[0].attributes["columns"].startswith("case_id=payload.case.id,")


def test_a_file_without_the_columns_says_which_and_keeps_its_lines() -> None:
    data = b'{"a": 1, "b": 2}\n{"a": 3, "b": 4}'
    found = read_all(FORMAT, data)
    assert [f.error for f in found.failures] == ["MissingCaseId", "MissingCaseId"]
    assert list(found.warnings) == [
        "memory/log: no column for case_id, event_time, activity; it has: a, b; "
        "use --columns case_id=...,event_time=...,activity=..."
    ]


def test_an_event_id_of_the_source_is_kept() -> None:
    data = b"\n".join(line(event_id=i, activity=f"a{i}") for i in ("x", "y", None))
    ids = read_all(FORMAT, data).events.column("event_id").to_pylist()
    assert ids[:2] == ["x", "y"]
    assert len(ids[2]) == 32


def test_a_type_of_event_is_no_event_id() -> None:
    data = b"\n".join(line(eventid="10", event_time=f"2024-08-2{i}") for i in range(3))
    assert len(set(read_all(FORMAT, data).events.column("event_id").to_pylist())) == 3


def test_an_empty_file_is_a_warning() -> None:
    found = read_all(FORMAT, b"")
    assert (len(found.events), found.dead, list(found.warnings)) == (0, 0, ["memory/log is empty"])


@pytest.mark.parametrize("pack", [gzip, bz2])
def test_a_truncated_file_keeps_what_came_before(pack: Any) -> None:
    lines = [line(case_id=f"c{i}", note=str(hash(str(i)))) for i in range(20_000)]
    packed = pack.compress(b"\n".join(lines))[:-2000]
    file = memory_file(
        packed,
        compressed=True,
        opener=lambda: cast(BinaryIO, pack.open(io.BytesIO(packed))),
    )
    found = read_all(FORMAT, file)
    assert found.decoded > 0
    assert found.events.column("case_id").to_pylist() == [f"c{i}" for i in range(found.decoded)]
    (failure,) = found.failures
    assert failure.error == "TruncatedFile"
    assert lines[found.decoded].startswith(failure.payload)


def _flip(packed: bytes) -> bytes:
    middle = len(packed) // 2
    return packed[:middle] + b"\0\0\0\0\0\0\0\0" + packed[middle + 8 :]


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return cast(bytes, sink.getvalue().to_pybytes())


@pytest.mark.parametrize(
    ("pack", "unpack"),
    [
        (gzip.compress, gzip.open),
        (bz2.compress, bz2.open),
        (lzma.compress, lzma.open),
        (_zstd, lambda f: pa.CompressedInputStream(f, "zstd")),
    ],
    ids=["gz", "bz2", "xz", "zstd"],
)
@pytest.mark.parametrize(
    ("damage", "whole"),
    [
        (lambda packed: packed[:-1], False),
        (lambda packed: packed[: len(packed) * 2 // 3], False),
        (_flip, False),
        (lambda packed: packed + b"garbage" * 9, True),
    ],
    ids=["cut", "truncated", "flipped", "garbage"],
)
def test_damage_costs_what_is_behind_it(pack: Any, unpack: Any, damage: Any, whole: bool) -> None:
    note = random.Random(5)
    lines = [line(case_id=f"c{i}", note=str(note.getrandbits(400))) for i in range(9000)]
    packed = damage(pack(b"".join(each + b"\n" for each in lines)))
    file = memory_file(packed, compressed=True, opener=lambda: unpack(io.BytesIO(packed)))
    found = read_all(FORMAT, file)
    garbled = list(found.failures)
    last = garbled.pop() if garbled else None
    if last is not None and last.error == "TruncatedFile":
        assert last.size
        assert "cannot read on at byte" in last.message
    else:  # what follows a bz2 or xz file is passed over; zstd need not have a check sum
        assert whole or (damage is _flip and pack is _zstd)
    assert not garbled or damage is _flip  # until the check sum is seen to be wrong
    good = 8800 if whole else 2000
    cases = found.events.column("case_id").to_pylist()
    assert cases[:good] == [f"c{i}" for i in range(good)]
    assert damage is _flip or cases == [f"c{i}" for i in range(found.decoded)]


def test_a_file_without_a_readable_byte_is_a_dead_letter() -> None:
    packed = gzip.compress(line())[:10]
    file = memory_file(
        packed, compressed=True, opener=lambda: cast(BinaryIO, gzip.open(io.BytesIO(packed)))
    )
    (failure,) = read_all(FORMAT, file).failures
    assert (failure.error, failure.payload, failure.size) == ("TruncatedFile", b"", len(packed))
    assert "at byte 0:" in failure.message


@pytest.mark.parametrize("depth", [200, 1000, 20_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_deeply_nested_line_is_no_end_of_the_run(
    depth: int, opening: bytes, closing: bytes
) -> None:
    deep = line()[:-1] + b', "z": ' + opening * depth + b"1" + closing * depth + b"}"
    for items in ((), ("z",)):
        for data in ([deep, line(), line()], [line(), deep.replace(b"1}", b"NaN}"), line()]):
            found = read_all(FORMAT, b"\n".join(data), Context(items=items))
            assert found.decoded >= 2
            assert found.decoded + found.dead == 3
            if not found.dead:
                continue
            assert [f.error for f in found.failures] == ["InvalidJson"]


def test_blank_lines_only_are_an_empty_file() -> None:
    found = read_all(FORMAT, b"\n\r\n\n")
    assert (found.decoded, found.dead, found.skipped) == (0, 0, 3)
    assert list(found.warnings) == ["memory/log is empty"]
    assert FORMAT.detects(b"\n\n", "log.jsonl.gz")
    assert not FORMAT.detects(b"\n\n", "log")
    late = read_all(FORMAT, b"\n" * 500 + line())
    assert (late.decoded, list(late.warnings)) == (1, [])


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-32-le"])
def test_units_that_cannot_be_decoded_are_dead_alone(encoding: str) -> None:
    parts = [line(case_id="c1").decode() + "\n", line(case_id="X").decode() + "\n", line().decode()]
    bad = parts[1].replace("X", "\ud800")
    data = b"".join(p.encode(encoding, "surrogatepass") for p in (parts[0], bad, parts[2]))
    found = read_all(FORMAT, data, Context(encoding=encoding))
    assert [f.error for f in found.failures] == ["InvalidEncoding"]
    assert found.decoded == 2


def test_a_line_longer_than_a_message_is_not_held() -> None:
    long = line(note="x" * 5000)
    data = b"\n".join([line(), long, line(case_id="c2")])
    for block in (100, 10_000):
        with mock.patch.object(json_lines, "BATCH_BYTES", block):
            found = read_all(FORMAT, data, Context(max_message_bytes=1000))
        assert rows(found.events, "case_id", "position") == [
            ("c1", 0),
            ("c2", len(line()) + len(long) + 2),
        ]
        (failure,) = found.failures
        assert (failure.error, failure.size) == ("TooLarge", len(long))
        assert failure.source == f"memory/log:{len(line()) + 1}"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8-sig"])
def test_other_encodings(encoding: str) -> None:
    text = "\n".join(line(case_id=f"c{i}").decode() for i in range(3)) + '\n{"case_id": "ü"}\n'
    found = read_all(FORMAT, text.encode(encoding), Context(encoding=encoding, items=()))
    assert found.events.column("case_id").to_pylist() == ["c0", "c1", "c2"]
    assert [f.error for f in found.failures] == ["MissingTime"]


def test_spans_cover_a_large_file_once() -> None:
    file = memory_file(b"")
    large = type(file)(file.path, 200 * 2**20, file.opener)
    spans = FORMAT.spans(large, Context())
    assert spans[0].start == 0
    assert spans[-1].end is None
    assert [s.end for s in spans[:-1]] == [s.start for s in spans[1:]]
    assert FORMAT.spans(type(file)(file.path, 2**30, file.opener, True), Context()) == [Span()]


def test_messages_are_named_by_their_payload() -> None:
    body = line()
    twice = [Message(body, "t/0", 4, record_time=1), Message(body, "t/0", 9, record_time=2)]
    found = FORMAT.decode(twice, Context())
    ids = found.events.column("event_id").to_pylist()
    assert ids[0] == ids[1]
    assert rows(found.events, "position", "source", "source_offset") == [
        (None, "t/0", 4),
        (None, "t/0", 9),
    ]
    replayed = FORMAT.decode([Message(body, "log", 4)], Context()).events
    assert rows(replayed, "position", "record_time") == [(4, None)]
    original = read_all(FORMAT, memory_file(b"    " + body, "log")).events
    # Blanks before the object are part of the line, so the offset is not the same.
    assert original.column("event_id")[0] != replayed.column("event_id")[0]


def test_messages_may_span_lines_and_keep_their_headers() -> None:
    pretty = json.dumps(GOOD, indent=2).encode()
    messages = [
        Message(pretty, "t/0", 0, {"h": "1"}, 5),
        Message(b"{}\n{}", "t/0", 1, {"h": "2"}, 6),
        Message(b"", "t/0", 2, {}, 7),
    ]
    found = FORMAT.decode(messages, Context())
    assert (found.decoded, found.dead, found.skipped) == (1, 1, 1)
    assert found.failures[0].payload == b"{}\n{}"
    assert found.failures[0].source == "t/0/1"
    assert found.failures[0].attributes == {"h": "2", "format": "json_lines"}


def test_a_replay_gives_the_event_the_id_it_would_have_had() -> None:
    data = b"\n".join([line(), line(activity="pay")])
    first = read_all(FORMAT, data).events
    again = FORMAT.decode([Message(line(activity="pay"), "memory/log", len(line()) + 1)], Context())
    assert again.events.column("event_id")[0] == first.column("event_id")[1]


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
values = st.one_of(
    scalars, st.lists(scalars, max_size=2), st.dictionaries(st.text("ab", max_size=2), scalars)
)
events = st.builds(
    lambda case, activity, amount, more, ascii_: json.dumps(
        {**more, **GOOD, "case_id": case, "activity": activity, "amount": amount},
        ensure_ascii=ascii_,
    ).encode(),
    st.sampled_from(["c1", 'c"2', "cä", 17, 2**70]),
    st.sampled_from(["send", "pay\n", "\\"]),
    values,
    st.dictionaries(st.text("xyz", min_size=1, max_size=2), values, max_size=2),
    st.booleans(),
)
garbage = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [b"null", b"{}", b'{"case_id":1}', b"{", b"}", b"[]", b"\xff", b'"x"', line() * 2, b"}n{"]
    ),
    events.map(lambda e: e[:-3]),
).map(lambda g: g.replace(b"\n", b" "))
line_breaks = st.sampled_from([b"\n", b"\r\n"])


@settings(max_examples=50, deadline=None)
@given(
    lines=st.lists(st.tuples(st.one_of(events, events, garbage), line_breaks), max_size=40),
    repeat=st.sampled_from([1, 1, 7]),
    block=st.integers(1, 2000),
    leaf=st.integers(1, 64),
    cuts=st.sets(st.integers(1, 4000), max_size=4),
)
def test_lines_do_not_depend_on_how_they_are_cut(
    lines: list[tuple[bytes, bytes]], repeat: int, block: int, leaf: int, cuts: set[int]
) -> None:
    lines = lines * repeat
    data = b"".join(text + end for text, end in lines)
    context = Context(
        columns={"case_id": "case_id", "activity": "activity", "event_time": "event_time"},
        items=("amount",),
    )
    whole = read_all(FORMAT, data, context)
    # Each line on its own is the law.
    expected, failed, blank, offset = [], [], 0, 0
    for text, end in lines:
        body = text.removesuffix(b"\r") if end == b"\n" else text
        alone = FORMAT.decode([Message(body, "memory/log", offset)], context)
        expected += alone.events.to_pylist()
        failed += [(f.payload, f.source, f.error) for f in alone.failures]
        blank += alone.skipped
        offset += len(text) + len(end)
    assert whole.events.to_pylist() == expected
    assert [(f.payload, f.source, f.error) for f in whole.failures] == failed
    assert whole.skipped == blank
    bounds = [0, *sorted(c for c in cuts if c < len(data)), None]
    spans = [Span(cast(int, a), b) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    with (
        mock.patch.object(json_lines, "BATCH_BYTES", block),
        mock.patch.object(json_columns, "_LEAF", leaf),
    ):
        cut = read_all(FORMAT, data, context, spans)
    assert cut.events.to_pylist() == expected
    assert [(f.payload, f.source, f.error) for f in cut.failures] == failed
    assert cut.skipped == blank


SHAPES: list[dict[str, Any]] = [
    {"case_id": "a", "timestamp": "2024-01-01T00:00Z", "activity": "open", "event_id": "E1"},
    {"caseId": "b", "eventTime": "2024-01-01T01:00Z", "activityName": "paid", "user": "kim"},
    {"case": "c", "start": "2024-01-01T02:00Z", "task": "sent", "cost": 5},
]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 0, 1), (2, 2, 2)])
def test_objects_of_several_shapes_are_read_by_their_own_names(order: tuple[int, ...]) -> None:
    """In files and in topics, whichever comes first."""
    lines = [json.dumps(SHAPES[which]).encode() for which in order]
    context = Context(items=("cost",))
    decoded = read_all(FORMAT, memory_file(b"\n".join(lines)), context)
    wanted = [("open", "a", "00"), ("paid", "b", "01"), ("sent", "c", "02")]
    found = [
        (e["activity"], e["case_id"], e["event_time"].isoformat()[11:13])
        for e in decoded.events.to_pylist()
    ]
    assert found == [wanted[which] for which in order]
    assert decoded.dead == 0
    fixed, warnings = FORMAT.recognise(lines, context)
    assert bool(warnings) == (len(set(order)) > 1) == bool(decoded.warnings)
    messages = [Message(line, "t/0", i, {}, 1_724_760_000_000_000) for i, line in enumerate(lines)]
    streamed = FORMAT.decode(messages, fixed).events
    columns = ("case_id", "activity", "event_time", "actor", "attributes")
    assert rows(streamed, *columns) == rows(decoded.events, *columns)


def test_a_shape_that_is_no_event_either_way_changes_nothing() -> None:
    lines = [json.dumps(SHAPES[0]), '{"caseId": "b", "note": "no time"}', '{"hello": "world"}']
    decoded = read_all(FORMAT, memory_file("\n".join(lines).encode()), Context())
    assert (decoded.decoded, decoded.dead, decoded.warnings) == (1, 2, ())
    assert decoded.events["event_id"].to_pylist() == ["E1"]


@pytest.mark.parametrize("long", [1_000, 300_000, 1_500_000])
@pytest.mark.parametrize("blank", [b"", b"\n\n"])
def test_a_long_first_line_tells_its_columns(long: int, blank: bytes) -> None:
    """Longer than what columns are recognised from."""
    lines = [
        {**SHAPES[0], "text": "x" * long},
        *({**SHAPES[0], "event_id": f"F{i}"} for i in (1, 2)),
    ]
    body = blank + b"\n".join(json.dumps(each).encode() for each in lines)
    decoded = read_all(FORMAT, memory_file(body), Context())
    assert decoded.events["event_id"].to_pylist() == ["E1", "F1", "F2"]


def test_a_first_line_that_is_too_long_is_dead_alone() -> None:
    lines = [{**SHAPES[0], "text": "x" * 700_000}, {**SHAPES[0], "event_id": "F1"}]
    body = b"\n".join(json.dumps(each).encode() for each in lines)
    decoded = read_all(FORMAT, memory_file(body), Context(max_message_bytes=300_000))
    assert decoded.events["event_id"].to_pylist() == ["F1"]
    assert [each.error for each in decoded.failures] == ["TooLarge"]
