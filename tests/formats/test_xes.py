"""XES: every way of reading gives what a plain element-wise parser gives."""

from __future__ import annotations

import bz2
import gzip
import io
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import EVENT_SCHEMA
from transforms.formats import xes_log
from transforms.formats.base import Context, Decoded, Failure, InputFile, Message, Span
from transforms.formats.times import parse_times
from transforms.formats.xes import FORMAT, XesFormat
from transforms.formats.xes_rows import Wanted
from transforms.formats.xes_scan import scan

DATA = Path(__file__).parents[3] / "shared" / "data" / "logs"

TYPES = ("string", "date", "int", "float", "boolean", "id")


def file_of(data: bytes, path: str = "log.xes", wrap: Any = io.BytesIO) -> InputFile:
    return InputFile(path, len(data), lambda: wrap(data))


def read(
    data: bytes | Sequence[InputFile], context: Context | None = None, chunk: int = 1 << 20
) -> Decoded:
    """Read files and join the batches."""
    files = [file_of(data)] if isinstance(data, bytes) else data
    batches = list(
        XesFormat(chunk_bytes=chunk).read([(f, Span()) for f in files], context or Context())
    )
    return Decoded(
        events=pa.concat_tables([b.events for b in batches]).unify_dictionaries().combine_chunks(),
        failures=[f for b in batches for f in b.failures],
        decoded=sum(b.decoded for b in batches),
        skipped=sum(b.skipped for b in batches),
        dead=sum(b.dead for b in batches),
        rejected=sum(b.rejected for b in batches),
        warnings=[w for b in batches for w in b.warnings],
    )


def attribute(key: str, value: str, kind: str = "string") -> str:
    return f"<{kind} key={quoteattr(key)} value={quoteattr(value)}/>"


def event(activity: str = "a", time: str = "2024-01-02T03:04:05Z", more: str = "") -> str:
    date = attribute("time:timestamp", time, "date")
    return f"<event>{attribute('concept:name', activity)}{date}{more}</event>"


def trace(name: str, *events: str) -> str:
    return f"<trace>\n{attribute('concept:name', name)}\n" + "\n".join(events) + "\n</trace>\n"


def log(*traces: str, head: str = "") -> bytes:
    return (
        f'<?xml version="1.0"?>\n<log xes.version="1.0">{head}\n{"".join(traces)}</log>\n'.encode()
    )


# ---------------------------------------------------------------- the reference parser

TIMES = {
    "2024-01-02T03:04:05.678+01:00": "2024-01-02 02:04:05.678000+00:00",
    "2024-06-30T23:59:59Z": "2024-06-30 23:59:59+00:00",
    "1970-01-01T00:00:00.000+00:00": "1970-01-01 00:00:00+00:00",
    "2011-10-01 00:38:44.546123": "2011-10-01 00:38:44.546123+00:00",
}

Row = tuple[Any, ...]


