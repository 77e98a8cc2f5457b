"""Sizes and resizing of pictures."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def fitted_size(size: tuple[int, int], min_size: int, max_size: int) -> tuple[int, int]:
    """Height and width, the aspect kept, with the shorter side `min_size` or, where the longer
    would exceed it, the longer side `max_size`; rounded down (Fast R-CNN, sec. 4.1's scales)."""
    height, width = size
    scale = min(min_size / min(size), max_size / max(size))
    return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, half-pixel centres, not smoothed before: (C, H, W) float -> (C, *size)."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
