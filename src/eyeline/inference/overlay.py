"""Maps of classes painted over pictures.

Letters   H and W a map's height and width.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageColor
from torch import Tensor

from eyeline.inference.draw import PALETTE
from eyeline.ops.labels import IGNORE

TINT = 0.55  # of a class's colour over the picture
STRIPE = 4  # pixels, over what is ignored
GREY = 90.0


def map_colours(count: int) -> np.ndarray:
    """(count, 3) uint8: PALETTE, and behind it as many more, each other than all before."""
    colours = np.array([ImageColor.getrgb(colour) for colour in PALETTE], np.uint8)
    more = max(0, count - len(colours))
    numbers = np.arange(1, more + 1)
    extra = np.zeros((more, 3), np.uint8)
    for bit in range(8):  # each three bits of the number become one of red, green and blue
        for channel in range(3):
            extra[:, channel] |= ((numbers >> (3 * bit + channel) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return np.concatenate([colours, extra])[:count]


def hex_colours(count: int) -> list[str]:
    """The same as "#rrggbb"."""
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in map_colours(count).tolist()]


def paint_map(picture: Image.Image, classes: np.ndarray | Tensor, count: int) -> Image.Image:
    """The picture tinted with the colour of each pixel's class, which is full at borders.

    Args:
        classes: (H, W), enlarged or made smaller to the picture by nearest pixels; 255, to be
            ignored, is grey and striped, and below 0 nothing is painted.
        count: K.
    """
    values = classes.cpu().numpy() if isinstance(classes, Tensor) else classes
    width, height = picture.size
    y, x = (
        (2 * np.arange(n) + 1) * old // (2 * n)
        for n, old in zip((height, width), values.shape, strict=True)
    )
    values = values[y[:, None], x].astype(np.int64)
    canvas = np.asarray(picture.convert("RGB"), np.float32).copy()  # (H, W, 3)
    border = np.zeros(values.shape, bool)
    border[:-1] |= values[:-1] != values[1:]
    border[:, :-1] |= values[:, :-1] != values[:, 1:]
    known = (values >= 0) & (values < count) & (values != IGNORE)
    colour = map_colours(count).astype(np.float32)[np.where(known, values, 0)]
    share = np.where(border, 1.0, TINT).astype(np.float32)[..., None] * known[..., None]
    canvas += share * (colour - canvas)
    ignored = values == IGNORE
    striped = ignored & (np.add.outer(np.arange(height), np.arange(width)) // STRIPE % 3 == 0)
    canvas[ignored] += TINT * (GREY - canvas[ignored])
    canvas[striped] = 255 - TINT * GREY
    return Image.fromarray(canvas.round().clip(0, 255).astype(np.uint8))
