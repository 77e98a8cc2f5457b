"""Non-maximum suppression: exact, greedy, ties in the order they come.

The best box is kept and every later box of its group that overlaps it by more than the threshold
is dropped; then the best of those left, and so on.
"""

from __future__ import annotations

import math
from typing import Literal, overload

import torch
from torch import Tensor

from eyeline.errors import EyelineError

BLOCK = 1024  # boxes compared at once


@overload
def nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, groups: Tensor | None = ...,
    max_detections: int | None = ..., return_suppressors: Literal[False] = ...,
) -> Tensor: ...  # fmt: skip
@overload
def nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, groups: Tensor | None = ...,
    max_detections: int | None = ..., *, return_suppressors: Literal[True],
) -> tuple[Tensor, Tensor, Tensor]: ...  # fmt: skip
def nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    groups: Tensor | None = None,
    max_detections: int | None = None,
    return_suppressors: bool = False,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Indices of the boxes that survive, best first.

    boxes (N, 4) xyxy; scores (N,); groups (N,) int64, classes or levels that never suppress one
    another. A box is dropped where its IoU with a kept one is above `iou_threshold`, strictly.
    At most `max_detections` are kept.

    With `return_suppressors` also, for each box, the index (N,) of the kept box that dropped it
    (the best one; -1 for kept boxes and for those that were left when enough were kept) and
    their IoU (N,), 0 where the index is -1.

    Raises EyelineError for NaN in boxes or scores.
    """
    for name, value in (("boxes", boxes), ("scores", scores)):
        bad = value.isnan().reshape(len(scores), boxes.shape[1] if name == 'boxes' else 1).any(1)
        if bad.any():
            i = int(bad.nonzero()[0])
            raise EyelineError(
                f"{name}[{i}] is NaN: non-maximum suppression has no order for it; look for a "
                "learning rate too high or an image that is not finite"
            )
    order = scores.argsort(descending=True, stable=True)
    limit = len(order) if max_detections is None else max_detections
    b = boxes[order].float()
    g = None if groups is None else groups[order]
    keep = order[_greedy(b, g, iou_threshold, limit)]
    return keep


def _greedy(boxes: Tensor, groups: Tensor | None, threshold: float, limit: int) -> Tensor:
    """Positions kept, of boxes sorted best first."""
    left = torch.arange(len(boxes), device=boxes.device)
    kept = left[:0]
    while len(left) and len(kept) < limit:
        block, left = left.split([n := min(max(BLOCK, 2 * len(kept)), len(left)), len(left) - n])
        rivals = torch.cat([kept, block])  # best first
        better, worse = _overlapping(
            boxes[rivals], None if groups is None else groups[rivals], threshold
        )
        better, by_better = better.sort()
        worse = worse[by_better].cpu().numpy()
        who, count = (x.tolist() for x in better.unique_consecutive(return_counts=True))
        alive = torch.ones(len(rivals), dtype=torch.bool)
        state, first = alive.numpy(), 0
        for i, n in zip(who, count, strict=True):
            if state[i]:
                state[worse[first : first + n]] = False
            first += n
        kept = rivals[alive.to(rivals.device)]
    return kept[:limit]


def _overlapping(
    boxes: Tensor, groups: Tensor | None, threshold: float
) -> tuple[Tensor, Tensor]:
    """All pairs of one group with IoU above the threshold, (P,) lower and (P,) higher index.

    Boxes are swept by their left edges. An intersection is at most x2_i - x1_j wide where box j
    begins right of box i, and must be wider than threshold * (x2_i - x1_i): so j begins within
    (1 - threshold) of the width of i, and only such pairs, few per cent of all, are compared.
    """
    left, right = boxes[:, 0].double(), boxes[:, 2].double()
    reach = left + (right - left) * (1 - threshold + 1e-4)  # more than float32 can round away
    if groups is not None:  # each group on its own stretch of the line
        apart = groups.unique(return_inverse=True)[1] * (right.max() - left.min() + 1).abs() * 2
        left, reach = left + apart, reach + apart
    left, order = left.sort()
    place = torch.arange(len(boxes), device=boxes.device)
    count = (torch.searchsorted(left, reach[order], right=True) - place - 1).clamp(min=0)
    i = place.repeat_interleave(count)
    before = count.cumsum(0) - count - place - 1
    j = torch.arange(len(i), device=i.device) - before.index_select(0, i)
    top, bottom = boxes[order, 1], boxes[order, 3]
    over = (top.index_select(0, i) < bottom.index_select(0, j)) & (
        top.index_select(0, j) < bottom.index_select(0, i)
    )
    over = over.nonzero()[:, 0]
    i, j = i.index_select(0, over), j.index_select(0, over)
    i, j = order.index_select(0, i), order.index_select(0, j)
    over = _iou(boxes.index_select(0, i), boxes.index_select(0, j)) > float32_below(threshold)
    if groups is not None:
        over &= groups.index_select(0, i) == groups.index_select(0, j)
    over = over.nonzero()[:, 0]
    i, j = i.index_select(0, over), j.index_select(0, over)
    return torch.minimum(i, j), torch.maximum(i, j)


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes (..., 4) that broadcast; 0 or NaN, never above a threshold, without area."""
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    inter = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    inter = inter * (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    return inter / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inter)


