"""The archive and its truth, against a recount of the written files."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import statistics
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from examples.simulator import (
    Faults,
    Layout,
    Scenario,
    Snapshot,
    Truth,
    Witness,
    deliver,
    newest,
    simulate,
    write_archive,
    write_documents,
    write_xes,
)
from examples.simulator.__main__ import main
from tests.examples import recount

NASTY = Faults(
    duplicate=0.08,
    phantom=0.06,
    missing=0.06,
    broken=0.04,
    empty=0.01,
    profile=0.03,
    unreadable=0.03,
    old_log=0.2,
)


def write(
    folder: Path,
    *,
    seed: int = 11,
    cases: int = 150,
    faults: Faults | None = None,
    scenario: Scenario | None = None,
    newest_only: bool = False,
) -> Truth:
    faults = faults or NASTY
    snapshots = simulate(seed, cases, scenario=scenario, faults=faults)
    source = newest(snapshots) if newest_only else snapshots
    witness = Witness()
    layout = Layout(export_documents=40)
    if newest_only:
        layout = Layout(exports=0, pages=0, numbered=False)
    messages = deliver(source, seed=seed, faults=faults)
    write_archive(folder, witness.watch(messages), seed=seed, layout=layout)
    return witness.truth()


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return found.hexdigest()


def check(truth: Truth, found: recount.Count) -> None:
    assert truth.messages == truth.decoded + truth.skipped + truth.dead
    assert truth.events == truth.transitions + truth.duplicates + truth.rejected
    for name in ("messages", "decoded", "skipped", "dead", "empty", "events", "rejected"):
        assert getattr(truth, name) == getattr(found, name), name
    assert set(truth.cases) == set(found.cases)
    transitions = retracted = 0
    for id_, case in truth.cases.items():
        lines, denied = found.transitions(id_), found.retracted(id_)
        assert [tuple(row) for row in case.transitions] == lines
        assert [tuple(row) for row in case.retracted] == denied
        transitions += len(lines)
        retracted += len(denied)
    assert (truth.transitions, truth.retracted) == (transitions, retracted)
    assert truth.duplicates == found.readable - transitions


@pytest.mark.parametrize("seed", [1, 2])
def test_truth_equals_a_recount_of_the_files(tmp_path: Path, seed: int) -> None:
    truth = write(tmp_path, seed=seed, scenario=Scenario(chatty=0.05))
    assert min(truth.skipped, truth.dead, truth.empty, truth.rejected, truth.retracted) > 0
    check(truth, recount.count(tmp_path))


def test_truth_of_old_engines_on_berlin_time(tmp_path: Path) -> None:
    scenario = Scenario(old_zone="Europe/Berlin", chatty=0.3)
    truth = write(tmp_path, faults=replace(NASTY, old_log=1.0), scenario=scenario)
    check(truth, recount.count(tmp_path, "Europe/Berlin"))
    assert any(row.actor is None for case in truth.cases.values() for row in case.transitions)


def test_truth_of_nanoseconds(tmp_path: Path) -> None:
    truth = write(tmp_path, cases=60, scenario=Scenario(nanos=True))
    check(truth, recount.count(tmp_path))


def test_a_clean_archive_has_neither_dead_nor_retracted(tmp_path: Path) -> None:
    truth = write(tmp_path, faults=Faults.none())
    check(truth, recount.count(tmp_path))
    assert truth.messages == truth.decoded
    assert (truth.rejected, truth.retracted, len(truth.cases)) == (0, 0, 150)


def test_a_backup_has_one_file_a_case(tmp_path: Path) -> None:
    faults = replace(Faults.none(), phantom=0.05)
    truth = write(tmp_path, faults=faults, newest_only=True)
    check(truth, recount.count(tmp_path))
    assert (truth.messages, truth.duplicates, truth.retracted) == (150, 0, 0)
    names = [path.name.split(".")[0] for path in tmp_path.glob("2024/??/*")]
    assert sorted(names) == sorted(truth.cases)


def test_old_engines_lose_the_front_of_long_logs(tmp_path: Path) -> None:
    faults = replace(Faults.none(), old_log=1.0)
    scenario = Scenario(chatty=1.0, invoices=0.0)
    kept = write(tmp_path / "all", cases=40, faults=faults, scenario=scenario)
    backup = write(
        tmp_path / "backup", cases=40, faults=faults, scenario=scenario, newest_only=True
    )
    check(backup, recount.count(tmp_path / "backup"))
    lost = [id_ for id_, case in kept.cases.items() if len(case.transitions) > 30]
    assert lost
    assert any(
        len(backup.cases[id_].transitions) < len(kept.cases[id_].transitions) for id_ in lost
    )
    for id_, case in backup.cases.items():
        tail = kept.cases[id_].transitions[-len(case.transitions) :]
        assert [row[:4] for row in case.transitions] == [row[:4] for row in tail]


def test_a_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    truths = [write(tmp_path / name, seed=5, cases=80) for name in ("a", "b")]
    other = write(tmp_path / "c", seed=6, cases=80)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")
    assert truths[0] == truths[1] != other


def test_layout_has_every_kind_of_file(tmp_path: Path) -> None:
    write(tmp_path, cases=250)
    names = [path.name for path in tmp_path.glob("2024/??/*")]
    assert len(names) == len([path for path in tmp_path.rglob("*") if path.is_file()])
    for kind in (".xml", ".xml.gz", ".json", ".json.gz"):
        assert any(name.endswith(kind) and not name.startswith("export") for name in names), kind
    for kind in (".xml", ".json"):
        assert any(name.startswith("export") and name.endswith(kind) for name in names), kind


def documents(snapshots: list[Snapshot]) -> list[ET.Element]:
    clean = deliver(snapshots, seed=1, faults=Faults.none())
    return [ET.fromstring(message.payload()) for message in clean]


def test_documents_are_snapshots_as_the_engine_sends_them() -> None:
    snapshots = list(simulate(4, 200, faults=Faults.none(), scenario=Scenario(files=0.1)))
    found = documents(snapshots)
    first: set[str] = set()
    modified: dict[str, str | None] = {}
    lines: dict[str, list[str]] = {}
    transactions = set()
    files = follow_ups = 0
    for root in found:
        names = [item.attrib["name"] for item in root]
        assert names == sorted(set(names))
        texts = {item.attrib["name"]: item.findtext("value") for item in root}
        log = [value.text or "" for value in root.findall("item[@name='$eventlog']/value")]
        id_ = texts["$uniqueid"] or ""
        assert texts["$eventid"] == "0"
        last = log[-1].split("|")
        told = [texts[name] for name in ("$modelversion", "$lasttask", "$lastevent", "$taskid")]
        assert told == last[1:5]
        assert (texts["$editor"] or "") == last[5]
        assert texts["$lasteditor" if "$lasteditor" in names else "type"] != last[5]
        assert log[: len(lines.get(id_, []))] == lines.get(id_, [])
        follow_ups += len(log) - len(lines.get(id_, [])) == 2
        lines[id_] = log
        assert (id_ in first) == ("$created" in names) == ("$modified" in names)
        assert texts.get("$modified") != modified.get(id_) or id_ not in first
        first.add(id_)
        modified[id_] = texts.get("$modified")
        transactions.add(texts["$transactionid"])
        content = root.find("item[@name='$file']/value/item/value[2]")
        if content is not None:
            files += 1
            assert 2 * 1024 <= len(base64.b64decode(content.text or "")) <= 12 * 1024
    assert len(transactions) == len(found)
    assert files > 10
    assert follow_ups > 10
    assert len(first) == 200


def test_documents_have_about_forty_items_and_four_kib() -> None:
    snapshots = list(simulate(4, 300, scenario=Scenario(files=0.0)))
    found = [message.payload() for message in deliver(snapshots, seed=1, faults=Faults.none())]
    assert 3.5 * 1024 < statistics.median(map(len, found)) < 4.75 * 1024
    assert 36 <= statistics.mean(content.count(b"<item ") for content in found) <= 46
    text = b"".join(found).decode()
    assert all(mark in text for mark in ("ü", "👍", "|freigegeben|", "&amp;", "&lt;", '"'))


def test_benchmark_documents(tmp_path: Path) -> None:
    single = write_documents(tmp_path / "single", 1100, seed=3)
    packed = write_documents(tmp_path / "packed", 1100, seed=3, collections=True)
    assert (single.files, packed.files) == (1100, 2)
    assert {path.stat().st_size for path in (tmp_path / "single").rglob("*.xml")} == {4096}
    counts = [recount.count(tmp_path / name) for name in ("single", "packed")]
    for found in counts:
        assert (found.messages, found.decoded, len(found.cases)) == (1100, 1100, 1100)
        assert (found.events, found.readable) == (11_000, 11_000)
    assert counts[0].cases.keys() == counts[1].cases.keys()
    write_documents(tmp_path / "again", 1100, seed=3, collections=True)
    assert digest(tmp_path / "packed") == digest(tmp_path / "again")


def test_benchmark_log(tmp_path: Path) -> None:
    log = write_xes(tmp_path / "log.xes", 3, 5000)
    root = ET.parse(tmp_path / "log.xes").getroot()
    space = "{http://www.xes-standard.org/}"
    traces = root.findall(f"{space}trace")
    assert (len(traces), len(root.findall(f"{space}trace/{space}event"))) == (log.traces, 5000)
    assert log.bytes == (tmp_path / "log.xes").stat().st_size
    assert log.bytes / 5000 == pytest.approx(474, rel=0.02)
    write_xes(tmp_path / "log.xes.gz", 3, 5000)
    unpacked = gzip.decompress((tmp_path / "log.xes.gz").read_bytes())
    assert unpacked == (tmp_path / "log.xes").read_bytes()


def test_command_writes_archive_and_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, truth = tmp_path / "archive", tmp_path / "truth.json"
    arguments = ["--cases", "60", "--output", str(place), "--truth", str(truth)]
    assert main([*arguments, "--unreadable", "0.05"]) == 0
    loaded = Truth.load(truth)
    check(loaded, recount.count(place))
    assert json.loads(truth.read_text("utf-8"))["end_states"] == ["1900", "1950", "2900"]
    assert f"{loaded.transitions:,} transitions" in capsys.readouterr().out
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == truth.read_bytes()


def test_command_writes_backups_and_benchmarks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backup, truth = tmp_path / "backup", tmp_path / "truth.json"
    arguments = ["--cases", "50", "--newest-only", "--old-engines", "--no-faults"]
    assert main([*arguments, "--output", str(backup), "--truth", str(truth)]) == 0
    assert len([path for path in backup.rglob("*") if path.is_file()]) == 50
    check(Truth.load(truth), recount.count(backup))
    flat = tmp_path / "flat"
    assert main(["--flat", "30", "--collections", "--output", str(flat)]) == 0
    assert recount.count(flat).decoded == 30
    assert main(["--xes", "40", "--output", str(tmp_path / "log.xes")]) == 0
    assert "40 events" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--output", "{full}"], "not empty"),
        (["--output", "{new}", "--truth", "{new}/truth.json"], "inside the archive"),
        (["--output", "{new}", "--duplicate", "2"], "between 0 and 1"),
        (["--output", "{new}", "--cases", "0"], "at least 1"),
        (["--output", "{new}", "--days", "0"], "positive"),
        (["--output", "{new}", "--newest-only", "--missing", "0.1"], "leave them out"),
        (["--output", "{full}/file/below"], "file"),
    ],
)
def test_command_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("kept", "utf-8")
    told = [each.format(full=full, new=tmp_path / "new") for each in arguments]
    assert main(told) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert [path.name for path in full.iterdir()] == ["file"]
