"""Addresses of databases: what they mean, and that they are written as they are read."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pipelines.brokers import database_of, is_database
from transforms.addresses import BadAddress
from transforms.sinks.lakes.address import (
    BigQueryTarget,
    DeltaTarget,
    DuckDBTarget,
    IcebergTarget,
    parse_tables,
)


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("duckdb:///a/b%20c.duckdb", DuckDBTarget("/a/b c.duckdb")),
        ("duckdb:///a/file.db", DuckDBTarget("/a/file.db")),
        ("some/file.duckdb", DuckDBTarget(os.path.abspath("some/file.duckdb"))),
        ("delta:///a/lake/", DeltaTarget("/a/lake")),
        ("delta+s3://bucket/a?partition=none", DeltaTarget("s3://bucket/a", "none")),
        ("delta+abfss://box@acc.dfs/a", DeltaTarget("abfss://box@acc.dfs/a")),
        ("iceberg://prod/events.raw", IcebergTarget("prod", "events.raw")),
        (
            "iceberg://c/n?uri=sqlite:///a/c.db&warehouse=s3://b/w&partition=none",
            IcebergTarget("c", "n", "sqlite:///a/c.db", "s3://b/w", "none"),
        ),
        ("bigquery://my-project/ds", BigQueryTarget("my-project", "ds")),
        (
            "bigquery://my-project/ds?prefix=p_&method=streaming_inserts&partition=none",
            BigQueryTarget("my-project", "ds", "p_", "streaming_inserts", "none"),
        ),
    ],
)
def test_addresses(uri: str, target: Any) -> None:
    assert database_of(uri) is not None
    assert parse_tables(uri) == target
    assert parse_tables(str(target)) == target
    assert is_database(target)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("duckdb:///folder/", "it names a folder"),
        ("duckdb:///a.duckdb?x=1", "there is no option 'x'"),
        ("delta://", "begins with a slash: delta:///folder"),
        ("delta+s3://", "it names no bucket"),
        ("delta+ftp://x", "one of delta+s3://"),
        ("iceberg:///n", "it names no catalog"),
        ("iceberg://c/a-b", "'a-b' is no namespace"),
        ("bigquery://my-project/", "'' is no dataset"),
        ("bigquery://my-project/ds?prefix=a-b", "prefix=a-b has characters"),
    ],
)
def test_what_is_none(uri: str, said: str) -> None:
    with pytest.raises(BadAddress, match=r".*") as error:
        parse_tables(uri)
    assert said in str(error.value)


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(BadAddress) as error:
        parse_tables("iceberg://c/n?uri=postgresql://me:hush@host/db")
    assert "hush" not in str(error.value)


@pytest.mark.parametrize("text", ["out", "gs://bucket/out", "kafka://h:9092/a.duckdb", "out/x.db"])
def test_other_outputs_are_none(text: str) -> None:
    assert database_of(text) is None
