"""Boxes as moves of anchors: Girshick et al., "Rich feature hierarchies", CVPR 2014,
arXiv:1311.2524, appendix C; the weights are Fast R-CNN's (1 over the deltas' usual spread).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

UNIT = (1.0, 1.0, 1.0, 1.0)


def encode(boxes: Tensor, anchors: Tensor, weights: Sequence[float] = UNIT) -> Tensor:
    """The deltas (dx, dy, dw, dh) that move `anchors` onto `boxes`, both (..., 4) xyxy -> (..., 4).

    The centre's shift in widths and heights of the anchor, and the logarithm of the growth, each
    times its weight (eq. 6 to 9). Both boxes need an area.
    """
    x, y, width, height = _centres(boxes)
    anchor_x, anchor_y, anchor_width, anchor_height = _centres(anchors)
    wx, wy, ww, wh = weights
    dx = wx * (x - anchor_x) / anchor_width
    dy = wy * (y - anchor_y) / anchor_height
    dw = ww * (width / anchor_width).log()
    dh = wh * (height / anchor_height).log()
    return torch.stack([dx, dy, dw, dh], -1)


def decode(
    deltas: Tensor,
    anchors: Tensor,
    weights: Sequence[float] = UNIT,
    log_clamp: float = math.log(1000 / 16),
) -> Tensor:
    """The boxes (..., 4) xyxy to which `deltas` (..., 4) move `anchors` (..., 4): encode undone.

    A side grows at most by exp(log_clamp), lest exp overflow (the default is Detectron's, for
    anchors of 16 pixels and more in pictures of 1000). Computed in the anchors' precision.
    """
    dx, dy, dw, dh = deltas.to(anchors.dtype).unbind(-1)
    x, y, width, height = _centres(anchors)
    wx, wy, ww, wh = weights
    x = dx / wx * width + x
    y = dy / wy * height + y
    half_width = 0.5 * ((dw / ww).clamp(max=log_clamp).exp() * width)
    half_height = 0.5 * ((dh / wh).clamp(max=log_clamp).exp() * height)
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], -1)


def _centres(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centre and extent; the centre as corner plus half the extent, for equal last bits."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return x1 + 0.5 * width, y1 + 0.5 * height, width, height
