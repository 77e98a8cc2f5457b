"""Segmenters: one paper, one file. Importing this package registers them."""

from eyeline.segmenters.deeplabv3 import DeepLabV3
from eyeline.segmenters.deeplabv3plus import DeepLabV3Plus
from eyeline.segmenters.fpn import FPN
from eyeline.segmenters.linknet import LinkNet
from eyeline.segmenters.pan import PAN
from eyeline.segmenters.pspnet import PSPNet
from eyeline.segmenters.unet import UNet
from eyeline.segmenters.unetplusplus import UNetPlusPlus

__all__ = [
    "FPN",
    "PAN",
    "DeepLabV3",
    "DeepLabV3Plus",
    "LinkNet",
    "PSPNet",
    "UNet",
    "UNetPlusPlus",
]