def local(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def attributes(holder: ElementTree.Element, stop: tuple[str, ...], nested: bool) -> dict[str, str]:
    """Collect the attributes before the first element of `stop`; the last value of a key counts."""
    found: dict[str, str] = {}

    def visit(element: ElementTree.Element, path: list[str | None]) -> None:
        key, value = element.get("key"), element.get("value")
        path = [*path, key]
        if local(element) in TYPES and key is not None and value:
            found["/".join(p for p in path if p is not None)] = value
        if nested:
            for child in element:
                visit(child, path)

    for element in holder:
        if local(element) in stop:
            break
        visit(element, [])
    return found


def moment_of(text: str) -> str | None:
    if text in TIMES:
        return TIMES[text]
    moment = parse_times(pa.array([text]))[0].as_py()
    return None if moment is None else str(moment)


def reference(data: bytes, items: tuple[str, ...] = ()) -> tuple[list[Row], list[Row]]:
    """Read a log with ElementTree: its events, and (ordinal, error) of what is no event."""
    root = ElementTree.fromstring(data)
    log_values = attributes(root, ("trace", "event"), False)
    classifier: list[str] = []
    for element in root:
        if local(element) in ("trace", "event"):
            break
        if local(element) == "classifier" and element.get("scope", "event") == "event":
            classifier = classifier or element.get("keys", "").split()
    nested = any("/" in item for item in items)
    good: list[Row] = []
    bad: list[Row] = []
    ordinal = traces = 0
    for child in root:
        holders = [child] if local(child) in ("trace", "event") else []
        for holder in holders:
            in_trace = local(holder) == "trace"
            of_trace = attributes(holder, ("event",), nested) if in_trace else {}
            case = of_trace.get("concept:name") or (str(traces) if in_trace else None)
            for element in [e for e in holder if local(e) == "event"] if in_trace else [holder]:
                values = attributes(element, (), nested)
                activity = values.get("concept:name")
                if activity is None and classifier and all(values.get(k) for k in classifier):
                    activity = "+".join(values[k] for k in classifier)
                time = values.get("time:timestamp")
                if case is None:
                    bad.append((ordinal, "MissingCaseId"))
                elif time is None:
                    bad.append((ordinal, "MissingTime"))
                elif (moment := moment_of(time)) is None:
                    bad.append((ordinal, "BadTime"))
                elif activity is None:
                    bad.append((ordinal, "MissingActivity"))
                else:
                    picked = [(i, values.get(i) or of_trace.get(i)) for i in items]
                    good.append(
                        (
                            ordinal,
                            case,
                            moment,
                            activity,
                            values.get("org:resource"),
                            values.get("lifecycle:transition"),
                            log_values.get("concept:name"),
                            values.get("identity:id"),
                            [(k, v) for k, v in picked if v is not None] if items else None,
                        )
                    )
                ordinal += 1
            traces += in_trace
    return good, bad


COLUMNS = (
    "position",
    "case_id",
    "event_time",
    "activity",
    "actor",
    "lifecycle",
    "workflow_group",
    "event_id",
    "attributes",
)


def rows_of(decoded: Decoded) -> list[Row]:
    """Give the events as the reference does."""
    rows = zip(*(decoded.events[c].to_pylist() for c in COLUMNS), strict=True)
    hashed = re.compile("[0-9a-f]{32}").fullmatch
    return [
        (p, c, str(t), a, r, i, g, None if hashed(e) else e, m)
        for p, c, t, a, r, i, g, e, m in rows
    ]


def assert_as_reference(data: bytes, items: tuple[str, ...], chunk: int) -> None:
    good, bad = reference(data, items)
    decoded = read(data, Context(items=items), chunk)
    assert rows_of(decoded) == good
    found = [(int(f.attributes["position"]), f.error) for f in decoded.failures]
    assert sorted(found) == bad
    assert (decoded.decoded, decoded.dead) == (len(good), len(bad))


# ---------------------------------------------------------------- logs of any layout

TEXT = [
    "a",
    "b c",
    "",
    " ",
    "é中",
    "\U0001f600",
    "a&b",
    "<x>",
    "it's",
    '"q"',
    "a\nb",
    "\t",
    "]]",
    "&amp;",
]
TEXT += ["complete", "x" * 40, "</event>", "<trace>", "k=/>", "d > e", "\r", "\x7f"]
PLAIN = ["a", "b c", "é中", "a&b", '"q"', "</event>", "1", "it's", "\U0001f600", "a\nb", ""]
KEYS = ["concept:name", "org:resource", "lifecycle:transition", "identity:id", "cost", "a/b", "k&k"]
ITEMS = st.sampled_from([(), ("cost",), ("cost", "k&k"), ("a/b", "list/cost"), ("kind", "cost")])
NOISE = [
    "<!-- </event></trace> -->",
    "<!---->",
    "<![CDATA[</trace><event>]]>",
    "<?note </event>?>",
    "text",
    "&amp;",
    "<other key='cost'><event/><string key='cost' value='9'/></other>",
    "<container key='cost'><string key='cost' value='8'/></container>",
    "<string key='cost'/>",
    "<string value='7'/>",
]


class Writer:
    """Writes one log by chance: plain as most tools do, or with all that XML allows."""

    def __init__(self, seed: int, traces: int) -> None:
        self.random = random.Random(seed)
        self.plain = self.chance(0.5)
        self.prefix = "" if self.plain or self.chance(0.7) else "x:"
        self.noisy = 0.0 if self.plain else self.random.choice([0, 0.02, 0.2])
        self.traces = traces

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def pick(self, choices: Sequence[str]) -> str:
        return self.random.choice(choices)

    def quoted(self, text: str) -> str:
        out = escape(text, {"\n": "&#10;", "\r": "&#xD;", "\t": "&#9;"})
        if self.plain:
            return '"' + out.replace('"', "&quot;") + '"'
        if self.chance(0.3):
            out = out.replace("&gt;", ">").replace("&#10;", "\n").replace("&#9;", "\t")
        if self.chance(0.5):
            return '"' + out.replace('"', "&#34;") + '"'
        return "'" + out.replace("'", "&apos;") + "'"

    def gap(self) -> str:
        white = self.pick(["", "\n", "\n\t\t", " " * 19, "\r\n"])
        return white + self.pick(NOISE) if self.chance(self.noisy) else white

    def attribute(self, key: str | None = None, value: str | None = None, depth: int = 0) -> str:
        p, name = self.prefix, self.pick(TYPES)
        if key is None and self.chance(0.2):
            key, value = "time:timestamp", self.pick([*TIMES, *TIMES, "never", ""])
        key = self.pick(KEYS[:-1] if self.plain else KEYS) if key is None else key
        value = self.pick(PLAIN if self.plain else TEXT) if value is None else value
        pair = [f"key={self.quoted(key)}", f"value={self.quoted(value)}"]
        if not self.plain and self.chance(0.1):
            pair.reverse()
        tag = f"<{p}{name} {' '.join(pair)}"
        if depth > 2 or self.chance(0.9):
            return tag + self.pick(["/>", " />"])
        inner = "".join(
            self.gap() + self.attribute(depth=depth + 1) for _ in range(self.random.randrange(3))
        )
        if self.chance(0.7):
            return f"{tag}>{inner}</{p}{name}>"
        return f'<{p}list key="list"><{p}values>{inner}</{p}values></{p}list>'

    def event(self) -> str:
        parts = [self.attribute() for _ in range(self.random.randrange(4))]
        if self.chance(0.9):
            parts.append(self.attribute("concept:name"))
        if self.chance(0.9):
            parts.append(self.attribute("time:timestamp", self.pick([*TIMES])))
        self.random.shuffle(parts)
        return self.element("event", parts)

    def trace(self) -> str:
        parts = [self.attribute() for _ in range(self.random.randrange(3))]
        if self.chance(0.7):
            parts.append(self.attribute("concept:name", self.pick("AB")))
        parts += [self.event() for _ in range(self.random.randrange(5))]
        if self.chance(0.1):
            parts.append(self.attribute())
        return self.element("trace", parts)

    def element(self, name: str, parts: Sequence[str]) -> str:
        if not self.plain and not parts:
            return f"<{self.prefix}{name}/>"
        inside = "".join(self.gap() + part for part in parts) + self.gap()
        space = " " if not self.plain and self.chance(0.02) else ""
        return f"<{self.prefix}{name}{space}>{inside}</{self.prefix}{name}{space}>"

    def log(self) -> bytes:
        p = self.prefix
        head = self.pick(["", '<?xml version="1.0"?>\n<!-- made by <trace> hand -->\n', "\ufeff"])
        space = (
            ' xmlns:x="http://www.xes-standard.org/"'
            if p
            else self.pick(["", ' xmlns="http://www.xes-standard.org/"'])
        )
        body = [self.attribute() for _ in range(self.random.randrange(2))]
        if self.chance(0.5):
            body.append(self.attribute("concept:name", "Orders"))
        if self.chance(0.5):
            body.append(f'<{p}classifier name="c" keys="org:resource cost"/>')
        body += [self.trace() for _ in range(self.traces)]
        if not self.plain and self.chance(0.2):
            body += [self.event(), self.attribute(), self.trace()]
        inside = "".join(self.gap() + part for part in body)
        return f"{head}<{p}log{space}>{inside}\n</{p}log>\n".encode()


@settings(max_examples=400, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(0, 8),
    ITEMS,
    st.sampled_from([1, 7, 60, 300, 2000, 1 << 20]),
)
def test_any_log_gives_what_the_reference_gives(
    seed: int, traces: int, items: tuple[str, ...], chunk: int
) -> None:
    assert_as_reference(Writer(seed, traces).log(), items, chunk)


CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(b"<>/\"'&;= \n\0\x80\xffaek:!?-")), max_size=3
)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), CHANGES)
def test_the_columnar_scan_accepts_only_what_a_parser_accepts(
    seed: int, changes: list[tuple[float, int]]
) -> None:
    writer = Writer(seed, 3)
    writer.plain, writer.noisy, writer.prefix = True, 0, ""
    fragment = bytearray("".join(writer.trace() for _ in range(3)).encode())
    for place, byte in changes:
        fragment[int(place * (len(fragment) - 1))] = byte
    found = scan(bytes(fragment), False, Wanted(("concept:name", "cost"), ("concept:name",)), 10**6)
    if not changes:
        assert found is not None
    if found is None:
        return
    root = ElementTree.fromstring(b"<log>" + fragment + b"</log>")
    events = [e for t in root if t.tag == "trace" for e in t if e.tag == "event"]
    expected = [attributes(e, (), False) for e in events]
    assert found.event[0].to_pylist() == [e.get("concept:name") for e in expected]
    assert found.event[1].to_pylist() == [e.get("cost") for e in expected]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), CHANGES, st.sampled_from([1, 60, 300]))
