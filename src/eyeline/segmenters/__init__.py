"""Segmenters: one paper, one file. Importing this package registers them."""

from eyeline.segmenters.enet import ENet
from eyeline.segmenters.fcn import FCN, ResNetFCN
from eyeline.segmenters.hrnet import HRNetV2
from eyeline.segmenters.segnet import SegNet

__all__ = ["FCN", "ENet", "HRNetV2", "ResNetFCN", "SegNet"]
