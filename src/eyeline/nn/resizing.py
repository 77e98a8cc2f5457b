"""Maps at another size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eyeline.ops.select import may_look


def resized(x: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """A map (B, C, h, w) at a height and width, bilinear: with half-pixel centres, or with corner
    pixels on corner pixels."""
    size = (int(size[0]), int(size[1]))
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)


def beside(x: Tensor, others: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """A coarse map (B, C, h, w) at a height and width, each cell from the nearest, and behind its
    channels those of maps (B, C', H, W) of that size."""
    height, width = int(size[0]), int(size[1])
    exact = (height, width) == (2 * x.shape[2], 2 * x.shape[3])
    if exact and not torch.is_grad_enabled() and may_look(x):  # in one pass
        whole = x.new_empty(len(x), height, width, sum(p.shape[1] for p in (x, *others)))
        squares = whole.view(len(x), height // 2, 2, width // 2, 2, -1)
        squares[..., : x.shape[1]] = x.permute(0, 2, 3, 1)[:, :, None, :, None]
        out = whole.permute(0, 3, 1, 2)
        at = x.shape[1]
        for part in others:
            out[:, at : at + part.shape[1]] = part
            at += part.shape[1]
        return out
    if x.shape[2:] != (height, width):
        x = F.interpolate(x, (height, width), mode="nearest")
    return torch.cat([x, *others], 1) if others else x