def float32_below(value: float) -> float:
    """The largest float32 not above `value` >= 0: `iou > value` then is exact in float32."""
    mantissa, exponent = math.frexp(value)
    return math.ldexp(math.floor(math.ldexp(mantissa, 24)), exponent - 24)


def nms_padded(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    max_detections: int,
    groups: Tensor | None = None,
    valid: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`nms` of many rows at once, in fixed shapes.

    boxes (..., N, 4), scores (..., N), groups (..., N) int64, valid (..., N) bool: False where
    a row is padding; a score of -inf says the same. Returns index (..., D) int64 into N, best
    first, and valid (..., D) bool; D is max_detections, index is 0 where valid is False.

    In eager mode each row runs the fast form; while compiling, a loop on the device picks one box
    of every row a turn, without synchronisation and with shapes that do not depend on the data.
    """
    lead = scores.shape[:-1]
    n = scores.shape[-1]
    live = scores > -math.inf
    if valid is not None:
        live = live & valid
    b, s, v = boxes.reshape(-1, n, 4), scores.reshape(-1, n), live.reshape(-1, n)
    g = None if groups is None else groups.reshape(-1, n)
    form = _padded_loop if torch.compiler.is_compiling() else _padded_rows
    index, found = form(b, s, iou_threshold, max_detections, g, v)
    return index.reshape(*lead, max_detections), found.reshape(*lead, max_detections)


def _padded_rows(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    max_detections: int,
    groups: Tensor | None,
    valid: Tensor,
) -> tuple[Tensor, Tensor]:
    index = torch.zeros(len(boxes), max_detections, dtype=torch.int64, device=boxes.device)
    found = torch.zeros_like(index, dtype=torch.bool)
    for row in range(len(boxes)):
        candidates = valid[row].nonzero()[:, 0]
        keep = nms(
            boxes[row, candidates],
            scores[row, candidates],
            iou_threshold,
            None if groups is None else groups[row, candidates],
            max_detections,
        )
        index[row, : len(keep)] = candidates[keep]
        found[row, : len(keep)] = True
    return index, found


def _padded_loop(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    max_detections: int,
    groups: Tensor | None,
    valid: Tensor,
) -> tuple[Tensor, Tensor]:
    rows, n = scores.shape
    threshold = float32_below(iou_threshold)
    order = scores.masked_fill(~valid, -math.inf).argsort(-1, descending=True, stable=True)
    b = boxes.float().gather(1, order[..., None].expand(-1, -1, 4))
    live = valid.gather(1, order)
    g = torch.zeros_like(order) if groups is None else groups.gather(1, order)
    place = torch.arange(n, device=boxes.device)
    slot = torch.arange(max_detections, device=boxes.device)
    index = torch.full((rows, max_detections), n, dtype=torch.int64, device=boxes.device)
    turn = torch.zeros((), dtype=torch.int64, device=boxes.device)

    def cond(turn: Tensor, live: Tensor, index: Tensor) -> Tensor:
        return (turn < max_detections) & live.any()

    def body(turn: Tensor, live: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        best = torch.where(live, place, n).amin(-1, keepdim=True)  # (rows, 1), n: none is left
        at = best.clamp(max=n - 1)
        box = b.gather(1, at[..., None].expand(-1, -1, 4))
        over = (_iou(box, b) > threshold) & (g == g.gather(1, at))
        live = live & ~over & (place != best)
        return turn + 1, live, torch.where(slot == turn, best, index)

    _, _, index = torch.while_loop(cond, body, (turn, live, index))
    found = index < n
    return torch.where(found, order.gather(1, index.clamp(max=n - 1)), 0), found


def nms_plain(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    groups: Tensor | None = None,
    max_detections: int | None = None,
) -> Tensor:
    """`nms`, one box after another: the slow twin."""
    keep: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if max_detections is not None and len(keep) == max_detections:
            break
        rivals = [j for j in keep if groups is None or groups[i] == groups[j]]
        ious = _iou(boxes[i].float(), boxes[rivals].float()).tolist()
        if not any(iou > iou_threshold for iou in ious):
            keep.append(i)
    return torch.tensor(keep, dtype=torch.int64, device=boxes.device)
