"""Outputs of each cell of several maps, side by side.

Letters   B pictures, N boxes of all cells of all maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eyeline.nn.anchors import flatten_cells
from eyeline.nn.fused import fused
from eyeline.nn.layers import ConvNorm


class MapHeads(nn.ModuleList):
    """A 3x3 convolution for each map (SSD, sec. 2.1): maps of `channels` -> (B, N, outputs),
    float32, where a cell of map l has `boxes[l]` boxes. Nothing is shared between maps."""

    def __init__(self, channels: Sequence[int], boxes: Sequence[int], outputs: int) -> None:
        super().__init__(
            ConvNorm(inputs, count * outputs, 3)
            for inputs, count in zip(channels, boxes, strict=True)
        )
        self.outputs = outputs

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        found = (fused(level, layer) for level, layer in zip(maps, self, strict=True))
        return torch.cat([flatten_cells(each, self.outputs).float() for each in found], 1)
