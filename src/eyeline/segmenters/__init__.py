"""Segmenters: one paper, one file. Importing this package registers them."""

from eyeline.segmenters.fpn import FPN
from eyeline.segmenters.linknet import LinkNet
from eyeline.segmenters.unet import UNet
from eyeline.segmenters.unetplusplus import UNetPlusPlus

__all__ = ["FPN", "LinkNet", "UNet", "UNetPlusPlus"]
