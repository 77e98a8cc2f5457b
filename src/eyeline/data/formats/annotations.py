"""What every format is read into and written from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eyeline.errors import EyelineError
from eyeline.ops.segmentations import Segmentation

REGION = -1  # the label of a region without a class, in which nothing is to be learnt or judged


@dataclass
class Record:
    """One picture and its G objects."""

    path: Path
    width: int  # as annotated, or the picture's own where that is missing
    height: int
    boxes: np.ndarray  # (G, 4) float32, xyxy in pixels
    labels: np.ndarray  # (G,) int64, 0 .. K-1, or REGION
    iscrowd: np.ndarray  # (G,) bool, to be ignored: COCO's crowds, VOC's difficult, every REGION
    segmentations: list[Segmentation] | None  # one an object; None where the format has none
    image_id: int
    where: list[str]  # of each object, for messages: file and line, or file and index
    areas: np.ndarray | None = None  # (G,) of the objects, not their boxes, where annotated
    # What else a format says of each object, (G,) float64 each: "difficult", "truncated" and
    # "occluded" are 0 for no and 1 for yes (KITTI has degrees). What is not there is 0.
    attributes: dict[str, np.ndarray] = field(default_factory=dict)

    def attribute(self, name: str) -> np.ndarray:
        """(G,) float64: the attribute of each object, 0 where the source does not tell it."""
        return self.attributes.get(name, np.zeros(len(self.boxes)))


@dataclass
class Annotations:
    """All pictures of one split."""

    classes: list[str]  # names of the labels 0 .. K-1
    records: list[Record]
    source: str  # the file or folder and split, for messages and reports
    category_ids: list[int] | None = None  # of each class in the source, where it numbers them
    unread: list[str] = field(default_factory=list)  # in words: what the source has besides


def taken(record: Record, index: Sequence[int] | np.ndarray) -> Record:
    """The record with the objects of `index` alone, in that order; one may stand there twice."""
    index = np.asarray(index, np.int64)

    def chosen(values: list[Any]) -> list[Any]:
        return [values[i] for i in index]

    return replace(
        record,
        boxes=record.boxes[index],
        labels=record.labels[index],
        iscrowd=record.iscrowd[index],
        segmentations=None if record.segmentations is None else chosen(record.segmentations),
        where=chosen(record.where),
        areas=None if record.areas is None else record.areas[index],
        attributes={name: values[index] for name, values in record.attributes.items()},
    )


def spread(record: Record, num_classes: int) -> Record:
    """The record with an ignored object of every class in the place of each REGION.

    It means the same, and needs no region in what trains and measures.
    """
    region = record.labels == REGION
    if not region.any():
        return record
    index = np.repeat(np.arange(len(region)), np.where(region, num_classes, 1))
    record = taken(record, index)
    new = record.labels == REGION
    labels = record.labels.copy()
    labels[new] = np.tile(np.arange(num_classes), int(region.sum()))
    return replace(record, labels=labels)


def with_classes(
    annotations: Annotations,
    classes: Sequence[str],
    unknown: Literal["error", "ignore"] = "error",
) -> Annotations:
    """The same objects with the labels that `classes` gives their names.

    Args:
        unknown: what becomes of objects whose name is not there: "ignore" makes each a REGION.

    Raises:
        EyelineError: an object whose name is not there.
    """
    classes = list(classes)
    if unknown not in ("error", "ignore"):
        raise EyelineError(f'unknown is "error" or "ignore", not {unknown!r}')
    if classes == annotations.classes:
        return annotations
    known = [classes.index(n) if n in classes else REGION for n in annotations.classes]
    label_of = np.array([*known, REGION])  # the last is found by the label REGION, -1
    records = []
    for record in annotations.records:
        labels = label_of[record.labels].astype(np.int64)
        new = (labels == REGION) & (record.labels != REGION)
        if new.any() and unknown == "error":
            i = int(new.argmax())
            name = annotations.classes[record.labels[i]]
            raise EyelineError(
                f"{record.where[i]}: the class {name!r} is not one of {', '.join(classes)}"
            )
        records.append(replace(record, labels=labels, iscrowd=record.iscrowd | new))
    category_ids = None
    if annotations.category_ids:  # a class that the data lacks gets a number that is free there
        ids = dict(zip(annotations.classes, annotations.category_ids, strict=True))
        free = count(max(ids.values()) + 1)
        category_ids = [ids[name] if name in ids else next(free) for name in classes]
    return replace(annotations, classes=classes, records=records, category_ids=category_ids)


CLASS_LIST = "classes.txt"


def read_class_list(folder: Path) -> list[str] | None:
    """The names in classes.txt, one a line in the order of their labels, where there is one.

    By it the formats without a list of their own keep the order, and classes without an object.
    """
    path = folder / CLASS_LIST
    if not path.is_file():
        return None
    names = [line.strip() for line in read_text(path).splitlines()]
    while names and not names[-1]:
        names.pop()
    for number, name in enumerate(names, 1):
        if not name or name in names[: number - 1]:
            fault = f"the class {name!r} is there twice" if name else "an empty line among names"
            raise EyelineError(f"{path}:{number}: {fault}; give each class one line")
    return names


def write_class_list(folder: Path, classes: Sequence[str]) -> None:
    (folder / CLASS_LIST).write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")


def read_text(path: Path) -> str:
    """The text of a UTF-8 file. Raises EyelineError where it is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise EyelineError(
            f"{path}: not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8"
        ) from None
