"""Parts are made once, whole, and by one process; what is missing is said."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import apache_beam.version
import pytest

from pipelines import prism as found
from tests.services import kafka as kafka_service
from tests.services import prism as prism_service
from tests.services.kafka import KafkaBroker
from tests.services.provision import Missing, call, missing_part, provide


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "imixs-data-streaming"


def test_a_part_is_made_once(cache: Path) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("whole")

    assert provide("part-1", make) == provide("part-1", make) == cache / "part-1"
    assert len(made) == 1
    assert (cache / "part-1" / "file").read_text() == "whole"


def test_half_a_part_is_none(cache: Path) -> None:
    missing = Missing("part", "no network")

    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise missing

    with pytest.raises(Missing, match="part: no network"):
        provide("part-1", fail)
    assert [path.name for path in cache.iterdir()] == [".part-1.lock"]
    assert provide("part-1", lambda folder: None).is_dir()


def test_processes_wait_for_one_another(cache: Path) -> None:
    program = (
        "import time; from tests.services.provision import provide\n"
        "def make(folder):\n"
        "    print('made', flush=True); time.sleep(0.5); (folder / 'file').write_text('whole')\n"
        "print((provide('part-1', make) / 'file').read_text())"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    texts = [each.communicate(timeout=60)[0].split() for each in both]
    assert sorted(texts) == [["made", "whole"], ["whole"]]
    assert cache.is_dir()


def test_a_failing_command_is_quoted() -> None:
    with pytest.raises(Missing, match=r"(?s)part: `sh -c .*exit code 3:\nbad news"):
        call("part", ["sh", "-c", "echo bad news; exit 3"])


def test_what_is_missing_skips_but_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs a broker: no java"):
        missing_part("a broker", "no java")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="needs a broker: no java"):
        missing_part("a broker", "no java")


@pytest.mark.usefixtures("cache")
def test_missing_programs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match="java is not on PATH"):
        kafka_service.provision()
    with pytest.raises(Missing, match="go is not on PATH"):
        prism_service.provision()
    assert found.location() is None


def test_the_fetched_parts_are_kept(kafka: KafkaBroker) -> None:
    assert kafka.running
    began = time.monotonic()
    home = kafka_service.provision()
    assert time.monotonic() - began < 0.1
    assert home.parent == found.cache()
    assert list(home.glob("libs/kafka-clients-*.jar"))


def test_prism_is_beams_own_version_and_found(
    prism: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found.VERSION == apache_beam.version.__version__
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found.location() == prism == str(found.built())
    first = tmp_path / "prism"
    first.write_text("#!/bin/sh\n")
    first.chmod(0o755)
    assert found.location() == str(first)
    done = subprocess.run(
        [prism, "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert "job_port" in done.stdout + done.stderr
    assert os.access(prism, os.X_OK)
