"""OCEL: one event of each case, in every notation the same; what is wrong is said, and no more."""

from __future__ import annotations

import datetime
import gzip
import io
import json
import random
import sqlite3
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.formats.files import memory_file, read_all, rows
from tests.formats.ocel.logs import Log, orders
from transforms.formats import registry
from transforms.formats.base import Context, Decoded, Message, Span
from transforms.formats.dead_letters import _Letter, _replay
from transforms.formats.ocel import database
from transforms.formats.ocel.format import FORMAT

LOGS = Path("/work/shared/data/logs")
ITEMS = ("price", "clerk", "ocel:qualifier")
ORDER = Context(object_type="order", items=ITEMS)


def written(log: Log, notation: str, folder: Path) -> bytes:
    if notation == "sqlite":
        return log.as_sqlite(folder / "log.sqlite")
    return {"json": log.as_json, "xml": log.as_xml, "json 1.0": log.as_json_1}[notation]()


def table(found: Decoded) -> list[dict[str, Any]]:
    """Return the events, the cases of an event in one order."""
    listed = found.events.drop_columns(["source"]).to_pylist()
    return sorted(listed, key=lambda row: (row["position"], row["case_id"]))


@pytest.mark.parametrize("notation", ["json", "xml", "sqlite"])
def test_an_event_is_one_of_each_case(notation: str, tmp_path: Path) -> None:
    data = written(orders(), notation, tmp_path)
    assert registry.detect(data[: registry.HEAD_BYTES], "some/file") is FORMAT
    found = read_all(FORMAT, data, ORDER)
    assert (found.received, found.decoded, found.skipped, found.dead) == (6, 5, 1, 0)
    got = [(r["event_id"], r["case_id"], r["activity"], r["position"]) for r in table(found)]
    assert got == [
        ("e1", "o1", "place", 0),
        ("e2", "o2", "place", 1),
        ("e3", "o1", "change", 2),
        ("e4", "o1", "ship", 3),
        ("e4", "o2", "ship", 3),
        ("e6", "o2", "pay", 5),
    ]
    first = table(found)[0]
    assert first["event_time"] == datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
    assert (first["workflow_group"], first["state"]) == ("order", "place")
    assert [row["actor"] for row in table(found)] == [None, None, None, "bo", "bo", None]


@pytest.mark.parametrize("notation", ["json", "xml", "sqlite"])
def test_a_case_has_the_attributes_of_that_time(notation: str, tmp_path: Path) -> None:
    found = read_all(FORMAT, written(orders(), notation, tmp_path), ORDER)
    got = [dict(row["attributes"]) for row in table(found)]
    # An event's own attribute counts before that of its case; a change counts from its own moment.
    assert [each["price"] for each in got] == ["10", "20", "own", "10", "25", "30"]
    assert got[0] == {"price": "10", "clerk": "kim", "ocel:qualifier": "a"}


def test_version_1(tmp_path: Path) -> None:
    data = written(orders(), "json 1.0", tmp_path)
    assert registry.detect(data[: registry.HEAD_BYTES], "some/file") is FORMAT
    found = read_all(FORMAT, data, ORDER)
    assert (found.decoded, found.skipped) == (5, 1)
    assert [dict(row["attributes"]).get("price") for row in table(found)] == [
        "10",
        "30",
        "own",
        "10",
        "30",
        "30",
    ]


def test_the_only_type_is_taken(tmp_path: Path) -> None:
    log = orders()
    del log.objects["i1"]
    log.events = [event for event in log.events if ("i1", "a") not in event[4]]
    log.events[0][4].pop()
    for notation in ("json", "xml", "sqlite", "json 1.0"):
        data = written(log, notation, tmp_path)
        assert FORMAT.demands(memory_file(data), Context()) is None
        assert read_all(FORMAT, data).events.num_rows == 6


@pytest.mark.parametrize("notation", ["json", "xml", "sqlite", "json 1.0"])
def test_several_types_and_none_chosen(notation: str, tmp_path: Path) -> None:
    data = written(orders(), notation, tmp_path)
    said = FORMAT.demands(memory_file(data), Context())
    assert said is not None
    assert "'item' (1 object, 2 events), 'order' (2 objects, 5 events)" in said
    assert "--object_type" in said
    found = read_all(FORMAT, data)
    assert (found.decoded, [f.error for f in found.failures]) == (0, ["UndecidedObjectType"])


