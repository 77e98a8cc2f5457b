"""The losses of segmentation by name, so that a recipe can say `losses: [cross_entropy, dice]`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.losses.boundary import boundary_loss
from eyeline.losses.entropy import cross_entropy, ohem_cross_entropy
from eyeline.losses.focal import softmax_focal_loss
from eyeline.losses.lovasz import lovasz_softmax
from eyeline.losses.overlap import dice_loss, tversky_loss
from eyeline.ops.labels import IGNORE

SEGMENTATION_LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "ohem": ohem_cross_entropy,
    "focal": softmax_focal_loss,
    "dice": dice_loss,
    "tversky": tversky_loss,
    "lovasz": lovasz_softmax,
    "boundary": boundary_loss,
}


# They are means over pixels, which may weigh by their class; the others weigh regions.
WEIGHTED = ("cross_entropy", "ohem", "focal")


def segmentation_loss(
    name: str,
    logits: Tensor,
    target: Tensor,
    weights: Tensor | Sequence[float] | None = None,
    ignore: int = IGNORE,
    **options: Any,
) -> Tensor:
    """The loss of that name: ().

    logits   (B, K, H, W), any number; what K = 1 means see `eyeline.losses.pixels`
    target   (B, H, W) int64, classes 0 .. K-1, or `ignore`
    weights  (K,), of each class; the losses that compare whole regions ("dice", "tversky",
             "lovasz", "boundary") count every class alike and leave them out
    options  others of the function, as `smoothing` of "cross_entropy"

    At least float32 whatever the logits' dtype; finite, gradients too, for every logit up to
    1e30 in size; 0 with gradients 0 where every pixel is ignored.

    Raises EyelineError for a name that is none, shapes that do not fit, and, where it can be seen
    without waiting for a GPU, a label that is neither a class nor `ignore`.
    """
    if name not in SEGMENTATION_LOSSES:
        raise EyelineError(
            f"no loss of segmentation is called {name!r}; there are: "
            f"{', '.join(SEGMENTATION_LOSSES)}"
        )
    if name in WEIGHTED:
        options["weights"] = weights
    return SEGMENTATION_LOSSES[name](logits, target, ignore=ignore, **options)
