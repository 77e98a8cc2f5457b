"""Hue, saturation and value of pictures: (3, ...) in [0, 1], hue in turns, grey having hue 0.

Written for speed over whole pictures: what is computed lands in memory already taken, for fresh
memory costs more than the arithmetic, and without `torch.where`, which is slow over noisy pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

STRIP = 64  # rows at a time: what is computed between stays in the cache
TINY = 1e-20  # instead of a divisor 0; what it divides is 0 too


def rgb_to_hsv(rgb: Tensor) -> Tensor:
    """Red, green, blue -> hue, saturation, value."""
    r, g, b = rgb.unbind(0)
    hsv = torch.empty_like(rgb)
    hue, saturation, value = hsv.unbind(0)
    high, low = torch.maximum(g, b), torch.minimum(g, b)
    torch.maximum(r, high, out=value)
    chroma = torch.minimum(r, low).neg_().add_(value)
    # In sixths of a turn: from red (0, or 6 if the way is by blue), green (2) or blue (4),
    # whichever is the largest; the ways that lead backwards count from the negative number.
    by_blue, not_red = (g < b).float(), (r < high).float()
    start = (12 * by_blue).sub_(2).mul_(not_red).sub_(by_blue.mul_(6))  # 0, -6, -2 or 4
    way = torch.minimum(r, high).sub_(low).div_(chroma.clamp(min=TINY))
    torch.div(way.add_(start).abs_(), 6, out=hue)
    torch.div(chroma, value.clamp(min=TINY), out=saturation)
    return hsv


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """The inverse of `rgb_to_hsv`."""
    hue, saturation, value = hsv.unbind(0)
    rgb = torch.empty_like(hsv)
    chroma = value * saturation
    for channel, opposite in zip(rgb, (3, 5, 1), strict=True):  # where the channel lacks most
        way = (hue * 6).sub_(opposite).abs_()
        lacks = torch.minimum(way, 6 - way).neg_().add_(2).clamp_(0, 1)  # on the colour circle
        torch.sub(value, lacks.mul_(chroma), out=channel)
    return rgb


def shift_hsv_(rgb: Tensor, hue: float, saturation: float) -> Tensor:
    """Add to the hue, in turns, and multiply the saturation, which stays at most 1; (3, H, W) is
    changed in place, strip by strip."""
    if hue == 0 and saturation == 1:
        return rgb
    for strip in rgb.split(STRIP, dim=1):
        planes = strip.contiguous()
        if hue == 0:  # each channel comes nearer to the largest, or goes away from it
            value, chroma = planes.amax(0), planes.amin(0)
            torch.sub(value, chroma, out=chroma)
            factor = torch.div(value, chroma.clamp_(min=TINY), out=chroma).clamp_(max=saturation)
            strip.copy_(torch.sub(value, planes).mul_(factor).neg_().add_(value))
        else:
            hsv = rgb_to_hsv(planes)
            hsv[0].add_(hue).sub_(hsv[0].floor())
            hsv[1].mul_(saturation).clamp_(max=1)
            strip.copy_(hsv_to_rgb(hsv))
    return rgb