@pytest.mark.parametrize("notation", ["json", "xml", "sqlite"])
def test_a_type_that_is_not_there(notation: str, tmp_path: Path) -> None:
    data = written(orders(), notation, tmp_path)
    context = Context(object_type="ordre")
    said = FORMAT.demands(memory_file(data), context)
    assert said is not None
    assert "did you mean 'order'?" in said
    found = read_all(FORMAT, data, context)
    assert (found.decoded, found.skipped, found.dead) == (0, 6, 0)
    assert any("no object of type 'ordre'" in warning for warning in found.warnings)


def test_columns_may_come_from_attributes() -> None:
    context = Context(object_type="order", columns={"actor": "clerk", "workflow_group": "price"})
    first = table(read_all(FORMAT, orders().as_json(), context))[0]
    assert (first["actor"], first["workflow_group"]) == ("kim", "10")


@pytest.mark.skipif(not LOGS.is_dir(), reason="the shared logs are not here")
def test_the_standard_s_example_is_the_same_in_each_notation() -> None:
    """13 events each; the XML and SQLite files have local times without a zone, of Berlin."""
    for type_, cases, skipped in (
        ("Purchase Order", 5, 8),
        ("Invoice", 9, 4),
        ("Payment", 3, 10),
        ("Purchase Requisition", 3, 10),
    ):
        tables = []
        for name, zone in (("json", "UTC"), ("xml", "Europe/Berlin"), ("sqlite", "Europe/Berlin")):
            path = LOGS / f"ocel20_example.{name}{'' if name == 'sqlite' else 'ocel'}"
            data = path.read_bytes()
            assert registry.detect(data[: registry.HEAD_BYTES], str(path)) is FORMAT
            items = ("po_quantity", "po_product", "is_blocked", "po_creator", "ocel:qualifier")
            context = Context(object_type=type_, timezone=zone, items=items)
            found = read_all(FORMAT, data, context)
            assert (found.received, found.dead) == (13, 0)
            assert (found.decoded, found.skipped) == (cases, skipped)
            tables.append(table(found))
        assert tables[0] == tables[1] == tables[2]


NAMES = st.sampled_from(["a", "b&<", "ä", "x'y"])
TIMES = st.integers(0, 40).map(lambda day: f"2024-01-01T00:{day:02d}:00Z")


@st.composite
def logs(draw: st.DrawFn) -> Log:
    objects = {
        f"o{i}": (draw(st.sampled_from(["A", "B"])), draw(st.lists(st.tuples(NAMES, TIMES, NAMES))))
        for i in range(draw(st.integers(1, 4)))
    }
    # Of one attribute at one time there is one value.
    objects = {
        id_: (type_, [(n, t, v) for (n, t), v in {(n, t): v for n, t, v in changes}.items()])
        for id_, (type_, changes) in objects.items()
    }
    related = st.lists(st.tuples(st.sampled_from([*objects, "gone"]), NAMES), max_size=4)
    events = [
        (f"e{i}", draw(NAMES), draw(TIMES), draw(st.dictionaries(NAMES, NAMES)), draw(related))
        for i in range(draw(st.integers(1, 6)))
    ]
    # The qualifier of a case is that of its first relation; SQLite has no first one.
    events = [(*e[:4], [(o, q) for o, q in dict(e[4]).items()]) for e in events]
    return Log(objects, events)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(logs(), st.integers(1, 3))
def test_all_notations_say_the_same(tmp_path: Path, log: Log, chunk: int) -> None:
    context = Context(object_type="A", items=("a", "b&<", "ä", "ocel:qualifier"))
    made = [read_all(FORMAT, log.as_json(), context), read_all(FORMAT, log.as_xml(), context)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "EVENTS", chunk)
        made.append(read_all(FORMAT, log.as_sqlite(tmp_path / "log.sqlite"), context))
    for found in made:
        assert found.received == len(log.events)
        counts = (found.decoded, found.skipped, found.dead, found.rejected)
        assert counts == (
            made[0].decoded,
            made[0].skipped,
            made[0].dead,
            made[0].rejected,
        )
    assert table(made[0]) == table(made[1]) == table(made[2])
    expected = sorted(
        (id_, case)
        for id_, _, _, _, relations in log.events
        for case in {o for o, _ in relations if o in log.objects and log.objects[o][0] == "A"}
    )
    assert sorted(rows(made[0].events, "event_id", "case_id")) == expected
    lost = [e[0] for e in log.events if any(o == "gone" for o, _ in e[4])]
    assert len(made[0].failures) == len(lost)


