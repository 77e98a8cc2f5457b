"""What detectors tell a watcher of their candidates: where each comes from, what dropped the rest.

Called by `note` where somebody watches, and nowhere else.

Letters   B pictures, L levels, N_l anchors of level l, N in all, K classes, P regions, C
          candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from eyeline.ops.boxes import clip
from eyeline.ops.deltas import UNIT, decode
from eyeline.ops.select import with_child
from eyeline.ops.suppression import HARD
from eyeline.structures import Candidates


def every_box(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    sizes: Tensor,
    weights: Sequence[float] = UNIT,
) -> Candidates:
    """The boxes of all anchors, before anything is dropped.

    Of each level logits (B, N_l) or (B, N_l, K), deltas (B, N_l, 4) and anchors (N_l, 4);
    sizes (B, 2); weights of the deltas.
    """
    scores = torch.cat(list(logits), 1).sigmoid()
    moved = decode(torch.cat(list(deltas), 1), torch.cat(list(anchors)), weights)
    boxes = clip(moved, sizes[:, None])
    if scores.ndim == 2:
        return Candidates(boxes, scores, torch.ones_like(scores, dtype=torch.bool))
    best = scores.amax(-1)
    valid = torch.ones_like(best, dtype=torch.bool)
    return Candidates(boxes, best, valid, class_scores=scores)


def best_of_levels(
    boxes: Tensor, logits: Tensor, rows: Sequence[Tensor], levels: Sequence[Tensor], limit: int
) -> Candidates:
    """The best `limit` of each level: boxes (B, L, k, 4) and logits (B, L, k), -inf in empty slots;
    rows (B, k_l) among the anchors of each level, of which `levels` (B, N_l) has the logits."""
    first = list(accumulate((level.shape[1] for level in levels), initial=0))
    parent = torch.zeros_like(logits, dtype=torch.int64)
    for i, row in enumerate(rows):
        parent[:, i, : row.shape[1]] = row + first[i]
    valid, parent = (logits > -torch.inf).flatten(1), parent.flatten(1)
    return Candidates(
        boxes.flatten(1, 2), logits.flatten(1).sigmoid(), valid, parent,
        dropped={"top-k": ~with_child(parent, valid, first[-1])}, limits={"top-k": limit},
    )  # fmt: skip


def of_proposals(
    boxes: Tensor, logits: Tensor, large: Tensor, nms_iou: float, limit: int
) -> Candidates:
    """What NMS level by level leaves of boxes (B, L, k, 4) that are large enough, the best `limit`
    of all levels; logits (B, L, k), -inf in empty slots."""
    level = torch.arange(boxes.shape[1], device=boxes.device)[None, :, None]
    found = HARD.shown(
        boxes.flatten(1, 2), logits.flatten(1), level.expand(logits.shape).flatten(1),
        (logits > -torch.inf).flatten(1), nms_iou, limit, large.flatten(1),
    )  # fmt: skip
    return found._replace(scores=found.scores.sigmoid(), labels=None)


def of_regions(boxes: Tensor, valid: Tensor, scores: Tensor) -> Candidates:
    """Boxes (B, P, 4) with the scores of their classes (B, P, K): each comes from itself."""
    same = torch.arange(boxes.shape[1], device=boxes.device).expand(boxes.shape[:2])
    return Candidates(boxes, scores.amax(-1), valid, same, class_scores=scores)


def over_threshold(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    valid: Tensor,
    pair: Tensor,
    class_scores: Tensor,
    threshold: float,
) -> Candidates:
    """Candidates (B, C, ...) of one class each; pair (B, C) in class_scores (B, P K)."""
    parent, best = pair // class_scores.shape[2], class_scores.amax(-1)
    kept = with_child(parent, valid, best.shape[1])
    below = best <= threshold
    return Candidates(
        boxes, scores, valid, parent, labels,
        dropped={"score": ~kept & below, "top-k": ~kept & ~below}, limits={"score": threshold},
    )  # fmt: skip


def of_levels(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    valid: Tensor,
    rows: Sequence[Tensor],
    logits: Sequence[Tensor],
    threshold: float,
    limit: int,
) -> Candidates:
    """`over_threshold` of candidates (B, C, ...) that are of rows (B, C_l) among each level's
    anchors, at most `limit` of them; logits (B, N_l, K)."""
    first = list(accumulate((level.shape[1] for level in logits), initial=0))[:-1]
    parent = torch.cat([row + start for row, start in zip(rows, first, strict=True)], 1)
    class_scores = torch.cat(list(logits), 1).sigmoid()
    pair = parent * class_scores.shape[2] + labels
    found = over_threshold(boxes, scores, labels, valid, pair, class_scores, threshold)
    return found._replace(limits={"score": threshold, "top-k": limit})


def scored(boxes: Tensor, scores: Tensor) -> Candidates:
    """All boxes (B, N, 4) with the scores (B, N, K) of their classes, before any is dropped."""
    valid = torch.ones(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    return Candidates(boxes, scores.amax(-1), valid, class_scores=scores)


def of_classes(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    valid: Tensor,
    rows: Tensor,
    class_scores: Tensor,
    threshold: float,
    limit: int,
    live: Tensor | None = None,
) -> Candidates:
    """`over_threshold` of candidates (B, C, ...) that are of `rows` (B, C), at most `limit` of each
    class; class_scores (B, N, K). Of the rows those that are not `live` (B, N) were dropped before.
    """
    pair = rows * class_scores.shape[2] + labels
    found = over_threshold(boxes, scores, labels, valid, pair, class_scores, threshold)
    dropped = found.dropped
    if live is not None:
        dropped = {rule: rows & live for rule, rows in dropped.items()}
    return found._replace(dropped=dropped, limits={"score": threshold, "top-k": limit})


def anchors_as_they_stand(anchors: Tensor, background: Tensor) -> Candidates:
    """Anchors (N, 4) before anything moves them; background (B, N): how sure a first step is that
    each holds nothing."""
    boxes = anchors.expand(len(background), -1, -1)
    return Candidates(boxes, 1 - background, torch.ones_like(background, dtype=torch.bool))


def refined_anchors(
    boxes: Tensor, background: Tensor, kept: Tensor, threshold: float
) -> Candidates:
    """The same anchors moved, boxes (B, N, 4), without those that are too sure to be background:
    kept (B, N)."""
    same = torch.arange(boxes.shape[1], device=boxes.device).expand(boxes.shape[:2])
    return Candidates(
        boxes, 1 - background, kept, same,
        dropped={"background": ~kept}, limits={"background": threshold},
    )  # fmt: skip


def every_pair(boxes: Tensor, sure: Tensor, factor: Tensor, classes: Tensor) -> Candidates:
    """All boxes (B, N, 4), whose score is objectness `sure` (B, N) times class, logits (B, N, K).
    What chooses among them is `factor` (B, N) times class."""
    pairs = classes.sigmoid()
    best = (sure[..., None] * pairs).amax(-1)
    return scored(boxes, factor[..., None] * pairs)._replace(scores=best)


def of_pairs(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    valid: Tensor,
    rows: Tensor,
    sure: Tensor,
    factor: Tensor,
    classes: Tensor,
    floor: float,
    threshold: float,
    limit: int,
) -> Candidates:
    """`of_classes` after `every_pair`, of the rows where `sure` is not below a floor; the limit is
    of all classes together."""
    pairs, live = factor[..., None] * classes.sigmoid(), sure >= floor
    found = of_classes(
        boxes, scores, labels, valid, rows, pairs, threshold, limit, live if floor > 0 else None
    )
    if floor <= 0:
        return found
    return found._replace(
        dropped={**found.dropped, "objectness": ~live},
        limits={**found.limits, "objectness": floor},
    )
