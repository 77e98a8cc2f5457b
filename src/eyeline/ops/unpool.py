"""Max pooling that remembers where each maximum was, and its inverse."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def pool_with_places(x: Tensor, ceil_mode: bool = False) -> tuple[Tensor, Tensor]:
    """The maximum of each 2 x 2 cells of maps (B, C, H, W), (B, C, H/2, W/2), and at which of the
    H W cells it was, row by row; of equal ones the first.

    `ceil_mode`: of an odd side the last row or column is pooled alone, else it is left out.
    """
    pooled: tuple[Tensor, Tensor] = F.max_pool2d_with_indices(x, [2, 2], ceil_mode=ceil_mode)
    return pooled


def unpool(x: Tensor, places: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, C, h, w) with each value at its place, row by row, in a map (B, C, H, W) of `size`
    (H, W); 0 elsewhere. No place is named twice in a map."""
    height, width = size
    flat = x.new_zeros(x.shape[0], x.shape[1], height * width)
    whole: Tensor = flat.scatter(2, places.flatten(2), x.flatten(2))
    return whole.view(*x.shape[:2], height, width)
