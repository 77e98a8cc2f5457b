"""Darknet-53 and the small Darknet of YOLOv3-tiny, as backbones.

Redmon and Farhadi, "YOLOv3: An Incremental Improvement", 2018, arXiv:1804.02767, sec. 2.4, Table 1.

Letters   B pictures, H and W of the input; C2..C5 the last maps at strides 4, 8, 16, 32.
Departs   the paper leaves open what the authors' configuration files say: batch norm and a leaky
          ReLU of 0.1 behind every convolution, and the sum of a block without another ReLU. The
          small network is in those files alone. Modules are registered in the files' order, which
          is the order of the numbers in a file of weights (`eyeline.checkpoints.darknet`).
          The authors' code divides by sqrt(var) + 1e-6, this by sqrt(var + norm_epsilon).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.nn.fused import fused
from eyeline.nn.layers import make_norm

SLOPE = 0.1  # of the leaky ReLU below 0


class LeakyConv(nn.Module):
    """Convolution, norm, leaky ReLU: (B, inputs, H, W) -> (B, outputs, H/stride, W/stride)."""

    fusable: ClassVar = [("conv", "norm")]

    def __init__(
        self, inputs: int, outputs: int, kernel: int, norm: str, eps: float, stride: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = make_norm(norm, outputs, eps)
        nn.init.kaiming_normal_(self.conv.weight, SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu_(fused(x, self.conv, self.norm), SLOPE)


class Residual(nn.Module):
    """Half the channels by 1x1, all again by 3x3, and the shortcut (Table 1)."""

    def __init__(self, channels: int, norm: str, eps: float) -> None:
        super().__init__()
        self.narrow = LeakyConv(channels, channels // 2, 1, norm, eps)
        self.wide = LeakyConv(channels // 2, channels, 3, norm, eps)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.wide(self.narrow(x))


class Darknet53(nn.Module):
    """The convolutional part: (B, in_channels, H, W) -> [C2, C3, C4, C5] of 128, 256, 512, 1024.

    Args:
        norm: "batch", "frozen" or "group"; `norm_epsilon` is what it adds to the variance.
    """

    channels = (128, 256, 512, 1024)

    def __init__(
        self, norm: str = "batch", norm_epsilon: float = 1e-5, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.stem = LeakyConv(in_channels, 32, 3, norm, norm_epsilon)
        inputs = 32
        for stage, depth in enumerate((1, 2, 8, 8, 4), 1):  # Table 1
            blocks: list[nn.Module] = [LeakyConv(inputs, 2 * inputs, 3, norm, norm_epsilon, 2)]
            inputs *= 2
            blocks += [Residual(inputs, norm, norm_epsilon) for _ in range(depth)]
            setattr(self, f"stage{stage}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Any:
        c1 = self.stage1(self.stem(x))  # (B, 64, H/2, W/2)
        c2 = self.stage2(c1)  # (B, 128, H/4, W/4)
        c3 = self.stage3(c2)  # (B, 256, H/8, W/8)
        c4 = self.stage4(c3)  # (B, 512, H/16, W/16)
        return [c2, c3, c4, self.stage5(c4)]  # (B, 1024, H/32, W/32)


class DarknetTiny(nn.Module):
    """Seven convolutions and six poolings: (B, in_channels, H, W) -> [C2, C3, C4, C5] of 64, 128,
    256, 1024. Options as of `Darknet53`, but no "group", which 16 channels do not make."""

    channels = (64, 128, 256, 1024)

    def __init__(
        self, norm: str = "batch", norm_epsilon: float = 1e-5, in_channels: int = 3
    ) -> None:
        super().__init__()
        widths = (in_channels, 16, 32, 64, 128, 256, 512, 1024)
        for i in range(1, 8):
            setattr(self, f"conv{i}", LeakyConv(widths[i - 1], widths[i], 3, norm, norm_epsilon))

    def forward(self, x: Tensor) -> Any:
        x = F.max_pool2d(self.conv1(x), 2)  # (B, 16, H/2, W/2)
        x = F.max_pool2d(self.conv2(x), 2)  # (B, 32, H/4, W/4)
        c2 = self.conv3(x)  # (B, 64, H/4, W/4)
        c3 = self.conv4(F.max_pool2d(c2, 2))  # (B, 128, H/8, W/8)
        c4 = self.conv5(F.max_pool2d(c3, 2))  # (B, 256, H/16, W/16)
        x = self.conv6(F.max_pool2d(c4, 2))  # (B, 512, H/32, W/32)
        # Of each cell, the one right of it and the two below; at the edge of those there are.
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), "replicate"), 2, 1)
        return [c2, c3, c4, self.conv7(x)]  # (B, 1024, H/32, W/32)


VARIANTS: dict[str, type[Darknet53 | DarknetTiny]] = {
    "darknet53": Darknet53,
    "darknet_tiny": DarknetTiny,
}
