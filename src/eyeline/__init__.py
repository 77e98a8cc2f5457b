"""eyeline: computer vision in plain sight.

The names below are imported when they are first used, so that `import eyeline` is quick and
needs neither torch nor a GPU.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eyeline.checkpoints import load_weights
    from eyeline.errors import EyelineError
    from eyeline.evaluation import evaluate
    from eyeline.export import calibrate, optimize
    from eyeline.inference import Predictor
    from eyeline.registry import create_model, list_models
    from eyeline.training import train

__version__ = version("eyeline")

_HOME = {
    "EyelineError": "eyeline.errors",
    "Predictor": "eyeline.inference.predictor",
    "calibrate": "eyeline.export.calibration",
    "create_model": "eyeline.registry",
    "evaluate": "eyeline.evaluation.evaluate",
    "list_models": "eyeline.registry",
    "load_weights": "eyeline.checkpoints",
    "optimize": "eyeline.export.optimize",
    "train": "eyeline.training.loop",
}

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'eyeline' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
