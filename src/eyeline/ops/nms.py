"""Non-maximum suppression: exact, greedy, ties in the order they come.

The best box is kept and every later box of its group that overlaps it by more than the threshold
is dropped; then the best of those left, and so on. IoU is computed in float32 and compared with
the threshold as given, as torchvision does on a CPU.
"""

from __future__ import annotations

import math
from typing import Literal, overload

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.ops.select import highest, may_look, take
from eyeline.ops.whole import kept_whole

ROUNDS = 32  # between two looks of the host
ROWS = 8  # whose IoU matrices in float32 are held at once
BLOCK = 1024  # boxes taken up at once; 512 to 2048 measure alike (benchmarks/bench_ops.py)


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

    Raises EyelineError for NaN, for infinite boxes and for a negative threshold.
    """
    check_candidates(boxes, scores, iou_threshold)
    order = scores.argsort(descending=True, stable=True)
    limit = len(order) if max_detections is None else max_detections
    boxes = boxes.index_select(0, order).float()
    groups = None if groups is None else groups.index_select(0, order)
    kept, dropped_by = _greedy(boxes, groups, iou_threshold, limit)
    if not return_suppressors:
        return order[kept]
    lost = torch.isin(dropped_by, kept)
    suppressor, iou = torch.full_like(order, -1), torch.zeros_like(boxes[:, 0])
    suppressor[order[lost]] = order[dropped_by[lost]]
    iou[order[lost]] = plain_iou(boxes[lost], boxes[dropped_by[lost]])
    return order[kept], suppressor, iou


def check_candidates(boxes: Tensor, scores: Tensor, iou_threshold: float) -> None:
    """Raises EyelineError for other shapes, a threshold below 0, and what is not finite."""
    if boxes.shape != (*scores.shape, 4) or scores.dim() != 1:
        raise EyelineError(
            f"nms got boxes {tuple(boxes.shape)} and scores {tuple(scores.shape)}: give (N, 4) "
            "and (N,)"
        )
    if not iou_threshold >= 0:
        raise EyelineError(f"nms got IoU threshold {iou_threshold}: give one in [0, 1]")
    bad = ~boxes.isfinite().all(1) | scores.isnan()
    if bad.any():
        i = int(bad.nonzero()[0])
        raise EyelineError(
            f"nms got box {i} of {len(boxes)} with coordinates {boxes[i].tolist()} and score "
            f"{float(scores[i])}: not finite, so it has no place in the order; look for a network "
            "that has diverged"
        )


def _greedy(
    boxes: Tensor, groups: Tensor | None, threshold: float, limit: int
) -> tuple[Tensor, Tensor]:
    """Of boxes sorted best first: positions kept, and by which position each was dropped or N."""
    left = torch.arange(len(boxes), device=boxes.device)
    kept, dropped_by = left[:0], torch.full_like(left, len(boxes))
    while len(left) and len(kept) < limit:
        size = min(max(BLOCK, 2 * len(kept)), len(left))
        rivals, left = torch.cat([kept, left[:size]]), left[size:]
        better, worse = _overlapping(
            boxes[rivals], None if groups is None else groups[rivals], threshold
        )
        alive = _resolve(better, worse, len(rivals))
        acted = alive[better].nonzero()[:, 0]
        dropped_by.scatter_reduce_(0, rivals[worse[acted]], rivals[better[acted]], "amin")
        kept = rivals[alive]
    return kept[:limit], dropped_by


def _resolve(better: Tensor, worse: Tensor, count: int) -> Tensor:
    """Who is left (count,) bool, where each pair drops its worse unless its better was dropped."""
    better, by_better = better.sort()
    rows, lengths = (x.tolist() for x in better.unique_consecutive(return_counts=True))
    dropped = worse[by_better].cpu().numpy()
    alive, first = np.ones(count, dtype=bool), 0
    for row, length in zip(rows, lengths, strict=True):
        if alive[row]:
            alive[dropped[first : first + length]] = False
        first += length
    return torch.from_numpy(alive).to(better.device)


def _overlapping(boxes: Tensor, groups: Tensor | None, threshold: float) -> tuple[Tensor, Tensor]:
    """All pairs of one group with IoU above the threshold: lower index (P,), higher index (P,).

    A sweep over left edges. Where box j begins right of box i, their intersection is at most
    x2_i - x1_j wide, and must be wider than threshold * (x2_i - x1_i): so j begins within
    (1 - threshold) of the width of i. Only such pairs, a few in a hundred, are compared.
    """
    x1, top, x2, bottom = boxes.double().unbind(1)
    reach = x1 + (x2 - x1) * (1 - threshold + 1e-4)  # more than float32 can round away
    if groups is not None and len(boxes):  # each group on a stretch of the line that none reaches
        rank = groups.unique(return_inverse=True)[1]
        start = rank * 2 * (torch.maximum(x1, x2).max() - torch.minimum(x1, x2).min() + 1)
        x1, reach = x1 + start, reach + start
    x1, order = x1.sort()
    top, bottom = top[order], bottom[order]
    place = torch.arange(len(boxes), device=boxes.device)
    count = torch.searchsorted(x1, reach[order], right=True) - place - 1  # those swept after i
    pairs = []
    for i, n in zip(place.split(BLOCK), count.clamp(min=0).split(BLOCK), strict=True):
        first = (i + 1 - n.cumsum(0) + n).repeat_interleave(n)
        i = i.repeat_interleave(n)
        j = first + torch.arange(len(i), device=i.device)
        # index_select: several times as fast here as indexing with brackets
        cross = (top.index_select(0, i) < bottom.index_select(0, j)) & (
            top.index_select(0, j) < bottom.index_select(0, i)
        )
        i, j = _select(cross, order.index_select(0, i), order.index_select(0, j))
        iou = plain_iou(boxes.index_select(0, i), boxes.index_select(0, j))
        over = iou > float32_below(threshold)
        pairs.append(torch.stack(_select(over, i, j)))
    i, j = torch.cat(pairs, 1) if pairs else (place, place)
    return torch.minimum(i, j), torch.maximum(i, j)


def _select(where: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    index = where.nonzero()[:, 0]
    return tuple(value.index_select(0, index) for value in values)


def plain_iou(a: Tensor, b: Tensor) -> Tensor:
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

    On a CPU each row runs the fast form. Elsewhere all rows go together, in shapes that do not
    depend on the data. Where few boxes are to be kept of many, one of every row is picked a turn,
    `max_detections` turns, and the host reads nothing (a compiled loop ends when nobody is left,
    and is read for it). Where most may be kept, N at most 2 D, all rows are decided in rounds, a
    few for usual boxes but up to N: after every ROUNDS of them the host looks whether more are
    needed. An export may keep it whole, see `eyeline.ops.whole`.

    Raises EyelineError for what is not finite, on a CPU; elsewhere it is not looked for.
    """
    lead, n = scores.shape[:-1], scores.shape[-1]
    live = scores != -math.inf
    if valid is not None:
        live = live & valid
    if scores.numel() == 0 or scores.is_meta:  # shapes alone
        index = torch.zeros(*lead, max_detections, dtype=torch.int64, device=boxes.device)
        return index, index > 0
    b, s, v = boxes.reshape(-1, n, 4), scores.reshape(-1, n), live.reshape(-1, n)
    g = None if groups is None else groups.reshape(-1, n)
    form = _padded_rows
    if kept_whole():
        form = _padded_whole
    elif torch.compiler.is_compiling() or (not may_look(boxes) and n > 2 * max_detections):
        form = _padded_loop
    elif not may_look(boxes):
        form = _padded_rounds
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


