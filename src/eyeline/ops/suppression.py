"""What becomes of many boxes on one object: hard or soft NMS, and box voting.

Hard NMS       `eyeline.ops.nms`: whoever overlaps a better box is dropped.
Soft NMS       Bodla et al., "Soft-NMS: Improving Object Detection With One Line of Code", ICCV
               2017, arXiv:1704.04503: its score is lowered instead, and it may return later.
Box voting     Gidaris and Komodakis, "Object Detection via a Multi-Region and Semantic
               Segmentation-Aware CNN Model", ICCV 2015, arXiv:1505.01749, sec. on iterative
               localisation: a kept box becomes the score-weighted mean of all boxes about it.

Letters   N boxes of a row, D detections at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from eyeline.ops.nms import check_candidates, float32_below, nms, nms_padded, plain_iou
from eyeline.ops.select import may_look, take, with_child
from eyeline.structures import Candidates, Padded

KINDS = ("hard", "soft_linear", "soft_gaussian")


@dataclass(frozen=True)
class Suppression:
    """How the last step of a detector thins out its boxes.

    Args:
        kind: one of `KINDS`.
        sigma: of "soft_gaussian"; the paper's 0.5.
        floor: soft NMS drops a box once its score has sunk below this; the authors' code has
            0.001. It lies below a detector's score threshold, which is applied before.
        class_agnostic: boxes of different classes suppress one another (and vote together).
        vote_iou: kept boxes become the mean of the boxes that overlap them at least so much;
            None: no voting.
    """

    kind: str = "hard"
    sigma: float = 0.5
    floor: float = 0.001
    class_agnostic: bool = False
    vote_iou: float | None = None

    def __call__(
        self,
        boxes: Tensor,
        scores: Tensor,
        labels: Tensor,
        valid: Tensor,
        iou_threshold: float,
        max_detections: int,
    ) -> Padded:
        """Boxes (B, N, 4), scores (B, N), labels (B, N) and valid (B, N) to detections (B, D)."""
        return self.select(boxes, scores, labels, valid, iou_threshold, max_detections)[0]

    def select(
        self,
        boxes: Tensor,
        scores: Tensor,
        labels: Tensor,
        valid: Tensor,
        iou_threshold: float,
        max_detections: int,
    ) -> tuple[Padded, Tensor]:
        """The same, and the index (B, D) into N that each detection comes from."""
        groups = None if self.class_agnostic else labels
        if self.kind == "hard":
            index, found = nms_padded(boxes, scores, iou_threshold, max_detections, groups, valid)
            kept_scores = scores.gather(1, index)
        else:
            index, kept_scores, found = soft_nms(
                boxes, scores, self.kind, iou_threshold, max_detections, groups, valid,
                self.sigma, self.floor,
            )  # fmt: skip
        kept, kept_labels = take(boxes, index), labels.gather(1, index)
        if self.vote_iou is not None:
            kept = vote(
                kept, boxes, scores.masked_fill(~valid, 0), self.vote_iou,
                None if self.class_agnostic else kept_labels, groups,
            )  # fmt: skip
        return Padded(kept, kept_scores, kept_labels, found), index

    def shown(
        self,
        boxes: Tensor,
        scores: Tensor,
        labels: Tensor | None,
        valid: Tensor,
        iou_threshold: float,
        max_detections: int,
        large: Tensor | None = None,
    ) -> Candidates:
        """The same for `note`, with what dropped each of the others: "nms" (and which box did),
        "limit", and where `large` (B, N) is False, "size". Without labels all are of one class.

        Among the limits, "floor" tells soft NMS (and "sigma" the Gaussian), "vote" the IoU of box
        voting, and "all classes", 1, that classes do not count."""
        small = torch.zeros_like(valid) if large is None else valid & ~large
        live = valid & ~small
        groups = torch.zeros_like(valid, dtype=torch.int64) if labels is None else labels
        found, index = self.select(boxes, scores, groups, live, iou_threshold, max_detections)
        kept = with_child(index, found.valid, boxes.shape[1])
        suppressor, overlap = torch.full_like(groups, -1), torch.zeros_like(scores)
        if self.kind == "hard":
            for i, row in enumerate(live):
                own = row.nonzero()[:, 0]
                among = None if self.class_agnostic else groups[i, own]
                _, by, iou = nms(
                    boxes[i, own], scores[i, own], iou_threshold, among, max_detections,
                    return_suppressors=True,
                )  # fmt: skip
                suppressor[i, own] = torch.where(by >= 0, own[by.clamp(min=0)], -1)
                overlap[i, own] = iou
            by_nms = suppressor >= 0
        else:  # what has sunk below the floor; without a limit all others are there
            count = boxes.shape[1]
            left, rows = self.select(boxes, scores, groups, live, iou_threshold, count)
            by_nms = live & ~with_child(rows, left.valid, count)
        limits = {"nms": iou_threshold, "limit": float(max_detections)}
        if self.kind != "hard":
            limits["floor"] = self.floor
        if self.kind == "soft_gaussian":
            limits["sigma"] = self.sigma
        if self.vote_iou is not None:
            limits["vote"] = self.vote_iou
        if self.class_agnostic and labels is not None:
            limits["all classes"] = 1.0
        return Candidates(
            found.boxes,
            found.scores,
            found.valid,
            index,
            None if labels is None else found.labels,
            dropped={"size": small, "nms": by_nms, "limit": live & ~kept & ~by_nms},
            limits=limits,
            suppressor=suppressor,
            overlap=overlap,
        )


HARD = Suppression()


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    kind: str,
    iou_threshold: float,
    max_detections: int,
    groups: Tensor | None = None,
    valid: Tensor | None = None,
    sigma: float = 0.5,
    floor: float = 0.001,
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft NMS of many rows at once, in fixed shapes; of equal scores the first is taken first.

    boxes (..., N, 4), scores (..., N) in [0, 1], groups (..., N) int64, valid (..., N) bool: False
    where a row is padding. Each turn keeps the best box left and multiplies the scores of the
    others of its group by

        soft_linear     1 - IoU where IoU > iou_threshold, else 1          (eq. 2)
        soft_gaussian   exp(-IoU^2 / sigma), whatever the threshold        (eq. 3)

    A box whose score is below `floor` is dropped, at once and for good, as in the authors' code
    (which spares the best box of all; here it has to reach the floor too).

    Returns index (..., D) int64 into N, best first, the lowered scores (..., D) and found (..., D)
    bool; where found is False, index and score are 0.
    """
    lead, n = scores.shape[:-1], scores.shape[-1]
    if scores.numel() == 0 or scores.is_meta:  # shapes alone
        index = torch.zeros(*lead, max_detections, dtype=torch.int64, device=boxes.device)
        return index, index.to(scores.dtype), index > 0
    live = torch.isfinite(scores) if valid is None else valid
    b, s, v = boxes.reshape(-1, n, 4).float(), scores.reshape(-1, n), live.reshape(-1, n)
    if may_look(s):
        check_candidates(b[v], s[v], iou_threshold)
    left = torch.where(v & (s >= floor), s, -math.inf)
    place = torch.arange(n, device=b.device)
    g = torch.zeros_like(s, dtype=torch.int64) if groups is None else groups.reshape(-1, n)
    slot = torch.arange(max_detections, device=b.device)
    threshold = float32_below(iou_threshold)
    index = torch.full((len(b), max_detections), n, dtype=torch.int64, device=b.device)
    kept = torch.zeros(len(b), max_detections, dtype=left.dtype, device=b.device)
    turn = torch.zeros((), dtype=torch.int64, device=b.device)

    def cond(turn: Tensor, left: Tensor, index: Tensor, kept: Tensor) -> Tensor:
        return (turn < max_detections) & (left > -math.inf).any()

    def body(
        turn: Tensor, left: Tensor, index: Tensor, kept: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        top = left.amax(-1, keepdim=True)  # (rows, 1)
        best = torch.where((left == top) & (top > -math.inf), place, n).amin(-1, keepdim=True)
        at = best.clamp(max=n - 1)
        iou = plain_iou(take(b, at), b)  # (rows, n); NaN without area, which lowers nothing
        if kind == "soft_linear":
            weight = torch.where(iou > threshold, 1 - iou, 1.0)
        else:
            weight = torch.where(iou > 0, torch.exp(-iou * iou / sigma), 1.0)
        lowered = left * torch.where((g == g.gather(1, at)) & (best < n), weight, 1.0)
        # Dropped boxes are at -inf: times 0 that is NaN, which is not above the floor either.
        left = torch.where((lowered >= floor) & (place != best), lowered, -math.inf)
        here = (slot == turn) & (best < n)
        return turn + 1, left, torch.where(here, best, index), torch.where(here, top, kept)

    state = (turn, left, index, kept)
    if torch.compiler.is_compiling():
        state = torch.while_loop(cond, body, state)
    else:
        for _ in range(max_detections):
            if may_look(s) and not cond(*state):
                break
            state = body(*state)
    _, _, index, kept = state
    found = index < n
    index = torch.where(found, index, 0)
    shape = (*lead, max_detections)
    return index.reshape(shape), kept.reshape(shape), found.reshape(shape)


def vote(
    kept: Tensor,
    boxes: Tensor,
    weights: Tensor,
    iou_threshold: float,
    kept_groups: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Each kept box (..., D, 4) becomes the mean of the boxes (..., N, 4) with IoU at least
    `iou_threshold` to it, weighted with their scores (..., N); those of another group (..., D) and
    (..., N) have no say. A box for which nobody votes stays as it is."""
    kept_, boxes_ = kept[..., :, None, :], boxes[..., None, :, :]
    heard = plain_iou(kept_, boxes_) >= iou_threshold  # (..., D, N)
    if groups is not None and kept_groups is not None:
        heard = heard & (kept_groups[..., :, None] == groups[..., None, :])
    weight = torch.where(heard, weights.clamp(min=0)[..., None, :], 0.0)
    total = weight.sum(-1, keepdim=True)  # (..., D, 1)
    # Of differences, not of coordinates: a lone box stays where it is to the last bit.
    shift = (weight[..., None] * (boxes_ - kept_)).sum(-2) / torch.where(total > 0, total, 1)
    return kept + shift


def soft_nms_plain(
    boxes: Tensor,
    scores: Tensor,
    kind: str,
    iou_threshold: float,
    max_detections: int | None = None,
    groups: Tensor | None = None,
    sigma: float = 0.5,
    floor: float = 0.001,
) -> tuple[Tensor, Tensor]:
    """`soft_nms` of one row, one box after another: the slow twin. Index and scores of the kept."""
    left = [i for i in range(len(boxes)) if scores[i] >= floor]
    lowered = scores.clone()
    keep: list[int] = []
    while left and len(keep) != max_detections:
        best = max(left, key=lambda i: float(lowered[i]))  # the first of equals
        left.remove(best)
        keep.append(best)
        for i in [i for i in left if groups is None or groups[i] == groups[best]]:
            iou = plain_iou(boxes[best].float(), boxes[i].float())
            if kind == "soft_linear" and iou > iou_threshold:
                lowered[i] *= 1 - iou
            if kind == "soft_gaussian" and iou > 0:
                lowered[i] *= torch.exp(-iou * iou / sigma)
            if lowered[i] < floor:
                left.remove(i)
    return torch.tensor(keep, dtype=torch.int64, device=boxes.device), lowered[keep]
