"""PAN: Li et al., "Pyramid Attention Network for Semantic Segmentation", BMVC 2018,
arXiv:1805.10180.

Attention in place of dilated convolutions and a designed decoder: a small pyramid weighs each place
of the last map (feature pyramid attention, FPA); then, level by level, what the deeper map says of
the whole picture weighs the channels of the finer one (global attention upsampling, GAU).

Letters   B pictures, K classes, D channels of the decoder, H and W of the pictures.
Departs   nothing in FPA and GAU is dilated, and no decoder is designed, as the abstract has it;
          sec. 3.3 still lets the ResNet end at stride 16, its last stage dilated from the second
          block (res5b) on. `output_stride=32` is without any dilation. The ResNet is He et al.'s;
          the authors' begins with three 3x3 convolutions. The text does not tell D, nor the
          pyramid's channels: they are segmentation_models.pytorch's, 32, and 1, a weight a place.
          `convention="smp"` is that library's: all of the last stage is dilated, a sigmoid in place
          of the ReLU makes GAU's weights, 3x3 to the classes. Its convolutions have biases which
          their norms cancel; a checkpoint's go into the norms' means.
          Where a map is one cell wide already, the pyramid halves it no more. A map of one cell of
          one picture has no batch statistics: in training its norm uses the running ones
          (nn/lone.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.nn.backbones import build_backbone
from eyeline.nn.detector import make_config
from eyeline.nn.fused import fused, max_pool
from eyeline.nn.layers import ConvNorm
from eyeline.nn.resizing import resized
from eyeline.nn.segmenter import Segmenter, SegmenterConfig
from eyeline.note import note
from eyeline.registry import register


@dataclass(frozen=True, kw_only=True)
class Config(SegmenterConfig):
    """Numbers of the paper, each with its section."""

    backbone: str = "resnet101"  # sec. 4.1
    output_stride: int = 16  # sec. 3.3; 32: no dilation
    first_dilates: bool = False  # sec. 3.3: from res5b on
    align_corners: bool = True  # wherever maps are resized
    width: int = 32
    gate: str = "relu"  # sec. 3.2: behind GAU's 1x1; or "sigmoid"
    score_kernel: int = 1


CONVENTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "smp": dict(first_dilates=True, gate="sigmoid", score_kernel=3),
}


def halved(x: Tensor) -> Tensor:
    """Max pooling by 2 in each direction that has two cells."""
    sides = [min(2, side) for side in x.shape[2:]]
    return max_pool(x, 2) if sides == [2, 2] else nn.functional.max_pool2d(x, sides, sides)


class FeaturePyramidAttention(nn.Module):
    """Fig. 3 (b): (B, inputs, h, w) -> (B, D, h, w), each place weighed by what a pyramid of larger
    and larger surroundings says of it, and the mean of the whole added."""

    def __init__(
        self, inputs: int, width: int, norm: str, norm_epsilon: float, align_corners: bool
    ) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int, kernel: int) -> ConvNorm:
            return ConvNorm(inputs, outputs, kernel, norm, norm_epsilon=norm_epsilon)

        self.align_corners = align_corners
        self.whole = conv(inputs, width, 1)
        self.middle = conv(inputs, width, 1)
        self.down = nn.ModuleList([conv(inputs, 1, 7), conv(1, 1, 5), conv(1, 1, 3)])
        self.across = nn.ModuleList([conv(1, 1, 7), conv(1, 1, 5), conv(1, 1, 3)])

    def forward(self, x: Tensor) -> Tensor:
        levels, y = [], x
        for down in self.down:
            y = fused(halved(y), down, relu=True)  # (B, 1, h/2, w/2), h/4, h/8
            levels.append(y)
        sums: Tensor | None = None
        for level, across in reversed(list(zip(levels, self.across, strict=True))):
            seen = fused(level, across, relu=True)
            sums = seen if sums is None else seen + self.like(sums, seen)
        assert sums is not None
        weight = note("weights of places, sec. 3.1", self.like(sums, x))  # (B, 1, h, w)
        whole = fused(x.mean((2, 3), keepdim=True), self.whole, relu=True)  # (B, D, 1, 1)
        return weight * fused(x, self.middle, relu=True) + whole

    def like(self, small: Tensor, large: Tensor) -> Tensor:
        return resized(small, large.shape[2:], self.align_corners)


class GlobalAttentionUpsample(nn.Module):
    """Fig. 4: a finer map (B, inputs, h, w), its channels weighed by the mean of a deeper one
    (B, D, h', w'), which is added: (B, D, h, w)."""

    def __init__(
        self, inputs: int, width: int, norm: str, norm_epsilon: float, gate: str,
        align_corners: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.gate, self.align_corners = gate, align_corners
        self.weigh = ConvNorm(width, width, 1, norm, norm_epsilon=norm_epsilon)
        self.finer = ConvNorm(inputs, width, 3, norm, norm_epsilon=norm_epsilon)

    def forward(self, fine: Tensor, deep: Tensor) -> Tensor:
        weight = fused(
            deep.mean((2, 3), keepdim=True), self.weigh, relu=self.gate == "relu"
        )  # (B, D, 1, 1)
        if self.gate == "sigmoid":
            weight = weight.sigmoid()
        weighed = fused(fine, self.finer, relu=True) * weight
        return weighed + resized(deep, fine.shape[2:], self.align_corners)


class PAN(Segmenter):
    """Pyramid attention and global attention upsampling. See `forward` for what goes in and out."""

    class_dependent = ("score",)

    def __init__(self, config: Config) -> None:
        self.set_up(config)
        c = config
        if c.gate not in ("relu", "sigmoid"):
            raise EyelineError(f'gate must be "relu" or "sigmoid", not {c.gate!r}')
        self.align_corners = c.align_corners
        self.backbone = build_backbone(
            c.backbone, norm=c.norm, norm_epsilon=c.norm_epsilon, in_channels=c.in_channels,
            output_stride=c.output_stride, first_dilates=c.first_dilates,
        )  # fmt: skip
        how = (c.width, c.norm, c.norm_epsilon)
        *finer, deepest = self.backbone.channels
        self.attention = FeaturePyramidAttention(deepest, *how, c.align_corners)
        self.upsample = nn.ModuleList(  # of C4, C3, C2
            GlobalAttentionUpsample(channels, *how, c.gate, c.align_corners)
            for channels in reversed(finer)
        )
        self.score = nn.Conv2d(c.width, c.num_classes, c.score_kernel, padding=c.score_kernel // 2)

    def maps(self, images: Tensor) -> Tensor:
        """Pictures (B, C, H, W) to logits (B, K, H/4, W/4)."""
        *finer, deepest = note("features C2 to C5", self.backbone(images))
        x = note("feature pyramid attention, sec. 3.1", self.attention(deepest))  # (B, D, h5, w5)
        levels = [x]
        for fine, upsample in zip(reversed(finer), self.upsample, strict=True):
            x = upsample(fine, x)  # (B, D, H/16, W/16), H/8, H/4
            levels.append(x)
        note("global attention upsampling, sec. 3.2", levels)
        return fused(x, self.score)


@register(
    "pan",
    task="segmentation",
    paper='Li et al., "Pyramid Attention Network", BMVC 2018, arXiv:1805.10180',
)
def pan(num_classes: int, **options: Any) -> PAN:
    """PAN; options are the fields of `Config`."""
    return PAN(make_config(Config, CONVENTIONS, {"num_classes": num_classes, **options}))
