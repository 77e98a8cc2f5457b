"""Flips, sizes, crops and larger canvases: whole pixels stay what they are, or are resized.

IoUCrop and Expand are those of SSD: Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016,
arXiv:1512.02325, sec. 2.2 and 3.6; numbers that the text does not give are those of the authors'
code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eyeline.data.transforms.base import (
    Range,
    Sample,
    check,
    check_pair,
    crowds,
    moved,
    refuse_maps,
    seen_through,
    select,
)
from eyeline.ops.masks import resize_masks
from eyeline.ops.resize import fitted_size, resize, resize_map
from eyeline.structures import Target


@dataclass(frozen=True)
class HorizontalFlip:
    """Left becomes right, with probability p."""

    p: float = 0.5

    def __post_init__(self) -> None:
        check("p", self.p, 0, 1)

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.p:
            return image, target
        return _flipped(image, target, axis=2)


@dataclass(frozen=True)
class VerticalFlip:
    """Top becomes bottom, with probability p."""

    p: float = 0.5

    def __post_init__(self) -> None:
        check("p", self.p, 0, 1)

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.p:
            return image, target
        return _flipped(image, target, axis=1)


@dataclass(frozen=True)
class Resize:
    """The shorter side becomes `min_size`, unless the longer would exceed `max_size`; the network
    then sees the picture in this size, whatever its own `min_size`."""

    min_size: int
    max_size: int

    def __post_init__(self) -> None:
        check("min_size", self.min_size, 1)
        check("max_size", self.max_size, self.min_size)

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        size = image.shape[1], image.shape[2]
        image, target = resized(image, target, fitted_size(size, self.min_size, self.max_size))
        return image, target | {"resized": torch.tensor(True)}


@dataclass(frozen=True)
class MultiScale:
    """`Resize` to one of several sizes, each as likely."""

    min_sizes: Sequence[int]
    max_size: int

    def __post_init__(self) -> None:
        if not self.min_sizes:
            raise ValueError("min_sizes is empty")
        for size in self.min_sizes:
            Resize(size, self.max_size)

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        min_size = self.min_sizes[int(rng.integers(len(self.min_sizes)))]
        return Resize(min_size, self.max_size)(image, target, rng)


@dataclass(frozen=True)
class IoUCrop:
    """A random part of the picture in which some object is seen well enough (sec. 2.2).

    One of `min_ious` or the whole picture is drawn, each as likely among those for which a crop
    is found in `trials` draws. An object stays if its centre lies in the crop (and any of its mask,
    where it has one), a crowd if any of it does; one object at least stays.

    Args:
        min_ious: the IoU of the crop with at least one object; 0: any crop.
        scale: of the crop's sides (the text: 0.1 to 1 of the picture's size, which read as area
            is about the 0.3 to 1 of the sides in the authors' code).
        aspect: of the crop, relative to the picture's.
    """

    min_ious: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
    scale: Range = (0.3, 1.0)
    aspect: Range = (0.5, 2.0)
    trials: int = 50

    of_objects = "random_crop is the crop for maps"

    def __post_init__(self) -> None:
        check("min_ious", sorted(self.min_ious), 0, 1)
        check_pair("scale", self.scale, 1e-3, 1)
        check_pair("aspect", self.aspect, 1e-3)
        check("trials", self.trials, 1)

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        refuse_maps(self, target)
        height, width = image.shape[1:]
        boxes = target["boxes"].numpy().astype(np.float64)
        crowd = crowds(target).numpy()
        if crowd.all():  # or no object at all
            return image, target
        for min_iou in rng.permutation([*self.min_ious, np.inf]):
            if min_iou == np.inf:
                break
            crops = self._candidates(height, width, rng)  # (T, 4)
            inside = _centres_inside(boxes, crops)  # (T, G)
            fits = (_pairwise_iou(crops, boxes) >= min_iou) & ~crowd
            good = fits.any(1) & (inside & ~crowd).any(1)
            if good.any():
                best = int(good.argmax())  # the first
                kept = select(target, torch.from_numpy(inside[best] | crowd))
                left, top, right, bottom = (int(v) for v in crops[best])
                seen = seen_through(kept, (left, top, right, bottom))
                if not crowds(seen).all():  # the masks of all of them might lie elsewhere
                    return image[:, top:bottom, left:right], seen
        return image, target

    def _candidates(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """Crops (T, 4), whole pixels."""
        scale = rng.uniform(*self.scale, self.trials)
        # Within these bounds neither side exceeds the picture's.
        low = np.maximum(self.aspect[0], scale**2)
        high = np.minimum(self.aspect[1], 1 / scale**2)
        aspect = np.sqrt(low + (high - low) * rng.random(self.trials))
        w = np.maximum(1, np.rint(width * scale * aspect))
        h = np.maximum(1, np.rint(height * scale / aspect))
        w, h = np.minimum(w, width), np.minimum(h, height)
        left = np.floor(rng.random(self.trials) * (width - w + 1))
        top = np.floor(rng.random(self.trials) * (height - h + 1))
        return np.stack([left, top, left + w, top + h], 1)


@dataclass(frozen=True)
class Expand:
    """The picture on a larger canvas, with probability p: objects become small (sec. 3.6).

    Args:
        max_ratio: of the canvas's sides; 4 is the paper's sixteenfold area.
        fill: RGB of the canvas in [0, 1]; the mean of ImageNet.
    """

    max_ratio: float = 4.0
    p: float = 0.5
    fill: tuple[float, float, float] = (0.485, 0.456, 0.406)

    rgb_only = True  # no other channels

    def __post_init__(self) -> None:
        check("max_ratio", self.max_ratio, 1)
        check("p", self.p, 0, 1)
        check("fill", sorted(self.fill), 0, 1)

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.p:
            return image, target
        height, width = image.shape[1:]
        ratio = rng.uniform(1, self.max_ratio)
        h, w = int(height * ratio), int(width * ratio)
        top, left = int(rng.integers(h - height + 1)), int(rng.integers(w - width + 1))
        fill = torch.tensor(self.fill)[:, None, None]
        fill = (fill * 255).round() if image.dtype == torch.uint8 else fill
        canvas = fill.to(image.dtype).expand(3, h, w).clone()
        canvas[:, top : top + height, left : left + width] = image
        return canvas, seen_through(target, (-left, -top, w - left, h - top))


def _flipped(image: Tensor, target: Target, axis: int) -> Sample:
    """Mirrored along axis 1, the height, or 2, the width."""
    if "map" in target:
        target = target | {"map": target["map"].flip(axis - 1)}
    if "boxes" not in target:
        return image.flip(axis), target
    low, high = (0, 2) if axis == 2 else (1, 3)  # the coordinates that trade places
    boxes = target["boxes"].clone()
    boxes[:, low] = image.shape[axis] - target["boxes"][:, high]
    boxes[:, high] = image.shape[axis] - target["boxes"][:, low]
    target = target | {"boxes": boxes}
    if "masks" in target:
        target["masks"] = target["masks"].flip(axis)
    if "keypoints" in target:
        points = target["keypoints"]
        places = points[..., :2].clone()
        places[..., low] = image.shape[axis] - places[..., low]
        points = moved(points, places)
        if "mirrored" in target:  # a left hand looks like a right one, whichever way it is mirrored
            points = points[:, target["mirrored"]]
        target["keypoints"] = points
    return image.flip(axis), target


def resized(image: Tensor, target: Target, size: tuple[int, int]) -> Sample:
    """The picture and its objects in another (height, width)."""
    old = image.shape[1], image.shape[2]
    return resize(image, size, antialias=True), resized_target(target, old, size)


def resized_target(target: Target, old: tuple[int, int], new: tuple[int, int]) -> Target:
    """The target of a picture that is brought from one (height, width) to another."""
    if old == new:
        return target
    if "map" in target:
        target = target | {"map": resize_map(target["map"], new)}
    if "boxes" not in target:
        return target
    before, after = (target["boxes"].new_tensor([w, h] * 2) for h, w in (old, new))
    target = target | {"boxes": target["boxes"] * after / before}  # so borders stay exact
    if "masks" in target:
        # Enlarged as the picture is; where it shrinks, thin objects would vanish so.
        larger = new[0] >= old[0] and new[1] >= old[1]
        target["masks"] = resize_masks(
            target["masks"], new, "bilinear" if larger else "nearest-exact"
        )
    if "keypoints" in target:
        points = target["keypoints"]
        target["keypoints"] = moved(points, points[..., :2] * after[:2] / before[:2])
    return target


def _centres_inside(boxes: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """(T, G): does the centre of the object lie in the crop?"""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centres > crops[:, None, :2]) & (centres < crops[:, None, 2:])).all(2)


def _intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low = np.maximum(a[:, None, :2], b[:, :2])
    high = np.minimum(a[:, None, 2:], b[:, 2:])
    return (high - low).clip(0).prod(2)


def _pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    intersection = _intersection(a, b)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b))
    return intersection / (area_a[:, None] + area_b - intersection)