def test_a_broken_log_gives_the_same_however_it_is_cut(
    seed: int, changes: list[tuple[float, int]], chunk: int
) -> None:
    data = bytearray(Writer(seed, 3).log())
    for place, byte in changes:
        data[int(place * (len(data) - 1))] = byte
    whole, cut = read(bytes(data)), read(bytes(data), chunk=chunk)
    assert rows_of(cut) == rows_of(whole)
    assert [(f.source, f.error, f.message) for f in cut.failures] == [
        (f.source, f.error, f.message) for f in whole.failures
    ]
    assert cut.warnings == whole.warnings
    try:
        good, bad = reference(bytes(data))
    except (ElementTree.ParseError, ValueError, LookupError):
        return  # a prefix that is not declared is the one thing that only ElementTree minds
    if ElementTree.fromstring(bytes(data)).tag.endswith("log") and b"<!D" not in data:
        assert rows_of(whole) == good
        assert len(whole.failures) == len(bad)


@pytest.mark.parametrize(
    "fragment",
    [
        trace("A", event(), event("b", more='<int key="n" value="1"/>')),
        trace("A", event()).replace("/>", " />").replace("\n", "\r\n\t\t\t\t\t\t\t\t\t\t"),
        trace("A", event()).replace('"', "'"),
        trace("A", event()).replace('"/>', '"></string>').replace("<date", "<string"),
        trace("é&amp;\U0001f600", event("&lt;b&gt; \U0001f600")),
        trace("A", event(more='<string key="a" value="b"><int key="c" value="1"/></string>')),
        trace("A", event(more='<list key="a"><values><float key="c" value="1"/></values></list>')),
        "<trace></trace><trace>" + event(more='<boolean key="b" value="true"/>') + "</trace>",
    ],
)
def test_common_layouts_are_scanned(fragment: str) -> None:
    data = fragment.strip().encode()
    assert scan(data, False, Wanted(("concept:name",), ("concept:name",)), 10**6) is not None
    assert_as_reference(
        log(fragment).replace(b"2024-01-02T03:04:05Z", b"2024-06-30T23:59:59Z"), (), 64
    )


