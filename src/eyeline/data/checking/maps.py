"""Data with a class for every pixel, in numbers.

Letters   K classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eyeline.data.formats import REGION, Annotations, Record
from eyeline.ops.segmentations import rle_area


@dataclass
class MapStatistics:
    """Of one split; lists have an entry a class."""

    classes: list[str]
    pictures: int
    pixels: list[int]
    within: list[int]  # pictures in which the class is
    present: list[int]  # labelled pixels of these pictures, for weights of the classes
    ignored: int  # pixels
    nothing: int  # pixels that are of no class, and not to be ignored

    @property
    def labelled(self) -> int:
        return sum(self.pixels)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def areas_of(record: Record) -> np.ndarray:
    """(G,) int64: pixels of each object of a picture of masks."""
    segmentations = record.segmentations or []
    return np.array([rle_area(s) if isinstance(s, dict) else 0 for s in segmentations], np.int64)


def map_statistics(data: Annotations) -> MapStatistics:
    """Of masks, whose objects are each all pixels of a class."""
    count = len(data.classes)
    pixels, within, present = (np.zeros(count, np.int64) for _ in range(3))
    ignored = nothing = 0
    for record in data.records:
        areas, known = areas_of(record), record.labels != REGION
        own = np.bincount(record.labels[known], areas[known], count).astype(np.int64)
        pixels += own
        within += own > 0
        present += (own > 0) * own.sum()
        ignored += int(areas[~known].sum())
        nothing += record.height * record.width - int(areas.sum())
    return MapStatistics(
        classes=list(data.classes),
        pictures=len(data.records),
        pixels=pixels.tolist(),
        within=within.tolist(),
        present=present.tolist(),
        ignored=ignored,
        nothing=nothing,
    )
