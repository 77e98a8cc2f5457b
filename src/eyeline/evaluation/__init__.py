"""Runs a model over a data set, measures it and reports."""

from eyeline.evaluation.evaluate import Report, evaluate
from eyeline.evaluation.segmentation import SegmentationReport, evaluate_segmentation

__all__ = ["Report", "SegmentationReport", "evaluate", "evaluate_segmentation"]