@pytest.mark.parametrize(
    "fragment",
    [
        "<trace><event></trace></event>",
        "<event></event>",
        "<trace><event><event></event></event></trace>",
        "<trace><trace></trace></trace>",
        "</trace><trace>",
        '<trace><event><string key="a" value="<"/></event></trace>',
        '<trace><event><string key="a" value="&"/></event></trace>',
        '<trace><event><string key="a" value="&#0;"/></event></trace>',
        '<trace><event><string key="a" value="&nbsp;"/></event></trace>',
        '<trace><event><string key="a" value="b" x="c"/></event></trace>',
        '<trace><event><string key="a" value="\x01"/></event></trace>',
        '<trace><event><string key="a" value="\uffff"/></event></trace>',
        '<trace><event><string key="a" value="b\nc"/></event></trace>',
        '<trace><event><string key="a" value="b"></int></event></trace>',
        '<trace><event><string key="a" value="b"/>text</event></trace>',
        "<trace><event><!-- --></event></trace>",
        "<trace><event>]]></event></trace>",
    ],
)
def test_what_is_not_plain_is_left_to_the_parser(fragment: str) -> None:
    assert scan(fragment.encode(), False, Wanted(("a",), ()), 10**6) is None


# ---------------------------------------------------------------- columns


def test_standard_attributes_feed_the_event_table() -> None:
    more = (
        attribute("org:resource", "Ann")
        + attribute("lifecycle:transition", "complete")
        + attribute("identity:id", "e-1", "id")
    )
    data = log(
        trace("A", event("register", "2024-01-02T03:04:05.5+02:00", more)),
        "<trace>" + event("x") + "</trace>",
        trace("A", event("close")),
        head=attribute("concept:name", "Orders"),
    )
    events = read(data).events
    assert events.schema == EVENT_SCHEMA
    assert events["case_id"].to_pylist() == ["A", "1", "A"]
    assert events["event_id"][0].as_py() == "e-1"
    assert len(set(events["event_id"].to_pylist())) == 3
    assert (
        events["activity"].to_pylist() == events["state"].to_pylist() == ["register", "x", "close"]
    )
    assert str(events["event_time"][0]) == "2024-01-02 01:04:05.500000+00:00"
    assert events["actor"].to_pylist() == ["Ann", None, None]
    assert events["lifecycle"].to_pylist() == ["complete", None, None]
    assert set(events["workflow_group"].to_pylist()) == {"Orders"}
    assert events["position"].to_pylist() == events["source_offset"].to_pylist() == [0, 1, 2]
    assert set(events["source"].to_pylist()) == {"log.xes"}
    assert events["record_time"].null_count == events["attributes"].null_count == 3


def test_columns_and_items_name_attributes_of_event_trace_and_log() -> None:
    nested = '<string key="order" value="o"><int key="lines" value="7"/></string>'
    more = attribute("Costs", "50", "int") + attribute("doc", "D1") + nested
    of_trace = attribute("variant", "V1") + attribute("group", "G") + attribute("Costs", "9")
    data = log(
        f"<trace>{of_trace}{event('a', more=more)}{event('b')}</trace>",
        head=attribute("version", "2.0"),
    )
    context = Context(
        columns={
            "case_id": "variant",
            "workflow_group": "case:group",
            "model_version": "log:version",
            "state": "doc",
            "task": "Costs",
            "actor": "trace:missing",
        },
        items=("Costs", "case:Costs", "order/lines", "none"),
    )
    events = read(data, context).events
    assert events["case_id"].to_pylist() == ["V1", "V1"]
    assert events["workflow_group"].to_pylist() == ["G", "G"]
    assert events["model_version"].to_pylist() == ["2.0", "2.0"]
    assert events["state"].to_pylist() == ["D1", "b"]
    assert events["task"].to_pylist() == [50, 9]
    assert events["actor"].to_pylist() == [None, None]
    assert events["attributes"].to_pylist() == [
        [("Costs", "50"), ("case:Costs", "9"), ("order/lines", "7")],
        [("Costs", "9"), ("case:Costs", "9")],
    ]


