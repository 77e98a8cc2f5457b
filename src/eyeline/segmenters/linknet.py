"""LinkNet: Chaurasia and Culurciello, "LinkNet: Exploiting Encoder Representations for Efficient
Semantic Segmentation", VCIP 2017, arXiv:1707.03718.

The input of each stage of a ResNet is added to what the decoder makes of the stage's output. For
sums need no more channels than they have, the decoder's blocks are as narrow as the encoder's.

Letters   B pictures, K classes, H and W of the batch; C1 .. C5 the backbone's maps at strides 2 to
          32, n their channels, h and w of a map.
Departs   The paper leaves open what the authors' code (e-lab/LinkNet) says: the block of the first
          stage, which does not halve the map, does not enlarge it, and adds the pooled stem, at
          stride 4. The ReLU that the code has behind each sum is left out: both are positive, of
          a ResNet or VGG16; maps of other backbones may be negative, and stay so.
          The code's norms add 1e-3 to the variance, these 1e-5.
          `convention="smp"` is segmentation-models-pytorch's: every block enlarges, by a kernel of
          4, the first stage's adds the stem at stride 2, and a fifth makes 32 channels, which a 1x1
          convolution reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.nn.backbones import build_encoder
from eyeline.nn.decoding import Enlarging, fitted, he
from eyeline.nn.detector import make_config
from eyeline.nn.fused import fused, max_pool
from eyeline.nn.layers import ConvNorm
from eyeline.nn.segmenter import Segmenter, SegmenterConfig
from eyeline.note import note
from eyeline.registry import register


@dataclass(frozen=True, kw_only=True)
class Config(SegmenterConfig):
    """Numbers of the paper, each with its section."""

    backbone: str = "resnet18"  # sec. 3
    decoder_norm: str = "batch"  # sec. 3
    enlarging_kernel: int = 3  # Fig. 3; or 4
    stem_joined: str = "pooled"  # the stem's map that is added: so, or "whole"
    final_width: int = 32  # Fig. 1


CONVENTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "smp": dict(backbone="resnet34", enlarging_kernel=4, stem_joined="whole"),
}


class Block(nn.Module):
    """A decoder's block (Fig. 3): (B, n, h, w) -> (B, outputs, `stride` h, `stride` w)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, norm: str, norm_epsilon: float, stride: int
    ) -> None:
        super().__init__()
        inner = inputs // 4
        self.reduce = ConvNorm(inputs, inner, 1, norm, norm_epsilon=norm_epsilon)
        self.enlarge = Enlarging(inner, inner, kernel, norm, norm_epsilon, stride)
        self.expand = ConvNorm(inner, outputs, 1, norm, norm_epsilon=norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        x = fused(x, self.reduce, relu=True)  # (B, n / 4, h, w)
        x = fused(x, self.enlarge, relu=True)
        return fused(x, self.expand, relu=True)


class LinkNet(Segmenter):
    """Options are the fields of `Config`."""

    class_dependent = ("head",)

    def __init__(self, config: Config) -> None:
        self.set_up(config)
        c = config
        if c.enlarging_kernel not in (3, 4):
            raise EyelineError(f"enlarging_kernel must be 3 or 4, not {c.enlarging_kernel}")
        self.backbone = build_encoder(
            c.backbone, norm=c.norm, norm_epsilon=c.norm_epsilon, in_channels=c.in_channels
        )
        widths = list(self.backbone.stage_channels)[::-1]  # of C5 .. C1
        self.pooled = c.stem_joined == "pooled"
        norm, eps = c.decoder_norm, c.norm_epsilon
        how = (c.enlarging_kernel, norm, eps)
        self.blocks = nn.ModuleList(
            Block(before, after, *how, 1 if self.pooled and i == 3 else 2)
            for i, (before, after) in enumerate(pairwise(widths))
        )
        if self.pooled:  # Fig. 1
            self.enlarge = Enlarging(widths[-1], c.final_width, *how)
            self.conv = ConvNorm(c.final_width, c.final_width, 3, norm, norm_epsilon=eps)
            self.head: nn.Module = nn.ConvTranspose2d(c.final_width, c.num_classes, 2, stride=2)
        else:
            self.blocks.append(Block(widths[-1], c.final_width, *how, 2))
            self.head = nn.Conv2d(c.final_width, c.num_classes, 1)
        for name, part in self.named_children():
            if name != "backbone":
                he(part)

    def maps(self, images: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> logits (B, K, H, W)."""
        c1, *skips, x = self.backbone.stages(images)
        skips.insert(0, max_pool(c1, 3, 2, padding=1) if self.pooled else c1)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if skips:
                skip = skips.pop()
                x = fitted(x, skip.shape[2:]) + skip
            note(f"decoder {4 - i}, sec. 3", x)
        if self.pooled:
            x = fused(x, self.enlarge, relu=True)  # (B, 32, H/2, W/2)
            x = note("at stride 2, sec. 3", fused(x, self.conv, relu=True))
        return fitted(self.head(x), images.shape[2:])


PAPER = (
    'Chaurasia and Culurciello, "LinkNet: Exploiting Encoder Representations for Efficient '
    'Semantic Segmentation", VCIP 2017, arXiv:1707.03718'
)


@register("linknet", task="segmentation", paper=PAPER)
def linknet(num_classes: int, **options: Any) -> LinkNet:
    """LinkNet; options are the fields of `Config`."""
    return LinkNet(make_config(Config, CONVENTIONS, {"num_classes": num_classes, **options}))
