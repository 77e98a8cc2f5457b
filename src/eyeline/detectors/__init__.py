"""Detectors: one paper, one file. Importing this package registers them."""

from eyeline.detectors.cascade_rcnn import CascadeRCNN
from eyeline.detectors.faster_rcnn import FasterRCNN
from eyeline.detectors.mask_rcnn import MaskRCNN
from eyeline.detectors.retinanet import RetinaNet

__all__ = ["CascadeRCNN", "FasterRCNN", "MaskRCNN", "RetinaNet"]
