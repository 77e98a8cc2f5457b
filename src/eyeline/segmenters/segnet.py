"""SegNet: Badrinarayanan, Kendall and Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder
Architecture for Image Segmentation", TPAMI 2017, arXiv:1511.00561.

The encoder is VGG16's convolutions, the decoder the same mirrored. Where a pooling took a maximum
the decoder puts its value back; the rest of the larger map is 0, and convolutions fill it.

Letters   B pictures, K classes, H and W of the batch, h and w of a map.
Departs   pictures are normalised by ImageNet's mean and deviation, as the encoder's pretrained
          weights want them (pretrained= takes VGG16's with batch norm), not by their local
          contrast (sec. 4). Convolutions before a norm have no bias, which would change nothing.
          Poolings round up, as the authors' framework does. The last convolution of the decoder
          gives the classes, as in the authors' nets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from eyeline.nn.backbones.vgg import DEPTHS, VGG16, WIDTHS
from eyeline.nn.detector import make_config
from eyeline.nn.fused import fused
from eyeline.nn.layers import ConvNorm
from eyeline.nn.segmenter import Segmenter, SegmenterConfig
from eyeline.note import note
from eyeline.ops.unpool import pool_with_places, unpool
from eyeline.registry import register


@dataclass(frozen=True, kw_only=True)
class Config(SegmenterConfig):
    """Numbers of the paper; for the weights of the classes (sec. 3.2) see `class_weights`."""

    width: int = 64  # channels of the first stage, of which all other widths are multiples


CONVENTIONS: dict[str, dict[str, Any]] = {"paper": {}}
STAGES = (1, 2, 3, 4, 5)


class Decoder(nn.Module):
    """VGG16's convolutions from the last to the first (Fig. 2): each stage but the first ends with
    the channels of the stage before it, the first with the classes."""

    def __init__(self, classes: int, width: int, norm: str, norm_epsilon: float) -> None:
        super().__init__()
        for stage in reversed(STAGES):
            inputs = WIDTHS[stage - 1] * width
            for i in range(DEPTHS[stage - 1], 0, -1):
                outputs = inputs if i > 1 else WIDTHS[max(stage - 2, 0)] * width
                last = (stage, i) == (1, 1)
                layer = ConvNorm(
                    inputs, classes if last else outputs, 3, "none" if last else norm,
                    norm_epsilon=norm_epsilon,
                )  # fmt: skip
                setattr(self, f"conv{stage}_{i}", layer)

    def stage(self, x: Tensor, stage: int) -> Tensor:
        """The convolutions of one stage, 5 to 1, each with its ReLU but the very last."""
        for i in range(DEPTHS[stage - 1], 0, -1):
            x = fused(x, getattr(self, f"conv{stage}_{i}"), relu=(stage, i) != (1, 1))
        return x


class SegNet(Segmenter):
    """Encoder and decoder of VGG16. See `forward` for what goes in and out."""

    class_dependent = ("decoder.conv1_1",)

    def __init__(self, config: Config) -> None:
        self.set_up(config)
        c = config
        self.backbone = VGG16(c.norm, c.in_channels, c.width, c.norm_epsilon)
        self.decoder = Decoder(c.num_classes, c.width, c.norm, c.norm_epsilon)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # sec. 3.2: He et al., ICCV 2015
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def maps(self, images: Tensor) -> Tensor:
        """Normalised pictures (B, C, H, W) to logits (B, K, H, W)."""
        x, remembered = images, []
        for stage in STAGES:
            x = self.backbone.stage(x, stage)
            size = x.shape[2:]
            x, places = pool_with_places(x, ceil_mode=True)  # each side half, rounded up
            remembered.append((size, places))
        note("features of the encoder, stride 32", x)
        for stage in reversed(STAGES):
            size, places = remembered[stage - 1]
            x = self.decoder.stage(unpool(x, places, size), stage)
            note(f"decoder, stage {stage}, stride {1 << (stage - 1)}", x)
        return x


@register(
    "segnet",
    task="segmentation",
    paper='Badrinarayanan et al., "SegNet", TPAMI 2017, arXiv:1511.00561',
)
def segnet(num_classes: int, **options: Any) -> SegNet:
    """SegNet; options are the fields of `Config`."""
    return SegNet(make_config(Config, CONVENTIONS, {"num_classes": num_classes, **options}))
