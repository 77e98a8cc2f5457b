"""Segmenters: one paper, one file. Importing this package registers them."""

from eyeline.segmenters.deeplabv3 import DeepLabV3
from eyeline.segmenters.deeplabv3plus import DeepLabV3Plus
from eyeline.segmenters.enet import ENet
from eyeline.segmenters.fcn import FCN, ResNetFCN
from eyeline.segmenters.fpn import FPN
from eyeline.segmenters.hrnet import HRNetV2
from eyeline.segmenters.linknet import LinkNet
from eyeline.segmenters.pan import PAN
from eyeline.segmenters.pspnet import PSPNet
from eyeline.segmenters.segnet import SegNet
from eyeline.segmenters.unet import UNet
from eyeline.segmenters.unetplusplus import UNetPlusPlus

__all__ = [
    "FCN",
    "FPN",
    "PAN",
    "DeepLabV3",
    "DeepLabV3Plus",
    "ENet",
    "HRNetV2",
    "LinkNet",
    "PSPNet",
    "ResNetFCN",
    "SegNet",
    "UNet",
    "UNetPlusPlus",
]
