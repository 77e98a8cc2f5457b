"""FCN: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation",
CVPR 2015, arXiv:1411.4038; with Shelhamer's longer version, TPAMI 2017, arXiv:1605.06211.

VGG16's fully connected layers are convolutions, so it scores the classes at every 32nd pixel.
Transposed convolutions bring the scores back to the picture's size (fcn32s), after those of finer
maps were added to them: pool4's (fcn16s), pool3's (fcn8s).

Letters   B pictures, K classes, H and W of the batch, h and w of a map.
Departs   fc6 sees a border of 3 cells and pooling rounds up, so that cell i of a map of stride s
          begins at pixel s i of any picture. `convention="caffe"` is the authors' nets: a border of
          100 pixels, after which the maps are cut to fit each other.
          The paper starts the scores of fc7 at 0; then nothing else learns in the first step, so
          here they start near it. Those of pool4 and pool3 start at 0, as in sec. 4.3.
          VGG16 starts as He et al., ICCV 2015, where no classifier's weights are given (pretrained=
          takes VGG16's, fc6 and fc7 included); norm="batch" lets it learn without them.
          The mean of the pixels' losses is taken, where the authors' nets have the sum.
          `fcn` has a dilated ResNet for VGG16, as torchvision's has, which no paper tells of: its
          head of two convolutions, and one like it beside C4 whose loss counts half.
          `convention="torchvision"`: the first block of a stage dilates as the stage before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.nn.backbones import build_backbone
from eyeline.nn.backbones.vgg import VGG16
from eyeline.nn.detector import make_config
from eyeline.nn.fused import fused, max_pool
from eyeline.nn.heads.score import ScoreHead
from eyeline.nn.layers import ConvNorm
from eyeline.nn.segmenter import Maps, Segmenter, SegmenterConfig
from eyeline.note import note
from eyeline.registry import register


@dataclass(frozen=True, kw_only=True)
class Config(SegmenterConfig):
    """Numbers of the papers, with sections of the first one."""

    norm: str = "none"  # "batch", "frozen", "group" behind each convolution of VGG16
    width: int = 64  # channels of VGG16's first stage, of which all other widths are multiples
    border: int = 0  # pixels of zeros about the picture; authors' nets: 100
    dropout: float = 0.5  # sec. 4.3
    # Of pool4 and pool3 before they are scored; (1e-2, 1e-4) to learn all at once (authors' nets)
    skip_scales: tuple[float, float] = (1.0, 1.0)
    final_learned: bool = False  # sec. 4.3: the last upsampling stays bilinear


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(SegmenterConfig):
    """`fcn`: numbers of torchvision's references."""

    backbone: str = "resnet50"
    output_stride: int = 8  # or 16, 32
    first_dilates: bool = True  # see nn/backbones/resnet.py
    dropout: float = 0.1
    auxiliary: float = 0.5  # of the loss of C4's scores; 0: no such head


CONVENTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "caffe": dict(
        border=100,
        image_mean=(122.67892 / 255, 116.66877 / 255, 104.00699 / 255),
        image_std=(1 / 255, 1 / 255, 1 / 255),
    ),
}
RESNET_CONVENTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "torchvision": dict(first_dilates=False),
}
# With the border: by how many cells a map is ahead of the one below it, upsampled (pool4's scores,
# pool3's), and the picture of the last one, by its stride.
AHEAD = {"pool4": 5, "pool3": 9}
FINAL = {32: 19, 16: 27, 8: 31}


