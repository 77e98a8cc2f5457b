"""Masks in COCO's three forms and back: polygons, run-length encodings, bitmaps.

Lin et al., "Microsoft COCO", ECCV 2014; cocodataset.org/#format-data.

polygons   [[x, y, x, y ...], ...], in pixels, corners between them: a mask is all of them together
RLE        {"size": [height, width], "counts": ...}, lengths of runs of 0 and 1 down the columns,
           "counts" a list of int (uncompressed) or a str (compressed)
bitmap     bool (G, H, W)
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as library  # type: ignore[import-untyped]
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]
from torch import Tensor

Segmentation = list[list[float]] | dict[str, Any]
Masks = NDArray[np.bool_]


def encode_rle(masks: Tensor | Masks, compressed: bool = True) -> list[dict[str, Any]]:
    """Bitmaps (G, H, W) as run-length encodings, one a mask; ready for JSON."""
    if isinstance(masks, Tensor):
        masks = masks.detach().bool().cpu().numpy()
    count, height, width = masks.shape
    if not count:
        return []
    if not compressed:
        return [{"size": [height, width], "counts": _runs(mask)} for mask in masks]
    columns = np.ascontiguousarray(masks.transpose(0, 2, 1), np.uint8)  # the library's order
    return [
        {"size": [height, width], "counts": _text(rle["counts"])}
        for rle in library.encode(columns.transpose(2, 1, 0))
    ]


def compress_rle(rle: dict[str, Any]) -> dict[str, Any]:
    """A run-length encoding in its compressed form; ready for JSON."""
    return {"size": rle["size"], "counts": _text(_compressed(rle, *rle["size"])["counts"])}


def rle_area(rle: dict[str, Any]) -> int:
    """Pixels of a mask."""
    return int(library.area(_compressed(rle, *rle["size"])))


def decode_masks(segmentations: Sequence[Segmentation], height: int, width: int) -> Masks:
    """Polygons and run-length encodings as bool masks (G, H, W); [] gives an empty mask.

    Raises:
        ValueError: a segmentation of an unknown form, or of another size than the picture's.
    """
    masks = np.zeros((len(segmentations), height, width), bool)
    for mask, segmentation in zip(masks, segmentations, strict=True):
        if isinstance(segmentation, list):
            if not all(isinstance(polygon, list) for polygon in segmentation):
                raise ValueError(f"polygons should be lists of numbers, not {segmentation[:4]}")
            # Fewer than three corners have no area; the library would read four numbers as a box.
            encoded: Any = [polygon for polygon in segmentation if len(polygon) >= 6]
            encoded = encoded and library.merge(library.frPyObjects(encoded, height, width))
        else:
            size = list(segmentation["size"])
            if size != [height, width]:
                raise ValueError(f"a mask of size {size} on a picture of size {[height, width]}")
            encoded = _compressed(segmentation, height, width)
        if encoded:
            mask[:] = library.decode(encoded)
    return masks


def check_segmentation(segmentation: Any, height: int, width: int) -> None:
    """Can `decode_masks` read it, for a picture of this size?

    Raises:
        ValueError: what is wrong, in words.
    """
    try:
        if isinstance(segmentation, list):
            if not all(isinstance(polygon, list) for polygon in segmentation):
                raise ValueError("polygons should be lists of numbers")
            if odd := [len(polygon) for polygon in segmentation if len(polygon) % 2]:
                raise ValueError(
                    f"a polygon has {odd[0]} numbers, not an x and a y for each corner"
                )
            if not all(all(map(isfinite, polygon)) for polygon in segmentation):
                raise ValueError("a corner is not finite")
        elif not isinstance(segmentation, dict) or not {"size", "counts"} <= {*segmentation}:
            raise ValueError("it should be polygons, or a mask with size and counts")
        else:
            counts = segmentation["counts"]
            if isinstance(counts, list) and not all(type(n) is int and n >= 0 for n in counts):
                raise ValueError("counts should be whole numbers from 0 on")
            decode_masks([segmentation], height, width)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise ValueError(str(error).partition("\n")[0].rstrip(".")) from None


def mask_to_polygons(mask: Tensor | Masks) -> list[list[float]]:
    """One bitmap (H, W) as polygons along the edges of its pixels: exact, `decode_masks` gives the
    mask back.

    Parts that touch only at a corner are polygons of their own. A hole is part of its polygon,
    which goes there and back along one line.
    """
    if isinstance(mask, Tensor):
        mask = mask.detach().bool().cpu().numpy()
    labelled, _ = ndimage.label(mask)
    polygons = []
    for part, window in enumerate(ndimage.find_objects(labelled), start=1):
        top, left = window[0].start, window[1].start
        outer, *holes = _rings(labelled[window] == part)
        # To each hole and back: the way is gone twice, and so encloses nothing.
        path = [*outer, outer[0]]
        for hole in holes:
            path += [*hole, hole[0], outer[0]]
        if not holes:
            path = outer
        polygons.append([float(v) for x, y in path for v in (x + left, y + top)])
    return polygons


Point = tuple[int, int]


def _rings(mask: Masks) -> list[list[Point]]:
    """The borders of one connected part that fills its array, corners (x, y) only; the outer one
    first."""
    padded = np.pad(mask, 1).astype(np.int8)
    # Directed edges with the object on their right: along the tops to the right, and so on.
    down, across = np.diff(padded, axis=0), np.diff(padded, axis=1)
    ways: dict[Point, list[Point]] = {}
    for edge, (dx, dy) in (
        (down[:, 1:-1] == 1, (1, 0)),
        (down[:, 1:-1] == -1, (-1, 0)),
        (across[1:-1] == 1, (0, -1)),
        (across[1:-1] == -1, (0, 1)),
    ):
        for y, x in np.argwhere(edge).tolist():
            start = (x + (dx < 0), y + (dy < 0))
            ways.setdefault(start, []).append((dx, dy))
    rings = []
    # The first point of the topmost row lies on the outer border.
    for start in sorted(ways, key=lambda point: (point[1], point[0])):
        while ways.get(start):
            rings.append(_ring(ways, start))
    return rings


def _ring(ways: dict[Point, list[Point]], start: Point) -> list[Point]:
    """One border from `start` on, its edges taken out of `ways`."""
    point, way = start, ways[start].pop()
    ring = [start]
    while True:
        point = (point[0] + way[0], point[1] + way[1])
        if point == start:
            break
        choices = ways[point]
        # Where two ways leave, turn towards the object: its pixels touch by a corner only.
        right = (-way[1], way[0])
        turn = right if len(choices) > 1 and right in choices else choices[-1]
        choices.remove(turn)
        if turn != way:
            ring.append(point)
        way = turn
    return ring


def _compressed(rle: dict[str, Any], height: int, width: int) -> Any:
    return library.frPyObjects(rle, height, width) if isinstance(rle["counts"], list) else rle


def _runs(mask: Masks) -> list[int]:
    """Lengths of the runs down the columns, the first of zeros."""
    line = mask.T.ravel()
    ends = np.flatnonzero(np.diff(line)) + 1
    runs = np.diff(np.concatenate([[0], ends, [line.size]]))
    return ([0] if line.size and line[0] else []) + [int(run) for run in runs]


def _text(counts: bytes | str) -> str:
    return counts.decode() if isinstance(counts, bytes) else counts
