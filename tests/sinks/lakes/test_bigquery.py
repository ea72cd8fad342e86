"""BigQuery up to the client's boundary: schemas by the official parsers, the graphs, the requests.

No BigQuery was reached: what Google's client sends is seen by a double of its REST interface.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.io.gcp import bigquery_tools
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.timestamp import Timestamp
from google.cloud import bigquery as official
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.coders import pack
from schemas.tables import CASES, DEAD_LETTERS, LATE, TABLES, TRANSITIONS, VARIANTS, Output
from tests.sinks.lakes import bigquery_double
from tests.sinks.lakes.bigquery_double import Double, _wrong
from tests.sinks.lakes.places import filled
from tests.sinks.lakes.test_databases import older, retyped
from tests.sinks.rows import tables
from transforms.addresses import BrokerFault
from transforms.sinks.lakes import bigquery
from transforms.sinks.lakes.address import BigQueryTarget
from transforms.sinks.lakes.bigquery_steps import (
    InsertBigQuery,
    WriteBigQuery,
    _Insert,
    build_load,
)

TARGET = BigQueryTarget("my-project", "ds", "p_", "streaming_inserts")


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    with bigquery_double.running() as running:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", running.address)
        yield running


@pytest.mark.parametrize("output", TABLES.values(), ids=lambda t: t.name)
def test_schemas_are_those_of_the_official_parsers(output: Output) -> None:
    schema = bigquery.table_schema(output)
    parsed = bigquery_tools.parse_table_schema_from_json(json.dumps(schema))
    assert [field.name for field in parsed.fields] == output.schema.names
    for field in schema["fields"]:
        read = official.SchemaField.from_api_repr(field)
        again = read.to_api_repr()
        assert {name: again[name] for name in field if name != "fields"} == {
            name: field[name] for name in field if name != "fields"
        }
        assert official.SchemaField.from_api_repr(again) == read
    # As the Storage Write API's rows, each column has a type that Beam knows.
    hints = bigquery_tools.get_beam_typehints_from_tableschema(schema)
    assert [name for name, _ in hints] == output.schema.names
    bigquery.validate(TARGET, {output.name: output})


def test_columns_have_the_types_of_bigquery() -> None:
    found = dict(line.split(" ", 1) for line in bigquery.columns_of(TRANSITIONS))
    assert found["attributes"] == "REPEATED RECORD<key STRING, value STRING>"
    assert found["event_time"] == "TIMESTAMP"
    assert found["sequence"] == found["task"] == "INTEGER"
    assert found["is_start"] == "BOOLEAN"
    assert found["activity"] == "STRING"
    assert found["duration_s"] == "FLOAT"
    assert "states REPEATED STRING" in bigquery.columns_of(VARIANTS)
    assert "payload BYTES" in bigquery.columns_of(DEAD_LETTERS)


def test_layouts() -> None:
    assert bigquery.layout(TARGET, CASES) == {
        "clustering": {"fields": ["case_id"]},
        "timePartitioning": {"type": "DAY", "field": "first_event_time"},
    }
    plain = BigQueryTarget("my-project", "ds", partition="none")
    assert bigquery.layout(plain, CASES) == {"clustering": {"fields": ["case_id"]}}


@pytest.mark.parametrize("name", ["_PARTITIONTIME", "with space", "1st", "_table_x"])
def test_names_that_bigquery_has_not_are_refused(name: str) -> None:
    import pyarrow as pa  # noqa: PLC0415

    schema = pa.schema([*LATE.schema, pa.field(name, pa.string())])
    output = Output("late", schema, "append", ("case_id",), "x")
    with pytest.raises(BrokerFault, match="has no columns named"):
        bigquery.validate(TARGET, {"late": output})


@pytest.mark.parametrize("output", [TRANSITIONS, DEAD_LETTERS, VARIANTS], ids=lambda t: t.name)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_rows_are_json_of_their_types(output: Output, data: st.DataObject) -> None:
    rows = data.draw(tables(output))
    fields = {field["name"]: field for field in bigquery.table_schema(output)["fields"]}
    found = bigquery.json_rows(rows, output)
    assert len(found) == rows.num_rows
    for row in found:
        json.dumps(row, allow_nan=False)
        assert [_wrong(fields[name], value) for name, value in row.items() if name != "x"] == [
            ""
        ] * len(row) or _old(row)


def _old(row: dict[str, Any]) -> bool:
    """Python's clock has no year before 1000 in this form."""
    return any(isinstance(v, str) and v.startswith("0") for v in row.values())


def test_rows_of_the_storage_write_api_are_beams() -> None:
    at = dt.datetime(2024, 1, 1, 12, tzinfo=dt.timezone.utc)
    rows = filled(TRANSITIONS, {"row_id": "a", "event_time": at, "attributes": [("k", None)]})
    (row,) = bigquery.beam_rows(rows, TRANSITIONS)
    assert row["event_time"] == Timestamp.from_utc_datetime(at)
    made = bigquery_tools.beam_row_from_dict(row, bigquery.table_schema(TRANSITIONS))
    assert made.row_id == "a"
    (attribute,) = made.attributes
    assert (attribute.key, attribute.value) == ("k", None)
    (dead,) = bigquery.beam_rows(filled(DEAD_LETTERS, {"row_id": "a"}), DEAD_LETTERS)
    assert dead["payload"] == b"x"
    assert dead["time"] is None


# What the client asks of the service