class FullVGG16(VGG16):
    """VGG16 with its fully connected layers as convolutions: (B, C, H, W) -> [pool3, pool4, fc7] at
    strides 8, 16, 32.

    Args:
        padding: of fc6.
        dropout: the share of fc6's and fc7's values that is dropped in training.
    """

    def __init__(
        self, norm: str, in_channels: int, width: int, norm_epsilon: float, padding: int,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__(norm, in_channels, width, norm_epsilon)
        eps, wide = norm_epsilon, 64 * width
        self.fc6 = ConvNorm(8 * width, wide, 7, norm, padding=padding, norm_epsilon=eps)
        self.fc7 = ConvNorm(wide, wide, 1, norm, norm_epsilon=eps)
        self.channels, self.dropout = [4 * width, 8 * width, 64 * width], dropout
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        pools = []
        for stage in (1, 2, 3, 4, 5):
            x = max_pool(self.stage(x, stage), 2, ceil_mode=True)
            pools.append(x)
        for layer in (self.fc6, self.fc7):
            x = fused(x, layer, relu=True)
            if self.training:
                x = F.dropout(x, self.dropout)
        return [pools[2], pools[3], x]


class Upsampling(nn.Module):
    """Scores `factor` times as large, by a transposed convolution that starts as bilinear
    interpolation: (B, K, h, w) -> (B, K, f h, f w), with f more on each side where `whole`.

    Args:
        learned: each class's scores are made of all classes'; else it stays what it is, and has
            no parameters.
    """

    weight: Tensor

    def __init__(self, classes: int, factor: int, whole: bool, learned: bool) -> None:
        super().__init__()
        self.factor, self.padding = factor, 0 if whole else factor // 2
        kernel = bilinear(2 * factor)
        if learned:
            weight = torch.zeros(classes, classes, *kernel.shape)
            weight[range(classes), range(classes)] = kernel
            self.weight, self.groups = nn.Parameter(weight), 1
        else:
            weight, self.groups = kernel.expand(classes, 1, -1, -1).clone(), classes
            self.register_buffer("weight", weight, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        return F.conv_transpose2d(
            x, weight, stride=self.factor, padding=self.padding, groups=self.groups
        )


def bilinear(side: int) -> Tensor:
    """The kernel (side, side), of an even side, by which a transposed convolution of stride
    side / 2 interpolates between the centres of the cells."""
    tent = 1 - (torch.arange(side) - (side - 1) / 2).abs() / (side / 2)
    return tent[:, None] * tent


def cut(x: Tensor, start: int, like: Tensor) -> Tensor:
    """The part of maps (B, C, h, w) from a row and column on that is as large as `like`."""
    height, width = like.shape[2:]
    return x[:, :, start : start + height, start : start + width]


class FCN(Segmenter):
    """VGG16's scores at stride 32, 16 or 8. See `forward` for what goes in and out."""

    # A coarser net's weights start this one (sec. 4.3): by its name, what they leave as it is.
    starts_from: dict[str, tuple[str, ...]]

    def __init__(self, config: Config, stride: int) -> None:
        self.set_up(config)
        c, k = config, config.num_classes
        if c.border not in (0, 100):
            raise EyelineError(f"border must be 0, or 100 as in the authors' nets, not {c.border}")
        self.stride, whole = stride, c.border > 0
        self.backbone = FullVGG16(
            c.norm, c.in_channels, c.width, c.norm_epsilon, 0 if whole else 3, c.dropout
        )
        pool3, pool4, fc7 = self.backbone.channels
        self.score_fr = nn.Conv2d(fc7, k, 1)
        nn.init.normal_(self.score_fr.weight, std=0.01)
        nn.init.zeros_(self.score_fr.bias)  # type: ignore[arg-type]
        finest = ("final",) if c.final_learned else ()
        sixteenth: tuple[str, ...] = ()
        eighth: tuple[str, ...] = ()
        if stride < 32:
            self.score_pool4 = zero_scores(pool4, k)
            self.upscore2 = Upsampling(k, 2, whole, learned=True)
            sixteenth = ("score_pool4", "upscore2")
        if stride < 16:
            self.score_pool3 = zero_scores(pool3, k)
            self.upscore_pool4 = Upsampling(k, 2, whole, learned=True)
            eighth = ("score_pool3", "upscore_pool4")
        self.final = Upsampling(k, stride, whole, c.final_learned)
        self.class_dependent = ("score_fr", *sixteenth, *eighth, *finest)
        self.starts_from = {}
        if stride < 32:
            self.starts_from["fcn32s"] = (*sixteenth, *eighth, *finest)
        if stride < 16:
            self.starts_from["fcn16s"] = (*eighth, *finest)

    def maps(self, images: Tensor) -> Tensor:
        """Normalised pictures (B, C, H, W) to logits (B, K, H, W)."""
        c, b = self.config, self.config.border
        x = F.pad(images, (b - 1,) * 4) if b else images  # conv1_1 adds one
        pool3, pool4, fc7 = note("features pool3, pool4, fc7, sec. 4.1", self.backbone(x))
        scores = note("scores of fc7, stride 32, sec. 4.2", fused(fc7, self.score_fr))
        finer = []
        if self.stride < 32:
            finer.append(("pool4", pool4, c.skip_scales[0], self.upscore2, self.score_pool4))
        if self.stride < 16:
            finer.append(("pool3", pool3, c.skip_scales[1], self.upscore_pool4, self.score_pool3))
        for name, pool, scale, upsampling, layer in finer:
            skip = layer(pool * scale if scale != 1 else pool)  # (B, K, 2 h or 2 h - 1, ...)
            coarse = upsampling(scores)
            coarse = coarse if b else cut(coarse, 0, skip)
            scores = coarse + (cut(skip, AHEAD[name], coarse) if b else skip)
            note(f"scores with those of {name}, sec. 4.2", scores)
        start = FINAL[self.stride] if b else 0
        return note("scores of all pixels, sec. 3.3", cut(self.final(scores), start, images))


def zero_scores(inputs: int, classes: int) -> nn.Conv2d:
    """Scores of a finer map, which at first change nothing (sec. 4.3)."""
    layer = nn.Conv2d(inputs, classes, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class ResNetFCN(Segmenter):
    """A dilated ResNet and a head of two convolutions. See `forward` for what goes in and out."""

    def __init__(self, config: ResNetConfig) -> None:
        self.set_up(config)
        c = config
        self.backbone = build_backbone(
            c.backbone, norm=c.norm, norm_epsilon=c.norm_epsilon, in_channels=c.in_channels,
            output_stride=c.output_stride, first_dilates=c.first_dilates,
        )  # fmt: skip
        *_, c4, c5 = self.backbone.channels
        # So torchvision has it; the paper has no such head.
        how = (c.num_classes, c.norm, c.norm_epsilon, c.dropout)
        self.head = ScoreHead(c5, c5 // 4, *how)
        self.class_dependent = ("head.score",)
        if c.auxiliary:
            self.auxiliary = ScoreHead(c4, c4 // 4, *how)
            self.auxiliary_weights = {"auxiliary": c.auxiliary}
            self.class_dependent += ("auxiliary.score",)

    def maps(self, images: Tensor) -> Maps:
        """Normalised pictures (B, C, H, W) to logits (B, K, h, w), and those of C4."""
        *_, c4, c5 = note("features C2 to C5", self.backbone(images))
        logits = note("scores of C5", self.head(note("C5, dilated", c5)))
        if not self.auxiliary_weights:
            return logits
        return logits, {"auxiliary": partial(self.auxiliary, c4)}


PAPER = 'Long et al., "Fully Convolutional Networks", CVPR 2015, arXiv:1411.4038'


def builder(stride: int) -> Callable[..., FCN]:
    def build(num_classes: int, **options: Any) -> FCN:
        """FCN; options are the fields of `Config`."""
        return FCN(
            make_config(Config, CONVENTIONS, {"num_classes": num_classes, **options}), stride
        )

    return build


for _stride in (32, 16, 8):
    register(f"fcn{_stride}s", task="segmentation", paper=PAPER)(builder(_stride))


@register("fcn", task="segmentation", paper=PAPER)
def fcn(num_classes: int, **options: Any) -> ResNetFCN:
    """FCN on a dilated ResNet; options are the fields of `ResNetConfig`."""
    options = {"num_classes": num_classes, **options}
    return ResNetFCN(make_config(ResNetConfig, RESNET_CONVENTIONS, options))
