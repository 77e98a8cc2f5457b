"""Losses that grow as boxes part: 1 - GIoU, 1 - DIoU, 1 - CIoU; see `eyeline.ops.iou`.

pred and target (N, 4) boxes, xyxy, float32; reduction "none" -> (N,), "sum" or "mean" -> ().
"""

from __future__ import annotations

from torch import Tensor

from eyeline.losses.reduction import reduce
from eyeline.ops.iou import elementwise_ciou, elementwise_diou, elementwise_giou


def giou_loss(pred: Tensor, target: Tensor, reduction: str = "none") -> Tensor:
    """1 - GIoU, in [0, 2] (Rezatofighi et al., CVPR 2019, arXiv:1902.09630, algorithm 1)."""
    return reduce(1 - elementwise_giou(pred, target), reduction)


def diou_loss(pred: Tensor, target: Tensor, reduction: str = "none") -> Tensor:
    """1 - DIoU, in [0, 2] (Zheng et al., AAAI 2020, arXiv:1911.08287, eq. 7)."""
    return reduce(1 - elementwise_diou(pred, target), reduction)


def ciou_loss(pred: Tensor, target: Tensor, reduction: str = "none") -> Tensor:
    """1 - CIoU, in [0, 2.5]: DIoU and the difference in aspect (same paper, eq. 10)."""
    return reduce(1 - elementwise_ciou(pred, target), reduction)


IOU_LOSSES = {"giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}
