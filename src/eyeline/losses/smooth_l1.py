"""Smooth L1: Girshick, "Fast R-CNN", ICCV 2015, arXiv:1504.08083, eq. 3."""

from __future__ import annotations

import torch
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.losses.reduction import reduce


def smooth_l1(pred: Tensor, target: Tensor, beta: float = 1.0, reduction: str = "none") -> Tensor:
    """d^2 / (2 beta) where d = |pred - target| is below beta, d - beta / 2 beyond.

    pred, target  (...), of one shape, any unit
    beta          where the parabola bends into the line, in that unit; 1 in eq. 3, 0 is L1
    reduction     "none" -> (...), "sum" or "mean" -> ()

    Raises EyelineError for a beta below 0 or shapes that differ.
    """
    if beta < 0:
        raise EyelineError(f"smooth L1's beta is {beta}; it must be 0 or more")
    if pred.shape != target.shape:
        raise EyelineError(
            f"smooth L1 compares {tuple(pred.shape)} with {tuple(target.shape)}; "
            "give both the same shape"
        )
    d = (pred - target).abs()
    if beta > 0:
        d = torch.where(d < beta, d * d / (2 * beta), d - beta / 2)
    return reduce(d, reduction)
