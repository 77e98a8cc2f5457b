"""Figures of merit: what a prediction is worth, given the ground truth."""

from eyeline.metrics.detection import CocoMetric, Curve, VocMetric, average_precision
from eyeline.metrics.segmentation import SegmentationMetrics, boundary_f1, confusion_matrix

__all__ = [
    "CocoMetric",
    "Curve",
    "SegmentationMetrics",
    "VocMetric",
    "average_precision",
    "boundary_f1",
    "confusion_matrix",
]
