"""Feature pyramid network: Lin et al., CVPR 2017, arXiv:1612.03144.

Letters   B pictures, C channels of every level (256 in the paper), H_l and W_l of level l.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.nn.fused import fused
from eyeline.nn.layers import ConvNorm


class Halving(nn.Conv2d):
    """A 3x3 convolution of stride 2 over a padded map.

    The padding is a step of its own: given `padding=1` and a map of one cell in bfloat16, torch
    2.13 on the CPU leaves the gradient of those weights that see no cell uninitialised.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (1, 1, 1, 1)))


class FPN(nn.Module):
    """Feature maps of a backbone, fine to coarse, to as many levels of equal width and some more.

    Args:
        inputs: channels of each feature map.
        channels: channels of each level.
        extra: coarser levels on top. "pool": one, by taking every second cell of the last
            (sec. 4.1's footnote); "conv": two 3x3 convolutions of stride 2 as in RetinaNet;
            None: none.
        extra_from: what the first of two extra convolutions reads, "backbone" (its last map) or
            "level" (the last level).
        extra_relu: a ReLU stands between the two, as in RetinaNet.
        smooth: there are output convolutions, as in the paper; else the sums are the levels.
        norm: after the lateral and the output convolutions, see `make_norm`; "none" in the paper.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        channels: int = 256,
        extra: str | None = None,
        extra_from: str = "backbone",
        norm: str = "none",
        extra_relu: bool = True,
        smooth: bool = True,
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(ConvNorm(c, channels, 1, norm) for c in inputs)
        self.output = nn.ModuleList(ConvNorm(channels, channels, 3, norm) for _ in inputs if smooth)
        self.extra_kind, self.extra_from, self.extra_relu = extra, extra_from, extra_relu
        self.extra = nn.ModuleList()
        if extra == "conv":
            first = inputs[-1] if extra_from == "backbone" else channels
            self.extra.append(Halving(first, channels))
            self.extra.append(Halving(channels, channels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        merged = [fused(features[-1], self.lateral[-1])]
        for lateral, feature in zip(self.lateral[-2::-1], features[-2::-1], strict=True):
            side = fused(feature, lateral)  # (B, C, H_l, W_l)
            merged.append(side + F.interpolate(merged[-1], size=side.shape[-2:], mode="nearest"))
        levels = merged[::-1]
        if self.output:
            levels = [fused(m, conv) for m, conv in zip(levels, self.output, strict=True)]
        if self.extra_kind == "pool":
            levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        elif self.extra_kind == "conv":
            source = features[-1] if self.extra_from == "backbone" else levels[-1]
            levels.append(self.extra[0](source))
            levels.append(self.extra[1](F.relu(levels[-1]) if self.extra_relu else levels[-1]))
        return levels  # fine to coarse, each (B, C, H_l, W_l)
