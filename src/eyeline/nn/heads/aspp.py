"""Atrous spatial pyramid pooling, and separable convolutions, of DeepLabv3 and DeepLabv3+.

Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017,
arXiv:1706.05587, sec. 3.3; Chen et al., ECCV 2018, arXiv:1802.02611, sec. 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eyeline.nn.fused import fused
from eyeline.nn.layers import ConvNorm
from eyeline.note import note


class SeparableConv(nn.Module):
    """A depthwise 3x3, a 1x1, a norm and a ReLU: (B, inputs, H, W) -> (B, outputs, H, W).

    `between`: a norm and a ReLU stand between the two also; else the first has not even a bias.
    """

    def __init__(
        self, inputs: int, outputs: int, norm: str, norm_epsilon: float = 1e-5, dilation: int = 1,
        between: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.depthwise: nn.Conv2d
        if between:
            self.depthwise = ConvNorm(
                inputs, inputs, 3, norm, dilation=dilation, groups=inputs, norm_epsilon=norm_epsilon
            )
        else:
            self.depthwise = nn.Conv2d(
                inputs, inputs, 3, 1, dilation, dilation, groups=inputs, bias=False
            )
        self.pointwise = ConvNorm(inputs, outputs, 1, norm, norm_epsilon=norm_epsilon)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return fused(fused(x, self.depthwise, relu=self.between), self.pointwise, relu=True)


def conv3x3(
    inputs: int, outputs: int, norm: str, norm_epsilon: float = 1e-5, dilation: int = 1,
    separable: bool = False, between: bool = True,
) -> nn.Module:  # fmt: skip
    """A 3x3 convolution with its norm, whole or separable, for `activated`."""
    if separable:
        return SeparableConv(inputs, outputs, norm, norm_epsilon, dilation, between)
    return ConvNorm(inputs, outputs, 3, norm, dilation=dilation, norm_epsilon=norm_epsilon)


def activated(x: Tensor, conv: nn.Module) -> Tensor:
    """What a `conv3x3` and a ReLU make of a map."""
    return conv(x) if isinstance(conv, SeparableConv) else fused(x, conv, relu=True)


class ASPP(nn.Module):
    """What lies about each cell, seen at several rates, and the mean of the whole map:
    (B, inputs, H, W) -> (B, width, H, W).

    A 1x1 convolution, a 3x3 at each of `rates` and the mean with a 1x1 are put side by side, and
    another 1x1 follows; behind each are a norm and a ReLU.

    Args:
        drop: share of the result's values that are dropped in training.
        separable: the 3x3 are `SeparableConv`, with or without something `between`.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        rates: Sequence[int],
        norm: str = "batch",
        norm_epsilon: float = 1e-5,
        drop: float = 0.0,
        separable: bool = False,
        between: bool = True,
    ) -> None:
        super().__init__()
        eps = norm_epsilon
        self.direct = ConvNorm(inputs, width, 1, norm, norm_epsilon=eps)
        self.atrous = nn.ModuleList(
            conv3x3(inputs, width, norm, eps, rate, separable, between) for rate in rates
        )
        self.pooled = ConvNorm(inputs, width, 1, norm, norm_epsilon=eps)
        self.project = ConvNorm((2 + len(rates)) * width, width, 1, norm, norm_epsilon=eps)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        parts = [fused(x, self.direct, relu=True), *(activated(x, conv) for conv in self.atrous)]
        mean = fused(x.mean((2, 3), keepdim=True), self.pooled, relu=True)  # (B, width, 1, 1)
        parts.append(mean.expand(-1, -1, *x.shape[2:]))
        x = note("surroundings at all rates and the mean, side by side", torch.cat(parts, 1))
        found: Tensor = self.drop(fused(x, self.project, relu=True))
        return found


def rates_at(stride: int, rates: Sequence[int], given: int | None) -> tuple[int, ...]:
    """ASPP's rates at an output stride, of those meant for the stride `given`, at least 1; as they
    are where none is given (DeepLabv3, sec. 3.3: doubled at stride 8)."""
    if given is None:
        return tuple(rates)
    return tuple(max(1, rate * given // stride) for rate in rates)
