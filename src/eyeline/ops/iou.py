"""How much boxes overlap, pairwise and elementwise.

IoU    intersection over union.
GIoU   Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, arXiv:1902.09630.
DIoU, CIoU   Zheng et al., "Distance-IoU Loss", AAAI 2020, arXiv:1911.08287.
IoA    intersection over the first box's area.

Letters   a (..., N, 4) and b (..., M, 4) boxes, xyxy; leading dimensions broadcast.

Finite boxes never give NaN: a fraction whose denominator is 0 counts as 0, so that boxes
without area have IoU 0, with themselves too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eyeline.ops.boxes import area


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every a with every b: (..., N, 4), (..., M, 4) -> (..., N, M) in [0, 1]."""
    return elementwise_iou(a[..., :, None, :], b[..., None, :, :])


def box_giou(a: Tensor, b: Tensor) -> Tensor:
    """GIoU of every a with every b: (..., N, 4), (..., M, 4) -> (..., N, M) in [-1, 1]."""
    return elementwise_giou(a[..., :, None, :], b[..., None, :, :])


def box_diou(a: Tensor, b: Tensor) -> Tensor:
    """DIoU of every a with every b: (..., N, 4), (..., M, 4) -> (..., N, M) in [-1, 1]."""
    return elementwise_diou(a[..., :, None, :], b[..., None, :, :])


def box_ciou(a: Tensor, b: Tensor) -> Tensor:
    """CIoU of every a with every b: (..., N, 4), (..., M, 4) -> (..., N, M) in [-1.5, 1]."""
    return elementwise_ciou(a[..., :, None, :], b[..., None, :, :])


def box_ioa(a: Tensor, b: Tensor) -> Tensor:
    """The part of each a that lies in each b: (..., N, 4), (..., M, 4) -> (..., N, M) in [0, 1]."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    return _ratio(_intersection(a, b), area(a))


def elementwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes (..., 4) that broadcast -> (...) in [0, 1]."""
    intersection = _intersection(a, b)
    return _ratio(intersection, area(a) + area(b) - intersection)


def elementwise_giou(a: Tensor, b: Tensor) -> Tensor:
    """GIoU of boxes (..., 4) that broadcast -> (...) in [-1, 1] (algorithm 1)."""
    intersection = _intersection(a, b)
    union = area(a) + area(b) - intersection
    width, height = _hull(a, b)
    hull = width * height
    return _ratio(intersection, union) - _ratio(hull - union, hull)


def elementwise_diou(a: Tensor, b: Tensor) -> Tensor:
    """DIoU of boxes (..., 4) that broadcast -> (...) in [-1, 1] (eq. 6)."""
    width, height = _hull(a, b)
    dx = (a[..., 0] + a[..., 2] - b[..., 0] - b[..., 2]) / 2
    dy = (a[..., 1] + a[..., 3] - b[..., 1] - b[..., 3]) / 2
    return elementwise_iou(a, b) - _ratio(dx**2 + dy**2, width**2 + height**2)


def elementwise_ciou(a: Tensor, b: Tensor) -> Tensor:
    """CIoU of boxes (..., 4) that broadcast -> (...) in [-1.5, 1] (eq. 8, 9, 11).

    The trade-off alpha is a constant to the gradient, as in the authors' code.
    """
    v = 4 / math.pi**2 * (_angle(a) - _angle(b)) ** 2  # eq. 9: aspect, in [0, 1]
    with torch.no_grad():
        alpha = _ratio(v, 1 - elementwise_iou(a, b) + v)  # eq. 11
    return elementwise_diou(a, b) - alpha * v


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    return width * height


def _hull(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height of the smallest box around both."""
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    width = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    height = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    return width, height


def _angle(boxes: Tensor) -> Tensor:
    """arctan(width / height), in [0, pi / 2]."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.atan2(x2 - x1, y2 - y1)


def _ratio(x: Tensor, y: Tensor) -> Tensor:
    """x / y, and 0 with no gradient where y is 0."""
    zero = y <= 0
    return torch.where(zero, 0, x / torch.where(zero, 1, y))
