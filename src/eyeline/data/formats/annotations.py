"""What every format is read into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eyeline.ops.segmentations import Segmentation


@dataclass
class Record:
    """One picture and its G objects."""

    path: Path
    width: int  # as annotated, or the picture's own where that is missing
    height: int
    boxes: np.ndarray  # (G, 4) float32, xyxy in pixels
    labels: np.ndarray  # (G,) int64, 0 .. K-1
    iscrowd: np.ndarray  # (G,) bool: COCO's crowds, VOC's difficult
    segmentations: list[Segmentation] | None  # one an object; None where the format has none
    image_id: int
    where: list[str]  # of each object, for messages: file and line, or file and index
    areas: np.ndarray | None = None  # (G,) of the objects, not their boxes, where annotated


@dataclass
class Annotations:
    """All pictures of one split."""

    classes: list[str]  # names of the labels 0 .. K-1
    records: list[Record]
    source: str  # the file or folder and split, for messages and reports
    category_ids: list[int] | None = None  # of each class in the source, where it numbers them
