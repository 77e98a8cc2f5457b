"""Changes of colour: no box moves.

Photometric is SSD's: Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016,
arXiv:1512.02325, sec. 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from eyeline.data.colours import Distortion
from eyeline.data.transforms.base import Range, Sample, check, check_pair
from eyeline.structures import Target


@dataclass(frozen=True)
class Photometric:
    """Brightness, contrast, saturation and hue, each changed with probability p.

    Args:
        brightness: at most so much is added to every channel (32 of 255).
        contrast, saturation: ranges of the factor.
        hue: at most so many degrees of the colour circle. (The authors add 18 to OpenCV's 8-bit
            hue, which counts in twos of degrees; ports, torchvision's among them, take 18.)
    """

    brightness: float = 32 / 255
    contrast: Range = (0.5, 1.5)
    saturation: Range = (0.5, 1.5)
    hue: float = 18.0
    p: float = 0.5

    rgb_only = True  # no other channels

    def __post_init__(self) -> None:
        check("brightness", self.brightness, 0, 1)
        check_pair("contrast", self.contrast, 0)
        check_pair("saturation", self.saturation, 0)
        check("hue", self.hue, 0, 180)
        check("p", self.p, 0, 1)

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        return self.draw(rng)(image), target

    def draw(self, rng: np.random.Generator) -> Distortion:
        """All that is random about one picture."""
        contrast_last = rng.random() < 0.5  # else before the colours, as in the authors' code
        brightness = hue = 0.0
        if rng.random() < self.p:
            brightness = rng.uniform(-self.brightness, self.brightness)
        contrast = rng.uniform(*self.contrast) if rng.random() < self.p else 1.0
        saturation = rng.uniform(*self.saturation) if rng.random() < self.p else 1.0
        if rng.random() < self.p:
            hue = rng.uniform(-self.hue, self.hue) / 360
        if contrast_last:
            return Distortion(brightness, 1.0, hue, saturation, contrast_last=contrast)
        return Distortion(brightness, contrast, hue, saturation)
