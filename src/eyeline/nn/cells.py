"""What YOLO's versions share: cells that answer for the objects whose centres lie in them, and the
(prior, class) pairs that become detections.

Redmon et al., "You Only Look Once", CVPR 2016, arXiv:1506.02640, sec. 2; Redmon and Farhadi,
"YOLO9000", CVPR 2017, arXiv:1612.08242, sec. 2.

Letters   B pictures, K classes, G objects, P priors of all scales, N priors in all their cells,
          C pairs at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eyeline.ops.anchors import anchor_grid
from eyeline.ops.boxes import convert
from eyeline.ops.matching import Objects
from eyeline.ops.select import highest, numbers, slots

LOG_CLAMP = 4.135  # of a side's growth, log 62.5
KINDS = ("logistic", "linear", "anchor")


def split(output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Moves (..., 4), objectness (...) and classes (..., K) of outputs (..., 5 + K)."""
    return output[..., :4], output[..., 4], output[..., 5:]


def priors_in_cells(shapes: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Priors (h w A, 4) of widths and heights (A, 2), amid each cell of a map (h, w)."""
    return anchor_grid(torch.cat([-shapes / 2, shapes / 2], 1), size, (stride, stride))


def moved(moves: Tensor, priors: Tensor, strides: Tensor | float, kind: str = "logistic") -> Tensor:
    """Boxes (..., 4) that moves (..., 4) make of priors (N, 4) in cells of `strides` (N, 1).

    kind  how the centre moves: "logistic", within its cell (YOLO9000, Fig. 3); "linear", in cells;
          "anchor", in widths and heights of the prior
    """
    t_xy, t_wh = moves.split(2, -1)
    centre, size = convert(priors, "xyxy", "cxcywh").split(2, -1)
    if kind == "logistic":
        centre = centre + (t_xy.sigmoid() - 0.5) * strides
    elif kind == "linear":
        centre = centre + (t_xy - 0.5) * strides
    else:
        centre = centre + t_xy * size
    half = size * t_wh.clamp(max=LOG_CLAMP).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def cells_of(centres: Tensor, strides: Tensor, widths: Tensor, heights: Tensor) -> Tensor:
    """The cell (B, G), row by row, in which each centre (B, G, 2) lies; strides, and the map's
    widths and heights in cells, (B, G). On the right and lower border it is the last one."""
    x, y = (centres / strides[..., None]).floor().long().clamp(min=0).unbind(-1)
    return torch.minimum(y, heights - 1) * widths + torch.minimum(x, widths - 1)


def claimed(
    objects: Objects, shapes: Tensor, strides: Sequence[int], canvas: Sequence[int]
) -> tuple[Tensor, int]:
    """The row (B, G) of N that each object claims, and N: in its centre's cell the prior whose
    shape overlaps its own most, of equal ones the first. Rows that are no objects claim row N.

    shapes   (P, 2) widths and heights, as many at each scale; strides are the scales'
    canvas   height and width of the padded pictures
    """
    centre, size = convert(objects.boxes, "xyxy", "cxcywh").split(2, -1)  # (B, G, 2)
    both = torch.minimum(size[:, :, None], shapes).prod(-1)  # (B, G, P)
    iou = both / (size.prod(-1)[..., None] + shapes.prod(-1) - both)
    prior, per_cell = iou.argmax(-1), len(shapes) // len(strides)  # (B, G)
    first, total = [], 0
    for stride in strides:
        first.append(total)
        total += (canvas[0] // stride) * (canvas[1] // stride) * per_cell
    sides = [[side // stride for stride in strides] for side in canvas]
    stride, start, height, width = (
        numbers(values, size, torch.int64)[prior // per_cell] for values in (strides, first, *sides)
    )
    row = start + cells_of(centre, stride, width, height) * per_cell + prior % per_cell
    return row.masked_fill(~objects.own, total), total


def owners(rows: Tensor, count: int, which: str = "amax") -> Tensor:
    """Of each of `count` rows the object (B, count) that claims it, -1 where none does; of several
    the last ("amax") or the first ("amin"). rows (B, G), `count` for those that claim none."""
    order = torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
    none = torch.full((len(rows), count + 1), -1, dtype=torch.int64, device=rows.device)
    return none.scatter_reduce(1, rows, order, which, include_self=False)[:, :count]


def ones_at(index: Tensor, present: Tensor, like: Tensor) -> Tensor:
    """Class truths (B, N, K) as `like`: 1 at index (B, N) where `present` (B, N)."""
    return torch.zeros_like(like).scatter(2, index[..., None], present[..., None].to(like.dtype))


def best_pairs(
    best: Tensor, scores_of: Callable[[Tensor], Tensor], limit: int, threshold: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The (prior, class) pairs with scores above a threshold, the best first, at most `limit`:
    scores, rows of N, labels, and which slots are filled, each (B, C).

    best       (B, N) the score of each prior's best class, or what has the same order
    scores_of  of rows (B, k) of N the scores (B, k, K)
    """
    # The best pairs lie on as many of the priors with the best pairs.
    _, rows = highest(best, limit)
    scores = scores_of(rows)  # (B, k, K)
    classes, pairs = scores.shape[2], scores.flatten(1)
    if torch.compiler.is_exporting():  # torch cannot follow the lesser of what is a lesser already
        pairs, rows = F.pad(pairs, (0, limit), value=-torch.inf), F.pad(rows, (0, limit))
        top, index = pairs.topk(limit)
    else:
        top, index = highest(pairs, slots(pairs > threshold, limit))  # (B, C)
    return top, rows.gather(1, index // classes), index % classes, top > threshold


def reorg(x: Tensor, kind: str, stride: int = 2) -> Tensor:
    """(B, C, H, W) to (B, 4 C, H/2, W/2), a larger map's cells to a smaller one's channels; of
    another stride s, (B, s s C, H/s, W/s).

    kind  "adjacent": the four cells of a square become one cell's channels, those of the upper left
          cells first (YOLO9000, sec. 2). "darknet": as the authors' code does, which reads the map
          as one of a quarter of the channels and twice the sides first: what comes to lie in a cell
          is not what was seen there.
    """
    (batch, channels, height, width), s = x.shape, stride
    if kind == "darknet":
        rows = x.reshape(batch, channels * height // s**2, s, width, s)
        return rows.permute(0, 2, 4, 1, 3).reshape(batch, -1, height // s, width // s)
    parts = F.pixel_unshuffle(x, s).unflatten(1, (channels, s**2))  # (B, C, s s, H/s, W/s)
    return parts.transpose(1, 2).flatten(1, 2)
