"""Detectors: one paper, one file. Importing this package registers them."""

from eyeline.detectors.faster_rcnn import FasterRCNN
from eyeline.detectors.mask_rcnn import MaskRCNN
from eyeline.detectors.retinanet import RetinaNet

__all__ = ["FasterRCNN", "MaskRCNN", "RetinaNet"]
