"""Planning and reading units of files."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from apache_beam.io.filesystems import FileSystems

from transforms.formats import json_lines
from transforms.formats.base import Context, Span
from transforms.sources import files
from transforms.sources.files import Unit, open_file, plan, read_unit
from transforms.sources.matching import match


def line(i: int) -> bytes:
    event = {"case_id": f"c{i % 7}", "activity": "x", "event_time": 1_700_000_000 + i}
    return json.dumps(event).encode() + b"\n"


def write(path: Path, rows: int, start: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line(start + i) for i in range(rows)))
    return path


def events_of(found: files.Plan) -> list[tuple[str, int]]:
    """Read all units; (source, position) of each event."""
    return sorted(
        (row["source"], row["position"])
        for unit in found.units
        for decoded in read_unit(Unit.from_bytes(unit.to_bytes()), Context())
        for row in decoded.events.select(["source", "position"]).to_pylist()
    )


def test_patterns_overlap_and_each_file_is_read_once(tmp_path: Path) -> None:
    for name in ("a/1.jsonl", "a/b/2.jsonl", "3.jsonl"):
        write(tmp_path / name, 3)
    (tmp_path / "a" / "folder.jsonl").mkdir()
    patterns = [f"{tmp_path}/**", f"{tmp_path}/a/*.jsonl", f"{tmp_path}/3.jsonl"]
    found = plan(patterns, "auto", Context())
    assert [Path(f.path).name for f in found.files] == ["3.jsonl", "1.jsonl", "2.jsonl"]
    assert found.bytes == sum(f.size for f in found.files)
    assert found.formats == {"json_lines": (3, found.bytes)}
    assert len(events_of(found)) == 9


def test_nothing_matches(tmp_path: Path) -> None:
    found = plan([f"{tmp_path}/*.xml"], "auto", Context())
    assert (found.files, found.units, found.shards) == ((), (), 1)


@pytest.mark.parametrize("limit", [1, 300, 10_000])
def test_units_cover_every_part_once(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(25):
        write(tmp_path / f"{i:02}.jsonl", 1 + i % 4)
    monkeypatch.setattr(files, "UNIT_BYTES", limit)
    monkeypatch.setattr(files, "UNIT_FILES", 10)
    found = plan([f"{tmp_path}/*"], "json_lines", Context())
    parts = [part for unit in found.units for part in unit.parts]
    assert [Path(part[0]).name for part in parts] == [f"{i:02}.jsonl" for i in range(25)]
    assert [unit.number for unit in found.units] == list(range(len(found.units)))
    assert all(len(unit.parts) <= 10 for unit in found.units)


def test_a_large_file_is_cut_and_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "large.jsonl", 2_000)
    whole = events_of(plan([str(path)], "auto", Context()))
    monkeypatch.setattr(files, "LARGE", 1_000)
    monkeypatch.setattr(json_lines, "SPAN_BYTES", 7_001)
    found = plan([str(path)], "auto", Context())
    spans = [Span(part[3], part[4]) for unit in found.units for part in unit.parts]
    assert len(spans) > 10
    assert spans[0].start == 0
    assert [span.end for span in spans[:-1]] == [span.start for span in spans[1:]]
    assert events_of(found) == whole


def test_formats_are_seen_by_content_file_by_file(tmp_path: Path) -> None:
    write(tmp_path / "1.txt", 5)
    (tmp_path / "2.txt").write_text("case_id,activity,event_time\n1,x,2024-01-01T00:00:00Z\n")
    (tmp_path / "3.txt").write_bytes(gzip.compress(b"".join(line(i) for i in range(4))))
    found = plan([f"{tmp_path}/*.txt"], "auto", Context())
    counts = {name: count for name, (count, _) in found.formats.items()}
    assert counts == {"json_lines": 2, "csv": 1}
    assert len(events_of(found)) == 10


def test_shards_follow_the_size_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "1.jsonl", 2_000)
    assert plan([str(path)], "auto", Context()).shards == 1
    monkeypatch.setattr(files, "SHARD_BYTES", 10_000)
    several = plan([str(path)], "auto", Context()).shards
    assert several > 5
    packed = tmp_path / "1.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert plan([str(packed)], "auto", Context()).shards > 1
    assert plan([str(path)], "auto", Context(), shards=3).shards == 3


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00", "UnknownFormat"),
        (gzip.compress(b"\x00\x01\x02" * 50)[:-12], "UnreadableFile"),
        (b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>', "ForbiddenDtd"),
    ],
    ids=["image", "cut", "entities"],
)
def test_what_no_format_claims_is_one_dead_letter(
    tmp_path: Path, content: bytes, error: str
) -> None:
    (tmp_path / "strange").write_bytes(content)
    (unit,) = plan([f"{tmp_path}/*"], "auto", Context()).units
    (decoded,) = read_unit(unit, Context())
    (failure,) = decoded.failures
    assert (failure.error, failure.payload, failure.size) == (error, content, len(content))
    assert decoded.dead == 1


@pytest.mark.parametrize("content", [b"", gzip.compress(b"")], ids=["plain", "gz"])
def test_an_empty_file_is_a_warning(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "empty").write_bytes(content)
    (unit,) = plan([f"{tmp_path}/*"], "auto", Context()).units
    found = list(read_unit(unit, Context()))
    assert [w for d in found for w in d.warnings] == [f"{tmp_path}/empty is empty"]
    assert sum(d.dead + d.decoded + d.skipped for d in found) == 0


def test_a_name_that_is_not_text_is_read_and_shown_escaped(tmp_path: Path) -> None:
    name = os.path.join(os.fsencode(tmp_path), b"caf\xe9.jsonl")
    with open(name, "wb") as file:
        file.write(line(1))
    found = plan([f"{tmp_path}/*"], "auto", Context())
    assert events_of(found) == [(f"{tmp_path}/caf\\xe9.jsonl", 0)]


@pytest.mark.parametrize("format_name", ["auto", "json_lines", "csv", "xes", "parquet"])
def test_a_file_that_cannot_be_opened_is_one_dead_letter(tmp_path: Path, format_name: str) -> None:
    write(tmp_path / "1.jsonl", 3)
    found = plan([f"{tmp_path}/*"], format_name, Context())
    (tmp_path / "1.jsonl").unlink()  # as if forbidden: root may read everything
    (unit,) = found.units
    (decoded,) = read_unit(unit, Context())
    assert [failure.error for failure in decoded.failures] == ["UnreadableFile"]
    assert "No such file" in decoded.failures[0].message


def test_folders_that_are_not_read_are_told(tmp_path: Path) -> None:
    write(tmp_path / "in" / "1.jsonl", 1)
    write(tmp_path / "elsewhere" / "2.jsonl", 1)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    found = plan([f"{tmp_path}/in/**"], "auto", Context())
    (warning,) = found.warnings
    assert warning.startswith(f"{tmp_path}/in/link is a link to a folder, not followed")
    assert plan([f"{tmp_path}/in/*"], "auto", Context()).warnings == ()
    # Beam's way of matching tells the same.
    assert plan([f"{tmp_path}/in/**/*1*"], "auto", Context()).warnings == (warning,)


def test_one_walk_finds_the_files_and_tells_what_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "1.jsonl", 1)
    write(tmp_path / "a" / "2.jsonl", 1)
    write(tmp_path / "shut" / "3.jsonl", 1)
    (tmp_path / "circle.jsonl").symlink_to(tmp_path / "circle.jsonl")
    (tmp_path / "linked.jsonl").symlink_to(tmp_path / "1.jsonl")
    scandir = os.scandir
    seen: list[str] = []

    def forbid(path: str) -> object:  # root may read everything: say no by hand
        seen.append(path)
        if path.endswith("shut"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbid)
    found = plan([f"{tmp_path}/**"], "auto", Context())
    assert [Path(f.path).name for f in found.files] == ["1.jsonl", "2.jsonl", "linked.jsonl"]
    assert found.warnings == (f"{tmp_path}/shut can't be read: Permission denied",)
    assert sorted(seen) == [str(tmp_path), f"{tmp_path}/a", f"{tmp_path}/shut"]


@pytest.mark.parametrize("pattern", ["*", "*.jsonl", "a/*", "a/*.jsonl", "a/b/*.gz", "none/*"])
def test_a_folder_is_matched_as_beam_does_without_a_walk_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    for name in (
        "1.jsonl",
        ".jsonl",
        "2.JSONL",
        "a/3.jsonl",
        "a/4",
        "a/b/5.jsonl",
        "a/b/6.jsonl.gz",
    ):
        write(tmp_path / name, 2)
    (tmp_path / "a" / "folder.jsonl").mkdir()
    (tmp_path / "a" / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a" / "linked.jsonl").symlink_to(tmp_path / "1.jsonl")
    (result,) = FileSystems.match([f"{tmp_path}/{pattern}"])
    theirs = {m.path: m.size_in_bytes for m in result.metadata_list if os.path.isfile(m.path)}
    monkeypatch.setattr(FileSystems, "match", None)
    if pattern.startswith("none"):
        monkeypatch.undo()  # a folder that is not there is Beam's to judge
    found, unseen = match([f"{tmp_path}/{pattern}"])
    assert dict(found) == theirs
    assert unseen == []


def test_a_folder_is_read_once_for_what_is_in_it_and_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "1.jsonl", 1)
    write(tmp_path / "a" / "2.jsonl", 1)
    scandir = os.scandir
    seen: list[str] = []

    def note(path: str) -> object:
        seen.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", note)
    found, _ = match([f"{tmp_path}/**/*.jsonl", f"{tmp_path}/*.jsonl"])
    assert [Path(f.path).name for f in found] == ["1.jsonl", "2.jsonl"]
    assert seen == [str(tmp_path), f"{tmp_path}/a"]


@pytest.mark.parametrize("rows", [0, 1, 3, 700])
def test_a_file_that_has_grown_or_shrunk_since_it_was_matched_is_read_whole(
    tmp_path: Path, rows: int
) -> None:
    path = write(tmp_path / "1.jsonl", 2)
    found = plan([str(path)], "auto", Context())
    write(path, rows)
    assert len(events_of(found)) == rows
    assert open_file(str(path), found.bytes)[1] == path.read_bytes()[: files.HEAD]


@pytest.mark.parametrize("pattern", ["**", "*", "**/*.jsonl", "*1*"])
@pytest.mark.parametrize("format_name", ["auto", "csv"])
def test_much_input_is_told_of_once_before_all_is_found(
    tmp_path: Path, pattern: str, format_name: str
) -> None:
    for i in range(9):
        write(tmp_path / f"{i}1.jsonl", 1)
    told: list[dict[str, int]] = []
    size = (tmp_path / "01.jsonl").stat().st_size
    found = plan(
        [f"{tmp_path}/{pattern}"],
        format_name,
        Context(),
        much=3 * size - 1,
        foresee=lambda sizes: told.append(dict(sizes)),
    )
    assert found.bytes == 9 * size
    assert told == [{"json_lines" if format_name == "auto" else "csv": 3 * size}]
    plan(
        [f"{tmp_path}/{pattern}"],
        format_name,
        Context(),
        much=9 * size + 1,
        foresee=lambda sizes: told.append(dict(sizes)),
    )
    assert len(told) == 1


def test_a_unit_comes_back_whatever_its_files_are_called() -> None:
    names = ["plain", 'quo"te\\', "ümlaut", os.fsdecode(b"n\xf6t utf-8")]
    for number, name in enumerate(names):
        unit = Unit(number, ((name, 5, "", 0, None), ("other", 2**40, "csv", 7, 2**33)))
        assert Unit.from_bytes(unit.to_bytes()) == unit


def test_files_are_judged_by_their_own_extension(tmp_path: Path) -> None:
    for i in range(8):
        write(tmp_path / f"{i}.a.jsonl", 1)
        (tmp_path / f"{i}.csv").write_text("case_id,activity,event_time\nx,y,2024-01-01\n")
        (tmp_path / f"{i}").write_text("case_id,activity,event_time\nx,y,2024-01-01\n")
    found = plan([f"{tmp_path}/**"], "auto", Context())
    assert {name: files for name, (files, _) in found.formats.items()} == {
        "csv": 16,
        "json_lines": 8,
    }
