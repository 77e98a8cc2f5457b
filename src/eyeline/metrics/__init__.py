"""Figures of merit: what a prediction is worth, given the ground truth."""

from eyeline.metrics.detection import CocoMetric, Curve, VocMetric, average_precision

__all__ = ["CocoMetric", "Curve", "VocMetric", "average_precision"]
