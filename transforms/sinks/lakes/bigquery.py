"""BigQuery's side of a table: its schema from ours, its rows, and what is asked of the service.

A map is a repeated record of `key` and `value`; every column is nullable, so that a table can gain
some; tables are partitioned by day of their first time and clustered by their key. Credentials are
the machine's default ones; with BIGQUERY_EMULATOR_HOST there are none.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.gcp import bigquery_tools
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from google.api_core import exceptions as errors
from google.auth import credentials as auth
from google.auth import exceptions as auth_errors
from google.cloud import bigquery

from schemas.tables import Output
from transforms.addresses import BrokerFault
from transforms.sinks.lakes.address import BigQueryTarget
from transforms.sinks.lakes.columns import check_columns, plain_rows, plain_schema, time_column
from transforms.sinks.text import time_text

TIMEOUT_S = 60.0

_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
_RESERVED = ("_TABLE_", "_FILE_", "_PARTITION", "_ROW_TIMESTAMP", "__ROOT__", "_COLIDENTIFIER")
_LONGEST_DESCRIPTION = 1024
_SAME = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}


def table_schema(output: Output) -> dict[str, Any]:
    """Return a table's schema as BigQuery's REST interface, and Beam, have it."""
    return {"fields": [_field(field) for field in plain_schema(output)]}


def _field(field: pa.Field) -> dict[str, Any]:
    doc = (field.metadata or {}).get(b"doc", b"").decode()[:_LONGEST_DESCRIPTION]
    found: dict[str, Any] = {"name": field.name, "mode": "NULLABLE", "description": doc}
    type_ = field.type
    if pa.types.is_map(type_):
        parts = [
            {"name": name, "type": _type(part), "mode": "NULLABLE"}
            for name, part in (("key", type_.key_type), ("value", type_.item_type))
        ]
        return {**found, "type": "RECORD", "mode": "REPEATED", "fields": parts}
    if pa.types.is_list(type_):
        return {**found, "type": _type(type_.value_type), "mode": "REPEATED"}
    return {**found, "type": _type(type_)}


def _type(type_: pa.DataType) -> str:
    if pa.types.is_string(type_):
        return "STRING"
    if pa.types.is_binary(type_):
        return "BYTES"
    if pa.types.is_integer(type_):
        return "INTEGER"
    if pa.types.is_floating(type_):
        return "FLOAT"
    if pa.types.is_boolean(type_):
        return "BOOLEAN"
    if pa.types.is_timestamp(type_):
        return "TIMESTAMP"
    reason = f"BigQuery has no type for {type_}"
    raise TypeError(reason)


def columns_of(output: Output) -> list[str]:
    """Return a line for each column, for `--explain_plan`."""
    return [f"{name} {type_}" for name, type_ in _types(table_schema(output)["fields"]).items()]


def _types(fields: list[dict[str, Any]]) -> dict[str, str]:
    """Return column -> type, in one word or a few."""
    found = {}
    for field in fields:
        type_ = _SAME.get(field["type"], field["type"])
        if type_ == "RECORD":
            inner = ", ".join(f"{n} {t}" for n, t in _types(field.get("fields", [])).items())
            type_ = f"RECORD<{inner}>"
        found[field["name"]] = f"REPEATED {type_}" if field.get("mode") == "REPEATED" else type_
    return found


def layout(target: BigQueryTarget, output: Output) -> dict[str, Any]:
    """Return how a table lies: its partitions and clusters, as the REST interface has them."""
    clusters = {"clustering": {"fields": list(output.key)}}
    if target.partition != "day":
        return clusters
    return {**clusters, "timePartitioning": {"type": "DAY", "field": time_column(output)}}


def validate(target: BigQueryTarget, outputs: Mapping[str, Output]) -> None:
    """Check names and schemas without asking anybody, by the parsers of Beam and of the client.

    Raises:
        BrokerFault: BigQuery would refuse a name or a type.
    """
    for name, output in outputs.items():
        schema = table_schema(output)
        try:
            bigquery_tools.parse_table_reference(target.place(name))
            bigquery_tools.parse_table_schema_from_json(json.dumps(schema))
            for field in schema["fields"]:
                bigquery.SchemaField.from_api_repr(field)
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{target.place(name)}: BigQuery would refuse its schema: {error}"
            raise BrokerFault(reason) from None
        for field in schema["fields"]:
            column = field["name"]
            if not _COLUMN.fullmatch(column) or column.upper().startswith(_RESERVED):
                reason = f"{target.place(name)}: BigQuery has no columns named '{column}'"
                raise BrokerFault(reason)
        if len(target.prefix + name) > 1024:
            reason = f"{target.place(name)}: a table's name has at most 1024 characters"
            raise BrokerFault(reason)


def check_java(target: BigQueryTarget) -> None:
    """Refuse Beam's Storage Write step where it can't be made: it is a Java step.

    Raises:
        BrokerFault: there is no Java here.
    """
    if target.method == "storage_write_api" and shutil.which("java") is None:
        reason = (
            f"{target}: Beam's step for the Storage Write API is written in Java, and there is no "
            "`java` here; install Java 17, or give ?method=streaming_inserts"
        )
        raise BrokerFault(reason)


def check_temp(target: BigQueryTarget, flags: PipelineOptions) -> None:
    """Refuse a bounded run that has no place for the files that are loaded.

    Raises:
        BrokerFault: --temp_location is not in Cloud Storage.
    """
    place = flags.view_as(GoogleCloudOptions).temp_location or ""
    if not place.startswith("gs://"):
        reason = (
            f"{target}: files are loaded from Cloud Storage; give a folder there for them, "
            "--temp_location gs://bucket/temp"
        )
        raise BrokerFault(reason)


def client_of(target: BigQueryTarget) -> bigquery.Client:
    """Return a client of the service.

    Raises:
        BrokerFault: there are no credentials.
    """
    emulator = os.environ.get("BIGQUERY_EMULATOR_HOST")
    with asking(target):
        return bigquery.Client(
            project=target.project, credentials=auth.AnonymousCredentials() if emulator else None
        )


def check(target: BigQueryTarget, outputs: Mapping[str, Output]) -> list[str]:
    """Prove that the dataset is there, and that tables that are there fit.

    Returns:
        What the user should hear about: the columns that a table will gain.

    Raises:
        BrokerFault: it can't be reached, or a column is of another type.
    """
    client = client_of(target)
    notes = []
    with asking(target):
        client.get_dataset(f"{target.project}.{target.dataset}", timeout=TIMEOUT_S)
        for output in outputs.values():
            table = _table(client, target, output)
            lacking = [] if table is None else _lacking(target, output, table)
            if lacking:
                notes.append(f"{target.place(output.name)} gains {', '.join(lacking)}")
    return notes


def create_tables(target: BigQueryTarget, outputs: Mapping[str, Output]) -> list[str]:
    """Make the tables that are missing, and add the columns that others lack.

    Returns:
        The names of those made.

    Raises:
        BrokerFault: the service does not let us, or a column is of another type.
    """
    client = client_of(target)
    made = []
    with asking(target):
        for output in outputs.values():
            table = _table(client, target, output)
            fields = table_schema(output)["fields"]
            if table is None:
                new = bigquery.Table.from_api_repr(
                    {
                        "tableReference": {
                            "projectId": target.project,
                            "datasetId": target.dataset,
                            "tableId": target.prefix + output.name,
                        },
                        "description": output.doc,
                        "schema": {"fields": fields},
                        **layout(target, output),
                    }
                )
                client.create_table(new, exists_ok=True, timeout=TIMEOUT_S)
                made.append(target.place(output.name))
            elif lacking := _lacking(target, output, table):
                more = [f for f in fields if f["name"] in lacking]
                table.schema = [*table.schema, *map(bigquery.SchemaField.from_api_repr, more)]
                client.update_table(table, ["schema"], timeout=TIMEOUT_S)
    return made


def _table(client: bigquery.Client, target: BigQueryTarget, output: Output) -> Any:
    name = f"{target.project}.{target.dataset}.{target.prefix}{output.name}"
    try:
        return client.get_table(name, timeout=TIMEOUT_S)
    except errors.NotFound:
        return None


def _lacking(target: BigQueryTarget, output: Output, table: Any) -> list[str]:
    return check_columns(
        target.place(output.name),
        _types([field.to_api_repr() for field in table.schema]),
        _types(table_schema(output)["fields"]),
        "give another dataset or ?prefix=, or rename the table",
    )


def json_rows(rows: pa.Table, output: Output) -> list[dict[str, Any]]:
    """Return rows as BigQuery's JSON has them: times as text, bytes in base64.

    NaN and infinities, which JSON has not, are null.
    """
    found: list[dict[str, Any]] = _converted(rows, output, typed=False).to_pylist()
    return found


def beam_rows(rows: pa.Table, output: Output) -> list[dict[str, Any]]:
    """Return rows with the types that Beam takes for the Storage Write API."""
    from apache_beam.utils.timestamp import Timestamp  # noqa: PLC0415

    found: list[dict[str, Any]] = _converted(rows, output, typed=True).to_pylist()
    times = [f.name for f in output.schema if pa.types.is_timestamp(f.type)]
    for row in found:
        for name in times:
            if row[name] is not None:
                row[name] = Timestamp(micros=row[name])
    return found


def _converted(rows: pa.Table, output: Output, *, typed: bool) -> pa.Table:
    plain = plain_rows(rows, output)
    columns = []
    for column in plain.columns:
        array = column.combine_chunks()
        array = array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)
        type_ = array.type
        if pa.types.is_map(type_):
            array = _records(array)
        elif pa.types.is_timestamp(type_):
            array = array.cast(pa.int64()) if typed else time_text(array)
        elif pa.types.is_list(type_):
            # A repeated column is never null: it is empty.
            array = pa.array([v or [] for v in array.to_pylist()], type_)
        elif pa.types.is_binary(type_) and not typed:
            encoded = [v if v is None else base64.b64encode(v).decode() for v in array.to_pylist()]
            array = pa.array(encoded, pa.string())
        elif pa.types.is_floating(type_) and not typed:
            finite = pc.is_finite(array)
            array = pc.if_else(finite, array, pa.scalar(None, type_))
        columns.append(array)
    return pa.table(columns, names=plain.column_names)


def _records(array: Any) -> pa.Array:
    """Return a map as a list of records; null is empty."""
    type_ = pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])
    listed = [
        [{"key": key, "value": value} for key, value in pairs or ()] for pairs in array.to_pylist()
    ]
    return pa.array(listed, pa.list_(type_))


@contextmanager
def asking(target: BigQueryTarget) -> Iterator[None]:
    """Turn what the client says into one line.

    Raises:
        BrokerFault: whatever was wrong.
    """
    refused = importlib.import_module("requests").exceptions.RequestException
    try:
        yield
    except auth_errors.DefaultCredentialsError:
        reason = (
            f"{target}: no credentials found; run `gcloud auth application-default login`, or set "
            "GOOGLE_APPLICATION_CREDENTIALS"
        )
        raise BrokerFault(reason) from None
    except errors.NotFound as error:
        reason = f"{target}: {_sentence(error)}; make the dataset first: bq mk {target.dataset}"
        raise BrokerFault(reason) from None
    except (errors.GoogleAPIError, auth_errors.GoogleAuthError, refused) as error:
        reason = f"{target}: {_sentence(error)}"
        raise BrokerFault(reason) from None


def _sentence(error: Any) -> str:
    said = getattr(error, "message", None) or str(error)
    return " ".join(str(said).split()) or type(error).__name__
