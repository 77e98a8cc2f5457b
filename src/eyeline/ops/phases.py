"""A dilated convolution as plain ones: cells that it sees together make a picture of their own.

Of dilation d it sees every d-th row and column, so that the d x d parts of a picture which begin at
its first d rows and columns have nothing to do with each other, and in each it is plain.

Letters   B pictures, C channels, d the dilation, h and w of a part: H / d and W / d, rounded up.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def apart(x: Tensor, dilation: int) -> Tensor:
    """(B, C, H, W) to (B d d, C, h, w), channels last; rows and columns that are missing are 0."""
    batch, channels, height, width = x.shape
    down, across = -(-height // dilation), -(-width // dilation)
    cells = x.permute(0, 2, 3, 1)
    more = down * dilation - height, across * dilation - width
    if any(more):
        cells = F.pad(cells, (0, 0, 0, more[1], 0, more[0]))
    cells = cells.reshape(batch, down, dilation, across, dilation, channels)
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(0, 2).permute(0, 3, 1, 2)


def together(parts: Tensor, dilation: int, size: tuple[int, int]) -> Tensor:
    """(B d d, C, h, w) back to (B, C, H, W), channels last."""
    cells = parts.permute(0, 2, 3, 1).unflatten(0, (-1, dilation, dilation))
    whole: Tensor = cells.permute(0, 3, 1, 4, 2, 5).flatten(3, 4).flatten(1, 2)
    return whole[:, : size[0], : size[1]].contiguous().permute(0, 3, 1, 2)
