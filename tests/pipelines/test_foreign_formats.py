"""Whole runs over strangers' formats: OCEL, Avro, a mapping file; tables, laws and warnings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import run
from tests.formats.avro.records import container, step
from tests.formats.ocel.logs import orders
from tests.pipelines.test_transitions import rows, table, transitions
from transforms.formats.base import Context
from transforms.sources import files

LOGS = Path("/work/shared/data/logs")
MAPPING = """
columns:
  case_id: order.id
  event_time: {path: when, format: "%d.%m.%Y %H:%M"}
  activity: {path: status, values: {1: Open, 2: Closed}, default: Other}
items:
  amount: {path: order.total, type: double}
skip_when:
  - {path: kind, equals: ping}
"""
LINES = [
    '{"order": {"id": "A", "total": 12.50}, "when": "01.02.2024 10:00", "status": 1}',
    '{"order": {"id": "A", "total": "much"}, "when": "01.02.2024 11:00", "status": 2}',
    '{"kind": "ping"}',
    '{"order": {"id": "A"}, "when": "yesterday", "status": 2}',
]


def test_a_mapping_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.yaml").write_text(MAPPING)
    (tmp_path / "in.jsonl").write_text("\n".join(LINES))
    out = tmp_path / "out"
    manifest = transitions(tmp_path / "in.jsonl", out, "--mapping", str(tmp_path / "m.yaml"))
    assert manifest["messages"] == {"in": 4, "decoded": 2, "skipped": 1, "dead": 1}
    assert manifest["items"] == {"amount": "double"}
    assert manifest["warnings"] == ["item amount: not of its type and left out: 1"]
    assert "amount: not of its type and left out: 1" in capsys.readouterr().err
    made = table(out, "transitions").sort_by("sequence")
    assert made["to_state"].to_pylist() == ["Open", "Closed"]
    assert [dict(each or ()) for each in made["attributes"].to_pylist()] == [{"amount": "12.5"}, {}]
    # Its dead letters are read again as they were, or as they are mended.
    mended = tmp_path / "mended.yaml"
    mended.write_text(MAPPING.replace("%d.%m.%Y %H:%M", "yesterday %Y%m%d"))
    again = transitions(out / "dead_letters" / "*", tmp_path / "again", "--format", "dead_letters")
    assert again["messages"]["dead"] == 1
    assert run.main(["inspect", "--input", str(out / "dead_letters"), "--messages", "1"]) == 0
    assert "'yesterday' is not a time in the form %d.%m.%Y %H:%M" in capsys.readouterr().out


@pytest.mark.parametrize("notation", ["json", "xml", "sqlite"])
def test_ocel(tmp_path: Path, notation: str, capsys: pytest.CaptureFixture[str]) -> None:
    log = orders()
    path = tmp_path / "log.file"
    data = {"json": log.as_json, "xml": log.as_xml}.get(
        notation, lambda: log.as_sqlite(tmp_path / "log.sqlite")
    )()
    path.write_bytes(data)
    code = run.main(["transitions", "--input", str(path), "--output", str(tmp_path / "out")])
    assert code == 2
    said = capsys.readouterr().err
    assert "'item' (1 object, 2 events), 'order' (2 objects, 5 events)" in said
    assert not (tmp_path / "out").exists()
    manifest = transitions(
        path, tmp_path / "out", "--object_type", "order", "--items", "price:long,clerk"
    )
    assert manifest["messages"] == {"in": 6, "decoded": 5, "skipped": 1, "dead": 0}
    assert manifest["events"]["transitions"] == 6
    assert manifest["warnings"] == ["item price: not of its type and left out: 1"]
    code = run.main(
        [
            "transitions",
            "--input",
            str(path),
            "--output",
            str(tmp_path / "o"),
            "--object_type",
            "ordr",
        ]
    )
    assert code == 2
    assert "did you mean 'order'?" in capsys.readouterr().err


@pytest.mark.skipif(not LOGS.is_dir(), reason="the shared logs are not here")
def test_the_standard_s_example_gives_equal_tables(tmp_path: Path) -> None:
    made = []
    for name, zone in (
        ("ocel20_example.jsonocel", "UTC"),
        ("ocel20_example.xmlocel", "Europe/Berlin"),
        ("ocel20_example.sqlite", "Europe/Berlin"),
    ):
        out = tmp_path / name
        options = ("--object_type", "Invoice", "--timezone", zone, "--items", "is_blocked:boolean")
        manifest = transitions(LOGS / name, out, *options)
        assert manifest["messages"] == {"in": 13, "decoded": 9, "skipped": 4, "dead": 0}
        made.append((rows(out, "transitions"), rows(out, "cases", "updated_at")))
    assert made[0] == made[1] == made[2]


def test_avro_files(tmp_path: Path) -> None:
    (tmp_path / "steps.avro").write_bytes(container([step(i) for i in range(50)]))
    manifest = transitions(tmp_path / "steps.avro", tmp_path / "out", "--items", "amount:double")
    assert manifest["messages"]["decoded"] == manifest["events"]["transitions"] == 50
    amounts = [
        dict(each) for each in table(tmp_path / "out", "transitions")["attributes"].to_pylist()
    ]
    assert amounts == [{"amount": "12.5"}] * 50


def test_one_good_log_among_others_is_enough_to_start(tmp_path: Path) -> None:
    log = orders()
    (tmp_path / "a.json").write_bytes(log.as_json())
    del log.objects["i1"]
    (tmp_path / "b.json").write_bytes(log.as_json())
    plan = files.plan([f"{tmp_path}/*.json"], "auto", Context())
    assert files.unmet_demand(plan, "auto", Context()) is None
    manifest = transitions(f"{tmp_path}/*.json", tmp_path / "out")
    assert manifest["messages"]["dead"] == 2  # the log without a choice; an event of the item
    assert json.dumps(manifest["items"]) == "{}"
