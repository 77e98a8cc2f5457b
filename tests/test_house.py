"""House rules: import directions, no torchvision, short paper files, examples that resolve."""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import types
from contextlib import suppress
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src" / "eyeline").rglob("*.py"))
PAPERS = [
    path
    for folder in ("detectors", "segmenters", "classifiers")
    for path in sorted((ROOT / "src" / "eyeline" / folder).glob("*.py"))
    if path.name != "__init__.py"
]
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
BLOCKS = {
    page: re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S) for page in PAGES
}
EXAMPLES = [  # each block with those before it, for a page's blocks share their names
    pytest.param("".join(blocks[: number + 1]), id=f"{page.relative_to(ROOT)}:{number}")
    for page, blocks in BLOCKS.items()
    for number in range(len(blocks))
]


def test_import_directions_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """The contracts in pyproject.toml, as `lint-imports` checks them."""
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None)
    report = capsys.readouterr().out
    assert status == 0, report
    assert "0 broken" in report


def imported_packages(tree: ast.AST) -> set[str]:
    """Top-level packages named by the absolute imports anywhere in a module."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.append(node.module or "")
    return {name.split(".")[0] for name in names}


def test_nothing_imports_torchvision() -> None:
    imported = {path: imported_packages(ast.parse(path.read_text())) for path in SOURCES}
    assert len(imported) >= 40
    assert sum("torch" in packages for packages in imported.values()) >= 20  # the search finds
    assert [path for path, packages in imported.items() if "torchvision" in packages] == []


def test_paper_files_are_short() -> None:
    assert {"retinanet", "faster_rcnn", "resnet"} <= {path.stem for path in PAPERS}
    lengths = {path.name: len(path.read_text().splitlines()) for path in PAPERS}
    assert {name: n for name, n in lengths.items() if n >= 400} == {}


def unresolved(code: str) -> list[str]:
    """Names and dotted names in `code` that neither it, Python nor an import provides."""
    tree = ast.parse(code)
    known: dict[str, object] = dict(vars(builtins))
    missing = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                module = importlib.import_module(alias.name)
                top = importlib.import_module(alias.name.split(".")[0])
                known[alias.asname or top.__name__] = module if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                with suppress(ImportError):  # a module that nothing has imported yet
                    importlib.import_module(f"{node.module}.{alias.name}")
                if not hasattr(module, alias.name):
                    missing.append(f"{node.module}.{alias.name}")
                known[alias.asname or alias.name] = getattr(module, alias.name, None)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            known[node.name] = None
        elif isinstance(node, ast.arg):
            known[node.arg] = None
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            known[node.id] = None
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id not in known:
            missing.append(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = known.get(node.value.id)
            if isinstance(owner, types.ModuleType) and not hasattr(owner, node.attr):
                missing.append(f"{node.value.id}.{node.attr}")
    return missing


def test_the_documentation_has_examples() -> None:
    assert len(EXAMPLES) >= 2


@pytest.mark.parametrize("code", EXAMPLES)
def test_names_in_documentation_resolve(code: str) -> None:
    assert unresolved(code) == []


def test_unresolved_names_are_found() -> None:
    code = "import math\nfrom pathlib import Path, Pth\nx = math.sine(y)\nprint(Path, x)"
    assert unresolved(code) == ["pathlib.Pth", "math.sine", "y"]
