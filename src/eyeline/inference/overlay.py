"""Annotated maps of classes painted over pictures; what a model says is drawn by `draw_map`.

Letters   H and W a map's height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from eyeline.inference.draw_map import class_colours, is_nothing
from eyeline.ops.labels import IGNORE

TINT = 0.55  # of a class's colour over the picture
STRIPE = 4  # pixels, over what is ignored
GREY = 90.0


def paint_map(
    picture: Image.Image, classes: np.ndarray | Tensor, names: Sequence[str]
) -> Image.Image:
    """The picture tinted with the colour of each pixel's class, which is full at borders.

    Args:
        classes: (H, W), enlarged or made smaller to the picture by nearest pixels; 255, to be
            ignored, is grey and striped, and below 0 nothing is painted.
        names: of the classes, see `class_colours`; a background is not painted.
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
    known = (values >= 0) & (values < len(names)) & (values != IGNORE)
    painted = np.array([*(not is_nothing(name) for name in names), False])
    known &= painted[np.where(known, values, len(names))]
    colour = class_colours(names).astype(np.float32)[np.where(known, values, 0)]
    share = np.where(border, 1.0, TINT).astype(np.float32)[..., None] * known[..., None]
    canvas += share * (colour - canvas)
    ignored = values == IGNORE
    striped = ignored & (np.add.outer(np.arange(height), np.arange(width)) // STRIPE % 3 == 0)
    canvas[ignored] += TINT * (GREY - canvas[ignored])
    canvas[striped] = 255 - TINT * GREY
    return Image.fromarray(canvas.round().clip(0, 255).astype(np.uint8))
