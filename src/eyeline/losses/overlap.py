"""Losses that grow as regions part: Dice and Tversky.

Dice      Milletari et al., "V-Net: Fully Convolutional Neural Networks for Volumetric Medical
          Image Segmentation", 3DV 2016, arXiv:1606.04797, sec. 3. Departs: plain sums below,
          as in most code, where the paper has sums of squares.
Tversky   Salehi et al., "Tversky loss function for image segmentation using 3D fully
          convolutional deep networks", MLMI 2017, arXiv:1706.05721, eq. 3.

Of one class, p the probabilities and g the truth (0 or 1) of all its pixels:

          I = sum p g     FP = sum p (1 - g)     FN = sum (1 - p) g
          Tversky = I / (I + alpha FP + beta FN)        Dice = Tversky at alpha = beta = 1/2
"""

from __future__ import annotations

from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.losses.pixels import counted_classes, mean_of_classes, pixels
from eyeline.ops.labels import IGNORE

EPS = 1e-7  # the least that is divided by


def dice_loss(
    logits: Tensor,
    target: Tensor,
    classes: str = "present",
    per_image: bool = False,
    smooth: float = 0.0,
    ignore: int = IGNORE,
) -> Tensor:
    """Mean over classes of 1 - (2 I + smooth) / (sum p + sum g + smooth): (), in [0, 1].

    See `tversky_loss`, of which it is the case alpha = beta = 1/2 with half of `smooth`.
    """
    return tversky_loss(logits, target, 0.5, 0.5, classes, per_image, smooth / 2, ignore)


def tversky_loss(
    logits: Tensor,
    target: Tensor,
    alpha: float = 0.3,
    beta: float = 0.7,
    classes: str = "present",
    per_image: bool = False,
    smooth: float = 0.0,
    ignore: int = IGNORE,
) -> Tensor:
    """Mean over classes of 1 - (I + smooth) / (I + alpha FP + beta FN + smooth): (), in [0, 1].

    logits     (B, K, H, W), any number; with K = 1 the one class's sigmoid alone is compared
    target     (B, H, W) int64, classes 0 .. K-1, or `ignore`
    alpha      weight of false positives, 0 or more
    beta       weight of false negatives, 0 or more; above alpha it asks for recall
    classes    the mean is over those "present" in the truth, or over "all": an absent one then
               costs 1 - smooth / (alpha FP + smooth), and without `smooth` 1 and no gradient
    per_image  of each picture by itself, and the mean of all; else of the batch, in each process
               its own

    Without a labelled pixel 0 with gradients 0; so it is with classes="present" and K = 1 where
    the class is nowhere present.
    """
    if min(alpha, beta, smooth) < 0:
        raise EyelineError(
            f"alpha is {alpha}, beta {beta}, smooth {smooth}; each must be 0 or more"
        )
    batch = pixels(logits, target, ignore)
    sums = (2, 3) if per_image else (0, 2, 3)
    p, g = batch.probabilities()[:, batch.first :], batch.truth()[:, batch.first :]
    both = p.where(g, 0).sum(sums)  # I: (B, K) or (K,)
    wrong = alpha * (p.sum(sums) - both) + beta * (g.sum(sums) - both)  # FP = sum p - I, and FN
    share = (both + smooth) / (both + wrong + smooth).clamp(min=EPS)
    loss = (1 - share).clamp(min=0)  # FP and FN are rounded
    known = batch.valid.flatten(1)  # (B, N)
    g = g.flatten(2)  # (B, K, N)
    if not per_image:
        known, g = known.flatten(), g.transpose(0, 1).flatten(1)
    return mean_of_classes(loss, counted_classes(g, known, classes))
