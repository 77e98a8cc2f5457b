"""The mask branch of the R-CNN family: He et al., "Mask R-CNN", ICCV 2017, arXiv:1703.06870,
sec. 3.

Letters   R regions, K classes, G objects of a picture, S pooled side, m = 2 S side of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.losses.normaliser import batch_total
from eyeline.nn.fused import fused
from eyeline.nn.heads.roi import Sampled
from eyeline.nn.layers import ConvNorm
from eyeline.ops.masks import crop_masks, paste_masks
from eyeline.structures import Batch, Padded, Prediction, Target


class MaskHead(nn.Module):
    """3x3 convolutions, one deconvolution that doubles the size, a mask a class (Fig. 4, right).

    Each of the first may have a `norm` behind it. The paper does not say how it begins. Here
    after He et al., 2015, and the last layer near zero, so that every pixel's probability begins
    at one half.
    """

    def __init__(
        self, channels: int, num_classes: int, width: int = 256, depth: int = 4, norm: str = "none"
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            ConvNorm(channels if i == 0 else width, width, 3, norm) for i in range(depth)
        )
        self.up = nn.ConvTranspose2d(width if depth else channels, width, 2, stride=2)
        self.classes = nn.Conv2d(width, num_classes, 1)
        for layer in (*self.convs, self.up):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.classes.weight, std=0.001)
        nn.init.zeros_(self.classes.bias)  # type: ignore[arg-type]

    def forward(self, regions: Tensor) -> Tensor:
        """Regions (R, C, S, S) to logits (R, K, m, m), float32."""
        for conv in self.convs:
            regions = fused(regions, conv, relu=True)
        regions = F.relu(self.up(regions), inplace=True)
        return self.classes(regions).float()  # type: ignore[no-any-return]


def of_class(logits: Tensor, labels: Tensor) -> Tensor:
    """Each region's mask of its own class: (R, K, m, m) and (R,) -> (R, m, m)."""
    index = labels[:, None, None, None].expand(-1, 1, *logits.shape[2:])
    return logits.gather(1, index)[:, 0]


def pasted(
    predictions: list[Prediction],
    padded: Padded,
    batch: Batch,
    threshold: float | None,
    rounded: bool = False,
) -> list[Prediction]:
    """Predictions with the masks of `padded` (B, D, m, m), in the pixels of the caller's pictures;
    see `paste_masks`."""
    assert padded.masks is not None
    for i, prediction in enumerate(predictions):
        height, width = batch.original_sizes[i].tolist()
        masks = padded.masks[i][padded.valid[i]]
        boxes = prediction["boxes"]
        prediction["masks"] = paste_masks(masks, boxes, (height, width), threshold, rounded)
    return predictions


@torch.no_grad()
def mask_targets(
    targets: Sequence[Target], positive: Sampled, size: int, aligned: bool, binary: bool
) -> Tensor:
    """What the masks of positive regions should be, (R, m, m): the part of their objects' `masks`
    (G, H, W) that lies in them. The regions of a picture stand together, in the pictures' order.

    `binary`: 1 where half of a cell is covered, else 0; otherwise the share that is covered.
    """
    own = zip(targets, positive.of_each(len(targets)), strict=True)
    shares = torch.cat(
        [crop_masks(target["masks"], of.regions, of.index, size, aligned) for target, of in own]
    )
    return (shares >= 0.5).float() if binary else shares


def mask_loss(logits: Tensor, labels: Tensor, wanted: Tensor, pictures: int) -> Tensor:
    """Mean binary cross-entropy of the true class's masks; the others see nothing (sec. 3).

    Logits (R, K, m, m), labels (R,), wanted (R, m, m), of so many pictures; without a region 0.
    """
    own = of_class(logits, labels)
    total = F.binary_cross_entropy_with_logits(own, wanted, reduction="sum")
    return total / batch_total(total.new_full((), own.numel()), pictures)
