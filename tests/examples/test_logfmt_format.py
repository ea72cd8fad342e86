"""The example package: where it is installed it is found, used, and its own tests pass."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "examples" / "logfmt_format"
LINES = """\
ts=2024-08-27T12:04:20Z case=1 step=open user=kim
ts=2024-08-27T12:05:20Z case=1 step="check invoice" user=kim
garbage
ts=2024-08-27T12:06:20Z case=2 step=open user=lena
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Put the package into a folder as an installer does; an environment that sees it.

    Building a wheel would need a newer setuptools than some interpreters have, and a network.
    """
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE / "src", folder, dirs_exist_ok=True)
    project = (PACKAGE / "pyproject.toml").read_text()
    name, version = re.findall(r'^(?:name|version) = "(.+)"$', project, re.MULTILINE)
    group, entry, value = re.findall(
        r'^\[project\.entry-points\."(.+)"\]\n(\w+) = "(.+)"$', project, re.MULTILINE
    )[0]
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry} = {value}\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def test_a_run_reads_it(installed: Mapping[str, str], tmp_path: Path) -> None:
    (tmp_path / "app.log").write_text(LINES)
    words = ["transitions", "--input", str(tmp_path / "app.log"), "--output", str(tmp_path / "out")]
    for more in ([], ["--format", "logfmt"]):
        done = subprocess.run(
            [sys.executable, str(ROOT / "run.py"), *words, *more],
            check=False,
            capture_output=True,
            text=True,
            env=installed,
        )
        assert done.returncode == 0, done.stderr
        counts = json.loads((tmp_path / "out" / "_run.json").read_text())
        assert counts["events"]["transitions"] == 3
        assert (counts["messages"]["decoded"], counts["messages"]["dead"]) == (3, 1)


def test_its_own_tests(installed: Mapping[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "tests"],
        check=False,
        capture_output=True,
        text=True,
        env=installed,
        cwd=PACKAGE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_without_it_the_format_is_not_known() -> None:
    script = "from transforms.formats import registry; print('logfmt' in registry.names())"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.strip() == "False"
