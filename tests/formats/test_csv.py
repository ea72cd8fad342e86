"""CSV: every good record comes out, every bad one is one dead letter, however it is cut."""

from __future__ import annotations

import csv
import gzip
import io
import tracemalloc
from pathlib import Path
from typing import Any, BinaryIO, cast
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.files import memory_file, read_all, rows
from transforms.formats import csv_records, csv_rows
from transforms.formats.base import Context, Decoded, InputFile, Message
from transforms.formats.csv_records import RecordSplitter
from transforms.formats.csv_rows import FORMAT

HEADER = b"case_id,activity,event_time,resource\n"
LOGS = Path(__file__).parents[3] / "shared" / "data" / "logs"


def read(body: bytes, context: Context | None = None, header: bytes = HEADER) -> Decoded:
    return read_all(FORMAT, header + body, context)


def test_a_record_is_an_event_with_its_row_number() -> None:
    found = read(
        b'c1,send,2024-08-27T12:04:20Z,kim\n\nc1,"pay\n""now"", please",2024-08-27T12:05:20Z,\r\n'
    )
    assert rows(found.events, "case_id", "activity", "actor", "position", "source_offset") == [
        ("c1", "send", "kim", 0, 0),
        ("c1", 'pay\n"now", please', None, 1, 1),
    ]
    assert (found.decoded, found.dead, found.skipped) == (2, 0, 1)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (b"nonsense", "BadRow"),
        (b"c1,send,2024-08-27", "BadRow"),
        (b"c1,send,2024-08-27,kim,more", "BadRow"),
        (b'"c1,send,2024-08-27,kim', "BadRow"),
        (b'"c1"x,send,2024-08-27,kim', "BadRow"),
        (b"c1,\xff,2024-08-27,kim", "InvalidEncoding"),
        (b",send,2024-08-27,kim", "MissingCaseId"),
        (b'"",send,2024-08-27,kim', "MissingCaseId"),
        (b"c1,,2024-08-27,kim", "MissingActivity"),
        (b"c1,send,,kim", "MissingTime"),
        (b"c1,send,27.08.2024,kim", "BadTime"),
    ],
)
@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_bad_record_is_a_dead_letter(bad: bytes, error: str, quoted: bool, end: bytes) -> None:
    good = [b"c%d,send,2024-08-27,kim" % i for i in range(60)]
    if quoted:
        good = [b'"c%d","send","2024-08-27","k ""i"" m"' % i for i in range(60)]
    found = read(end.join([*good[:30], bad, *good[30:], b""]))
    assert [(f.payload, f.error, f.source) for f in found.failures] == [
        (bad, error, "memory/log:30")
    ]
    assert found.failures[0].attributes == {
        "format": "csv",
        "header": HEADER.decode().strip(),
        "delimiter": ",",
    }
    assert rows(found.events, "case_id", "position") == [
        (f"c{i}", i if i < 30 else i + 1) for i in range(60)
    ]
    # And alone it is dead for the same reason.
    again = FORMAT.decode([Message(bad, "memory/log", 30, found.failures[0].attributes)], Context())
    assert list(again.failures) == list(found.failures)


def test_a_stray_quote_within_a_field_is_a_character() -> None:
    found = read(b'c1,5" disk,2024-08-27,"kim"\nc2,send,2024-08-27,x\n')
    assert rows(found.events, "case_id", "activity", "actor") == [
        ("c1", '5" disk', "kim"),
        ("c2", "send", "x"),
    ]


def test_a_quote_that_never_closes_does_not_swallow_the_file() -> None:
    body = b'c1,send,2024-08-27,"kim\n' + b"".join(b"c%d,a,2024-08-27,\n" % i for i in range(99))
    for block in (64, 1 << 20):
        with mock.patch.object(csv_rows, "BATCH_BYTES", block):
            found = read(body, Context(max_message_bytes=500))
        assert [f.payload for f in found.failures] == [b'c1,send,2024-08-27,"kim']
        assert found.decoded == 99


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(delimiter: str) -> None:
    body = '"case, id";activity;event_time\nc1;a,b;2024-08-27\n'.replace(";", delimiter)
    body = body.replace("a,b", "ab") if delimiter == "," else body
    found = read_all(FORMAT, body.encode(), Context(columns={"case_id": "case, id"}))
    assert rows(found.events, "case_id", "activity") == [
        ("c1", "ab" if delimiter == "," else "a,b")
    ]


