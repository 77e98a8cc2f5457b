"""A data set in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eyeline.data.checking.classes import count_objects
from eyeline.data.formats import Annotations

SMALL, LARGE = 32**2, 96**2  # square pixels: the bounds of COCO's medium objects


@dataclass
class Statistics:
    """Of one split; boxes without area count as objects, and nowhere else."""

    pictures: int
    without_objects: int  # of the pictures
    objects: int
    ignored: int  # of the objects: crowds, difficult ones, regions without a class
    by_class: dict[str, int]
    sizes: dict[str, int]  # pictures by size, "640x480", the most frequent first
    small: int  # boxes below 32^2 pixels of the picture,
    medium: int  # from there to 96^2,
    large: int  # and above
    aspect_ratios: list[float]  # width / height of the boxes: minimum, median, maximum
    per_picture: list[float]  # objects of a picture: minimum, median, maximum

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def statistics(data: Annotations) -> Statistics:
    records = data.records
    sizes = Counter(f"{record.width}x{record.height}" for record in records)
    counts = np.array([len(record.boxes) for record in records], np.int64)
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(r.boxes for r in records)])
    boxes = boxes[np.isfinite(boxes).all(1)].astype(np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    sides = sides[(sides > 0).all(1)]
    areas = sides.prod(1)
    return Statistics(
        pictures=len(records),
        without_objects=int((counts == 0).sum()),
        objects=int(counts.sum()),
        ignored=int(sum(record.iscrowd.sum() for record in records)),
        by_class=dict(zip(data.classes, count_objects(data).tolist(), strict=True)),
        sizes=dict(sizes.most_common()),
        small=int((areas < SMALL).sum()),
        medium=int(((areas >= SMALL) & (areas < LARGE)).sum()),
        large=int((areas >= LARGE).sum()),
        aspect_ratios=_range(sides[:, 0] / sides[:, 1]),
        per_picture=_range(counts),
    )


def _range(values: np.ndarray) -> list[float]:
    """Minimum, median and maximum; nothing of nothing."""
    if not len(values):
        return []
    return [round(float(v), 3) for v in (values.min(), np.median(values), values.max())]
