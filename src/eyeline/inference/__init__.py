"""Trained models put to use: pictures in, drawn and counted detections out."""

from eyeline.inference.draw import draw_boxes
from eyeline.inference.predictor import Predictor
from eyeline.inference.result import Result
from eyeline.inference.tta import TTA

__all__ = ["TTA", "Predictor", "Result", "draw_boxes"]
