"""Formats by name, by content, and from other packages."""

from __future__ import annotations

import importlib.metadata
import io
from collections.abc import Iterator
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.formats import registry


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    registry.get.cache_clear()
    registry._installed.cache_clear()


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"case_id": ["1"]}), out)
    return out.getvalue()


@pytest.mark.parametrize("name", registry.names())
def test_every_format_is_there(name: str) -> None:
    found = registry.get(name)
    assert found.name == name
    assert found.title
    assert found.expansion > 0
    assert isinstance(found.python_bound, bool)


@pytest.mark.parametrize(
    ("head", "name", "expected"),
    [
        (b'{"case_id": 1}\n{"case_id": 2}\n', "x", "json_lines"),
        (b'\xef\xbb\xbf\n {"case_id": 1}', "x.txt", "json_lines"),
        (b'{"case_id": "' + b"x" * 70_000, "a.jsonl.gz", "json_lines"),
        (b'[{"case_id": 1}, {"case_id": 2}]', "x", "json"),
        (b'{\n  "case_id": 1\n}\n', "x.json", "json"),
        (b"[1, 2]", "x.json", None),
        (b"broken {\n", "a.txt", None),
        (b"case_id,activity\n1,2\n", "x", "csv"),
        (b"Case ID;Activity\n1;2\n", "x", "csv"),
        (b"only_one_column\n1\n", "x.csv", "csv"),
        (b"only one line of prose", "x", None),
        (b"Dear reader, this is prose; it has commas, and more.", "x.txt", None),
        (b"1,2\n3,4\n", "x", None),
        (parquet(), "x", "parquet"),
        (parquet(), "x.csv", "parquet"),
        (b"\x00\x01\x02", "x.csv", None),
        (b"", "x", None),
        (b"", "x.csv", None),
        (b'<?xml version="1.0"?>\n<log xes.version="1.0"><trace/></log>', "x", "xes"),
        (b'<document><item name="$uniqueid"><value>1</value></item></document>', "x", "imixs_xml"),
        (b'{"item":[{"name":"$uniqueid","value":["1"]}]}', "x", "imixs_json"),
        (b'{"data":[{"item":[{"name":"$uniqueid","value":["1"]}]}]}', "x", "imixs_json"),
    ],
)
def test_detection_by_content(head: bytes, name: str, expected: str | None) -> None:
    found = registry.detect(head[: registry.HEAD_BYTES], name)
    assert (None if found is None else found.name) == expected


def test_an_unknown_name() -> None:
    with pytest.raises(registry.UnknownFormat, match=r"unknown format 'xml'; known are .*csv"):
        registry.get("xml")


class Shouting:
    name = "shouting"
    title = "upper-case text"
    expansion = 1.0
    python_bound = True

    def detects(self, head: bytes, name: str) -> bool:
        return head.startswith(b"SHOUT")


FORMAT = Shouting()


def test_a_format_of_another_package() -> None:
    entry = importlib.metadata.EntryPoint("shouting", f"{__name__}:FORMAT", registry.ENTRY_POINTS)
    found = importlib.metadata.EntryPoints([entry])
    with mock.patch.object(
        importlib.metadata, "entry_points", lambda group: found.select(group=group)
    ):
        registry._installed.cache_clear()
        assert registry.names()[0] == "shouting"
        assert registry.get("shouting").title == "upper-case text"
        assert registry.detect(b"SHOUT, case_id, activity\n", "x.csv") is registry.get("shouting")
