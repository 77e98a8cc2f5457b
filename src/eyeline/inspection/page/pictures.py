"""Tensors as pictures: what the network sees, feature maps in colour, single channels."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

LONGEST = 1200  # pixels of the photograph's longer side on the page
CUT = 0.01  # of a map's values that may be beyond black and beyond white, at either end

# From dark to light, so that it can be read without colour too.
HEAT = ((13, 10, 41), (76, 29, 125), (166, 44, 117), (232, 89, 73), (252, 170, 71), (252, 244, 190))


def photograph(image: Tensor) -> Image.Image:
    """A picture (C, H, W), uint8 or float in [0, 1], no larger than the page needs."""
    if image.dtype != torch.uint8:
        image = (image * 255).round().to(torch.uint8)
    if image.shape[0] != 3:
        image = image[:1].expand(3, -1, -1)
    shown = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    shown.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return shown


def normalised(image: Tensor) -> Image.Image:
    """A normalised picture (C, H, W): its lowest value black, its highest white."""
    low, high = image.aminmax()
    return photograph((image - low) / (high - low).clamp(min=1e-6))


def components(features: Tensor) -> tuple[Image.Image, list[float]]:
    """The three principal components of a map (C, H, W) as red, green and blue, and the share of
    its variance that each explains."""
    channels, height, width = features.shape
    cells = features.flatten(1).T.double()  # (H W, C)
    cells = cells - cells.mean(0)
    variance, axes = torch.linalg.eigh(cells.T @ cells)  # ascending
    order = list(range(channels - 1, max(channels - 4, -1), -1))
    axes = axes[:, order]
    # The sign of an axis means nothing: its largest entry is made positive.
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    planes = (cells @ (axes * largest.sign())).T.reshape(-1, height, width)
    pixels = torch.stack([levelled(plane) for plane in planes], -1)  # (H, W, 3 or less)
    pixels = torch.nn.functional.pad(pixels, (0, 3 - pixels.shape[-1]))
    total = variance.clamp(min=0).sum().clamp(min=1e-12)
    shown = Image.fromarray((pixels * 255).round().to(torch.uint8).numpy())
    return shown, [float(variance[i].clamp(min=0) / total) for i in order]


def strongest(features: Tensor, count: int) -> tuple[list[int], list[float]]:
    """The channels of a map (C, H, W) whose squares sum highest, and each one's share of all."""
    energy = features.double().square().sum((1, 2))
    value, index = energy.topk(min(count, len(energy)))
    return index.tolist(), (value / energy.sum().clamp(min=1e-12)).tolist()


def heat(plane: Tensor) -> Image.Image:
    """A plane (H, W) from dark to light, as a picture of 256 colours."""
    image = Image.fromarray((levelled(plane) * 255).round().to(torch.uint8).numpy(), "P")
    place = np.linspace(0, len(HEAT) - 1, 256)
    colours = np.stack(
        [np.interp(place, range(len(HEAT)), [c[i] for c in HEAT]) for i in range(3)], 1
    )
    image.putpalette(colours.round().astype(np.uint8).tobytes())
    return image


def levelled(plane: Tensor) -> Tensor:
    """A plane (H, W) brought to 0 .. 1; what lies beyond its outermost hundredths is cut off."""
    values = plane.flatten().double().sort().values
    low, high = (values[round(share * (len(values) - 1))] for share in (CUT, 1 - CUT))
    return ((plane - low) / (high - low).clamp(min=1e-9)).clamp(0, 1).cpu()