def test_tables_are_made_with_partitions_clusters_and_descriptions(double: Double) -> None:
    assert bigquery.check(TARGET, TABLES) == []
    assert double.tables == {}
    made = bigquery.create_tables(TARGET, TABLES)
    assert made == [f"my-project:ds.p_{name}" for name in TABLES]
    table = double.tables["p_cases"]
    assert table["timePartitioning"]["field"] == "first_event_time"
    assert table["clustering"] == {"fields": ["case_id"]}
    assert table["description"] == CASES.doc
    assert bigquery.create_tables(TARGET, TABLES) == []
    assert bigquery.check(TARGET, TABLES) == []


def test_a_table_gains_a_column(double: Double) -> None:
    bigquery.create_tables(TARGET, {"cases": older(CASES, "variant_id")})
    assert bigquery.check(TARGET, {"cases": CASES}) == ["my-project:ds.p_cases gains variant_id"]
    assert bigquery.create_tables(TARGET, {"cases": CASES}) == []
    names = [field["name"] for field in double.tables["p_cases"]["schema"]["fields"]]
    assert sorted(names) == sorted(CASES.schema.names)
    assert bigquery.check(TARGET, {"cases": CASES}) == []


def test_a_column_of_another_type_is_refused(double: Double) -> None:
    import pyarrow as pa  # noqa: PLC0415

    bigquery.create_tables(TARGET, {"late": retyped(LATE, "actor", pa.int64())})
    with pytest.raises(BrokerFault) as error:
        bigquery.check(TARGET, {"late": LATE})
    assert str(error.value) == (
        "my-project:ds.p_late: column actor is INTEGER, and rows have STRING for it; "
        "give another dataset or ?prefix=, or rename the table"
    )


def test_a_missing_dataset_and_a_service_that_is_away(double: Double) -> None:
    elsewhere = BigQueryTarget("my-project", "nowhere")
    with pytest.raises(BrokerFault, match="make the dataset first: bq mk nowhere"):
        bigquery.check(elsewhere, TABLES)


def test_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(BrokerFault, match="no credentials found.*GOOGLE_APPLICATION_CREDENTIALS"):
        bigquery.check(TARGET, TABLES)


def test_inserts_are_repeated_under_the_same_ids(double: Double) -> None:
    bigquery.create_tables(TARGET, TABLES)
    rows = filled(LATE, *({"row_id": f"{n}"} for n in range(1200)))
    element = ("late", 0, 1000, pack(rows.combine_chunks().to_batches()[0]))
    for _ in range(2):
        dofn = _Insert(InsertBigQuery(TARGET, TABLES))
        dofn.start_bundle()
        assert list(dofn.process(element)) == []
        dofn.finish_bundle()
        dofn.teardown()
    assert len(double.rows["p_late"]) == 1200
    assert sorted(row["row_id"] for row in double.rows["p_late"].values()) == sorted(
        rows["row_id"].to_pylist()
    )


def test_a_row_that_is_refused_fails_the_bundle(double: Double) -> None:
    bigquery.create_tables(TARGET, TABLES)
    double.refuses.add("b")
    rows = filled(LATE, {"row_id": "a"}, {"row_id": "b"})
    dofn = _Insert(InsertBigQuery(TARGET, TABLES))
    dofn.start_bundle()
    with pytest.raises(BrokerFault, match="p_late did not take row b: no such row"):
        list(dofn.process(("late", 0, 1000, pack(rows.combine_chunks().to_batches()[0]))))


# The graphs


def labels(root: beam.Pipeline) -> list[str]:
    proto = root.to_runner_api()
    return [each.unique_name for each in proto.components.transforms.values()]


@pytest.mark.parametrize("runner", ["DirectRunner", "DataflowRunner"])
def test_the_graph_of_file_loads_is_built(runner: str, tmp_path: Path) -> None:
    flags = PipelineOptions(
        runner=runner,
        project="my-project",
        region="europe-west1",
        temp_location="gs://bucket/temp",
        no_auth=True,
        dry_run=True,
    )
    root = beam.Pipeline(options=flags)
    outputs = {"late": LATE, "cases": CASES}
    build_load(root, TARGET, outputs, {name: [str(tmp_path / "x.parquet")] for name in outputs})
    found = labels(root)
    for name in outputs:
        assert any(f"Load {name}/BigQueryBatchFileLoads" in label for label in found), name


@pytest.mark.parametrize("runner", ["DirectRunner", "DataflowRunner"])
def test_the_graph_of_streaming_inserts_is_built(runner: str) -> None:
    flags = PipelineOptions(
        runner=runner,
        project="my-project",
        region="europe-west1",
        temp_location="gs://bucket/temp",
        no_auth=True,
        dry_run=True,
        streaming=True,
    )
    root = beam.Pipeline(options=flags)
    _ = (
        root
        | beam.Create([], reshuffle=False)
        | WriteBigQuery(TARGET, {"late": LATE, "cases": CASES})
    )
    found = labels(root)
    for name in ("late", "cases"):
        assert any(f"Write {name}/_StreamToBigQuery" in label for label in found), name
        assert any(label.endswith(f"Refuse to lose {name}") for label in found)


def test_bounded_runs_need_a_place_in_cloud_storage() -> None:
    with pytest.raises(BrokerFault, match="--temp_location gs://bucket/temp"):
        bigquery.check_temp(TARGET, PipelineOptions([]))
    bigquery.check_temp(TARGET, PipelineOptions(["--temp_location", "gs://b/t"]))


def test_the_storage_write_api_needs_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BrokerFault, match=r"install Java 17, or give \?method=streaming_inserts"):
        bigquery.check_java(BigQueryTarget("my-project", "ds"))
    bigquery.check_java(TARGET)
