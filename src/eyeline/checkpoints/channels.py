"""A first convolution that was trained on RGB, for pictures of other channels."""

from __future__ import annotations

import torch
from torch import Tensor


def for_channels(weight: Tensor, own: Tensor) -> Tensor | None:
    """A convolution's weight (D, 3, k, k) as (D, C, k, k), the shape of the model's `own`; None
    where they differ in more than that.

    The first three channels keep their filters, each further one gets the mean of the three, and
    all are scaled by 3 / C: a picture whose channels are equal gives what it gave. One or two
    channels get the mean.
    """
    if weight.ndim != 4 or weight.shape[1] != 3 or own.shape[1] == 3:
        return None
    if (weight.shape[0], *weight.shape[2:]) != (own.shape[0], *own.shape[2:]):
        return None
    count = own.shape[1]
    mean = weight.mean(1, keepdim=True)
    if count < 3:
        return mean.repeat(1, count, 1, 1) * (3 / count)
    return torch.cat([weight, mean.repeat(1, count - 3, 1, 1)], 1) * (3 / count)
