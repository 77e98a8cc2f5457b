"""Torch files that hold objects besides tensors, read without running what they ask for.

A checkpoint of mmengine has its log in it, `torch.save(model)` a whole model: pickles that name
classes, which unpickling would import and call. Here each class of a few libraries becomes `Inert`,
which does nothing and keeps what it is given; tensors are rebuilt by torch, arrays and numbers as
in `eyeline.checkpoints.pickles`; any other name is refused. Sources of classes that older files
bring are not looked at: torch would compare them with ours, and can write the difference to a file.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from eyeline.checkpoints.pickles import ALLOWED, Function, Refused

# Libraries whose classes may be in a file.
ROOTS = ("mmengine", "mmcv", "mmdet", "numpy", "retinanet", "torch.nn")
NAMES = {("builtins", "getattr"), ("__builtin__", "getattr")}


class Inert:
    """In place of an object whose class is not imported: whatever is done to it, nothing happens.

    `state` is what its class would have been given to restore it.
    """

    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    add = append


def known(name: str) -> bool:
    """Whether a dotted name is one that may be in a file, and becomes `Inert` or an array."""
    return any(f"{name}.".startswith(f"{root}.") for root in ROOTS)


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        key = (module.replace("numpy._core", "numpy.core"), name)
        if key in TORCH:
            return TORCH[key]
        if key in ALLOWED:
            return ALLOWED[key]
        if key in NAMES or known(module):
            return Inert
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise Refused(f"{module}.{name}")

    def load(self) -> Any:
        """Torch sets `persistent_load` first; for a class with its source it compares the two."""
        this: Any = self
        if stored := getattr(this, "persistent_load", None):
            storages = ("storage", b"storage")
            this.persistent_load = lambda pid: stored(pid) if pid[0] in storages else pid[1]
        return super().load()


TORCH: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): Function(torch._utils._rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Function(torch._utils._rebuild_tensor_v2),
    ("torch._utils", "_rebuild_parameter"): Function(torch._utils._rebuild_parameter),
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("collections", "defaultdict"): Function(lambda *given: defaultdict(None)),
}


def read_inert(path: Path) -> object:
    """What a torch file holds, on the CPU; of a whole model its state dict.

    Raises Refused where it names what is neither a tensor's, an array's nor one of `ROOTS`, and
    whatever a damaged file raises.
    """
    reading: Any = ModuleType("reading")  # in place of `pickle`
    reading.Unpickler = _Reader
    reading.load = lambda file, **how: _Reader(file, **how).load()
    found = torch.load(path, "cpu", pickle_module=reading, weights_only=False)
    return tensors_of(found, set()) if isinstance(found, Inert) else found


def tensors_of(module: Inert, seen: set[int]) -> dict[str, Tensor]:
    """The state dict of what was a `torch.nn.Module`; empty where it was none. `seen` are its
    dicts, each taken once: a few in one another, each twice, would have any number of names."""
    state = module.state if isinstance(module.state, dict) else {}

    def part(kind: str) -> dict[Any, Any]:
        found = state.get(kind)
        if not isinstance(found, dict) or id(found) in seen:
            return {}
        seen.add(id(found))
        return found

    passing = state.get("_non_persistent_buffers_set") or ()
    found: dict[str, Tensor] = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in part(kind).items():
            if isinstance(value, Tensor) and not (isinstance(passing, set) and name in passing):
                found[name] = value.detach()
    for name, child in part("_modules").items():
        if isinstance(child, Inert):
            found |= {f"{name}.{key}": value for key, value in tensors_of(child, seen).items()}
    return found
