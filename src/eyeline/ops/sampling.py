"""A small random sample for the loss: Ren et al., "Faster R-CNN", NeurIPS 2015,
arXiv:1506.01497, sec. 3.1.3."""

from __future__ import annotations

import torch
from torch import Tensor


def balanced_sample(
    matches: Tensor,
    count: int,
    positive_fraction: float,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Indices of a random sample without replacement: positives (P,), negatives (Q,), int64.

    matches            (N,) int64 of `match`: 0 and above positive, -1 negative, -2 never sampled
    count              P + Q, or as many as there are
    positive_fraction  P is at most this part of `count`, rounded down; negatives fill the rest
    generator          of the random order; it may live on another device than `matches`
    """
    positive = (matches >= 0).nonzero()[:, 0]
    negative = (matches == -1).nonzero()[:, 0]
    positive = _draw(positive, int(count * positive_fraction), generator)
    negative = _draw(negative, count - len(positive), generator)
    return positive, negative


def _draw(index: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    if generator is None:  # apart, for torch.compile takes no generator
        order = torch.randperm(len(index), device=index.device)
    else:
        order = torch.randperm(len(index), generator=generator, device=generator.device)
    return index[order[:count].to(index.device)]