def test_dialect_options() -> None:
    body = b"case_id^activity^event_time\n'c^1'^a^5000\n"
    context = Context(delimiter="^", quote="'", time_format="ms")
    found = read_all(FORMAT, body, context)
    assert found.events.column("case_id").to_pylist() == ["c^1"]
    assert found.events.column("event_time")[0].as_py().timestamp() == 5
    bad = read_all(FORMAT, body + b"'c2\n", context).failures[0]
    assert (bad.attributes["delimiter"], bad.attributes["quote"]) == ("^", "'")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "cp1252", "utf-16", "shift-jis"])
def test_encodings(encoding: str) -> None:
    name = "テスト" if encoding in ("shift-jis", "utf-16") else "müller"
    text = f"case_id,activity,event_time,resource\nc1,a,2024-08-27,{name}\nc2,a,2024-08-27,kim\n"
    found = read_all(FORMAT, text.encode(encoding), Context(encoding=encoding))
    assert found.events.column("actor").to_pylist() == [name, "kim"]


def test_a_record_in_another_encoding_is_dead_alone() -> None:
    found = read("c1,a,2024-08-27,müller\n".encode("latin-1") + "c2,a,2024-08-27,ü\n".encode())
    assert [f.error for f in found.failures] == ["InvalidEncoding"]
    assert found.events.column("actor").to_pylist() == ["ü"]
    undefined = read(b"c1,a,2024-08-27,\x81\nc2,a,2024-08-27,\xfc\n", Context(encoding="cp1252"))
    assert [f.error for f in undefined.failures] == ["InvalidEncoding"]
    assert undefined.events.column("actor").to_pylist() == ["ü"]


def test_lone_carriage_returns_stay_in_their_record() -> None:
    found = read(b'c1,"a\rb",2024-08-27,x\nc2,a\rb,2024-08-27,x\nc3,a,2024-08-27,x\n')
    assert found.events.column("case_id").to_pylist() == ["c1", "c3"]
    assert found.events.column("activity").to_pylist() == ["a\rb", "a"]
    assert [f.payload for f in found.failures] == [b"c2,a\rb,2024-08-27,x"]


def test_empty_files_and_files_of_a_header() -> None:
    assert list(read_all(FORMAT, b"").warnings) == ["memory/log is empty"]
    assert list(read_all(FORMAT, b"\n\n").warnings) == ["memory/log is empty"]
    only = read(b"")
    assert (only.decoded, only.dead) == (0, 0)
    assert list(only.warnings) == ["memory/log has a header and no rows"]


@pytest.mark.parametrize("block", [7, 1 << 20])
def test_lines_may_end_with_carriage_returns(block: int) -> None:
    data = b'case_id,activity,event_time\rc1,a,2024-08-27\rc2,"b",2024-08-28\r'
    with (
        mock.patch.object(csv_rows, "BATCH_BYTES", block),
        mock.patch.object(csv_rows, "_LONG_HEADER", 40),
    ):
        found = read_all(FORMAT, data)
        only = read_all(FORMAT, data[:28])
    assert rows(found.events, "case_id", "activity", "position") == [("c1", "a", 0), ("c2", "b", 1)]
    assert (found.dead, list(found.warnings)) == (0, [])
    assert list(only.warnings) == ["memory/log has a header and no rows"]


def test_a_header_behind_blank_lines() -> None:
    data = b'\n\r\n\ncase_id;activity;event_time\n"c1";"a;\nb";2024-08-27\n'
    assert FORMAT.detects(data, "log")
    assert FORMAT.detects(b"case_id,activity\rc1,a/b=c\r", "log")
    assert FORMAT.detects(b"\n\n", "log.csv.gz")
    assert not FORMAT.detects(b"\n\n", "log")
    for block in (3, 1 << 20):
        with mock.patch.object(csv_rows, "BATCH_BYTES", block):
            found = read_all(FORMAT, data)
        assert rows(found.events, "case_id", "activity") == [("c1", "a;\nb")]
        assert found.dead == 0


@pytest.mark.parametrize("block", [64, 1 << 20])
def test_a_record_longer_than_a_message_is_dead(block: int) -> None:
    long = b"c2," + b"x" * 1000 + b",2024-08-27,"
    body = b"c1,a,2024-08-27,\n" + long + b"\nc3,a,2024-08-27,\n"
    with mock.patch.object(csv_rows, "BATCH_BYTES", block):
        found = read(body, Context(max_message_bytes=500))
    assert [(f.error, f.size, f.source) for f in found.failures] == [
        ("TooLarge", len(long), "memory/log:1")
    ]
    assert rows(found.events, "case_id", "position") == [("c1", 0), ("c3", 2)]
    message = Message(long, "t/0", 4, {"header": HEADER.decode().strip()})
    alone = FORMAT.decode([message], Context(max_message_bytes=500))
    assert [f.error for f in alone.failures] == ["TooLarge"]


