"""Maps of values laid over a picture, in colours whose lightness grows evenly.

The colours are computed in OKLab (Ottosson, "A perceptual color space for image processing", 2020,
bottosson.github.io/posts/oklab), in which equal steps look equal: from a dark violet through red
to a light yellow, so that they can be told apart without seeing hues, and in grey.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from eyeline.nn.detector import as_float
from eyeline.structures import Batch

# Columns: lightness, a (green to red), b (blue to yellow) -> cube roots of the cones' answers.
TO_CONES = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
)
TO_RGB = (  # the cones' answers -> linear red, green, blue
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)
LIGHTNESS = (0.20, 0.93)
HUE = (-1.35, 1.85)  # radians: violet .. red (0.4) .. yellow
CHROMA = (0.10, 0.19, 0.15)  # at both ends and in the middle: what sRGB can show


def heat(values: Tensor) -> Tensor:
    """Values (...) in 0 .. 1 as colours (3, ...) in 0 .. 1, sRGB."""
    t = values.float().clamp(0, 1)
    lightness = LIGHTNESS[0] + (LIGHTNESS[1] - LIGHTNESS[0]) * t
    hue = HUE[0] + (HUE[1] - HUE[0]) * t
    first, middle, last = CHROMA
    chroma = first + (last - first) * t + 4 * (middle - (first + last) / 2) * t * (1 - t)
    lab = torch.stack([lightness, chroma * hue.cos(), chroma * hue.sin()])
    cones = torch.tensordot(lab.new_tensor(TO_CONES), lab, 1) ** 3
    linear = torch.tensordot(lab.new_tensor(TO_RGB), cones, 1).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def enlarge(cam: Tensor, size: tuple[int, int], batch: Batch | None = None) -> Tensor:
    """A map (h, w), float in 0 .. 1 or uint8, over the caller's picture: (H, W) float32 in 0 .. 1.

    Between the centres of cells it is linear. Of a detector's map give the `batch` too: what lies
    over its padding is left out.
    """
    cam = as_float(cam)[None, None]
    seen = size if batch is None else tuple(batch.images.shape[2:])
    cells = [_covered(length, count) for length, count in zip(seen, cam.shape[2:], strict=True)]
    pixels = F.interpolate(cam, size=cells, mode="bilinear", align_corners=False)
    inside = pixels[..., : size[0], : size[1]] if batch is None else batch.inside(0, pixels)
    if inside.shape[2:] != size:
        inside = F.interpolate(inside, size=size, mode="bilinear", align_corners=False)
    return inside[0, 0]


def overlay(image: Tensor, cam: Tensor, batch: Batch | None = None) -> Tensor:
    """A picture (3, H, W), uint8 or float in 0 .. 1, under a map of it, as `enlarge` takes it:
    (3, H, W) uint8. The higher the value, the more of its colour; at 0 the picture is as it was."""
    values = enlarge(cam, (image.shape[1], image.shape[2]), batch)
    mixed = torch.lerp(as_float(image).cpu(), heat(values), 0.7 * values)
    return (mixed * 255).round().to(torch.uint8)


def _covered(pixels: int, cells: int) -> int:
    """How many pixels so many cells cover: a stride is a power of two, and the last cell may stand
    over the border; where no stride fits, just the picture."""
    stride = 2 ** math.ceil(math.log2(pixels / cells))
    return stride * cells if -(-pixels // stride) == cells else pixels
