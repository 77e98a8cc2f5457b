"""Hue, saturation and value of pictures: (3, ...) in [0, 1], hue in turns, grey having hue 0.

Written without a choice between tensors (`torch.where`), which is slow over noisy pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-20  # instead of a divisor 0; what it divides is 0 too


def rgb_to_hsv(rgb: Tensor) -> Tensor:
    """Red, green, blue -> hue, saturation, value."""
    r, g, b = rgb.unbind(0)
    high, low = torch.maximum(g, b), torch.minimum(g, b)
    value = torch.maximum(r, high)
    chroma = value - torch.minimum(r, low)
    # In sixths of a turn: from red (0, or 6 if the way is by blue), green (2) or blue (4),
    # whichever is the largest; green and red by blue are left backwards, so they count negative.
    by_blue, not_red = (g < b).float(), (r < high).float()
    start = not_red * (12 * by_blue - 2) - 6 * by_blue  # 0, -6, -2 or 4
    hue = (start + (torch.minimum(r, high) - low) / chroma.clamp(min=TINY)).abs()
    return torch.stack([hue / 6, chroma / value.clamp(min=TINY), value])


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """The inverse of `rgb_to_hsv`."""
    hue, saturation, value = hsv.unbind(0)
    rgb = torch.empty_like(hsv)
    chroma = value * saturation
    for channel, opposite in zip(rgb, (3, 5, 1), strict=True):  # where the channel lacks most
        way = (hue * 6 - opposite).abs_()
        distance = torch.minimum(way, 6 - way)  # around the circle of colours
        torch.sub(value, chroma * (2 - distance).clamp_(0, 1), out=channel)
    return rgb


def shift_hsv(rgb: Tensor, hue: float, saturation: float) -> Tensor:
    """Add to the hue, in turns, and multiply the saturation, which stays at most 1."""
    if hue == 0 and saturation == 1:
        return rgb
    rgb = rgb.contiguous()
    if hue == 0:  # each channel comes nearer to the largest, or goes away from it
        value, least = rgb.amax(0), rgb.amin(0)
        factor = (value / (value - least).clamp_(min=TINY)).clamp_(max=saturation)
        return value - (value - rgb) * factor
    h, s, v = rgb_to_hsv(rgb).unbind(0)
    h += hue
    return hsv_to_rgb(torch.stack([h - h.floor(), (s * saturation).clamp_(max=1), v]))
