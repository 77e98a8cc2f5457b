"""Rotation and perspective: any homography, for which the picture is sampled once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eyeline.data.transforms.base import (
    GREY,
    Range,
    Sample,
    check,
    check_pair,
    clipped,
    moved,
)
from eyeline.ops.labels import IGNORE
from eyeline.ops.masks import mask_boxes
from eyeline.structures import Target

STRIP = 64  # rows that are sampled at once, so that what is worked on stays in the cache


@dataclass(frozen=True)
class Rotate:
    """Turned about the picture's centre, clockwise, with probability p; its size stays.

    Args:
        degrees: the range of the angle.
        min_visible: objects of whose box less than this share stays in the picture are dropped.
        fill: grey of the corners, in [0, 1].
    """

    degrees: Range = (-10.0, 10.0)
    min_visible: float = 0.1
    fill: float = GREY
    p: float = 0.5

    def __post_init__(self) -> None:
        check_pair("degrees", self.degrees, -180, 180)
        check("min_visible", self.min_visible, 0, 1)
        check("fill", self.fill, 0, 1)
        check("p", self.p, 0, 1)

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.p:
            return image, target
        height, width = image.shape[1:]
        turn = rotation(rng.uniform(*self.degrees))
        matrix = shift(width / 2, height / 2) @ turn @ shift(-width / 2, -height / 2)
        return warp(image, target, matrix, (height, width), self.min_visible, self.fill)


@dataclass(frozen=True)
class Perspective:
    """Tilted, sheared, turned, scaled about its centre and shifted at once, with probability p.

    Args:
        degrees: the range of the angle, clockwise.
        scale: the range of the factor; equally likely to enlarge twice as to shrink to half.
        shear: each axis leans by at most so many degrees.
        translate: at most this share of the picture's sides, either way.
        tilt: how much nearer or farther than its centre the picture's borders come, at most.
        min_visible: objects of whose box less than this share stays in the picture are dropped.
        fill: grey of what the picture does not cover, in [0, 1].
    """

    degrees: Range = (-10.0, 10.0)
    scale: Range = (0.5, 2.0)
    shear: float = 5.0
    translate: float = 0.1
    tilt: float = 0.1
    min_visible: float = 0.1
    fill: float = GREY
    p: float = 0.5

    def __post_init__(self) -> None:
        check_pair("degrees", self.degrees, -180, 180)
        check_pair("scale", self.scale, 0.01, 100)
        check("shear", self.shear, 0, 45)
        check("translate", self.translate, 0, 1)
        check("tilt", self.tilt, 0, 0.45)  # below 1/2 every corner stays before the eye
        check("min_visible", self.min_visible, 0, 1)
        check("fill", self.fill, 0, 1)
        check("p", self.p, 0, 1)

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.p:
            return image, target
        height, width = image.shape[1:]
        matrix = self.draw(height, width, rng)
        return warp(image, target, matrix, (height, width), self.min_visible, self.fill)

    def draw(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """A homography (3, 3), from the picture to the new one."""
        turn = rotation(rng.uniform(*self.degrees))
        factor = math.exp(rng.uniform(*np.log(self.scale)))
        lean_x, lean_y = np.tan(np.radians(rng.uniform(-self.shear, self.shear, 2)))
        right, down = rng.uniform(-self.translate, self.translate, 2)
        tilt_x, tilt_y = rng.uniform(-self.tilt, self.tilt, 2)
        tilt = np.eye(3)
        tilt[2, :2] = tilt_x / (width / 2), tilt_y / (height / 2)
        scale = np.diag([factor, factor, 1.0])
        shear = np.array([[1, lean_x, 0], [lean_y, 1, 0], [0, 0, 1]])
        centre = shift(-width / 2, -height / 2)
        there = shift(width * (0.5 + right), height * (0.5 + down))
        whole: np.ndarray = there @ shear @ scale @ turn @ tilt @ centre
        return whole


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def rotation(degrees: float) -> np.ndarray:
    """Clockwise, as y points down."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])


def warp(
    image: Tensor,
    target: Target,
    matrix: np.ndarray,
    size: tuple[int, int],
    min_visible: float = 0.0,
    fill: float = GREY,
) -> Sample:
    """A picture and its objects under a homography.

    Args:
        matrix: (3, 3): the point x, y comes to u / w, v / w, where (u, v, w) = matrix @ (x, y, 1).
            Of all points of the picture w is above 0. Pixels are squares: the first one's centre
            is at 1/2, 1/2.
        size: height and width of the new picture.
        min_visible, fill: see `Rotate`.

    The picture is sampled bilinearly, masks are where the nearest pixel is one, and of a map a
    pixel has the class of the nearest, outside it is ignored. Boxes become those
    of their masks; without masks they surround their four corners.
    """
    if tuple(image.shape[1:]) == tuple(size) and np.array_equal(matrix, np.eye(3)):
        return image, target
    back = np.linalg.inv(matrix)
    new = dict(target)
    if "map" in target:
        new["map"] = _sampled_map(target["map"], back, size)
    if "boxes" in target:
        new["boxes"] = boxes_under(target["boxes"], matrix)
    if "masks" in target:
        new["masks"] = _sampled_masks(target["masks"], matrix, back, size)
    if "keypoints" in target:
        points = target["keypoints"]
        new["keypoints"] = moved(points, points_under(points[..., :2], matrix))
    return _sampled(image, back, size, fill), clipped(new, size, min_visible, loose=True)


