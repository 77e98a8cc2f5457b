"""What a format can hold of annotations, and in words what it would lose of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace

import numpy as np

from eyeline.data.formats.annotations import REGION, Annotations, Record, spread, taken
from eyeline.data.formats.raster import mask_extent, rastered
from eyeline.data.images import image_size
from eyeline.errors import EyelineError
from eyeline.ops.segmentations import (
    Segmentation,
    check_segmentation,
    decode_masks,
    encode_rle,
    mask_to_polygons,
)

FEATURES = {
    "boxes": "a box that is not just the extent of its outline",
    "polygons": "outlines",
    "digits": "their corners to less than a millionth of a pixel",
    "parts": "outlines of several polygons",
    "thin": "polygons with fewer than three corners",
    "masks": "masks of pixels",
    "counts": "their run-length encoding as it is given, compressed or a list",
    "crowd": "objects that are many, COCO's way",
    "difficult": "objects not to be judged, VOC's way",
    "regions": "regions to be ignored, without a class",
    "degrees": "attributes between no and yes",
    "areas": "annotated areas of objects",
    "keypoints": "keypoints of objects",
    "sizes": "a picture's size as annotated",
    "empty": "pictures without objects",
    "ids": "numbers of pictures and classes",
    "blanks": "blanks in names of classes",
    "folders": "pictures of one name in two splits, each split having its folder",
    "plain": "objects that are a box alone, without an outline",
    "overlaps": "pixels that belong to several objects",
    "objects": "several objects of one class, told apart",
    # and every name of `Record.attributes`
}
SEPARATE = ("plain", "overlaps", "objects")  # what only pictures of masks cannot hold
IGNORED = {
    "regions": "region(s) to be ignored, without a class",
    "crowd": "crowd object(s)",
    "difficult": "difficult object(s)",
}


def fitted(annotations: Annotations, holds: Collection[str]) -> tuple[Annotations, list[str]]:
    """What a format that holds these FEATURES keeps of the annotations, and what it loses.

    What is written is just this, and is read again as just this.

    Raises:
        EyelineError: two names of classes differ in nothing but blanks.
    """
    lost: Counter[str] = Counter()
    records: list[Record] = []
    for record in annotations.records:
        if record.keypoints is not None and "keypoints" not in holds:
            # Before objects are left out, or become one with others.
            lost["keypoints of {} object(s)"] += int(record.keypoints.any((1, 2)).sum())
            record = replace(record, keypoints=None)
        record = _ignored(record, len(annotations.classes), holds, lost)
        record = _with_attributes(record, holds, lost)
        record = _outlined(record, holds, lost)
        if "overlaps" not in holds:
            record = rastered(record, "objects" in holds, lost)
        if record.areas is not None and "areas" not in holds:
            of_boxes = (record.boxes[:, 2:] - record.boxes[:, :2]).prod(1)
            other = ~np.isclose(record.areas, of_boxes, rtol=1e-4, atol=1e-2)
            lost["{} annotated area(s), other than the box's"] += int(other.sum())
            record = replace(record, areas=None)
        if "sizes" not in holds:
            height, width = image_size(record.path)
            other = (height, width) != (record.height, record.width)
            lost["{} annotated size(s), other than the picture's"] += other
            record = replace(record, height=height, width=width)
        if "ids" not in holds:
            record = replace(record, image_id=len(records))
        if len(record.boxes) or "empty" in holds:
            records.append(record)
        else:
            lost["{} picture(s) without objects"] += 1
    words = [_counted(text, number) for text, number in lost.items() if number]
    category_ids = annotations.category_ids
    if category_ids and "ids" not in holds:
        words.append("the ids of pictures and classes")
        category_ids = None
    classes = annotations.classes if "blanks" in holds else _without_blanks(annotations, words)
    points = annotations.keypoint_names if "keypoints" in holds else None
    kept = Annotations(classes, records, annotations.source, category_ids, keypoint_names=points)
    return kept, words + annotations.unread


def lost(annotations: Annotations, holds: Collection[str]) -> list[str]:
    """In words, what a format that holds these FEATURES would lose of the annotations."""
    return fitted(annotations, holds)[1]


def _counted(text: str, number: int) -> str:
    """ "{} mask(s) become(s) box(es)" -> "1 mask becomes box", "2 masks become boxes"."""
    one = number == 1
    for ending in ("(es)", "(s)"):
        text = text.replace(ending, "" if one else ending[1:-1])
    return text.format(number).replace("become ", "becomes ") if one else text.format(number)


def _ignored(
    record: Record, num_classes: int, holds: Collection[str], lost: Counter[str]
) -> Record:
    """Whatever the format calls objects that are to be ignored, they stay so, or are left out."""
    region = record.labels == REGION
    if region.any() and "regions" not in holds and {"crowd", "difficult"} & set(holds):
        text = "{} region(s) without a class become an ignored object of each class"
        lost[text] += int(region.sum())
        record = spread(record, num_classes)
        region = record.labels == REGION
    difficult = (record.attribute("difficult") > 0) & ~region
    crowd = record.iscrowd & ~difficult & ~region
    labels, hard = record.labels.copy(), np.zeros(len(region))
    keep = np.ones(len(region), bool)
    for name, own in (("regions", region), ("crowd", crowd), ("difficult", difficult)):
        held = [kind for kind in (name, "crowd", "difficult", "regions") if kind in holds]
        if not held:
            keep &= ~own
            lost[f"{{}} {IGNORED[name]} left out"] += int(own.sum())
        elif held[0] != name:
            lost[f"{{}} {IGNORED[name]} become {IGNORED[held[0]]}"] += int(own.sum())
        if held[:1] == ["regions"]:
            labels[own] = REGION
        hard[own] = held[:1] == ["difficult"]
    attributes = {**record.attributes, "difficult": hard}
    return taken(replace(record, labels=labels, attributes=attributes), np.flatnonzero(keep))


def _with_attributes(record: Record, holds: Collection[str], lost: Counter[str]) -> Record:
    attributes = {}
    for name, values in record.attributes.items():
        kept = np.where(record.labels == REGION, 0, values) if name in holds else values * 0
        lost[f"{name} of {{}} object(s)"] += int((kept != values).sum())
        values = kept
        if not values.any():  # what is not there is 0
            continue
        if name in ("difficult", "truncated", "occluded") and "degrees" not in holds:
            between = (values != 0) & (values != 1)
            lost[f"how much {{}} object(s) become {name}"] += int(between.sum())
            values = (values > 0).astype(np.float64)
        attributes[name] = values
    return replace(record, attributes=attributes)


def _outlined(record: Record, holds: Collection[str], lost: Counter[str]) -> Record:
    """The segmentations in the forms that the format has."""
    if record.segmentations is None:
        return record
    if not {"polygons", "masks"} & set(holds):
        lost["{} outline(s) become box(es)"] += sum(map(bool, record.segmentations))
        return replace(record, segmentations=None)
    boxes, segmentations = record.boxes.copy(), list(record.segmentations)
    done: dict[int, tuple[Segmentation, Counter[str]]] = {}  # a region of every class has one
    for i, given in enumerate(segmentations):
        if not given:
            continue
        if id(given) not in done:
            _check(record, i)
            own: Counter[str] = Counter()
            done[id(given)] = _converted(given, record, holds, own), own
        kept, own = done[id(given)]
        segmentations[i] = kept
        lost.update(own)
        if kept and "boxes" not in holds:
            boxes[i] = extent(kept, record.height, record.width)
            other = bool((boxes[i] != record.boxes[i]).any())
            lost["{} box(es) become the extent of the outline"] += other
    return replace(record, boxes=boxes, segmentations=segmentations)


def _check(record: Record, i: int) -> None:
    """Raises EyelineError where an object's segmentation is none."""
    try:
        check_segmentation((record.segmentations or [])[i], record.height, record.width)
    except ValueError as error:
        raise EyelineError(f"{record.where[i]}: its segmentation: {error}; mend it") from None


