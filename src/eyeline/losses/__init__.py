"""Losses: pure functions of predictions and targets."""

from eyeline.losses.focal import sigmoid_focal_loss
from eyeline.losses.iou import ciou_loss, diou_loss, giou_loss
from eyeline.losses.smooth_l1 import smooth_l1

__all__ = ["ciou_loss", "diou_loss", "giou_loss", "sigmoid_focal_loss", "smooth_l1"]
