"""MultiBox loss: Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, arXiv:1512.02325,
sec. 2.2, eq. 1 to 3.

Letters   B pictures, N anchors, S classes with background, M mined at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from eyeline.losses.normaliser import batch_total
from eyeline.losses.smooth_l1 import smooth_l1
from eyeline.ops.deltas import encode
from eyeline.ops.mining import hard_negatives
from eyeline.ops.select import indices


class MultiBox(NamedTuple):
    """The two losses, which negatives count, and by what they were chosen."""

    classification: Tensor  # ()
    box: Tensor  # ()
    mined: Tensor  # (B, M) into the anchors, hardest first
    taken: Tensor  # (B, M) bool, which slots of it are filled
    each: Tensor  # (B, N), the softmax loss of each anchor


def multibox(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    boxes: Tensor,
    truth: Tensor,
    positive: Tensor,
    negative: Tensor,
    ratio: float = 3.0,
    weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
    beta: float = 1.0,
) -> MultiBox:
    """Softmax loss of the positives and of the hardest negatives, smooth L1 of the positives; both
    divided by the number of positives in the batch, and 0 where there are none.

    logits    (B, N, S)
    deltas    (B, N, 4), how each anchor is to move
    anchors   (B, N, 4), from where; no gradient passes through them
    boxes     (B, N, 4), where to; it counts for positives only
    truth     (B, N) int64 in 0 .. S-1
    positive, negative  (B, N) bool; what is neither counts nowhere
    ratio     negatives of a picture to each of its positives, at most
    weights   of the deltas, see `eyeline.ops.deltas`
    beta      where smooth L1 bends
    """
    confidence = F.cross_entropy(logits.transpose(1, 2), truth, reduction="none")  # (B, N)
    index, taken = hard_negatives(confidence, positive, negative, ratio)
    mistakes = confidence.gather(1, index).where(taken, 0).sum()  # of the negatives
    # The positive ones; on a GPU all anchors, for its host must not look (ops/select.py), and
    # `counts` says which are positive. What is no object wants no other move than it makes.
    picture, anchor = indices(positive)  # (P,) both
    counts, moves = positive[picture, anchor], deltas[picture, anchor]
    wanted = encode(boxes[picture, anchor], anchors.detach()[picture, anchor], weights)
    wanted = wanted.where(counts[:, None], moves.detach())
    divisor = batch_total(positive.sum(), len(positive))
    return MultiBox(
        (confidence.where(positive, 0).sum() + mistakes) / divisor,
        smooth_l1(moves, wanted, beta, reduction="sum") / divisor,
        index,
        taken,
        confidence,
    )
