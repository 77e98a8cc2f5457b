"""Tensors as pictures: what the network sees, feature maps in colour, single channels."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from eyeline.inspection.heat import heat

LONGEST = 1200  # pixels of the photograph's longer side on the page
CUT = 0.01  # of a map's values that may be beyond black and beyond white, at either end


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
    its variance that each explains; fewer where it has fewer cells or channels."""
    height, width = features.shape[1:]
    cells = features.flatten(1).T.double()  # (H W, C)
    cells = cells - cells.mean(0)
    few = len(cells) < cells.shape[1]  # the smaller of two matrices with the same eigenvalues
    variance, vectors = torch.linalg.eigh(cells @ cells.T if few else cells.T @ cells)
    variance, vectors = variance.flip(0)[:3].clamp(min=0), vectors.flip(1)[:, :3]
    planes = vectors if few else cells @ vectors  # (H W, 3), up to a factor
    # The sign of a component means nothing: its largest value is made positive.
    planes = planes * planes.gather(0, planes.abs().argmax(0, keepdim=True)).sign()
    pixels = torch.stack([levelled(plane.view(height, width)) for plane in planes.T], -1)
    pixels = torch.nn.functional.pad(pixels, (0, 3 - pixels.shape[-1]))
    shown = Image.fromarray((pixels * 255).round().to(torch.uint8).numpy())
    total = cells.square().sum().clamp(min=1e-12)
    return shown, (variance / total).tolist()


def strongest(features: Tensor, count: int) -> tuple[list[int], list[float]]:
    """The channels of a map (C, H, W) whose squares sum highest, and each one's share of all."""
    energy = features.double().square().sum((1, 2))
    value, index = energy.topk(min(count, len(energy)))
    return index.tolist(), (value / energy.sum().clamp(min=1e-12)).tolist()


def colours(count: int) -> Tensor:
    """The colours of values from 0 to 1, (count, 3) uint8."""
    return (heat(torch.linspace(0, 1, count)).T * 255).round().to(torch.uint8)


def in_colours(plane: Tensor) -> Image.Image:
    """A plane (H, W) from dark to light, as a picture of 256 colours."""
    image = Image.fromarray((levelled(plane) * 255).round().to(torch.uint8).numpy(), "P")
    image.putpalette(colours(256).numpy().tobytes())
    return image


def levelled(plane: Tensor) -> Tensor:
    """A plane (H, W) brought to 0 .. 1; what lies beyond its outermost hundredths is cut off."""
    values = plane.flatten().double().sort().values
    low, high = (values[round(share * (len(values) - 1))] for share in (CUT, 1 - CUT))
    return ((plane - low) / (high - low).clamp(min=1e-9)).clamp(0, 1).cpu()
