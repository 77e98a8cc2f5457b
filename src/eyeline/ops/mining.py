"""Hard negative mining: the loss sees the background that is most mistaken, and no more of it.

Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, arXiv:1512.02325, sec. 2.2.

Letters   B pictures, N anchors, S mined at most.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eyeline.ops.select import highest, may_look
from eyeline.structures import Sample


def hard_negatives(
    losses: Tensor, positive: Tensor, negative: Tensor, ratio: float
) -> tuple[Tensor, Tensor]:
    """The negatives of each picture with the highest losses, at most `ratio` times as many as it
    has positives (rounded down): index (B, S) int64 into N, hardest first, and which slots are
    filled (B, S) bool.

    losses              (B, N) of each as background, finite; only their order counts
    positive, negative  (B, N) bool; what is neither is never mined

    S is N; where reading it costs nothing, what the fullest row needs, and 1 at least.
    """
    count = (ratio * positive.sum(1)).long().minimum(negative.sum(1))  # (B,)
    hardness = losses.detach().masked_fill(~negative, -torch.inf)
    limit = max(1, int(count.max())) if may_look(count) else losses.shape[1]
    _, index = highest(hardness, limit)
    filled = torch.arange(index.shape[1], device=count.device) < count[:, None]
    return index, filled


def mined(positive: Tensor, index: Tensor, filled: Tensor, losses: Tensor) -> Sample:
    """For `note`: the positives (B, N) and what `hard_negatives` took by its `losses`, all that the
    loss sees."""
    seen = positive.scatter(1, index, filled | positive.gather(1, index))
    rows = torch.arange(positive.shape[1], device=positive.device)
    return Sample(rows.expand(positive.shape), seen, losses)