@pytest.mark.parametrize("notation", ["json", "xml", "sqlite"])
def test_relations_to_unknown_objects(notation: str, tmp_path: Path) -> None:
    log = orders()
    log.events[0][4].append(("gone", "x"))
    log.events.append(("e7", "pay", "2024-01-07T00:00:00Z", {}, [("away", "x")]))
    log.events.append(("e8", "pay", "2024-01-08T00:00:00Z", {}, []))
    found = read_all(FORMAT, written(log, notation, tmp_path), ORDER)
    assert (found.received, found.decoded, found.skipped) == (8, 5, 2)
    assert (found.dead, found.rejected) == (1, 1)
    assert [(f.error, f.source) for f in found.failures] == [
        ("UnknownObject", "memory/log:0"),
        ("UnknownObject", "memory/log:6"),
    ]
    assert "'away', which the log does not have" in found.failures[1].message
    assert "memory/log: 1 event without objects skipped" in found.warnings


def test_a_bad_event_is_a_log_of_its_own_that_can_be_read_again() -> None:
    log = orders()
    log.events[3] = ("e4", "ship", "04.01.2024", {}, [("o1", "a"), ("o2", "b"), ("i1", "c")])
    log.events[4] = ("e5", "", "2024-01-05T00:00:00Z", {}, [("o1", "a")])
    found = read_all(FORMAT, log.as_json(), ORDER)
    assert (found.decoded, found.dead, found.rejected) == (4, 2, 0)
    assert [(f.error, f.source) for f in found.failures] == [
        ("BadTime", "memory/log:3"),
        ("MissingActivity", "memory/log:4"),
    ]
    failure = found.failures[0]
    letter = _Letter(failure.payload, len(failure.payload), failure.attributes, failure.source)
    again = _replay([letter], Context(time_format="%d.%m.%Y", items=("price",)))
    assert again.decoded == 1
    got = [(r["case_id"], r["position"], dict(r["attributes"])["price"]) for r in table(again)]
    assert got == [("o1", 3, "10"), ("o2", 3, "30")]
    assert again.events["source"].to_pylist() == ["memory/log"] * 2


def test_a_message_is_a_small_log() -> None:
    bad = orders()
    bad.events[0] = ("e1", "place", "never", {}, [("o1", "a")])
    messages = [
        Message(payload, "logs/0", i, {"h": "1"}, 1_700_000_000_000_000)
        for i, payload in enumerate([orders().as_xml(), bad.as_json(), b"{}", orders().as_json()])
    ]
    found = FORMAT.decode(messages, ORDER)
    assert (found.received, found.decoded, found.dead, found.rejected) == (4, 3, 1, 1)
    assert set(rows(found.events, "source", "source_offset", "position")) == {
        ("logs/0", 0, None),
        ("logs/0", 1, None),
        ("logs/0", 3, None),
    }
    assert [(f.source, f.error, f.attributes["h"]) for f in found.failures] == [
        ("logs/0/1", "BadTime", "1"),
        ("logs/0/2", "InvalidOcel", "1"),
    ]


LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE log [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;">]><log><objects/><events>&c;</events></log>"""


@pytest.mark.parametrize(
    ("data", "error", "reason"),
    [
        (LAUGHS, "ForbiddenDtd", "document type"),
        (b'{"objectTypes": [', "InvalidJson", ""),
        (b'{"objectTypes": []}', "InvalidOcel", "no events and objects"),
        (b'{"objectTypes": [], "events": {}, "objects": []}', "InvalidOcel", "no list"),
        (b'{"objectTypes": [], "events": [5], "objects": []}', "InvalidOcel", "no list"),
        (b'{"objectTypes": [], "events": [], "objects": [{"id": "x"}]}', "InvalidOcel", "type"),
        (b'{"ocel:events": []}', "InvalidOcel", "no object of objects"),
        (b'{"ocel:events": {"e": {"ocel:omap": 5}}}', "InvalidOcel", "no list"),
        (b"<log><objects><object id='a'/></objects></log>", "InvalidOcel", "without id or type"),
        (b"<log><objects><object id='a' type='b'>", "InvalidXml", "no element found"),
        (b"<log><objects></events></log>", "InvalidXml", "mismatched tag"),
        (b"<lag><objects/></lag>", "InvalidOcel", "its root is lag"),
    ],
)
def test_what_is_no_log_is_one_dead_letter(data: bytes, error: str, reason: str) -> None:
    found = read_all(FORMAT, data, ORDER)
    assert (found.decoded, found.dead) == (0, 1)
    assert found.failures[0].error == error
    assert reason in found.failures[0].message
    assert found.failures[0].payload == data


def test_external_entities_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    data = (
        f'<!DOCTYPE log [<!ENTITY s SYSTEM "{secret.as_uri()}">]><log><objects>&s;</objects></log>'
    )
    found = read_all(FORMAT, data.encode(), ORDER)
    assert [f.error for f in found.failures] == ["ForbiddenDtd"]


def test_xml_that_breaks_off_keeps_what_came_before() -> None:
    data = orders().as_xml()
    cut = data.index(b"e4") - 8
    found = read_all(FORMAT, data[:cut], ORDER)
    assert (found.decoded, found.dead, found.failures[0].error) == (3, 1, "InvalidXml")


def test_a_log_that_is_too_large_says_what_to_do() -> None:
    data = orders().as_json()
    found = read_all(FORMAT, data, Context(object_type="order", max_message_bytes=200))
    assert found.failures[0].error == "TooLarge"
    assert "SQLite, which is read in parts" in found.failures[0].message


def test_a_truncated_archive_is_one_dead_letter() -> None:
    packed = gzip.compress(orders().as_json())[:-20]

    def opener() -> BinaryIO:
        return cast(BinaryIO, gzip.open(io.BytesIO(packed)))

    found = read_all(FORMAT, memory_file(packed, compressed=True, opener=opener), ORDER)
    assert [f.error for f in found.failures] == ["TruncatedFile"]


class TestSqlite:
    def read(self, data: bytes) -> Decoded:
        return read_all(FORMAT, data, ORDER)

    def test_other_databases(self, tmp_path: Path) -> None:
        path = tmp_path / "other.sqlite"
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE people (name TEXT)")
        found = self.read(path.read_bytes())
        assert [(f.error, f.message) for f in found.failures] == [
            ("InvalidOcel", "a database that is no OCEL 2.0: it has no table event")
        ]

    def test_views_and_virtual_tables_are_no_tables(self, tmp_path: Path) -> None:
        path = tmp_path / "log.sqlite"
        orders().as_sqlite(path)
        with sqlite3.connect(path) as log:
            log.execute("ALTER TABLE event RENAME TO real")
            log.execute(
                "CREATE VIEW event AS WITH RECURSIVE n(i) AS "
                "(SELECT 1 UNION ALL SELECT i + 1 FROM n)"
                " SELECT i AS ocel_id, 'x' AS ocel_type FROM n"
            )
        found = self.read(path.read_bytes())
        assert found.failures[0].message.endswith("it has no table event")

    def test_missing_columns(self, tmp_path: Path) -> None:
        path = tmp_path / "log.sqlite"
        orders().as_sqlite(path)
        with sqlite3.connect(path) as log:
            log.execute("ALTER TABLE event RENAME COLUMN ocel_type TO kind")
        found = self.read(path.read_bytes())
        assert "no ocel_type in table event" in found.failures[0].message

    def test_an_event_type_without_a_table_has_no_times(self, tmp_path: Path) -> None:
        path = tmp_path / "log.sqlite"
        orders().as_sqlite(path)
        with sqlite3.connect(path) as log:
            log.execute("DELETE FROM event_map_type WHERE ocel_type = 'pay'")
        found = self.read(path.read_bytes())
        assert [(f.error, f.source) for f in found.failures] == [("MissingTime", "memory/log:5")]
        assert found.decoded == 4

    def test_names_with_quotes(self, tmp_path: Path) -> None:
        log = orders()
        log.objects["o1"] = ('or"der; DROP', [('pri"ce', "1970-01-01T00:00:00Z", "1")])
        data = log.as_sqlite(tmp_path / "log.sqlite")
        found = read_all(FORMAT, data, Context(object_type='or"der; DROP', items=('pri"ce',)))
        assert [dict(row["attributes"]) for row in table(found)] == [{'pri"ce': "1"}] * 3

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        log = orders()
        log.events = [
            (f"e{i}", "place", "2024-01-01T00:00:00Z", {"clerk": "k" * 50}, [("o1", "a")])
            for i in range(4000)
        ]
        data = bytearray(log.as_sqlite(tmp_path / "log.sqlite"))
        for cut in (data[: len(data) // 2], data[:3000], data[:20]):
            found = self.read(bytes(cut))
            assert found.dead == 1
            assert found.failures[0].error in ("CorruptFile", "InvalidOcel")
        middle = len(data) // 2
        data[middle : middle + 8192] = b"\xff" * 8192
        found = self.read(bytes(data))
        assert found.failures[-1].error == "CorruptFile"

    def test_nothing_is_left_behind_and_nothing_written(self, tmp_path: Path) -> None:
        data = orders().as_sqlite(tmp_path / "log.sqlite")
        with pytest.MonkeyPatch.context() as patch:
            (tmp_path / "copies").mkdir()
            patch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
            file = memory_file(data)
            with database.opened(file) as log:
                for statement in (
                    "DELETE FROM event",
                    "ATTACH 'x' AS x",
                    "SELECT load_extension('x')",
                    "SELECT randomblob(10)",
                    "CREATE TEMP VIEW v AS SELECT 1",
                ):
                    with pytest.raises(sqlite3.DatabaseError):
                        log._db.execute(statement)
            assert read_all(FORMAT, data, ORDER).decoded == 5
            assert list((tmp_path / "copies").iterdir()) == []

    def test_blobs_and_numbers(self, tmp_path: Path) -> None:
        path = tmp_path / "log.sqlite"
        orders().as_sqlite(path)
        with sqlite3.connect(path) as log:
            log.execute("UPDATE event_T3 SET clerk = X'FF00' WHERE ocel_id = 'e1'")
            log.execute("UPDATE event_T3 SET ocel_time = 1704067200 WHERE ocel_id = 'e1'")
        first = table(self.read(path.read_bytes()))[0]
        assert first["event_time"] == datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
        assert dict(first["attributes"])["clerk"].startswith("\ufffd")


def test_detection() -> None:
    assert registry.detect(b"SQLite format 3\0" + bytes(84), "x") is FORMAT
    begun = json.dumps({"events": [{"id": "e", "relationships": []}], "objects": []}).encode()
    assert registry.detect(begun, "x") is FORMAT
    assert registry.detect("\ufeff<log>\n<event-types/>".encode("utf-16"), "x") is FORMAT
    assert registry.detect(b'{"objects": 1, "case_id": "c"}', "x.jsonl") is not FORMAT
    assert registry.detect(b"<log><trace/></log>", "x") is not FORMAT
    assert FORMAT.spans(memory_file(b""), Context()) == [Span()]


KEYS = st.sampled_from(
    "id type time attributes relationships name value objectId qualifier events objects".split()
    + "objectTypes ocel:events ocel:objects ocel:omap ocel:vmap ocel:ovmap ocel:type".split()
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["o1", "order", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=200)
@given(VALUES, VALUES, VALUES, st.booleans())
def test_json_of_any_shape(events: Any, objects: Any, one: Any, first: bool) -> None:
    data = json.dumps({"ocel:events": events, "ocel:objects": objects}).encode()
    if not first:
        log = {"objectTypes": [], "events": [one, events], "objects": objects}
        data = json.dumps(log).encode()
    for context in (ORDER, Context(), Context(object_type="")):
        found = read_all(FORMAT, data, context)
        assert found.received == found.decoded + found.skipped + found.dead
        FORMAT.demands(memory_file(data), context)
        made = FORMAT.decode([Message(data, "t/0", 1, {}, 1)], context)
        assert made.received == 1


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_xml_with_wrong_bytes(data: st.DataObject) -> None:
    log = bytearray(orders().as_xml())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(log) - 1))
        log[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=3))
    found = read_all(FORMAT, bytes(log), ORDER)
    assert found.received == found.decoded + found.skipped + found.dead


@pytest.mark.parametrize("seed", range(40))
def test_databases_with_wrong_bytes(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    log = bytearray(orders().as_sqlite(tmp_path / "log.sqlite"))
    for _ in range(draw.randrange(1, 30)):
        log[draw.randrange(16, len(log))] = draw.randrange(256)
    found = read_all(FORMAT, bytes(log), ORDER)
    assert found.received == found.decoded + found.skipped + found.dead
    FORMAT.demands(memory_file(bytes(log)), Context())
