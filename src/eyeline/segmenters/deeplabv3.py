"""DeepLabv3: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017,
arXiv:1706.05587.

A ResNet whose last strides are dilation instead, and atrous spatial pyramid pooling (ASPP) on its
last map: the surroundings of each cell at several rates side by side, and the mean of the picture.

Letters   B pictures, K classes, H and W of the pictures, s the output stride.
Departs   the text names no drop-out; a tenth is the authors' code's.
          `convention="torchvision"` is that library's: stride 8, a stage's first block dilated as
          the stage before it, no multi-grid, another 3x3 convolution behind the pyramid, half of
          its values dropped, an auxiliary head on C4 whose loss counts half.
          `convention="smp"` is segmentation_models.pytorch's: stride 8, no multi-grid, the same
          3x3 and drop-out; rates of 12, 24 and 36 at any stride; logits enlarged with corner
          pixels on corner pixels.
          The mean of one picture has no batch statistics: in training with a batch of one its norm
          uses the running ones (nn/lone.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from eyeline.nn.backbones import build_backbone
from eyeline.nn.detector import make_config
from eyeline.nn.fused import fused
from eyeline.nn.heads.aspp import ASPP, rates_at
from eyeline.nn.heads.score import ScoreHead
from eyeline.nn.layers import ConvNorm
from eyeline.nn.segmenter import Maps, Segmenter, SegmenterConfig
from eyeline.note import note
from eyeline.registry import register


@dataclass(frozen=True, kw_only=True)
class Config(SegmenterConfig):
    """Numbers of the paper, each with its section."""

    # Network
    backbone: str = "resnet101"  # sec. 4.2, Table 5
    output_stride: int = 16  # sec. 4: in training; 8 when it is used, with the same weights
    first_dilates: bool = True
    multi_grid: tuple[int, ...] = (1, 2, 4)  # sec. 4.2, Table 5
    align_corners: bool = False
    # ASPP
    width: int = 256  # sec. 3.3
    rates: tuple[int, ...] = (6, 12, 18)  # sec. 3.3, at an output stride of
    rates_stride: int | None = 16  # this: twice them at 8, half at 32; None: at any
    drop: float = 0.1
    deeper: bool = False  # another 3x3 convolution behind it
    # Auxiliary head, on C4
    auxiliary: float = 0.0  # its loss's weight; 0: no such head


CONVENTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "torchvision": dict(
        output_stride=8, first_dilates=False, multi_grid=(1,), drop=0.5, deeper=True, auxiliary=0.5
    ),
    "smp": dict(
        output_stride=8, multi_grid=(1,), align_corners=True, rates=(12, 24, 36),
        rates_stride=None, drop=0.5, deeper=True,
    ),
}  # fmt: skip


class DeepLabV3(Segmenter):
    """ASPP on a dilated ResNet. See `forward` for what goes in and out."""

    def __init__(self, config: Config) -> None:
        self.set_up(config)
        c = config
        self.align_corners = c.align_corners
        self.backbone = build_backbone(
            c.backbone, norm=c.norm, norm_epsilon=c.norm_epsilon, in_channels=c.in_channels,
            output_stride=c.output_stride, first_dilates=c.first_dilates, multi_grid=c.multi_grid,
        )  # fmt: skip
        how, channels = (c.norm, c.norm_epsilon), self.backbone.channels
        rates = rates_at(c.output_stride, c.rates, c.rates_stride)
        self.aspp = ASPP(channels[-1], c.width, rates, *how, c.drop)
        self.deeper = (
            ConvNorm(c.width, c.width, 3, c.norm, norm_epsilon=c.norm_epsilon) if c.deeper else None
        )
        self.score = nn.Conv2d(c.width, c.num_classes, 1)
        self.class_dependent = ("score",)
        if c.auxiliary:
            self.auxiliary = ScoreHead(channels[-2], channels[-2] // 4, c.num_classes, *how)
            self.auxiliary_weights = {"auxiliary": c.auxiliary}
            self.class_dependent += ("auxiliary.score",)

    def maps(self, images: Tensor) -> Maps:
        """Pictures (B, C, H, W) to logits (B, K, H/s, W/s), and the auxiliary head's."""
        features = note("features C2 to C5, sec. 3.1", self.backbone(images))
        logits = self.scores(features[-1])
        if not self.auxiliary_weights:
            return logits
        return logits, {"auxiliary": partial(self.auxiliary, features[-2])}

    def scores(self, x: Tensor) -> Tensor:
        """The last map to logits."""
        x = note("atrous spatial pyramid pooling, sec. 3.3", self.aspp(x))  # (B, 256, H/s, W/s)
        if self.deeper is not None:
            x = fused(x, self.deeper, relu=True)
        return fused(x, self.score)


@register(
    "deeplabv3",
    task="segmentation",
    paper='Chen et al., "Rethinking Atrous Convolution", 2017, arXiv:1706.05587',
)
def deeplabv3(num_classes: int, **options: Any) -> DeepLabV3:
    """DeepLabv3; options are the fields of `Config`."""
    return DeepLabV3(make_config(Config, CONVENTIONS, {"num_classes": num_classes, **options}))
