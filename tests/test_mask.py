"""Masked tables tell nothing of the values, and the kernels see the same events."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import ATTRIBUTES, EVENT_SCHEMA, NAME, empty_events
from transforms.formats.assemble import assemble
from transforms.formats.base import Failure
from transforms.hashing import hash_strings
from transforms.mask import (
    COLUMNS,
    MaskError,
    Masking,
    load_key,
    mask_events,
    mask_failure,
    masking,
)

KEY = b"sixteen bytes or more"
WHEN = dt.datetime(2024, 8, 27, 10, 4, 20, tzinfo=dt.timezone.utc)


def token(value: str, key: bytes = KEY) -> str:
    return hashlib.blake2b(value.encode(), digest_size=16, key=key).hexdigest()


def masked(*names: str, key: bytes = KEY) -> Masking:
    return Masking(frozenset(names), key)


def events(**columns: Any) -> pa.Table:
    rows = len(next(iter(columns.values())))
    defaults = {
        "case_id": [f"case-{i}" for i in range(rows)],
        "event_time": [WHEN] * rows,
        "activity": ["approve"] * rows,
        "position": list(range(rows)),
    }
    return assemble({**defaults, **columns}, rows)


def test_a_column_is_replaced_by_tokens_and_the_rest_is_not() -> None:
    table = events(
        actor=["ann", None, "bob", "ann"],
        workflow_group=["Order"] * 4,
        transaction_id=["t1", None, "t2", "t1"],
    )
    out = mask_events(table, masked("actor", "transaction_id"))
    assert out.schema.equals(EVENT_SCHEMA)
    out.validate(full=True)
    assert out["actor"].to_pylist() == [token("ann"), None, token("bob"), token("ann")]
    assert out["transaction_id"].to_pylist() == [token("t1"), None, token("t2"), token("t1")]
    for name in set(EVENT_SCHEMA.names) - {"actor", "transaction_id", "event_id"}:
        assert out[name].equals(table[name]), name


def test_dictionary_columns_stay_dictionaries_of_distinct_values() -> None:
    table = events(actor=["ann", "bob"] * 500)
    out = mask_events(table, masked("actor"))
    assert len(out["actor"].chunk(0).dictionary) == 2


def test_chunks_and_slices() -> None:
    table = events(actor=["ann", "bob", None, "ann"], attributes=_maps())
    table = table.set_column(
        table.schema.get_field_index("log"),
        EVENT_SCHEMA.field("log"),
        pa.array([[1, 2], None, [], [3]], pa.list_(pa.uint64())),
    )
    settings_ = masked("actor", "case_id", "customer")
    whole = mask_events(table, settings_).to_pylist()
    for cut in range(5):
        first, second = table.slice(0, cut), table.slice(cut)
        apart = [mask_events(part, settings_).to_pylist() for part in (first, second)]
        assert apart[0] + apart[1] == whole
        assert mask_events(pa.concat_tables([first, second]), settings_).to_pylist() == whole


def _maps() -> pa.Array:
    return pa.array(
        [
            [("customer", "Miller"), ("amount", "3.50")],
            None,
            [],
            [("customer", None), ("note", "Miller")],
        ],
        ATTRIBUTES,
    )


def test_items_are_masked_by_name() -> None:
    out = mask_events(events(attributes=_maps()), masked("customer"))
    assert out["attributes"].to_pylist() == [
        [("customer", token("Miller")), ("amount", "3.50")],
        None,
        [],
        [("customer", None), ("note", "Miller")],
    ]


def test_maps_that_are_all_empty() -> None:
    table = events(attributes=pa.array([[], None, []], ATTRIBUTES))
    out = mask_events(table, masked("amount"))
    assert out["attributes"].to_pylist() == [[], None, []]
    # As a table that was taken from others has it: without a chunk of values.
    out = mask_events(table.take(pa.array([0], pa.int64())), masked("amount"))
    assert out["attributes"].to_pylist() == [[]]


def test_the_original_values_are_not_in_the_memory_that_is_written() -> None:
    table = events(actor=["secret-ann", "bob"], attributes=[[("customer", "secret")], None])
    out = mask_events(table, masked("actor", "customer"))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, out.schema) as writer:
        writer.write_table(out)
    assert b"secret" not in sink.getvalue().to_pybytes()


def test_tokens_depend_on_the_key_alone() -> None:
    table = events(actor=["ann"], transaction_id=["ann"])
    one = mask_events(table, masked("actor", "transaction_id"))
    assert one["actor"].to_pylist() == one["transaction_id"].to_pylist()
    other = mask_events(table, masked("actor", key=b"another key of sixteen"))
    assert other["actor"].to_pylist() != one["actor"].to_pylist()
    assert other["event_id"].to_pylist() != one["event_id"].to_pylist()
    long = b"k" * 200
    hashed = hashlib.blake2b(long).digest()
    assert masked("actor", key=long).token(b"ann") == token("ann", hashed)


def test_the_key_is_not_shown() -> None:
    assert "sixteen" not in repr(masked("actor"))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_event_ids_change_as_one(data: st.DataObject) -> None:
    """Equal (id, case), equal new id; the log refers to the same events as before."""
    ids = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12))
    cases = data.draw(st.lists(st.sampled_from(["c1", "c2"]), min_size=len(ids), max_size=len(ids)))
    lines = st.none() | st.lists(st.sampled_from("abcdefgh"), max_size=4)
    logs = data.draw(st.lists(lines, min_size=len(ids), max_size=len(ids)))

    def hashes(texts: list[str]) -> list[int]:
        values: list[int] = hash_strings(pa.array(texts, pa.string())).tolist()
        return values

    table = events(
        case_id=cases,
        event_id=ids,
        log=pa.array([None if log is None else hashes(log) for log in logs], pa.list_(pa.uint64())),
    )
    out = mask_events(table, masked("case_id")).to_pylist()
    known = {(case, id_): row["event_id"] for case, id_, row in zip(cases, ids, out, strict=True)}
    assert len(set(known.values())) == len(known)
    for case, id_, log, row in zip(cases, ids, logs, out, strict=True):
        assert row["case_id"] == token(case)
        assert row["event_id"] == known[case, id_]
        assert len(row["event_id"]) == 32
        if log is None:
            assert row["log"] is None
            continue
        for line, entry in zip(log, row["log"], strict=True):
            for (other, known_id), new in known.items():
                same = (other, known_id) == (case, line)
                assert (hashes([new])[0] == entry) == same


def test_an_event_id_cannot_be_tested_without_the_key() -> None:
    """The id of a file's event is an unkeyed hash of its case, which would confirm a guess."""
    table = events(case_id=["case-1"])
    guess = table["event_id"].to_pylist()
    for names in (["case_id"], ["actor"]):
        assert mask_events(table, masked(*names))["event_id"].to_pylist() != guess


