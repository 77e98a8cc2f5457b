"""The networks of YOLO's three papers, as backbones: the first one's twenty convolutions,
Darknet-19, Darknet-53, and the small one of the authors' files.

Redmon et al., "You Only Look Once", CVPR 2016, arXiv:1506.02640, sec. 2.1, Fig. 3.
Redmon and Farhadi, "YOLO9000: Better, Faster, Stronger", CVPR 2017, arXiv:1612.08242, Table 6.
Redmon and Farhadi, "YOLOv3: An Incremental Improvement", 2018, arXiv:1804.02767, sec. 2.4, Table 1.

Letters   B pictures, H and W of the input; C1..C5 the last maps at strides 2, 4, 8, 16, 32.
Departs   the papers leave open what the authors' configuration files say: batch norm (of the
          first network in the files alone) and a leaky ReLU of 0.1 behind every convolution, and
          the sum of a block without another ReLU. The small network is in those files alone.
          Modules are registered in the files' order, which is the order of the numbers in a file
          of weights (`eyeline.checkpoints.darknet`). The authors' code divides by sqrt(var) + 1e-6,
          this by sqrt(var + norm_epsilon).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.nn.backbones.encoder import Encoder
from eyeline.nn.fused import fused, max_pool
from eyeline.nn.layers import make_norm

SLOPE = 0.1  # of the leaky ReLU below 0


class LeakyConv(nn.Module):
    """Convolution, norm ("none": a bias instead), leaky ReLU: (B, inputs, H, W) -> (B, outputs,
    H/stride, W/stride)."""

    fusable: ClassVar = [("conv", "norm")]

    def __init__(
        self, inputs: int, outputs: int, kernel: int, norm: str, eps: float, stride: int = 1
    ) -> None:
        super().__init__()
        bias = norm == "none"
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)
        self.norm = nn.Identity() if bias else make_norm(norm, outputs, eps)
        nn.init.kaiming_normal_(self.conv.weight, SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        return fused(x, self.conv, self.norm, relu=True, slope=SLOPE)


def stack(inputs: int, shapes: Sequence[tuple[int, int]], norm: str, eps: float) -> nn.Sequential:
    """`LeakyConv`s one after the other, of channels and kernel sides."""
    widths = [inputs, *(channels for channels, _ in shapes)]
    return nn.Sequential(
        *(
            LeakyConv(before, channels, kernel, norm, eps)
            for before, (channels, kernel) in zip(widths[:-1], shapes, strict=True)
        )
    )


class Extraction(Encoder):
    """YOLO's first twenty convolutions, those that are pretrained: (B, in_channels, H, W) ->
    [C2, C3, C4, C5] of 192, 512, 1024, 1024. Their name is that of the authors' files. Options as
    of `Darknet53`, and norm "none" as in the paper."""

    channels = (192, 512, 1024, 1024)
    stage_channels = (64, *channels)

    def __init__(
        self, norm: str = "none", norm_epsilon: float = 1e-5, in_channels: int = 3
    ) -> None:
        super().__init__()
        how = (norm, norm_epsilon)
        self.stage1 = LeakyConv(in_channels, 64, 7, *how, stride=2)
        self.stage2 = LeakyConv(64, 192, 3, *how)
        self.stage3 = stack(192, [(128, 1), (256, 3), (256, 1), (512, 3)], *how)
        self.stage4 = stack(512, [(256, 1), (512, 3)] * 4 + [(512, 1), (1024, 3)], *how)
        self.stage5 = stack(1024, [(512, 1), (1024, 3)] * 2, *how)

    def _maps(self, x: Tensor) -> list[Any]:
        """[C1, C2, C3, C4, C5]."""
        c1 = self.stage1(x)  # (B, 64, H/2, W/2)
        c2 = self.stage2(max_pool(c1, 2))  # (B, 192, H/4, W/4)
        c3 = self.stage3(max_pool(c2, 2))  # (B, 512, H/8, W/8)
        c4 = self.stage4(max_pool(c3, 2))  # (B, 1024, H/16, W/16)
        return [c1, c2, c3, c4, self.stage5(max_pool(c4, 2))]  # (B, 1024, H/32, W/32)


class Darknet19(Encoder):
    """The convolutional part, without the last 1x1: (B, in_channels, H, W) -> [C2, C3, C4, C5] of
    128, 256, 512, 1024. Options as of `Darknet53`."""

    channels = (128, 256, 512, 1024)
    stage_channels = (64, *channels)

    def __init__(
        self, norm: str = "batch", norm_epsilon: float = 1e-5, in_channels: int = 3
    ) -> None:
        super().__init__()
        how = (norm, norm_epsilon)
        self.stem = LeakyConv(in_channels, 32, 3, *how)
        self.stage1 = LeakyConv(32, 64, 3, *how)
        for stage, depth in enumerate((3, 3, 5, 5), 2):  # 3x3, with 1x1 of half in between
            width = 32 * 2**stage
            shapes = [(width // 2, 1) if i % 2 else (width, 3) for i in range(depth)]
            setattr(self, f"stage{stage}", stack(width // 2, shapes, *how))

    def _maps(self, x: Tensor) -> list[Any]:
        """[C1, C2, C3, C4, C5]."""
        c1 = self.stage1(max_pool(self.stem(x), 2))  # (B, 64, H/2, W/2)
        c2 = self.stage2(max_pool(c1, 2))  # (B, 128, H/4, W/4)
        c3 = self.stage3(max_pool(c2, 2))  # (B, 256, H/8, W/8)
        c4 = self.stage4(max_pool(c3, 2))  # (B, 512, H/16, W/16)
        return [c1, c2, c3, c4, self.stage5(max_pool(c4, 2))]  # (B, 1024, H/32, W/32)


class Residual(nn.Module):
    """Half the channels by 1x1, all again by 3x3, and the shortcut (Table 1)."""

    def __init__(self, channels: int, norm: str, eps: float) -> None:
        super().__init__()
        self.narrow = LeakyConv(channels, channels // 2, 1, norm, eps)
        self.wide = LeakyConv(channels // 2, channels, 3, norm, eps)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.wide(self.narrow(x))


class Darknet53(Encoder):
    """The convolutional part: (B, in_channels, H, W) -> [C2, C3, C4, C5] of 128, 256, 512, 1024.

    Args:
        norm: "batch", "frozen" or "group"; `norm_epsilon` is what it adds to the variance.
    """

    channels = (128, 256, 512, 1024)
    stage_channels = (64, *channels)

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

    def _maps(self, x: Tensor) -> list[Any]:
        """[C1, C2, C3, C4, C5]."""
        c1 = self.stage1(self.stem(x))  # (B, 64, H/2, W/2)
        c2 = self.stage2(c1)  # (B, 128, H/4, W/4)
        c3 = self.stage3(c2)  # (B, 256, H/8, W/8)
        c4 = self.stage4(c3)  # (B, 512, H/16, W/16)
        return [c1, c2, c3, c4, self.stage5(c4)]  # (B, 1024, H/32, W/32)


class DarknetTiny(Encoder):
    """Seven convolutions and six poolings: (B, in_channels, H, W) -> [C2, C3, C4, C5] of 64, 128,
    256, 1024. Options as of `Darknet53`, but no "group", which 16 channels do not make."""

    channels = (64, 128, 256, 1024)
    stage_channels = (32, *channels)

    def __init__(
        self, norm: str = "batch", norm_epsilon: float = 1e-5, in_channels: int = 3
    ) -> None:
        super().__init__()
        widths = (in_channels, 16, 32, 64, 128, 256, 512, 1024)
        for i in range(1, 8):
            setattr(self, f"conv{i}", LeakyConv(widths[i - 1], widths[i], 3, norm, norm_epsilon))

    def _maps(self, x: Tensor) -> list[Any]:
        """[C1, C2, C3, C4, C5]."""
        c1 = self.conv2(max_pool(self.conv1(x), 2))  # (B, 32, H/2, W/2)
        c2 = self.conv3(max_pool(c1, 2))  # (B, 64, H/4, W/4)
        c3 = self.conv4(max_pool(c2, 2))  # (B, 128, H/8, W/8)
        c4 = self.conv5(max_pool(c3, 2))  # (B, 256, H/16, W/16)
        x = self.conv6(max_pool(c4, 2))  # (B, 512, H/32, W/32)
        # Of each cell, the one right of it and the two below; at the edge of those there are.
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), "replicate"), 2, 1)
        return [c1, c2, c3, c4, self.conv7(x)]  # (B, 1024, H/32, W/32)


VARIANTS: dict[str, type[Extraction | Darknet19 | Darknet53 | DarknetTiny]] = {
    "extraction": Extraction,
    "darknet19": Darknet19,
    "darknet53": Darknet53,
    "darknet_tiny": DarknetTiny,
}
