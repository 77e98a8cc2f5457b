"""Losses: pure functions of predictions and targets."""

from eyeline.losses.boundary import boundary_loss, signed_distances
from eyeline.losses.class_weights import count_pixels, enet_weights, median_frequency
from eyeline.losses.entropy import cross_entropy, ohem_cross_entropy
from eyeline.losses.focal import sigmoid_focal_loss, softmax_focal_loss
from eyeline.losses.iou import ciou_loss, diou_loss, giou_loss
from eyeline.losses.lovasz import lovasz_softmax
from eyeline.losses.overlap import dice_loss, tversky_loss
from eyeline.losses.segmentation import SEGMENTATION_LOSSES, segmentation_loss
from eyeline.losses.smooth_l1 import smooth_l1

__all__ = [
    "SEGMENTATION_LOSSES",
    "boundary_loss",
    "ciou_loss",
    "count_pixels",
    "cross_entropy",
    "dice_loss",
    "diou_loss",
    "enet_weights",
    "giou_loss",
    "lovasz_softmax",
    "median_frequency",
    "ohem_cross_entropy",
    "segmentation_loss",
    "sigmoid_focal_loss",
    "signed_distances",
    "smooth_l1",
    "softmax_focal_loss",
    "tversky_loss",
]
