"""Whole runs of `transitions` through the command line: files in, tables and exit codes out."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import run
from examples import compare
from examples.simulator.archive import write_archive
from examples.simulator.delivery import deliver
from examples.simulator.scenario import Faults
from examples.simulator.simulate import simulate
from examples.simulator.truth import Truth, Witness
from transforms.kernels.transitions import TransitionsKernel

SHARED = Path(__file__).parents[3] / "shared" / "data"
START = datetime(2024, 3, 4, 8, tzinfo=timezone.utc)
TABLES = ("transitions", "cases", "late", "retracted", "dead_letters")


def transitions(source: str | Path, output: Path, *options: str) -> dict[str, Any]:
    """Run the pipeline and return its manifest; the laws hold, or the exit code is not 0."""
    code = run.main(
        ["transitions", "--input", str(source), "--output", str(output), "--workers", "1"]
        + ["--progress", "off", *options]
    )
    assert code == 0
    manifest = manifest_of(output)
    assert set(manifest["tables"]) == set(TABLES)
    assert not [p for p in output.iterdir() if p.name.startswith(".")]
    return dict(manifest)


def manifest_of(output: Path) -> dict[str, Any]:
    """Return the manifest of a run, whose laws hold."""
    manifest: dict[str, Any] = json.loads((output / "_run.json").read_bytes())
    messages, events = manifest["messages"], manifest["events"]
    assert messages["in"] == messages["decoded"] + messages["skipped"] + messages["dead"]
    kept = ("transitions", "duplicates", "late", "rejected", "outside")
    assert events["in"] == sum(events[name] for name in kept)
    return manifest


def table(output: Path, name: str) -> pa.Table:
    found = [pq.read_table(path) for path in sorted((output / name).iterdir())]
    return pa.concat_tables(found).unify_dictionaries()


def rows(output: Path, name: str, *without: str) -> list[str]:
    """Return a table's rows in an order that does not depend on shards."""
    return sorted(map(repr, table(output, name).drop_columns(list(without)).to_pylist()))


def log(cases: int = 30, seed: int = 1) -> list[dict[str, Any]]:
    """Make a small log in order of time."""
    source = random.Random(seed)
    events = []
    for case in range(cases):
        time = START + timedelta(minutes=source.randrange(5000))
        for _ in range(source.randrange(1, 8)):
            time += timedelta(milliseconds=source.randrange(1, 10**8))
            events.append(
                {
                    "case_id": f"c-{case}",
                    "activity": source.choice(["create", "prüfen", 'pay, "now"', "close"]),
                    "event_time": time,
                    "actor": source.choice(["anna@example.org", "ben@example.org", None]),
                    "amount": source.choice(["1.5", "20", None]),
                }
            )
    return sorted(events, key=lambda e: (e["event_time"], e["case_id"]))


def as_json_lines(events: list[dict[str, Any]]) -> bytes:
    return b"".join(
        json.dumps({**e, "event_time": e["event_time"].isoformat()}).encode() + b"\n"
        for e in events
    )


def as_csv(events: list[dict[str, Any]]) -> bytes:
    lines = ["case_id;activity;event_time;actor;amount"]
    for e in events:
        texts = [e["case_id"], e["activity"], e["event_time"].isoformat(), e["actor"], e["amount"]]
        lines.append(";".join('"{}"'.format((t or "").replace('"', '""')) for t in texts))
    return "\n".join(lines).encode()


def as_parquet(events: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(events), sink)
    return sink.getvalue().to_pybytes()


def as_xes(events: list[dict[str, Any]]) -> bytes:
    from xml.sax.saxutils import quoteattr  # noqa: PLC0415

    traces: dict[str, list[dict[str, Any]]] = {}
    for e in events:
        traces.setdefault(e["case_id"], []).append(e)
    text = ['<?xml version="1.0" encoding="UTF-8"?><log xmlns="http://www.xes-standard.org/">']
    for case, own in traces.items():
        text.append(f'<trace><string key="concept:name" value="{case}"/>')
        for e in own:
            text.append(f'<event><string key="concept:name" value={quoteattr(e["activity"])}/>')
            text.append(f'<date key="time:timestamp" value="{e["event_time"].isoformat()}"/>')
            for key, name in (("org:resource", "actor"), ("amount", "amount")):
                if e[name]:
                    text.append(f'<string key="{key}" value="{e[name]}"/>')
            text.append("</event>")
        text.append("</trace>")
    return ("\n".join([*text, "</log>"])).encode()


