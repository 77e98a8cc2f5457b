"""A small fully convolutional head, which many segmenters have, most of them beside their own."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.nn.fused import fused
from eyeline.nn.layers import ConvNorm


class FCNHead(nn.Module):
    """A 3x3 convolution to a quarter of the channels, its norm and ReLU, drop-out, classes of each
    cell: (B, C, h, w) -> (B, K, h, w). So torchvision has it; its paper has none."""

    def __init__(
        self,
        inputs: int,
        classes: int,
        norm: str = "batch",
        dropout: float = 0.1,
        norm_epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        self.conv = ConvNorm(inputs, inputs // 4, 3, norm, norm_epsilon=norm_epsilon)
        self.classes = nn.Conv2d(inputs // 4, classes, 1)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        x = fused(x, self.conv, relu=True)
        if self.training:
            x = F.dropout(x, self.dropout)
        return fused(x, self.classes)
