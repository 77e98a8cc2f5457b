"""Weights of rare and frequent classes, from how many pixels each has.

Median frequency   Eigen and Fergus, "Predicting Depth, Surface Normals and Semantic Labels with
                   a Common Multi-Scale Convolutional Architecture", ICCV 2015, arXiv:1411.4734.
ENet               Paszke et al., "ENet: A Deep Neural Network Architecture for Real-Time
                   Semantic Segmentation", 2016, arXiv:1606.02147: bounded, unlike 1 / frequency.

Ignored pixels are no pixels here: neither paper says whether its pictures' totals have them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.ops.labels import IGNORE, check_labels


def count_pixels(target: Tensor, num_classes: int, ignore: int = IGNORE) -> tuple[Tensor, Tensor]:
    """What the weights are made of; of a whole data set the sums of what this gives.

    target  (B, H, W) or (H, W), classes 0 .. K-1, or `ignore`

    Returns `counts` (K,) int64, pixels of each class, and `present` (K,) int64, labelled pixels of
    the pictures in which it is present, on the CPU.
    """
    target = target.long()
    check_labels(target, num_classes, "a target", ignore)
    counts = torch.zeros(num_classes, dtype=torch.int64)
    present = torch.zeros(num_classes, dtype=torch.int64)
    for picture in target.reshape(-1, *target.shape[-2:]):
        labels = picture[picture != ignore]
        own = torch.bincount(labels, minlength=num_classes).cpu()
        counts += own
        present += (own > 0) * own.sum()
    return counts, present


def median_frequency(counts: Tensor, present: Tensor) -> Tensor:
    """Weights (K,) float32: median of all freq / freq(c).

    freq(c) is the number of pixels of c divided by the total number of pixels of the pictures
    where c is present; of an even number of classes the median is the mean of the middle two.
    A class without pixels has weight 0 and no part in the median.

    counts, present  (K,), see `count_pixels`
    """
    frequency = counts.double() / present.clamp(min=1)
    if not (frequency > 0).any():
        return torch.zeros_like(frequency).float()
    middle = frequency[frequency > 0].quantile(0.5)
    return torch.where(frequency > 0, middle / frequency, 0).float()


def enet_weights(counts: Tensor, c: float = 1.02) -> Tensor:
    """Weights (K,) float32: 1 / ln(c + p), p a class's share of all pixels; with c = 1.02 from
    1.42 (p = 1) to 50.5 (p = 0).

    counts  (K,), see `count_pixels`
    c       above 1
    """
    if not c > 1:
        raise EyelineError(f"c must be above 1, not {c}: a weight would be infinite or negative")
    share = counts.double() / counts.sum().clamp(min=1)
    return ((c + share).log().reciprocal()).float()
