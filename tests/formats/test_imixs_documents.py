"""From a snapshot to events: the same rules for XML and both JSON dialects."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.dead_letters import MAX_PAYLOAD
from tests.formats.files import memory_file, read_all
from tests.formats.imixs_builder import (
    Items,
    decode,
    errors,
    file_of,
    json_mapped,
    json_typed,
    log_line,
    read,
    rows,
    snapshot,
    to_json,
    xml_document,
)
from transforms.formats.base import (
    Context,
    Decoded,
    Format,
    Message,
)
from transforms.formats.imixs_json import FORMAT as JSON
from transforms.formats.imixs_xml import FORMAT as XML
from transforms.hashing import hash_strings

UTC = dt.timezone.utc
DOCUMENTS = Path(__file__).parents[2].parent / "shared" / "data" / "imixs" / "documents"
Write = Callable[[Items], bytes]

DIALECTS: dict[str, tuple[Format, Write]] = {
    "xml": (XML, xml_document),
    "pretty": (XML, lambda items: xml_document(items, "\n    ")),
    "typed": (JSON, lambda items: to_json(json_typed(items))),
    "mapped": (JSON, lambda items: to_json(json_mapped(items))),
}


@pytest.fixture(params=DIALECTS)
def events_of(request: pytest.FixtureRequest) -> Callable[..., Decoded]:
    """Decode snapshots in one dialect."""
    format_, write = DIALECTS[request.param]

    def run(*snapshots: Items, **settings: Any) -> Decoded:
        return decode(format_, *map(write, snapshots), context=Context(**settings))

    return run


Run = Callable[..., Decoded]

LOG = [log_line(0, 1000, 10, 1100, "ann"), log_line(5, 1100, 20, 1200), log_line(9, 1200, 20, 1200)]


def test_a_line_is_an_event(events_of: Run) -> None:
    decoded = events_of(snapshot(_eventlog=LOG))
    assert (decoded.decoded, decoded.skipped, decoded.dead, decoded.rejected) == (1, 0, 0, 0)
    first, second, third = rows(decoded)
    assert first == {
        "event_id": first["event_id"],
        "case_id": "case-1",
        "event_time": dt.datetime(2024, 8, 26, 22, 0, 20, 469000, UTC),
        "activity": "10",
        "state": "1100",
        "source_state": "1000",
        "task": 1100,
        "event": 10,
        "source_task": 1000,
        "actor": "ann",
        "workflow_group": "Order",
        "model_version": "order-1.0",
        "lifecycle": None,
        "position": 0,
        "transaction_id": None,
        "start_time": None,
        "attributes": None,
        "record_time": dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
        "log": None,
        "truncated": None,
        "source": "topic/0",
        "source_offset": 0,
    }
    assert [second["state"], third["state"], third["source_state"]] == ["1200", "1200", "1200"]
    ids = [row["event_id"] for row in (first, second, third)]
    assert len(set(ids)) == 3
    assert third["log"] == hash_strings(pa.array(ids)).tolist()
    assert second["log"] is None


def test_what_the_snapshot_says_is_on_its_last_line_only(events_of: Run) -> None:
    decoded = events_of(
        snapshot(_eventlog=LOG, _transactionid="tx", amount="12.5", team=["a", 'b"'], empty=""),
        items=("Amount", "team", "absent", "empty"),
    )
    first, second, third = rows(decoded)
    assert [first["actor"], second["actor"], third["actor"]] == ["ann", None, "lena"]
    assert [row["transaction_id"] for row in (first, second, third)] == [None, None, "tx"]
    assert first["attributes"] is None
    assert dict(third["attributes"]) == {"amount": "12.5", "team": '["a","b\\""]', "empty": ""}


def test_the_last_line_is_the_latest(events_of: Run) -> None:
    decoded = events_of(snapshot(_eventlog=[LOG[2], LOG[0], LOG[1]], _transactionid="tx"))
    latest, first, second = rows(decoded)
    assert [first["transaction_id"], second["transaction_id"]] == [None, None]
    assert latest["transaction_id"] == "tx"
    ids = [row["event_id"] for row in (latest, first, second)]
    assert latest["log"] == hash_strings(pa.array(ids)).tolist()


def test_lines_of_one_time_have_positions_and_repeated_lines_ids_of_their_own(
    events_of: Run,
) -> None:
    decoded = events_of(snapshot(_eventlog=[LOG[0], LOG[0], log_line(0, 1100, 20, 1200), LOG[1]]))
    found = rows(decoded)
    assert [row["position"] for row in found] == [0, 1, 2, 0]
    assert len({row["event_id"] for row in found}) == 4


def test_a_line_has_the_same_id_in_every_snapshot_and_another_in_another_case(
    events_of: Run,
) -> None:
    decoded = events_of(
        snapshot(_eventlog=LOG[:2]), snapshot(_eventlog=LOG), snapshot(_uniqueid="b", _eventlog=LOG)
    )
    ids = [row["event_id"] for row in rows(decoded)]
    assert ids[:2] == ids[2:4]
    assert len(set(ids)) == 6


def test_the_ids_never_change(events_of: Run) -> None:
    (row,) = rows(events_of(snapshot(_eventlog=LOG[0])))
    assert row["event_id"] == "6bd100d0c25792dfe2a5a4379ae6dcc7"


@pytest.mark.parametrize(
    ("kind", "unique_id", "case_id"),
    [
        ("snapshot-workitem", "case-1-1724753060123", "case-1"),
        ("snapshot-workitemarchive", "case-1-1724753060123", "case-1"),
        ("snapshot-workitem", "case-1", "case-1"),
        ("snapshot-workitem", "0b81ffcd-804a-4763-93c4-017240530601", None),
        ("workitem", "case-1-1724753060123", "case-1-1724753060123"),
        ("workitemarchive", "case-1", "case-1"),
        (None, "case-1", "case-1"),
    ],
)
def test_the_case_of_a_snapshot_is_its_origin(
    events_of: Run, kind: str | None, unique_id: str, case_id: str | None
) -> None:
    decoded = events_of(snapshot(type=kind, _uniqueid=unique_id, _eventlog=LOG[0]))
    assert [row["case_id"] for row in rows(decoded)] == [case_id or unique_id]


@pytest.mark.parametrize("kind", ["config", "profile", "snapshot-profile", "workitemdeleted"])
def test_other_documents_are_skipped(events_of: Run, kind: str) -> None:
    decoded = events_of(snapshot(type=kind, _eventlog=LOG), snapshot(_eventlog=LOG))
    assert (decoded.decoded, decoded.skipped, decoded.dead) == (1, 1, 0)
    assert len(rows(decoded)) == 3


@pytest.mark.parametrize("unique_id", [None, ""])
def test_a_document_without_a_case_is_dead(events_of: Run, unique_id: str | None) -> None:
    decoded = events_of(snapshot(_uniqueid=unique_id, _eventlog=LOG), snapshot(_eventlog=LOG))
    assert errors(decoded) == ["MissingCaseId"]
    assert decoded.failures[0].source == "topic/0/0"
    assert (decoded.decoded, decoded.dead, len(rows(decoded))) == (1, 1, 3)


def test_an_unreadable_line_is_rejected_and_the_others_count(events_of: Run) -> None:
    decoded = events_of(snapshot(_eventlog=[LOG[0], "so|so", LOG[1], ""]))
    assert (decoded.decoded, decoded.dead, decoded.rejected) == (1, 0, 1)
    (failure,) = decoded.failures
    assert failure.payload == b"so|so"
    assert failure.error == "BadEventLogLine"
    assert failure.attributes["part"] == "$eventlog"
    assert failure.attributes["$uniqueid"] == "case-1"
    assert failure.attributes["format"].startswith("imixs_")
    found = rows(decoded)
    assert [row["state"] for row in found] == ["1100", "1200"]
    assert len(found[1]["log"]) == 2


def test_a_log_of_unreadable_lines_gives_no_guess(events_of: Run) -> None:
    decoded = events_of(snapshot(_eventlog="x", _modified="2024-08-27T12:00:00Z", _taskid=1))
    assert (decoded.decoded, decoded.dead, decoded.rejected, len(rows(decoded))) == (1, 0, 1, 0)


def test_the_deprecated_log_counts_where_there_is_no_log(events_of: Run) -> None:
    old = "2024-08-27T12:04:20.469|1.0.0|1000.20|1100|comment"
    decoded = events_of(
        snapshot(_eventlog="", txtworkflowactivitylog=old),
        snapshot(_eventlog=LOG[0], txtworkflowactivitylog=old),
        snapshot(_eventlog=None, txtworkflowactivitylog=[old, old]),
        timezone="Europe/Berlin",
    )
    found = rows(decoded)
    assert [row["model_version"] for row in found] == ["1.0.0", "order-1.0", "1.0.0", "1.0.0"]
    assert found[0]["event_time"] == dt.datetime(2024, 8, 27, 10, 4, 20, 469000, UTC)
    assert [row["source_offset"] for row in found] == [0, 1, 2, 2]


def test_deprecated_twins(events_of: Run) -> None:
    decoded = events_of(
        snapshot(_workflowgroup=None, txtworkflowgroup="Old", _lasteditor=None,
                 namlasteditor="otto", _eventlog=LOG[1]),
        snapshot(_workflowgroup="", txtworkflowgroup="Old", _editor="eva", _eventlog=LOG[1]),
    )  # fmt: skip
    found = rows(decoded)
    assert [row["workflow_group"] for row in found] == ["Old", "Old"]
    assert [row["actor"] for row in found] == ["otto", "eva"]


def test_the_model_of_a_line_comes_before_the_snapshots(events_of: Run) -> None:
    without = "2024-08-27T12:04:20Z||1000|10|1100|ann|"
    decoded = events_of(snapshot(_modelversion="order-2.0", _eventlog=[without, LOG[1]]))
    assert [row["model_version"] for row in rows(decoded)] == ["order-2.0", "order-1.0"]


LAST = {
    "_lasteventdate": "2024-08-27T12:04:20.469+02:00",
    "_lasttask": "1000",
    "_lastevent": "10",
    "_taskid": "1100",
}


def test_without_a_log_the_last_event_counts(events_of: Run) -> None:
    decoded = events_of(
        snapshot(**LAST, _transactionid="tx"),
        snapshot(_lasteventdate=None, _modified="2024-08-27T12:04:20.469+0200", _lasttask=None,
                 numlastactivityid="10", _processid="1100", _eventlog=["", " "]),
        snapshot(_eventlog=LOG),
        snapshot(**{**LAST, "_lastevent": None}, _activityid="7"),
    )  # fmt: skip
    found = rows(decoded)
    assert [row["source_offset"] for row in found] == [0, 1, 2, 2, 2, 3]
    first = found[0]
    assert first["event_time"] == dt.datetime(2024, 8, 27, 10, 4, 20, 469000, UTC)
    assert [first[c] for c in ("source_task", "event", "task", "activity", "state")] == [
        1000, 10, 1100, "10", "1100"]  # fmt: skip
    assert [first["actor"], first["transaction_id"], first["log"]] == ["lena", "tx", None]
    assert first["model_version"] == "order-1.0"
    assert [found[1][c] for c in ("source_task", "source_state", "event")] == [None, None, 10]
    assert found[1]["event_time"] == first["event_time"]
    assert found[5]["event"] == 7
    # The same event found in a log has the same id.
    (logged,) = rows(
        events_of(snapshot(_eventlog="2024-08-27T12:04:20.469+02:00|m|1000|10|1100||"))
    )
    assert logged["event_id"] == first["event_id"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"_lasteventdate": None}, "MissingTime"),
        ({"_lasteventdate": ""}, "MissingTime"),
        ({"_lasteventdate": "soon"}, "BadTime"),
        ({"_taskid": None}, "MissingTask"),
        ({"_taskid": "open"}, "BadTask"),
    ],
)
def test_a_last_event_without_time_or_task_is_dead(
    events_of: Run, change: Items, error: str
) -> None:
    decoded = events_of(snapshot(_eventlog=LOG), snapshot(**{**LAST, **change}))
    assert errors(decoded) == [error]
    assert (decoded.decoded, decoded.dead, len(rows(decoded))) == (1, 1, 3)


def test_a_last_event_of_another_age_is_dead_and_told_so(events_of: Run) -> None:
    (failure,) = events_of(snapshot(**{**LAST, "_lasteventdate": "9999-12-31T00:00:00Z"})).failures
    assert failure.error == "BadTime"
    assert "is out of range (a time is from 1678-01-01 to 2261-12-31): '9999-12-31" in (
        failure.message
    )


def old_log(lines: int) -> list[str]:
    return [f"2024-08-27T12:{i:02d}:20|1.0.0|{1000 + i}.20|{1001 + i}|" for i in range(lines)]


def new_log(lines: int) -> list[str]:
    return [log_line(i, 1000 + i, 20, 1001 + i) for i in range(lines)]


@pytest.mark.parametrize(
    ("items", "truncated"),
    [
        ({"_eventlog": old_log(30)}, True),
        ({"_eventlog": old_log(29)}, None),
        ({"_eventlog": old_log(31)}, None),
        ({"_eventlog": new_log(30)}, None),
        # migrated by a new engine, which keeps all lines from then on
        ({"_eventlog": new_log(31), "_eventlogdeprecated": old_log(30)}, True),
        ({"_eventlog": new_log(30), "_eventlogdeprecated": old_log(29)}, None),
        ({"_eventlog": new_log(40), "_eventlogdeprecated": old_log(30)}, True),
        # a new engine that did not migrate
        ({"_eventlog": [*old_log(30), log_line(900, 1030, 20, 1031)]}, True),
        ({"_eventlog": [*old_log(29), "unreadable"]}, True),
        ({"txtworkflowactivitylog": old_log(30)}, True),
        # the case was created with its first line
        ({"_eventlog": old_log(30), "_created": "2024-08-27T12:00:21.5Z"}, None),
        ({"_eventlog": old_log(30), "_created": "2024-08-27T11:59:59Z"}, True),
        ({"_eventlog": old_log(30), "_created": "2024-08-26T12:00:20Z"}, True),
        ({"_eventlog": old_log(30), "_created": "once"}, True),
    ],
)
def test_a_log_cut_by_its_engine_is_marked_on_its_first_line(
    events_of: Run, items: Items, truncated: bool | None
) -> None:
    found = rows(events_of(snapshot(**items), snapshot(_uniqueid="other", _eventlog=LOG)))
    assert found[0]["truncated"] is truncated
    assert not any(row["truncated"] for row in found[1:])


def test_positions_and_ids_stand_when_the_engine_cuts(events_of: Run) -> None:
    lines = old_log(33)
    before, after = (rows(events_of(snapshot(_eventlog=part))) for part in (lines, lines[3:]))
    for column in ("event_id", "position", "event_time"):
        assert [row[column] for row in before[3:]] == [row[column] for row in after]


def test_every_dialect_gives_the_same_events() -> None:
    items = snapshot(_eventlog=[*LOG, "bad"], _transactionid="tx", team=["a", "b"])
    results = [
        decode(format_, write(items), context=Context(items=("team",)))
        for format_, write in DIALECTS.values()
    ]
    assert all(result.events.equals(results[0].events) for result in results[1:])


def test_item_names_are_compared_in_lower_case(events_of: Run) -> None:
    items = {"$UniqueID": "case-1", "$EventLog": LOG[0], "Type": "workitem"}
    assert [row["case_id"] for row in rows(events_of(items))] == ["case-1"]


def test_an_empty_message_is_skipped() -> None:
    for format_ in (XML, JSON):
        decoded = decode(format_, b"", b" \n")
        assert (decoded.decoded, decoded.skipped, decoded.dead) == (0, 2, 0)
        assert decoded.events.num_rows == 0


def test_a_message_keeps_its_attributes_in_its_failure() -> None:
    message = Message(b"<document/>", "topic/3", 7, {"tenant": "x"}, 5)
    (failure,) = XML.decode([message], Context()).failures
    assert failure.attributes == {"tenant": "x", "format": "imixs_xml"}
    assert failure.source == "topic/3/7"


def test_a_dead_letter_decodes_again_once_it_is_mended() -> None:
    decoded = decode(XML, xml_document(snapshot(_uniqueid=None, _eventlog=LOG)))
    (failure,) = decoded.failures
    mended = failure.payload.replace(
        b"</document>", b'<item name="$uniqueid"><value>c</value></item></document>'
    )
    assert len(rows(decode(XML, mended))) == 3


texts = st.sampled_from(["", LOG[0], LOG[1], "bad", "2024-08-27T12:04:20|1|10.20|30|", "workitem"])
wild = st.dictionaries(
    st.sampled_from(
        ["$uniqueid", "type", "$eventlog", "txtworkflowactivitylog", "$modified", "$taskid",
         "$created", "$eventlogdeprecated", "other"]
    ),
    st.one_of(texts, st.lists(texts, max_size=3), st.sampled_from(["config", "1", "x"])),
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(wild, max_size=6), st.sampled_from(sorted(DIALECTS)))
def test_the_laws_of_counts(snapshots: list[Items], dialect: str) -> None:
    format_, write = DIALECTS[dialect]
    decoded = decode(format_, *map(write, snapshots), b"{broken", context=Context(items=("other",)))
    assert decoded.decoded + decoded.skipped + decoded.dead == len(snapshots) + 1
    assert len(decoded.failures) == decoded.dead + decoded.rejected
    assert len(set(map(tuple, ((r["source_offset"], r["event_id"]) for r in rows(decoded))))) == (
        decoded.events.num_rows
    )
    decoded.events.validate(full=True)
    # A document means the same alone and among others.
    alone = [row["event_id"] for items in snapshots for row in rows(decode(format_, write(items)))]
    assert alone == [row["event_id"] for row in rows(decoded)]


def test_files_and_their_documents_are_named_in_the_events() -> None:
    items = snapshot(_eventlog=LOG[0])
    (decoded,) = read(
        XML,
        *(file_of(xml_document(items), f"{name}.xml") for name in ("a", "b")),
        file_of(b"", "c"),
    )
    assert [(row["source"], row["source_offset"]) for row in rows(decoded)] == [
        ("a.xml", 0), ("b.xml", 0)]  # fmt: skip
    assert rows(decoded)[0]["record_time"] is None
    assert len(decoded.warnings) == 1
    assert decoded.warnings[0].startswith("c is empty")


SHARED = {
    "corrupted.json": (0, ["InvalidJson"], []),
    "simple_numbers.json": (0, ["MissingCaseId"], []),
    "multidocuments.json": (0, ["MissingCaseId"] * 2, []),
    "workitem.json": (1, [], [("10", "10", "20")]),
    "document-example.xml": (2, [], [("1000", "10", "1100")] * 2),
}


@pytest.mark.skipif(not DOCUMENTS.is_dir(), reason="the shared sample data is not here")
@pytest.mark.parametrize("name", SHARED)
def test_real_documents(name: str) -> None:
    data = (DOCUMENTS / name).read_bytes()
    format_ = JSON if name.endswith("json") else XML
    assert format_.detects(data[:65536], name)
    (decoded,) = read(format_, file_of(data, name))
    found = [(row["source_state"], row["activity"], row["state"]) for row in rows(decoded)]
    assert (decoded.decoded, errors(decoded), found) == SHARED[name]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("format_", "begin", "rest"),
    [
        (XML, b"<data>", b"<foo>" + b"x" * 300_000),
        (JSON, b'{"data":[', b'{"item":[' + b"[1," * 100_000),
        (JSON, b'{"data":[', b'{"item":[' + b"9" * 300_000),
    ],
)
def test_a_broken_rest_has_its_size(
    format_: Format, begin: bytes, rest: bytes, compressed: bool
) -> None:
    (failure,) = read_all(format_, memory_file(begin + rest, compressed=compressed)).failures
    assert failure.size == len(rest)
    assert len(failure.payload) == MAX_PAYLOAD