def points_under(points: Tensor, matrix: np.ndarray) -> Tensor:
    """Where a homography takes points (..., 2)."""
    m = torch.from_numpy(matrix)
    u, v, w = (points.double() @ m[:, :2].T + m[:, 2]).unbind(-1)
    return torch.stack([u / w, v / w], -1).to(points.dtype)


def boxes_under(boxes: Tensor, matrix: np.ndarray) -> Tensor:
    """The boxes (G, 4) about their four corners, where a homography takes them."""
    corners = points_under(boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]], matrix)  # (G, 4, 2)
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


def _sampled(image: Tensor, back: np.ndarray, size: tuple[int, int], fill: float) -> Tensor:
    """`back` takes points of the new picture (C, *size) to those of `image`."""
    height, width = image.shape[1:]
    # What lies outside is sampled as 0, which is to be the fill.
    byte = image.dtype == torch.uint8
    fill = round(fill * 255) if byte else fill
    # Bytes are put in order first, being few, and floats are written once.
    pixels = image.contiguous().to(torch.float32, copy=True).sub_(fill)[None]
    # `grid_sample` counts from the picture's centre, in halves of its sides.
    halves = np.diag([2 / width, 2 / height, 1.0])
    back = shift(-1, -1) @ halves @ back
    out = torch.empty(*size, len(image), dtype=image.dtype)
    for top in range(0, size[0], STRIP):
        rows = slice(top, min(top + STRIP, size[0]))
        places = torch.stack(_places(back, rows, size[1])).clamp_(-3, 3)  # beyond is nothing, too
        grid = places.permute(1, 2, 0)[None]
        strip = F.grid_sample(pixels, grid, align_corners=False)[0].add_(fill)
        out[rows] = (strip.round_() if byte else strip).permute(1, 2, 0)
    return out.permute(2, 0, 1)


def _sampled_masks(
    masks: Tensor, matrix: np.ndarray, back: np.ndarray, size: tuple[int, int]
) -> Tensor:
    """Masks (G, *size): is the pixel in which a new one's centre lies part of the object?"""
    index = _nearest(masks.shape[1:], back, size)
    # One more pixel, which is of no object, stands for all outside.
    flat = F.pad(masks.flatten(1), (0, 1), value=False)
    new = torch.zeros(len(masks), *size, dtype=torch.bool)
    around = boxes_under(mask_boxes(masks), matrix)
    limit = around.new_tensor([size[1], size[0]] * 2)
    around = (around + around.new_tensor([-1, -1, 2, 2])).clamp(min=0).minimum(limit)
    for canvas, mask, (x1, y1, x2, y2) in zip(new, flat, around.int().tolist(), strict=True):
        canvas[y1:y2, x1:x2] = mask[index[y1:y2, x1:x2]]
    return new


def _sampled_map(classes: Tensor, back: np.ndarray, size: tuple[int, int]) -> Tensor:
    """A map (*size): the class of the pixel in which a new one's centre lies, 255 outside."""
    return F.pad(classes.flatten(), (0, 1), value=IGNORE)[_nearest(classes.shape, back, size)]


def _nearest(old: Sequence[int], back: np.ndarray, size: tuple[int, int]) -> Tensor:
    """(*size) int64: the pixel of a picture of height and width `old`, row by row, in which a new
    one's centre lies; outside the number of all pixels."""
    height, width = old
    x, y = (axis.floor_() for axis in _places(back, slice(0, size[0]), size[1]))
    outside = ~((x >= 0) & (x < width) & (y >= 0) & (y < height))
    return x.add_(y, alpha=width).masked_fill_(outside, height * width).long()


def _places(back: np.ndarray, rows: slice, width: int) -> tuple[Tensor, Tensor]:
    """Where the centres of the pixels in some rows of a new picture lie in the old: x, y (R, W)."""
    m = back.astype(np.float32).tolist()
    y = torch.arange(rows.start, rows.stop)[:, None] + 0.5
    x = torch.arange(width) + 0.5
    u, v, w = ((b * y + c) + a * x for a, b, c in m)
    return u.div_(w), v.div_(w)
