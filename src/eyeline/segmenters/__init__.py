"""Segmenters: one paper, one file. Importing this package registers them."""

from eyeline.segmenters.unet import UNet

__all__ = ["UNet"]
