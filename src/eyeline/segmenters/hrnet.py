"""HRNet: Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition",
TPAMI 2020, arXiv:1908.07919; for segmentation (HRNetV2) first Sun et al., 2019, arXiv:1904.04514.

Four maps, a quarter to a thirty-second as large as the picture, are computed side by side and
again and again added to each other; none is made small to be made large again. The classes are
told from all four.

Letters   B pictures, K classes, H and W of the batch, C the width of the largest map (18, 32, 48).
Departs   momentum of the norms 0.1, as in the authors' later code (`norm_momentum`; their first
          has 0.01); all layers but the last start as He et al., ICCV 2015, where the authors' start
          at N(0, 0.001) and get ImageNet's weights (pretrained=).
          The papers do not say how corners lie in bilinear upsampling: pixels have areas here, as
          in the authors' first code and for Cityscapes, LIP and PASCAL-Context in their later one,
          whose default, `align_corners=True`, is that of ADE20K and COCO-Stuff.
          Names are those of the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.nn.backbones.resnet import BasicBlock, Bottleneck
from eyeline.nn.detector import make_config
from eyeline.nn.fused import fused
from eyeline.nn.layers import make_norm
from eyeline.nn.resizing import resized
from eyeline.nn.segmenter import Segmenter, SegmenterConfig
from eyeline.note import note
from eyeline.registry import register


@dataclass(frozen=True, kw_only=True)
class Config(SegmenterConfig):
    """Numbers of the paper, with its sections."""

    width: int = 48  # sec. 3.4, C; 18, 32, 48
    modules: tuple[int, int, int] = (1, 4, 3)  # sec. 3.4: exchanges in stages 2 to 4
    blocks: int = 4  # sec. 3.4: of each map between two exchanges
    first_blocks: int = 4  # sec. 3.4: bottlenecks of stage 1
    first_width: int = 64
    norm_momentum: float = 0.1
    align_corners: bool = False

    @property
    def backbone(self) -> str:
        """Whose classification weights fit."""
        return f"hrnet_w{self.width}"


CONVENTIONS: dict[str, dict[str, Any]] = {"paper": {}}
Maps = list[Tensor]  # from the largest on, each half as large and twice as deep as the one before


class Step(nn.Sequential):
    """A 3x3 convolution (1x1: `kernel`), its norm and, unless it is off, a ReLU."""

    fusable: ClassVar = [("0", "1")]

    def __init__(
        self, inputs: int, outputs: int, norm: str, eps: float, kernel: int = 3, stride: int = 1,
        relu: bool = True,
    ) -> None:  # fmt: skip
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        super().__init__(conv, make_norm(norm, outputs, eps))
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        return fused(x, self[0], self[1], relu=self.relu)


class Exchange(nn.Module):
    """Blocks of each map, then each map plus all others at its size (sec. 3.2, Fig. 3):
    n maps -> n maps of the same shapes."""

    def __init__(
        self, widths: list[int], blocks: int, norm: str, eps: float, align_corners: bool
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(w, w, 1, norm, eps, 1, 64, False) for _ in range(blocks)))
            for w in widths
        )

        def between(source: int, target: int) -> nn.Module | None:
            """From one map to the size and depth of another; to a larger one it is then resized."""
            inputs, outputs = widths[source], widths[target]
            if source == target:
                return None
            if source > target:
                return Step(inputs, outputs, norm, eps, kernel=1, relu=False)
            halvings = target - source  # the last one has the depth, and no ReLU
            return nn.Sequential(
                *(Step(inputs, inputs, norm, eps, stride=2) for _ in range(halvings - 1)),
                Step(inputs, outputs, norm, eps, stride=2, relu=False),
            )

        count = range(len(widths))
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(between(source, target) for source in count)  # type: ignore[misc]
            for target in count
        )

    def forward(self, maps: Maps) -> Maps:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused_maps = []
        for target, layers in enumerate(self.fuse_layers):
            parts = []
            for source, (layer, x) in enumerate(zip(layers, maps, strict=True)):  # type: ignore[call-overload]
                part = x if source == target else layer(x)
                if source > target:
                    part = resized(part, maps[target].shape[2:], self.align_corners)
                parts.append(part)
            summed = parts[0]
            for part in parts[1:]:
                summed = summed + part
            fused_maps.append(F.relu(summed))
        return fused_maps


class HRNet(nn.Module):
    """Pictures (B, C, H, W) to four maps at strides 4, 8, 16, 32, of widths C, 2 C, 4 C, 8 C."""

    fusable: ClassVar = [("conv1", "bn1"), ("conv2", "bn2")]

    def __init__(self, c: Config) -> None:
        super().__init__()
        how = (c.norm, c.norm_epsilon)
        self.conv1 = nn.Conv2d(c.in_channels, 64, 3, 2, 1, bias=False)
        self.bn1 = make_norm(c.norm, 64, c.norm_epsilon)
        self.conv2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False)
        self.bn2 = make_norm(c.norm, 64, c.norm_epsilon)
        deep = 4 * c.first_width
        self.layer1 = nn.Sequential(
            *(
                Bottleneck(deep if i else 64, c.first_width, 1, *how, 1, 64, False)
                for i in range(c.first_blocks)
            )
        )
        self.channels = [c.width << i for i in range(4)]
        first: list[int] = [deep]
        for stage, modules in enumerate(c.modules, start=2):
            widths = self.channels[:stage]
            setattr(self, f"transition{stage - 1}", transition(first, widths, *how))
            exchanges = (Exchange(widths, c.blocks, *how, c.align_corners) for _ in range(modules))
            setattr(self, f"stage{stage}", nn.Sequential(*exchanges))
            first = widths

    def forward(self, x: Tensor) -> Maps:
        x = fused(x, self.conv1, self.bn1, relu=True)
        x = fused(x, self.conv2, self.bn2, relu=True)  # (B, 64, H/4, W/4)
        maps = [note("stage 1, sec. 3.4", self.layer1(x))]  # (B, 256, H/4, W/4)
        for stage in (2, 3, 4):
            layers = getattr(self, f"transition{stage - 1}")
            # A new map comes of the smallest one, which is the last.
            maps = [
                (maps[i] if i < len(maps) else maps[-1]) if layer is None
                else layer(maps[min(i, len(maps) - 1)])
                for i, layer in enumerate(layers)
            ]  # fmt: skip
            maps = note(f"stage {stage}, sec. 3.4", getattr(self, f"stage{stage}")(maps))
        return maps


def transition(before: list[int], after: list[int], norm: str, eps: float) -> nn.ModuleList:
    """To maps of other widths, one of them new, half as large as the smallest (Fig. 2)."""
    layers: list[nn.Module | None] = []
    for i, width in enumerate(after):
        if i >= len(before):
            layers.append(nn.Sequential(Step(before[-1], width, norm, eps, stride=2)))
        else:
            layers.append(None if before[i] == width else Step(before[i], width, norm, eps))
    return nn.ModuleList(layers)  # type: ignore[arg-type]


class HRNetV2(Segmenter):
    """HRNet and the head of its second version. See `forward` for what goes in and out."""

    class_dependent = ("last_layer.3",)

    def __init__(self, config: Config) -> None:
        self.set_up(config)
        c = config
        self.align_corners = c.align_corners
        self.backbone = HRNet(c)
        wide = sum(self.backbone.channels)
        # Sec. 3.3, Fig. 4b: all maps are mixed, then scored.
        self.last_layer = nn.Sequential(
            nn.Conv2d(wide, wide, 1),
            make_norm(c.norm, wide, c.norm_epsilon),
            nn.ReLU(),
            nn.Conv2d(wide, c.num_classes, 1),
        )
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = c.norm_momentum
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.last_layer[3].weight, std=0.001)  # type: ignore[arg-type]

    def maps(self, images: Tensor) -> Tensor:
        """Normalised pictures (B, C, H, W) to logits (B, K, H/4, W/4)."""
        maps = note("features of four resolutions, sec. 3.1", self.backbone(images))
        rest = (resized(x, maps[0].shape[2:], self.align_corners) for x in maps[1:])
        x = torch.cat([maps[0], *rest], 1)  # (B, 15 C, H/4, W/4)
        mix, norm, _, score = self.last_layer
        return fused(note("mixed, Fig. 4b", fused(x, mix, norm, relu=True)), score)


@register(
    "hrnet",
    task="segmentation",
    paper='Wang et al., "Deep High-Resolution Representation Learning", TPAMI 2020, '
    "arXiv:1908.07919",
)
def hrnet(num_classes: int, **options: Any) -> HRNetV2:
    """HRNetV2; options are the fields of `Config`, of which `width` is 18, 32 or 48."""
    return HRNetV2(make_config(Config, CONVENTIONS, {"num_classes": num_classes, **options}))
