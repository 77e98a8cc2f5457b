"""What `import eyeline` offers, and what it costs."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import eyeline

NAMES = [
    "EyelineError",
    "Predictor",
    "__version__",
    "calibrate",
    "create_model",
    "evaluate",
    "list_models",
    "load_weights",
    "optimize",
    "train",
]


def test_public_names() -> None:
    """Adding a name here is adding it to the API; taking one away breaks somebody's code."""
    assert eyeline.__all__ == NAMES
    assert set(NAMES) <= set(dir(eyeline))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name: str) -> None:
    value = getattr(eyeline, name)
    assert isinstance(value, str) if name == "__version__" else callable(value)
    assert getattr(eyeline, name) is value


def test_submodules_do_not_hide_functions() -> None:
    """`eyeline.evaluation.evaluate` is a function and a module; the public name is the function."""
    import eyeline.evaluation.evaluate
    import eyeline.training.loop

    assert callable(eyeline.evaluate) and callable(eyeline.train)


def test_no_package_offers_a_module() -> None:
    """Every submodule imported: one that is called as what its package offers would hide it."""
    found = [info for info in pkgutil.walk_packages(eyeline.__path__, "eyeline.")]
    modules = {f.name: importlib.import_module(f.name) for f in found if "__main__" not in f.name}
    modules["eyeline"] = eyeline
    offered = [
        (module, name)
        for module, package in modules.items()
        for name in getattr(package, "__all__", [])
    ]
    assert {"eyeline", "eyeline.inspection", "eyeline.ops"} <= {module for module, _ in offered}
    wrong = [at for at in offered if isinstance(getattr(modules[at[0]], at[1]), ModuleType)]
    assert wrong == []


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        eyeline.nothing  # noqa: B018


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_import_is_light() -> None:
    heavy = {"torch", "numpy", "scipy", "PIL", "rich", "typer", "pydantic", "faster_coco_eval"}
    code = "import sys, eyeline; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(run(code).split())
    assert "eyeline" in loaded
    assert not heavy & loaded


def test_the_command_line_answers_without_torch() -> None:
    code = (
        "import sys\nfrom eyeline.cli.main import run\n"
        "status = run(['train', '--help'])\nprint(status, 'torch' in sys.modules)"
    )
    assert run(code).splitlines()[-1] == "0 False"


def test_torchvision_is_never_imported() -> None:
    code = (
        "import sys\nsys.modules['torchvision'] = None\nimport eyeline\n"
        "[getattr(eyeline, name) for name in eyeline.__all__]\nprint(len(eyeline.list_models()))"
    )
    assert int(run(code)) > 0
