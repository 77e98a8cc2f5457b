"""Segmenters: one paper, one file. Importing this package registers them."""

from eyeline.segmenters.deeplabv3 import DeepLabV3
from eyeline.segmenters.deeplabv3plus import DeepLabV3Plus
from eyeline.segmenters.pan import PAN
from eyeline.segmenters.pspnet import PSPNet
from eyeline.segmenters.unet import UNet

__all__ = ["PAN", "DeepLabV3", "DeepLabV3Plus", "PSPNet", "UNet"]
