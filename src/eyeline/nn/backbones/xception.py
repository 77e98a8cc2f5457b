"""The aligned Xception of DeepLabv3+ as a backbone.

Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation",
ECCV 2018, arXiv:1802.02611, sec. 3.2 and Fig. 4: deeper than Chollet's Xception (CVPR 2017,
arXiv:1610.02357), every max pooling a separable convolution with a stride, and a batch norm and a
ReLU behind each depthwise convolution.

Letters   B pictures, H and W of the input; C1..C5 the last maps at strides 2, 4, 8, 16, 32. A
          stride lies in the last convolution of a block, so C1..C4 are what goes into that.
Departs   "xception65" is the paper's text. The authors' code, with which the published weights were
          made, has the ReLU behind depthwise convolutions in the last block alone:
          "xception65_deeplab". Parameter names are timm's. Where a stride is left out, the blocks
          behind it are dilated and the block itself is not, as in that code.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.nn.backbones.dilation import stage_strides
from eyeline.nn.backbones.encoder import Encoder
from eyeline.nn.fused import fused
from eyeline.nn.layers import make_norm

ENTRY = (128, 256, 728)  # channels of its blocks
EXIT = ((728, 1024, 1024), (1536, 1536, 2048))


class Convolution(nn.Module):
    """A convolution and its norm."""

    fusable: ClassVar = [("conv", "bn")]

    def __init__(
        self, inputs: int, outputs: int, kernel: int, norm: str, eps: float, stride: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = make_norm(norm, outputs, eps)

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        return fused(x, self.conv, self.bn, relu=relu)


class Separable(nn.Module):
    """A depthwise 3x3 and a 1x1, a norm behind each."""

    fusable: ClassVar = [("conv_dw", "bn_dw"), ("conv_pw", "bn_pw")]

    def __init__(
        self, inputs: int, outputs: int, norm: str, eps: float, stride: int, dilation: int
    ) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(
            inputs, inputs, 3, stride, dilation, dilation, groups=inputs, bias=False
        )
        self.bn_dw = make_norm(norm, inputs, eps)
        self.conv_pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn_pw = make_norm(norm, outputs, eps)

    def forward(self, x: Tensor, inside: bool, behind: bool) -> Tensor:
        """With a ReLU behind the depthwise convolution, and behind the other one."""
        x = fused(x, self.conv_dw, self.bn_dw, relu=inside)
        return fused(x, self.conv_pw, self.bn_pw, relu=behind)


class Block(nn.Module):
    """Three separable convolutions and a shortcut (Fig. 4), a 1x1 where the shape changes.

    Args:
        outputs: channels of the three.
        grid: factors of their dilations.
        inside: a ReLU behind each depthwise convolution.
        last: there is no shortcut, and ReLUs follow the convolutions instead of going before them.
    """

    def __init__(
        self, inputs: int, outputs: tuple[int, ...], norm: str, eps: float, stride: int = 1,
        dilation: int = 1, grid: tuple[int, ...] = (1,), inside: bool = True, last: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.inside, self.last, self.shortcut = inside, last, None
        if not last and (stride > 1 or inputs != outputs[2]):
            self.shortcut = Convolution(inputs, outputs[2], 1, norm, eps, stride)
        self.stack = nn.ModuleDict()
        for i, width in enumerate(outputs):
            step, wide = stride if i == 2 else 1, dilation * grid[min(i, len(grid) - 1)]
            self.stack[f"conv{i + 1}"] = Separable(inputs, width, norm, eps, step, wide)
            inputs = width

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The block's output, and what goes into its last convolution."""
        side, before = x, x
        for conv in self.stack.values():
            before = x
            x = conv(x, True, True) if self.last else conv(F.relu(x), self.inside, False)
        if self.last:
            return x, before
        return x + (side if self.shortcut is None else self.shortcut(side)), before


class Xception(Encoder):
    """The convolutional part: (B, in_channels, H, W) -> [C2, C3, C4, C5] at strides 4, 8, 16, 32,
    of 256, 728, 1024 and 2048 channels.

    Args:
        middle: blocks of the middle flow: 16 make 65 layers.
        inside: a ReLU behind each depthwise convolution, not in the last block alone.
        norm: "batch", "frozen" or "group"; `norm_epsilon` is what it adds to the variance.
        output_stride: of C5, and of C4 where it is 8: 32, or 16 or 8, with dilation in place of
            the strides left out.
        multi_grid: factors of the dilations of the last block's convolutions, one each, the last
            one for all further ones.
    """

    absent = ()

    def __init__(
        self,
        middle: int = 16,
        inside: bool = True,
        norm: str = "batch",
        norm_epsilon: float = 1e-5,
        in_channels: int = 3,
        output_stride: int = 32,
        multi_grid: tuple[int, ...] = (1,),
        depth: int = 5,
    ) -> None:
        super().__init__()
        if depth != 5:
            raise EyelineError(
                f"depth={depth} is for our ResNets and MobileNetV2, not for Xception"
            )
        how = (norm, norm_epsilon)
        self.stem = nn.ModuleList(
            [Convolution(in_channels, 32, 3, *how, stride=2), Convolution(32, 64, 3, *how)]
        )
        # Of the blocks that lead from C1 to C2, ..., C4 to C5: stride, dilation of it, behind it.
        steps = stage_strides(output_stride)
        inputs, blocks = 64, []
        for width, (stride, dilation, _) in zip(ENTRY, steps[: len(ENTRY)], strict=True):
            blocks.append(Block(inputs, (width,) * 3, *how, stride, dilation, inside=inside))
            inputs = width
        for _ in range(middle):
            blocks.append(Block(inputs, (inputs,) * 3, *how, 1, steps[2][2], inside=inside))
        blocks.append(Block(inputs, EXIT[0], *how, *steps[3][:2], inside=inside))
        blocks.append(Block(EXIT[0][2], EXIT[1], *how, 1, steps[3][2], multi_grid, last=True))
        self.blocks = nn.ModuleList(blocks)
        self.taps = (0, 1, 2, middle + 3)  # the blocks that C1 .. C4 are in
        self.channels = [ENTRY[1], ENTRY[2], EXIT[0][1], EXIT[1][2]]
        self.stage_channels = [ENTRY[0], *self.channels]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def _maps(self, x: Tensor) -> list[Any]:
        """[C1, C2, C3, C4, C5]; C1 (B, 128, H/2, W/2)."""
        for conv in self.stem:
            x = conv(x, relu=True)
        maps = []
        for i, block in enumerate(self.blocks):
            x, before = block(x)
            if i in self.taps:
                maps.append(before)
        return [*maps, x]


VARIANTS: dict[str, dict[str, Any]] = {
    "xception41": dict(middle=8),
    "xception65": dict(middle=16),
    "xception41_deeplab": dict(middle=8, inside=False),
    "xception65_deeplab": dict(middle=16, inside=False),
}
