"""Focal loss: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eyeline.losses.reduction import reduce


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
