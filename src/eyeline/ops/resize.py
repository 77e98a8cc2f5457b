"""Sizes and resizing of pictures."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def fitted_size(size: tuple[int, int], min_size: int, max_size: int) -> tuple[int, int]:
    """Height and width, the aspect kept, with the shorter side `min_size` or, where the longer
    would exceed it, the longer side `max_size`; rounded down (Fast R-CNN, sec. 4.1's scales)."""
    height, width = size
    scale = min(min_size / min(size), max_size / max(size))
    return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))


def resize(image: Tensor, size: tuple[int, int], antialias: bool = False) -> Tensor:
    """Bilinear with half-pixel centres: (C, H, W) -> (C, *size).

    The channels of a pixel lie side by side in the result's memory; a picture that comes so is
    resized fastest.

    Args:
        image: float, or uint8, which is rounded.
        antialias: smooth before, where the picture shrinks.
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    pixels = image.permute(1, 2, 0).contiguous()  # (H, W, C)
    # As a batch of one, whose strides tell torch that its channels come last: twice as fast.
    batch = pixels[None].permute(0, 3, 1, 2)
    return F.interpolate(
        batch, size=size, mode="bilinear", align_corners=False, antialias=antialias
    )[0]


def resize_map(classes: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., H, W) of any dtype -> (..., *size): the value under the centre of each new pixel."""
    for axis, new in zip((-2, -1), size, strict=True):
        old = classes.shape[axis]
        if old != new:
            # In whole numbers, so that no rounding decides: the floor of (i + 1/2) old / new.
            at = (2 * torch.arange(new, device=classes.device) + 1) * old // (2 * new)
            classes = classes.index_select(axis, at)
    return classes
