"""Trained models put to use: pictures in, drawn and counted detections, or maps of classes, out."""

from eyeline.inference.draw import draw_boxes
from eyeline.inference.draw_map import draw_map
from eyeline.inference.map_result import SegmentationResult
from eyeline.inference.predictor import Predictor
from eyeline.inference.result import Result
from eyeline.inference.tta import TTA

__all__ = ["TTA", "Predictor", "Result", "SegmentationResult", "draw_boxes", "draw_map"]
