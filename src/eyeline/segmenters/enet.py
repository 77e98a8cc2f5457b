"""ENet: Paszke, Chaurasia, Kim and Culurciello, "ENet: A Deep Neural Network Architecture for
Real-Time Semantic Segmentation", 2016, arXiv:1606.02147.

A picture is at once made an eighth as large, nearly all work is done there, by bottlenecks of a
quarter of the channels, and a small decoder makes it large again with the encoder's places of the
maxima. 0.37 million parameters.

Letters   B pictures, K classes, H and W of the batch, h and w of a map.
Departs   follows the authors' code where the text is silent: norms that add 1e-3 to the variance,
          ReLU in the decoder, bottlenecks a quarter as wide as their outputs, nothing between a 1x5
          and a 5x1 convolution. Convolutions before a norm have no bias, which would change
          nothing. Drop-out in the decoder too, as in the text.
          The authors train the encoder alone first, to classes at an eighth of the size (sec. 5.2);
          `auxiliary=1.0` gives it that layer, and its loss counts beside the decoder's.
          Pictures are padded by zeros to multiples of 8, and the logits cut. Of more than 51
          channels they make wider stages: no shortcut of the encoder loses one of its maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.nn.detector import make_config
from eyeline.nn.fused import fused, max_pool
from eyeline.nn.layers import make_norm
from eyeline.nn.segmenter import Maps, Segmenter, SegmenterConfig
from eyeline.note import note
from eyeline.ops.unpool import pool_with_places, unpool
from eyeline.registry import register


@dataclass(frozen=True, kw_only=True)
class Config(SegmenterConfig):
    """Numbers of the paper, with sections; for the weights of the classes (sec. 5.2) see
    `class_weights`."""

    norm_epsilon: float = 1e-3
    dropout: tuple[float, float] = (0.01, 0.1)  # sec. 3: before bottleneck 2.0, from there on
    reduction: int = 4  # of the channels in a bottleneck
    auxiliary: float = 0.0  # of the encoder's loss; 0: it has no classes of its own


CONVENTIONS: dict[str, dict[str, Any]] = {"paper": {}}
STRIDE = 8
# Table 1: bottlenecks 2.1 to 2.8, which stage 3 has again: dilation, or 0 where 5x1 and 1x5 stand.
MIDDLE = (1, 2, 0, 4, 1, 8, 0, 16)


class PReLU(nn.PReLU):
    """A slope for each channel below 0 (He et al., ICCV 2015), in the precision of the maps."""

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.weight.to(x.dtype))


class Layer(nn.Module):
    """A convolution, or several in a row, a norm and, unless it is None, an activation: "prelu"
    (a slope for each channel) or "relu"."""

    fusable: ClassVar = [("conv", "norm")]

    def __init__(
        self, convs: list[nn.Module], norm: str, eps: float, activation: str | None = None
    ) -> None:
        super().__init__()
        *before, last = convs
        outputs = int(last.out_channels)  # type: ignore[arg-type]
        self.before = nn.ModuleList(before)
        self.conv = last
        self.norm = make_norm(norm, outputs, eps)
        self.relu = activation == "relu"
        self.prelu = PReLU(outputs) if activation == "prelu" else None

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.before:
            x = fused(x, conv)
        x = fused(x, self.conv, self.norm, relu=self.relu)
        return x if self.prelu is None else self.prelu(x)


class InitialBlock(nn.Module):
    """13 maps by a 3x3 convolution beside the pooled picture (Fig. 2a): half as large."""

    def __init__(self, inputs: int, outputs: int, norm: str, eps: float) -> None:
        super().__init__()
        self.conv = conv(inputs, outputs - inputs, 3, stride=2)
        self.norm = make_norm(norm, outputs, eps)
        self.prelu = PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([fused(x, self.conv), max_pool(x, 2)], 1)
        return self.prelu(self.norm(x))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1 to few channels, a convolution of one kind, 1x1 back, drop-out, and the input beside
    them (Fig. 2b): (B, C, h, w) -> (B, D, h', w').

    Args:
        kind: "regular"; "down", which pools beside a 2x2 convolution of stride 2, half as large;
            "up", which unpools beside a transposed convolution, twice as large.
        dilation: of the 3x3 convolution; 0: 5x1 and 1x5 stand for it.
    """

    def __init__(
        self, inputs: int, outputs: int, norm: str, eps: float, activation: str, dropout: float,
        reduction: int, kind: str = "regular", dilation: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        inner, self.kind, self.dropout = outputs // reduction, kind, dropout
        how = (norm, eps)
        step = 2 if kind == "down" else 1
        first = nn.Conv2d(inputs, inner, step, step, bias=False)
        middle: list[nn.Module]
        if kind == "up":
            middle = [nn.ConvTranspose2d(inner, inner, 3, 2, 1, output_padding=1, bias=False)]
        elif dilation:
            middle = [conv(inner, inner, 3, dilation=dilation)]
        else:
            middle = [conv(inner, inner, (1, 5)), conv(inner, inner, (5, 1))]
        self.reduce = Layer([first], *how, activation)
        self.middle = Layer(middle, *how, activation)
        self.expand = Layer([conv(inner, outputs, 1)], *how)
        self.beside = Layer([conv(inputs, outputs, 1)], *how) if kind == "up" else None
        self.prelu = PReLU(outputs) if activation == "prelu" else None

    def forward(self, x: Tensor, places: Tensor | None = None) -> Any:
        """`places` (B, D, h, w) of the maxima for "up"; "down" gives its own beside the maps."""
        out = self.expand(self.middle(self.reduce(x)))
        if self.training:
            out = F.dropout2d(out, self.dropout)
        if self.kind == "down":
            x, places = pool_with_places(x)
            x = F.pad(x, (0, 0, 0, 0, 0, out.shape[1] - x.shape[1]))  # channels of zeros
        elif self.beside is not None:
            assert places is not None
            x = unpool(self.beside(x), places, out.shape[2:])
        out = x + out
        out = F.relu(out) if self.prelu is None else self.prelu(out)
        return (out, places) if self.kind == "down" else out


def conv(inputs: int, outputs: int, kernel: Any, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Without a bias, as large going out as coming in where the stride is 1."""
    rows, columns = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = (dilation * (rows // 2), dilation * (columns // 2))
    return nn.Conv2d(inputs, outputs, (rows, columns), stride, padding, dilation, bias=False)


class ENet(Segmenter):
    """Table 1. See `forward` for what goes in and out."""

    def __init__(self, config: Config) -> None:
        self.set_up(config)
        c = config
        early, late = c.dropout
        how: dict[str, Any] = dict(norm=c.norm, eps=c.norm_epsilon, reduction=c.reduction)
        first: dict[str, Any] = how | dict(activation="prelu", dropout=early)
        second: dict[str, Any] = how | dict(activation="prelu", dropout=late)
        third: dict[str, Any] = how | dict(activation="relu", dropout=late)
        wide = 13 + c.in_channels
        quarter, eighth = max(64, wide), max(128, wide)  # channels at strides 4 and 8
        self.initial = InitialBlock(c.in_channels, wide, c.norm, c.norm_epsilon)
        self.down1 = Bottleneck(wide, quarter, kind="down", **first)
        self.stage1 = nn.Sequential(*(Bottleneck(quarter, quarter, **first) for _ in range(4)))
        self.down2 = Bottleneck(quarter, eighth, kind="down", **second)
        self.stage2, self.stage3 = (
            nn.Sequential(*(Bottleneck(eighth, eighth, dilation=d, **second) for d in MIDDLE))
            for _ in range(2)
        )
        self.up4 = Bottleneck(eighth, quarter, kind="up", **third)
        self.stage4 = nn.Sequential(*(Bottleneck(quarter, quarter, **third) for _ in range(2)))
        self.up5 = Bottleneck(quarter, wide, kind="up", **third)
        self.stage5 = nn.Sequential(Bottleneck(wide, wide, **third))
        self.classes_up = nn.ConvTranspose2d(wide, c.num_classes, 2, 2)
        self.class_dependent = ("classes_up",)
        if c.auxiliary:
            self.auxiliary = nn.Conv2d(eighth, c.num_classes, 1)
            self.auxiliary_weights = {"encoder": c.auxiliary}
            self.class_dependent += ("auxiliary",)

    def maps(self, images: Tensor) -> Maps:
        """Normalised pictures (B, C, H, W) to logits (B, K, H, W), and the encoder's."""
        height, width = images.shape[2:]
        x = F.pad(images, (0, -width % STRIDE, 0, -height % STRIDE))
        x = note("initial block, Fig. 2a", self.initial(x))  # (B, 16, H/2, W/2)
        x, places1 = self.down1(x)  # (B, 64, H/4, W/4)
        x = note("stage 1, Table 1", self.stage1(x))
        x, places2 = self.down2(x)  # (B, 128, H/8, W/8)
        x = note("stage 2, Table 1", self.stage2(x))
        encoded = note("stage 3, Table 1", self.stage3(x))
        x = self.up4(encoded, places2)
        x = note("decoder, stage 4", self.stage4(x))  # (B, 64, H/4, W/4)
        x = self.up5(x, places1)
        x = note("decoder, stage 5", self.stage5(x))  # (B, 16, H/2, W/2)
        logits = self.classes_up(x)[:, :, :height, :width]
        if not self.auxiliary_weights:
            return logits
        return logits, {"encoder": partial(self.of_encoder, encoded, height, width)}

    def of_encoder(self, x: Tensor, height: int, width: int) -> Tensor:
        """The encoder's own logits (B, K, H, W)."""
        scores = F.interpolate(self.auxiliary(x), scale_factor=STRIDE, mode="bilinear")
        return scores[:, :, :height, :width]


@register(
    "enet",
    task="segmentation",
    paper='Paszke et al., "ENet", 2016, arXiv:1606.02147',
)
def enet(num_classes: int, **options: Any) -> ENet:
    """ENet; options are the fields of `Config`."""
    return ENet(make_config(Config, CONVENTIONS, {"num_classes": num_classes, **options}))
