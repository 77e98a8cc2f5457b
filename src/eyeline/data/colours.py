"""Colours of pictures: brightness, contrast, hue and saturation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eyeline.errors import EyelineError

STRIP = 128  # rows at a time: what is computed between stays in the cache
TINY = 1e-20  # instead of a divisor 0; what it divides is 0 too


@dataclass(frozen=True)
class Distortion:
    """Colours changed, in the order of the fields. Without arguments nothing is.

    Args:
        brightness: is added to every channel; 1 is white.
        contrast: factor of every channel.
        hue, saturation: see `shift_hsv_`.
        contrast_last: as `contrast`, but after the colours.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    hue: float = 0.0
    saturation: float = 1.0
    contrast_last: float = 1.0

    def __call__(self, image: Tensor) -> Tensor:
        """(3, H, W), float in [0, 1], or uint8, which is rounded once, at the end. In the result's
        memory the three values of a pixel lie side by side."""
        if self == Distortion():
            return image
        if len(image) != 3:
            raise EyelineError(f"colours are of three channels, this picture has {len(image)}")
        out = image.new_empty(*image.shape[1:], 3)
        for strip, pixels in zip(image.split(STRIP, 1), out.split(STRIP), strict=True):
            if self.hue == 0 and self.saturation == 1:  # the channels need not be taken apart
                pixels.copy_(self._changed(strip.permute(1, 2, 0)))
            else:
                torch.stack(self._changed(strip.contiguous()).unbind(0), 2, out=pixels)
        return out.permute(2, 0, 1)

    def _changed(self, values: Tensor) -> Tensor:
        """Of values in any layout; where the colours change, (3, h, w), contiguous."""
        whole = 1 if values.is_floating_point() else 255
        x = values.to(torch.float32, copy=True)
        if self.brightness != 0:
            x.add_(self.brightness * whole).clamp_(0, whole)
        if self.contrast != 1:
            x.mul_(self.contrast).clamp_(0, whole)
        shift_hsv_(x, self.hue, self.saturation)
        if self.contrast_last != 1:
            x.mul_(self.contrast_last).clamp_(0, whole)
        if whole == 1:
            return x.to(values.dtype)
        return torch.from_numpy(x.round_().numpy().astype(np.uint8))  # torch itself is slow here


def shift_hsv_(rgb: Tensor, hue: float, saturation: float) -> Tensor:
    """Change (3, ...) in place as if through HSV: `hue`, in turns, is added, grey having hue 0, and
    the saturation multiplied, which stays at most 1. Values are 0 or more, in any scale.

    Letters   V value, the largest channel; C chroma, its distance to the least; h hue, here in
    sixths of a turn: 0 red, 2 green, 4 blue. As h goes round, what a channel lacks to V is 0 within
    1 of the channel's own colour, C within 1 of the opposite one, and on a straight line between.

    What is computed lands in memory already taken: fresh memory costs more than the arithmetic.
    """
    if hue == 0 and saturation == 1:
        return rgb
    r, g, b = rgb.unbind(0)
    high, low = torch.maximum(g, b), torch.minimum(g, b)
    value = torch.maximum(r, high)
    chroma = torch.minimum(r, low).neg_().add_(value)
    if hue == 0:  # each channel comes nearer to V, or goes away from it, until the least is 0
        factor = value.div(chroma.clamp_(min=TINY)).clamp_(max=saturation)
        return torch.sub(value, rgb, out=rgb).mul_(factor).neg_().add_(value)

    # How far h is from red: red's line, high - r, goes on below 0 where r is the largest, and
    # where it is the least above C, by low - r.
    away = high.add_(torch.maximum(r, low)).sub_(r, alpha=2)
    away.div_(torch.clamp(chroma, min=TINY, out=low)).add_(1)  # 0 to 3
    h = torch.copysign(away, torch.sub(g, b, out=low), out=away)  # by green, or back, by blue
    h.add_(6 * hue).sub_(torch.div(h, 6, out=low).floor_(), alpha=6)  # 0 to 6

    chroma = torch.minimum(chroma.mul_(saturation), value, out=chroma)
    # The lines, cut off: |h - 2| from 1 to 2 is what green lacks, from 0 to C; so too for blue.
    # About red the circle is cut open, so we count from the opposite end: 2 - |h - 3|.
    both, way = value + chroma, low
    torch.addcmul(both, chroma, torch.sub(h, 2, out=way).abs_().clamp_(1, 2), value=-1, out=g)
    torch.addcmul(both, chroma, torch.sub(h, 4, out=way).abs_().clamp_(1, 2), value=-1, out=b)
    value.sub_(chroma, alpha=2)
    torch.addcmul(value, chroma, torch.sub(h, 3, out=way).abs_().clamp_(1, 2), out=r)
    return rgb
