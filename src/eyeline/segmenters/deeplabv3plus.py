"""DeepLabv3+: Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
Segmentation", ECCV 2018, arXiv:1802.02611.

DeepLabv3's pyramid pooling (ASPP), of separable convolutions, and a small decoder behind it: the
pyramid's map is enlarged, and beside a few channels of C2 two convolutions sharpen its borders.

Letters   B pictures, K classes, H and W of the pictures, s the output stride.
Departs   `backbone="xception65"` is the paper's best, "resnet101" its other; `separable=False` has
          plain 3x3 convolutions in ASPP and decoder, as its ResNet without separable ones
          (Table 5). Behind a depthwise convolution stand a norm and a ReLU (sec. 3.2 has them in
          Xception; the authors' code everywhere: `between`). A drop-out of a tenth is that code's.
          `convention="smp"` is segmentation_models.pytorch's: rates of 12, 24 and 36 at any stride,
          nothing between depthwise and 1x1, one separable convolution behind ASPP and one in the
          decoder, half of the pyramid's values dropped, corner pixels on corner pixels where maps
          are resized.
          The mean of one picture has no batch statistics: in training with a batch of one its norm
          uses the running ones (nn/lone.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eyeline.nn.backbones import build_backbone
from eyeline.nn.detector import make_config
from eyeline.nn.fused import fused
from eyeline.nn.heads.aspp import ASPP, activated, conv3x3, rates_at
from eyeline.nn.layers import ConvNorm
from eyeline.nn.resizing import resized
from eyeline.nn.segmenter import Segmenter, SegmenterConfig
from eyeline.note import note
from eyeline.registry import register


@dataclass(frozen=True, kw_only=True)
class Config(SegmenterConfig):
    """Numbers of the paper, each with its section."""

    # Network
    backbone: str = "resnet101"  # sec. 4.2; "xception65", sec. 4.3
    output_stride: int = 16  # sec. 4.2: in training; 8 when it is used, with the same weights
    first_dilates: bool = True
    multi_grid: tuple[int, ...] = (1,)  # sec. 4.2: none
    align_corners: bool = False  # wherever maps are resized
    # ASPP
    width: int = 256  # sec. 3.1
    rates: tuple[int, ...] = (6, 12, 18)  # of DeepLabv3, at an output stride of
    rates_stride: int | None = 16  # this: twice them at 8, half at 32; None: at any
    separable: bool = True  # sec. 3.1, in the decoder too
    between: bool = True  # a norm and a ReLU behind the depthwise convolutions
    drop: float = 0.1
    deeper: bool = False  # another 3x3 convolution behind it
    # Decoder
    low_width: int = 48  # sec. 4.1: channels that C2 is reduced to
    decoder_depth: int = 2  # sec. 4.1: 3x3 convolutions


CONVENTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "smp": dict(
        align_corners=True, rates=(12, 24, 36), rates_stride=None, between=False, drop=0.5,
        deeper=True, decoder_depth=1,
    ),
}  # fmt: skip


class DeepLabV3Plus(Segmenter):
    """ASPP and a decoder on a dilated backbone. See `forward` for what goes in and out."""

    class_dependent = ("score",)

    def __init__(self, config: Config) -> None:
        self.set_up(config)
        c = config
        self.align_corners = c.align_corners
        self.backbone = build_backbone(
            c.backbone, norm=c.norm, norm_epsilon=c.norm_epsilon, in_channels=c.in_channels,
            output_stride=c.output_stride, first_dilates=c.first_dilates, multi_grid=c.multi_grid,
        )  # fmt: skip
        how, channels = (c.norm, c.norm_epsilon), self.backbone.channels

        def conv(inputs: int) -> nn.Module:
            return conv3x3(inputs, c.width, *how, separable=c.separable, between=c.between)

        rates = rates_at(c.output_stride, c.rates, c.rates_stride)
        self.aspp = ASPP(channels[-1], c.width, rates, *how, c.drop, c.separable, c.between)
        self.deeper = conv(c.width) if c.deeper else None
        self.low = ConvNorm(channels[0], c.low_width, 1, c.norm, norm_epsilon=c.norm_epsilon)
        self.decoder = nn.ModuleList(
            conv(c.width + c.low_width * (i == 0)) for i in range(c.decoder_depth)
        )
        self.score = nn.Conv2d(c.width, c.num_classes, 1)

    def maps(self, images: Tensor) -> Tensor:
        """Pictures (B, C, H, W) to logits (B, K, H/4, W/4)."""
        features = note("features C2 to C5", self.backbone(images))
        x = self.aspp(features[-1])  # (B, 256, H/s, W/s)
        x = note("atrous spatial pyramid pooling, sec. 3.1", x)
        if self.deeper is not None:
            x = activated(x, self.deeper)
        low = note("few channels of C2, sec. 3.1", fused(features[0], self.low, relu=True))
        x = resized(x, low.shape[2:], self.align_corners)  # (B, 256, H/4, W/4)
        x = torch.cat([x, low], 1)
        for refine in self.decoder:
            x = activated(x, refine)
        return fused(note("decoder, sec. 3.1", x), self.score)


@register(
    "deeplabv3plus",
    task="segmentation",
    paper='Chen et al., "Encoder-Decoder with Atrous Separable Convolution", ECCV 2018, '
    "arXiv:1802.02611",
)
def deeplabv3plus(num_classes: int, **options: Any) -> DeepLabV3Plus:
    """DeepLabv3+; options are the fields of `Config`."""
    return DeepLabV3Plus(make_config(Config, CONVENTIONS, {"num_classes": num_classes, **options}))
