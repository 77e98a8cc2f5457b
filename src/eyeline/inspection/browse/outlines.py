"""Outlines of objects with no more corners than can be seen."""

from __future__ import annotations

from typing import Any

import numpy as np

from eyeline.data.formats import Record, Segmentation
from eyeline.ops.segmentations import decode_masks, mask_to_polygons

FINE = 1000  # an outline may be off by the picture's longer side divided by this
STAIRS = 0.75  # and that of a bitmap by so many pixels, which makes slopes of stairs


def outline(segmentation: Segmentation, record: Record) -> list[list[float]]:
    """Polygons [x, y, x, y ...] of one object; none where its segmentation cannot be read."""
    try:
        polygons: Any = segmentation
        tolerance = max(record.width, record.height) / FINE
        if isinstance(segmentation, dict):
            mask = decode_masks([segmentation], record.height, record.width)[0]
            polygons = mask_to_polygons(mask)
            tolerance = max(tolerance, STAIRS)
        rings = [np.array(polygon, float).reshape(-1, 2) for polygon in polygons]
    except (ValueError, KeyError, TypeError, RuntimeError):
        return []  # it is drawn as a box; `data check` tells what is wrong with it
    return [
        simplified(ring, tolerance).round(1).ravel().tolist()
        for ring in rings
        if len(ring) >= 3 and np.isfinite(ring).all()
    ]


def simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """The corners (N, 2) of a closed polygon without which it would be off by more than
    `tolerance`.

    Douglas and Peucker, "Algorithms for the reduction of the number of points required to
    represent a digitized line or its caricature", Cartographica 10(2), 1973.
    """
    far = int(((ring - ring[0]) ** 2).sum(1).argmax())
    closed = np.concatenate([ring, ring[:1]])
    keep = np.zeros(len(closed), bool)
    keep[[0, far]] = True
    waiting = [(0, far), (far, len(ring))]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        start, way = closed[first], closed[last] - closed[first]
        length = (way**2).sum()
        between = closed[first + 1 : last] - start
        # Nearest point of the straight piece, which is a point alone where it goes there and back.
        along = (between @ way / length).clip(0, 1)[:, None] if length else 0.0
        away = ((between - along * way) ** 2).sum(1)
        if away.max() > tolerance**2:
            middle = first + 1 + int(away.argmax())
            keep[middle] = True
            waiting += [(first, middle), (middle, last)]
    return ring[keep[:-1]]