@pytest.mark.parametrize(
    "field",
    [b"x" * 9, b'a""', b'""', b"a,b\n"],
    ids=["long", "pairs", "quotes", "lines"],
)
def test_a_large_record_takes_little_memory(field: bytes) -> None:
    large = b'c1,"' + field * 100_000 + b'",2024-08-27,\n'
    data = b'c0,"x"q\n' + large + b"c2" + b"," * 100_000 + b'"z"\n' + b'c3,"open\nc4\n'
    splitter = RecordSplitter(b",", b'"', 1 << 30)
    tracemalloc.start()
    splitter.cut(data, True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    found = splitter.records
    starts = [data[s : s + 2] for s in found.starts.tolist()]
    assert (starts, found.bad) == ([b"c0", b"c1", b"c2", b"c3", b"c4"], (0, 3))
    assert found.ends[1] - found.starts[1] == len(large) - 1
    # Numbers of quotes and lines, and no more than a window's worth of notes.
    assert peak < 40 * len(data)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from('",\n\ra'), max_size=40), st.booleans(), st.integers(1, 9))
def test_a_window_changes_nothing(text: str, complete: bool, window: int) -> None:
    splitter = RecordSplitter(b",", b'"', 1 << 20)
    splitter.cut(text.encode(), complete)
    expected = splitter.records
    with mock.patch.object(csv_records, "_WINDOW", window):
        splitter.cut(text.encode(), complete)
    found = splitter.records
    assert (found.starts.tolist(), found.ends.tolist()) == (
        expected.starts.tolist(),
        expected.ends.tolist(),
    )
    assert (found.bad, found.size) == (expected.bad, expected.size)


def test_units_that_are_no_utf_16_are_dead_alone() -> None:
    parts = ["case_id,activity,event_time\nc1,", "\ud800", ",2024-08-27\nc2,b,2024-08-27\n"]
    data = b"".join(part.encode("utf-16-le", "surrogatepass") for part in parts)
    found = read_all(FORMAT, data, Context(encoding="utf-16-le"))
    assert [f.error for f in found.failures] == ["InvalidEncoding"]
    assert found.events.column("case_id").to_pylist() == ["c2"]


def test_a_file_without_the_columns_says_so() -> None:
    found = read_all(FORMAT, b"a,b\n1,2\n3,4\n")
    assert [f.error for f in found.failures] == ["MissingCaseId"] * 2
    assert "no column for case_id, event_time, activity; it has: a, b" in found.warnings[0]
    typo = read_all(FORMAT, HEADER + b"c1,a,2024-08-27,x\n", Context(columns={"actor": "user"}))
    assert typo.decoded == 1
    assert "no column for actor" in typo.warnings[0]


def test_a_truncated_file() -> None:
    body = HEADER + b"".join(b"c%d,%d,2024-08-27,x\n" % (i, hash(str(i))) for i in range(9999))
    packed = gzip.compress(body)[:-2000]
    file = memory_file(
        packed,
        compressed=True,
        opener=lambda: cast(BinaryIO, gzip.open(io.BytesIO(packed))),
    )
    found = read_all(FORMAT, file)
    assert found.decoded > 0
    assert found.events.column("case_id").to_pylist() == [f"c{i}" for i in range(found.decoded)]
    assert [f.error for f in found.failures] == ["TruncatedFile"]


def test_messages_with_and_without_a_header() -> None:
    attributes = {"header": "case_id;activity;event_time", "delimiter": ";"}
    messages = [
        Message(b"c1;a;2024-08-27", "t/0", 0, attributes, 1),
        Message(b"case_id,activity,event_time\nc2,b,2024-08-27\n", "t/0", 1, {}, 2),
        Message(b"c3;a", "t/0", 2, attributes, 3),
        Message(b"c4;a;2024-08-27\nc5;a;2024-08-27", "t/0", 3, attributes, 4),
        Message(b"", "t/0", 4, attributes, 5),
    ]
    found = FORMAT.decode(messages, Context())
    assert sorted(rows(found.events, "case_id", "source_offset")) == [("c1", 0), ("c2", 1)]
    assert [(f.payload, f.source) for f in found.failures] == [
        (b"c3;a", "t/0/2"),
        (b"c4;a;2024-08-27\nc5;a;2024-08-27", "t/0/3"),
    ]
    assert (found.decoded, found.dead, found.skipped) == (2, 2, 1)


