"""Which negatives hard negative mining took, as plain data for the page's script.

Letters   N anchors, M negatives that were mined, P positives, K classes.
"""

from __future__ import annotations

from typing import Any

import torch

from eyeline.inspection.page.packing import packed, shares
from eyeline.inspection.page.seen import level_names
from eyeline.inspection.xray import XRay
from eyeline.ops.iou import box_iou


def mining(x: XRay, names: list[str]) -> dict[str, Any] | str:
    """The mined negatives, hardest first, and how many were left."""
    if x.target is None:
        return "Give an annotation (--target) to see which negatives mining would take."
    learning = x.learning
    if learning is None:
        return f"Which negatives mining would take is not told: {x.learning_missing}."
    if learning.hardness is None or learning.sample is None:
        return "Does not apply: this model chooses no negatives by their loss."
    hardness, anchors = learning.hardness, torch.cat(x.anchors)
    taken = learning.sample.negative
    taken = taken[hardness[taken].argsort(descending=True, stable=True)]  # (M,)
    left = learning.assignment.matches == -1
    left[taken] = False
    boxes, own = anchors[taken], learning.assignment.boxes[: len(x.crowd)][~x.crowd]
    overlap = box_iou(own, boxes).amax(0) if len(own) else torch.zeros(len(boxes))
    level = torch.cat([torch.full((len(a),), i) for i, a in enumerate(x.anchors)])
    counts = [
        [int((level[rows] == i).sum()) for i in range(len(x.anchors))]
        for rows in (learning.sample.positive, taken, left)
    ]
    found: dict[str, Any] = {
        "count": len(taken),
        "boxes": packed(boxes, "float32"),  # (M, 4)
        "losses": packed(hardness[taken], "float32"),
        "iou": shares(overlap),
        "level": packed(level[taken], "uint8"),
        "levels": level_names(x.pyramid or "", len(x.anchors)),
        "counts": dict(zip(("positive", "mined", "left"), counts, strict=True)),
        "positives": packed(anchors[learning.sample.positive], "float32"),  # (P, 4)
        "easiest": float(hardness[taken[-1]]) if len(taken) else None,
        "hardest_left": float(hardness[left].max()) if left.any() else None,
    }
    scores = x.stages[0].class_scores  # (N, K)
    if scores is not None and len(scores) == len(anchors):
        best, label = scores[taken].max(1)
        found |= {"scores": shares(best), "labels": packed(label, "uint16"), "classes": names}
    return found
