"""VGG16 as a backbone, whole and as SSD reduces it.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
ICLR 2015, arXiv:1409.1556 (Table 1, column D).
Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, arXiv:1512.02325, sec. 3: the first
two fully connected layers become convolutions (as in Chen et al., ICLR 2015, arXiv:1412.7062).
Liu, Rabinovich and Berg, "ParseNet", 2015, arXiv:1506.04579, sec. 3.3 (`L2Norm`).

Letters   B pictures, H and W of the input.
Departs   drop-out and the classifier are left out; `norm` puts a norm behind each convolution, of
          which the paper has none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.nn.backbones.encoder import Encoder
from eyeline.nn.fused import fused, max_pool
from eyeline.nn.layers import ConvNorm

DEPTHS = (2, 2, 3, 3, 3)  # convolutions of each stage
WIDTHS = (1, 2, 4, 8, 8)  # their channels, in those of the first stage


class VGG16(Encoder):
    """The convolutional part: (B, in_channels, H, W) -> [conv3_3, conv4_3, conv5_3, pool5] at
    strides 4, 8, 16, 32.

    Args:
        width: channels of the first stage; the paper's 64.
        norm: "none" as in the paper, "batch", "frozen" or "group"; it adds `norm_epsilon` to the
            variance.
    """

    def __init__(
        self, norm: str = "none", in_channels: int = 3, width: int = 64, norm_epsilon: float = 1e-5
    ) -> None:
        super().__init__()
        inputs = in_channels
        for stage, (depth, factor) in enumerate(zip(DEPTHS, WIDTHS, strict=True), start=1):
            for i in range(1, depth + 1):
                layer = ConvNorm(inputs, factor * width, 3, norm, norm_epsilon=norm_epsilon)
                setattr(self, f"conv{stage}_{i}", layer)
                inputs = factor * width
        self.channels = [4 * width, 8 * width, 8 * width, 8 * width]
        self.stage_channels = [2 * width, *self.channels]
        xavier(self)

    def stage(self, x: Tensor, stage: int) -> Tensor:
        """The convolutions of one stage, 1 to 5, each with its ReLU."""
        for i in range(1, DEPTHS[stage - 1] + 1):
            x = fused(x, getattr(self, f"conv{stage}_{i}"), relu=True)
        return x

    def _maps(self, x: Tensor) -> list[Tensor]:
        """[conv2_2, conv3_3, conv4_3, conv5_3, pool5] at strides 2, 4, 8, 16, 32."""
        maps = []
        for stage in (1, 2, 3, 4, 5):
            x = self.stage(x, stage)
            if stage > 1:
                maps.append(x)
            x = max_pool(x, 2)
        return [*maps, x]


class ReducedVGG16(VGG16):
    """VGG16 for SSD: (B, in_channels, H, W) -> [conv4_3, conv5_3, fc7] at strides 8, 16, 16.

    fc6 and fc7 are convolutions of 1024 channels. Where pool5 keeps its map's size (stride 1), fc6
    looks `dilation` cells far, so that it sees what it saw before.

    Args:
        pool5: (kernel, stride, padding); SSD's (3, 1, 1), or the original (2, 2, 0), with which
            fc7 is at stride 32.
        dilation: of fc6; 6 in SSD.
        widest: channels of fc6 and fc7, in those of the first stage.
    """

    def __init__(
        self,
        norm: str = "none",
        in_channels: int = 3,
        width: int = 64,
        pool5: tuple[int, int, int] = (3, 1, 1),
        dilation: int = 6,
        widest: int = 16,
    ) -> None:
        super().__init__(norm, in_channels, width)
        self.pool5 = pool5
        outputs = widest * width
        self.fc6 = ConvNorm(8 * width, outputs, 3, norm, padding=dilation, dilation=dilation)
        self.fc7 = ConvNorm(outputs, outputs, 1, norm)
        self.channels = [8 * width, 8 * width, outputs]
        xavier(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = max_pool(self.stage(x, 1), 2)
        x = max_pool(self.stage(x, 2), 2)
        # 75 cells make 38, as the authors' framework rounds up.
        x = max_pool(self.stage(x, 3), 2, ceil_mode=True)
        conv4_3 = self.stage(x, 4)  # (B, 512, H/8, W/8)
        conv5_3 = self.stage(max_pool(conv4_3, 2), 5)  # (B, 512, H/16, W/16)
        x = fused(max_pool(conv5_3, *self.pool5), self.fc6, relu=True)
        return [conv4_3, conv5_3, fused(x, self.fc7, relu=True)]  # (B, 1024, H/16, W/16)


class L2Norm(nn.Module):
    """Each place's channels (B, C, H, W) at length 1, times a scale of each channel that is
    learned: conv4_3's numbers are larger than other maps' (SSD, sec. 3.1; ParseNet, sec. 3.3)."""

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        # Squares of half precision would overflow.
        return (F.normalize(x.float(), dim=1) * self.weight[:, None, None]).to(x.dtype)


def xavier(module: nn.Module) -> None:
    """The convolutions below `module` as SSD starts its new ones: Glorot and Bengio, "Understanding
    the difficulty of training deep feedforward neural networks", AISTATS 2010; biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
