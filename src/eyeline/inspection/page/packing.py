"""Numbers in a form that a page can hold."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from torch import Tensor

# The script's typed arrays.
ARRAYS = {"float32": "Float32Array", "uint16": "Uint16Array", "uint8": "Uint8Array",
          "int16": "Int16Array"}  # fmt: skip
SHARE = 65535  # what stands for 1


def packed(values: Tensor | np.ndarray, kind: str) -> dict[str, Any]:
    """An array as base64, flat; `kind` is one of `ARRAYS`."""
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    data = np.ascontiguousarray(array.astype(kind)).tobytes()
    return {"array": ARRAYS[kind], "data": base64.b64encode(data).decode()}


def shares(values: Tensor) -> dict[str, Any]:
    """Numbers from 0 to 1, to 1/65535, in two bytes each."""
    whole = (values.clamp(0, 1).double() * SHARE).round()
    return packed(whole, "uint16") | {"scale": 1 / SHARE}


def numbers(values: Tensor, digits: int = 2) -> Any:
    """A small tensor as nested lists, rounded."""
    return np.round(values.detach().cpu().double().numpy(), digits).tolist()
