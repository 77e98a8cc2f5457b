"""Which anchor, or region, answers for which object.

Ren et al., "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497, sec. 3.1.2.

Letters   G objects, N anchors (or regions).
"""

from __future__ import annotations

import torch
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.ops.iou import box_ioa

BACKGROUND = -1
IGNORED = -2


def match(
    iou: Tensor,
    foreground: float,
    background: float,
    force_match: bool = False,
    ignored: Tensor | None = None,
) -> Tensor:
    """For each anchor (N,) int64: the index of its object, BACKGROUND (-1) or IGNORED (-2).

    iou          (G, N) of objects and anchors
    foreground   an anchor belongs to the object it overlaps most, from this IoU on
    background   below this IoU it is background; between the two it is ignored
    force_match  each object claims the anchors it overlaps most, ties included, whatever the IoU;
                 a claimed anchor goes to the object that *it* overlaps most. An object that no
                 anchor overlaps claims none.
    ignored      (N,) bool, anchors that are ignored unless they have an object

    Raises EyelineError where `background` is above `foreground`.
    """
    if background > foreground:
        raise EyelineError(
            f"background IoU {background} is above foreground IoU {foreground}; "
            "it must be the lower, or equal"
        )
    if iou.numel():
        best, index = iou.max(0)
        unmatched = torch.where(best < background, BACKGROUND, IGNORED)
        matches = torch.where(best >= foreground, index, unmatched)
        if force_match:
            claimed = ((iou == iou.amax(1, keepdim=True)) & (iou > 0)).any(0)
            matches = torch.where(claimed, index, matches)
    else:  # no object or no anchor
        matches = iou.new_full((iou.shape[1],), BACKGROUND, dtype=torch.int64)
    if ignored is not None:
        matches = torch.where(ignored & (matches < 0), IGNORED, matches)
    return matches


def ignored_by(anchors: Tensor, ignore_boxes: Tensor, threshold: float = 0.5) -> Tensor:
    """Which anchors (N, 4) lie in one of `ignore_boxes` (I, 4), such as a crowd: (N,) bool.

    An anchor lies in a box that covers `threshold` of the anchor's area or more.
    """
    return (box_ioa(anchors, ignore_boxes) >= threshold).any(-1)