cells = st.text(st.sampled_from('ab "",;\n\r\'ä|'), max_size=6)
garbage = st.sampled_from(
    [
        b"x",
        b"a,b",
        b'"open',
        b'a,"open,',
        b'"a"b,c,d,e',
        b"\xff,a,2024-08-27,x",
        b"1,2,3,4,5",
        b"  ",
    ]
)


def record(case: str, activity: str, actor: str, always: bool) -> bytes:
    out = io.StringIO()
    # Without a line terminator, the writer would leave line breaks unquoted.
    breaks = any(c in case + activity + actor for c in "\r\n")
    quoting: Any = csv.QUOTE_ALL if always or breaks else csv.QUOTE_MINIMAL
    writer = csv.writer(out, quoting=quoting, lineterminator="")
    writer.writerow([f"c{case}", f"a{activity}", "2024-08-27", actor])
    return out.getvalue().encode()


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(
        st.tuples(
            st.one_of(st.tuples(cells, cells, cells, st.booleans()), garbage),
            st.sampled_from([b"\n", b"\r\n"]),
        ),
        max_size=25,
    ),
    block=st.integers(1, 600),
    unclosed=st.booleans(),
)
def test_records_do_not_depend_on_how_they_are_cut(
    lines: list[tuple[Any, bytes]], block: int, unclosed: bool
) -> None:
    """A quote that never closes may run on into a later quoted field; then only cuts compare."""
    kept = [
        (line, end)
        for line, end in lines
        if unclosed or not (isinstance(line, bytes) and b'"' in line)
    ]
    data = b"".join((x if isinstance(x, bytes) else record(*x)) + end for x, end in kept)
    whole = read(data)
    with mock.patch.object(csv_rows, "BATCH_BYTES", block):
        cut = read(data)
    assert cut.events.to_pylist() == whole.events.to_pylist()
    assert list(cut.failures) == list(whole.failures)
    assert cut.skipped == whole.skipped
    if not unclosed:
        good = [x for x, _ in kept if not isinstance(x, bytes)]
        assert rows(whole.events, "case_id", "activity", "actor") == [
            (f"c{case}", f"a{activity}", actor or None) for case, activity, actor, _ in good
        ]
        bad = [x for x, _ in kept if isinstance(x, bytes) and x.strip()]
        assert [f.payload for f in whole.failures] == bad
        numbers = [i for i in range(len(good) + len(bad))]
        seen = whole.events.column("position").to_pylist()
        seen += [int(f.source.rsplit(":", 1)[1]) for f in whole.failures]
        assert sorted(seen) == numbers


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from('",\n\ra'), max_size=30), st.booleans())
def test_records_cover_the_data(text: str, complete: bool) -> None:
    data = text.encode()
    splitter = RecordSplitter(b",", b'"', 1 << 20)
    size = splitter.cut(data, complete)
    found = splitter.records
    assert found.size == size
    if complete:
        assert size == len(data)
    assert size == 0 or complete or data[size - 1 : size] == b"\n"
    # What lies between records is one line break each, and nothing else.
    starts, ends = found.starts.tolist(), found.ends.tolist()
    gaps = [data[e:s] for e, s in zip(ends, [*starts[1:], size], strict=False)]
    assert all(gap in (b"\n", b"\r\n") for gap in gaps[:-1])
    assert not gaps or gaps[-1] in (b"\n", b"\r\n", b"\r", b"")
    assert starts[:1] in ([], [0])


@pytest.mark.skipif(not LOGS.exists(), reason="the shared logs are not there")
@pytest.mark.parametrize(("name", "count"), [("BPIC15_1", 52217), ("PurchasingExample", 9119)])
def test_shared_logs(name: str, count: int) -> None:
    path = LOGS / f"{name}.csv.gz"
    file = InputFile(str(path), path.stat().st_size, lambda: cast(BinaryIO, gzip.open(path)), True)
    found = read_all(FORMAT, file)
    assert (found.decoded, found.dead, found.skipped) == (count, 0, 0)
    assert found.events.column("actor").null_count == 0
    assert list(found.warnings) == []
