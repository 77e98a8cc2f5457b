"""Outlines of objects with no more corners than can be seen."""

from __future__ import annotations

from typing import Any

import numpy as np

from eyeline.data.formats import Record, Segmentation
from eyeline.ops.segmentations import decode_masks, mask_to_polygons

FINE = 1000  # an outline may be off by the picture's longer side divided by this
STAIRS = 1.0  # and that of a bitmap by so many pixels, which makes slopes of stairs


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
    """The corners (N, 2) of a closed polygon without those that hardly stick out.

    Again and again every other corner goes that lies within `tolerance` of the line between its
    neighbours. On a curve each round's error is a quarter of the next one's, so that all of them
    together are little more than the last.
    """
    skipped, idle = 0, 0  # corners of the odd or the even places that stay; rounds without change
    while len(ring) > 3 and idle < 2:
        start, way = np.roll(ring, 1, 0), np.roll(ring, -1, 0) - np.roll(ring, 1, 0)
        length = (way**2).sum(1)
        share = ((ring - start) * way).sum(1) / np.where(length > 0, length, 1)
        nearest = start + share.clip(0, 1)[:, None] * way
        near = ((ring - nearest) ** 2).sum(1) <= tolerance**2
        near[skipped::2] = False
        near[-1] &= not near[0]  # they are neighbours
        if len(ring) - near.sum() < 3:
            break
        idle = 0 if near.any() else idle + 1
        ring, skipped = ring[~near], 1 - skipped
    return ring