def test_a_column_mapped_to_nothing_is_left_out() -> None:
    data = log(
        trace("A", event(more=attribute("identity:id", "x") + attribute("org:resource", "r")))
    )
    events = read(data, Context(columns={"event_id": "", "actor": ""})).events
    assert events["event_id"][0].as_py() != "x"
    assert events["actor"].to_pylist() == [None]


def test_the_first_event_classifier_names_events_without_a_name() -> None:
    date = attribute("time:timestamp", "2024-01-01T00:00:00Z", "date")
    classifiers = (
        '<classifier name="t" scope="trace" keys="x"/>'
        '<classifier name="a" keys="\'the task\' lifecycle:transition"/>'
        '<classifier name="b" keys="other"/>'
    )
    full = attribute("the task", "T") + attribute("lifecycle:transition", "start")
    data = log(
        f"<trace><event>{date}{full}</event><event>{date}</event>{event('named')}</trace>",
        head=classifiers,
    )
    decoded = read(data)
    assert decoded.events["activity"].to_pylist() == ["T+start", "named"]
    assert [f.error for f in decoded.failures] == ["MissingActivity"]


def test_global_defaults_are_not_guessed_from() -> None:
    default = attribute("concept:name", "D") + attribute("time:timestamp", "2024-01-01T00:00:00Z")
    data = log("<trace><event/></trace>", head=f'<global scope="event">{default}</global>')
    assert [f.error for f in read(data).failures] == ["MissingTime"]


def test_a_trace_attribute_behind_events_is_not_read_and_said_so() -> None:
    data = log("<trace>" + event() + attribute("concept:name", "A") + event() + "</trace>")
    for chunk in (30, 10**6):
        decoded = read(data, chunk=chunk)
        assert decoded.events["case_id"].to_pylist() == ["0", "0"]
        assert len(decoded.warnings) == 1
        assert "behind its first event" in decoded.warnings[0]


# ---------------------------------------------------------------- bad input

BOMB = (
    b'<!DOCTYPE log [<!ENTITY a "ha"><!ENTITY b "&a;&a;"><!ENTITY x SYSTEM "file:///etc/passwd">]>'
    b'<log><trace><string key="concept:name" value="&b;"/></trace></log>'
)


@pytest.mark.parametrize("chunk", [20, 200, 1 << 20])
@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (BOMB, "ForbiddenDtd", "document type"),
        (
            b'<?xml version="1.0"?>\n<!DOCTYPE log>\n' + log(trace("A", event()))[22:],
            "ForbiddenDtd",
            "",
        ),
        (b"<logs><trace/></logs>", "InvalidXml", "<logs>, not <log>"),
        (b"\n \n", "InvalidXml", "no element found"),
        (b"no xml at all", "InvalidXml", "line 1"),
        (b"\x00\x01\x02\xff", "InvalidXml", "line 1"),
        (b'<?xml version="1.0" encoding="klingon"?><log/>', "InvalidXml", "klingon is not known"),
        (b'<?xml version="1.0" encoding="zlib"?><log/>', "InvalidXml", "zlib is not known"),
    ],
)
def test_an_unreadable_file_is_one_dead_message(
    data: bytes, error: str, message: str, chunk: int
) -> None:
    decoded = read([file_of(data), file_of(log(trace("A", event())), "good.xes")], chunk=chunk)
    assert (decoded.decoded, decoded.dead) == (1, 1)
    failure = decoded.failures[0]
    assert failure.error == error
    assert message in failure.message
    assert failure.payload and data.startswith(failure.payload[:10])
    assert failure.source == "log.xes:0"


@pytest.mark.parametrize("chunk", [20, 200, 1 << 20])
@pytest.mark.parametrize(
    "tail", ["<event><string</event>", "<event></trace>", "<event>&no;</event>", "\0"]
)
def test_events_before_broken_xml_count(tail: str, chunk: int) -> None:
    data = log(trace("A", event("a"), event("b")), trace("B", event("c"), tail, event("d")))
    line = data[: data.index(tail.encode())].count(b"\n") + 1
    decoded = read(data, chunk=chunk)
    assert decoded.events["activity"].to_pylist() == ["a", "b", "c"]
    (failure,) = decoded.failures
    assert failure.error == "InvalidXml"
    assert failure.message.startswith(f"line {line}:")
    assert failure.source == "log.xes:3"
    assert tail.encode() in failure.payload


def bz2_blocks(data: bytes) -> bytes:
    return bz2.compress(data, 1)  # blocks of 100 kB: a smaller file would be one block


