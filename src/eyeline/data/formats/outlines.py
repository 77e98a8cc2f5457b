"""What annotation tools draw, as polygons and masks, and shapes that are one object together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from eyeline.data.faults import Fault
from eyeline.data.formats.annotations import REGION, Object
from eyeline.data.formats.fitting import extent
from eyeline.ops.segmentations import Segmentation, compress_rle, decode_masks, encode_rle

SIDES = 64  # of the polygon that stands for an ellipse: 0.12 % of the radius is the most it lacks
Bitmap = np.ndarray  # (h, w) bool, of a part of a picture


@dataclass(slots=True)
class Shape:
    """One shape as it is drawn; an object where it is in no group."""

    where: str
    name: str | None  # of its class; None of a region to be ignored
    box: np.ndarray  # (4,) xyxy in pixels
    segmentation: Segmentation = field(default_factory=list)  # [] of a box
    group: int | str | None = None
    attributes: Mapping[str, float] = field(default_factory=dict)


def polygon(xs: Sequence[float], ys: Sequence[float], where: str) -> list[float]:
    """x, y, x, y ... Raises Fault where there are not at least three corners."""
    if len(xs) != len(ys) or len(xs) < 3:
        what = f"a polygon should have the x and y of at least 3 corners, not {len(xs)}"
        raise Fault("field", where, f"{what} and {len(ys)}")
    return [value for point in zip(xs, ys, strict=True) for value in point]


def ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float = 0) -> list[float]:
    """The polygon of an ellipse that is turned about its centre, from x towards y."""
    angles = np.arange(SIDES) * (2 * np.pi / SIDES)
    points = np.column_stack([rx * np.cos(angles), ry * np.sin(angles)])
    return _turned(points, cx, cy, degrees)


def rectangle(box: Sequence[float], degrees: float = 0) -> list[float]:
    """The polygon of a box xyxy that is turned about its centre, from x towards y."""
    x1, y1, x2, y2 = box
    half = np.array([x2 - x1, y2 - y1]) / 2
    points = half * [[-1, -1], [1, -1], [1, 1], [-1, 1]]
    return _turned(points, (x1 + x2) / 2, (y1 + y2) / 2, degrees)


def _turned(points: np.ndarray, cx: float, cy: float, degrees: float) -> list[float]:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return [round(float(value), 6) for value in (points @ turn + [cx, cy]).ravel()]


def placed(
    bitmap: Bitmap, left: int, top: int, size: tuple[int, int]
) -> tuple[Segmentation, np.ndarray]:
    """The mask, run-length encoded, of a picture of size (height, width) that is `bitmap` from
    (left, top) on and nothing elsewhere; and the box around it. What lies outside is cut off."""
    height, width = size
    bitmap = bitmap[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    left, top = max(left, 0), max(top, 0)
    y, x = np.nonzero(bitmap)
    if not len(x):
        return compress_rle({"size": [height, width], "counts": [height * width]}), np.zeros(4)
    # Runs go down the columns: only those of the bitmap need to be made, the others are empty.
    strip = np.zeros((1, height, bitmap.shape[1]), bool)
    strip[0, top : top + bitmap.shape[0]] = bitmap
    [rle] = encode_rle(strip, compressed=False)
    counts = [rle["counts"][0] + left * height, *rle["counts"][1:]]
    if rest := height * width - sum(counts):
        if len(counts) % 2 == 0:  # the last run is of ones
            counts.append(0)
        counts[-1] += rest
    box = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) + [left, top, left, top]
    return compress_rle({"size": [height, width], "counts": counts}), box.astype(np.float64)


def cropped(mask: Bitmap) -> tuple[Bitmap, int, int]:
    """The part of a mask (H, W) with anything in it, at least one pixel, and its left and top."""
    y, x = np.nonzero(mask)
    if not len(x):
        return mask[:1, :1], 0, 0
    return mask[y.min() : y.max() + 1, x.min() : x.max() + 1], int(x.min()), int(y.min())


def objects_of(
    shapes: Sequence[Shape], labels: dict[str, int], size: tuple[int, int]
) -> list[Object]:
    """The objects of a picture of size (height, width), in the order of their first shapes.

    Args:
        labels: of the names of classes; new ones are added.
    """
    objects: dict[object, list[Shape]] = {}
    for i, shape in enumerate(shapes):
        alone = shape.group is None
        objects.setdefault(i if alone else (shape.name, shape.group), []).append(shape)
    return [_object(parts, labels, size) for parts in objects.values()]


def whole(shapes: Sequence[Shape], broken: Collection[object]) -> list[Shape]:
    """Without those of groups of which another shape was broken: what is left is no object."""
    return [shape for shape in shapes if shape.group is None or shape.group not in broken]


def _object(parts: Sequence[Shape], labels: dict[str, int], size: tuple[int, int]) -> Object:
    segmentation, box = parts[0].segmentation, parts[0].box
    if len(parts) > 1:
        drawn = [part.segmentation or [rectangle(part.box.tolist())] for part in parts]
        polygons = [outline for own in drawn if isinstance(own, list) for outline in own]
        if all(isinstance(own, list) for own in drawn):
            segmentation = polygons
        else:
            union = np.any(decode_masks(drawn, *size), axis=0)
            [segmentation] = encode_rle(union[None])
        box = extent(segmentation, *size)
    names = dict.fromkeys(name for part in parts for name in part.attributes)
    attributes = {name: max(part.attributes.get(name, 0.0) for part in parts) for name in names}
    name = parts[0].name
    return Object(
        where=parts[0].where,
        label=REGION if name is None else labels.setdefault(name, len(labels)),
        box=box,
        iscrowd=name is None or attributes.get("difficult", 0) > 0,
        segmentation=segmentation,
        attributes=attributes,
    )
