"""Boxes: area, format, clipping, checks.

A box is (x1, y1, x2, y2), float32, in pixels, x to the right and y down; it covers
[x1, x2] x [y1, y2], so its width is x2 - x1, without the "+ 1" of older code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eyeline.errors import EyelineError

FORMATS = ("xyxy", "xywh", "cxcywh")


def area(boxes: Tensor) -> Tensor:
    """Square pixels of boxes (..., 4) -> (...)."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x2 - x1) * (y2 - y1)


def has_area(boxes: Tensor) -> Tensor:
    """Which of boxes (..., 4) have a width and a height: (...) bool."""
    return (boxes[..., 2:] > boxes[..., :2]).all(-1)


def convert(boxes: Tensor, source: str, target: str) -> Tensor:
    """Boxes (..., 4) of one format in another, (..., 4).

    "xyxy": corners; "xywh": top left corner, width, height (COCO); "cxcywh": centre, width,
    height (YOLO, DETR). Raises EyelineError for an unknown format.
    """
    for name in (source, target):
        if name not in FORMATS:
            raise EyelineError(f"no box format is called {name!r}; there are: {', '.join(FORMATS)}")
    if source == target:
        return boxes
    a, b, c, d = boxes.unbind(-1)
    if source == "xywh":
        a, b, c, d = a, b, a + c, b + d
    elif source == "cxcywh":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    # a, b, c, d are corners now
    if target == "xywh":
        a, b, c, d = a, b, c - a, d - b
    elif target == "cxcywh":
        a, b, c, d = (a + c) / 2, (b + d) / 2, c - a, d - b
    return torch.stack([a, b, c, d], -1)


def clip(boxes: Tensor, size: tuple[float, float] | Tensor) -> Tensor:
    """Boxes (..., 4) cut to pictures of `size` (height, width): x to [0, width], y to [0, height].

    `size` may be a tensor (..., 2) that broadcasts against the boxes' leading dimensions.
    A box outside the picture loses its area and stays, on the edge.
    """
    if isinstance(size, Tensor):
        limit = size.flip(-1).to(boxes.dtype)  # width, height
        return torch.minimum(boxes.clamp(min=0), torch.cat([limit, limit], -1))
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(-1)
    x1, x2 = x1.clamp(0, width), x2.clamp(0, width)
    y1, y2 = y1.clamp(0, height), y2.clamp(0, height)
    return torch.stack([x1, y1, x2, y2], -1)


def check_boxes(boxes: Tensor, what: str = "boxes") -> None:
    """Raise EyelineError unless `boxes` is (N, 4), finite, every box with an area above 0.

    The message begins with `what` and names the first box at fault.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise EyelineError(f"{what} must have shape (N, 4), not {tuple(boxes.shape)}")
    finite = boxes.isfinite().all(1)
    good = finite & (boxes[:, 2:] > boxes[:, :2]).all(1)
    if good.all():
        return
    i = int((~good).nonzero()[0])
    box = ", ".join(f"{value:g}" for value in boxes[i].tolist())
    fault = "has no area: x1 < x2 and y1 < y2 must hold" if finite[i] else "is not finite"
    raise EyelineError(f"{what}[{i}] = ({box}) {fault}; correct it or leave it out")
