"""What all transforms share: their types, checks of options, objects that are cut or leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.ops.labels import IGNORE
from eyeline.ops.masks import mask_boxes
from eyeline.structures import PER_PICTURE, Target

Transform = Callable[[Tensor, Target, np.random.Generator], tuple[Tensor, Target]]
Sample = tuple[Tensor, Target]
Range = tuple[float, float]
Window = tuple[int, int, int, int]  # left, top, right, bottom

GREY = 114 / 255  # of what no picture covers, as in most detectors since YOLOv3


def check(name: str, value: Any, low: float, high: float = np.inf) -> None:
    """A number, or a (first, last) in order, within [low, high]."""
    values = list(value) if isinstance(value, Sequence) else [value]
    numbers = all(isinstance(v, int | float) and low <= v <= high for v in values)
    if not (values and numbers and values == sorted(values)):
        raise ValueError(f"{name} should be from {low} to {high}, not {value!r}")


def check_pair(name: str, value: Any, low: float, high: float = np.inf) -> None:
    if not (isinstance(value, Sequence) and len(value) == 2):
        raise ValueError(f"{name} should be [from, to], not {value!r}")
    check(name, value, low, high)


def canvas_like(image: Tensor, size: tuple[int, int], fill: float) -> Tensor:
    """A grey picture (C, *size), fill in [0, 1], the channels of a pixel side by side."""
    value = round(fill * 255) if image.dtype == torch.uint8 else fill
    return torch.full((*size, len(image)), value, dtype=image.dtype).permute(2, 0, 1)


def refuse_maps(transform: Any, target: Target) -> None:
    """Raises EyelineError where a transform needs objects, and a target has a map of classes."""
    if "map" in target and getattr(transform, "of_objects", False):
        raise EyelineError(
            f"the transform {type(transform).__name__} is for objects, and the data has a class "
            f"for every pixel: {transform.of_objects}; take it out of data.transforms"
        )


def select(target: Target, kept: Tensor) -> Target:
    """The objects that a bool (G,) or indices name, with all that belongs to them."""
    if kept.dtype == torch.bool and kept.all():
        return target
    return {k: value if k in PER_PICTURE else value[kept] for k, value in target.items()}


def joined(targets: Sequence[Target]) -> Target:
    """The objects of all of them, in one picture; what is said of a picture is the first's. Of
    maps each is ignored where another's picture lies."""
    found = {
        key: value if key in PER_PICTURE else torch.cat([target[key] for target in targets])
        for key, value in targets[0].items()
    }
    if "map" in found:  # 255 is the highest value
        found["map"] = torch.stack([target["map"] for target in targets]).amin(0)
    return found


def crowds(target: Target) -> Tensor:
    """(G,) bool: is it to be ignored?"""
    if "iscrowd" in target:
        return target["iscrowd"]
    return torch.zeros(len(target["boxes"]), dtype=torch.bool)


def seen_through(target: Target, window: Window, min_visible: float = 0.0) -> Target:
    """What is seen of the objects through a window of whole pixels, in the window's pixels; it
    may reach beyond the picture. See `clipped`."""
    left, top, right, bottom = window
    if "map" in target:
        height, width = target["map"].shape
        margins = (-left, right - width, -top, bottom - height)
        target = target | {"map": F.pad(target["map"], margins, value=IGNORE)}
    if "boxes" not in target:
        return target
    boxes = target["boxes"]
    low, high = boxes.new_tensor([left, top]), boxes.new_tensor([right, bottom])
    met = ((boxes[:, 2:] > low) & (boxes[:, :2] < high)).all(1)
    target = select(target, met)  # at once, for masks are many bytes
    target = target | {"boxes": target["boxes"] - low.repeat(2)}
    if "masks" in target:
        height, width = target["masks"].shape[1:]
        margins = (-left, right - width, -top, bottom - height)  # below 0 they cut off
        target["masks"] = F.pad(target["masks"], margins, value=False)
    if "keypoints" in target:
        points = target["keypoints"]
        target["keypoints"] = moved(points, points[..., :2] - points.new_tensor([left, top]))
    return clipped(target, (bottom - top, right - left), min_visible)


def clipped(
    target: Target, size: tuple[int, int], min_visible: float = 0.0, loose: bool = False
) -> Target:
    """The objects as a picture of `size` cuts them off, without those that are not in it.

    The box of an object with a mask that is cut off becomes the box of what is left of the mask;
    without a mask it is cut off itself, which may leave it larger than what is seen of the object.

    Args:
        target: masks have the picture's size already, boxes and keypoints may stick out.
        min_visible: of a box's area; objects that are cut off and show less are left out. Of a
            crowd anything is enough.
        loose: all boxes are larger than need be: where there are masks, they become theirs.
    """
    if "boxes" not in target:
        return target
    whole = target["boxes"]
    limit = whole.new_tensor([size[1], size[0]] * 2)
    boxes = whole.clamp(min=0).minimum(limit)
    cut = (boxes != whole).any(1)
    area, before = ((b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, whole))
    met = (boxes[:, 2:] > boxes[:, :2]).all(1)
    seen = ~cut | (met & (crowds(target) | (area >= min_visible * before)))
    if "masks" in target:
        again = torch.ones_like(cut) if loose else cut
        boxes[again] = mask_boxes(target["masks"][again])
        seen &= ~again | (boxes[:, 2:] > boxes[:, :2]).all(1)
    target = target | {"boxes": boxes}
    if "keypoints" in target:
        target["keypoints"] = inside(target["keypoints"], size)
    return select(target, seen)


# Keypoints (G, P, 3): x, y, and 0 not labelled, 1 labelled but hidden, 2 visible.


def moved(keypoints: Tensor, places: Tensor) -> Tensor:
    """The points at other places (G, P, 2); one that is not labelled stays 0, 0, 0."""
    labelled = keypoints[..., 2:] > 0
    return torch.cat([torch.where(labelled, places, 0.0), keypoints[..., 2:]], -1)


def inside(keypoints: Tensor, size: tuple[int, int]) -> Tensor:
    """Without those that lie outside a picture of `size`: they become 0, 0, 0."""
    places = keypoints[..., :2]
    kept = ((places >= 0) & (places <= places.new_tensor([size[1], size[0]]))).all(-1)
    return torch.where(kept[..., None], keypoints, 0.0)