def unchanged(data: bytes) -> bytes:
    return data


WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "log.jsonl": as_json_lines,
    "log.csv": as_csv,
    "log.parquet": as_parquet,
    "log.xes": as_xes,
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    (folder / "log.jsonl").write_bytes(as_json_lines(log()))
    transitions(folder / "log.jsonl", folder / "out", "--items", "amount")
    return folder / "out"


# Positions differ between formats, and with them the hashed event ids.
HASHED = ("event_id",)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("pack", [unchanged, gzip.compress])
def test_every_format_gives_the_same_tables(
    name: str, pack: Callable[[bytes], bytes], tmp_path: Path, reference: Path
) -> None:
    (tmp_path / name).write_bytes(pack(WRITERS[name](log())))
    manifest = transitions(tmp_path / name, tmp_path / "out", "--items", "amount")
    assert manifest["messages"]["dead"] == 0
    assert rows(tmp_path / "out", "transitions", *HASHED) == rows(reference, "transitions", *HASHED)
    assert rows(tmp_path / "out", "cases") == rows(reference, "cases")


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_compression_is_seen_by_content(
    pack: Callable[[bytes], bytes], tmp_path: Path, reference: Path
) -> None:
    (tmp_path / "export.data").write_bytes(pack(as_json_lines(log())))
    transitions(tmp_path / "export.data", tmp_path / "out", "--items", "amount")
    assert rows(tmp_path / "out", "transitions") == rows(reference, "transitions")


def test_columns_of_transitions_and_cases(reference: Path) -> None:
    expected: list[dict[str, Any]] = []
    cases: dict[str, list[dict[str, Any]]] = {}
    for e in log():
        cases.setdefault(e["case_id"], []).append(e)
    for case, own in cases.items():
        for i, e in enumerate(own):
            previous = own[i - 1] if i else None
            expected.append(
                {
                    "case_id": case,
                    "sequence": i,
                    "event_time": e["event_time"],
                    "activity": e["activity"],
                    "from_state": previous and previous["activity"],
                    "to_state": e["activity"],
                    "duration_s": previous
                    and (e["event_time"] - previous["event_time"]).total_seconds(),
                    "elapsed_s": (e["event_time"] - own[0]["event_time"]).total_seconds(),
                    "actor": e["actor"],
                    "previous_actor": previous and previous["actor"],
                    "is_start": i == 0,
                    "is_end": False,
                    "verdict": "unknown",
                    "gap": False,
                    "attributes": [("amount", e["amount"])] if e["amount"] else [],
                }
            )
    found = table(reference, "transitions").select(list(expected[0])).to_pylist()
    for row in found:
        row["attributes"] = row["attributes"] or []
    assert sorted(map(repr, map(_plain, found))) == sorted(map(repr, map(_plain, expected)))
    by_case = {row["case_id"]: row for row in table(reference, "cases").to_pylist()}
    variants: dict[str, list[str]] = {}
    for case, own in cases.items():
        row = by_case.pop(case)
        states = [e["activity"] for e in own]
        assert row["transitions"] == len(own)
        assert row["rework"] == sum(n > 1 for n in Counter(states).values())
        assert (row["is_complete"], row["cycle_time_s"]) == (False, None)
        assert row["state"] == states[-1]
        variants.setdefault(row["variant_id"], states)
        assert variants[row["variant_id"]] == states
    assert not by_case
    assert len(variants) == len({tuple(e["activity"] for e in own) for own in cases.values()})


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()}