def _converted(
    given: Segmentation, record: Record, holds: Collection[str], lost: Counter[str]
) -> Segmentation:
    """One object's segmentation; [] where nothing of it can be kept."""
    size = record.height, record.width
    if isinstance(given, dict) and "masks" not in holds:
        lost["{} mask(s) become outline(s) of the same pixels"] += 1
        given = mask_to_polygons(decode_masks([given], *size)[0])
    elif isinstance(given, list) and "polygons" not in holds:
        lost["{} outline(s) become mask(s) of pixels"] += 1
        given = encode_rle(decode_masks([given], *size))[0]
    if isinstance(given, list) and "digits" not in holds:
        rounded = [[round(value, 6) for value in polygon] for polygon in given]
        lost["digits of {} outline(s) beyond a millionth of a pixel"] += rounded != given
        given = rounded
    if isinstance(given, list) and "thin" not in holds:
        thin = sum(len(polygon) < 6 for polygon in given)
        lost["{} part(s) of outlines left out, with fewer than three corners"] += thin
        given = [polygon for polygon in given if len(polygon) >= 6]
    if isinstance(given, list) and "parts" not in holds:
        lost["{} outline(s) of several parts become one, along lines between"] += len(given) > 1
        given = [joined(given)] if given else []
    if isinstance(given, dict) and "counts" not in holds:  # another spelling of the same pixels
        given = encode_rle(decode_masks([given], *size))[0]
    return given


def joined(polygons: list[list[float]]) -> list[float]:
    """One polygon that goes along all of them; the way between two is gone twice, and so
    encloses nothing."""
    first, *others = polygons
    path = list(first)
    for polygon in others:
        path += [*first[:2], *polygon, *polygon[:2]]
    return path + first[:2] if others else path


def extent(segmentation: Segmentation, height: int, width: int) -> np.ndarray:
    """(4,) float32 xyxy: the box around polygons or a mask."""
    if isinstance(segmentation, list):
        points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in segmentation])
        return np.concatenate([points.min(0), points.max(0)]).astype(np.float32)
    return mask_extent(decode_masks([segmentation], height, width)[0])


def _without_blanks(annotations: Annotations, words: list[str]) -> list[str]:
    names = [name.replace(" ", "_") for name in annotations.classes]
    changed = [old for old, new in zip(annotations.classes, names, strict=True) if old != new]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise EyelineError(
            f"{annotations.source}: two classes would both be called {twice!r} in a format "
            "without blanks in names; rename one"
        )
    if changed:
        words.append(_counted("blanks in {} name(s) of classes, now _", len(changed)))
    return names
