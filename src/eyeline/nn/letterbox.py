"""Pictures as darknet sees them: fitted into a square, in its middle, on grey.

Boxes stay in the resized picture's own pixels; a network whose priors stand on the square takes
`shift` off.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eyeline.nn.detector import Preprocess, as_float
from eyeline.structures import Batch

GREY = 0.5


class Letterbox(Preprocess):
    """`Preprocess` on a square canvas: each picture in the middle, grey about it, resized such that
    the corner pixels of both sizes have the same centres (as in darknet's own `resize_image`)."""

    centred = True

    def pixels(self, images: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> Tensor:
        """One (B, C, S, S) tensor, channels last, S the longest side and a multiple of `divisor`;
        S is the largest of the batch."""
        side = -(-max(map(max, sizes)) // self.divisor) * self.divisor
        device = images[0].device
        mean, std = (
            torch.tensor(values, device=device)[:, None, None] for values in (self.mean, self.std)
        )
        shape = (len(images), len(self.mean), side, side)
        batch = torch.full(shape, GREY, device=device).contiguous(memory_format=torch.channels_last)
        for slot, image, (h, w) in zip(batch, images, sizes, strict=True):
            pixels = as_float(image)
            if image.shape[1:] != (h, w):
                pixels = F.interpolate(pixels[None], (h, w), mode="bilinear", align_corners=True)[0]
            top, left = (side - h) // 2, (side - w) // 2
            slot[:, top : top + h, left : left + w] = pixels
        return batch.sub_(mean).div_(std)

    def offsets(self, sizes: Tensor, canvas: Sequence[int]) -> Tensor:
        return (sizes.new_tensor(list(canvas)) - sizes) // 2

    def told(self) -> str:
        return f"longer side {self.max_size}, in the middle of a grey square"


def shift(batch: Batch) -> Tensor:
    """Where the pictures begin on the canvas on which a network's priors stand: x, y, x, y,
    (B, 1, 4); what is taken off its boxes, and added to objects."""
    if batch.offsets is None:
        return torch.zeros_like(batch.sizes).repeat(1, 2)[:, None]
    return batch.offsets.flip(1).repeat(1, 2)[:, None]
