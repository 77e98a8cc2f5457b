"""A convolution whose kernel is another at each place."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Local(nn.Module):
    """Locally connected: each place of the map has its own kernels and biases.

    Args:
        inputs, outputs: channels.
        kernel: side of the kernel; by default odd, and the map keeps its size.
        size: height and width of the resulting map, which can have no other.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        size: tuple[int, int],
        stride: int = 1,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel, self.size = kernel, size
        self.stride, self.padding = stride, kernel // 2 if padding is None else padding
        self.inputs, self.outputs = inputs, outputs
        places, count = size[0] * size[1], inputs * kernel**2
        self.bias = nn.Parameter(torch.zeros(outputs, *size))
        self.weight = nn.Parameter(torch.empty(places, outputs, count))
        nn.init.normal_(self.weight, std=math.sqrt(2 / count))

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs, H, W) -> (B, outputs, H, W)
        # (B, inputs k k, H W)
        seen = F.unfold(x, self.kernel, padding=self.padding, stride=self.stride)
        out = torch.matmul(self.weight, seen.permute(2, 1, 0))  # (H W, outputs, B)
        return out.permute(2, 1, 0).reshape(-1, self.outputs, *self.size) + self.bias

    def extra_repr(self) -> str:
        return f"{self.inputs}, {self.outputs}, kernel={self.kernel}, size={self.size}"
