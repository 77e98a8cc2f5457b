"""Cross entropy of every pixel, and of the hard ones only.

Hard examples   Shrivastava et al., "Training Region-based Object Detectors with Online Hard
                Example Mining", CVPR 2016, arXiv:1604.03540; of pixels, "bootstrapped": Wu et
                al., "Bridging Category-level and Instance-level Semantic Image Segmentation",
                2016, arXiv:1605.06885; with the numbers of HRNet's code (Sun et al., 2019,
                arXiv:1904.04514).

Departs from HRNet's code: it keeps 100,000 pixels however easy they are (131,072 in its recipe for
Cityscapes, a twelfth of a GPU's batch), which in small batches would be all. So no more than a
sixteenth of the labelled ones is kept so, the share of other public code. And class weights are
divided out, as in the plain loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.losses.normaliser import batch_total
from eyeline.losses.pixels import LEAST, class_weights, pixels, weighted_mean
from eyeline.ops.labels import IGNORE


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    weights: Tensor | Sequence[float] | None = None,
    smoothing: float = 0.0,
    ignore: int = IGNORE,
) -> Tensor:
    """Mean of w_t * -log p_t over the labelled pixels, divided by their weights w_t: ().

    logits     (B, K, H, W), any number; with K = 1 the loss is that of a sigmoid (`pixels`)
    target     (B, H, W) int64, classes 0 .. K-1, or `ignore`
    weights    (K,), of each class; with K = 1 two, of absent and present
    smoothing  in [0, 1): this share of each pixel's label is spread evenly over all K classes

    The same number as torch's `cross_entropy(weight=, label_smoothing=, ignore_index=)`, but 0
    with gradients 0 where every pixel is ignored or of weight 0.
    """
    if not 0 <= smoothing < 1:
        raise EyelineError(f"smoothing is {smoothing}; it is a share, from 0 to below 1")
    batch = pixels(logits, target, ignore)
    weight = None if weights is None else class_weights(weights, batch.logits)
    total = F.cross_entropy(
        batch.logits,
        batch.target.where(batch.valid, -1),
        weight,
        ignore_index=-1,
        reduction="sum",
        label_smoothing=smoothing,
    )
    divisor = batch_total(batch.weights(weights).sum(), len(logits), LEAST)
    return total.where(divisor > LEAST, 0) / divisor


def ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    weights: Tensor | Sequence[float] | None = None,
    threshold: float = 0.7,
    least: int = 100_000,
    share: float = 1 / 16,
    ignore: int = IGNORE,
) -> Tensor:
    """`cross_entropy` over the hard pixels alone: ().

    A pixel is hard if the probability of its class is below `threshold`, or if it is among the
    `least` with the lowest (all of equals), no more than `share` of the labelled ones, rounded up.
    They are counted in the batch, in each process its own.

    logits, target, weights  as of `cross_entropy`
    threshold                in [0, 1]
    least, share             pixels that are kept however easy they are; with share=1, from as many
                             on as the batch has, it is `cross_entropy`
    """
    if not (0 <= threshold <= 1 and 0 <= share <= 1) or least < 0:
        raise EyelineError(
            f"threshold is {threshold}, least is {least} and share is {share}; the first is a "
            "probability, the second a number of pixels, the last from 0 to 1"
        )
    batch = pixels(logits, target, ignore)
    loss = F.cross_entropy(batch.logits, batch.target, reduction="none")  # (B, H, W)
    # In -log p, which still orders what float32 holds for probability 0.
    rank = loss.detach().where(batch.valid, -1)
    hard = rank > (-math.log(threshold) if threshold else math.inf)
    if most := min(least, math.ceil(share * rank.numel())):
        # How many are labelled the device alone knows.
        kept = (batch.valid.sum() * share).ceil().long().clamp(1, most)
        hardest = rank.flatten().topk(most).values  # from the hardest on
        hard |= rank >= hardest.gather(0, kept[None] - 1)
    return weighted_mean(loss, batch.weights(weights) * hard)
