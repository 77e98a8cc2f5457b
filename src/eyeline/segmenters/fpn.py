"""FPN for segmentation: Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019,
arXiv:1901.02446, sec. 3.1 and Fig. 3 (the semantic branch).

A feature pyramid has levels of one width at strides 4 to 32, and each knows what the coarser ones
know. Each is enlarged to stride 4, step by step; the four are summed; one convolution classifies.

Letters   B pictures, K classes, H and W of the batch; P2 .. P5 the pyramid's levels at strides 4 to
          32, S2 .. S5 what becomes of each at stride 4.
Departs   `convention="smp"` is segmentation-models-pytorch's: no 3x3 convolutions behind the
          pyramid's sums, corner pixels on corner pixels wherever a map is enlarged, drop-out of a
          fifth of the channels before the classifier. It can concatenate where the paper sums
          (`merge="cat"`).
          The paper trains this branch beside Mask R-CNN on one pyramid; here it stands alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.nn.backbones import build_backbone
from eyeline.nn.decoding import he
from eyeline.nn.detector import make_config
from eyeline.nn.fused import fused
from eyeline.nn.layers import ConvNorm
from eyeline.nn.necks.fpn import FPN as Pyramid
from eyeline.nn.resizing import resized
from eyeline.nn.segmenter import Segmenter, SegmenterConfig
from eyeline.note import note
from eyeline.registry import register


@dataclass(frozen=True, kw_only=True)
class Config(SegmenterConfig):
    """Numbers of the paper, each with its section."""

    backbone: str = "resnet50"  # sec. 5
    stride_in_1x1: bool = False  # of the backbone's bottlenecks
    fpn_channels: int = 256  # sec. 3.1
    fpn_smooth: bool = True  # a 3x3 convolution behind each sum of the pyramid
    branch_width: int = 128  # sec. 3.1
    branch_norm: str = "group"  # sec. 3.1
    merge: str = "add"  # sec. 3.1; or "cat"
    dropout: float = 0.0  # of whole channels
    align_corners: bool = False


CONVENTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "smp": dict(backbone="resnet34", fpn_smooth=False, dropout=0.2, align_corners=True),
}


class FPN(Segmenter):
    """Options are the fields of `Config`."""

    class_dependent = ("head",)

    def __init__(self, config: Config) -> None:
        self.set_up(config)
        c = config
        self.align_corners = c.align_corners
        self.backbone = build_backbone(
            c.backbone, norm=c.norm, norm_epsilon=c.norm_epsilon, in_channels=c.in_channels,
            stride_in_1x1=c.stride_in_1x1,
        )  # fmt: skip
        self.fpn = Pyramid(self.backbone.channels, c.fpn_channels, smooth=c.fpn_smooth)
        # Of P2 .. P5: as many steps as it has to be doubled, P2 one without.
        self.branches = nn.ModuleList(
            nn.ModuleList(
                ConvNorm(
                    c.branch_width if i else c.fpn_channels, c.branch_width, 3, c.branch_norm,
                    norm_epsilon=c.norm_epsilon,
                ) for i in range(steps)
            )
            for steps in (1, 1, 2, 3)
        )  # fmt: skip
        width = c.branch_width * (len(self.branches) if c.merge == "cat" else 1)
        self.head = nn.Conv2d(width, c.num_classes, 1)
        he(self.branches)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def maps(self, images: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> logits (B, K, H/4, W/4)."""
        levels = self.fpn(self.backbone(images))  # P2 .. P5
        sizes = [level.shape[2:] for level in levels]
        merged = [
            note(f"S{2 + i}, Fig. 3", self.branch(i, level, sizes))
            for i, level in enumerate(note("P2 .. P5", levels))
        ]
        x = torch.cat(merged[::-1], 1) if self.config.merge == "cat" else sum(merged[1:], merged[0])
        x = F.dropout2d(x, self.config.dropout, self.training)
        return self.head(x)  # type: ignore[no-any-return]

    def branch(self, i: int, x: Tensor, sizes: Sequence[Any]) -> Tensor:
        """A level at the size of the first, (B, 128, H/4, W/4): from size to size, where the
        paper's double."""
        for step, conv in enumerate(self.branches[i]):
            x = fused(x, conv, relu=True)
            if i:
                x = resized(x, sizes[i - 1 - step], self.align_corners)
        return x


PAPER = 'Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, arXiv:1901.02446'


@register("fpn", task="segmentation", paper=PAPER)
def fpn(num_classes: int, **options: Any) -> FPN:
    """FPN for segmentation; options are the fields of `Config`."""
    return FPN(make_config(Config, CONVENTIONS, {"num_classes": num_classes, **options}))