@pytest.mark.parametrize("chunk", [5_000, 1 << 20])
@pytest.mark.parametrize(
    ("pack", "unpack"),
    [
        (gzip.compress, lambda data: gzip.GzipFile(fileobj=io.BytesIO(data))),
        (bz2_blocks, lambda data: bz2.BZ2File(io.BytesIO(data))),
    ],
)
def test_a_compressed_file_that_ends_early_gives_what_was_there(
    pack: Callable[[bytes], bytes], unpack: Callable[[bytes], BinaryIO], chunk: int
) -> None:
    rng = random.Random(1)
    packed = pack(log(*(trace(f"{rng.random()}", event(f"{rng.random()}")) for _ in range(4_000))))
    middle = len(packed) // 2
    whole = read([file_of(packed, wrap=unpack)], chunk=chunk)
    assert (whole.decoded, whole.dead) == (4_000, 0)
    cut = read([file_of(packed[:middle], wrap=unpack)], chunk=chunk)
    assert [f.error for f in cut.failures] == ["TruncatedFile"]
    assert 1_000 < cut.decoded < 3_000
    assert cut.events["event_id"].to_pylist() == whole.events["event_id"].to_pylist()[: cut.decoded]
    noise = bytes(b ^ 0x55 for b in packed[middle : middle + 50])
    changed = packed[:middle] + noise + packed[middle + 50 :]
    damaged = read([file_of(changed, wrap=unpack)], chunk=chunk)
    assert damaged.dead == 1
    assert damaged.failures[0].error in ("CorruptFile", "InvalidXml")
    assert 1_000 < damaged.decoded < 3_000


def test_a_failing_disk_is_no_dead_letter() -> None:
    class Failing(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        read([file_of(b"", wrap=Failing)])


def test_events_that_are_none_are_dead_one_by_one() -> None:
    name = attribute("concept:name", "n")
    data = log(
        trace(
            "A",
            event("a"),
            f"<event>{name}</event>",
            event("b", "yesterday"),
            event("", "2024-01-01T00:00:00Z"),
            event("c"),
        ),
        event("outside"),
    )
    for chunk in (40, 10**6):
        decoded = read(data, chunk=chunk)
        assert decoded.events["position"].to_pylist() == [0, 4]
        assert (decoded.decoded, decoded.dead, decoded.rejected) == (2, 4, 0)
        assert [(f.error, f.source) for f in decoded.failures] == [
            ("MissingTime", "log.xes:1"),
            ("BadTime", "log.xes:2"),
            ("MissingActivity", "log.xes:3"),
            ("MissingCaseId", "log.xes:5"),
        ]
        bad_time = decoded.failures[1]
        assert "yesterday" in bad_time.message
        assert bad_time.payload == event("b", "yesterday").encode()
        assert bad_time.attributes["case_id"] == "A"
        assert bad_time.attributes["format"] == "xes"


@pytest.mark.parametrize("chunk", [64, 3000, 1 << 20])
@pytest.mark.parametrize("comment", ["", "<!-- -->"])
def test_an_event_above_the_limit_is_dead_and_its_neighbours_are_not(
    chunk: int, comment: str
) -> None:
    large = event("big", more=attribute("doc", "x" * 5000))
    many = event("many", more=attribute("n", "y" * 20) * 150)
    data = log(trace("A", comment + event("a"), large, event("b"), many), trace("B", event("c")))
    decoded = read(data, Context(max_message_bytes=2000), chunk)
    assert decoded.events["activity"].to_pylist() == ["a", "b", "c"]
    assert decoded.events["position"].to_pylist() == [0, 2, 4]
    assert decoded.events["case_id"].to_pylist() == ["A", "A", "B"]
    assert [(f.error, f.source) for f in decoded.failures] == [
        ("TooLarge", "log.xes:1"),
        ("TooLarge", "log.xes:3"),
    ]
    assert [f.size for f in decoded.failures] == [len(large), len(many)]
    assert all(f.attributes["case_id"] == "A" for f in decoded.failures)
    assert large.encode().startswith(decoded.failures[0].payload)


@pytest.mark.parametrize("chunk", [64, 1 << 20])
def test_a_large_event_without_an_end_and_a_large_trace_attribute_end_the_file(chunk: int) -> None:
    large = attribute("doc", "x" * 9000)
    context = Context(max_message_bytes=2000)
    cut = log(trace("A", event("a"), event("b", more=large)))[: -len("</event></trace></log>") - 9]
    decoded = read(cut, context, chunk)
    assert decoded.events["activity"].to_pylist() == ["a"]
    assert {f.error for f in decoded.failures} <= {"TooLarge", "InvalidXml"}
    assert decoded.failures[-1].error == "InvalidXml"
    if chunk < 2000:  # larger pieces are never held back, so nothing is too large
        decoded = read(log(trace("A", event("a")), f"<trace>{large}</trace>"), context, chunk)
        assert decoded.events["activity"].to_pylist() == ["a"]
        assert [f.error for f in decoded.failures] == ["TooLarge"]


def test_a_large_trace_of_small_events_is_no_large_event() -> None:
    data = log(trace("A", *(event(f"a{i}") for i in range(300))))
    decoded = read(data, Context(max_message_bytes=1000), 256)
    assert (decoded.decoded, decoded.dead) == (300, 0)


@pytest.mark.parametrize(
    ("data", "warning"),
    [
        (b"", "log.xes is empty"),
        (b"<log/>", "log.xes has no traces"),
        (log(), "log.xes has no traces"),
    ],
)
def test_a_file_without_events_is_a_warning(data: bytes, warning: str) -> None:
    decoded = read([file_of(data), file_of(log(trace("A", event())), "good.xes")])
    assert (decoded.decoded, decoded.dead, decoded.skipped) == (1, 0, 0)
    assert decoded.warnings == [warning]


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252", "shift_jis"]
)
@pytest.mark.parametrize("chunk", [3, 64, 1 << 20])
def test_any_encoding_is_read(encoding: str, chunk: int) -> None:
    text = "日本" if encoding == "shift_jis" else "Prüfung"
    declared = encoding.replace("-sig", "").replace("-le", "")
    data = (
        f'<?xml version="1.0" encoding="{declared}"?>' + log(trace(text, event(text))).decode()[21:]
    )
    raw = data.encode(encoding)
    decoded = read(raw, chunk=chunk)
    assert decoded.events["case_id"].to_pylist() == decoded.events["activity"].to_pylist() == [text]
    assert FORMAT.detects(raw, "data")


