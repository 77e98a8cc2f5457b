"""Augmentation: callables (image, target, rng) -> (image, target).

Images are (C, H, W), uint8 or float in [0, 1], and keep their dtype; some transforms (`rgb_only`)
are for three channels alone. Boxes are xyxy in pixels.
Every entry of a target has one row an object, but for those in PER_PICTURE. Nothing is changed in
place, and all randomness comes from `rng`.

Boxes, masks and keypoints go with the picture. Where an object is cut off, turned or covered, its
box becomes that of its mask; without a mask, that of the box's corners, which may be larger than
the object. Objects that leave the picture are dropped with all that belongs to them.

A target may have a map, the class of each pixel, with or without objects: it goes with the picture
by nearest pixels, and what no picture covers is ignored. Transforms that need objects refuse it.

Transforms that take several pictures (`uses_others`) are called with a fourth argument, which
gives one more each time it is called; DetectionDataset and Compose hand it on.
"""

from eyeline.data.transforms.base import GREY, Range, Sample, Transform
from eyeline.data.transforms.colour import Photometric
from eyeline.data.transforms.compose import Another, Compose, apply, uses_others, without_others
from eyeline.data.transforms.crop import RandomCrop
from eyeline.data.transforms.geometry import (
    Expand,
    HorizontalFlip,
    IoUCrop,
    MultiScale,
    Resize,
    VerticalFlip,
    resized_target,
)
from eyeline.data.transforms.names import NAMES, from_names
from eyeline.data.transforms.several import CopyPaste, MixUp, Mosaic
from eyeline.data.transforms.warp import Perspective, Rotate

__all__ = [
    "GREY",
    "NAMES",
    "Another",
    "Compose",
    "CopyPaste",
    "Expand",
    "HorizontalFlip",
    "IoUCrop",
    "MixUp",
    "Mosaic",
    "MultiScale",
    "Perspective",
    "Photometric",
    "RandomCrop",
    "Range",
    "Resize",
    "Rotate",
    "Sample",
    "Transform",
    "VerticalFlip",
    "apply",
    "from_names",
    "resized_target",
    "uses_others",
    "without_others",
]
