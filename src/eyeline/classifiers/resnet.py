"""ResNet: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385.

With its descendants that change only the blocks: ResNeXt (Xie et al., CVPR 2017, arXiv:1611.05431)
and Wide ResNet (Zagoruyko and Komodakis, BMVC 2016, arXiv:1605.07146).

Letters   B pictures, H and W their size, K classes, D channels of the last stage (512 or 2048).
Departs   the stride of a bottleneck lies in its 3x3 convolution (see nn/backbones/resnet.py); the
          last layer begins at N(0, 0.01), as Goyal et al. 2017 (arXiv:1706.02677, sec. 5.1) have
          it. torchvision's and timm's weights load as they are: the names are theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.nn.backbones import resnet as backbone
from eyeline.nn.detector import make_config
from eyeline.note import note
from eyeline.registry import register


@dataclass(frozen=True)
class Config:
    num_classes: int
    in_channels: int = 3
    norm: str = "batch"  # sec. 3.4: after each convolution, before the activation
    norm_epsilon: float = 1e-5
    image_mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # of ImageNet, for pictures in [0, 1]
    image_std: tuple[float, ...] = (0.229, 0.224, 0.225)


class ResNet(backbone.ResNet):
    """The backbone, global average pooling, one linear layer."""

    # Parameters with these prefixes are of another shape where the classes are others.
    class_dependent = ("fc",)
    mean: Tensor
    std: Tensor

    def __init__(self, config: Config, **shape: Any) -> None:
        super().__init__(
            **shape,
            norm=config.norm,
            norm_epsilon=config.norm_epsilon,
            in_channels=config.in_channels,
        )
        self.config = config
        self.fc = nn.Linear(self.channels[-1], config.num_classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)
        mean, std = torch.tensor([config.image_mean, config.image_std])[..., None, None]
        self.register_buffer("mean", mean, persistent=False)  # (in_channels, 1, 1)
        self.register_buffer("std", std, persistent=False)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Any:
        """Logits (B, K); with labels (B,) int64, {"loss": mean cross-entropy}.

        `images` (B, in_channels, H, W), uint8 or float in [0, 1], all of one size.
        """
        logits = self.fc(self.features(images))  # (B, K)
        return logits if labels is None else {"loss": F.cross_entropy(logits, labels)}

    def features(self, images: Tensor) -> Tensor:
        """What the classifier sees: the last stage, averaged over the picture, (B, D)."""
        x = images / 255 if images.dtype == torch.uint8 else images
        stages = note("stages C2 to C5, Table 1", super().forward((x - self.mean) / self.std))
        return note("features, sec. 3.3", stages[-1].mean((2, 3)))  # (B, D, H/32, W/32) -> (B, D)


PAPERS = {
    "resnet": 'He et al., "Deep Residual Learning", CVPR 2016, arXiv:1512.03385',
    "resnext": 'Xie et al., "Aggregated Residual Transformations", CVPR 2017, arXiv:1611.05431',
    "wide": 'Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, arXiv:1605.07146',
}


def builder(shape: dict[str, Any]) -> Callable[..., ResNet]:
    def build(num_classes: int, **options: Any) -> ResNet:
        config = make_config(Config, {"paper": {}}, {"num_classes": num_classes, **options})
        return ResNet(config, **shape)

    return build


for _name, _shape in backbone.VARIANTS.items():
    _family = next(family for family in PAPERS if _name.startswith(family))
    register(_name, "classification", PAPERS[_family])(builder(_shape))
