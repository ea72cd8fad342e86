"""Bundles of a stream: one commit a table, once however often it is repeated, all or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from schemas.coders import pack
from schemas.tables import CASES, LATE, TABLES
from tests.sinks.lakes.places import KINDS, Place, filled, place
from transforms import progress
from transforms.addresses import BrokerFault
from transforms.receipts import account_of, close_account, open_account
from transforms.sinks.delivery import delivered
from transforms.sinks.lakes import write as steps
from transforms.sinks.lakes.write import WriteTables, _Write

Element = tuple[str, int, int, bytes]


@pytest.fixture(params=KINDS)
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place(request.param, tmp_path)


def late(*ids: str) -> pa.Table:
    return filled(LATE, *({"row_id": each} for each in ids))


def cases(*pairs: tuple[str, int]) -> pa.Table:
    return filled(
        CASES,
        *({"row_id": id_, "case_id": id_, "updated_at": at, "rework": at} for id_, at in pairs),
    )


def element(rows: pa.Table, until: int = 1000, shard: int = 0, name: str = "late") -> Element:
    return name, shard, until, pack(rows.combine_chunks().to_batches()[0])


def bundle(step: WriteTables, elements: list[Element], fn: _Write | None = None) -> _Write:
    fn = fn or _Write(step)
    fn.start_bundle()
    for each in elements:
        assert list(fn.process(each)) == []
    fn.finish_bundle()
    return fn


def test_a_pipeline_writes_its_elements(there: Place) -> None:
    with beam.Pipeline(runner=FnApiRunner()) as root:
        elements = [element(late("a", "b")), element(late("c"), 2000)]
        _ = root | beam.Create(elements) | WriteTables(there.target, TABLES)
    assert there.ids("late") == ["a", "b", "c"]


def test_a_repeated_bundle_writes_nothing_twice(there: Place) -> None:
    step = WriteTables(there.target, TABLES)
    elements = [
        element(late("a", "b")),
        element(late("c"), 2000, 1),
        element(cases(("x", 1)), name="cases"),
    ]
    bundle(step, elements)
    bundle(step, elements)
    # Also cut into other bundles, and with one more.
    bundle(step, [elements[1], element(cases(("x", 2)), 2000, name="cases")])
    assert there.ids("late") == ["a", "b", "c"]
    assert [row["rework"] for row in there.rows("cases")] == [2]


def test_other_rows_of_the_same_granule_are_written(there: Place) -> None:
    step = WriteTables(there.target, TABLES)
    bundle(step, [element(late("a"))])
    bundle(step, [element(late("b"))])
    assert there.ids("late") == ["a", "b"]


def test_what_fails_between_two_tables_is_completed_by_the_repeat(
    there: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second table breaks: in DuckDB nothing is there, elsewhere the first table is whole."""
    database: Any = type(there.open())
    adds = database._add
    calls: list[str] = []

    def breaking(self: Any, *arguments: Any) -> None:
        output = next(
            each for each in arguments if hasattr(each, "schema") and hasattr(each, "key")
        )
        calls.append(output.name)
        if output.name == "cases" and calls.count("cases") == 1:
            reason = "the machine is gone"
            raise BrokerFault(reason)
        adds(self, *arguments)

    monkeypatch.setattr(database, "_add", breaking)
    progress.prepare(str(tmp_path))
    open_account(str(tmp_path), 1)
    account = account_of(str(tmp_path))
    assert account is not None
    step = WriteTables(there.target, TABLES, 0, str(tmp_path))
    elements = [element(late("a")), element(cases(("x", 1)), name="cases")]
    account.fired(0, 1_000_000, [each[:3] for each in elements])
    fn = _Write(step)
    try:
        with pytest.raises(BrokerFault, match="the machine is gone"):
            bundle(step, elements, fn)
        # Nothing was counted, nothing acknowledged.
        progress.flush_all()
        assert delivered(progress.read_counts(str(tmp_path)), 0, TABLES)["late"] == 0
        assert account._shards[0].firings[0].left == 2
        bundle(step, elements, fn)
        assert not account._shards[0].firings
    finally:
        close_account(str(tmp_path))
    progress.flush_all()
    counts = delivered(progress.read_counts(str(tmp_path)), 0, TABLES)
    assert (counts["late"], counts["cases"]) == (1, 1)
    assert there.ids("late") == ["a"]
    assert there.ids("cases") == ["x"]


def test_much_is_written_before_the_bundle_ends(
    there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "WAITING_BYTES", 1)
    fn = _Write(WriteTables(there.target, TABLES))
    fn.start_bundle()
    list(fn.process(element(late("a"))))
    assert there.ids("late") == ["a"]
    # The bundle fails and is repeated.
    fn.start_bundle()
    list(fn.process(element(late("a"))))
    list(fn.process(element(late("b"), 2000)))
    fn.finish_bundle()
    fn.teardown()
    assert there.ids("late") == ["a", "b"]
