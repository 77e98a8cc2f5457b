"""PSPNet: Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, arXiv:1612.01105.

A dilated ResNet, and on its last map a pyramid of means: of the whole, of its quarters, of 3 x 3
and 6 x 6 parts. Enlarged again and put beside the map they tell each place what the scene is.

Letters   B pictures, K classes, D channels of the last map, H and W of the pictures.
Departs   the ResNet is He et al.'s; the authors' begins with three 3x3 convolutions instead of a
          7x7. From their code, where the text is silent: drop-out of whole channels, corner pixels
          on corner pixels where maps are resized, a third convolution before the classes.
          `convention="smp"` is segmentation_models.pytorch's: the pyramid stands on C3 (`depth=3`,
          later stages left out), 1x1 instead of 3x3 behind it and 3x3 to the classes, no norm on
          the mean of the whole, no auxiliary head.
          The mean of the whole of one picture has no batch statistics: in training with a batch of
          one its norm uses the running ones (nn/lone.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.nn.backbones import build_backbone
from eyeline.nn.detector import make_config
from eyeline.nn.fused import fused
from eyeline.nn.heads.score import ScoreHead
from eyeline.nn.layers import ConvNorm
from eyeline.nn.resizing import resized
from eyeline.nn.segmenter import Maps, Segmenter, SegmenterConfig
from eyeline.note import note
from eyeline.registry import register


@dataclass(frozen=True, kw_only=True)
class Config(SegmenterConfig):
    """Numbers of the paper, each with its section."""

    # Network
    backbone: str = "resnet50"  # sec. 5.2 compares depths from this on
    output_stride: int = 8  # sec. 3.2: the map is 1/8 of the picture
    first_dilates: bool = True  # the authors' code: every block of a dilated stage is
    depth: int = 5  # the map that the pyramid stands on: C5
    align_corners: bool = True  # the authors' code, wherever maps are resized
    # Pyramid
    bins: tuple[int, ...] = (1, 2, 3, 6)  # sec. 3.2; D / 4 channels each
    whole_norm: bool = True  # a norm behind the mean of the whole, too
    width: int = 512  # of the convolution behind the pyramid
    kernel: int = 3
    drop: float = 0.1  # of whole channels
    score_kernel: int = 1
    # Auxiliary head, on C4
    auxiliary: float = 0.4  # sec. 5.1: its loss's weight; 0: no such head


CONVENTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "smp": dict(
        depth=3, whole_norm=False, kernel=1, drop=0.2, score_kernel=3,
        auxiliary=0.0,
    ),
}  # fmt: skip


class PyramidPooling(nn.Module):
    """Fig. 3 (c): (B, D, h, w) to itself and its means at several scales, (B, 2 D, h, w)."""

    def __init__(
        self, channels: int, bins: Sequence[int], norm: str, norm_epsilon: float, whole_norm: bool,
        align_corners: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.bins, self.align_corners = tuple(bins), align_corners
        self.convs = nn.ModuleList(
            ConvNorm(
                channels, channels // len(bins), 1, norm if side > 1 or whole_norm else "none",
                norm_epsilon=norm_epsilon,
            ) for side in bins
        )  # fmt: skip
        self.channels = channels + channels // len(bins) * len(bins)

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for side, conv in zip(self.bins, self.convs, strict=True):
            mean = fused(F.adaptive_avg_pool2d(x, side), conv, relu=True)  # (B, D / 4, side, side)
            parts.append(resized(mean, x.shape[2:], self.align_corners))
        return torch.cat([*parts, x], 1)


class PSPNet(Segmenter):
    """Pyramid pooling on a dilated ResNet. See `forward` for what goes in and out."""

    def __init__(self, config: Config) -> None:
        self.set_up(config)
        c = config
        self.align_corners = c.align_corners
        self.backbone = build_backbone(
            c.backbone, norm=c.norm, norm_epsilon=c.norm_epsilon, in_channels=c.in_channels,
            output_stride=c.output_stride, first_dilates=c.first_dilates, depth=c.depth,
        )  # fmt: skip
        how, channels = (c.norm, c.norm_epsilon), self.backbone.channels
        self.pyramid = PyramidPooling(
            channels[-1], c.bins, *how, whole_norm=c.whole_norm, align_corners=c.align_corners
        )
        self.joined = ConvNorm(
            self.pyramid.channels, c.width, c.kernel, c.norm, norm_epsilon=c.norm_epsilon
        )
        self.drop = nn.Dropout2d(c.drop)
        self.score = nn.Conv2d(c.width, c.num_classes, c.score_kernel, padding=c.score_kernel // 2)
        self.class_dependent = ("score",)
        if c.auxiliary:
            self.auxiliary = ScoreHead(
                channels[-2], channels[-2] // 4, c.num_classes, *how, c.drop, spatial=True
            )
            self.auxiliary_weights = {"auxiliary": c.auxiliary}
            self.class_dependent += ("auxiliary.score",)

    def maps(self, images: Tensor) -> Maps:
        """Pictures (B, C, H, W) to logits (B, K, H/8, W/8), and the auxiliary head's."""
        features = note("features C2 to C5", self.backbone(images))
        logits = self.scene(features[-1])
        if not self.auxiliary_weights:
            return logits
        return logits, {"auxiliary": partial(self.auxiliary, features[-2])}  # sec. 4

    def scene(self, x: Tensor) -> Tensor:
        """The last map to logits."""
        x = note("pyramid pooling, sec. 3.2", self.pyramid(x))  # (B, 2 D, H/8, W/8)
        x = note("map with its scene, sec. 3.2", fused(x, self.joined, relu=True))
        return fused(self.drop(x), self.score)


@register(
    "pspnet",
    task="segmentation",
    paper='Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, arXiv:1612.01105',
)
def pspnet(num_classes: int, **options: Any) -> PSPNet:
    """PSPNet; options are the fields of `Config`."""
    return PSPNet(make_config(Config, CONVENTIONS, {"num_classes": num_classes, **options}))
