"""What a run has said of itself is read back, or it is said why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.tables import CASES
from tests.sinks.test_commit import Place, place, write
from transforms.sinks.commit import LocalStore, OutputError, Run
from transforms.sinks.manifest import BadManifest, read_manifest

__all__ = ["place"]

WHOLE = {"tables": {"cases": {"rows": 2, "files": 1}}, "run_id": "r"}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    run = Run.start(str(tmp_path), LocalStore(), ["cases"])
    assert read_manifest(str(tmp_path)) is None, "a run that has not ended says nothing"
    run.commit(WHOLE, {"cases": write(run, CASES, [2])})
    assert read_manifest(str(tmp_path)) == WHOLE


@pytest.mark.parametrize("place", ["none", "file", "file/below"])
def test_where_no_run_was_there_is_nothing(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    assert read_manifest(str(tmp_path / place)) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b'{"tables": {"ca', "unexpected end of data"),
        (b"\x00" * 100, "line 1 column 1"),
        (b"[1, 2]", "it does not say which rows the run has written"),
        (b"{}", "it does not say which rows the run has written"),
        (b'{"tables": {"cases": 3}}', "it does not say which rows"),
        (b'{"tables": {"cases": {"rows": "3"}}}', "it does not say which rows"),
    ],
)
def test_one_that_is_broken_is_named_with_the_fix(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "_run.json").write_bytes(content)
    with pytest.raises(BadManifest) as broken:
        read_manifest(str(tmp_path))
    said = str(broken.value)
    assert said.startswith(f"{tmp_path}/_run.json can't be read as what a run says of itself (")
    assert why in said and "run it again, or put the file back" in said and "\n" not in said


def test_one_that_is_not_to_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "_run.json").mkdir()
    with pytest.raises(BadManifest, match=r"_run\.json can't be read: .*[Ii]s a directory"):
        read_manifest(str(tmp_path))


def test_a_file_system_that_there_is_not_is_told() -> None:
    with pytest.raises(BadManifest, match=r"nope://x/_run\.json can't be read: "):
        read_manifest("nope://x")


def test_tables_that_are_half_those_of_another_run_are_no_runs(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = place.start()
    first.commit(WHOLE, {"cases": write(first, CASES, [2])})
    run = place.start()

    def dies(*_: object) -> None:
        raise OSError(5, "the machine dies")

    with monkeypatch.context() as patch:
        patch.setattr(type(place.store), "replace", dies)
        with pytest.raises(OutputError, match="the machine dies"):
            run.commit({**WHOLE, "run_id": "s"}, {"cases": write(run, CASES, [3])})
    with pytest.raises(BadManifest, match="are being replaced by those of another run"):
        read_manifest(place.output)
    run.abort()
    found = read_manifest(place.output)
    assert found is not None and found["run_id"] == "s"
