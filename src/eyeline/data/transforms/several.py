"""Several pictures become one: mosaic, mix-up, copy-paste.

Mosaic       Bochkovskiy et al., "YOLOv4", arXiv:2004.10934, sec. 3.4 and fig. 3
mix-up       Zhang et al., "mixup", ICLR 2018, arXiv:1710.09412; of detectors: Zhang et al., "Bag
             of Freebies for Training Object Detection Neural Networks", arXiv:1902.04103, sec. 3.1
copy-paste   Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance
             Segmentation", CVPR 2021, arXiv:2012.07177, sec. 3
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

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
    crowds,
    joined,
    refuse_maps,
    seen_through,
    select,
)
from eyeline.data.transforms.compose import Another
from eyeline.data.transforms.geometry import resized
from eyeline.errors import EyelineError
from eyeline.ops.masks import any_along, mask_boxes
from eyeline.ops.resize import fitted_size
from eyeline.structures import Target


@dataclass(frozen=True)
class Mosaic:
    """Four pictures about one point of a square, cut off at its border, with probability p.

    Each comes with its longer side as long as the square's, and with one of its corners at the
    point; where it is too small to fill its part, grey remains.

    Args:
        size: the square's sides.
        centre: the range of the point's x and y, as shares of the sides.
        min_visible: objects of whose box less than this share is seen are dropped.
        fill: grey, in [0, 1].
    """

    uses_others: ClassVar[bool] = True

    size: int = 640
    centre: Range = (0.25, 0.75)
    min_visible: float = 0.1
    fill: float = GREY
    p: float = 1.0

    def __post_init__(self) -> None:
        check("size", self.size, 2)
        check_pair("centre", self.centre, 0, 1)
        check("min_visible", self.min_visible, 0, 1)
        check("fill", self.fill, 0, 1)
        check("p", self.p, 0, 1)

    def __call__(
        self,
        image: Tensor,
        target: Target,
        rng: np.random.Generator,
        another: Another | None = None,
    ) -> Sample:
        if rng.random() >= self.p:
            return image, target
        x, y = np.rint(rng.uniform(*self.centre, 2) * self.size).astype(int).tolist()
        canvas = canvas_like(image, (self.size, self.size), self.fill)
        parts = []
        for quarter in range(4):  # above left, above right, below left, below right
            if quarter:
                image, target = _one_more(another, "mosaic")
            height, width = fitted_size((image.shape[1], image.shape[2]), self.size, self.size)
            image, target = resized(image, target, (height, width))
            left = x if quarter % 2 else x - width
            top = y if quarter >= 2 else y - height
            _put(canvas, image, left, top)
            window = (-left, -top, self.size - left, self.size - top)
            parts.append(seen_through(target, window, self.min_visible))
        return canvas, joined(parts)


@dataclass(frozen=True)
class MixUp:
    """The weighted mean of two pictures, with the objects of both, with probability p.

    Both lie with their first pixel on that of a canvas which is as wide and as high as the wider
    and the higher of them, and black beyond. Every object counts in full, whatever the weight, as
    with YOLOX; the paper on detectors weights its loss.

    Args:
        alpha: the weight is drawn from Beta(alpha, alpha): the larger, the nearer to a half.
    """

    uses_others: ClassVar[bool] = True
    of_objects: ClassVar[str] = "a mixed pixel would have two"

    alpha: float = 32.0
    p: float = 0.5

    def __post_init__(self) -> None:
        check("alpha", self.alpha, 1e-3)
        check("p", self.p, 0, 1)

    def __call__(
        self,
        image: Tensor,
        target: Target,
        rng: np.random.Generator,
        another: Another | None = None,
    ) -> Sample:
        if rng.random() >= self.p:
            return image, target
        refuse_maps(self, target)
        weight = float(rng.beta(self.alpha, self.alpha))
        samples = [(image, target), _one_more(another, "mixup")]
        height, width = (max(one.shape[axis] for one, _ in samples) for axis in (1, 2))
        mean = canvas_like(image.float(), (height, width), 0.0)
        for share, (one, _) in zip((weight, 1 - weight), samples, strict=True):
            mean[:, : one.shape[1], : one.shape[2]].add_(one.float(), alpha=share)
        window = (0, 0, width, height)
        objects = joined([seen_through(own, window) for _, own in samples])
        return (mean.round_() if image.dtype == torch.uint8 else mean).to(image.dtype), objects


@dataclass(frozen=True)
class CopyPaste:
    """Some objects of another picture, cut out by their masks, on top of this one, with
    probability p.

    The other picture lies at random where it is inside this one or covers it, in its own size:
    let sizes and flips be drawn before. Any number of its objects is taken, no crowds. What they
    cover is cut out of the masks below, whose boxes follow; keypoints there become hidden ones.
    Edges are left sharp, which the paper found as good as blending them.

    Args:
        min_visible: objects of which less than this share is left are dropped: of the box where
            the picture cuts it off, of the mask where it is covered. By default some pixel is
            enough.
    """

    uses_others: ClassVar[bool] = True
    uses_masks: ClassVar[bool] = True
    of_objects: ClassVar[str] = "it tells no object from another"

    min_visible: float = 0.0
    p: float = 0.5

    def __post_init__(self) -> None:
        check("min_visible", self.min_visible, 0, 1)
        check("p", self.p, 0, 1)

    def __call__(
        self,
        image: Tensor,
        target: Target,
        rng: np.random.Generator,
        another: Another | None = None,
    ) -> Sample:
        if rng.random() >= self.p:
            return image, target
        refuse_maps(self, target)
        source, objects = _one_more(another, "copy_paste")
        for one in (target, objects):
            if "masks" not in one:
                raise EyelineError(
                    "the transform 'copy_paste' cuts objects out by their masks, and the target "
                    "has none; open the data with masks=True"
                )
        height, width = image.shape[1:]
        room_x, room_y = width - source.shape[2], height - source.shape[1]
        left, top = (int(rng.integers(min(0, r), max(0, r) + 1)) for r in (room_x, room_y))
        window = (-left, -top, width - left, height - top)
        objects = seen_through(objects, window, self.min_visible)
        some = any_along(objects["masks"].flatten(1), 1)
        free = torch.nonzero(~crowds(objects) & some)[:, 0].numpy()
        if not len(free):
            return image, target
        count = int(rng.integers(1, len(free) + 1))
        objects = select(objects, torch.from_numpy(np.sort(rng.permutation(free)[:count])))
        pasted = any_along(objects["masks"], 0)
        there = canvas_like(image, (height, width), 0.0)
        _put(there, source, left, top)
        covered = _covered(target, pasted, self.min_visible)
        return torch.where(pasted, there, image), joined([covered, objects])


def _one_more(another: Another | None, name: str) -> Sample:
    if another is None:
        raise EyelineError(
            f"the transform {name!r} takes other pictures of the data set: give it to a "
            "DetectionDataset, alone or in a Compose, or a function that gives them as `another`"
        )
    return another()


def _put(canvas: Tensor, image: Tensor, left: int, top: int) -> None:
    """Write a picture, or what fits of it, into another with its corner at left, top."""
    x1, y1 = max(left, 0), max(top, 0)
    x2 = max(x1, min(left + image.shape[2], canvas.shape[2]))
    y2 = max(y1, min(top + image.shape[1], canvas.shape[1]))
    canvas[:, y1:y2, x1:x2] = image[:, y1 - top : y2 - top, x1 - left : x2 - left]


def _covered(target: Target, cover: Tensor, min_visible: float) -> Target:
    """The objects without what a mask (H, W) hides of them."""
    changed = any_along((target["masks"] & cover).flatten(1), 1)
    masks, boxes = target["masks"] & ~cover, target["boxes"].clone()
    boxes[changed] = mask_boxes(masks[changed])
    before, left = (m[changed].flatten(1).sum(1) for m in (target["masks"], masks))
    target = target | {"boxes": boxes, "masks": masks}
    if "keypoints" in target:
        points = target["keypoints"].clone()
        height, width = cover.shape
        x, y = points[..., 0].long().clamp(0, width - 1), points[..., 1].long().clamp(0, height - 1)
        points[..., 2][cover[y, x] & (points[..., 2] > 1)] = 1
        target["keypoints"] = points
    kept = ~changed
    kept[changed] = (left > 0) & (crowds(target)[changed] | (left >= min_visible * before))
    return select(target, kept)
