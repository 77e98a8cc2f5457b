"""Anchors: boxes of several sizes and shapes at every cell of a feature map.

Ren et al., "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497, sec. 3.1.1.

Letters   A anchors of a cell, h and w of the feature map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float], rounded: bool = False) -> Tensor:
    """Anchors (A, 4) about the origin, in pixels: for each ratio, each size.

    sizes    square roots of the areas, in pixels
    ratios   height over width
    rounded  round the coordinates to whole pixels, half to even: torchvision's convention
    """
    size = torch.tensor(sizes, dtype=torch.float32)
    stretch = torch.tensor(ratios, dtype=torch.float32).sqrt()[:, None]
    height = (stretch * size).flatten()
    width = (1 / stretch * size).flatten()
    anchors = torch.stack([-width, -height, width, height], 1) / 2
    return anchors.round() if rounded else anchors


def anchor_grid(
    cell: Tensor,
    feature_size: tuple[int, int],
    stride: tuple[float, float],
    offset: float = 0.5,
) -> Tensor:
    """The anchors `cell` (A, 4) at every cell of a map: (h * w * A, 4), by row, column, anchor.

    feature_size  (h, w) in cells
    stride        (vertical, horizontal), pixels from one cell to the next
    offset        where in its cell an anchor is centred, in cells: 0.5, the middle (the paper);
                  0.0, the top left corner (torchvision, detectron2)
    """
    y, x = (
        (torch.arange(n, dtype=cell.dtype, device=cell.device) + offset) * step
        for n, step in zip(feature_size, stride, strict=True)
    )
    y, x = torch.meshgrid(y, x, indexing="ij")
    centres = torch.stack([x, y, x, y], -1)  # (h, w, 4)
    return (centres[:, :, None] + cell).flatten(0, 2)
