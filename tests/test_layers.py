"""Imports go one way: run -> pipelines -> transforms -> schemas; what is pure knows no Beam."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("schemas", "transforms", "pipelines", "run")
NEVER = ("tests", "bench", "examples")
PURE = (
    "schemas",
    "transforms/formats",
    "transforms/kernels",
    "transforms/models",
    "transforms/hashing.py",
    "transforms/timeline.py",
    "transforms/windows.py",
    "transforms/topics.py",
    "transforms/progress.py",
    "transforms/mask.py",
)
WIRING = ("sources", "fold", "sinks", "decode", "exchange")
"""Modules of `transforms` that formats, kernels and models do not know."""


def modules(*places: str) -> list[Path]:
    found: list[Path] = []
    for place in places:
        path = ROOT / place
        found.extend(sorted(path.rglob("*.py")) if path.is_dir() else [path][: path.exists()])
    return found


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of every import, inside functions too; `from a import b` as `a.b`."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{name}.{alias.name}"


def offending(path: Path, roots: tuple[str, ...]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for line, name in imported(path)
        if any(name == root or name.startswith(f"{root}.") for root in roots)
    ]


def test_every_layer_is_there() -> None:
    for layer in LAYERS:
        assert modules(layer) or modules(f"{layer}.py"), layer


@pytest.mark.parametrize("number", range(len(LAYERS)))
def test_a_layer_imports_only_those_below(number: int) -> None:
    layer = LAYERS[number]
    above = (*LAYERS[number + 1 :], *NEVER)
    wrong = [w for path in modules(layer, f"{layer}.py") for w in offending(path, above)]
    assert wrong == []


@pytest.mark.parametrize("place", PURE)
def test_what_is_pure_knows_no_beam(place: str) -> None:
    assert [w for path in modules(place) for w in offending(path, ("apache_beam",))] == []


@pytest.mark.parametrize("place", ["formats", "kernels", "models", "hashing.py"])
def test_logic_does_not_know_its_wiring(place: str) -> None:
    wiring = tuple(f"transforms.{name}" for name in WIRING)
    wrong = [w for path in modules(f"transforms/{place}") for w in offending(path, wiring)]
    assert wrong == []


def test_run_has_no_types() -> None:
    """It is `__main__`: a worker could not import a type from it."""
    tree = ast.parse((ROOT / "run.py").read_text(encoding="utf-8"))
    assert [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)] == []


def test_imports_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_layers.ROOT", tmp_path)
    module = tmp_path / "transforms" / "kernels" / "some.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "import apache_beam.io as io\nfrom .. import fold\n"
        "def f():\n    from apache_beam import io\n    from pipelines.options import parse\n"
    )
    assert offending(module, ("apache_beam",)) == [
        "transforms/kernels/some.py:1 imports apache_beam.io",
        "transforms/kernels/some.py:4 imports apache_beam.io",
    ]
    assert len(offending(module, ("transforms.fold",))) == 1
    assert len(offending(module, ("pipelines",))) == 1