def test_bytes_that_are_not_of_the_encoding_end_the_file() -> None:
    for declared in ("utf-8", "shift_jis"):
        good = log(trace("A", event("a")))[21:-7]
        data = (
            f'<?xml version="1.0" encoding="{declared}"?>'.encode() + good + b"\xff\xff\xff</log>"
        )
        decoded = read(data)
        assert decoded.events["activity"].to_pylist() == ["a"]
        assert [f.error for f in decoded.failures] == ["InvalidXml"]


# ---------------------------------------------------------------- streaming


def test_a_file_is_read_as_a_stream_in_batches() -> None:
    part = trace("A", *(event("some activity") for _ in range(500))).encode()

    class Endless(io.RawIOBase):
        total = 0

        def read1(self, size: int) -> bytes:
            start = b"<log>" if self.total == 0 else b""
            Endless.total += len(part)
            return start + part

    file = InputFile("endless.xes", -1, Endless)  # type: ignore[arg-type]
    batches: Iterator[Decoded] = FORMAT.read([(file, Span())], Context())
    for n in range(1, 4):
        batch = next(batches)
        assert batch.decoded > 50_000
        assert Endless.total < (n + 0.2) * 16 * 1024 * 1024 + n * 2**20


def test_small_files_share_a_batch_and_keep_their_source() -> None:
    files = [
        file_of(log(trace("A", event()), head=attribute("concept:name", f"G{i}")), f"{i}.xes")
        for i in range(20)
    ]
    batches = list(FORMAT.read([(f, Span()) for f in files], Context()))
    assert len(batches) == 1
    assert batches[0].events["source"].to_pylist() == [f"{i}.xes" for i in range(20)]
    assert batches[0].events["workflow_group"].to_pylist() == [f"G{i}" for i in range(20)]
    assert set(batches[0].events["position"].to_pylist()) == {0}


def test_plain_logs_take_the_columnar_way(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[bool] = []

    def watched(*args: Any) -> Any:
        found = scan(*args)
        outcomes.append(found is not None)
        return found

    monkeypatch.setattr(xes_log, "scan", watched)
    odd = event("b").replace("concept:name", "concept:name\n")
    read(log(*(trace("A", event(), odd if i == 5 else event()) for i in range(200))), chunk=2000)
    assert outcomes.count(False) == 1
    assert outcomes.count(True) > 10


# ---------------------------------------------------------------- messages


def decode(payload: str | bytes, context: Context | None = None, **attributes_: str) -> Decoded:
    data = payload.encode() if isinstance(payload, str) else payload
    message = Message(data, "topic/0", 17, attributes_, 1_700_000_000_000_000)
    return FORMAT.decode([message], context or Context())


def test_a_message_of_one_event() -> None:
    decoded = decode('<?xml version="1.0"?>\n' + event("a"), case_id="A")
    assert (decoded.decoded, decoded.dead) == (1, 0)
    row = decoded.events.to_pylist()[0]
    assert (row["case_id"], row["activity"], row["position"]) == ("A", "a", None)
    assert (row["source"], row["source_offset"]) == ("topic/0", 17)
    assert str(decoded.events["record_time"][0]) == "2023-11-14 22:13:20+00:00"
    again = decode('<?xml version="1.0"?>\n' + event("a"), case_id="A")
    other = decode(event("a", more=attribute("n", "2")), case_id="A")
    assert again.events["event_id"] == decoded.events["event_id"]
    assert other.events["event_id"] != decoded.events["event_id"]


def test_messages_of_a_trace_and_of_a_log() -> None:
    decoded = decode(trace("A", event("a"), event("b", "never"), event("a")))
    assert (decoded.decoded, decoded.dead, decoded.rejected) == (1, 0, 1)
    assert decoded.events["position"].to_pylist() == [0, 2]
    assert len(set(decoded.events["event_id"].to_pylist())) == 2
    assert decoded.failures[0].payload == event("b", "never").encode()
    decoded = decode(
        log(trace("A", event()), trace("B", event()), head=attribute("concept:name", "G"))
    )
    assert decoded.events["case_id"].to_pylist() == ["A", "B"]
    assert decoded.events["workflow_group"].to_pylist() == ["G", "G"]
    unnamed = decode("<trace>" + event() + "</trace>")
    assert [f.error for f in unnamed.failures] == ["MissingCaseId"]
    assert decode("<trace>" + event() + "</trace>", case_id="A").decoded == 1


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ("", "InvalidXml"),
        ("<event>", "InvalidXml"),
        (trace("A", event()) + "x", "InvalidXml"),
        ("<order/>", "InvalidXml"),
        (BOMB, "ForbiddenDtd"),
        (event(more=attribute("n", "x" * 3000)), "TooLarge"),
        (event("a", "never"), "BadTime"),
    ],
)
def test_a_bad_message_is_dead_as_a_whole(payload: str | bytes, error: str) -> None:
    decoded = decode(payload, Context(max_message_bytes=2000), case_id="A", mine="kept")
    assert (decoded.decoded, decoded.dead, decoded.rejected) == (0, 1, 0)
    assert decoded.failures[0].error == error
    assert decoded.failures[0].attributes["mine"] == "kept"
    assert decoded.failures[0].attributes["format"] == "xes"


