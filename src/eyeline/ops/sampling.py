"""A small random sample for the loss: Ren et al., "Faster R-CNN", NeurIPS 2015,
arXiv:1506.01497, sec. 3.1.3.

Letters   B pictures, N anchors (or regions), S of them sampled.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eyeline.ops.matching import BACKGROUND
from eyeline.ops.select import highest


def balanced_sample(
    matches: Tensor, order: Tensor, count: int, positive_fraction: float
) -> tuple[Tensor, Tensor]:
    """A random sample without replacement: index (..., S) int64 into N, and which slots are filled
    (..., S) bool. Positives come first, then negatives, then empty slots.

    matches            (..., N) int64 of `match`: 0 and above positive, -1 negative, -2 never
                       sampled
    order              (..., N) random numbers in [0, 1): of both kinds the highest are drawn
    count              S, or N where that is less
    positive_fraction  positives are at most this part of `count`, rounded down; negatives fill
                       the rest
    """
    candidates = torch.where(matches >= 0, order, -1.0)
    best, index = highest(candidates, int(count * positive_fraction))
    drawn = torch.full_like(order, -1.0).scatter(-1, index, torch.where(best >= 0, 2.0, -1.0))
    rank = torch.where(matches == BACKGROUND, order, drawn)  # 2, below 1, or -1
    best, index = highest(rank, count)
    return index, best >= 0


def seeded_uniform(seeds: Tensor, count: int) -> Tensor:
    """Random numbers (B, N) in [0, 1), float32: a row of N = `count` for each of the seeds (B,)
    int64. They are counted through, seed by seed, and each number is mixed until no bit tells of
    another; so every device gives the same, and none waits for its host, as a generator that were
    seeded anew for each row would make it.
    """
    position = torch.arange(count, device=seeds.device)
    bits = _mixed(_mixed(seeds & WORD)[:, None] ^ position)
    return (bits >> 8) * 2.0**-24  # as many bits as float32 holds


WORD = 2**32 - 1


def _mixed(x: Tensor) -> Tensor:
    """A 32-bit integer in int64 to another, each to a different one: shifts and multiplications by
    odd numbers (constants: C. Wellons, "Prospecting for Hash Functions", 2018)."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * factor) & WORD
    return x ^ (x >> 16)
