"""Values of a picture."""

from __future__ import annotations

import torch
from torch import Tensor

from eyeline.errors import EyelineError

SLACK = 1e-3  # by which numbers may lie outside [0, 1], from rounding


def check_pixels(image: Tensor, where: str) -> None:
    """Raises EyelineError where a picture is neither uint8 nor float in [0, 1].

    `where` begins the message: "picture 3 has".
    """
    if image.dtype == torch.uint8 or image.is_meta:  # a meta tensor has a shape and no values
        return
    if not image.is_floating_point():
        raise EyelineError(f"{where} values of {image.dtype}; give uint8, or float from 0 to 1")
    low, high = (float(value) for value in image.aminmax())
    if not (low >= -SLACK and high <= 1 + SLACK):  # NaN is neither
        raise EyelineError(
            f"{where} values from {low:.3g} to {high:.3g}, not 0 to 1; give uint8, or divide by "
            "255; leave normalising out, the model does it"
        )
