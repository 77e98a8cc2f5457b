"""Every object gets an anchor, however little they overlap.

Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, arXiv:1512.02325, sec. 2.2, after
Erhan et al., "Scalable Object Detection using Deep Neural Networks", CVPR 2014, arXiv:1312.2249.

Letters   G objects, N anchors.
"""

from __future__ import annotations

import torch
from torch import Tensor

KINDS = ("distinct", "last")


def claimed(iou: Tensor, kind: str) -> Tensor:
    """Which object (..., N) int64 claims each anchor, -1 where none does.

    iou   (..., G, N) of objects and anchors; -1 where there is no object in that row
    kind  "distinct": the pair that overlaps most is taken out, then the best of the others, until
          each object has an anchor of its own, as in the authors' code. "last": each object claims
          its best, the first of equals, and of those that claim the same one the last gets it,
          as in torchvision.

    An object that no anchor overlaps claims none.
    """
    *lead, objects, anchors = iou.shape
    none = torch.full((*lead, anchors), -1, dtype=torch.int64, device=iou.device)
    if not iou.numel():
        return none
    if kind == "last":
        best, index = iou.max(-1)  # (..., G)
        own = torch.arange(objects, device=iou.device).expand(index.shape)
        return none.scatter_reduce(-1, index, own.where(best > 0, -1), "amax")
    # Others can take at most G - 1 anchors from an object: one of its best G remains.
    best, index = iou.topk(min(objects, anchors))  # (..., G, k)
    size = index.shape[-1]
    for _ in range(objects):
        value, flat = best.flatten(-2).max(-1, keepdim=True)  # (..., 1)
        anchor, taken = index.flatten(-2).gather(-1, flat), flat // size
        before = none.gather(-1, anchor)
        none = none.scatter(-1, anchor, taken.where(value > 0, before))
        row = torch.arange(objects, device=iou.device)[:, None] == taken[..., None]
        best = best.masked_fill(row | (index == anchor[..., None]), -1)
    return none
