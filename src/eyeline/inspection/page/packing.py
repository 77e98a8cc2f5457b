"""Numbers and pictures in a form that a page can hold."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image
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


def picture_uri(image: Image.Image, kind: str = "PNG") -> str:
    """A picture that the page carries; JPEG for photographs."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
