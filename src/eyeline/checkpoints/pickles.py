"""Pickled arrays, without running what a pickle asks for.

A pickle is a program: it names functions and calls them. Detectron2's files need four of them, by
which numpy rebuilds an array, besides OrderedDict; each is replaced here by one of ours that does
nothing else, and any other name is refused. A pickle can also change what it has named; these
it cannot.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eyeline.errors import EyelineError

KINDS = "biuf"  # of numbers: no objects, no records


class Refused(Exception):
    """A pickle names something that is no part of an array."""


def read_pickle(path: Path) -> object:
    """What a pickle holds, its arrays as tensors.

    Raises EyelineError where it names anything but what arrays are made of, or is damaged.
    """
    try:
        with path.open("rb") as file:
            return _as_tensors(_Reader(file, encoding="latin1").load(), {})
    except Refused as error:
        raise EyelineError(
            f"{path} contains code ({error}) and was refused; "
            "save its state dict alone, best as safetensors"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EyelineError(f"{path} is not a checkpoint that can be read: {first}") from error


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core")
        if (module, name) not in ALLOWED:
            raise Refused(f"{module}.{name}")
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise Refused("a reference to another file")


class Function:
    """A function that a pickle can call. Of a bare one it could set the attributes, among them
    its defaults, for the whole process."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise Refused("a change of a function")


class _Kind:
    """A dtype of numbers. Its state, which could give numpy's own fields and flags, is read for
    the order of bytes alone."""

    __slots__ = ("dtype",)

    def __init__(self, word: Any, *_: Any) -> None:
        self.dtype: np.dtype = np.dtype(word)
        if self.dtype.kind not in KINDS:
            raise Refused(f"an array of {self.dtype}")

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An empty array to be filled by its state, which must be of numbers."""

    def __setstate__(self, state: Any) -> None:
        version, shape, kind, by_columns, data = state
        super().__setstate__((version, shape, _dtype(kind), by_columns, data))


def _array(kind: object, shape: object, code: object) -> np.ndarray:
    return _Array((0,), np.uint8)


def _scalar(kind: _Kind, data: bytes | str) -> Any:
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, _dtype(kind), 1)[0].item()


def _bytes(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise Refused("another encoding than latin1")
    return text.encode("latin1")


def _dtype(kind: object) -> np.dtype:
    if not isinstance(kind, _Kind):
        raise Refused("an array of no numbers")
    return kind.dtype


ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): Function(_array),
    ("numpy.core.multiarray", "scalar"): Function(_scalar),
    ("numpy", "ndarray"): "ndarray",  # a word for `_array`; called, it would take memory
    ("numpy", "dtype"): Function(_Kind),
    ("_codecs", "encode"): Function(_bytes),
    ("collections", "OrderedDict"): OrderedDict,
}


def _as_tensors(value: Any, made: dict[int, Any]) -> Any:
    """`made`: what has become of each object, which may be in many places."""
    if id(value) not in made and isinstance(value, np.ndarray):
        made[id(value)] = torch.from_numpy(np.array(value, order="C"))
    elif id(value) not in made and isinstance(value, dict):
        made[id(value)] = {key: _as_tensors(part, made) for key, part in value.items()}
    return made.get(id(value), value)
