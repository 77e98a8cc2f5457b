"""What is annotated of a map of classes, on its picture: with what is ignored, and what is not.

Letters   H and W a map's height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from eyeline.inference.draw_map import TINT, tinted
from eyeline.ops.labels import IGNORE

BORDER = 3  # pixels of the line where two classes meet
STRIPE = 4  # pixels, over what is ignored
GREY = 90.0


def paint_map(
    picture: Image.Image, classes_map: np.ndarray | Tensor, classes: Sequence[str]
) -> Image.Image:
    """The picture tinted with the colour of each pixel's class, which is full at borders.

    Args:
        classes_map: (H, W), enlarged or made smaller to the picture by nearest pixels; 255, to be
            ignored, is grey and striped, and below 0 nothing is painted.
        classes: their names.
    """
    values = classes_map.cpu().numpy() if isinstance(classes_map, Tensor) else classes_map
    width, height = picture.size
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip((height, width), values.shape, strict=True)
    )
    values = values[rows[:, None], columns].astype(np.int64)
    canvas = tinted(np.asarray(picture.convert("RGB")), values, classes, BORDER)
    ignored = values == IGNORE
    striped = ignored & (np.add.outer(np.arange(height), np.arange(width)) // STRIPE % 3 == 0)
    canvas[ignored] = (canvas[ignored] + TINT * (GREY - canvas[ignored])).round()
    canvas[striped] = round(255 - TINT * GREY)
    return Image.fromarray(canvas)
