"""Segmenters: one paper, one file. Importing this package registers them."""

from eyeline.segmenters.enet import ENet
from eyeline.segmenters.fcn import FCN, ResNetFCN
from eyeline.segmenters.fpn import FPN
from eyeline.segmenters.hrnet import HRNetV2
from eyeline.segmenters.linknet import LinkNet
from eyeline.segmenters.segnet import SegNet
from eyeline.segmenters.unet import UNet
from eyeline.segmenters.unetplusplus import UNetPlusPlus

__all__ = [
    "FCN",
    "FPN",
    "ENet",
    "HRNetV2",
    "LinkNet",
    "ResNetFCN",
    "SegNet",
    "UNet",
    "UNetPlusPlus",
]