@pytest.mark.parametrize(
    "options",
    [
        ("--shards", "7"),
        ("--workers", "2", "--shards", "3"),
        ("--workers", "2", "--shards", "3", "--direct_running_mode", "multi_processing"),
    ],
)
def test_shards_threads_and_processes_change_nothing(
    options: tuple[str, ...], tmp_path: Path, reference: Path
) -> None:
    for i, part in enumerate([log()[::2], log()[1::2]]):
        (tmp_path / f"{i}.jsonl").write_bytes(as_json_lines(part))
    base = tmp_path / "base"
    transitions(tmp_path / "*.jsonl", base, "--items", "amount")
    transitions(tmp_path / "*.jsonl", tmp_path / "out", "--items", "amount", *options)
    for name in TABLES:
        assert rows(tmp_path / "out", name) == rows(base, name)
    assert rows(base, "cases") == rows(reference, "cases")


def test_output_formats_hold_the_same(tmp_path: Path, reference: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(as_json_lines(log()))
    for name in ("jsonl", "csv"):
        out = tmp_path / name
        transitions(tmp_path / "log.jsonl", out, "--items", "amount", "--output_format", name)
    expected = {r["row_id"]: r for r in table(reference, "transitions").to_pylist()}
    lines = [
        json.loads(line)
        for path in (tmp_path / "jsonl" / "transitions").iterdir()
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert {line["row_id"] for line in lines} == set(expected)
    for line in lines:
        row = expected[line["row_id"]]
        assert list(line) == list(row)
        assert (
            datetime.fromisoformat(line["event_time"].replace("Z", "+00:00")) == (row["event_time"])
        )
        assert (line["duration_s"], line["gap"], line["activity"]) == (
            row["duration_s"],
            row["gap"],
            row["activity"],
        )
    (path,) = (tmp_path / "csv" / "transitions").iterdir()
    read = pyarrow.csv.read_csv(path)
    assert set(read["row_id"].to_pylist()) == set(expected)


def test_running_again_replaces_and_other_files_stay(tmp_path: Path, reference: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (tmp_path / "log.jsonl").write_bytes(as_json_lines(log()[:20]))
    transitions(tmp_path / "log.jsonl", out, "--items", "amount", "--shards", "5")
    (tmp_path / "log.jsonl").write_bytes(as_json_lines(log()))
    transitions(tmp_path / "log.jsonl", out, "--items", "amount")
    assert rows(out, "transitions") == rows(reference, "transitions")
    assert (out / "notes.txt").read_text() == "mine"


def test_end_states_complete_log_since_and_until(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(as_json_lines(log()))
    source = tmp_path / "log.jsonl"
    transitions(source, tmp_path / "ends", "--end_states", "close")
    ends = table(tmp_path / "ends", "transitions")
    assert pc.all(pc.equal(ends["is_end"], pc.equal(ends["to_state"], "close"))).as_py()
    for row in table(tmp_path / "ends", "cases").to_pylist():
        assert row["is_complete"] == (row["state"] == "close")
        assert (row["cycle_time_s"] is not None) == row["is_complete"]
    transitions(source, tmp_path / "whole", "--complete_log")
    whole = table(tmp_path / "whole", "transitions").to_pylist()
    last = {row["case_id"]: row["sequence"] for row in sorted(whole, key=lambda r: r["sequence"])}
    assert all(row["is_end"] == (row["sequence"] == last[row["case_id"]]) for row in whole)
    assert all(table(tmp_path / "whole", "cases")["is_complete"].to_pylist())

    manifest = transitions(
        source, tmp_path / "part", "--since", "2024-03-06", "--until", "2024-03-07"
    )
    assert manifest["events"]["outside"] > 0
    part = table(tmp_path / "part", "transitions").to_pylist()
    everything = {row["row_id"]: row for row in whole}
    since, until = (datetime(2024, 3, day, tzinfo=timezone.utc) for day in (6, 7))
    expected = {i for i, row in everything.items() if since <= row["event_time"] < until}
    assert {row["row_id"] for row in part} == expected
    for row in part:  # what came before still counts for sequence, durations and starts
        same = dict(everything[row["row_id"]], is_end=False)
        assert row == same


def test_an_archive_with_every_fault_equals_its_ground_truth(tmp_path: Path) -> None:
    faults = Faults(
        duplicate=0.1, phantom=0.05, missing=0.05, broken=0.03, empty=0.01, profile=0.02,
        unreadable=0.03, old_log=0.2,
    )  # fmt: skip
    witness = Witness()
    messages = deliver(simulate(3, 250, faults=faults), seed=3, faults=faults)
    write_archive(tmp_path / "archive", witness.watch(messages), seed=3)
    truth = witness.truth()
    truth.save(tmp_path / "truth.json")
    options = ("--end_states", ",".join(truth.end_states))
    manifest = transitions(tmp_path / "archive", tmp_path / "out", *options)
    assert truth.retracted > 0
    assert manifest["retracted"] == truth.retracted
    assert min(truth.duplicates, truth.rejected, truth.dead, truth.skipped) > 0
    assert compare.main([str(tmp_path / "out"), str(tmp_path / "truth.json")]) == 0
    # Once more in pieces: the rows are the same to the letter.
    transitions(tmp_path / "archive", tmp_path / "again", *options, "--shards", "6")
    for name in TABLES:
        assert rows(tmp_path / "again", name) == rows(tmp_path / "out", name)


class TestBadInput:
    """What is bad is a dead letter or a one-line error; what is good comes out."""

    @pytest.fixture
    def good(self, tmp_path: Path) -> Path:
        folder = tmp_path / "in"
        folder.mkdir()
        (folder / "good.jsonl").write_bytes(as_json_lines(log()))
        return folder

    def check(self, folder: Path, tmp_path: Path, errors: dict[str, int], *options: str) -> None:
        manifest = transitions(folder / "**", tmp_path / "out", *options)
        letters = table(tmp_path / "out", "dead_letters").to_pylist()
        assert Counter(letter["error"] for letter in letters) == errors
        assert manifest["events"]["transitions"] >= len(log())
        assert all(letter["message"] and letter["source"] for letter in letters)

    @pytest.mark.parametrize(
        ("name", "content", "error"),
        [
            ("broken.xml", b"<document><item name='$uniqueid'><value>1</value>", "InvalidXml"),
            ("text.txt", b"\x00\x01\x02 not a log at all", "UnknownFormat"),
            ("cut.bin.gz", gzip.compress(random.Random(1).randbytes(3000))[:400], "UnreadableFile"),
            (
                "laughs.xml",
                b'<?xml version="1.0"?><!DOCTYPE document [<!ENTITY a "ha"><!ENTITY b '
                b'"&a;&a;&a;&a;&a;&a;&a;&a;">]><document><item name="$uniqueid"><value>&b;'
                b"</value></item></document>",
                "ForbiddenDtd",
            ),
            (
                "external.xml",
                b'<!DOCTYPE data SYSTEM "file:///etc/passwd"><data><document><item name="a">'
                b"</item></document></data>",
                "ForbiddenDtd",
            ),
            (
                "latin.xml",
                b'<?xml version="1.0" encoding="UTF-8"?><document><item name="$uniqueid"><value>'
                b"\xe4\xf6</value></item></document>",
                "InvalidXml",
            ),
        ],
        ids=["broken", "text", "cut", "laughs", "external", "latin"],
    )
    def test_a_bad_file_is_one_dead_letter(
        self, good: Path, tmp_path: Path, name: str, content: bytes, error: str
    ) -> None:
        (good / name).write_bytes(content)
        self.check(good, tmp_path, {error: 1})
        (letter,) = table(tmp_path / "out", "dead_letters").to_pylist()
        assert letter["payload"] == content
        assert letter["payload_size"] == len(content)
        assert str(good / name) in letter["source"]

    def test_a_truncated_archive_gives_what_came_before(self, tmp_path: Path) -> None:
        data = gzip.compress(as_json_lines(log(3000)))
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "log.jsonl.gz").write_bytes(data[: len(data) // 2])
        manifest = transitions(tmp_path / "in" / "*", tmp_path / "out")
        assert manifest["events"]["transitions"] > 1000
        letters = table(tmp_path / "out", "dead_letters")["error"].to_pylist()
        assert "TruncatedFile" in letters

    def test_rows_without_case_time_or_activity(self, good: Path, tmp_path: Path) -> None:
        bad = [
            {"activity": "x", "event_time": "2024-01-01T00:00:00Z"},
            {"case_id": "", "activity": "x", "event_time": "2024-01-01T00:00:00Z"},
            {"case_id": "1", "activity": "x", "event_time": "the day before"},
            {"case_id": "1", "activity": "x"},
            {"case_id": "1", "event_time": "2024-01-01T00:00:00Z"},
        ]
        lines = as_json_lines(log(5)) + b"".join(json.dumps(b).encode() + b"\n" for b in bad)
        (good / "bad.jsonl").write_bytes(lines + b"{not json\n[1]\n\n")
        self.check(
            good,
            tmp_path,
            {"MissingCaseId": 2, "BadTime": 1, "MissingTime": 1, "MissingActivity": 1,
             "InvalidJson": 2},
        )  # fmt: skip
        payloads = {p["payload"] for p in table(tmp_path / "out", "dead_letters").to_pylist()}
        assert {b"{not json", b"[1]", json.dumps(bad[2]).encode()} <= payloads

    def test_an_empty_file_is_a_warning(self, good: Path, tmp_path: Path) -> None:
        for name in ("empty.jsonl", "empty.xml", "empty.xes.gz"):
            (good / name).write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
        manifest = transitions(good / "**", tmp_path / "out")
        assert [w.endswith(" is empty") for w in manifest["warnings"]] == [True] * 3
        assert manifest["messages"]["dead"] == 0

    def test_an_empty_file_alone_gives_empty_tables(self, tmp_path: Path) -> None:
        (tmp_path / "empty.csv").write_bytes(b"")
        transitions(tmp_path / "empty.csv", tmp_path / "out")
        for name in TABLES:
            assert table(tmp_path / "out", name).num_rows == 0
            assert "row_id" in table(tmp_path / "out", name).column_names

    def test_a_document_too_large_is_dead_without_being_read(
        self, good: Path, tmp_path: Path
    ) -> None:
        with open(good / "huge.xml", "wb") as file:
            file.write(b"<document><item name='$uniqueid'><value>1</value></item>")
            file.write(b"<item name='text'><value>")
            file.truncate(200 * 1024 * 1024)  # sparse: zeros
        self.check(good, tmp_path, {"TooLarge": 1})
        (letter,) = table(tmp_path / "out", "dead_letters").to_pylist()
        assert len(letter["payload"]) <= 64 * 1024

    def test_a_folder_in_the_match_is_no_file(self, good: Path, tmp_path: Path) -> None:
        (good / "folder.jsonl").mkdir()
        self.check(good, tmp_path, {})

    def test_dead_letters_are_replayed(self, tmp_path: Path) -> None:
        lines = as_csv(log()).decode().replace("T", " at ")
        (tmp_path / "log.csv").write_text(lines, encoding="utf-8")
        first = transitions(tmp_path / "log.csv", tmp_path / "first")
        assert first["messages"]["dead"] == len(log())
        again = transitions(
            tmp_path / "first" / "dead_letters" / "*",
            tmp_path / "again",
            *("--format", "dead_letters", "--time_format", "%Y-%m-%d at %H:%M:%S.%f%z"),
        )
        # Times without a fraction do not fit that format: they are dead again, unchanged.
        plain = sum(e["event_time"].microsecond == 0 for e in log())
        assert again["messages"]["dead"] == plain
        assert again["events"]["transitions"] == len(log()) - plain

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (["--input", "{tmp}/nothing/*.xml", "--output", "{tmp}/out"], 4, "no file matches"),
            (["--input", "{tmp}/in/*", "--output", "{tmp}/in/good.jsonl"], 5, "is a file"),
            (["--input", "{tmp}/in/*", "--output", "{tmp}/out", "--shards", "0"], 2, "--shards"),
            (["--input", "{tmp}/in/*", "--output", "{tmp}/out", "--shrads", "2"], 2, "--shards"),
        ],
    )
    def test_wrong_configuration_is_one_line(
        self,
        good: Path,
        tmp_path: Path,
        arguments: list[str],
        code: int,
        words: str,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        found = run.main(["transitions", *(a.replace("{tmp}", str(tmp_path)) for a in arguments)])
        assert found == code
        (line,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("error:")]
        assert words in line
        assert not (tmp_path / "out" / "_run.json").exists()

    @pytest.mark.parametrize("name", ["log.csv", "log.jsonl"])
    @pytest.mark.parametrize("mapped", [False, True])
    def test_columns_that_the_first_file_lacks_are_an_error_before_anything_starts(
        self, name: str, mapped: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / name).write_bytes(as_csv(log()) if name == "log.csv" else as_json_lines(log()))
        arguments = ["--input", str(tmp_path / name), "--output", str(tmp_path / "out")]
        if mapped:
            (tmp_path / "map.yaml").write_text("columns:\n  case_id: Ordr\n")
            arguments += ["--mapping", str(tmp_path / "map.yaml")]
        else:
            arguments += ["--columns", "case_id=Ordr"]
        assert run.main(["transitions", *arguments]) == 2
        error = capfd.readouterr().err
        assert (
            f"{'--mapping' if mapped else 'case_id=Ordr'} does not fit {tmp_path / name}" in error
        )
        assert "no column for case_id; it has: case_id, activity" in error
        assert not (tmp_path / "out").exists()

    def test_columns_of_events_after_what_a_mapping_skips(self, tmp_path: Path) -> None:
        others = b'{"kind": "other"}\n' * 300
        (tmp_path / "log.jsonl").write_bytes(others + b'{"no": "c", "activity": "a", "time": 1}\n')
        rules = (
            "columns: {case_id: no, activity: activity, event_time: time}\n"
            "skip_when: [{path: kind, equals: other}]\n"
        )
        (tmp_path / "map.yaml").write_text(rules)
        arguments = ("--mapping", str(tmp_path / "map.yaml"))
        manifest = transitions(tmp_path / "log.jsonl", tmp_path / "out", *arguments)
        assert (manifest["messages"]["decoded"], manifest["messages"]["skipped"]) == (1, 300)

    def test_items_that_no_event_has_are_a_warning(self, good: Path, tmp_path: Path) -> None:
        manifest = transitions(good / "*", tmp_path / "out", "--items", "amount,amuont")
        assert manifest["warnings"] == ["item amuont: no event has it"]

    def test_too_many_dead_letters_fail_the_run(self, good: Path, tmp_path: Path) -> None:
        (good / "bad.jsonl").write_bytes(b"{\n{\n{\n" + as_json_lines(log(2)))
        arguments = ["transitions", "--input", str(good / "*"), "--output", str(tmp_path / "out")]
        assert run.main([*arguments, "--max_dead_letters", "3"]) == 0
        assert run.main([*arguments, "--max_dead_letters", "2"]) == 3
        assert run.main([*arguments, "--max_dead_letters", "1%"]) == 3


def test_a_failed_run_leaves_the_old_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.jsonl").write_bytes(as_json_lines(log()))
    out = tmp_path / "out"
    transitions(tmp_path / "log.jsonl", out, "--shards", "4")
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    step = TransitionsKernel.step
    calls: Iterator[int] = iter(range(100))

    def breaks(self: TransitionsKernel, *arguments: Any) -> Any:
        if next(calls) == 2:
            reason = "the third shard is bad"
            raise ArithmeticError(reason)
        return step(self, *arguments)

    monkeypatch.setattr(TransitionsKernel, "step", breaks)
    code = run.main(
        ["transitions", "--input", str(tmp_path / "log.jsonl"), "--output", str(out)]
        + ["--workers", "1", "--shards", "4"]
    )
    assert code == 1
    assert "the third shard is bad" in capfd.readouterr().err
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_a_killed_run_leaves_the_old_tables_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    source = tmp_path / "log.jsonl"
    source.write_bytes(as_json_lines(log()))
    transitions(source, out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    source.write_bytes(as_json_lines(log(cases=4000)))
    command = [sys.executable, str(Path(run.__file__)), "transitions", "--input", str(source)]
    killed = subprocess.Popen(
        [*command, "--output", str(out), "--shards", "200", "--quiet"], start_new_session=True
    )
    try:
        # Some shards are written, others are not.
        deadline = time.monotonic() + 60
        while len(list(out.glob(".run-*/staging/transitions/*"))) < 3:
            assert killed.poll() is None, "the run was over before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    (left,) = out.glob(".run-*")
    found = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and left not in p.parents}
    assert found == before
    manifest = transitions(source, out)
    assert manifest["tables"]["cases"]["rows"] == 4000
    assert not list(out.glob(".run-*"))


def test_masked_values_are_nowhere_in_the_output(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("0123456789abcdef0123")
    bad = b'{"case_id": "anna@example.org", "activity": "x", "event_time": "never"}\n'
    (tmp_path / "log.jsonl").write_bytes(as_json_lines(log()) + bad)
    # Warnings name files, and what is taken for a header: they may hold what is hidden.
    (tmp_path / "ben@example.org.jsonl").write_bytes(b"")
    (tmp_path / "rows.csv").write_text("anna@example.org,1\nben@example.org,2\n")
    manifest = transitions(
        tmp_path / "*[gv]*",
        tmp_path / "out",
        *("--items", "amount", "--mask", "actor,amount", "--mask_key", f"file:{tmp_path}/key"),
        *("--output_format", "jsonl"),
    )
    written = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*.jsonl"))
    assert b"create" in written
    written += (tmp_path / "out" / "_run.json").read_bytes()
    assert len(manifest["warnings"]) == 1
    assert b"@example.org" not in written
    import base64  # noqa: PLC0415

    assert base64.b64encode(b"anna@example")[:12] not in written


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared logs are not here")
@pytest.mark.parametrize(
    ("name", "cases", "events"),
    [
        ("running-example.xes", 6, 42),
        ("receipt.xes.gz", 1_434, 8_577),
        ("helpdesk.xes.gz", 4_580, 21_348),
        ("roadtraffic100traces.xes", 100, 390),
        ("BPIC15_1.csv.gz", 1_199, 52_217),
        ("PurchasingExample.csv.gz", 608, 9_119),
    ],
)
def test_shared_logs(name: str, cases: int, events: int, tmp_path: Path) -> None:
    manifest = transitions(SHARED / "logs" / name, tmp_path / "out")
    assert manifest["messages"] == {"in": events, "decoded": events, "skipped": 0, "dead": 0}
    assert manifest["events"]["transitions"] == events
    assert manifest["tables"]["cases"]["rows"] == cases


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared documents are not here")
def test_shared_documents(tmp_path: Path) -> None:
    manifest = transitions(SHARED / "imixs" / "documents" / "*", tmp_path / "out")
    letters = table(tmp_path / "out", "dead_letters").to_pylist()
    dead = {Path(letter["source"]).name.split(":")[0]: letter["error"] for letter in letters}
    assert dead == {
        "corrupted.json": "InvalidJson",
        "multidocuments.json": "MissingCaseId",
        "simple_numbers.json": "MissingCaseId",
    }
    assert manifest["messages"]["decoded"] == 3
    found = table(tmp_path / "out", "transitions").to_pylist()
    assert {(r["case_id"], r["source_task"], r["event"], r["task"]) for r in found} >= {
        ("156ea588638-ba4de2b", 1000, 10, 1100)
    }


def test_truth_is_not_trivial(tmp_path: Path) -> None:
    """The comparison with the truth finds a difference where there is one."""
    witness = Witness()
    messages = deliver(simulate(5, 20, faults=Faults.none()), seed=5, faults=Faults.none())
    write_archive(tmp_path / "archive", witness.watch(messages), seed=5)
    truth = witness.truth()
    case = next(iter(truth.cases))
    del truth.cases[case].transitions[-1]
    truth.save(tmp_path / "truth.json")
    assert Truth.load(tmp_path / "truth.json").cases.keys() == truth.cases.keys()
    transitions(tmp_path / "archive", tmp_path / "out")
    assert compare.main([str(tmp_path / "out"), str(tmp_path / "truth.json")]) == 1
