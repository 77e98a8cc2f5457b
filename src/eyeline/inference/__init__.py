"""Trained models put to use: pictures in, drawn and counted detections out."""

from eyeline.inference.draw import draw_boxes
from eyeline.inference.predictor import Predictor
from eyeline.inference.result import Result

__all__ = ["Predictor", "Result", "draw_boxes"]
