"""The reference of the output tables is what the schemas say."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from schemas import __main__ as docs
from schemas.tables import TABLES, Output


def test_docs_are_current() -> None:
    assert docs.main(["--check"]) == 0, "run `python -m schemas`"


def test_every_table_and_column_is_there_in_order() -> None:
    text = docs.document()
    at = 0
    for table in TABLES.values():
        at = text.index(f"\n## {table.name}\n", at)
        for field in table.schema:
            at = text.index(f"\n| `{field.name}` | ", at)


def test_a_stale_file_is_found_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "docs" / "tables.md"
    monkeypatch.setattr(docs, "DOCS", path)
    assert docs.main(["--check"]) == 1
    assert "run `python -m schemas`" in capsys.readouterr().err
    assert not path.exists()
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0
    path.write_text(path.read_text(encoding="utf-8") + "by hand\n", encoding="utf-8")
    assert docs.main(["--check"]) == 1


def test_a_section_says_mode_key_and_columns() -> None:
    nested = pa.map_(pa.string(), pa.list_(pa.string()))
    schema = pa.schema(
        [
            pa.field("key", pa.string(), nullable=False, metadata={"doc": "a | b"}),
            pa.field("events", nested, metadata={"doc": "by stage"}),
        ]
    )
    text = docs.document([Output("alerts", schema, "upsert", ("rule", "key"), "An alert.")])
    assert text.endswith(
        "## alerts\n\nAn alert.\n\nMode: upsert. Key: `rule`, `key`.\n\n"
        "| column | type | null | meaning |\n|---|---|---|---|\n"
        "| `key` | text | no | a \\| b |\n"
        "| `events` | map of text to list of text | yes | by stage |\n"
    )


def test_an_unnamed_type_is_an_error() -> None:
    with pytest.raises(TypeError, match="no words for the type decimal"):
        docs.type_name(pa.decimal128(5))
