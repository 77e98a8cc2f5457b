"""What the losses of segmentation share: which pixels count, as which class, with what weight.

Letters   B pictures, K classes, H and W their size.

One class alone. The softmax of one logit is 1 whatever the logit, so nothing could be learnt from
it. As the field does where a network has one channel (the binary modes of
segmentation-models-pytorch), that logit z then tells present from absent: it is read as the two
logits (0, z), whose softmax has sigmoid(z) in second place, and labels are 1 where the class is
present and 0 where it is absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.losses.normaliser import batch_total
from eyeline.ops.labels import IGNORE, check_labels
from eyeline.ops.select import may_look, numbers

LEAST = 1e-12  # of a sum of weights: what is below is 0


class Pixels(NamedTuple):
    """A batch as every loss takes it; with one class there are two, absent and present."""

    logits: Tensor  # (B, K, H, W), at least float32; K at least 2
    target: Tensor  # (B, H, W) int64 in 0 .. K-1; 0 where ignored
    valid: Tensor  # (B, H, W) bool, False where ignored
    first: int  # losses that are means over classes count them from this: 1 of (absent, present)

    def probabilities(self) -> Tensor:
        """(B, K, H, W), 0 where ignored."""
        return self.logits.softmax(1).where(self.valid[:, None], 0)

    def truth(self) -> Tensor:
        """(B, K, H, W) bool, which class a pixel has; none where ignored."""
        classes = torch.arange(self.logits.shape[1], device=self.target.device)
        return (self.target[:, None] == classes[:, None, None]) & self.valid[:, None]

    def weights(self, weights: Tensor | Sequence[float] | None) -> Tensor:
        """(B, H, W): each pixel's weight by its class, 1 without weights; 0 where ignored."""
        if weights is None:
            return self.valid.to(self.logits.dtype)
        weights = class_weights(weights, self.logits)
        return weights[self.target].where(self.valid, 0)


def pixels(logits: Tensor, target: Tensor, ignore: int = IGNORE) -> Pixels:
    """Take logits and labels apart.

    logits  (B, K, H, W), float of any precision
    target  (B, H, W) int64, or uint8: classes 0 .. K-1, or 0 and 1 where K is 1, or `ignore`

    Raises EyelineError where the shapes do not fit; and for a label that is neither a class nor
    `ignore`, if it can be seen without waiting for a GPU.
    """
    if logits.ndim != 4 or target.shape != logits.shape[:1] + logits.shape[2:]:
        raise EyelineError(
            f"a segmentation loss takes logits (B, K, H, W) and target (B, H, W), not "
            f"{tuple(logits.shape)} and {tuple(target.shape)}"
        )
    if target.is_floating_point():
        raise EyelineError(f"labels are integers, one a pixel; the target is {target.dtype}")
    target = target.long()  # before it is compared: of bytes, -7 would be 249
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    first = 0
    if logits.shape[1] == 1:
        logits, first = torch.cat([torch.zeros_like(logits), logits], 1), 1
    if may_look(target):
        check_labels(target, logits.shape[1], "a target", ignore)
    valid = target != ignore
    return Pixels(logits, target.where(valid, 0), valid, first)


def class_weights(weights: Tensor | Sequence[float], logits: Tensor) -> Tensor:
    """(K,) on the device of `logits` (B, K, H, W), in their precision."""
    if len(weights) != logits.shape[1]:
        raise EyelineError(f"{len(weights)} class weights for {logits.shape[1]} classes")
    if isinstance(weights, Tensor):
        return weights.to(logits)
    return numbers(weights, logits, logits.dtype)


def weighted_mean(loss: Tensor, weight: Tensor) -> Tensor:
    """Sum of loss * weight by the sum of the weights, both (B, H, W); 0 if they are all 0.

    Of several processes the weights are summed in all; see `batch_total`.
    """
    return (loss * weight).sum() / batch_total(weight.sum(), len(loss), LEAST)


def mean_of_classes(loss: Tensor, counted: Tensor) -> Tensor:
    """Mean over the classes that count, 0 if none does, then over pictures: (..., K) both -> ()."""
    return ((loss * counted).sum(-1) / counted.sum(-1).clamp(min=1)).mean()


def counted_classes(truth: Tensor, valid: Tensor, classes: str) -> Tensor:
    """Which classes a mean is over, bool: truth (..., K, N) and valid (..., N) -> (..., K).

    classes  "present": those with a pixel; "all": every one, if any pixel is labelled
    """
    if classes == "present":
        return truth.any(-1)
    if classes == "all":
        return valid.any(-1, keepdim=True).expand(truth.shape[:-1])
    raise EyelineError(f'classes is "present" or "all", not {classes!r}')