def test_a_message_without_events_is_skipped() -> None:
    decoded = decode("<trace/>")
    assert (decoded.decoded, decoded.skipped, decoded.dead) == (0, 1, 0)


def replay(failures: Sequence[Failure], context: Context) -> Decoded:
    messages = [Message(f.payload, f.source, i, f.attributes) for i, f in enumerate(failures)]
    return FORMAT.decode(messages, context)


def test_dead_letters_replay_to_the_events_they_would_have_been() -> None:
    odd = (
        "<event><string key='time:timestamp' value='02.01.2024'/>"
        "<string key='step' value='s'/></event>"
    )
    data = log(
        f"<trace>{attribute('concept:name', 'A & B')}{attribute('kind', 'K')}{odd}{odd}</trace>",
        f"<trace>{odd}</trace>",
        head=attribute("concept:name", "G") + '<classifier name="c" keys="step"/>',
    )
    for items in ((), ("kind",)):
        failures = read(data, Context(items=items)).failures
        assert [f.error for f in failures] == ["BadTime"] * 3
        again = replay(failures, Context(items=items))
        assert [f.error for f in again.failures] == ["BadTime"] * 3
        assert [f.attributes for f in again.failures] == [f.attributes for f in failures]
        fixed = Context(items=items, time_format="%d.%m.%Y")
        repaired, expected = replay(failures, fixed), read(data, fixed)
        drop = ["source", "source_offset"]
        assert repaired.events.drop_columns(drop).to_pylist() == (
            expected.events.drop_columns(drop).to_pylist()
        )


# ---------------------------------------------------------------- detection, real logs


@pytest.mark.parametrize(
    ("head", "name", "expected"),
    [
        (log(trace("A", event())), "x", True),
        (b"<!-- c --><x:log xmlns:x='y'>\n <x:extension/>", "x", True),
        (BOMB, "x", True),
        (b"<log/>", "x", True),
        (b"", "a.xes.gz", True),
        (b"", "a.xml", False),
        (b"<!-- only a comment so far", "a.XES", True),
        (b"<log><logentry revision='1'/>", "a.xml", False),
        (b"<document><item/></document>", "a.xes", False),
        (b"case,activity\n", "a.xes", False),
        (b'{"log": []}', "a.json", False),
        (b"\x89PNG\r\n", "a.png", False),
    ],
)
def test_detection(head: bytes, name: str, expected: bool) -> None:
    assert FORMAT.detects(head, name) is expected


@pytest.mark.parametrize(
    ("name", "cases", "events"),
    [
        ("running-example.xes", 6, 42),
        ("receipt.xes.gz", 1_434, 8_577),
        ("helpdesk.xes.gz", 4_580, 21_348),
        ("roadtraffic100traces.xes", 100, 390),
    ],
)
@pytest.mark.parametrize("chunk", [20_000, 1 << 20])
def test_real_logs(name: str, cases: int, events: int, chunk: int) -> None:
    path = DATA / name
    if not path.exists():
        pytest.skip("the shared logs are not here")
    opener: Any = gzip.open if name.endswith(".gz") else open
    decoded = read([InputFile(str(path), -1, lambda: opener(path, "rb"))], chunk=chunk)
    assert (decoded.events.num_rows, decoded.dead) == (events, 0)
    assert pc.count_distinct(decoded.events["case_id"]).as_py() == cases
    assert not decoded.warnings
