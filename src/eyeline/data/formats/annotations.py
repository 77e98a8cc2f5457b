"""What every format is read into and written from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eyeline.data.faults import STRICT, Fault, Faults
from eyeline.data.images import image_size
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
    # (G, P, 3) float32, where there are some: x, y in pixels, the first one's centre at 1/2, 1/2,
    # and 0 not labelled (then x and y are 0), 1 labelled but hidden, 2 visible.
    keypoints: np.ndarray | None = None
    mask: Path | None = None  # a class for every pixel, as the Annotations' legend tells

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
    keypoint_names: list[str] | None = None  # of the P keypoints of every object, if any
    legend: Any = None  # a `formats.legend.Legend`, where every record has a mask that it reads


@dataclass(slots=True)
class Object:
    """One object as a format tells it, for `record_of`."""

    where: str
    label: int
    box: Sequence[float] | np.ndarray  # xyxy in pixels
    iscrowd: bool = False
    segmentation: Segmentation = field(default_factory=list)
    area: float | None = None  # None: the box's
    attributes: Mapping[str, float] = field(default_factory=dict)
    keypoints: Sequence[Sequence[float]] | None = None  # as of a Record; None: none is labelled


def record_of(
    path: Path,
    size: tuple[int, int],
    objects: Sequence[Object],
    image_id: int,
    outlines: bool = False,
    areas: bool = False,
    keypoints: int = 0,
) -> Record:
    """The record of a picture of size (height, width).

    Args:
        outlines, areas: has the format such a thing?
        keypoints: how many of them an object has.
    """
    names = dict.fromkeys(name for o in objects for name in o.attributes)
    boxes = np.array([o.box for o in objects], np.float64).reshape(-1, 4)
    own = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    known = [w if o.area is None else o.area for o, w in zip(objects, own, strict=True)]
    points = np.zeros((len(objects), keypoints, 3), np.float32)
    for own_points, o in zip(points, objects, strict=True):
        own_points[:] = 0 if o.keypoints is None else o.keypoints
    return Record(
        path=path,
        width=size[1],
        height=size[0],
        boxes=boxes.astype(np.float32),
        labels=np.array([o.label for o in objects], np.int64),
        iscrowd=np.array([o.iscrowd for o in objects], bool),
        segmentations=[o.segmentation for o in objects] if outlines else None,
        image_id=image_id,
        where=[o.where for o in objects],
        areas=np.array(known, np.float32) if areas else None,
        attributes={n: np.array([o.attributes.get(n, 0.0) for o in objects]) for n in names},
        keypoints=points if keypoints else None,
    )


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width). Raises Fault where the picture is missing or unreadable."""
    try:
        return image_size(path)
    except EyelineError as error:
        raise Fault("picture", path, str(error).removeprefix(f"{path}: ")) from None


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
        keypoints=None if record.keypoints is None else record.keypoints[index],
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
    faults: Faults = STRICT,
) -> Annotations:
    """The same objects with the labels that `classes` gives their names.

    Args:
        unknown: what becomes of objects whose name is not there: "ignore" makes each a REGION.

    Raises:
        Fault: an object whose name is not there.
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
        before = record.labels
        labels = label_of[before].astype(np.int64)
        new = (labels == REGION) & (before != REGION)
        record = replace(record, labels=labels, iscrowd=record.iscrowd | new)
        if new.any() and unknown == "error":
            for i in np.flatnonzero(new):
                name = annotations.classes[before[i]]
                with faults:
                    raise Fault("class", record.where[i], unknown_class(name, classes))
            record = taken(record, np.flatnonzero(~new))
        records.append(record)
    category_ids = None
    if annotations.category_ids:  # a class that the data lacks gets a number that is free there
        ids = dict(zip(annotations.classes, annotations.category_ids, strict=True))
        free = count(max(ids.values()) + 1)
        category_ids = [ids[name] if name in ids else next(free) for name in classes]
    legend = annotations.legend and annotations.legend.known_as(classes, unknown)
    return replace(
        annotations, classes=classes, records=records, category_ids=category_ids, legend=legend
    )


def unknown_class(name: str, classes: Sequence[str]) -> str:
    """In words, and the one that may be meant."""
    folded = {known.casefold(): known for known in classes}
    near = get_close_matches(name.casefold(), folded, n=1)
    hint = f"; did you mean {folded[near[0]]!r}?" if near else ""
    return f"the class {name!r} is not one of {', '.join(classes)}{hint}"


CLASS_LIST = "classes.txt"


def read_class_list(folder: Path, file: str = CLASS_LIST) -> list[str] | None:
    """The names in classes.txt, one a line in the order of their labels, where there is one.

    By it the formats without a list of their own keep the order, and classes without an object.
    """
    path = folder / file
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


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises Fault where it is none, or where a key is twice in an
    object: of the two only the last would be seen."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise Fault("file", path, f"the key {twice!r} is twice in one object")
        return found

    try:
        return json.loads(path.read_bytes(), object_pairs_hook=unique)
    except Fault:  # which is a ValueError
        raise
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}:{error.colno}"
        raise Fault("file", where, f"not valid JSON: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise Fault("file", path, f"not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets
        raise Fault("file", path, f"not sensible JSON: {error}") from None
    except OSError as error:
        raise Fault("file", path, f"cannot be read: {error.strerror}") from None


def read_text(path: Path) -> str:
    """The text of a UTF-8 file. Raises Fault where it is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8"
        raise Fault("file", path, what) from None
    except OSError as error:
        raise Fault("file", path, f"cannot be read: {error.strerror}") from None