def _padded_whole(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    max_detections: int,
    groups: Tensor | None,
    valid: Tensor,
) -> tuple[Tensor, Tensor]:
    threshold = float32_below(iou_threshold)
    kept = torch.ops.eyeline.nms_kept(
        boxes.float(), scores, valid, groups, threshold, max_detections
    )
    best, index = highest(scores.masked_fill(~kept, -math.inf), max_detections)
    missing = (0, max_detections - index.shape[1])
    found = F.pad(best > -math.inf, missing)
    return torch.where(found, F.pad(index, missing), 0), found


def _padded_loop(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    max_detections: int,
    groups: Tensor | None,
    valid: Tensor,
) -> tuple[Tensor, Tensor]:
    rows, n = scores.shape
    nobody = torch.full((), n, device=boxes.device)  # a tensor: an export leaves n open
    threshold = float32_below(iou_threshold)
    order = scores.masked_fill(~valid, -math.inf).sort(stable=True, dim=-1, descending=True)[1]
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
        best = torch.where(live, place, nobody).amin(-1, keepdim=True)  # (rows, 1)
        at = torch.minimum(best, nobody - 1)
        box = b.gather(1, at[..., None].expand(-1, -1, 4))
        over = (plain_iou(box, b) > threshold) & (g == g.gather(1, at))
        live = live & ~over & (place != best)
        return turn + 1, live, torch.where(slot == turn, best, index)

    state = (turn, live, index)
    if torch.compiler.is_compiling():
        state = torch.while_loop(cond, body, state)
    else:
        for _ in range(max_detections):  # turns that find nobody change nothing
            state = body(*state)
    _, _, index = state
    found = index < n
    return torch.where(found, order.gather(1, index.clamp(max=n - 1)), 0), found


def _padded_rounds(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    max_detections: int,
    groups: Tensor | None,
    valid: Tensor,
) -> tuple[Tensor, Tensor]:
    """Every box at once, round after round: kept if all better ones that overlap it are dropped,
    dropped if one of them is kept."""
    n = scores.shape[1]
    order = scores.masked_fill(~valid, -math.inf).sort(stable=True, dim=-1, descending=True)[1]
    b = take(boxes.float(), order)
    threshold = float32_below(iou_threshold)
    over = torch.cat([plain_iou(a[:, :, None], a[:, None]) > threshold for a in b.split(ROWS)])
    over = over.tril(-1)  # (rows, N, N); [i, j]: j is better than i
    if groups is not None:
        g = groups.gather(1, order)
        over = over & (g[:, :, None] == g[:, None])
    rivals = over.to(torch.float32 if boxes.device.type == "cpu" else torch.float16)
    del over
    open_ = valid.gather(1, order)
    kept = torch.zeros_like(open_)

    def beaten(by: Tensor) -> Tensor:
        return (rivals @ by.to(rivals.dtype)[..., None])[..., 0] > 0

    for turn in range(n):
        if turn % ROUNDS == 0 and turn and not _any_left(open_):
            break
        kept = kept | (open_ & ~beaten(open_))
        open_ = open_ & ~kept & ~beaten(kept)
    best, place = highest(torch.where(kept, -torch.arange(n, device=b.device), -n), max_detections)
    missing = (0, max_detections - best.shape[1])
    found = F.pad(best > -n, missing)
    return torch.where(found, F.pad(order.gather(1, place), missing), 0), found


def _any_left(open_: Tensor) -> bool:
    """The host's one look at the device in NMS."""
    return bool(open_.any())


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
        ious = plain_iou(boxes[i].float(), boxes[rivals].float()).tolist()
        if not any(iou > iou_threshold for iou in ious):
            keep.append(i)
    return torch.tensor(keep, dtype=torch.int64, device=boxes.device)
