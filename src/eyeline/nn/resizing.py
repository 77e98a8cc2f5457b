"""Maps at another size."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def resized(x: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """A map (B, C, h, w) at a height and width, bilinear: with half-pixel centres, or with corner
    pixels on corner pixels."""
    size = (int(size[0]), int(size[1]))
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)
