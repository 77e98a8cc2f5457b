"""Focal loss: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.losses.pixels import pixels, weighted_mean
from eyeline.losses.reduction import reduce
from eyeline.ops.labels import IGNORE


def sigmoid_focal_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
) -> Tensor:
    """-alpha_t (1 - p_t)^gamma log(p_t) of every logit (eq. 5).

    logits     (..., K), any number
    targets    (..., K), 1 where the class is present, else 0; no soft targets
    alpha      weight of present classes, 1 - alpha of absent ones; below 0, no weights
    gamma      0 and above; 0 is cross entropy, the higher the less easy examples count
    reduction  "none" -> (..., K), "sum" or "mean" -> ()

    At least float32 whatever the logits' dtype, and finite, gradients too, for every finite logit.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    signed = logits * (2 * targets - 1)  # p_t = sigmoid(signed)
    loss = -F.logsigmoid(signed) * (gamma * F.logsigmoid(-signed)).exp()
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return reduce(loss, reduction)


def softmax_focal_loss(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    weights: Tensor | Sequence[float] | None = None,
    ignore: int = IGNORE,
) -> Tensor:
    """Mean of w_t (1 - p_t)^gamma * -log p_t over the labelled pixels, p of a softmax, divided by
    their weights w_t: ().

    logits   (B, K, H, W), any number; with K = 1 p is a sigmoid's (`eyeline.losses.pixels`)
    target   (B, H, W) int64, classes 0 .. K-1, or `ignore`
    gamma    0 and above; 0 is `cross_entropy`
    weights  (K,), of each class (alpha in eq. 5); with K = 1 two, of absent and present

    0 with gradients 0 where every pixel is ignored.
    """
    if gamma < 0:
        raise EyelineError(f"the focal loss's gamma is {gamma}; it must be 0 or more")
    batch = pixels(logits, target, ignore)
    index = batch.target[:, None]
    # The softmax's p_t is the sigmoid of how far a logit lies above all others together.
    others = batch.logits.scatter(1, index, -math.inf).logsumexp(1)  # (B, H, W)
    margin = batch.logits.gather(1, index)[:, 0] - others
    loss = sigmoid_focal_loss(margin, torch.ones_like(margin), alpha=-1, gamma=gamma)
    return weighted_mean(loss, batch.weights(weights))
