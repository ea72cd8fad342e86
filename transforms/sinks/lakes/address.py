"""Where tables of a database or a lakehouse are, as a URI.

    duckdb:///folder/file.duckdb            or a path that ends in .duckdb
    delta:///folder/prefix                  or delta+s3://, delta+gs://, delta+az://
    iceberg://CATALOG/NAMESPACE?uri=...&warehouse=...
    bigquery://PROJECT/DATASET?prefix=...&method=...

Credentials are never in a URI: each library takes them from the environment or from its own files.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from transforms.addresses import quoted, read_query, refuse

DUCKDB, DELTA, ICEBERG, BIGQUERY = "duckdb", "delta", "iceberg", "bigquery"

_DELTA_STORES = ("s3", "gs", "az", "abfss")
_PARTITIONS = ("day", "none")
_METHODS = ("storage_write_api", "streaming_inserts")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CATALOG = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_PROJECT = re.compile(r"([a-z0-9][a-z0-9.-]*:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")


@dataclass(frozen=True)
class DuckDBTarget:
    """A database file of DuckDB.

    Attributes:
        path: of the file, absolute.
    """

    path: str
    kind: str = DUCKDB

    @classmethod
    def parse(cls, uri: str) -> DuckDBTarget:
        """Read a URI, or a path that ends in .duckdb.

        Raises:
            BadAddress: it is not one.
        """
        path = uri
        if uri.startswith("duckdb://"):
            path, _, text = uri[len("duckdb://") :].partition("?")
            read_query(uri, text, ())
            path = unquote(path)
            if not path.startswith("/"):
                refuse(uri, f"a path begins with a slash: duckdb:///{path or 'folder/file.duckdb'}")
        if path.endswith("/"):
            refuse(uri, "it names a folder; give a file, such as duckdb:///folder/file.duckdb")
        return cls(os.path.abspath(os.path.expanduser(path)))

    def place(self, table: str) -> str:
        """Say where a table is, for people."""
        return f"{self.path}: {table}"

    @property
    def folder(self) -> str:
        """The local path that it writes to; empty if it is elsewhere."""
        return self.path

    def __str__(self) -> str:
        return f"duckdb://{quoted(self.path)}"


@dataclass(frozen=True)
class DeltaTarget:
    """Tables of Delta Lake, below one prefix.

    Attributes:
        root: path of this machine, or URI of an object store; without a slash at its end.
        partition: `day` or `none`.
    """

    root: str
    partition: str = "day"
    kind: str = DELTA

    @classmethod
    def parse(cls, uri: str) -> DeltaTarget:
        """Read a URI.

        Raises:
            BadAddress: it is not one.
        """
        head, _, text = uri.partition("?")
        query = read_query(uri, text, ("partition",))
        scheme, _, rest = head.partition("://")
        _, plus, store = scheme.partition("+")
        rest = unquote(rest).rstrip("/")
        if plus and store not in _DELTA_STORES:
            known = ", ".join(f"delta+{name}://" for name in _DELTA_STORES)
            refuse(uri, f"there is no store '{store}'; write delta:///path, or one of {known}")
        if plus and not rest:
            refuse(uri, f"it names no bucket; write {scheme}://bucket/prefix")
        if not plus and not rest.startswith("/"):
            refuse(uri, f"a path begins with a slash: delta:///{rest or 'folder'}")
        root = f"{store}://{rest}" if plus else os.path.abspath(rest)
        return cls(root, _partition(uri, query))

    def place(self, table: str) -> str:
        """Return path or URI of a table."""
        return f"{self.root}/{table}"

    @property
    def folder(self) -> str:
        """The local path that it writes to; empty if it is elsewhere."""
        return "" if "://" in self.root else self.root

    def __str__(self) -> str:
        text = f"delta+{self.root}" if "://" in self.root else f"delta://{quoted(self.root)}"
        return text if self.partition == "day" else f"{text}?partition={self.partition}"


@dataclass(frozen=True)
class IcebergTarget:
    """Tables of a namespace in an Iceberg catalog.

    Attributes:
        catalog: name of the catalog, as PyIceberg's configuration has it.
        namespace: that the tables are in; parts separated by dots.
        uri: of the catalog; empty: the configuration says it.
        warehouse: where the tables' files go; empty: the configuration, or the catalog, says it.
        partition: `day` or `none`.
    """

    catalog: str
    namespace: str
    uri: str = ""
    warehouse: str = ""
    partition: str = "day"
    kind: str = ICEBERG

    @classmethod
    def parse(cls, uri: str) -> IcebergTarget:
        """Read a URI.

        Raises:
            BadAddress: it is not one.
        """
        rest, _, text = uri[len("iceberg://") :].partition("?")
        query = read_query(uri, text, ("uri", "warehouse", "partition"))
        catalog, _, path = (unquote(rest)).rstrip("/").partition("/")
        namespace = path.replace("/", ".")
        if not _CATALOG.fullmatch(catalog):
            refuse(uri, "it names no catalog; write iceberg://CATALOG/NAMESPACE")
        if not namespace or not all(_NAME.fullmatch(part) for part in namespace.split(".")):
            refuse(
                uri,
                f"'{namespace}' is no namespace: letters, digits and '_', parts separated by dots; "
                f"write iceberg://{catalog}/NAMESPACE",
            )
        where = query.get("uri", "")
        if urlsplit(where).password:
            refuse(
                uri.replace(f":{urlsplit(where).password}@", ":...@"),
                "a password never stands on the command line; give the catalog's address in "
                f"PYICEBERG_CATALOG__{catalog.upper()}__URI or in .pyiceberg.yaml",
            )
        return cls(catalog, namespace, where, query.get("warehouse", ""), _partition(uri, query))

    def place(self, table: str) -> str:
        """Say where a table is, for people."""
        return f"{self.catalog}: {self.namespace}.{table}"

    @property
    def folder(self) -> str:
        """The local path that it writes to; empty if it is elsewhere."""
        warehouse = self.warehouse.removeprefix("file://")
        if warehouse and "://" not in warehouse:
            return warehouse
        # A catalog in a file is of this machine, wherever the tables are.
        scheme, _, path = self.uri.partition(":///")
        return path if scheme == "sqlite" else ""

    def __str__(self) -> str:
        given = {"uri": self.uri, "warehouse": self.warehouse}
        options = [f"{name}={quoted(value)}" for name, value in given.items() if value]
        options += [f"partition={self.partition}"] * (self.partition != "day")
        text = f"iceberg://{self.catalog}/{self.namespace}"
        return f"{text}?{'&'.join(options)}" if options else text


@dataclass(frozen=True)
class BigQueryTarget:
    """Tables of a dataset in BigQuery.

    Attributes:
        project: that the dataset is of.
        dataset: that the tables are in; it must exist.
        prefix: what the tables' names begin with; may be empty.
        method: of streams: `storage_write_api` or `streaming_inserts`.
        partition: `day` or `none`.
    """

    project: str
    dataset: str
    prefix: str = ""
    method: Literal["storage_write_api", "streaming_inserts"] = "storage_write_api"
    partition: str = "day"
    kind: str = BIGQUERY

    @classmethod
    def parse(cls, uri: str) -> BigQueryTarget:
        """Read a URI.

        Raises:
            BadAddress: it is not one.
        """
        rest, _, text = uri[len("bigquery://") :].partition("?")
        query = read_query(uri, text, ("prefix", "method", "partition"))
        project, _, dataset = unquote(rest).rstrip("/").partition("/")
        prefix, method = query.get("prefix", ""), query.get("method", _METHODS[0])
        if not _PROJECT.fullmatch(project):
            refuse(uri, f"'{project}' is no id of a project; write bigquery://PROJECT/DATASET")
        if not _is_name(dataset):
            refuse(uri, f"'{dataset}' is no dataset: 1 to 1024 letters, digits and '_'")
        if prefix and not _is_name(prefix):
            refuse(uri, f"prefix={prefix} has characters besides letters, digits and '_'")
        if method not in _METHODS:
            refuse(uri, f"method={method} is none of {', '.join(_METHODS)}")
        chosen: Literal["storage_write_api", "streaming_inserts"] = (
            "streaming_inserts" if method == _METHODS[1] else "storage_write_api"
        )
        return cls(project, dataset, prefix, chosen, _partition(uri, query))

    def place(self, table: str) -> str:
        """Return the full name of a table, as `WriteToBigQuery` takes it."""
        return f"{self.project}:{self.dataset}.{self.prefix}{table}"

    @property
    def folder(self) -> str:
        """It writes nothing to this machine."""
        return ""

    def __str__(self) -> str:
        options = [f"prefix={self.prefix}"] * bool(self.prefix)
        options += [f"method={self.method}"] * (self.method != _METHODS[0])
        options += [f"partition={self.partition}"] * (self.partition != "day")
        text = f"bigquery://{self.project}/{self.dataset}"
        return f"{text}?{'&'.join(options)}" if options else text


TableTarget = DuckDBTarget | DeltaTarget | IcebergTarget | BigQueryTarget


def parse_tables(uri: str) -> TableTarget:
    """Read an address of tables.

    Raises:
        BadAddress: it is not one.
    """
    if uri.startswith("delta"):
        return DeltaTarget.parse(uri)
    if uri.startswith("iceberg://"):
        return IcebergTarget.parse(uri)
    if uri.startswith("bigquery://"):
        return BigQueryTarget.parse(uri)
    return DuckDBTarget.parse(uri)


def _is_name(text: str) -> bool:
    return len(text) <= 1024 and re.fullmatch(r"[A-Za-z0-9_]+", text) is not None


def _partition(uri: str, query: dict[str, str]) -> str:
    partition = query.get("partition", "day")
    if partition not in _PARTITIONS:
        refuse(uri, f"partition={partition} is neither day nor none")
    return partition
