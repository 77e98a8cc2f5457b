"""Test-time augmentation of segmenters: a picture seen at several sizes and mirrored.

The mean is that of probabilities, as in DeepLab's and mmsegmentation's multi-scale test, which
every look enters with the same weight; that of logits would give more to a look that is more
certain of itself. (`tta.py` is the detectors'.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError

SCALES = (0.75, 1.0, 1.25)
SMALLEST, LARGEST = 0.1, 10.0  # further from 1 nothing is seen, or no memory is enough


def check_scales(scales: Sequence[float]) -> None:
    """Raises EyelineError where there is no scale, or one that cannot be meant."""
    if not scales or any(not SMALLEST <= scale <= LARGEST for scale in scales):
        given = ", ".join(f"{scale:g}" for scale in scales) or "none"
        raise EyelineError(f"scales are factors from {SMALLEST:g} to {LARGEST:g}, not {given}")


def augmented_logits(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    scales: Sequence[float] = SCALES,
    flip: bool = True,
    align: int = 1,
) -> Tensor:
    """Logits of several looks at pictures: the logarithm of their probabilities' mean.

    Softmax of it is the mean. A single look is returned as it is.

    Args:
        model: pictures (B, C, H, W) -> logits (B, K, H, W).
        images: (B, C, H, W), uint8 or float in [0, 1].
        scales: factors of both sides, each for one look.
        flip: look at each size again, mirrored left to right.
        align: sides of resized pictures are rounded to multiples of it.

    Returns:
        (B, K, H, W), float32 unless there is one look.

    Raises:
        EyelineError: no scale, or one that is not from 0.1 to 10.
    """
    check_scales(scales)
    size = (images.shape[-2], images.shape[-1])
    total: Tensor | None = None
    count = 0
    for scale in scales:
        looked = scaled(images, scale, align)
        for mirrored in (False, True) if flip else (False,):
            logits = model(looked.flip(-1) if mirrored else looked)
            if len(scales) == 1 and not flip and logits.shape[-2:] == size:
                return logits
            logits = logits.flip(-1) if mirrored else logits
            if logits.shape[-2:] != size:
                logits = F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
            log = logits.float().log_softmax(1)
            total = log if total is None else torch.logaddexp(total, log)
            count += 1
    assert total is not None
    return total - torch.tensor(float(count)).log().to(total)


def scaled(images: Tensor, scale: float, align: int = 1) -> Tensor:
    """(B, C, h, w), float in [0, 1] where the size is another; smoothed before it shrinks."""
    size = tuple(max(1, round(side * scale / align)) * align for side in images.shape[-2:])
    if scale == 1 or size == images.shape[-2:]:
        return images
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images
    shrinks = scale < 1
    found = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=shrinks)
    return found.clamp(0, 1)


@dataclass(frozen=True)
class Average:
    """What is averaged; see `augmented_logits`."""

    model: Any  # the model's own config
    scales: tuple[float, ...]
    flip: bool
    align: int


class AugmentedSegmenter(nn.Module):
    """A segmenter that looks several times; called like the segmenter itself."""

    def __init__(
        self,
        model: nn.Module,
        scales: Sequence[float] = SCALES,
        flip: bool = True,
        align: int = 1,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.config = Average(getattr(model, "config", None), tuple(scales), flip, align)
        self.train(model.training)

    @property
    def channels(self) -> int:
        return int(getattr(self.model, "channels", 3))

    @property
    def classes(self) -> list[str]:
        return list(self.model.classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K, H, W)."""
        c = self.config
        return augmented_logits(self.model, images, c.scales, c.flip, c.align)