def test_a_path_goes_with_the_case() -> None:
    source = pa.array(["archive/case-1.xml"]).dictionary_encode()
    table = events(case_id=["case-1"], source=source)
    out = mask_events(table, masked("case_id"))
    assert out["source"].to_pylist() == [token("archive/case-1.xml")]
    assert mask_events(table, masked("actor"))["source"].to_pylist() == ["archive/case-1.xml"]


def test_nothing_to_mask() -> None:
    table = events(actor=["ann"])
    assert mask_events(table, masked()) is table
    assert mask_events(empty_events(), masked("actor")).equals(empty_events())


FAILURE = Failure(
    payload=b"<document>Miller</document>",
    source="archive/case-1.xml:1234",
    error="MissingCaseId",
    message="no $uniqueid in the document of Miller",
    attributes={"format": "imixs_xml", "customer": "Miller"},
    size=None,
)


def test_a_failure_keeps_nothing_of_its_payload() -> None:
    out = mask_failure(FAILURE, masked("actor"))
    assert out.payload == b""
    assert out.size == 27
    assert out.source == "archive/case-1.xml:1234"
    assert out.error == "MissingCaseId"
    assert out.message == "MissingCaseId; details and payload are withheld because of --mask"
    assert out.attributes == {
        "format": "imixs_xml",
        "masked": "true",
        "payload_token": token("<document>Miller</document>"),
    }


def test_a_failure_of_known_size_and_without_format() -> None:
    out = mask_failure(Failure(b"x" * 10, "t/0/7", "E", "m", size=99), masked("actor"))
    assert (out.size, out.source) == (99, "t/0/7")
    assert "format" not in out.attributes


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("archive/case-1.xml:1234", token("archive/case-1.xml") + ":1234"),
        ("topic/0/17", token("topic/0/17")),
    ],
)
def test_a_failures_source_goes_with_the_case(source: str, expected: str) -> None:
    failure = Failure(b"", source, "E", "m")
    assert mask_failure(failure, masked("case_id")).source == expected


def test_a_failure_stays_without_masking() -> None:
    assert mask_failure(FAILURE, masked()) is FAILURE


def test_unknown_names_are_errors() -> None:
    assert masking(["actor", "customer"], ["customer"], KEY).names == {"actor", "customer"}
    with pytest.raises(MaskError, match=r"cannot mask 'aktor': known are actor, case_id.*--items"):
        masking(["aktor"], ["customer"], KEY)


@pytest.mark.parametrize("name", ["activity", "state", "event_time", "event_id", "log", "source"])
def test_what_is_computed_with_cannot_be_masked(name: str) -> None:
    with pytest.raises(MaskError, match=rf"'{name}' cannot be masked.*actor, case_id"):
        masking([name], [], KEY)


def test_columns_are_of_the_event_table_and_hold_text() -> None:
    for name in COLUMNS:
        assert EVENT_SCHEMA.field(name).type in (pa.string(), NAME)


def test_keys_from_files_and_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"\n 0123456789abcdef \n")
    assert load_key(f"file:{path}") == load_key(str(path)) == b"0123456789abcdef"
    environ = {"MASK": "0123456789abcdef\n"}
    assert load_key("env:MASK", environ) == b"0123456789abcdef"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("env:NONE", r"environment variable NONE is not set"),
        ("env:SHORT", r"environment variable SHORT has 5 bytes, at least 16 .*openssl rand"),
        ("file:short", r"file short has 5 bytes, at least 16 are needed"),
        ("file:missing", r"file missing: No such file or directory \(use file:PATH or env:NAME\)"),
        ("missing", r"file missing: No such file or directory"),
        ("folder", r"file folder: Is a directory"),
        ("file:", r"file : No such file"),
        ("a\0b", r"null byte"),
    ],
)
def test_keys_that_cannot_be_used(
    spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short").write_text("short             ")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MaskError, match=message):
        load_key(spec, {"SHORT": "short"})


def test_a_short_key_is_refused_by_the_masking_too() -> None:
    with pytest.raises(MaskError, match="has 5 bytes, at least 16"):
        Masking(frozenset({"actor"}), b"short")
