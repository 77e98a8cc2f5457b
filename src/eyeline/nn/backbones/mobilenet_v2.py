"""MobileNetV2 as a backbone.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
arXiv:1801.04381.

Letters   B pictures, H and W of the input; C1..C5 the last maps at strides 2, 4, 8, 16, 32.
Departs   the classifier and its pooling are left out; C5 is what it would pool, 1280 channels.
          Parameter names are torchvision's. For segmentation late strides can be dilation instead
          (sec. 6.3; nn/backbones/dilation.py).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from eyeline.nn.backbones.dilation import stage_strides
from eyeline.nn.backbones.encoder import Encoder
from eyeline.nn.layers import make_norm

# Table 2: expansion, channels, blocks, stride.
SETTINGS = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip
LAST = 1280  # channels of the 1x1 convolution behind the blocks
ENDS = (1, 3, 6, 13, 18)  # the layers whose outputs are C1..C5


def convolution(
    inputs: int, outputs: int, kernel: int, norm: str, eps: float, stride: int = 1,
    dilation: int = 1, groups: int = 1,
) -> nn.Sequential:  # fmt: skip
    """A convolution, its norm, and a ReLU that ends at 6 (sec. 4: for 8 bits)."""
    padding = kernel // 2 * dilation
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(conv, make_norm(norm, outputs, eps), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Widened by a 1x1, a depthwise 3x3, narrowed by a 1x1 that nothing follows (sec. 3.3)."""

    def __init__(
        self, inputs: int, outputs: int, expansion: int, norm: str, eps: float, stride: int,
        dilation: int, shortcut: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        inner = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(convolution(inputs, inner, 1, norm, eps))
        layers += [
            convolution(inner, inner, 3, norm, eps, stride, dilation, groups=inner),
            nn.Conv2d(inner, outputs, 1, bias=False),
            make_norm(norm, outputs, eps),
        ]
        self.conv = nn.Sequential(*layers)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(Encoder):
    """The convolutional part: (B, in_channels, H, W) -> [C2, C3, C4, C5] at strides 4, 8, 16, 32,
    of 24, 32, 96 and 1280 channels, or less of both.

    Args:
        norm: "batch", "frozen" or "group"; `norm_epsilon` is what it adds to the variance.
        output_stride: of C5, and of C4 where it is 8: 32, or 16 or 8, with dilation in the 3x3
            convolutions in place of the strides left out.
        first_dilates: the first block of such a stage has that stage's dilation, or the one
            before it.
        multi_grid: factors of the dilations of the last stage's blocks, one each, the last one
            for all further blocks.
        depth: the last map, 5 for C5; what would come behind it is left out.

    `absent` begins the names that published weights have of the layers left out.
    """

    def __init__(
        self,
        norm: str = "batch",
        norm_epsilon: float = 1e-5,
        in_channels: int = 3,
        output_stride: int = 32,
        first_dilates: bool = False,
        multi_grid: tuple[int, ...] = (1,),
        depth: int = 5,
    ) -> None:
        super().__init__()
        strides = [(2, 1, 1), *stage_strides(output_stride, depth)]  # C1 .. C`depth`
        layers: list[nn.Module] = [convolution(in_channels, 32, 3, norm, norm_epsilon, 2)]
        inputs, stage = 32, 0
        for expansion, outputs, count, setting in SETTINGS:
            for i in range(count):
                first = setting == 2 and i == 0
                stage += first
                if stage >= depth:
                    break
                stride, before, dilation = strides[stage]
                place = len(layers) - 1 - ENDS[3]  # among the last stage's blocks
                grid = multi_grid[min(place, len(multi_grid) - 1)] if stage == 4 else 1
                layers.append(
                    InvertedResidual(
                        inputs, outputs, expansion, norm, norm_epsilon, stride if first else 1,
                        (before if first and not first_dilates else dilation) * grid,
                        shortcut=i > 0,
                    )
                )  # fmt: skip
                inputs = outputs
        if depth == 5:
            layers.append(convolution(inputs, LAST, 1, norm, norm_epsilon))
        self.features = nn.Sequential(*layers)
        self.channels = [24, 32, 96, LAST][: depth - 1]
        self.stage_channels = [16, *self.channels]
        self.absent = tuple(f"features.{i}" for i in range(len(layers), ENDS[-1] + 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def _maps(self, x: Tensor) -> list[Any]:
        """[C1, C2, C3, C4, C5], to `depth`; C1 (B, 16, H/2, W/2)."""
        maps = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in ENDS:
                maps.append(x)
        return maps
