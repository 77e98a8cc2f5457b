"""Detectors: one paper, one file. Importing this package registers them."""

from eyeline.detectors.faster_rcnn import FasterRCNN
from eyeline.detectors.mask_rcnn import MaskRCNN
from eyeline.detectors.retinanet import RetinaNet
from eyeline.detectors.ssd import SSD
from eyeline.detectors.yolov3 import YOLOv3

__all__ = ["SSD", "FasterRCNN", "MaskRCNN", "RetinaNet", "YOLOv3"]
