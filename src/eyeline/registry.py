"""Models by name: a dictionary and a decorator."""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from eyeline.errors import EyelineError

if TYPE_CHECKING:
    from torch import nn

# Importing a package registers its models.
PACKAGES = ("eyeline.detectors", "eyeline.segmenters", "eyeline.classifiers")


@dataclass(frozen=True)
class Entry:
    """A registered model: who wrote the paper, what it does, how it is built."""

    name: str
    task: str  # "detection", "segmentation", "classification"
    paper: str  # 'Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002'
    build: Callable[..., nn.Module]  # build(num_classes=..., **options)
    source: str | None = None  # the text of the file that registers it, where it is the user's


_entries: dict[str, Entry] = {}


def register(
    name: str, task: str, paper: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator of a builder `build(num_classes, **options) -> Module`."""

    def keep(build: Callable[..., Any]) -> Callable[..., Any]:
        if name in _entries:
            raise ValueError(f"a model named {name!r} is registered already")
        _entries[name] = Entry(name, task, paper, build)
        return build

    return keep


def entries(task: str | None = None) -> list[Entry]:
    """All registered models, sorted by name; of one task if it is given."""
    for package in PACKAGES:
        importlib.import_module(package)
    return [e for _, e in sorted(_entries.items()) if task is None or e.task == task]


def list_models(task: str | None = None) -> list[str]:
    """Names of all models, sorted; `task` is "detection", "classification" ..."""
    return [entry.name for entry in entries(task)]


def find(name: str) -> Entry:
    """The entry called `name`; an error that suggests the nearest names where there is none."""
    from difflib import get_close_matches

    known = {entry.name: entry for entry in entries()}
    if name not in known:
        near = get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
        raise EyelineError(f"no model is called {name!r}; {hint}")
    return known[name]


def find_own(path: str | Path) -> Entry:
    """The one model that a Python file of the user's registers; of several the one of its name.

    The file may register a name of ours: a copied paper file works where it lands.
    """
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        raise EyelineError(f"no model file at {path}")
    entries()  # ours first, lest the file's imports register them among its own
    module = ModuleType(f"eyeline_own_{path.stem}_{zlib.crc32(str(path).encode()):08x}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    ours = dict(_entries)
    _entries.clear()
    try:
        content = path.read_bytes()
        code = compile(content, path, "exec", dont_inherit=True)
        exec(code, module.__dict__)
        own = list(_entries.values())
    finally:
        _entries.clear()
        _entries.update(ours)
    if len(own) > 1:  # a copied file may hold a model's sisters
        own = [entry for entry in own if entry.name == path.stem] or own
    if len(own) != 1:
        names = ", ".join(entry.name for entry in own) or "none"
        raise EyelineError(f"{path} must register one model, it registers {names}")
    return replace(own[0], source=content.decode("utf-8"))


def find_entry(name: str | Path) -> Entry:
    """The entry of a registered name, or of the path of a .py file."""
    return find_own(name) if str(name).endswith(".py") else find(str(name))


def create_model(
    name: str | Path | None = None,
    weights: Any = None,
    *,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
    pretrained: Any = None,
    **options: Any,
) -> nn.Module:
    """A model by name, from weights, or both.

    Args:
        name: a registered name or the path of a .py file that registers one model; left out, the
            weights tell it.
        weights: a path, a URL, a hub id ("hf:owner/name/file") or a state dict. It sets the
            options (given ones win, where no shape changes) and the classes.
        classes: names of the classes; `num_classes` alone where they have none. With weights of
            other classes, the layers that depend on them stay as initialised; all others load.
        pretrained: weights for the backbone, of a classifier or of another model with such a
            backbone, of any source that `weights` takes; True for timm's own of one of timm. The
            pictures that they were trained on set `image_mean` and `image_std`.
        options: fields of the model's Config.

    The model has `name`, `task`, `classes` and, loaded, `load_report` (what was filled, what not).
    Raises EyelineError for an unknown name or option and for weights that do not fit.
    """
    if name is None and weights is None:
        raise EyelineError("create_model needs a name or weights=")
    if weights is not None and pretrained is not None:
        raise EyelineError("weights= fills the backbone too; leave out pretrained=")
    if classes is not None:
        classes = list(classes)
        if len(set(classes)) != len(classes):
            raise EyelineError("classes= names a class twice")
        if num_classes not in (None, len(classes)):
            raise EyelineError(f"num_classes={num_classes}, but {len(classes)} classes are named")
        num_classes = len(classes)
    entry = None
    if name is not None:
        entry = find_entry(name)
    # By name: imports go downwards, and this is the lowest layer.
    checkpoints = importlib.import_module("eyeline.checkpoints")
    if weights is not None:
        return checkpoints.build(entry, weights, classes, num_classes, options)
    assert entry is not None
    if num_classes is None:
        raise EyelineError(f"{entry.name} needs classes=[...] or num_classes=")
    if pretrained is not None:
        return checkpoints.build_pretrained(entry, pretrained, classes, num_classes, options)
    model = entry.build(num_classes=num_classes, **options)
    describe(model, entry, classes, num_classes)
    return model


def describe(
    model: nn.Module, entry: Entry, classes: Sequence[str] | None, num_classes: int
) -> None:
    """Give a built model what travels with it; unnamed classes are called by their numbers."""
    model.name, model.task = entry.name, entry.task  # type: ignore[assignment]
    model.classes = list(classes or map(str, range(num_classes)))  # type: ignore[assignment]
    model.source = entry.source  # type: ignore[assignment]
