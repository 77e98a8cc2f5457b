"""Lovasz-softmax: Berman et al., "The Lovasz-Softmax loss: A tractable surrogate for the
optimization of the intersection-over-union measure in neural networks", CVPR 2018,
arXiv:1705.08790.

Departs from algorithm 1 in how it computes the same: the differences of the Jaccard loss are
taken in closed form, so that they keep their digits however many pixels there are.

Letters   B pictures, K classes, N pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eyeline.losses.pixels import counted_classes, mean_of_classes, pixels
from eyeline.ops.labels import IGNORE


def lovasz_softmax(
    logits: Tensor,
    target: Tensor,
    classes: str = "present",
    per_image: bool = False,
    ignore: int = IGNORE,
) -> Tensor:
    """Mean over classes of the Lovasz extension of 1 - IoU at the pixels' errors: (), in [0, 1].

    logits     (B, K, H, W), any number; with K = 1 the one class's sigmoid alone is judged (the
               paper's hinge, which binary modes elsewhere take, is another function)
    target     (B, H, W) int64, classes 0 .. K-1, or `ignore`
    classes    the mean is over those "present" in the truth, or over "all": an absent one then
               costs its highest probability
    per_image  of each picture by itself, and the mean of all; else of the batch, in each process
               its own

    An error is 1 - p of a pixel's class and p of every other (eq. 8); where each is 0 or 1 the
    loss is 1 - IoU itself. Without a labelled pixel 0 with gradients 0.
    """
    batch = pixels(logits, target, ignore)
    p, truth = batch.probabilities()[:, batch.first :], batch.truth()[:, batch.first :]
    p, truth, valid = p.flatten(2), truth.flatten(2), batch.valid.flatten(1)  # (B, K, N), (B, N)
    if not per_image:
        p, truth = (part.transpose(0, 1).flatten(1)[None] for part in (p, truth))
        valid = valid.flatten()[None]
    errors = torch.where(truth, 1 - p, p)  # (B, K, N), eq. 8; 0 where ignored
    with torch.no_grad():
        slope = torch.stack(
            [
                torch.stack([_slope(e, t, known) for e, t in zip(*row, strict=True)])
                for *row, known in zip(errors, truth, valid, strict=True)
            ]
        )  # (B, K, N)
    return mean_of_classes((errors * slope).sum(-1), counted_classes(truth, valid, classes))


def _slope(errors: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """What each pixel's error is multiplied by (definition 2): errors, truth, valid (N,) -> (N,).

    With the errors falling, it is by how much 1 - IoU grows as a pixel joins those that are wrong.
    """
    order = errors.where(valid, -1).argsort(descending=True)  # the ignored last
    hit = truth[order]
    missed = hit.cumsum(0)  # of the class, among the pixels so far
    intersection = missed[-1:] - missed
    union = intersection + torch.arange(1, len(hit) + 1, device=hit.device)
    # A pixel of the class leaves the intersection, by 1 / union; another joins the union, by
    # intersection / (union - 1) - intersection / union. Of an absent class the first one costs all.
    union = union.to(errors.dtype)
    other = (intersection / (union * (union - 1)).clamp(min=1)).where(union > 1, 1)
    steps = torch.where(hit, 1 / union, other)
    return torch.zeros_like(errors).scatter(0, order, steps)
