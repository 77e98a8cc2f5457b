"""The annotation of one picture, out of whatever annotated data it is in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from eyeline.data.datasets import DetectionDataset, without_bad_boxes
from eyeline.data.formats import Annotations, Record, recognise, with_classes
from eyeline.data.formats.voc import annotation_of, read_voc_file
from eyeline.data.images import image_size, is_rotated
from eyeline.errors import EyelineError
from eyeline.structures import Target


class AnnotatedPicture(NamedTuple):
    """A picture and its annotation."""

    image: Tensor  # (3, H, W) uint8
    target: Target
    left_out: int  # boxes without an area, or that stick out of the picture


def annotated_picture(
    source: str | Path,
    picture: str | Path,
    classes: Sequence[str],
    masks: bool = False,
    format: str | None = None,
) -> AnnotatedPicture:
    """A picture and its target, with the labels that `classes` gives the names.

    Args:
        source: a Pascal VOC .xml, or whatever `recognise` knows, all splits of it.
        picture: found there by its file name; it may lie elsewhere.
        masks: decode them where they are annotated.
        format: its name, where the folder looks like several.

    Boxes that cannot be meant are left out, and counted.

    Raises EyelineError where the picture is not annotated there, its annotation is of another
    size, or an object's class is not one of `classes`.
    """
    source, picture = Path(source), Path(picture)
    if not picture.is_file():
        raise EyelineError(f"{picture}: no such picture")
    same, named = {}, {}
    for part in _read(source, picture, classes, format):
        for record in part.records:
            if record.path.name == picture.name:
                own = Annotations(part.classes, [replace(record, path=picture)], str(source))
                place = (record.path, *record.where)  # one, where "train" is part of "trainval"
                named[place] = own
                if record.path.resolve() == picture.resolve():
                    same[place] = own
    found = list((same or named).values())
    if len(found) != 1:
        count = f"{len(found)} pictures are" if found else "no picture is"
        raise EyelineError(f"{source}: {count} named {picture.name}; give its own annotation")
    given = found[0].records[0]
    _check_size(given, source)
    data = DetectionDataset(with_classes(found[0], list(classes)), bad_boxes="drop")
    if masks and data.has_masks:
        data.use_masks()
    image, target = data[0]
    left_out = len(given.boxes) - len(without_bad_boxes([given], "drop")[0].boxes)
    return AnnotatedPicture(image, target, left_out)


def _check_size(given: Record, source: Path) -> None:
    """Boxes that were drawn on a picture of another size say nothing about this one."""
    height, width = image_size(given.path)
    if (height, width) == (given.height, given.width):
        return
    if (height, width) == (given.width, given.height) and is_rotated(given.path):
        return  # the dataset says what is to be done
    raise EyelineError(
        f"{source}: the annotation of {given.path.name} is of {given.width}x{given.height} pixels, "
        f"and {given.path} has {width}x{height}; give the picture that was annotated"
    )


def _read(
    source: Path, picture: Path, classes: Sequence[str], format: str | None
) -> list[Annotations]:
    """Those in which the picture may be."""
    if source.suffix.lower() == ".xml" and source.is_file():
        return [read_voc_file(source, picture)]
    found, folder = recognise(source, format)
    if found.NAME == "voc":
        return [read_voc_file(annotation_of(folder, picture), picture)]
    splits = found.splits(folder) or []
    if found.NAME == "coco":
        return [found.read(folder, split, picture=picture) for split in splits]
    parts, faults = [], []
    for split in splits:
        try:
            parts.append(found.read(folder, split, classes))
        except EyelineError as error:  # of a test split without annotations, say
            faults.append(error)
    if faults and not any(r.path.name == picture.name for part in parts for r in part.records):
        raise faults[0]
    return parts
