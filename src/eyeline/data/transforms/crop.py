"""A random part of the picture in a random scale: the usual recipe of segmentation.

Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017,
arXiv:1706.05587, sec. 4.1: scales of 0.5 to 2, crops of one size, flips. The rule about the largest
class, and its three quarters, are those of MMSegmentation's recipes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eyeline.data.transforms.base import (
    GREY,
    Range,
    Sample,
    canvas_like,
    check,
    check_pair,
    seen_through,
)
from eyeline.data.transforms.geometry import resized_target
from eyeline.ops.labels import IGNORE
from eyeline.ops.resize import resize
from eyeline.structures import Target


@dataclass(frozen=True)
class RandomCrop:
    """The picture resized by a random factor, and of that a random part of one size, which the
    network then sees as it is. Where the picture is smaller, grey remains, ignored in a map.

    Args:
        size: height and width of the part.
        scale: the range of the factor.
        max_share: where one class has a larger share than this of the part's pixels (those to be
            ignored do not count), another is drawn, `trials` times at most; 1: any will do. It is
            for data with a map.
        min_visible: objects of whose box less than this share is seen are dropped.
        fill: grey, in [0, 1].
    """

    size: tuple[int, int]
    scale: Range = (0.5, 2.0)
    max_share: float = 1.0
    trials: int = 10
    min_visible: float = 0.1
    fill: float = GREY

    def __post_init__(self) -> None:
        if not (len(self.size) == 2 and all(isinstance(n, int) and n > 0 for n in self.size)):
            raise ValueError(f"size should be [height, width], not {self.size!r}")
        check_pair("scale", self.scale, 0.01, 100)
        check("max_share", self.max_share, 0.01, 1)
        check("trials", self.trials, 1)
        check("min_visible", self.min_visible, 0, 1)
        check("fill", self.fill, 0, 1)

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        old = image.shape[1], image.shape[2]
        factor = rng.uniform(*self.scale)
        new = max(1, round(old[0] * factor)), max(1, round(old[1] * factor))
        target = resized_target(target, old, new)
        top, left = self._corner(target.get("map"), new, rng)
        height, width = self.size
        image = resize(image, new, antialias=True)
        inside = image[:, max(top, 0) : top + height, max(left, 0) : left + width]
        if inside.shape[1:] != self.size:
            canvas = canvas_like(image, self.size, self.fill)
            y, x = max(-top, 0), max(-left, 0)
            canvas[:, y : y + inside.shape[1], x : x + inside.shape[2]] = inside
            inside = canvas
        window = (left, top, left + width, top + height)
        seen = seen_through(target, window, self.min_visible)
        return inside, seen | {"resized": torch.tensor(True)}

    def _corner(
        self, classes: Tensor | None, size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[int, int]:
        """Top and left of the part, in a picture of `size`; below 0 where it is larger."""
        rooms = [whole - part for whole, part in zip(size, self.size, strict=True)]
        for _ in range(self.trials):
            top, left = (int(rng.integers(min(0, r), max(0, r) + 1)) for r in rooms)
            if classes is None or self.max_share == 1:
                break
            part = classes[max(top, 0) : top + self.size[0], max(left, 0) : left + self.size[1]]
            counts = torch.bincount(part.flatten(), minlength=IGNORE + 1)[:IGNORE]
            if 0 < int(counts.max()) <= self.max_share * int(counts.sum()):
                break
        return top, left
