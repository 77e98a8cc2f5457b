"""A model as one graph: pictures in, detections in their pixels, or logits of them, out.

Letters   B pictures, C channels, K classes, H and W of the pictures, D detections at most, m side
          of a mask.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from eyeline.nn.detector import as_float
from eyeline.nn.letterbox import GREY
from eyeline.structures import Batch

INPUT = "images"


class Graph(nn.Module):
    """A detector's `prepare`, `compute` and `finish` for pictures of one size, in fixed shapes.

    The size that a picture is resized to is computed in the graph, as `fitted_size` does, so that
    one graph serves pictures of any size. Masks stay small.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Pictures (B, C, H, W) uint8 to what is found in them, best first.

        Returns `boxes` (B, D, 4) xyxy in the pictures' pixels, `scores` (B, D), `labels` (B, D)
        int64 and `count` (B,) int64: how many of D slots hold a detection; the others are 0. Of
        models that have some, `masks` (B, D, m, m): probabilities, each over its box.
        """
        given = torch.stack([torch.scalar_tensor(n, dtype=torch.int64) for n in images.shape[2:]])
        fitted = self.fitted(given)
        found = self.model.compute(self.prepare(images, fitted))
        empty, scale = ~found.valid, (given / fitted).flip(0).repeat(2)  # (B, D), (4,)
        out = {
            "boxes": (found.boxes * scale).masked_fill(empty[..., None], 0),
            "scores": found.scores.masked_fill(empty, 0),
            "labels": found.labels.masked_fill(empty, 0),
            "count": found.valid.sum(1),
        }
        if found.masks is not None:
            out["masks"] = found.masks.masked_fill(empty[..., None, None], 0)
        return out

    def fitted(self, given: Tensor) -> Tensor:
        """`fitted_size` of a height and width (2,) that are known only when the graph runs."""
        p, size = self.model.preprocess, given.double()
        if p.stretch:
            return torch.full((2,), p.min_size)
        limits = torch.tensor([p.min_size, p.max_size], dtype=size.dtype)
        scale = (limits / torch.stack([size.amin(0), size.amax(0)])).amin(0)
        return (size * scale).floor().long().clamp(min=1)

    def prepare(self, images: Tensor, fitted: Tensor) -> Batch:
        """`Preprocess` of pictures that are resized to `fitted` (2,)."""
        p = self.model.preprocess
        if p.stretch:  # known beforehand
            height = width = p.min_size
            rows = columns = -(-p.min_size // p.divisor)
        else:
            height, width = fitted.tolist()
            rows, columns = (-(-fitted // p.divisor)).tolist()  # of cells, after padding
            for number in (height, width, rows, columns):
                torch._check(number >= 1)
            if p.centred:  # corners on corners need two of them
                torch._check(height > 1)
                torch._check(width > 1)
        sizes = fitted.expand(images.shape[0], 2)
        mean, std = (torch.tensor(values)[:, None, None] for values in (p.mean, p.std))
        resized = F.interpolate(
            as_float(images), size=(height, width), mode="bilinear", align_corners=p.centred
        )
        if p.centred:
            cells: Any = (-(-fitted.amax(0) // p.divisor)).item()
            torch._check(cells >= 1)
            side = cells * p.divisor
            # By tensors: of torch's own numbers ONNX would round a negative half towards 0.
            begin = (side - fitted) // 2
            top, left = begin.tolist()
            right, below = side - width - left, side - height - top
            for number in (top, left, right, below):
                torch._check(number >= 0)
            square = F.pad(resized, (left, right, top, below), value=GREY)
            return Batch((square - mean) / std, sizes, sizes, offsets=begin.expand_as(sizes))
        missing = (0, columns * p.divisor - width, 0, rows * p.divisor - height)
        return Batch(F.pad((resized - mean) / std, missing), sizes, sizes)


class MapGraph(nn.Module):
    """A segmenter's `prepare`, `compute` and `finish` for pictures of one size, known beforehand:
    what its network pads, crops and enlarges follows from it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Pictures (B, C, H, W) uint8 to `logits` (B, K, H, W)."""
        p, size = self.model.preprocess, (images.shape[2], images.shape[3])
        mean, std = (torch.tensor(values)[:, None, None] for values in (p.mean, p.std))
        fitted, pixels = p.fitted(size), as_float(images)
        if fitted != size:
            pixels = F.interpolate(pixels, fitted, mode="bilinear", align_corners=False)
        sizes = torch.tensor(fitted).expand(images.shape[0], 2)
        logits = self.model.compute(Batch((pixels - mean) / std, sizes, sizes))
        return {"logits": self.model.resized(logits, size)}


def capture(model: Any, size: tuple[int, int] | None = None) -> ExportedProgram:
    """The graph of a model as torch sees it, for any number of pictures: of a detector of any size,
    of a segmenter of the `size` given, height and width."""
    p = model.preprocess
    sizes = {0: Dim("batch", min=1)}
    if size is not None:
        graph: nn.Module = MapGraph(model)
        example = torch.zeros(2, len(p.mean), *size, dtype=torch.uint8)
    else:
        graph = Graph(model)
        example = torch.zeros(2, len(p.mean), p.min_size, p.min_size + 1, dtype=torch.uint8)
        sizes |= {2: Dim("height", min=1), 3: Dim("width", min=1)}
    with torch.no_grad():
        return torch.export.export(graph, (example,), dynamic_shapes={INPUT: sizes})
