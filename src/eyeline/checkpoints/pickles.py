"""Pickled arrays, without running what a pickle asks for.

A pickle is a program: it names functions and calls them. Detectron2's files need four of them, by
which numpy rebuilds an array, besides OrderedDict; each is replaced here by one of ours that does
nothing else, and any other name is refused.
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
            return _as_tensors(_Reader(file, encoding="latin1").load())
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


class _Array(np.ndarray):
    """An empty array to be filled by its state, which must be of numbers."""

    def __setstate__(self, state: Any) -> None:
        _check(state[2])
        super().__setstate__(state)


def _array(kind: object, shape: object, code: object) -> np.ndarray:
    return _Array((0,), np.uint8)


def _kind(*words: Any) -> np.dtype:
    found = np.dtype(words[0])
    _check(found)
    return found


def _scalar(kind: np.dtype, data: bytes | str) -> Any:
    _check(kind)
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, kind, 1)[0].item()


def _bytes(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise Refused(f"an encoding {encoding!r}")
    return text.encode("latin1")


def _check(kind: np.dtype) -> None:
    if not isinstance(kind, np.dtype) or kind.kind not in KINDS:
        raise Refused(f"an array of {kind}")


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _kind,
    ("_codecs", "encode"): _bytes,
    ("collections", "OrderedDict"): OrderedDict,
}


def _as_tensors(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value, order="C"))
    if isinstance(value, dict):
        return {key: _as_tensors(part) for key, part in value.items()}
    return value
