"""Detectors: one paper, one file. Importing this package registers them."""

from eyeline.detectors.cascade_rcnn import CascadeRCNN
from eyeline.detectors.faster_rcnn import FasterRCNN
from eyeline.detectors.mask_rcnn import MaskRCNN
from eyeline.detectors.refinedet import RefineDet
from eyeline.detectors.retinanet import RetinaNet
from eyeline.detectors.ssd import SSD
from eyeline.detectors.yolov1 import YOLOv1
from eyeline.detectors.yolov2 import YOLOv2
from eyeline.detectors.yolov3 import YOLOv3

__all__ = [
    "SSD",
    "CascadeRCNN",
    "FasterRCNN",
    "MaskRCNN",
    "RefineDet",
    "RetinaNet",
    "YOLOv1",
    "YOLOv2",
    "YOLOv3",
]
