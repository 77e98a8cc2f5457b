"""U-Net: Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", MICCAI 2015, arXiv:1505.04597.

A path of convolutions and poolings down, and one of as many steps up: at each step the map is
enlarged by a learned 2x2 convolution, the map of that size from the way down is laid beside it,
and two convolutions join them. What lies where comes from the one, what it is from the other.

Letters   B pictures, K classes, H and W of the batch, C channels of the first convolution, D
          poolings, h and w of a map.
Departs   Where the paper and the authors' file (phseg_v5) differ, this follows the paper: its last
          enlarging convolution has 64 channels, the file's 128. From the file alone come the ratio
          of the drop-out, that the input of the last pooling has it too, and the ReLU behind each
          enlarging convolution.
          The paper's convolutions have no padding, so that a picture is enlarged by its mirror
          image at all sides until the output covers it (Fig. 2); it fits the poolings by that too.
          `padding="same"` pads each convolution with zeros and mirrors only what the poolings need,
          at the right and below, for half of the work.
          The weights of eq. 2, large between cells that touch, take a map of single cells; maps of
          classes do not have them, so that the loss here is the cross entropy, with weights of
          classes (`class_weights`) if wanted.
          `backbone=` is another way down: one of the package's, whose maps at strides 2 to 32 are
          joined; the map at stride 1 has no partner. Behind VGG's last pooling, which nothing has
          looked at, two more convolutions stand. `convention="smp"` is the decoder with which
          segmentation-models-pytorch uses it: nothing learned enlarges, cells are repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.nn.backbones import VGG, build_encoder
from eyeline.nn.decoding import DoubleConv, fitted, fitting, he
from eyeline.nn.detector import make_config
from eyeline.nn.fused import beside, fused, max_pool
from eyeline.nn.segmenter import Segmenter, SegmenterConfig
from eyeline.note import note
from eyeline.registry import register


@dataclass(frozen=True, kw_only=True)
class Config(SegmenterConfig):
    """Numbers of the paper, each with its section."""

    # The paper's network
    width: int = 64  # sec. 2: C; doubled at each pooling
    depth: int = 4  # Fig. 1: D
    padding: str = "valid"  # sec. 2; or "same"
    norm: str = "none"  # sec. 2; of a backbone "batch" by default
    dropout: float = 0.5  # sec. 3.1 says that there is some, the authors' file how much
    # Another way down
    backbone: str | None = None
    decoder_widths: tuple[int, ...] = (256, 128, 64, 32, 16)  # of the way up, coarse to fine
    decoder_norm: str = "batch"
    decoder_upsampling: str = "learned"  # sec. 2; or "nearest"


CONVENTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "smp": dict(backbone="resnet34", norm="batch", decoder_upsampling="nearest"),
}
BORDER = 2  # cells that two convolutions without padding take from each side


class UNet(Segmenter):
    """Options are the fields of `Config`."""

    class_dependent = ("head",)

    def __init__(self, config: Config) -> None:
        self.set_up(config)
        c = config
        self.backbone: Any = None
        self.centre: nn.Module | None = None
        if c.backbone is None:
            widths = [c.width << level for level in range(c.depth + 1)]  # sec. 2: 64 .. 1024
            inputs = [c.in_channels, *widths]
            padding = 1 if c.padding == "same" else 0
            self.down = nn.ModuleList(
                DoubleConv(before, after, c.norm, c.norm_epsilon, padding)
                for before, after in zip(inputs[:-1], widths, strict=True)
            )
            skips, outputs, norm = widths[-2::-1], widths[-2::-1], c.norm
        else:
            self.backbone = build_encoder(
                c.backbone, norm=c.norm, norm_epsilon=c.norm_epsilon, in_channels=c.in_channels
            )
            widths = list(self.backbone.stage_channels)
            padding, norm = 1, c.decoder_norm
            skips, outputs = [*widths[-2::-1], 0], list(c.decoder_widths)
            if len(outputs) != len(skips):
                raise EyelineError(f"decoder_widths must be {len(skips)} numbers, not {outputs}")
            if c.backbone == VGG:
                self.centre = DoubleConv(widths[-1], widths[-1], norm, c.norm_epsilon)
        inputs = [widths[-1], *outputs]
        learned = c.decoder_upsampling == "learned"
        # Sec. 2: half the channels.
        raised = [before // 2 if learned else before for before in inputs[:-1]]
        self.enlarging = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 2, stride=2)
            for before, after in zip(inputs[:-1], raised, strict=True)
            if learned
        )
        self.up = nn.ModuleList(
            DoubleConv(before + skip, after, norm, c.norm_epsilon, padding)
            for before, skip, after in zip(raised, skips, outputs, strict=True)
        )
        kernel = 1 if c.backbone is None else 3  # sec. 2: 1x1
        self.head = nn.Conv2d(outputs[-1], c.num_classes, kernel, padding=kernel // 2)
        for part in (self.enlarging, self.up, self.centre, getattr(self, "down", None)):
            if part is not None:
                he(part)  # sec. 3
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def maps(self, images: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> logits (B, K, H, W)."""
        height, width = images.shape[2:]
        if self.backbone is None:
            x = self.upwards(self.contract(self.mirrored(images)))
            return self.head(x)[..., :height, :width]  # type: ignore[no-any-return]
        maps = self.backbone.stages(images)
        if self.centre is not None:
            maps[-1] = self.centre(maps[-1])
        return self.head(self.upwards(maps, (height, width)))  # type: ignore[no-any-return]

    def mirrored(self, images: Tensor) -> Tensor:
        """Pictures with mirror images at their sides, of a size for which every pooling is even
        (sec. 2), so large that the output begins where the picture does and covers it (Fig. 2)."""
        step = 1 << self.config.depth  # pixels of a cell of the coarsest map
        # What the convolutions take of a side's cells: those of the coarsest map, and of all others
        # in pixels, 4 of 1, of 2 ..., once on the way down and once on the way up.
        lost = 0 if self.config.padding == "same" else 2 * BORDER
        margin = lost * (step - 1)
        before = lost * step // 2 + margin
        for axis in (2, 3):
            side = images.shape[axis]
            cells = -(-(side + margin) // step)
            whole = (cells + lost) * step + margin
            images = mirror(images, axis, before, whole - side - before)
        return note("with its mirror image, Fig. 2", images)

    def contract(self, x: Tensor) -> list[Tensor]:
        """D + 1 maps, at strides 1, 2 .. 2^D, of C, 2 C .. 2^D C channels."""
        maps: list[Tensor] = []
        for level, convolve in enumerate(self.down):
            x = convolve(max_pool(x, 2) if level else x)  # (B, 2^level C, h, w)
            if level >= self.config.depth - 1 and self.config.dropout:
                x = F.dropout(x, self.config.dropout, self.training)  # sec. 3.1
            maps.append(note(f"way down, stride {1 << level}, sec. 2", x))
        return maps

    def upwards(self, maps: list[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        """The finest map of the way up; at `size`, where it is finer than all of `maps`."""
        x, skips = maps[-1], maps[-2::-1]
        for i, join in enumerate(self.up):
            skip = skips[i] if i < len(skips) else None
            at = skip.shape[2:] if skip is not None else size
            assert at is not None
            if self.enlarging:
                x = fused(x, self.enlarging[i], relu=True)  # (B, C' / 2, 2 h, 2 w)
                if self.backbone is not None:
                    x = fitted(x, at)
                to = list(x.shape[2:])
            else:
                to = list(at) if self.backbone is not None else [2 * n for n in x.shape[2:]]
            if skip is not None and self.backbone is None:
                skip = cropped(skip, to)
            x = join(beside(x, [] if skip is None else [skip], to))
            note(f"way up {i + 1}, sec. 2", x)
        return x


def cropped(x: Tensor, size: Any) -> Tensor:
    """The middle of a map (sec. 2: cropping is necessary, for borders are lost)."""
    top, left = (x.shape[2] - size[0]) // 2, (x.shape[3] - size[1]) // 2
    return x[..., top : top + size[0], left : left + size[1]]


def mirror(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """A picture with so many mirrored rows (axis 2) or columns (axis 3) before and after it; the
    outermost is not repeated, and a small picture is mirrored again and again."""
    if not before and not after:
        return x
    length = x.shape[axis]
    period = max(1, 2 * (length - 1))
    places = torch.arange(-before, length + after, device=x.device).remainder(period)
    return x.index_select(axis, torch.minimum(places, period - places).clamp(max=length - 1))


PAPER = (
    'Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image '
    'Segmentation", MICCAI 2015, arXiv:1505.04597'
)


@register("unet", task="segmentation", paper=PAPER)
def unet(num_classes: int, **options: Any) -> UNet:
    """U-Net; options are the fields of `Config`."""
    options = {"num_classes": num_classes, **options}
    alone = ("width", "depth", "padding", "dropout")
    options = fitting(options, Config, CONVENTIONS, alone)
    return UNet(make_config(Config, CONVENTIONS, options))
