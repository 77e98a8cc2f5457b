"""Cross entropy of every pixel, and of the hard ones only.

Hard examples   Shrivastava et al., "Training Region-based Object Detectors with Online Hard
                Example Mining", CVPR 2016, arXiv:1604.03540; of pixels, "bootstrapped": Wu et
                al., "Bridging Category-level and Instance-level Semantic Image Segmentation",
                2016, arXiv:1605.06885; with the numbers of HRNet's code (Sun et al., 2019,
                arXiv:1904.04514).

Departs from HRNet's code: where fewer than `least` pixels are labelled, all are kept, for there
the easiest is lost; and class weights are divided out, as in the plain loss.
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
    ignore: int = IGNORE,
) -> Tensor:
    """`cross_entropy` over the hard pixels alone: ().

    A pixel is hard if the probability of its class is below `threshold`, or if it is among the
    `least` with the lowest (all of equals). They are counted in the batch, in each process its own.

    logits, target, weights  as of `cross_entropy`
    threshold                in [0, 1]
    least                    pixels that are kept however easy they are; from as many on as the
                             batch has it is `cross_entropy`
    """
    if not 0 <= threshold <= 1 or least < 0:
        raise EyelineError(
            f"threshold is {threshold} and least is {least}; the first is a probability, "
            "the second a number of pixels"
        )
    batch = pixels(logits, target, ignore)
    loss = F.cross_entropy(batch.logits, batch.target, reduction="none")  # (B, H, W)
    # In -log p, which still orders what float32 holds for probability 0.
    rank = loss.detach().where(batch.valid, -1)
    hard = rank > (-math.log(threshold) if threshold else math.inf)
    if kept := min(least, rank.numel()):
        hard |= rank >= rank.flatten().kthvalue(rank.numel() - kept + 1).values
    return weighted_mean(loss, batch.weights(weights) * hard)
