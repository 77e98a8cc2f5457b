"""Runs a model over a data set, measures it and reports."""

from eyeline.evaluation.evaluate import Report, evaluate

__all__ = ["Report", "evaluate"]
