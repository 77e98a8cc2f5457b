"""Transforms one after the other, and how those that take several pictures get the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from eyeline.data.colours import Distortion
from eyeline.data.transforms.base import Sample, Transform
from eyeline.data.transforms.colour import Photometric
from eyeline.data.transforms.geometry import HorizontalFlip, IoUCrop, VerticalFlip
from eyeline.structures import Target

Another = Callable[[], Sample]  # some other picture of the data set


@dataclass(frozen=True)
class Compose:
    """One after the other. Colours are drawn in their turn, but change after the flips and crops
    that follow at once: the result is the same, and what is cut off need not be changed.

    A transform that takes several pictures gets the others as it gets its own: through all that
    stand before it.
    """

    transforms: Sequence[Transform]

    @property
    def uses_others(self) -> bool:
        return any(map(uses_others, self.transforms))

    @property
    def uses_masks(self) -> bool:
        """Does one of them need the objects' masks?"""
        return any(getattr(transform, "uses_masks", False) for transform in self.transforms)

    def __call__(
        self,
        image: Tensor,
        target: Target,
        rng: np.random.Generator,
        another: Another | None = None,
    ) -> Sample:
        waiting: list[Distortion] = []
        for i, transform in enumerate(self.transforms):
            if isinstance(transform, Photometric):
                waiting.append(transform.draw(rng))
                continue
            if not isinstance(transform, HorizontalFlip | VerticalFlip | IoUCrop):
                while waiting:
                    image = waiting.pop(0)(image)
            before = Compose(self.transforms[:i])
            image, target = apply(transform, image, target, rng, before._through(another, rng))
        for distortion in waiting:
            image = distortion(image)
        return image, target

    def _through(self, another: Another | None, rng: np.random.Generator) -> Another | None:
        """Other pictures, each as these transforms leave it."""
        if another is None:
            return None
        return lambda: self(*another(), rng, another)


def uses_others(transform: Any) -> bool:
    """Does it take several pictures, as Mosaic does? Such a transform is called as
    transform(image, target, rng, another), and another() gives one more (image, target)."""
    return bool(getattr(transform, "uses_others", False))


def apply(
    transform: Transform,
    image: Tensor,
    target: Target,
    rng: np.random.Generator,
    another: Another | None,
) -> Sample:
    """Call a transform, with or without other pictures, as it needs."""
    if uses_others(transform):
        return transform(image, target, rng, another)  # type: ignore[call-arg]
    return transform(image, target, rng)


def without_others(transform: Transform) -> Transform:
    """The transforms without those that take several pictures."""
    if isinstance(transform, Compose):
        return Compose([without_others(one) for one in transform.transforms])
    return Compose([]) if uses_others(transform) else transform
